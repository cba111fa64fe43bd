"""`platt`, `group_platt`: probabilities by logistic regression of the label on the logit of the score."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import special

from biascxr.mitigation.decision.base import GroupSettings
from biascxr.mitigation.decision.logit_calibrator import LogitCalibrator

FLAT = "within these rows higher scores are not more often positive: slope 0, one probability for all scores"
MAX_NEWTON_STEPS = 200  # under 10 as a rule


class Platt(LogitCalibrator):
    """Platt scaling, one line for everyone: `sigmoid(a logit(s) + b)`, by maximum likelihood.

    Follows Platt (Advances in Large Margin Classifiers 1999) with his smoothed targets, `(n1 + 1) / (n1 + 2)` for the n1
    positives and `1 / (n0 + 2)` for the n0 negatives, which keep the line finite where classes are separated; as
    scikit-learn's `CalibratedClassifierCV(method="sigmoid")` does. Differs: on the logit of the score, where an SVM has its
    margin, so that a calibrated score stays as it is; and a >= 0, so that no ranking is turned round by a calibration split in
    which chance has turned it.

    When it helps: scores too extreme or too mild, or of another prevalence (a reweighted or resampled training set shifts b).
    When it harms: the reliability curve is no line in logits; the fit for all then leaves each group's own error in place.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): no effect under
    annotation and acquisition; unclear under prevalence, presentation and selection.
    """

    name: ClassVar[str] = "platt"

    def fit_line(self, y_true: np.ndarray, logit: np.ndarray) -> tuple[float, float, str]:
        """The line of the largest likelihood among those with slope at least 0."""
        n1, n0 = (y_true == 1).sum(), (y_true == 0).sum()
        target = np.where(y_true == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
        centre, scale = logit.mean(), logit.std()
        if scale < 1e-9:  # one score for all of them
            return 0.0, float(special.logit(target.mean())), FLAT
        x = (logit - centre) / scale  # of size 1, so that tolerances mean the same for any scores

        slope, intercept = most_likely_line(x, target)
        if slope <= 0:  # the likelihood is concave: with slope at least 0 it is largest at 0
            return 0.0, float(special.logit(target.mean())), FLAT
        return slope / scale, intercept - slope * centre / scale, ""


class GroupPlatt(Platt):
    """Platt scaling for each group, drawn towards everyone's where patients are few.

    When it helps: groups are miscalibrated in different ways, as where one was under-labelled or is rarer in training; then a
    threshold means the same risk in each (calibration within groups; Pleiss et al., NeurIPS 2017). When it harms: the order of
    patients of different groups changes, so that AUROC over everyone may fall; labels that are wrong in one group are learned;
    and calibration and equal error rates cannot both hold where prevalence differs (Kleinberg et al., ITCS 2017).

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    presentation (-0.66) and acquisition (-0.23); no effect under annotation; unclear under prevalence and selection.
    """

    name: ClassVar[str] = "group_platt"
    Settings: ClassVar[type] = GroupSettings
    is_per_group: ClassVar[bool] = True


def most_likely_line(x: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Maximises `sum t log p + (1 - t) log(1 - p)` with `p = sigmoid(a x + b)`, by Newton's method.

    Args:
        x: `[n] float64`, of mean 0 and deviation 1.
        target: `[n]` in (0, 1).

    Returns:
        a and b.
    """
    line = np.array([0.0, special.logit(target.mean())])
    columns = np.column_stack([x, np.ones_like(x)])

    def loss(at: np.ndarray) -> float:
        z = columns @ at
        return float(np.mean(np.logaddexp(0, z) - target * z))

    for _ in range(MAX_NEWTON_STEPS):
        p = special.expit(columns @ line)
        gradient = columns.T @ (p - target) / len(x)
        curvature = (columns.T * (p * (1 - p))) @ columns / len(x)
        step = np.linalg.solve(curvature, gradient)
        if np.abs(step).max() < 1e-10:
            break
        # Far from the maximum a full step may overshoot; near it, rounding alone decides which of two losses is lower.
        while loss(line - step) > loss(line) + 1e-14 and np.abs(step).max() > 1e-10:
            step /= 2
        line = line - step
    return float(line[0]), float(line[1])
