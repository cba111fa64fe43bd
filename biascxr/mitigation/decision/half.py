"""`threshold_0.5`: flag what is more likely than not; rare findings are then hardly ever flagged."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.mitigation.base import SplitData
from biascxr.mitigation.decision.base import DecisionRule, row_for_all


class Half(DecisionRule):
    """One half for every label and group, whatever the calibration split says."""

    name: ClassVar[str] = "threshold_0.5"

    def _fit_label(self, calibration: SplitData, index: int, score: np.ndarray) -> list[dict]:
        return [row_for_all(0.5, calibration.labels[:, index])]
