"""Metrics of the decisions on one binary label: pure functions of labels, decisions and weights.

Every metric of a cell rests on the same rows: those with a known label and a known decision. Where a metric is undefined (no
positives for a TPR) its value is NaN, never 0 or 1.
"""

from __future__ import annotations

import numpy as np

# metric -> (value of the label, value of the decision) that its rows must have, and (label, decision) of those it counts.
# None admits both values. Accuracy counts where the two agree, so it has no row here.
_RATES = {
    "TPR": ((1, None), (1, 1)),
    "FPR": ((0, None), (0, 1)),
    "TNR": ((0, None), (0, 0)),
    "FNR": ((1, None), (1, 0)),
    "PPV": ((None, 1), (1, 1)),
    "NPV": ((None, 0), (0, 0)),
    "selection_rate": ((None, None), (None, 1)),
}
RATES = (*_RATES, "accuracy")


def _rows_with(y_true: np.ndarray, decision: np.ndarray, values: tuple[int | None, int | None]) -> np.ndarray:
    label, flag = values
    rows = ~np.isnan(y_true) if label is None else y_true == label
    return rows & (~np.isnan(decision) if flag is None else decision == flag)


def rate_replicates(metric: str, y_true: np.ndarray, decision: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A rate under many weightings at once: `sum of the weights of the rows counted / sum of the weights of the rows`.

    Args:
        metric: one of `RATES`, for instance `"TPR"`, `"PPV"` or `"accuracy"`.
        y_true: `[n]` or `[n, L]` in {0, 1, NaN}; a NaN label is left out.
        decision: the same shape, in {0, 1, NaN}; a NaN decision is left out.
        weights: `[R, n]`, at least 0.

    Returns:
        `[R]` or `[R, L] float64`, NaN where undefined.

    Raises:
        ValueError: for an unknown metric.
    """
    if metric not in RATES:
        raise ValueError(f"metric must be one of {', '.join(RATES)}; got {metric!r}.")
    if metric == "accuracy":
        among = _rows_with(y_true, decision, (None, None))
        counted = y_true == decision
    else:
        among, counted = (_rows_with(y_true, decision, values) for values in _RATES[metric])
    total = (weights @ among.astype(weights.dtype)).astype(np.float64)
    hits = weights @ (among & counted).astype(weights.dtype)
    return np.divide(hits, total, out=np.full(total.shape, np.nan), where=total > 0)


def _rate(metric: str, y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None) -> float:
    y_true, decision = np.asarray(y_true, np.float64), np.asarray(decision, np.float64)
    weight = np.ones(len(y_true)) if weight is None else np.asarray(weight, np.float64)
    return float(rate_replicates(metric, y_true, decision, weight[None])[0])


def true_positive_rate(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """TPR (sensitivity, recall): the share of positives that are flagged, `TP / (TP + FN)`.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        decision: `[n]` in {0, 1, NaN}.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN without positives.

    Reference: Yerushalmy, Public Health Reports 1947 (sensitivity and specificity).
    """
    return _rate("TPR", y_true, decision, weight)


def false_positive_rate(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """FPR (1 - specificity): the share of negatives that are flagged, `FP / (FP + TN)`.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        decision: `[n]` in {0, 1, NaN}.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN without negatives.

    Reference: Yerushalmy, Public Health Reports 1947.
    """
    return _rate("FPR", y_true, decision, weight)


def true_negative_rate(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """TNR (specificity): the share of negatives that are not flagged, `TN / (FP + TN) = 1 - FPR`.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        decision: `[n]` in {0, 1, NaN}.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN without negatives.

    Reference: Yerushalmy, Public Health Reports 1947.
    """
    return _rate("TNR", y_true, decision, weight)


def false_negative_rate(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """FNR (miss rate): the share of positives that are not flagged, `FN / (TP + FN) = 1 - TPR`.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        decision: `[n]` in {0, 1, NaN}.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN without positives.

    Reference: Yerushalmy, Public Health Reports 1947.
    """
    return _rate("FNR", y_true, decision, weight)


def positive_predictive_value(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """PPV (precision): the share of flagged rows that are positive, `TP / (TP + FP)`. It depends on prevalence.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        decision: `[n]` in {0, 1, NaN}.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN where nobody is flagged.

    Reference: Vecchio, New England Journal of Medicine 1966.
    """
    return _rate("PPV", y_true, decision, weight)


def negative_predictive_value(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """NPV: the share of rows not flagged that are negative, `TN / (TN + FN)`. It depends on prevalence.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        decision: `[n]` in {0, 1, NaN}.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN where everyone is flagged.

    Reference: Vecchio, New England Journal of Medicine 1966.
    """
    return _rate("NPV", y_true, decision, weight)


def selection_rate(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Selection rate: the share of rows that are flagged, `(TP + FP) / n`. It depends on prevalence.

    The label's value plays no part, but a row with an unknown label is left out, so that this metric rests on the same rows
    as the others.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        decision: `[n]` in {0, 1, NaN}.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN where no row has a known label and decision.

    Reference: Dwork et al., Fairness through awareness, ITCS 2012 (statistical parity).
    """
    return _rate("selection_rate", y_true, decision, weight)


def accuracy(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Accuracy: the share of rows whose decision is right, `(TP + TN) / n`. It depends on prevalence.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        decision: `[n]` in {0, 1, NaN}.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN where no row has a known label and decision.

    Reference: Hand, Construction and Assessment of Classification Rules, 1997 (1 - error rate).
    """
    return _rate("accuracy", y_true, decision, weight)


def balanced_accuracy(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Balanced accuracy: `(TPR + TNR) / 2`, the accuracy at a prevalence of one half.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        decision: `[n]` in {0, 1, NaN}.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN without positives or without negatives (scikit-learn leaves the missing class out instead).

    Reference: Brodersen et al., ICPR 2010.
    """
    return (true_positive_rate(y_true, decision, weight) + true_negative_rate(y_true, decision, weight)) / 2
