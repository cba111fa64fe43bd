"""Underdiagnosis: called healthy although something is there; the FPR of "No Finding" (Seyyed-Kalantari et al. 2021)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from biascxr.containers import Predictions
from biascxr.metrics.fairness import derived_no_finding, derived_no_finding_label

NO_FINDING = "No Finding"
DERIVED_NO_FINDING = "No Finding (derived)"


def add_derived_no_finding(predictions: Predictions) -> Predictions:
    """Adds a marked label where a table has no "No Finding": its score is 1 - max over the findings.

    It takes part in no macro or micro average. A decision, where the findings have decisions, is that none is flagged.

    Returns:
        The predictions with the label at the end; as they are where there is a "No Finding", or one finding only, or where
        the derived label has one class.
    """
    names = predictions.label_names
    if any(_plain(name) == _plain(NO_FINDING) for name in names) or DERIVED_NO_FINDING in names or len(names) < 2:
        return predictions
    label = derived_no_finding_label(predictions.y_true)
    if len(np.unique(label[~np.isnan(label)])) < 2:
        return predictions
    decisions = predictions.decisions
    if decisions is not None:
        none_flagged = np.where(np.isnan(decisions).any(axis=1), np.nan, 1 - decisions.max(axis=1))
        decisions = np.column_stack([decisions, none_flagged]).astype(decisions.dtype)
    score = derived_no_finding(predictions.scores)
    return replace(
        predictions,
        y_true=np.column_stack([predictions.y_true, label]).astype(predictions.y_true.dtype),
        scores=np.column_stack([predictions.scores, score]).astype(predictions.scores.dtype),
        decisions=decisions,
        label_names=(*names, DERIVED_NO_FINDING),
    )


def n_findings(label_names: tuple[str, ...]) -> int:
    """Returns the number of labels that averages are over: the derived one, always last, is not one of them."""
    return len(label_names) - (DERIVED_NO_FINDING in label_names)


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").strip()
