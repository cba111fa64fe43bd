"""Label policy: what an uncertain or a blank label becomes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from biascxr.containers import Cohort
from biascxr.errors import InputError, unknown_name


def choose_labels(labels: pd.DataFrame, wanted: tuple[str, ...]) -> pd.DataFrame:
    """Restricts the findings to those the user asked for.

    Raises:
        InputError: a wanted finding is not in the table; the nearest one is named.
    """
    for name in wanted:
        if name not in labels:
            raise unknown_name("label", name, labels.columns)
    return labels[list(wanted)] if wanted else labels


def apply_policies(labels: pd.DataFrame, *, uncertain: str, blank: str) -> tuple[np.ndarray, pd.DataFrame]:
    """Turns recorded labels into {0, 1, NaN}.

    Args:
        labels: `[n, L]` in {1, 0, -1, NaN}; -1 is uncertain, NaN is blank.
        uncertain: `"zeros"`, `"ones"` or `"ignore"` (NaN: masked in the loss and in the metrics).
        blank: `"zeros"` or `"ignore"`.

    Returns:
        The labels `[n, L] float32`, and per label how many were `uncertain`, `blank`, `positive`, `negative`, `masked`.
    """
    recorded = labels.to_numpy(np.float64)
    is_uncertain, is_blank = recorded == -1.0, np.isnan(recorded)
    cleaned = recorded.copy()
    cleaned[is_uncertain] = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}[uncertain]
    cleaned[is_blank] = {"zeros": 0.0, "ignore": np.nan}[blank]
    counts = pd.DataFrame(
        {
            "label": labels.columns,
            "uncertain": is_uncertain.sum(0),
            "blank": is_blank.sum(0),
            "positive": (cleaned == 1).sum(0),
            "negative": (cleaned == 0).sum(0),
            "masked": np.isnan(cleaned).sum(0),
        }
    )
    return cleaned.astype(np.float32), counts


def relabel(cohort: Cohort, *, uncertain: str) -> Cohort:
    """Returns the cohort under another policy for uncertain labels; rows, findings and splits stay as they are.

    Args:
        cohort: one that holds its labels as `recorded`.
        uncertain: `"zeros"`, `"ones"` or `"ignore"`.
    """
    if cohort.recorded is None:
        raise ValueError("relabel needs Cohort.recorded, the labels before policies.")
    labels, _ = apply_policies(
        pd.DataFrame(cohort.recorded, columns=list(cohort.label_names)),
        uncertain=uncertain,
        blank=cohort.accounting["blank_policy"],
    )
    return replace(cohort, labels=labels, accounting=cohort.accounting | {"uncertain_policy": uncertain})


def both_classes(labels: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Finds the findings that are all positive or all negative: nothing can be learned or measured on them.

    Returns:
        Which findings have both classes, `[L] bool`, and a note per finding that has not.

    Raises:
        InputError: no finding is left.
    """
    has_both = (labels == 1).any(0) & (labels == 0).any(0)
    notes = [
        f"{name}: one class only ({'no positive' if not (labels[:, i] == 1).any() else 'no negative'}), left out."
        for i, name in enumerate(names)
        if not has_both[i]
    ]
    if not has_both.any():
        raise InputError("No label has both positives and negatives among the selected rows. " + " ".join(notes))
    return has_both, notes
