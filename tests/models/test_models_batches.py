"""How rows become batches: dealt evenly, in an order of the seed, the same from memory and from disk."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from biascxr.models import FitSettings, HeadTrainer, Rows, build_mlp, fit, fit_head
from biascxr.models.batches import STEPS_PER_EXECUTION, Deal, HeldRows, NewOrder, random_streams, stream_batches

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="rows are held on TensorFlow only")


class Table:
    """Vectors that are read by row numbers, and remember how many rows were read at a time."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors, self.shape, self.reads = vectors, vectors.shape, []

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        assert (np.diff(rows) >= 0).all(), "row numbers must rise"
        self.reads.append(len(rows))
        return self._vectors[rows]


def some_rows(n: int = 50, *, table: type = np.asarray) -> Rows:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(n, 4)).astype(np.float32)
    labels = (vectors[:, :2] > rng.normal(size=(n, 2))).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    weights = rng.uniform(0.5, 2, n).astype(np.float32)
    groups = rng.integers(-1, 3, n).astype(np.int32)
    return Rows(table(vectors), labels, weights, groups, rng.normal(size=(n, 2)).astype(np.float32))


class CountedTrainer(HeadTrainer):
    """Counts how often Python runs through its `call`: once each time the step is compiled."""

    n_calls = 0

    def call(self, x, training=None):
        CountedTrainer.n_calls += 1
        return super().call(x, training=training)


def trained(rows: Rows, *, alter=None, max_epochs: int = 3, batch_size: int = 16):
    keras.utils.set_random_seed(0)
    head = build_mlp(4, 2, hidden=(8,), dropout=0.3, n_demographics=2)
    settings = FitSettings(learning_rate=0.01, batch_size=batch_size, max_epochs=max_epochs, patience=9)
    made = fit_head(
        CountedTrainer(head), rows, some_rows(20), label_names=("a", "b"), settings=settings, seed=3, alter=alter
    )  # fmt: skip
    return head.get_weights(), made


def are_equal(first: list, second: list) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("n_rows", "batch_size"),
    [(1, 512), (5, 512), (512, 512), (513, 512), (5_000, 256), (1_000, 1), (67, 1), (6_257 * 16 - 7, 16)],
)
class TestDeal:
    def test_every_row_is_dealt_once_and_batches_differ_by_one_row_at_most(self, n_rows, batch_size):
        deal = Deal.of(n_rows, batch_size)
        epoch = deal.epoch(np.random.default_rng(0))
        assert epoch.shape == (deal.n_steps, deal.batch_size)
        np.testing.assert_array_equal(np.sort(epoch[epoch >= 0]), np.arange(n_rows))
        sizes = (epoch >= 0).sum(axis=1)
        assert sizes.min() >= 1 and np.ptp(sizes) <= 1 and sizes.max() <= batch_size

    def test_executions_end_where_epochs_do_and_cost_few_steps_more(self, n_rows, batch_size):
        deal = Deal.of(n_rows, batch_size)
        fewest = int(np.ceil(n_rows / batch_size))
        assert deal.n_steps % deal.steps_per_execution == 0 and deal.steps_per_execution <= STEPS_PER_EXECUTION
        assert fewest <= deal.n_steps <= fewest * 1.01
        if n_rows > STEPS_PER_EXECUTION and batch_size > 1:
            assert deal.steps_per_execution >= min(fewest, STEPS_PER_EXECUTION / 2)

    def test_rows_rise_within_a_batch(self, n_rows, batch_size):
        epoch = Deal.of(n_rows, batch_size).epoch(np.random.default_rng(0))
        assert (np.diff(epoch, axis=1) >= 0).all()


def test_each_epoch_has_its_own_order_and_the_seed_decides_it():
    rows, deal = some_rows(), Deal.of(50, 16)

    def epochs(seed: int) -> list[np.ndarray]:
        stream = stream_batches(rows, deal, seed)
        return [np.concatenate([next(stream)[0]["vector"] for _ in range(deal.n_steps)]) for _ in range(2)]

    assert are_equal(epochs(0), epochs(0))
    assert not np.array_equal(*epochs(0)) and not np.array_equal(epochs(0)[0], epochs(1)[0])


def test_a_batch_one_row_short_is_filled_with_a_row_of_weight_0():
    rows, deal = some_rows(), Deal.of(50, 16)  # 4 batches of 13, 13, 12 and 12
    stream = stream_batches(rows, deal, 0)
    weights = np.stack([next(stream)[2] for _ in range(deal.n_steps)])
    assert (weights == 0).sum(axis=1).tolist() == [0, 0, 1, 1]
    assert weights.sum() == pytest.approx(rows.weights.sum())


def test_a_batch_is_filled_with_a_row_of_its_own_not_with_the_same_row_in_all():
    """What a network takes from a batch, its mean and variance, should not lean on one row of the data."""
    rows, deal = some_rows(), Deal.of(50, 16)
    held = HeldRows(HeadTrainer(build_mlp(rows.vectors.shape[1], 1, hidden=(), dropout=0.0)), rows, deal)
    held.order.assign(deal.epoch(random_streams(0)[0]))
    stream = stream_batches(rows, deal, 0)
    for number in range(deal.n_steps):
        streamed, kept = next(stream), held.batch(np.array([number]))
        for x, weights in ((streamed[0], streamed[2]), (kept[0], kept[2])):
            vectors = np.asarray(x["vector"])
            if np.asarray(weights)[0] == 0:
                np.testing.assert_array_equal(vectors[0], vectors[1])
        np.testing.assert_array_equal(streamed[0]["vector"], kept[0]["vector"])


def test_held_rows_make_the_batches_of_the_stream_over_several_epochs():
    rows, deal = some_rows(), Deal.of(50, 16)
    held = HeldRows(HeadTrainer(build_mlp(4, 2, hidden=(), dropout=0.0)), rows, deal)
    new_order, stream = NewOrder(deal, seed=5), stream_batches(rows, deal, seed=5)
    new_order.set_model(held)
    for epoch in range(2):
        new_order.on_epoch_begin(epoch)
        for number in range(deal.n_steps):
            gathered = held.batch(np.array([number], np.int32))
            for a, b in zip(keras.tree.flatten(gathered), keras.tree.flatten(next(stream)), strict=True):
                np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), b)


@on_tensorflow
def test_training_from_memory_and_from_a_stream_end_in_equal_weights(monkeypatch):
    held, history = trained(some_rows())
    monkeypatch.setattr(fit, "HELD_BYTES", 0)
    streamed, streamed_history = trained(some_rows())
    for a, b in zip(held, streamed, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(history["loss"], streamed_history["loss"], rtol=1e-5)


def test_vectors_over_the_limit_are_read_a_batch_at_a_time(monkeypatch):
    monkeypatch.setattr(fit, "HELD_BYTES", 50 * 4 * 4 - 1)
    rows = some_rows(table=Table)
    trained(rows)
    assert max(rows.vectors.reads) == 13 and sum(rows.vectors.reads) >= 3 * 50


@on_tensorflow
def test_vectors_up_to_the_limit_are_read_once(monkeypatch):
    monkeypatch.setattr(fit, "HELD_BYTES", 50 * 4 * 4)
    rows = some_rows(table=Table)
    trained(rows)
    assert sum(n for n in rows.vectors.reads if n > 1) == 50


def test_what_changes_a_batch_does_not_change_the_order():
    rngs = []

    def draw_and_leave(batch, rng):
        rngs.append(rng.random())
        return batch

    plain = trained(some_rows(), alter=lambda batch, rng: batch, max_epochs=2)[0]
    assert are_equal(plain, trained(some_rows(), alter=draw_and_leave, max_epochs=2)[0])
    assert len(set(rngs)) == len(rngs) >= 2 * 4


def test_a_batch_is_learned_from_as_it_was_changed():
    def forget(batch, rng):
        x, y, weights = batch
        return x, y, np.zeros_like(weights)

    keras.utils.set_random_seed(0)
    untrained = build_mlp(4, 2, hidden=(8,), dropout=0.3, n_demographics=2).get_weights()
    assert are_equal(trained(some_rows(), alter=forget, max_epochs=1)[0], untrained)
    assert not are_equal(trained(some_rows(), max_epochs=1)[0], untrained)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="nothing is compiled there")
def test_a_step_is_compiled_once_however_long_training_lasts():
    counts = []
    for max_epochs in (1, 6):
        CountedTrainer.n_calls = 0
        trained(some_rows(), max_epochs=max_epochs)
        counts.append(CountedTrainer.n_calls)
    # One run builds the variables; Keras's own build on JAX is another.
    assert counts[0] == counts[1] <= (2 if keras.backend.backend() == "tensorflow" else 4)
