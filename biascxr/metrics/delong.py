"""DeLong's variance of an AUROC and his tests, with the images of a patient kept together (Obuchowski's form).

Every positive has a placement value V10, the share of negatives that it scores above, and every negative a V01, the share of
positives that score above it. An AUROC is the mean of either; its variance comes from their sums within patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from biascxr.metrics.significance import TestResult

# A variance below this is rounding: one pair out of 10^10 that is ordered the wrong way gives about 1e-20.
_NO_VARIANCE = 1e-24


@dataclass(frozen=True)
class ClusteredAuroc:
    """An AUROC and its variance over patients.

    Attributes:
        value: in [0, 1]; NaN without both classes.
        variance: of `value`; NaN with fewer than two patients in either class.
        n_positive_patients: patients with an image labelled positive.
        n_negative_patients: patients with an image labelled negative.
        n_patients: patients with a known label.
    """

    value: float
    variance: float
    n_positive_patients: int
    n_negative_patients: int
    n_patients: int


@dataclass(frozen=True)
class _Placements:
    """Placement values of S scores of the same rows, as deviations from the AUROC summed within patients.

    `positive[i, s]` is the sum over the patient's positives of `w (V10 - AUROC)`, divided by the weight of all positives;
    `negative` the same for V01.
    """

    values: np.ndarray  # [S]
    positive: np.ndarray  # [patients, S]
    negative: np.ndarray  # [patients, S]
    n_positive_patients: int
    n_negative_patients: int

    def covariance(self, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
        """Returns `S10 / m + S01 / n + 2 S11 / (m n)`, as a matrix over the columns of the deviations."""
        counts = self.n_positive_patients, self.n_negative_patients, len(positive)
        if min(counts[:2]) < 2:
            return np.full((positive.shape[1],) * 2, np.nan)
        of_positives, of_negatives, of_both = (count / (count - 1) for count in counts)
        crossed = positive.T @ negative
        return of_positives * positive.T @ positive + of_negatives * negative.T @ negative + of_both * (crossed + crossed.T)


def _share_below(score: np.ndarray, others: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Returns for each score the share of the others' weight that lies below it, ties counted half."""
    order = np.argsort(others, kind="stable")
    ranked, total = others[order], np.r_[0.0, np.cumsum(weight[order])]
    below, up_to = (total[np.searchsorted(ranked, score, side=side)] for side in ("left", "right"))
    return (below + up_to) / (2 * total[-1])


def _placements(
    y_true: np.ndarray, scores: tuple[np.ndarray, ...], patient_id: np.ndarray | None, weight: np.ndarray | None
) -> _Placements:
    y = np.asarray(y_true, np.float64)
    scores = tuple(np.asarray(score, np.float64) for score in scores)
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, np.float64)
    patient_id = np.arange(len(y)) if patient_id is None else np.asarray(patient_id)
    for name, array in (("score", scores[0]), ("score", scores[-1]), ("weight", weight), ("patient_id", patient_id)):
        if array.shape != y.shape:
            raise ValueError(f"{name} must have one value per row of y_true, shape {y.shape}; its shape is {array.shape}.")
    if not (weight >= 0).all():
        raise ValueError("weight must be 0 or more in every row, without NaN.")
    if not np.isin(y[~np.isnan(y)], (0, 1)).all():
        raise ValueError("y_true must be 0, 1 or NaN (unknown); give a binary label.")
    used = ~np.isnan(y) & (weight > 0)
    if any(np.isnan(score[used]).any() for score in scores):
        raise ValueError("score is NaN where y_true is known: a missing score has no rank. Leave these rows out.")

    _, patient = np.unique(patient_id[used], return_inverse=True)
    n_patients = int(patient.max(initial=-1)) + 1
    is_positive, w = y[used] == 1, weight[used]
    of_positive, of_negative = patient[is_positive], patient[~is_positive]
    counts = len(np.unique(of_positive)), len(np.unique(of_negative))
    if 0 in counts:
        undefined = np.full((n_patients, len(scores)), np.nan)
        return _Placements(np.full(len(scores), np.nan), undefined, undefined, *counts)
    w_positive, w_negative = w[is_positive], w[~is_positive]
    values, positive, negative = [], [], []
    for score in scores:
        above, below = score[used][is_positive], score[used][~is_positive]
        v10 = _share_below(above, below, w_negative)
        v01 = 1 - _share_below(below, above, w_positive)
        values.append(w_positive @ v10 / w_positive.sum())
        positive.append(np.bincount(of_positive, w_positive * (v10 - values[-1]), n_patients) / w_positive.sum())
        negative.append(np.bincount(of_negative, w_negative * (v01 - values[-1]), n_patients) / w_negative.sum())
    return _Placements(np.array(values), np.stack(positive, axis=1), np.stack(negative, axis=1), *counts)


def clustered_auroc(
    y_true: np.ndarray, score: np.ndarray, patient_id: np.ndarray, weight: np.ndarray | None = None
) -> ClusteredAuroc:
    """AUROC with its variance when a patient has several images, of one label or of both.

    With V10 and V01 summed within patient i over its m_i positives and n_i negatives (m and n in all), of I10 patients with a
    positive, I01 with a negative and I in all:

        S10 = I10 / ((I10 - 1) m) sum_i (V10_i - m_i AUROC)^2       S01 likewise with V01, n and I01
        S11 = I / (I - 1) sum_i (V10_i - m_i AUROC)(V01_i - n_i AUROC)
        variance = S10 / m + S01 / n + 2 S11 / (m n)

    With one image per patient it is DeLong's variance. With weights, sums of w stand in place of m, n and the counts behind
    V10 and V01: a row of weight 2 is the row twice, in the same patient. The I count patients, weighted or not, so that the
    scale of the weights does not matter.

    Args:
        y_true: `[n]` in {0, 1, NaN}; rows whose label is NaN are left out.
        score: `[n]`; any monotone score, ties counted half.
        patient_id: `[n]`; whole-number codes are faster than text.
        weight: `[n]`, at least 0; default 1. Rows of weight 0 are left out.

    Raises:
        ValueError: lengths differ, a label is neither 0, 1 nor NaN, a weight is below 0, or a score is NaN.

    Reference: Obuchowski, Biometrics 1997; DeLong, DeLong and Clarke-Pearson, Biometrics 1988.
    """
    made = _placements(y_true, (score,), patient_id, weight)
    variance = float(made.covariance(made.positive, made.negative)[0, 0])
    counts = made.n_positive_patients, made.n_negative_patients, len(made.positive)
    return ClusteredAuroc(float(made.values[0]), variance, *counts)


def clustered_auroc_covariance(
    y_true: np.ndarray,
    score_a: np.ndarray,
    score_b: np.ndarray,
    patient_id: np.ndarray,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Covariance of the AUROCs of two scores on the same rows.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score_a: `[n]`.
        score_b: `[n]`.
        patient_id: `[n]`.
        weight: `[n]`, at least 0; default 1.

    Returns:
        `[2, 2] float64`, the variances of `clustered_auroc` on its diagonal; NaN with fewer than two patients in a class.

    Reference: Obuchowski, Biometrics 1997.
    """
    made = _placements(y_true, (score_a, score_b), patient_id, weight)
    return made.covariance(made.positive, made.negative)


def _z_test(difference: float, variance: float) -> TestResult:
    if np.isnan(difference) or np.isnan(variance):
        return TestResult(float("nan"), 1.0, float("nan"))
    if variance < _NO_VARIANCE:
        # The same ranking twice differs by nothing, and surely so; a difference without variance has no z.
        z = 0.0 if abs(difference) < np.sqrt(_NO_VARIANCE) else float("nan")
    else:
        z = difference / np.sqrt(variance)
    return TestResult(float(z), 1.0, float(2 * stats.norm.sf(abs(z))))


def delong_test(
    y_true: np.ndarray,
    score_a: np.ndarray,
    score_b: np.ndarray,
    patient_id: np.ndarray | None = None,
    *,
    weight: np.ndarray | None = None,
) -> TestResult:
    """Do two scores of the same rows have the same AUROC? DeLong's paired test, images of a patient kept together.

    `z = (AUROC_a - AUROC_b) / sqrt(var_a + var_b - 2 cov_ab)`, two-sided.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score_a: `[n]`.
        score_b: `[n]`.
        patient_id: `[n]`; by default every row is its own patient, which is wrong where a patient has several images.
        weight: `[n]`, at least 0; default 1.

    Returns:
        z, above 0 where `score_a` ranks better; NaN with fewer than two patients in a class. Two scores of one ranking give
        z = 0 and p = 1.

    Reference: DeLong, DeLong and Clarke-Pearson 1988; Obuchowski 1997.
    """
    made = _placements(y_true, (score_a, score_b), patient_id, weight)
    # Differences before squares: two scores of the same ranking then have a variance of exactly 0.
    positive, negative = (part[:, :1] - part[:, 1:] for part in (made.positive, made.negative))
    return _z_test(float(made.values[0] - made.values[1]), float(made.covariance(positive, negative)[0, 0]))


def delong_test_unpaired(first: ClusteredAuroc, second: ClusteredAuroc) -> TestResult:
    """Do two groups without a common patient have the same AUROC? `z = (first - second) / sqrt(var_1 + var_2)`, two-sided.

    The normal approximation is liberal in small groups and near an AUROC of 1: `welch_james_test` on logits is the safer one.

    Args:
        first: the AUROC of one group.
        second: the AUROC of the other.

    Reference: DeLong, DeLong and Clarke-Pearson 1988.
    """
    return _z_test(first.value - second.value, first.variance + second.variance)
