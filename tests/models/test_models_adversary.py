"""The adversary's gradient reaches the head's features reversed, rows of unknown group are not in it, its strength rises."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import log_loss

from biascxr.models import HeadTrainer, build_mlp
from biascxr.models.adversary import (
    AdversarialTrainer,
    AdversarySettings,
    ConditionalAdversarialTrainer,
    balance_table,
    ramp,
)

RATE = 0.1
D, L, K = 5, 2, 3


def settings(**changed) -> AdversarySettings:
    return AdversarySettings(
        **{"n_groups": K, "hidden": (6,), "strength": 1.0, "ramp_epochs": 0, "steps_per_epoch": 4} | changed
    )


def batch(seed: int = 0, n: int = 12) -> tuple[dict, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, (n, L)).astype(np.float32)
    y[0, 0] = y[3, 1] = np.nan
    group = rng.integers(-1, K, n).astype(np.int32)
    return {"vector": rng.normal(size=(n, D)).astype(np.float32), "group": group}, y, rng.random(n).astype(np.float32) + 0.5


def make(kind: type, *args, seed: int = 0) -> HeadTrainer:
    keras.utils.set_random_seed(seed)
    trainer = kind(build_mlp(D, L, hidden=(4,), dropout=0.0), *args)
    trainer.compile(optimizer=keras.optimizers.SGD(RATE), run_eagerly=True)
    return trainer


def moved(trainer: HeadTrainer, x: dict, y: np.ndarray, w: np.ndarray) -> list[np.ndarray]:
    """How far the head's weights move in one step of plain gradient descent."""
    start = trainer.head.get_weights()
    trainer.train_on_batch(x, y, sample_weight=w)
    return [after - before for after, before in zip(trainer.head.get_weights(), start, strict=True)]


KINDS = [(AdversarialTrainer, ()), (ConditionalAdversarialTrainer, (None,))]


@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_the_step_is_erms_less_strength_times_the_adversarys(kind, more):
    x, y, w = batch()
    erm = moved(make(HeadTrainer), x, y, w)
    at = {s: moved(make(kind, settings(strength=s), *more), x, y, w) for s in (0.0, 1.0, 2.5)}
    for plain, none, one, more_ in zip(erm, at[0.0], at[1.0], at[2.5], strict=True):
        np.testing.assert_allclose(none, plain, atol=1e-7)  # strength 0 is erm
        np.testing.assert_allclose(more_ - plain, 2.5 * (one - plain), atol=1e-6)
    assert np.abs(at[1.0][0] - erm[0]).max() > 1e-4  # the features move
    np.testing.assert_allclose(at[1.0][2], erm[2], atol=1e-7)  # the last layer is not the adversary's business


def test_the_features_climb_what_the_adversary_descends():
    x, y, w = batch()
    trainer = make(AdversarialTrainer, settings(strength=3.0))
    erm = make(HeadTrainer)

    def adversary_loss(head_weights: list[np.ndarray]) -> float:
        """Cross-entropy of the untrained adversary on the features of these head weights."""
        fresh = make(AdversarialTrainer, settings())
        fresh.head.set_weights(head_weights)
        losses = fresh.group_losses(fresh(x)[1], x["group"], y)
        return float(np.sum(ops.convert_to_numpy(losses) * w))

    for t in (trainer, erm):
        t.train_on_batch(x, y, sample_weight=w)
    assert adversary_loss(trainer.head.get_weights()) > adversary_loss(erm.head.get_weights())


@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_rows_of_unknown_group_are_not_in_its_loss(kind, more):
    x, y, w = batch()
    nobody = x | {"group": np.full(len(y), -1, np.int32)}
    start = make(kind, settings(), *more)
    before = [ops.convert_to_numpy(weight) for weight in start.adversary.trainable_weights]
    erm = moved(make(HeadTrainer), nobody, y, w)
    for a, b in zip(moved(start, nobody, y, w), erm, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    for a, b in zip(start.adversary.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), b)


def test_its_loss_is_the_cross_entropy_over_rows_of_known_group():
    x, y, w = batch()
    trainer = make(AdversarialTrainer, settings())
    features = trainer(x)[1]
    probabilities = ops.convert_to_numpy(ops.softmax(trainer.adversary(features)))
    known = x["group"] >= 0
    assert 0 < known.sum() < len(known)
    expected = log_loss(x["group"][known], probabilities[known], labels=range(K), sample_weight=w[known])
    assert trainer.train_on_batch(x, y, sample_weight=w, return_dict=True)["adversary_loss"] == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 1.0])
def test_the_ramp_is_the_published_one(progress):
    assert float(ramp(progress, 2.0)) == pytest.approx(2 * np.tanh(5 * progress), abs=1e-6)  # 2 / (1 + e^-10p) - 1 = tanh 5p


def test_strength_rises_with_the_steps_taken_and_stays():
    x, y, w = batch()
    trainer = make(AdversarialTrainer, settings(strength=2.0, ramp_epochs=2, steps_per_epoch=2))
    seen = []
    for _ in range(6):
        trainer.train_on_batch(x, y, sample_weight=w)
        seen.append(float(trainer.adversary.reversal.strength))
    np.testing.assert_allclose(seen, [2 * np.tanh(5 * min(s / 4, 1)) for s in range(6)], atol=1e-5)
    trainer.test_on_batch(x, y)
    assert float(trainer.step) == 6  # judging is no step


class TestConditional:
    def test_the_adversary_sees_labels_with_masked_ones_as_zero_and_marked(self):
        y = np.array([[1, np.nan], [0, 1]], np.float32)
        labels, known = make(ConditionalAdversarialTrainer, settings(), None).conditions(y)
        np.testing.assert_array_equal(ops.convert_to_numpy(labels), [[1, 0], [0, 1]])
        np.testing.assert_array_equal(ops.convert_to_numpy(known), [[1, 0], [1, 1]])

    def test_what_it_reads_depends_on_the_labels(self):
        x, y, _ = batch()
        trainer = make(ConditionalAdversarialTrainer, settings(), None)
        features = trainer(x)[1]
        losses = [ops.convert_to_numpy(trainer.group_losses(features, x["group"], labels)) for labels in (y, 1 - y)]
        assert np.abs(losses[0] - losses[1]).max() > 1e-3

    def test_balanced_groups_weigh_the_same_among_positives_and_among_negatives(self):
        rng = np.random.default_rng(0)
        group = rng.choice([-1, 0, 1, 2], 400, p=[0.1, 0.6, 0.2, 0.1]).astype(np.int32)
        y = (rng.random((400, 1)) < np.where(group == 0, 0.2, 0.5)[:, None]).astype(np.float32)
        w = rng.random(400).astype(np.float32)
        trainer = make_single(balance_table(group, y, w, K))
        balance = ops.convert_to_numpy(trainer.group_weights(group, y)) * w
        for value in (0, 1):
            sums = [balance[(group == g) & (y[:, 0] == value)].sum() for g in range(K)]
            np.testing.assert_allclose(sums, w[(group >= 0) & (y[:, 0] == value)].sum() / K, rtol=1e-4)
        assert (balance[group == -1] == 0).all()

    def test_several_labels_are_averaged_over_the_known_ones_and_a_row_without_any_counts_once(self):
        table = np.zeros((K, L, 2), np.float32)
        table[1] = [[1, 2], [4, 8]]
        trainer = make(ConditionalAdversarialTrainer, settings(), table)
        y = np.array([[1, 0], [0, np.nan], [np.nan, np.nan], [1, 1]], np.float32)
        weights = ops.convert_to_numpy(trainer.group_weights(np.array([1, 1, 1, -1], np.int32), y))
        np.testing.assert_allclose(weights, [(2 + 4) / 2, 1, 1, 0])

    def test_a_row_alone_in_its_cell_weighs_ten_rows_at_most_and_an_empty_cell_is_no_number(self):
        group = np.r_[np.zeros(100, int), 1]
        y = np.zeros((101, 1), np.float32)
        table = balance_table(group, y, np.ones(101), 2)
        assert table[1, 0, 0] == 10 and (table[:, 0, 1] == 0).all() and np.isfinite(table).all()


def make_single(table: np.ndarray) -> ConditionalAdversarialTrainer:
    return ConditionalAdversarialTrainer(build_mlp(D, 1, hidden=(4,), dropout=0.0), settings(), table)
