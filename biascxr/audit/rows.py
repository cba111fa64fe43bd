"""The rows that a finding is measured on, or those of all findings pooled (micro)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from biascxr.audit.underdiagnosis import n_findings
from biascxr.containers import Predictions
from biascxr.metrics.sorted_pass import SortedLabel, sort_label


def label_rows(predictions: Predictions, label: int) -> SortedLabel:
    """Sorts the rows of one finding by score; the number after the last finding is that of all findings pooled.

    Pooled, a row of the table stands there once for each finding whose label is known.
    """
    decisions = predictions.decisions
    if label < len(predictions.label_names):
        decision = None if decisions is None else decisions[:, label]
        return sort_label(predictions.y_true[:, label], predictions.scores[:, label], decision)
    n, averaged = len(predictions.table), slice(n_findings(predictions.label_names))
    pooled = sort_label(
        predictions.y_true[:, averaged].T.ravel(),
        predictions.scores[:, averaged].T.ravel(),
        None if decisions is None else decisions[:, averaged].T.ravel(),
    )
    return replace(pooled, row=np.mod(pooled.row, n))
