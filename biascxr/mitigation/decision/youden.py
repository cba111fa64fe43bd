"""`youden`, `group_youden`: per label (and group), the threshold that maximises TPR - FPR."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.metrics import youden_threshold
from biascxr.mitigation.decision.base import GroupSettings, ThresholdRule


class Youden(ThresholdRule):
    """Youden's index, one threshold for everyone (Youden, Cancer 1950)."""

    name: ClassVar[str] = "youden"

    def threshold(self, y_true: np.ndarray, score: np.ndarray) -> float:
        """The threshold that maximises TPR - FPR."""
        return youden_threshold(y_true, score)


class GroupYouden(Youden):
    """Youden's index for each group, drawn towards everyone's threshold where positives are few.

    Follows FairREAD's subgroup thresholds (Gao et al., arXiv 2412.16373). Differs: fitted on the calibration split, not on
    training scores; shrunk; by default for one attribute's groups, not the crossings of three, which have few positives.
    """

    name: ClassVar[str] = "group_youden"
    Settings: ClassVar[type] = GroupSettings
    is_per_group: ClassVar[bool] = True
