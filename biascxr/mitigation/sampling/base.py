"""Sampling slot: which training rows count, and how often."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from biascxr.mitigation.base import Member, SplitData

BALANCED_ATTRIBUTES = ("sex", "race", "age_group")


@dataclass(frozen=True)
class Sample:
    """A choice of training rows.

    Attributes:
        rows: `[m] int64` into the training split; a row may occur several times.
        weights: `[m] float32`, above 0.
        notes: what the method did, in words, for the report.
    """

    rows: np.ndarray
    weights: np.ndarray
    notes: tuple[str, ...] = ()


class Sampler(Member):
    """Chooses training rows. It returns row indices, so that vectors, groups and patients stay aligned."""

    def sample(self, train: SplitData, *, seed: int) -> Sample:
        """Returns the rows to train on.

        Args:
            train: the training split.
            seed: seed of the draw.

        Raises:
            ValueError: handed the test split, or the method returned no row, a row out of range or a weight at or below 0.
        """
        train.refuse_test(self.name)
        sample = self._sample(train, np.random.default_rng(seed))
        if len(sample.rows) == 0 or sample.rows.min() < 0 or sample.rows.max() >= len(train):
            raise ValueError(f"{self.name} must return rows of the training split; got {len(sample.rows)} rows.")
        if sample.weights.shape != sample.rows.shape or not (sample.weights > 0).all():
            raise ValueError(f"{self.name} must return one weight above 0 for each row.")
        return sample

    @abstractmethod
    def _sample(self, train: SplitData, rng: np.random.Generator) -> Sample:
        """The method's own choice."""


def plain_sample(rows: np.ndarray, notes: tuple[str, ...] = ()) -> Sample:
    """Returns rows of weight 1, in rising order."""
    rows = np.sort(np.asarray(rows, np.int64))
    return Sample(rows, np.ones(len(rows), np.float32), notes)
