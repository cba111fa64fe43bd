"""Representation slot: what a vector looks like."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import numpy as np

from biascxr.mitigation.base import Member, SplitData


class Representation(Member):
    """A transform `[n, d] -> [n, d']`, fitted on training rows."""

    def fit(self, train: SplitData, weights: np.ndarray) -> Representation:
        """Fits the transform.

        Args:
            train: the sampled training rows.
            weights: `[n] float32`, one per row.

        Returns:
            Itself.

        Raises:
            ValueError: handed the test split.
        """
        train.refuse_test(self.name)
        self.state = self._fit(train, weights)
        return self

    def transform(self, vectors: np.ndarray) -> np.ndarray:
        """Transforms vectors `[n, d]` into `[n, d'] float32`; rows are independent of each other."""
        return np.asarray(self._transform(np.asarray(vectors, np.float32)), np.float32)

    def save(self, path: Path) -> None:
        """Writes the fitted arrays into an .npz file."""
        np.savez(path, **self.state)

    def load(self, path: Path) -> Representation:
        """Reads what `save` wrote; returns itself."""
        with np.load(path, allow_pickle=False) as file:
            self.state = dict(file)
        return self

    @abstractmethod
    def _fit(self, train: SplitData, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the arrays that `_transform` needs."""

    @abstractmethod
    def _transform(self, vectors: np.ndarray) -> np.ndarray:
        """The transform itself, from `self.state`."""
