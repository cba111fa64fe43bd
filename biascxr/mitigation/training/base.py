"""Training slot: how the head learns. Exactly one member in a recipe."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.mitigation.base import Member, SplitData


@dataclass(frozen=True)
class Head:
    """A trained head.

    Attributes:
        model: the Keras model, vectors `[n, d]` -> probabilities `[n, L]`.
        history: one row per epoch: losses and validation AUROC.
    """

    model: object
    history: pd.DataFrame = field(default_factory=pd.DataFrame)

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Returns probabilities `[n, L] float32`."""
        return np.asarray(self.model.predict(vectors, batch_size=1024, verbose=0), np.float32)

    def save(self, folder: Path) -> None:
        """Writes `head.keras`, `head.weights.h5` and `history.csv`."""
        self.model.save(folder / "head.keras")
        self.model.save_weights(folder / "head.weights.h5")
        self.history.to_csv(folder / "history.csv", index=False)

    @classmethod
    def load(cls, folder: Path) -> Head:
        """Reads what `save` wrote, in Keras's safe mode."""
        import keras

        model = keras.models.load_model(folder / "head.keras", compile=False, safe_mode=True)
        return cls(model, pd.read_csv(folder / "history.csv"))


class TrainingMethod(Member):
    """Fits a head on training rows, with validation rows for early stopping."""

    def fit(
        self, train: SplitData, weights: np.ndarray, validation: SplitData, *, seed: int, log_dir: Path | None = None
    ) -> Head:
        """Fits a head.

        Args:
            train: sampled and transformed training rows.
            weights: `[n] float32`, one per row.
            validation: transformed validation rows.
            seed: seed of initial weights, dropout and order.
            log_dir: folder of the TensorBoard scalars; none if not given.

        Raises:
            ValueError: handed the test split, or weights of another length.
        """
        train.refuse_test(self.name)
        validation.refuse_test(self.name)
        if weights.shape != (len(train),):
            raise ValueError(f"{self.name} needs one weight per training row; got {weights.shape} for {len(train)} rows.")
        return self._fit(train, weights, validation, seed, log_dir)

    @abstractmethod
    def _fit(self, train: SplitData, weights: np.ndarray, validation: SplitData, seed: int, log_dir: Path | None) -> Head:
        """The method's own training."""
