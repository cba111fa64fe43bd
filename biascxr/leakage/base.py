"""The contract of a probe: a plain classifier that tries to read an attribute from the vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np


class Probe(ABC):
    """Reads a group from a vector.

    Attributes:
        name: key in `biascxr.leakage.PROBES`.
        title: name for people.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def fit_predict(self, train: np.ndarray, codes: np.ndarray, test: np.ndarray, *, seed: int) -> np.ndarray:
        """Fits on train and scores test.

        Args:
            train: `[n, d] float32`, standardised columns.
            codes: `[n] int64`, group numbers 0 to k - 1.
            test: `[m, d] float32`.
            seed: seed of anything random.

        Returns:
            `[m, k] float64`, a probability per group.
        """
