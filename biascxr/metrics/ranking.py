"""Metrics of the ranking by score on one binary label: pure functions of labels, scores and weights.

Rows whose label is NaN are left out. Where a metric is undefined (no positives for an AUROC) its value is NaN, never 0 or 1.
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
    y_true, score = np.asarray(y_true, np.float64), np.asarray(score)
    weight = np.ones(len(y_true)) if weight is None else np.asarray(weight, np.float64)
    return float(auroc_replicates(y_true, score, weight[None])[0])


def auroc_replicates(y_true: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC under many weightings at once; the scores are sorted once.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`.
        weights: `[R, n]`, one weighting a row. Whole-number weights (resamples) are exact in float32 too, and faster.

    Returns:
        `[R] float64`, NaN where undefined.

    Reference: Hanley and McNeil, Radiology 1982 (the formula of `auroc`).
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


def auprc(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Area under the precision-recall curve as average precision. It depends on prevalence.

    `sum_t (R_t - R_{t-1}) P_t` over the distinct scores t, highest first, where R_t and P_t are recall and precision when
    all rows that score t or more are flagged; rows with tied scores enter together. There is no interpolation, which would
    be optimistic.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`; any monotone score.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in (0, 1]; NaN without positives. Without negatives it is 1; a score that says nothing gives the prevalence.

    Reference: Davis and Goadrich, ICML 2006; scikit-learn's `average_precision_score`.
    """
    y_true, score = np.asarray(y_true, np.float64), np.asarray(score)
    weight = np.ones(len(y_true)) if weight is None else np.asarray(weight, np.float64)
    counts = ~np.isnan(y_true) & (weight > 0)  # a block without weight would have no precision
    y, s, w = y_true[counts] == 1, score[counts], weight[counts]
    if not y.any():
        return float("nan")
    order = np.argsort(-s, kind="stable")
    y, s, w = y[order], s[order], w[order]
    last_of_block = np.r_[s[1:] != s[:-1], True]
    found = np.cumsum(np.where(y, w, 0))[last_of_block]
    precision = found / np.cumsum(w)[last_of_block]
    return float((np.diff(found, prepend=0) * precision).sum() / found[-1])


def cross_auroc(
    y_true: np.ndarray,
    score: np.ndarray,
    in_positive_group: np.ndarray,
    in_negative_group: np.ndarray,
    weight: np.ndarray | None = None,
) -> float:
    """xAUC: the chance that a positive of one group scores above a negative of another, ties counted half.

    `P(s_i > s_j) + P(s_i = s_j) / 2` for a positive i of group a and a negative j of group b. Where `xAUC_ab` is below
    `xAUC_ba`, positives of a are ranked worse against negatives of b than the other way round.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`; any monotone score.
        in_positive_group: `[n] bool`, the rows of group a.
        in_negative_group: `[n] bool`, the rows of group b; equal to group a it gives the group's own AUROC.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN without positives in a or without negatives in b.

    Reference: Kallus and Zhou, The fairness of risk scores beyond classification, NeurIPS 2019, definition 1.
    """
    y_true, score = np.asarray(y_true, np.float64), np.asarray(score)
    weight = np.ones(len(y_true)) if weight is None else np.asarray(weight, np.float64)
    rows = np.where(y_true == 1, np.asarray(in_positive_group, bool), np.asarray(in_negative_group, bool))
    return auroc(y_true[rows], score[rows], weight[rows])


def bnsp_auroc(y_true: np.ndarray, score: np.ndarray, in_group: np.ndarray, weight: np.ndarray | None = None) -> float:
    """BNSP AUC: negatives of the background against positives of the subgroup.

    `xAUC(positives of the subgroup, negatives of everyone else)`. A low value means that the subgroup's positives score too
    low, which shows as false negatives in the subgroup at a shared threshold.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`; any monotone score.
        in_group: `[n] bool`; all other rows are the background, so give only rows whose group is known.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN without positives in the subgroup or without negatives in the background.

    Reference: Borkan et al., Nuanced metrics for measuring unintended bias, WWW companion 2019.
    """
    in_group = np.asarray(in_group, bool)
    return cross_auroc(y_true, score, in_group, ~in_group, weight)


def bpsn_auroc(y_true: np.ndarray, score: np.ndarray, in_group: np.ndarray, weight: np.ndarray | None = None) -> float:
    """BPSN AUC: positives of the background against negatives of the subgroup.

    `xAUC(positives of everyone else, negatives of the subgroup)`. A low value means that the subgroup's negatives score too
    high, which shows as false positives in the subgroup at a shared threshold.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`; any monotone score.
        in_group: `[n] bool`; all other rows are the background, so give only rows whose group is known.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1]; NaN without positives in the background or without negatives in the subgroup.

    Reference: Borkan et al., Nuanced metrics for measuring unintended bias, WWW companion 2019.
    """
    in_group = np.asarray(in_group, bool)
    return cross_auroc(y_true, score, ~in_group, in_group, weight)


def roc_curve_on_grid(y_true: np.ndarray, score: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """TPR at fixed FPRs, linearly interpolated between the operating points: no single patient can be read off it.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`.
        grid: `[m]` false positive rates in [0, 1].

    Returns:
        `[m] float64`; NaN without both classes.

    Reference: Fawcett, Pattern Recognition Letters 2006, algorithm 1.
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
