"""Metrics of the scores of one binary label as probabilities: pure functions of labels, scores and weights.

Rows whose label is NaN are left out, and so are rows of weight 0. Where a metric is undefined its value is NaN, never 0.
Scores are probabilities in [0, 1], none of them NaN; anything else is an error of the caller and raises ValueError.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from biascxr.metrics.balance import effective_n

# A logarithm or logit of a score of exactly 0 or 1 is infinite; such scores are moved inwards by this much.
SMALLEST_PROBABILITY = 1e-7
MAX_NEWTON_STEPS = 2000  # under 10 as a rule; classes that are nearly separated have a far-off slope


def _known_rows(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns labels, scores and weights in float64 of the rows that count."""
    y_true, score = np.asarray(y_true, np.float64), np.asarray(score, np.float64)
    weight = np.ones(len(y_true)) if weight is None else np.asarray(weight, np.float64)
    counts = ~np.isnan(y_true) & (weight > 0)
    y, s, w = y_true[counts], score[counts], weight[counts]
    outside = ~((s >= 0) & (s <= 1))
    if outside.any():
        raise ValueError(
            f"score must hold probabilities in [0, 1]; got {s[outside][0]} and {outside.sum() - 1} more outside. "
            "Give a logit through the logistic function first."
        )
    return y, s, w


def _clipped(score: np.ndarray) -> np.ndarray:
    return np.clip(score, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)


def brier_score(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Brier score, the mean squared error of the probabilities: `sum w (s - y)^2 / sum w`. It depends on prevalence.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`, probabilities.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1], low is good; NaN without a known row.

    Reference: Brier, Monthly Weather Review 1950.
    """
    y, s, w = _known_rows(y_true, score, weight)
    return float((w * (s - y) ** 2).sum() / w.sum()) if len(y) else float("nan")


def log_loss(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Log loss (cross-entropy) in nats: `-sum w (y log s + (1 - y) log(1 - s)) / sum w`. It depends on prevalence.

    Scores are clipped to [1e-7, 1 - 1e-7] first, so a row costs at most 16.1 however wrong it is.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`, probabilities.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value above 0, low is good; NaN without a known row.

    Reference: Good, Rational decisions, Journal of the Royal Statistical Society B 1952.
    """
    y, s, w = _known_rows(y_true, score, weight)
    if not len(y):
        return float("nan")
    s = _clipped(s)
    return float(-(w * np.where(y == 1, np.log(s), np.log1p(-s))).sum() / w.sum())


def _check_bins(n_bins: int) -> None:
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1; got {n_bins}.")


def calibration_bin(score: np.ndarray, n_bins: int) -> np.ndarray:
    """Returns `[n] int`: bins `[b / n_bins, (b + 1) / n_bins)`, the last one closed."""
    edges = np.linspace(0, 1, n_bins + 1)
    return np.searchsorted(edges[1:-1], score, side="right")


def expected_calibration_error(
    y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None, *, n_bins: int = 15
) -> float:
    """ECE: the mean over bins of how far the mean score is from the share of positives.

    `sum_b (W_b / W) |mean_b(s) - mean_b(y)|` over equal-width bins `[b / n_bins, (b + 1) / n_bins)` of [0, 1], the last one
    closed. The bins are fixed, so they are the same for every group. The value is too high in small groups, where noise
    alone moves every bin (`debiased_calibration_error`), and depends on where a group's scores lie.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`, probabilities.
        weight: `[n]`, at least 0; default 1.
        n_bins: number of bins, at least 1.

    Returns:
        A value in [0, 1], low is good; NaN without a known row.

    Reference: Naeini et al., AAAI 2015; 15 bins, Guo et al., ICML 2017.
    """
    _check_bins(n_bins)
    y, s, w = _known_rows(y_true, score, weight)
    if not len(y):
        return float("nan")
    residuals = np.bincount(calibration_bin(s, n_bins), weights=w * (s - y), minlength=n_bins)  # [n_bins], W_b d_b
    return float(np.abs(residuals).sum() / w.sum())


def debiased_calibration_error(
    y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None, *, n_bins: int = 15
) -> float:
    """ECE less the part that noise alone is expected to add in each bin, at least 0.

    `max(0, ECE - sum_b (W_b / W) (E|N(d_b, v_b)| - |d_b|))` with `d_b = mean_b(s) - mean_b(y)`, its variance
    `v_b = ybar_b (1 - ybar_b) / (n_b - 1)`, and the folded normal's mean
    `E|N(d, v)| = sqrt(2 v / pi) exp(-d^2 / (2 v)) + d (1 - 2 Phi(-d / sqrt(v)))`.

    n_b is Kish's effective n, so copies of rows given as weights add no information (the only metric here where a weight of
    2 is not the same as the row twice). Bins with one effective row, or labels of one class only, add no correction: their
    variance cannot be estimated. As d_b itself carries the noise, the correction takes away a part of the bias, not all.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`, probabilities.
        weight: `[n]`, at least 0; default 1.
        n_bins: number of equal-width bins, at least 1.

    Returns:
        A value in [0, 1], low is good; NaN without a known row.

    Reference: Kumar, Liang and Ma, Verified uncertainty calibration, NeurIPS 2019 (the normal debiasing of their library,
    in closed form instead of by draws).
    """
    _check_bins(n_bins)
    y, s, w = _known_rows(y_true, score, weight)
    if not len(y):
        return float("nan")
    bins = calibration_bin(s, n_bins)
    total = 0.0
    for b in np.unique(bins):
        own = bins == b
        share = w[own].sum()
        d = abs((w[own] * (s[own] - y[own])).sum() / share)
        positive = (w[own] * y[own]).sum() / share
        n = effective_n(w[own])
        v = positive * (1 - positive) / (n - 1) if n > 1 else 0.0
        total += share * (d - (_folded_normal_mean(d, v) - d))
    return float(max(0.0, total / w.sum()))


def _folded_normal_mean(mean: float, variance: float) -> float:
    """Returns E|X| of X ~ N(mean, variance)."""
    if variance <= 0:
        return abs(mean)
    z = mean / np.sqrt(variance)
    return float(np.sqrt(2 * variance / np.pi) * np.exp(-(z**2) / 2) + mean * (1 - 2 * special.ndtr(-z)))


def calibration_in_the_large(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Calibration-in-the-large: how far, on the logit scale, the risks are from the scores on the whole.

    The intercept a of `logit P(y = 1) = a + logit(s)`, with logit(s) as an offset, by weighted maximum likelihood: the root
    of `sum w (y - expit(a + logit(s))) = 0`. 0 is right; above 0 the scores are too low, below 0 too high. Scores are
    clipped to [1e-7, 1 - 1e-7] first.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`, probabilities.
        weight: `[n]`, at least 0; default 1.

    Returns:
        The intercept in logits; NaN without positives or without negatives (it would be infinite).

    Reference: Cox, Biometrika 1958; Van Calster et al., BMC Medicine 2019.
    """
    y, s, w = _known_rows(y_true, score, weight)
    if len(np.unique(y)) < 2:
        return float("nan")
    offset = special.logit(_clipped(s))
    w = w / w.sum()
    target = special.logit((w * y).sum())
    # All fitted risks are at most the observed rate at the lower end, at least that at the upper end: the root is between.
    low, high = target - offset.max(), target - offset.min()
    a = (low + high) / 2
    for _ in range(MAX_NEWTON_STEPS):
        risk = special.expit(a + offset)
        slope = (w * (y - risk)).sum()
        low, high = (a, high) if slope >= 0 else (low, a)
        curvature = (w * risk * (1 - risk)).sum()
        step = slope / curvature if curvature > 0 else np.inf
        # Newton's step, or half of what is left where it would leave the bracket: far from the root the curvature is flat.
        following = a + step if low <= a + step <= high else (low + high) / 2
        if abs(following - a) <= 1e-12 * (1 + abs(a)):
            return float(following)
        a = following
    return float(a)


def calibration_slope(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Calibration slope: are the scores as spread out as the risks?

    b of `logit P(y = 1) = a + b logit(s)` by weighted maximum likelihood. 1 is right; below 1 the scores are too extreme,
    above 1 too timid, below 0 they point the wrong way. Scores are clipped to [1e-7, 1 - 1e-7] first.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`, probabilities.
        weight: `[n]`, at least 0; default 1.

    Returns:
        The slope; NaN without positives or without negatives, where all scores are equal, and where one class scores at
        least as high as the other throughout (the slope would be infinite) or nearly so (it is lost in rounding).

    Reference: Cox, Biometrika 1958; Van Calster et al., BMC Medicine 2019.
    """
    y, s, w = _known_rows(y_true, score, weight)
    x = special.logit(_clipped(s))
    positives, negatives = x[y == 1], x[y == 0]
    if not len(positives) or not len(negatives):
        return float("nan")
    if positives.min() >= negatives.max() or negatives.min() >= positives.max():  # holds for equal scores too
        return float("nan")
    w = w / w.sum()
    centre = (w * x).sum()
    scale = np.sqrt((w * (x - centre) ** 2).sum())
    z = (x - centre) / scale  # so that the two steps below are of one size
    a, b = special.logit((w * y).sum()), 0.0
    for _ in range(MAX_NEWTON_STEPS):
        eta = a + b * z
        risk, opposite = special.expit(eta), special.expit(-eta)  # not 1 - risk, which is 0 for a risk near 1
        residual, information = w * np.where(y == 1, opposite, -risk), w * risk * opposite
        h0 = information.sum()
        middle = (information * z).sum() / h0 if h0 > 0 else np.nan
        h2 = (information * (z - middle) ** 2).sum()  # about the mean, so that nothing cancels
        if not h2 > 0:
            break
        g0, g2 = residual.sum(), (residual * (z - middle)).sum()
        step_b = g2 / h2
        step_a = g0 / h0 - step_b * middle
        if abs(step_b) <= 1e-6 * (1 + abs(b)) and abs(step_a) <= 1e-6 * (1 + abs(a)):
            return float((b + step_b) / scale)  # Newton's error is squared by this last step
        # Far from the maximum the likelihood is flat and a full step overshoots: none moves a row by more than 4 logits.
        shrink = min(1.0, 4 / np.abs(step_a + step_b * z).max())
        a, b = a + shrink * step_a, b + shrink * step_b
    return float("nan")
