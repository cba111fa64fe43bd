"""`none`: vectors as the encoder gives them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.mitigation.base import SplitData
from biascxr.mitigation.representation.base import AffineRepresentation
from biascxr.mitigation.vector_table import VectorTable


class NoRepresentation(AffineRepresentation):
    """Leaves the vectors as they are."""

    name: ClassVar[str] = "none"

    def table(self, vectors: VectorTable, attributes: pd.DataFrame) -> VectorTable:
        """Returns the table itself: nothing is copied."""
        return vectors

    def _fit(self, train: SplitData, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": np.zeros(train.vectors.shape[1])}

    def _transform(self, vectors: np.ndarray, attributes: pd.DataFrame | None) -> np.ndarray:
        return vectors
