"""`erm`: empirical risk minimisation, the plain case that every remedy is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.training.base import Head, TrainingMethod


@dataclass(frozen=True)
class ErmSettings:
    """Settings of `erm`.

    Attributes:
        hidden: units of the hidden layers.
        dropout: share of units dropped after each hidden layer.
        learning_rate: of Adam.
        batch_size: rows a step; BiasCXR's is 16.
        max_epochs: at most so many passes; BiasCXR's is 1.
        patience: stop after so many epochs without a lower validation loss, and go back to the best.
    """

    hidden: tuple[int, ...] = (512, 256)
    dropout: float = 0.3
    learning_rate: float = 1e-3
    batch_size: int = 512
    max_epochs: int = 200
    patience: int = 15

    def __post_init__(self) -> None:
        if min(self.batch_size, self.max_epochs, self.patience) < 1 or not 0 <= self.dropout < 1:
            raise InputError(f"erm needs batch_size, max_epochs, patience >= 1 and dropout in [0, 1); got {self}.")
        if not self.learning_rate > 0 or not all(type(units) is int and units > 0 for units in self.hidden):
            raise InputError(f"erm needs a learning_rate above 0 and whole numbers of hidden units above 0; got {self}.")


class Erm(TrainingMethod):
    """BiasCXR's network: d -> 512 ReLU -> dropout -> 256 ReLU -> dropout -> L sigmoid, binary cross-entropy, Adam.

    Differs from BiasCXR: early stopping instead of one epoch, masked labels leave the loss, no demographics as inputs.
    """

    name: ClassVar[str] = "erm"
    Settings: ClassVar[type] = ErmSettings

    def _fit(self, train: SplitData, weights: np.ndarray, validation: SplitData, seed: int, log_dir: Path | None) -> Head:
        import keras

        from biascxr.models import build_mlp, fit_model

        keras.utils.set_random_seed(seed)
        chosen = self.settings
        model = build_mlp(train.vectors.shape[1], train.labels.shape[1], hidden=chosen.hidden, dropout=chosen.dropout)
        history = fit_model(
            model,
            (train.vectors, train.labels, weights),
            (validation.vectors, validation.labels),
            label_names=train.label_names,
            learning_rate=chosen.learning_rate,
            batch_size=chosen.batch_size,
            max_epochs=chosen.max_epochs,
            patience=chosen.patience,
            log_dir=log_dir,
        )
        return Head(model, history)
