"""How a head is trained: Adam, early stopping on validation loss, scalars for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pandas as pd

from biascxr.metrics import auroc
from biascxr.models.losses import MaskedBinaryCrossentropy


class ValidationAuroc(keras.callbacks.Callback):
    """Adds validation AUROC, per finding and macro, to the scalars of each epoch.

    Keras's own AUC metric reads NaN labels as positive, so it is not used.

    Args:
        vectors: `[n, d]`.
        labels: `[n, L]` in {0, 1, NaN}.
        label_names: the L findings.
    """

    def __init__(self, vectors: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...]) -> None:
        super().__init__()
        self._vectors, self._labels, self._names = vectors, labels, label_names

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        # A direct call: `predict` would build a data pipeline again in every epoch, which costs more than the epoch.
        scores = keras.ops.convert_to_numpy(self.model(self._vectors, training=False))
        values = [auroc(self._labels[:, i], scores[:, i]) for i in range(len(self._names))]
        defined = [v for v in values if not np.isnan(v)]
        logs["val_auroc"] = float(np.mean(defined)) if defined else float("nan")
        logs.update({f"val_auroc/{name}": value for name, value in zip(self._names, values, strict=True)})


def fit_model(
    model: keras.Model,
    train: tuple[np.ndarray, np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    *,
    label_names: tuple[str, ...],
    learning_rate: float,
    batch_size: int,
    max_epochs: int,
    patience: int,
    log_dir: Path | None,
) -> pd.DataFrame:
    """Trains a head in place and goes back to its best epoch.

    Args:
        model: vectors `[n, d]` -> probabilities `[n, L]`.
        train: vectors, labels, row weights.
        validation: vectors, labels.
        label_names: the L findings.
        learning_rate: of Adam.
        batch_size: rows a step.
        max_epochs: at most so many passes.
        patience: epochs without a lower validation loss before it stops.
        log_dir: folder of TensorBoard scalars; none if None.

    Returns:
        One row per epoch: `epoch, loss, val_loss, val_auroc, val_auroc/<label>, is_best`.
    """
    model.compile(optimizer=keras.optimizers.Adam(learning_rate, name="adam"), loss=MaskedBinaryCrossentropy())
    callbacks: list[keras.callbacks.Callback] = [ValidationAuroc(*validation, label_names)]
    if log_dir is not None:
        callbacks.append(keras.callbacks.TensorBoard(log_dir, write_graph=False, profile_batch=0))
    callbacks.append(keras.callbacks.EarlyStopping("val_loss", mode="min", patience=patience, restore_best_weights=True))
    vectors, labels, weights = train
    fitted = model.fit(
        vectors,
        labels,
        sample_weight=weights,
        validation_data=validation,
        batch_size=batch_size,
        epochs=max_epochs,
        callbacks=callbacks,
        verbose=0,
    )
    history = pd.DataFrame(fitted.history)
    history.insert(0, "epoch", np.arange(1, len(history) + 1))
    history["is_best"] = history["val_loss"] == history["val_loss"].min()
    return history
