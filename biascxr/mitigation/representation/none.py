"""`none`: vectors as the encoder gives them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.mitigation.base import SplitData
from biascxr.mitigation.representation.base import Representation


class NoRepresentation(Representation):
    """Leaves the vectors as they are."""

    name: ClassVar[str] = "none"

    def _fit(self, train: SplitData, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {}

    def _transform(self, vectors: np.ndarray) -> np.ndarray:
        return vectors
