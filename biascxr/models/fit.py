"""How a head is trained: Adam, early stopping on validation, scalars for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from biascxr.metrics import auroc
from biascxr.models.batches import Deal, HeldRows, NewOrder, Rows, stream_batches
from biascxr.models.trainer import HeadTrainer

PREDICTION_BATCH = 4096
EPSILON = 1e-7
# Training vectors up to this size are held in memory (100,000 of CXR Foundation's); more are read batch by batch.
HELD_BYTES = 640 * 2**20


@dataclass(frozen=True)
class FitSettings:
    """How long and how fast.

    Attributes:
        learning_rate: of Adam.
        batch_size: rows a step.
        max_epochs: at most so many passes.
        patience: epochs without a lower validation loss before it stops.
        weight_decay: decoupled, as in AdamW; 0 for none.
        clip_norm: all gradients together are scaled down to this norm where theirs is larger; 0 for never.
    """

    learning_rate: float = 1e-3
    batch_size: int = 512
    max_epochs: int = 200
    patience: int = 15
    weight_decay: float = 0.0
    clip_norm: float = 0.0

    def optimizer(self) -> keras.optimizers.Optimizer:
        """Returns a new Adam, or AdamW, of these settings."""
        return keras.optimizers.Adam(
            self.learning_rate,
            weight_decay=self.weight_decay or None,
            global_clipnorm=self.clip_norm or None,
            name="adam",
        )


def predict_rows(head: keras.Model, rows: Rows) -> np.ndarray:
    """Returns a head's probabilities of all rows, `[n, L] float32`, with dropout off."""
    takes_demographics = isinstance(head.input, dict)
    parts = []
    for start in range(0, len(rows), PREDICTION_BATCH):
        x, _, _ = rows.batch(np.arange(start, min(start + PREDICTION_BATCH, len(rows))))
        inputs = {name: x[name] for name in ("vector", "demographics")} if takes_demographics else x["vector"]
        # A direct call: `predict` would build a data pipeline again in every epoch, which costs more than the epoch.
        parts.append(keras.ops.convert_to_numpy(head(inputs, training=False)))
    return np.concatenate(parts) if parts else np.zeros((0, head.output.shape[-1]), np.float32)


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
        groups: `[n]`, or `[n, L]` where each label of a row has its own; -1 unknown, left out.
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
        head: what is judged.
        rows: the validation rows.
        label_names: the L findings.
        criterion: `(labels, scores, groups) -> float`, lower is better; what early stopping looks at.
    """

    def __init__(self, head: keras.Model, rows: Rows, label_names: tuple[str, ...], criterion: Callable) -> None:
        super().__init__()
        self._head, self._rows, self._names, self._criterion = head, rows, label_names, criterion

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        scores, labels = predict_rows(self._head, self._rows), self._rows.labels
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
    criterion: str | Callable = "loss",
    first_epoch: int = 0,
    alter: Callable | None = None,
    callbacks: tuple[keras.callbacks.Callback, ...] = (),
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
        criterion: what early stopping looks at: a key of `CRITERIA`, or `(labels, scores, groups) -> float`, lower is better.
        first_epoch: epochs before this one, from 0, are no candidates for the best; at least the last epoch is one.
        alter: optional, changes a batch as it is made: `(batch, rng) -> batch`.
        callbacks: what a method does between epochs; they run first. Their `model` need not be the trainer (`HeldRows`); its
            optimizer is the one that trains.
        log_dir: folder of TensorBoard scalars; none if None.

    Returns:
        One row per epoch: `epoch, loss, val_loss, val_auroc, val_auroc/<label>, is_best`.
    """
    optimizer = settings.optimizer()
    deal = Deal.of(len(train), settings.batch_size)
    callbacks = list(callbacks)
    if alter is None and can_be_held(train):
        model = HeldRows(trainer, train, deal)
        # The numbers of the batches of all epochs in one pass: to begin a pass costs more than ten small steps.
        data = {"x": np.tile(np.arange(deal.n_steps, dtype=np.int32), settings.max_epochs), "batch_size": 1}
        callbacks.append(NewOrder(deal, seed))
    else:
        model, data = trainer, {"x": stream_batches(train, deal, seed, alter)}
    model.compile(optimizer=optimizer, **compilation(deal.steps_per_execution))
    build(trainer, train, optimizer)
    criterion = CRITERIA[criterion] if isinstance(criterion, str) else criterion
    first_epoch = min(first_epoch, settings.max_epochs - 1)
    callbacks.append(Validation(trainer.head, validation, label_names, criterion))
    if log_dir is not None:
        callbacks.append(keras.callbacks.TensorBoard(log_dir, write_graph=False, profile_batch=0))
    callbacks.append(
        keras.callbacks.EarlyStopping(
            "val_loss", mode="min", patience=settings.patience, restore_best_weights=True, start_from_epoch=first_epoch
        )
    )
    fitted = model.fit(
        **data, epochs=settings.max_epochs, steps_per_epoch=deal.n_steps, shuffle=False, callbacks=callbacks, verbose=0
    )
    history = pd.DataFrame(fitted.history)
    history.insert(0, "epoch", np.arange(1, len(history) + 1))
    candidates = history["val_loss"].where(history["epoch"] > first_epoch)
    history["is_best"] = candidates == candidates.min()
    return history


def build(trainer: HeadTrainer, rows: Rows, optimizer: keras.optimizers.Optimizer) -> None:
    """Makes all variables before the first step: TensorFlow traces a step that makes some of them twice."""
    x, _, _ = rows.batch(np.arange(1))
    trainer({name: keras.KerasTensor((None, *part.shape[1:]), str(part.dtype)) for name, part in x.items()}, training=False)
    optimizer.build(trainer.trainable_variables)


def can_be_held(rows: Rows) -> bool:
    """Returns whether the vectors go into memory: few enough, and on TensorFlow.

    Elsewhere what a compiled step closes over becomes a constant of the program, and gathering costs little anyway.
    """
    return keras.backend.backend() == "tensorflow" and rows.vector_bytes <= HELD_BYTES


def compilation(steps_per_execution: int = 1) -> dict:
    """Returns how Keras should compile a step: on a processor TensorFlow's XLA makes training eight times as slow."""
    backend = keras.backend.backend()
    chosen = {"steps_per_execution": 1 if backend == "torch" else steps_per_execution}  # PyTorch knows no other number
    return chosen | {"jit_compile": False} if backend == "tensorflow" else chosen
