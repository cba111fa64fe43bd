"""`f1`, `group_f1`: per label (and group), the threshold that maximises F1."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.metrics.thresholds import f1_threshold
from biascxr.mitigation.decision.base import GroupSettings, ThresholdRule


class F1(ThresholdRule):
    """F1 = 2 TP / (2 TP + FP + FN), its maximum over thresholds, one for everyone (van Rijsbergen 1979).

    When it helps: a list of flagged patients is wanted that is mostly right and mostly complete. When it harms: F1 does not
    count true negatives, so a score that says nothing ends with everyone flagged (Lipton, Elkan and Naryanaswamy, ECML 2014).

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    prevalence (-2.81), annotation (-1.22) and selection (-2.47); unclear under presentation and acquisition; costs 0.025 of its
    loss where there is no bias.
    """

    name: ClassVar[str] = "f1"

    def threshold(self, y_true: np.ndarray, score: np.ndarray) -> float:
        """The threshold that maximises F1."""
        return f1_threshold(y_true, score)


class GroupF1(F1):
    """The highest F1 in each group, drawn towards everyone's threshold where patients are few.

    When it helps: as `f1`, where the scores of groups lie at different heights. When it harms: F1 rests on prevalence: of
    calibrated scores the best threshold is half of the F1 it reaches (Lipton et al. 2014), so groups with fewer positives get
    other thresholds although a score means the same in them.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    prevalence (-3.19), presentation (-2.17), annotation (-1.14), acquisition (-0.99) and selection (-2.62); costs 0.028 of its
    loss where there is no bias.
    """

    name: ClassVar[str] = "group_f1"
    Settings: ClassVar[type] = GroupSettings
    is_per_group: ClassVar[bool] = True
