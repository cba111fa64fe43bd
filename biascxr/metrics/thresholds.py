"""Thresholds: rules that turn scores into decisions. A row is flagged when its score is at or above the threshold.

Every rule is fitted on one set of rows and applied to another; none may see the rows it is judged on. The candidates are the
distinct scores of the rows that count (label known, weight above 0), of which the smallest flags everyone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THRESHOLD_RULES = {
    "fixed_fpr": "biascxr.metrics.thresholds:fixed_fpr_threshold",
    "0.5": "biascxr.metrics.thresholds:half_threshold",
    "youden": "biascxr.metrics.thresholds:youden_threshold",
    "g_mean": "biascxr.metrics.thresholds:g_mean_threshold",
    "min_gap": "biascxr.metrics.thresholds:minimum_gap_threshold",
    "f1": "biascxr.metrics.thresholds:f1_threshold",
    "fixed_tpr": "biascxr.metrics.thresholds:fixed_tpr_threshold",
}

# Sums of weights carry rounding errors: rates closer than this are the same rate.
_ROUNDING = 1e-9


def decide(score: np.ndarray, threshold: np.ndarray | float) -> np.ndarray:
    """Returns 1.0 where `score >= threshold`, else 0.0; NaN where the threshold is NaN (it could not be fitted)."""
    return np.where(np.isnan(threshold), np.nan, (score >= threshold).astype(np.float64))


@dataclass(frozen=True)
class _Candidates:
    """The distinct scores `[c]`, highest first, and the weight flagged at each: positives, negatives, and their totals."""

    thresholds: np.ndarray
    true_positive: np.ndarray
    false_positive: np.ndarray
    positive: float
    negative: float

    @property
    def tpr(self) -> np.ndarray:
        return self.true_positive / self.positive

    @property
    def fpr(self) -> np.ndarray:
        return self.false_positive / self.negative

    def highest_best(self, criterion: np.ndarray) -> float:
        """Returns the highest threshold among those whose criterion `[c]` is the largest."""
        return float(self.thresholds[np.flatnonzero(criterion >= criterion.max() - _ROUNDING)[0]])


def _candidates(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None) -> _Candidates:
    weight = np.ones(len(y_true)) if weight is None else np.asarray(weight, np.float64)
    counts = ~np.isnan(y_true) & (weight > 0)
    order = np.argsort(-score[counts], kind="stable")
    s, y, w = (values[counts][order] for values in (score, y_true == 1, weight))
    last_of_block = np.r_[s[1:] != s[:-1], True] if len(s) else np.zeros(0, bool)
    positive, negative = np.cumsum(w * y), np.cumsum(w * ~y)
    return _Candidates(
        thresholds=s[last_of_block],
        true_positive=positive[last_of_block],
        false_positive=negative[last_of_block],
        positive=float(positive[-1]) if len(s) else 0.0,
        negative=float(negative[-1]) if len(s) else 0.0,
    )


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1]; got {value}. Give a fraction, not percent.")


def half_threshold(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """One half, whatever the rows say: the rule that fits nothing."""
    return 0.5


def fixed_fpr_threshold(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None, *, fpr: float = 0.20) -> float:
    """The lowest threshold whose false positive rate on these rows is at most `fpr`.

    It lies just above a score of a negative, so that every score above that one is flagged, also one not seen here.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`.
        weight: `[n]`, at least 0; default 1.
        fpr: the highest FPR allowed, in [0, 1].

    Returns:
        The threshold; NaN without negatives.

    Raises:
        ValueError: fpr outside [0, 1].
    """
    _check_share("fpr", fpr)
    weight = np.ones(len(y_true)) if weight is None else np.asarray(weight, np.float64)
    is_negative = (y_true == 0) & (weight > 0)
    if not is_negative.any():
        return float("nan")
    order = np.argsort(-score[is_negative], kind="stable")
    negatives, flagged = score[is_negative][order], np.cumsum(weight[is_negative][order])
    goes_over = flagged > (fpr + _ROUNDING) * flagged[-1]
    if not goes_over.any():
        return float(np.min(score[weight > 0]))
    # Just above the first negative that must not be flagged; scores tied with it are then not flagged either.
    return float(np.nextafter(negatives[np.argmax(goes_over)], np.inf, dtype=negatives.dtype))


def fixed_tpr_threshold(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None, *, tpr: float) -> float:
    """The highest threshold whose true positive rate on these rows is at least `tpr`.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`.
        weight: `[n]`, at least 0; default 1.
        tpr: the lowest TPR allowed, in [0, 1].

    Returns:
        The threshold; NaN without positives.

    Raises:
        ValueError: tpr outside [0, 1].
    """
    _check_share("tpr", tpr)
    at = _candidates(y_true, score, weight)
    if at.positive == 0:
        return float("nan")
    return float(at.thresholds[np.argmax(at.tpr >= tpr - _ROUNDING)])


def youden_threshold(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The threshold that maximises TPR - FPR; of several, the highest. NaN without both classes.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`.
        weight: `[n]`, at least 0; default 1.

    Reference: Youden, Cancer 1950.
    """
    at = _candidates(y_true, score, weight)
    if at.positive == 0 or at.negative == 0:
        return float("nan")
    return at.highest_best(at.tpr - at.fpr)


def g_mean_threshold(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The threshold that maximises sqrt(TPR x TNR); of several, the highest. NaN without both classes.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`.
        weight: `[n]`, at least 0; default 1.

    Reference: Kubat and Matwin, ICML 1997.
    """
    at = _candidates(y_true, score, weight)
    if at.positive == 0 or at.negative == 0:
        return float("nan")
    return at.highest_best(np.sqrt(at.tpr * (1 - at.fpr)))


def minimum_gap_threshold(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The threshold that minimises |TPR - TNR|; of several, the highest. NaN without both classes.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`.
        weight: `[n]`, at least 0; default 1.
    """
    at = _candidates(y_true, score, weight)
    if at.positive == 0 or at.negative == 0:
        return float("nan")
    return at.highest_best(-np.abs(at.tpr - (1 - at.fpr)))


def f1_threshold(y_true: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The threshold that maximises F1 = 2 TP / (2 TP + FP + FN); of several, the highest. NaN without positives.

    F1 rests on prevalence: where groups differ in it, so do their F1 thresholds, although the scores mean the same.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`.
        weight: `[n]`, at least 0; default 1.
    """
    at = _candidates(y_true, score, weight)
    if at.positive == 0:
        return float("nan")
    # TP + FN = all positives.
    return at.highest_best(2 * at.true_positive / (at.true_positive + at.false_positive + at.positive))


def shrink_threshold(own: float, overall: float, n_positive: float, strength: float = 25.0) -> float:
    """A group's own threshold, drawn towards everyone's where the group has few positives.

    `logit t = w logit(own) + (1 - w) logit(overall)` with `w = n_positive / (n_positive + strength)`. The logits of
    thresholds nearer to 0 or 1 than one in a million are taken there, where they are finite.

    Args:
        own: the group's threshold, a probability; NaN (it could not be fitted) gives `overall`.
        overall: the threshold of everyone.
        n_positive: positives behind `own`, at least 0.
        strength: positives at which both count alike, at least 0; 0 leaves `own` as it is.

    Returns:
        A threshold between the two; NaN where `overall` is needed and NaN.

    Raises:
        ValueError: a negative n_positive or strength.
    """
    if n_positive < 0 or strength < 0:
        raise ValueError(f"n_positive and strength must be at least 0; got {n_positive} and {strength}.")
    if np.isnan(own) or n_positive == 0:
        return float(overall)
    share = n_positive / (n_positive + strength)
    if share == 1 or own == overall:  # exactly, not by way of a logit
        return float(own)
    a, b = (np.log(p / (1 - p)) for p in np.clip([own, overall], 1e-6, 1 - 1e-6))
    drawn = 1 / (1 + np.exp(-(share * a + (1 - share) * b)))
    return float(np.clip(drawn, min(own, overall), max(own, overall)))
