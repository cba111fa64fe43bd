"""`standardize`: every column to mean 0 and deviation 1 over the training rows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.mitigation.base import SplitData
from biascxr.mitigation.representation.base import AffineRepresentation
from biascxr.mitigation.vector_table import mean_and_scale


class Standardize(AffineRepresentation):
    """Centres and scales each column; a constant column becomes 0."""

    name: ClassVar[str] = "standardize"

    def _fit(self, train: SplitData, weights: np.ndarray) -> dict[str, np.ndarray]:
        mean, scale = mean_and_scale(train.vectors, weights)
        return {"mean": mean, "scale": scale}
