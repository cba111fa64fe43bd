"""How a head is trained: Adam, early stopping on validation, scalars for TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from biascxr.metrics import auroc
from biascxr.models.trainer import HeadTrainer

PREDICTION_BATCH = 4096
EPSILON = 1e-7


@dataclass(frozen=True)
class Rows:
    """What a head learns from or is judged on, aligned.

    Attributes:
        vectors: `[n, d]`, an array or whatever gives `[b, d] float32` for row numbers in rising order.
        labels: `[n, L] float32` in {0, 1, NaN}.
        weights: `[n] float32`.
        groups: `[n] int32`, -1 unknown.
        demographics: optional `[n, k] float32`, a second input of the head.
    """

    vectors: object
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    demographics: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: np.ndarray) -> tuple[dict, np.ndarray, np.ndarray]:
        """Returns `(x, y, weights)` of these rows, as `HeadTrainer` takes them."""
        x = {"vector": self.vectors[rows], "group": self.groups[rows]}
        if self.demographics is not None:
            x["demographics"] = self.demographics[rows]
        return x, self.labels[rows], self.weights[rows]


@dataclass(frozen=True)
class FitSettings:
    """How long and how fast.

    Attributes:
        learning_rate: of Adam.
        batch_size: rows a step.
        max_epochs: at most so many passes.
        patience: epochs without a lower validation loss before it stops.
        weight_decay: decoupled, as in AdamW; 0 for none.
    """

    learning_rate: float = 1e-3
    batch_size: int = 512
    max_epochs: int = 200
    patience: int = 15
    weight_decay: float = 0.0


class Batches(keras.utils.PyDataset):
    """Shuffled batches, gathered by index: no copy of the vectors is made.

    Args:
        rows: what to learn from.
        batch_size: rows a batch; the last one of an epoch is filled up with rows of weight 0, so that shapes never change.
        seed: seed of the order, a new one in each epoch.
        alter: optional, changes a batch as it is made: `(batch, rng) -> batch`.
    """

    def __init__(self, rows: Rows, *, batch_size: int, seed: int, alter: Callable | None = None) -> None:
        super().__init__()
        self._rows, self._alter = rows, alter
        self._batch_size = min(batch_size, len(rows))
        self._rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._batch_size)

    def on_epoch_end(self) -> None:
        self._order = self._rng.permutation(len(self._rows))

    def __getitem__(self, index: int) -> tuple[dict, np.ndarray, np.ndarray]:
        # Sorted within the batch: a memory map is read from front to back, and nothing depends on the order in a batch.
        chosen = np.sort(self._order[index * self._batch_size : (index + 1) * self._batch_size])
        n_missing = self._batch_size - len(chosen)
        batch = self._rows.batch(np.r_[chosen, np.repeat(chosen[-1:], n_missing)] if n_missing else chosen)
        if n_missing:
            weights = batch[2].copy()
            weights[len(chosen) :] = 0
            batch = (batch[0], batch[1], weights)
        return batch if self._alter is None else self._alter(batch, self._rng)


def predict_rows(head: keras.Model, rows: Rows) -> np.ndarray:
    """Returns a head's probabilities of all rows, `[n, L] float32`, with dropout off."""
    takes_demographics = isinstance(head.input, dict)
    parts = []
    for start in range(0, len(rows), PREDICTION_BATCH):
        x, _, _ = rows.batch(np.arange(start, min(start + PREDICTION_BATCH, len(rows))))
        inputs = {name: x[name] for name in ("vector", "demographics")} if takes_demographics else x["vector"]
        # A direct call: `predict` would build a data pipeline again in every epoch, which costs more than the epoch.
        parts.append(keras.ops.convert_to_numpy(head(inputs, training=False)))
    return np.concatenate(parts)


def mean_loss(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float:
    """Binary cross-entropy over all known labels: the criterion of early stopping that sees no groups.

    Args:
        labels: `[n, L]` in {0, 1, NaN}.
        scores: `[n, L]` probabilities.
        groups: not used.
    """
    return float(np.nansum(row_label_losses(labels, scores)) / labels.size)


def worst_group_loss(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float:
    """The largest mean loss of a group, over its known labels; `mean_loss` where no group is known.

    Args:
        labels: `[n, L]` in {0, 1, NaN}.
        scores: `[n, L]` probabilities.
        groups: `[n]`, -1 unknown, left out.
    """
    losses = row_label_losses(labels, scores)
    found = [losses[groups == g] for g in np.unique(groups[groups >= 0])]
    means = [np.nanmean(own) for own in found if not np.isnan(own).all()]
    return float(max(means)) if means else mean_loss(labels, scores, groups)


CRITERIA = {"loss": mean_loss, "worst_group_loss": worst_group_loss}


def row_label_losses(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Binary cross-entropy of each label of each row, NaN where masked: `[n, L]`."""
    p = np.clip(scores, EPSILON, 1 - EPSILON)
    return -(labels * np.log(p) + (1 - labels) * np.log1p(-p))


class Validation(keras.callbacks.Callback):
    """Adds validation loss and AUROC, per finding and macro, to the scalars of each epoch, from one pass over the rows.

    Keras's own AUC metric reads NaN labels as positive, so it is not used.

    Args:
        rows: the validation rows.
        label_names: the L findings.
        criterion: `(labels, scores, groups) -> float`, lower is better; what early stopping looks at.
    """

    def __init__(self, rows: Rows, label_names: tuple[str, ...], criterion: Callable) -> None:
        super().__init__()
        self._rows, self._names, self._criterion = rows, label_names, criterion

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        scores, labels = predict_rows(self.model.head, self._rows), self._rows.labels
        logs["val_loss"] = self._criterion(labels, scores, self._rows.groups)
        values = [auroc(labels[:, i], scores[:, i]) for i in range(len(self._names))]
        defined = [v for v in values if not np.isnan(v)]
        logs["val_auroc"] = float(np.mean(defined)) if defined else float("nan")
        logs.update({f"val_auroc/{name}": value for name, value in zip(self._names, values, strict=True)})


def fit_head(
    trainer: HeadTrainer,
    train: Rows,
    validation: Rows,
    *,
    label_names: tuple[str, ...],
    settings: FitSettings,
    seed: int,
    criterion: str = "loss",
    alter: Callable | None = None,
    log_dir: Path | None = None,
) -> pd.DataFrame:
    """Trains a head in place and goes back to its best epoch.

    Args:
        trainer: the head and what it minimises.
        train: rows to learn from.
        validation: rows that early stopping looks at.
        label_names: the L findings.
        settings: learning rate, batch size, epochs.
        seed: seed of the order of the rows.
        criterion: key of `CRITERIA`: what early stopping looks at.
        alter: optional, changes a batch as it is made: `(batch, rng) -> batch`.
        log_dir: folder of TensorBoard scalars; none if None.

    Returns:
        One row per epoch: `epoch, loss, val_loss, val_auroc, val_auroc/<label>, is_best`.
    """
    optimizer = keras.optimizers.Adam(settings.learning_rate, weight_decay=settings.weight_decay or None, name="adam")
    batches = Batches(train, batch_size=settings.batch_size, seed=seed, alter=alter)
    trainer.compile(optimizer=optimizer, steps_per_execution=min(32, len(batches)), **compilation())
    callbacks: list[keras.callbacks.Callback] = [Validation(validation, label_names, CRITERIA[criterion])]
    if log_dir is not None:
        callbacks.append(keras.callbacks.TensorBoard(log_dir, write_graph=False, profile_batch=0))
    callbacks.append(
        keras.callbacks.EarlyStopping("val_loss", mode="min", patience=settings.patience, restore_best_weights=True)
    )
    fitted = trainer.fit(batches, epochs=settings.max_epochs, shuffle=False, callbacks=callbacks, verbose=0)
    history = pd.DataFrame(fitted.history)
    history.insert(0, "epoch", np.arange(1, len(history) + 1))
    history["is_best"] = history["val_loss"] == history["val_loss"].min()
    return history


def compilation() -> dict:
    """Returns how Keras should compile a step: on a processor TensorFlow's XLA makes training eight times as slow."""
    return {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}
