"""`fixed_fpr`: thresholds at which the false positive rate is the same for every recipe; `group_fixed_fpr`: for every group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.metrics import fixed_fpr_threshold
from biascxr.mitigation.decision.base import GroupSettings, ThresholdRule, n_patients


@dataclass(frozen=True)
class FixedFprSettings:
    """Settings of `fixed_fpr`.

    Attributes:
        fpr: overall false positive rate on the calibration split, in [0, 1].
    """

    fpr: float = 0.20

    def __post_init__(self) -> None:
        check_fpr(self.fpr)


@dataclass(frozen=True)
class GroupFixedFprSettings(GroupSettings):
    """Settings of `group_fixed_fpr`, with those of `GroupSettings`.

    Attributes:
        fpr: false positive rate of each group on the calibration split, in [0, 1].
    """

    fpr: float = 0.20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fpr(self.fpr)


def check_fpr(fpr: float) -> None:
    """Raises InputError unless an FPR lies in [0, 1]."""
    if not 0 <= fpr <= 1:
        raise InputError(f"fpr must lie in [0, 1]; got {fpr}.")


class FixedFpr(ThresholdRule):
    """The matched operating point: recipes are compared at one overall FPR, so that a moved threshold is no remedy.

    `min {t : P(s >= t | y = 0) <= fpr}` on the calibration rows.

    When it helps: to compare recipes; it is the default. When it harms: it leaves every difference between groups as the
    scores have it, FPR included.
    """

    name: ClassVar[str] = "fixed_fpr"
    Settings: ClassVar[type] = FixedFprSettings

    def threshold(self, y_true: np.ndarray, score: np.ndarray) -> float:
        """The lowest threshold whose FPR is at most `fpr`."""
        return fixed_fpr_threshold(y_true, score, fpr=self.settings.fpr)

    def _support(self, y_true: np.ndarray, patient: np.ndarray) -> int:
        return n_patients(patient[y_true == 0])  # an FPR rests on negatives, however few positives there are


class GroupFixedFpr(FixedFpr):
    """One false positive rate for every group (predictive equality): a threshold of its own for each.

    When it helps: groups are falsely flagged at different rates, as where a model underdiagnoses one group. When it harms:
    TPR differs as it may, and a group whose scores separate worse pays with missed findings (Corbett-Davies et al.,
    JMLR 2023: groups held to different thresholds are treated differently at the same risk).

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.39), presentation (+0.18), annotation (+0.27) and selection (+0.51); unclear under acquisition.
    """

    name: ClassVar[str] = "group_fixed_fpr"
    Settings: ClassVar[type] = GroupFixedFprSettings
    is_per_group: ClassVar[bool] = True
