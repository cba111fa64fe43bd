"""`youden`: per label, the threshold that maximises TPR - FPR."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.metrics import youden_threshold
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.decision.base import DecisionRule, row_for_all


class Youden(DecisionRule):
    """Youden's index, one threshold for everyone (Youden, Cancer 1950)."""

    name: ClassVar[str] = "youden"

    def _fit_label(self, calibration: SplitData, index: int, score: np.ndarray) -> list[dict]:
        y_true = calibration.labels[:, index]
        return [row_for_all(youden_threshold(y_true, score), y_true)]
