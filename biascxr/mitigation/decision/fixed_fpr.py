"""`fixed_fpr`: thresholds at which the false positive rate is the same for every recipe; `group_fixed_fpr`: for every group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.metrics import fixed_fpr_threshold
from biascxr.mitigation.decision.base import GroupSettings, ThresholdRule


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
    """The matched operating point: recipes are compared at one overall FPR, so that a moved threshold is no remedy."""

    name: ClassVar[str] = "fixed_fpr"
    Settings: ClassVar[type] = FixedFprSettings

    def threshold(self, y_true: np.ndarray, score: np.ndarray) -> float:
        """The lowest threshold whose FPR is at most `fpr`."""
        return fixed_fpr_threshold(y_true, score, fpr=self.settings.fpr)


class GroupFixedFpr(FixedFpr):
    """One false positive rate for every group (predictive equality): a threshold of its own for each."""

    name: ClassVar[str] = "group_fixed_fpr"
    Settings: ClassVar[type] = GroupFixedFprSettings
    is_per_group: ClassVar[bool] = True
