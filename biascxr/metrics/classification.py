"""Metrics of one binary label: pure functions of labels, scores or decisions, and weights.

Rows whose label is NaN are left out. Where a metric is undefined (no positives for a TPR) the value is NaN, never 0 or 1.
"""

from __future__ import annotations

import numpy as np


def auroc(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half.

    `sum_ij w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / (sum_i w_i sum_j w_j)` over positives i and negatives j.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`; any monotone score.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN without positives or without negatives.

    Reference: Hanley and McNeil, Radiology 1982.
    """
    weight = np.ones(len(y_true)) if weight is None else weight
    return float(auroc_replicates(y_true, score, np.asarray(weight, np.float64)[None])[0])


def auroc_replicates(y_true: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC under many weightings at once; the scores are sorted once.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`.
        weights: `[R, n]`, one weighting a row. Whole-number weights (resamples) are exact in float32 too, and faster.

    Returns:
        `[R] float64`, NaN where undefined.
    """
    known = ~np.isnan(y_true)
    order = np.argsort(score[known], kind="stable")
    ranked = score[known][order]
    positive = y_true[known][order] == 1
    weights = weights[:, known][:, order]
    # Tie blocks: every row looks at the negative weight before its block and inside it.
    starts_block = np.r_[True, ranked[1:] != ranked[:-1]] if len(ranked) else np.zeros(0, bool)
    first = np.flatnonzero(starts_block)
    block = np.cumsum(starts_block) - 1
    padded = np.zeros((len(weights), len(ranked) + 1), weights.dtype)
    np.cumsum(np.where(positive, 0, weights), axis=1, out=padded[:, 1:])
    edges = padded[:, np.r_[first, len(ranked)]]  # [R, blocks + 1]
    middle = (edges[:, 1:] + edges[:, :-1]) / 2  # negatives below, plus half of those tied
    at = np.flatnonzero(positive)
    wins = np.einsum("rp,rp->r", weights[:, at], middle[:, block[at]], dtype=np.float64)
    pairs = weights[:, at].sum(1, dtype=np.float64) * padded[:, -1]
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def _rate_replicates(counted: np.ndarray, among: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = (weights @ among.astype(weights.dtype)).astype(np.float64)
    hits = weights @ (among & counted).astype(weights.dtype)
    return np.divide(hits, total, out=np.full(total.shape, np.nan), where=total > 0)


def rate_replicates(metric: str, y_true: np.ndarray, decision: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """TPR, FPR, TNR or FNR under many weightings at once.

    Args:
        metric: `"TPR"`, `"FPR"`, `"TNR"` or `"FNR"`.
        y_true: `[n]` or `[n, L]` in {0, 1, NaN}.
        decision: the same shape, in {0, 1, NaN}; a NaN decision is left out.
        weights: `[R, n]`.

    Returns:
        `[R]` or `[R, L] float64`, NaN where undefined.
    """
    among = (y_true == (1.0 if metric in ("TPR", "FNR") else 0.0)) & ~np.isnan(decision)
    return _rate_replicates(decision == (1.0 if metric in ("TPR", "FPR") else 0.0), among, weights)


def _rate(metric: str, y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None) -> float:
    weight = np.ones(len(y_true)) if weight is None else np.asarray(weight, np.float64)
    return float(rate_replicates(metric, np.asarray(y_true), np.asarray(decision, np.float64), weight[None])[0])


def true_positive_rate(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """TPR (sensitivity, recall): the share of positives that are flagged. NaN without positives."""
    return _rate("TPR", y_true, decision, weight)


def false_positive_rate(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """FPR (1 - specificity): the share of negatives that are flagged. NaN without negatives."""
    return _rate("FPR", y_true, decision, weight)


def true_negative_rate(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """TNR (specificity) = 1 - FPR. NaN without negatives."""
    return _rate("TNR", y_true, decision, weight)


def false_negative_rate(y_true: np.ndarray, decision: np.ndarray, weight: np.ndarray | None = None) -> float:
    """FNR (miss rate) = 1 - TPR. NaN without positives."""
    return _rate("FNR", y_true, decision, weight)


def roc_curve_on_grid(y_true: np.ndarray, score: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """TPR at fixed FPRs, linearly interpolated between the operating points: no single patient can be read off it.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`.
        grid: `[m]` false positive rates in [0, 1].

    Returns:
        `[m] float64`; NaN without both classes.
    """
    known = ~np.isnan(y_true)
    y, s = y_true[known] == 1, score[known]
    if y.all() or not y.any():
        return np.full(len(grid), np.nan)
    order = np.argsort(-s, kind="stable")
    last_of_block = np.r_[s[order][1:] != s[order][:-1], True]
    tpr = np.r_[0.0, (np.cumsum(y[order]) / y.sum())[last_of_block]]
    fpr = np.r_[0.0, (np.cumsum(~y[order]) / (~y).sum())[last_of_block]]
    return np.interp(grid, fpr, tpr)
