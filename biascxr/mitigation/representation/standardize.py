"""`standardize`: every column to mean 0 and deviation 1 over the training rows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.mitigation.base import SplitData
from biascxr.mitigation.representation.base import Representation


class Standardize(Representation):
    """Centres and scales each column; a constant column becomes 0."""

    name: ClassVar[str] = "standardize"

    def _fit(self, train: SplitData, weights: np.ndarray) -> dict[str, np.ndarray]:
        mean = np.average(train.vectors.astype(np.float64), axis=0, weights=weights)
        variance = np.average((train.vectors - mean) ** 2, axis=0, weights=weights)
        # A column whose deviation is lost in rounding is constant: dividing by it would blow noise up to size 1.
        varies = variance > (1e-6 * np.abs(mean)) ** 2
        return {"mean": mean, "scale": np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0.0)}

    def _transform(self, vectors: np.ndarray) -> np.ndarray:
        return (vectors - self.state["mean"]) * self.state["scale"]
