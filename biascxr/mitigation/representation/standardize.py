"""`standardize`: every column to mean 0 and deviation 1 over the training rows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.mitigation.base import SplitData
from biascxr.mitigation.representation.base import AffineRepresentation
from biascxr.mitigation.vector_table import weighted_mean, weighted_variance


class Standardize(AffineRepresentation):
    """Centres and scales each column; a constant column becomes 0."""

    name: ClassVar[str] = "standardize"

    def _fit(self, train: SplitData, weights: np.ndarray) -> dict[str, np.ndarray]:
        mean = weighted_mean(train.vectors, weights)
        variance = weighted_variance(train.vectors, weights, mean)
        # A column whose deviation is lost in rounding is constant: dividing by it would blow noise up to size 1.
        varies = variance > (1e-6 * np.abs(mean)) ** 2
        return {"mean": mean, "scale": np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0.0)}
