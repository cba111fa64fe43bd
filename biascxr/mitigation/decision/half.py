"""`threshold_0.5`: flag what is more likely than not; rare findings are then hardly ever flagged."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.metrics.thresholds import half_threshold
from biascxr.mitigation.decision.base import ThresholdRule


class Half(ThresholdRule):
    """One half for every label and group, whatever the calibration split says.

    When it helps: scores are calibrated, and a missed finding costs as much as a false alarm. When it harms: a finding rarer
    than its scores are sharp is never flagged, in any group, which looks like equality.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    prevalence (-6.42), presentation (-4.88), annotation (-2.37), acquisition (-1.81) and selection (-5.76); costs 0.100 of its
    loss where there is no bias.
    """

    name: ClassVar[str] = "threshold_0.5"

    def threshold(self, y_true: np.ndarray, score: np.ndarray) -> float:
        """One half."""
        return half_threshold(y_true, score)
