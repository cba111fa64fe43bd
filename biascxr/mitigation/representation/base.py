"""Representation slot: what a vector looks like."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.mitigation.base import Member, SplitData
from biascxr.mitigation.vector_table import VectorTable


class Representation(Member):
    """A transform `[n, d] -> [n, d']`, fitted on training rows in float64.

    Attributes:
        uses_attributes: whether `transform` needs the rows' attributes, at prediction too.
        notes: after `fit`, what the method did, in words, for the report.
        seed: while it fits, the seed of what it draws.
    """

    uses_attributes: ClassVar[bool] = False
    notes: tuple[str, ...] = ()

    def fit(self, train: SplitData, weights: np.ndarray, *, seed: int = 0) -> Representation:
        """Fits the transform.

        Args:
            train: the sampled training rows.
            weights: `[n] float32`, one per row.
            seed: seed of whatever the method draws; most draw nothing.

        Returns:
            Itself.

        Raises:
            ValueError: handed the test split, or weights of another length.
        """
        train.refuse_test(self.name)
        if weights.shape != (len(train),):
            raise ValueError(f"{self.name} needs one weight per training row; got {weights.shape} for {len(train)} rows.")
        self.seed = seed
        self.state = self._fit(train, np.asarray(weights, np.float64))
        return self

    def transform(self, vectors: np.ndarray, attributes: pd.DataFrame | None = None) -> np.ndarray:
        """Transforms vectors; rows are independent of each other.

        Args:
            vectors: `[n, d]`.
            attributes: `[n]` rows, for a method that uses them.

        Returns:
            `[n, d'] float32`.

        Raises:
            ValueError: a method that uses attributes was given none.
        """
        if self.uses_attributes and attributes is None:
            raise ValueError(f"{self.name} uses attributes: hand them over with the vectors.")
        return np.asarray(self._transform(np.asarray(vectors), attributes), np.float32)

    def table(self, vectors: VectorTable, attributes: pd.DataFrame) -> VectorTable:
        """Returns a table of vectors with all rows transformed; `attributes` has a row for each."""

        def function(chunk: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return self.transform(chunk, attributes.iloc[rows] if self.uses_attributes else None)

        return vectors.transformed(function)

    def applied_to(self, part: SplitData) -> SplitData:
        """Returns a split with its vectors transformed."""
        return dataclasses.replace(part, vectors=self.table(part.vectors, part.attributes))

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
        """Returns the arrays that `_transform` needs; weights are float64."""

    @abstractmethod
    def _transform(self, vectors: np.ndarray, attributes: pd.DataFrame | None) -> np.ndarray:
        """The transform itself, from `self.state`."""


class AffineRepresentation(Representation):
    """A transform of the form `(x - mean) M + offset`, whose state says so; it can stand in a Keras model as a layer.

    `state` holds `mean [d]` and at least one of `scale [d]` (a diagonal M), `matrix [d, d']`, or `left [d, k]` and
    `right [k, d]` (M = I - left right, a few directions taken out), and optionally `offset [d']`. All are float64.
    """

    def _transform(self, vectors: np.ndarray, attributes: pd.DataFrame | None) -> np.ndarray:
        state = self.state
        out = vectors.astype(np.float64) - state["mean"]
        if "scale" in state:
            out *= state["scale"]
        if "left" in state:
            out -= (out @ state["left"]) @ state["right"]
        if "matrix" in state:
            out = out @ state["matrix"]
        return out + state["offset"] if "offset" in state else out

    def as_map(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the transform as `(x - centre) A + b`: centre `[d]`, A `[d, d']` and b `[d']`, float64."""
        centre = self.state["mean"]
        at_centre = self._transform(centre[None], None)[0]
        return centre, self._transform(np.eye(len(centre)) + centre, None) - at_centre, at_centre

    def as_matrix(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the transform as `x A + b`: A `[d, d']` and b `[d']`, float64."""
        centre, matrix, offset = self.as_map()
        return matrix, offset - centre @ matrix
