"""`fixed_fpr`: one threshold per label at which the overall false positive rate is the same for every recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.metrics import fixed_fpr_threshold
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.decision.base import DecisionRule, check_share, row_for_all


@dataclass(frozen=True)
class FixedFprSettings:
    """Settings of `fixed_fpr`.

    Attributes:
        fpr: overall false positive rate on the calibration split, in [0, 1].
    """

    fpr: float = 0.20

    def __post_init__(self) -> None:
        check_share("fixed_fpr.fpr", self.fpr)


class FixedFpr(DecisionRule):
    """The matched operating point: recipes are compared at one overall FPR, so that a moved threshold is no remedy."""

    name: ClassVar[str] = "fixed_fpr"
    Settings: ClassVar[type] = FixedFprSettings

    def _fit_label(self, calibration: SplitData, index: int, score: np.ndarray) -> list[dict]:
        y_true = calibration.labels[:, index]
        return [row_for_all(fixed_fpr_threshold(y_true, score, fpr=self.settings.fpr), y_true)]
