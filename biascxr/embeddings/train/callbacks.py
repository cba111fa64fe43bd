"""What happens around the epochs of an encoder's training: dropout's seeds, validation, the state on disk, a line to follow."""

from __future__ import annotations

import hashlib
import logging
import math
import time

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from biascxr.embeddings.train.data import TrainingData
from biascxr.embeddings.train.state import TrainingState
from biascxr.errors import InputError
from biascxr.metrics import auroc
from biascxr.models.fit import EPSILON, mean_loss

logger = logging.getLogger("biascxr")


class DropoutSeeds(keras.callbacks.Callback):
    """Starts dropout's draws anew in each epoch, from (seed, epoch): they do not depend on what was trained before.

    Args:
        seed: of the training.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        layer = self.model.get_layer("dropout")
        if layer.rate > 0:  # else it draws nothing
            drawn = hashlib.sha256(repr(("dropout", self._seed, epoch)).encode()).digest()
            layer.seed_generator.state.assign([int.from_bytes(drawn[:3], "big"), 0])


class Judge(keras.callbacks.Callback):
    """Adds validation loss and AUROC, per class and macro, to the scalars of each epoch.

    AUROC of a group is one-vs-rest. Keras's own AUC metric reads NaN labels as positive, so it is not used.

    Args:
        data: the validation part.
        batches: see `validation_batches`.
    """

    def __init__(self, data: TrainingData, batches: tf.data.Dataset) -> None:
        super().__init__()
        self._data, self._batches, self._predict = data, batches, None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs.update(judge_scores(self._data, self._scores()))

    def _scores(self) -> np.ndarray:
        """Returns the validation images' probabilities, `[m, C]`, in the part's order."""
        if self._predict is None:
            self._predict = tf.function(lambda images: self.model(images, training=False), reduce_retracing=True)
        scores = np.full(self._data.validation.values.shape, np.nan, np.float32)
        for images, rows in self._batches:
            scores[rows.numpy()] = self._predict(images).numpy()
        return scores


def judge_scores(data: TrainingData, scores: np.ndarray) -> dict[str, float]:
    """Returns `val_loss`, `val_auroc` (macro, over the classes that have both values) and `val_auroc/<class>`.

    Args:
        data: the validation part's values.
        scores: `[m, C]` probabilities.
    """
    values = data.validation.values
    if data.is_exclusive:
        loss = float(-np.log(np.clip(scores[values == 1].astype(np.float64), EPSILON, 1)).mean())
    else:
        loss = mean_loss(values, scores, np.empty(0))
    aurocs = [auroc(values[:, i], scores[:, i]) for i in range(values.shape[1])]
    defined = [value for value in aurocs if not np.isnan(value)]
    macro = float(np.mean(defined)) if defined else float("nan")
    own = {f"val_auroc/{name}": value for name, value in zip(data.classes, aurocs, strict=True)}
    return {"val_loss": loss, "val_auroc": macro, **own}


def best_epoch(history: list[dict], choose_by: str) -> int:
    """Returns the number of the best epoch, from 1; of equal ones the first.

    Args:
        history: one row per epoch, with `val_loss` and `val_auroc`.
        choose_by: loss (the smallest is best) or auroc (the largest is).
    """
    values = [-row["val_loss"] if choose_by == "loss" else row["val_auroc"] for row in history]
    return 1 + int(np.argmax([-math.inf if math.isnan(v) else v for v in values]))


class Keeper(keras.callbacks.Callback):
    """Keeps the state after each epoch, and says how the epoch went.

    Args:
        state: where it is kept.
        history: rows of the epochs so far; grows.
        epochs: of the whole training, for the line.
        n_steps: of an epoch, for the bar.
        choose_by: see `best_epoch`.

    Raises:
        InputError: the loss is no longer a number.
    """

    def __init__(self, state: TrainingState, history: list[dict], *, epochs: int, n_steps: int, choose_by: str) -> None:
        super().__init__()
        self._state, self.history = state, history
        self._epochs, self._n_steps, self._choose_by = epochs, n_steps, choose_by

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._started = time.perf_counter()
        title = f"epoch {epoch + 1}/{self._epochs}"
        self._bar = tqdm(total=self._n_steps, desc=title, unit="step", mininterval=0.5, leave=False)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._bar.update(1)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._bar.close()
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        if not (math.isfinite(row["loss"]) and math.isfinite(row["val_loss"])):
            raise InputError(
                f"The loss of epoch {epoch + 1} is not a number: training diverged. Lower learning_rate, or leave "
                "mixed_precision off; earlier epochs are kept."
            )
        self.history.append(row)
        self._state.save(self.model, self.history, best_epoch(self.history, self._choose_by))
        seconds = time.perf_counter() - self._started
        logger.info(
            "epoch %d/%d: loss %.4f, validation loss %.4f, validation macro AUROC %.3f (%.0f s)",
            epoch + 1, self._epochs, row["loss"], row["val_loss"], row["val_auroc"], seconds,
        )  # fmt: skip
