"""Thresholds: rules that turn scores into decisions. A row is flagged when its score is at or above the threshold.

Every rule is fitted on one set of rows and applied to another; none may see the rows it is judged on.
"""

from __future__ import annotations

import numpy as np


def decide(score: np.ndarray, threshold: np.ndarray | float) -> np.ndarray:
    """Returns 1.0 where `score >= threshold`, else 0.0; NaN where the threshold is NaN (it could not be fitted)."""
    return np.where(np.isnan(threshold), np.nan, (score >= threshold).astype(np.float64))


def fixed_fpr_threshold(y_true: np.ndarray, score: np.ndarray, *, fpr: float) -> float:
    """The lowest threshold whose false positive rate on these rows is at most `fpr`.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`.
        fpr: the highest FPR allowed, in [0, 1].

    Returns:
        The threshold; NaN without negatives.
    """
    negatives = np.sort(score[y_true == 0])[::-1]
    if len(negatives) == 0:
        return float("nan")
    allowed = int(np.floor(fpr * len(negatives) + 1e-9))
    if allowed >= len(negatives):
        return float(np.min(score))
    # Just above the first negative that must not be flagged; scores tied with it are then not flagged either.
    return float(np.nextafter(negatives[allowed], np.inf, dtype=negatives.dtype))


def youden_threshold(y_true: np.ndarray, score: np.ndarray) -> float:
    """The threshold that maximises TPR - FPR (Youden 1950); of several, the highest. NaN without both classes."""
    known = ~np.isnan(y_true)
    y, s = y_true[known] == 1, score[known]
    if len(y) == 0 or y.all() or not y.any():
        return float("nan")
    order = np.argsort(-s, kind="stable")
    s, y = s[order], y[order]
    last_of_block = np.r_[s[1:] != s[:-1], True]
    gain = (np.cumsum(y) / y.sum() - np.cumsum(~y) / (~y).sum())[last_of_block]
    return float(s[last_of_block][np.argmax(gain)])
