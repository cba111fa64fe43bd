"""Power: which gap between groups could be seen at all, before anyone trains anything.

A test that cannot see a gap of .2 has not shown that there is none. What counts is patients of the class, not images: images
of one patient say much the same. The design effect `1 + (m - 1) icc` turns images into the number of independent images that
would be as good, `m = sum n_i^2 / sum n_i` being the mean number of images of the patient that a random image belongs to.

The closed form of rates is that of Donner's adjusted chi-square, whose variance is pooled. A z test with cluster-robust
variances sees somewhat less (power .70 to .76 where .80 is claimed) when the group that does worse is much the smaller one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.special import ndtr, ndtri

from biascxr.errors import InputError

MIN_PATIENTS = 2


@dataclass(frozen=True)
class ClassSize:
    """How much of one class (positives or negatives of a finding) a group has.

    Attributes:
        n_patients: patients with an image of the class.
        n_images: their images of the class.
        weighted_images: `sum n_i^2 / sum n_i` over these patients; at least `n_images / n_patients`.
    """

    n_patients: float
    n_images: float
    weighted_images: float

    @classmethod
    def even(cls, n_patients: float, images_per_patient: float) -> ClassSize:
        """Returns the size where every patient has the same number of images."""
        return cls(n_patients, n_patients * images_per_patient, images_per_patient)

    @classmethod
    def count(cls, patient_id: np.ndarray) -> ClassSize:
        """Returns the size from the patients of the images of the class, `[n] int`, numbered from 0."""
        images = np.bincount(patient_id).astype(np.float64)
        images = images[images > 0]
        n = float(images.sum())
        return cls(len(images), n, float((images**2).sum() / n) if n else 0.0)

    def design_effect(self, icc: float) -> float:
        """Returns how many times the variance of a rate is that of independent images, at least 1; NaN without images."""
        return 1 + max(0.0, self.weighted_images - 1) * icc if self.n_images else float("nan")

    def effective(self, icc: float) -> float:
        """Returns the number of independent images that is as good; NaN with under two patients."""
        return self.n_images / self.design_effect(icc) if self.n_patients >= MIN_PATIENTS else float("nan")


# From differences `[m]`: the standard error of a measured difference if there is none, and if there is one of this size.
StandardErrors = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _rate_errors(effective_a: float, effective_b: float, rate: float) -> StandardErrors:
    """Standard errors for two proportions: pooled if they are equal, each with its own variance if not (Fleiss)."""

    def errors(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lower = rate - difference
        pooled = (effective_a * lower + effective_b * rate) / (effective_a + effective_b)
        null = pooled * (1 - pooled) * (1 / effective_a + 1 / effective_b)
        return np.sqrt(null), np.sqrt(lower * (1 - lower) / effective_a + rate * (1 - rate) / effective_b)

    return errors


def auroc_variance(auroc: np.ndarray | float, n_positive: float, n_negative: float) -> np.ndarray | float:
    """Variance of an AUROC of independent images.

    `[A (1 - A) + (n1 - 1) (Q1 - A^2) + (n0 - 1) (Q2 - A^2)] / (n1 n0)`, `Q1 = A / (2 - A)`, `Q2 = 2 A^2 / (1 + A)`.

    Args:
        auroc: in [0, 1], one or `[m]`.
        n_positive: n1, may be an effective number; at least 1.
        n_negative: n0, likewise.

    Returns:
        As many values as AUROCs.

    Reference: Hanley and McNeil, Radiology 1982.
    """
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    above = (n_positive - 1) * (q1 - auroc**2) + (n_negative - 1) * (q2 - auroc**2)
    # At an AUROC of 0 or 1 rounding could leave a number just below 0.
    return np.maximum(0.0, auroc * (1 - auroc) + above) / (n_positive * n_negative)


def _auroc_errors(a: tuple[float, float], b: tuple[float, float], auroc: float) -> StandardErrors:
    """Standard errors for two independent AUROCs; a and b are effective numbers of positives and negatives."""
    of_b, of_a_if_equal = auroc_variance(auroc, *b), auroc_variance(auroc, *a)

    def errors(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        of_a = auroc_variance(auroc - difference, *a)
        return np.full(np.shape(difference), np.sqrt(of_a_if_equal + of_b)), np.sqrt(of_a + of_b)

    return errors


def _power(difference: np.ndarray, errors: StandardErrors, alpha: float, n_tests: int) -> np.ndarray:
    """Chance that a two-sided z test rejects, `[m]`: both tails, Bonferroni over `n_tests`."""
    null, alternative = errors(difference)
    critical = -ndtri(alpha / n_tests / 2) * null
    alternative = np.maximum(alternative, 1e-12)  # rates of 1 and 0 leave no noise: the chance is then 0 or 1
    return ndtr((difference - critical) / alternative) + ndtr((-critical - difference) / alternative)


def _smallest_difference(reference: float, errors: StandardErrors, power: float, alpha: float, n_tests: int) -> float:
    """The smallest difference, downwards from `reference`, with this power; NaN where not even one down to 0 has it."""

    def missing(difference: np.ndarray) -> np.ndarray:
        return _power(difference, errors, alpha, n_tests) - power

    # Near 0 power may first fall: look for the first crossing before it is narrowed down.
    grid = np.linspace(0, reference, 201)
    reached = np.flatnonzero(missing(grid) >= 0)
    if len(reached) == 0:
        return float("nan")
    return float(optimize.brentq(missing, grid[reached[0] - 1], grid[reached[0]], xtol=1e-10))


def check_settings(
    *, power: float, alpha: float, n_tests: int, icc: float, images_per_patient: float = 1.0, **rates: float
) -> None:
    """Raises InputError for a setting out of range; `rates` by the name to call them."""
    for name, value in {**rates, "power": power, "alpha": alpha}.items():
        if not 0 < value < 1:
            raise InputError(f"{name} must lie between 0 and 1; got {value}. Give a fraction, not percent.")
    if power <= alpha:
        raise InputError(f"power must be above alpha, which no difference at all reaches; got {power} and {alpha}.")
    if not 0 <= icc <= 1:
        raise InputError(f"icc must lie in [0, 1]; got {icc}.")
    if not n_tests >= 1:
        raise InputError(f"n_tests must be at least 1; got {n_tests}.")
    if not images_per_patient >= 1:
        raise InputError(f"images_per_patient must be at least 1, a patient of the class has one; got {images_per_patient}.")


def detectable_difference(
    n_patients_a: float,
    n_patients_b: float,
    *,
    rate: float = 0.8,
    images_per_patient: float = 1.0,
    icc: float = 0.5,
    power: float = 0.8,
    alpha: float = 0.05,
    n_tests: int = 1,
) -> float:
    """The smallest difference of a rate between two groups that a test sees with this power.

    Group b has `rate`, group a has `rate - difference`: a TPR that is lower. For an FPR that is higher in group a, give the
    TNR, 1 - FPR, as the rate. Two independent proportions, pooled variance if equal, each its own if not; two-sided.

    Args:
        n_patients_a: patients of the class (positives for a TPR, negatives for an FPR) in the group that does worse.
        n_patients_b: patients of the class in the group it is compared with.
        rate: of group b, between 0 and 1.
        images_per_patient: images of the class per patient, the same for all. Where it varies, `power_table` counts it.
        icc: correlation of being flagged between two images of a patient, in [0, 1].
        power: chance of seeing it.
        alpha: level, two-sided.
        n_tests: how many tests are made; the level is divided by it (Bonferroni).

    Returns:
        A difference above 0; NaN with under two patients in a group, or where it would have to be larger than `rate`.

    Raises:
        InputError: a setting out of range.

    Reference: Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, 2003; design effect, Donner and Klar 2000.
    """
    check_settings(rate=rate, power=power, alpha=alpha, n_tests=n_tests, icc=icc, images_per_patient=images_per_patient)
    a, b = (ClassSize.even(n, images_per_patient) for n in (n_patients_a, n_patients_b))
    return detectable_rate(a, b, rate, icc=icc, power=power, alpha=alpha, n_tests=n_tests)


def detectable_rate(a: ClassSize, b: ClassSize, rate: float, *, icc: float, **test: float) -> float:
    """The smallest difference of a rate, from the sizes of the class; `test` as of `detectable_difference`."""
    effective = a.effective(icc), b.effective(icc)
    if np.isnan(effective).any():
        return float("nan")
    return _smallest_difference(rate, _rate_errors(*effective, rate), **test)


def power_of_difference(
    n_patients_a: float,
    n_patients_b: float,
    *,
    difference: float,
    rate: float = 0.8,
    images_per_patient: float = 1.0,
    icc: float = 0.5,
    alpha: float = 0.05,
    n_tests: int = 1,
) -> float:
    """The chance that a test sees a difference of a rate: the inverse of `detectable_difference`.

    Args:
        n_patients_a: patients of the class in the group that does worse.
        n_patients_b: patients of the class in the group it is compared with.
        difference: group b has `rate`, group a has `rate - difference`; in [0, rate].
        rate: of group b, between 0 and 1.
        images_per_patient: images of the class per patient, the same for all.
        icc: correlation of being flagged between two images of a patient, in [0, 1].
        alpha: level, two-sided.
        n_tests: how many tests are made; the level is divided by it (Bonferroni).

    Returns:
        A value in [0, 1]; NaN with under two patients in a group.

    Raises:
        InputError: a setting out of range.
    """
    check_settings(rate=rate, power=1 - 1e-9, alpha=alpha, n_tests=n_tests, icc=icc, images_per_patient=images_per_patient)
    _check_difference(difference, rate)
    effective = [ClassSize.even(n, images_per_patient).effective(icc) for n in (n_patients_a, n_patients_b)]
    if np.isnan(effective).any():
        return float("nan")
    return float(_power(difference, _rate_errors(*effective, rate), alpha, n_tests))


def _check_difference(difference: float, reference: float) -> None:
    if not 0 <= difference <= reference:
        raise InputError(f"difference must lie between 0 and the reference, {reference}; got {difference}.")


def detectable_auroc_difference(
    patients_a: tuple[float, float],
    patients_b: tuple[float, float],
    *,
    auroc: float = 0.8,
    images_per_patient: float = 1.0,
    icc: float = 0.5,
    power: float = 0.8,
    alpha: float = 0.05,
    n_tests: int = 1,
) -> float:
    """The smallest difference of an AUROC between two groups that a test sees with this power.

    Hanley and McNeil's variance at effective numbers of positives and negatives; if equal, both groups have `auroc`. The
    design effect of both classes is a cautious choice: where a patient has images of both classes, it is smaller.

    Args:
        patients_a: patients with a positive image and patients with a negative one, in the group that does worse.
        patients_b: the same in the group it is compared with.
        auroc: of group b, between 0 and 1; group a has `auroc - difference`.
        images_per_patient: images of a class per patient of that class, the same for all.
        icc: correlation of scores within a class between two images of a patient, in [0, 1].
        power: chance of seeing it.
        alpha: level, two-sided.
        n_tests: how many tests are made; the level is divided by it (Bonferroni).

    Returns:
        A difference above 0; NaN with under two patients of a class in a group, or where it would have to be larger.

    Raises:
        InputError: a setting out of range.

    Reference: Hanley and McNeil, Radiology 1982.
    """
    check_settings(auroc=auroc, power=power, alpha=alpha, n_tests=n_tests, icc=icc, images_per_patient=images_per_patient)
    a, b = ([ClassSize.even(n, images_per_patient) for n in patients] for patients in (patients_a, patients_b))
    return detectable_auroc(a, b, auroc, icc=icc, power=power, alpha=alpha, n_tests=n_tests)


def detectable_auroc(a: Sequence[ClassSize], b: Sequence[ClassSize], auroc: float, *, icc: float, **test: float) -> float:
    """The smallest difference of an AUROC, from positives and negatives of each side; `test` as of `detectable_difference`."""
    effective = [tuple(size.effective(icc) for size in sizes) for sizes in (a, b)]
    if np.isnan(effective).any():
        return float("nan")
    return _smallest_difference(auroc, _auroc_errors(*effective, auroc), **test)


def power_of_auroc_difference(
    patients_a: tuple[float, float],
    patients_b: tuple[float, float],
    *,
    difference: float,
    auroc: float = 0.8,
    images_per_patient: float = 1.0,
    icc: float = 0.5,
    alpha: float = 0.05,
    n_tests: int = 1,
) -> float:
    """The chance that a test sees a difference of an AUROC: the inverse of `detectable_auroc_difference`.

    Args:
        patients_a: patients with a positive image and patients with a negative one, in the group that does worse.
        patients_b: the same in the group it is compared with.
        difference: group b has `auroc`, group a has `auroc - difference`; in [0, auroc].
        auroc: of group b, between 0 and 1.
        images_per_patient: images of a class per patient of that class, the same for all.
        icc: correlation of scores within a class between two images of a patient, in [0, 1].
        alpha: level, two-sided.
        n_tests: how many tests are made; the level is divided by it (Bonferroni).

    Returns:
        A value in [0, 1]; NaN with under two patients of a class in a group.

    Raises:
        InputError: a setting out of range.
    """
    check_settings(auroc=auroc, power=1 - 1e-9, alpha=alpha, n_tests=n_tests, icc=icc, images_per_patient=images_per_patient)
    _check_difference(difference, auroc)
    a, b = (
        tuple(ClassSize.even(n, images_per_patient).effective(icc) for n in patients) for patients in (patients_a, patients_b)
    )
    if np.isnan([a, b]).any():
        return float("nan")
    return float(_power(difference, _auroc_errors(a, b, auroc), alpha, n_tests))
