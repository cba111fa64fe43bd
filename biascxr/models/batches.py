"""How rows become batches: dealt evenly, in an order that the seed alone decides, from disk or from memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

# So many steps are handed to the backend at once, where an epoch has them: fewer cost time between executions, and with many
# more an interrupt would wait for seconds.
STEPS_PER_EXECUTION = 64
ROWS_PER_PIECE = 8192


@dataclass(frozen=True)
class Rows:
    """What a head learns from or is judged on, aligned.

    Attributes:
        vectors: `[n, d]`, an array or whatever has a `shape` and gives `[b, d] float32` for row numbers in rising order.
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

    @property
    def vector_bytes(self) -> int:
        """Memory that all vectors take as float32."""
        return 4 * len(self) * self.vectors.shape[1]

    def batch(self, rows: np.ndarray) -> tuple[dict, np.ndarray, np.ndarray]:
        """Returns `(x, y, weights)` of these rows, as `HeadTrainer` takes them."""
        x = {"vector": self.vectors[rows], "group": self.groups[rows]}
        if self.demographics is not None:
            x["demographics"] = self.demographics[rows]
        return x, self.labels[rows], self.weights[rows]


@dataclass(frozen=True)
class Deal:
    """How the rows of an epoch are dealt to batches that differ by one row at most.

    Attributes:
        n_rows: n.
        n_steps: S, batches an epoch.
        steps_per_execution: steps that the backend runs at once; it divides S, so that no execution reaches into
            the next epoch.
    """

    n_rows: int
    n_steps: int
    steps_per_execution: int

    @classmethod
    def of(cls, n_rows: int, batch_size: int) -> Deal:
        """Divides rows into batches of `batch_size` at most."""
        fewest = -(-n_rows // batch_size)
        if fewest <= STEPS_PER_EXECUTION:
            return cls(n_rows, fewest, fewest)
        # 6,250 steps are 125 x 50, but 6,257 is a prime: then a step or two more, and batches a row smaller here and there.
        together = min(range(STEPS_PER_EXECUTION, STEPS_PER_EXECUTION // 2, -1), key=lambda k: -fewest % k)
        n_steps = fewest + -fewest % together
        return cls(n_rows, n_steps, together) if n_steps <= n_rows else cls(n_rows, fewest, 1)

    @property
    def batch_size(self) -> int:
        """Rows of the largest batch."""
        return -(-self.n_rows // self.n_steps)

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """Returns a new order of the rows: `[S, batch_size] int32`, rising within a batch.

        Every row occurs once. A batch that is one row short begins with -1, which stands for a row of weight 0, so that shapes
        never change: the next one of the batch again, as what a network does with batch statistics should not depend on which
        row is filled in.
        """
        order = np.full(self.n_steps * self.batch_size, -1, np.int32)
        order[: self.n_rows] = rng.permutation(self.n_rows)
        # Sorted within the batch: a memory map is read from front to back, and nothing depends on the order in a batch.
        return np.sort(order.reshape(self.batch_size, self.n_steps).T, axis=1)


def random_streams(seed: int) -> list[np.random.Generator]:
    """Returns two generators: of the order of the rows, and of what changes a batch. One does not move the other."""
    return np.random.default_rng(seed).spawn(2)


def stream_batches(rows: Rows, deal: Deal, seed: int, alter: Callable | None = None) -> Iterator[tuple]:
    """Yields batches without end, epoch after epoch, each gathered as it is asked for: no copy of all vectors is made.

    Args:
        rows: what to learn from.
        deal: how an epoch is dealt.
        seed: seed of the order, a new one in each epoch.
        alter: optional, changes a batch as it is made: `(batch, rng) -> batch`.
    """
    order_rng, alter_rng = random_streams(seed)
    while True:
        for chosen in deal.epoch(order_rng):
            x, y, weights = rows.batch(np.where(chosen < 0, chosen[min(1, len(chosen) - 1)], chosen))
            batch = (x, y, np.where(chosen < 0, np.float32(0), weights))
            yield batch if alter is None else alter(batch, alter_rng)


class HeldRows(keras.Model):
    """Feeds a trainer from memory: a batch is only a number, and its rows are gathered inside the compiled step.

    On TensorFlow this saves about a third of a step of 16 rows and a tenth of one of 512. The batches are those of
    `stream_batches`, in the same order. While it is built it takes twice the room of the vectors.

    Args:
        trainer: what learns, see `HeadTrainer`.
        rows: what it learns from; all vectors are read once and kept.
        deal: how an epoch is dealt.
    """

    def __init__(self, trainer: keras.Model, rows: Rows, deal: Deal) -> None:
        super().__init__(name="held_rows")
        self.trainer = trainer
        # Piece by piece: TensorFlow needs twice the room of what it converts.
        starts = range(0, len(rows), ROWS_PER_PIECE)
        read = (rows.batch(np.arange(start, min(start + ROWS_PER_PIECE, len(rows)))) for start in starts)
        pieces = [keras.tree.map_structure(ops.convert_to_tensor, piece) for piece in read]
        self._held = keras.tree.map_structure(lambda *parts: ops.concatenate(parts, axis=0), *pieces)
        shape = (deal.n_steps, deal.batch_size)
        self.order = self.add_weight(shape=shape, dtype="int32", initializer="zeros", trainable=False, name="order")

    def batch(self, number):
        """Returns `(x, y, weights)` of the batch with this number, `[1] int32`."""
        chosen = ops.reshape(ops.take(self.order, number, axis=0), (-1,))
        rows = ops.where(chosen < 0, chosen[min(1, chosen.shape[0] - 1)], chosen)
        x, y, weights = keras.tree.map_structure(lambda values: ops.take(values, rows, axis=0), self._held)
        return x, y, ops.where(chosen < 0, ops.zeros_like(weights), weights)

    def call(self, number, training=None):
        """Returns what the trainer's `call` returns."""
        return self.trainer(self.batch(number)[0], training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the trainer's loss."""
        x, y, weights = self.batch(x)
        return self.trainer.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weights, training=training)


class NewOrder(keras.callbacks.Callback):
    """Deals the rows of `HeldRows` anew at the beginning of each epoch."""

    def __init__(self, deal: Deal, seed: int) -> None:
        super().__init__()
        self._deal, self._rng = deal, random_streams(seed)[0]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.model.order.assign(self._deal.epoch(self._rng))
