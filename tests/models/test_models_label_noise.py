"""The surrogate loss has the loss on the true labels as its mean over the noise: an exact sum over what may be recorded."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special

from biascxr.models import CRITERIA, HeadTrainer, Rows, build_mlp
from biascxr.models.label_noise import NoiseCorrectedTrainer, corrected_labels

FALSE_NEGATIVE = np.array([[0.0, 0.1], [0.4, 0.3]], np.float32)  # by group and label
FALSE_POSITIVE = np.array([[0.0, 0.05], [0.1, 0.0]], np.float32)


def cross_entropy(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


def corrected(y: np.ndarray, group: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(corrected_labels(y.astype(np.float32), group, FALSE_NEGATIVE, FALSE_POSITIVE))


@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize("true", [0.0, 1.0])
@pytest.mark.parametrize("probability", [0.01, 0.4, 0.9])
def test_its_mean_over_the_noise_is_the_loss_on_the_true_labels(group, true, probability):
    a, b = FALSE_NEGATIVE[group].astype(float), FALSE_POSITIVE[group].astype(float)
    recorded_positive = 1 - a if true else b  # P(recorded = 1 | true), by label
    codes, p = np.array([group], np.int32), np.full((1, 2), probability)
    mean = sum(
        chance * cross_entropy(corrected(np.full((1, 2), recorded), codes).astype(float), p)
        for recorded, chance in ((1.0, recorded_positive), (0.0, 1 - recorded_positive))
    )
    np.testing.assert_allclose(mean[0], cross_entropy(np.full(2, true), p[0]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recorded", [0.0, 1.0])
def test_cross_entropy_on_corrected_labels_is_natarajans_lemma(recorded):
    a, b, p = 0.4, 0.1, 0.3
    rate = {1.0: a, 0.0: b}
    one, other = cross_entropy(recorded, p), cross_entropy(1 - recorded, p)
    lemma = ((1 - rate[1 - recorded]) * one - rate[recorded] * other) / (1 - a - b)
    label = corrected(np.array([[recorded, 0]]), np.array([1], np.int32))[0, 0]
    assert cross_entropy(label, p) == pytest.approx(lemma, rel=1e-5)


def test_unknown_groups_keep_their_labels_and_masked_labels_stay_masked():
    y = np.array([[1, 0], [1, np.nan]])
    np.testing.assert_array_equal(corrected(y, np.array([-1, -1], np.int32)), y)
    np.testing.assert_array_equal(np.isnan(corrected(y, np.array([1, 1], np.int32))), np.isnan(y))


def noisy_rows(seed: int = 0, n: int = 10) -> Rows:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, (n, 2)).astype(np.float32)
    y[0, 1] = np.nan
    group = rng.integers(-1, 2, n).astype(np.int32)
    return Rows(rng.normal(size=(n, 3)).astype(np.float32), y, np.ones(n, np.float32), group)


def one_step(trainer: HeadTrainer, rows: Rows) -> np.ndarray:
    """The kernel of a head of one layer after a step of plain gradient descent of rate 1 from zero."""
    trainer.head.set_weights([np.zeros_like(w) for w in trainer.head.get_weights()])
    trainer.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=True)
    x, y, w = rows.batch(np.arange(len(rows)))
    trainer.train_on_batch(x, y, sample_weight=w)
    return trainer.head.get_weights()[0]


def test_the_head_learns_from_corrected_labels():
    rows = noisy_rows()
    head = build_mlp(3, 2, hidden=(), dropout=0.0)
    kernel = one_step(NoiseCorrectedTrainer(head, FALSE_NEGATIVE, FALSE_POSITIVE), rows)
    residual = np.nan_to_num(corrected(rows.labels, rows.groups) - special.expit(0.0))  # q - p, 0 where masked
    np.testing.assert_allclose(kernel, rows.vectors.T @ residual / (len(rows) * 2), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_a_criterion_of_early_stopping_looks_at_corrected_labels(criterion):
    rows = noisy_rows(1)
    keras.utils.set_random_seed(0)
    trainer = NoiseCorrectedTrainer(build_mlp(3, 2, hidden=(), dropout=0.0), FALSE_NEGATIVE, FALSE_POSITIVE)
    scores = ops.convert_to_numpy(trainer.head(rows.vectors))
    found = trainer.corrected_criterion(criterion)(rows.labels, scores, rows.groups)
    assert found == pytest.approx(criterion(corrected(rows.labels, rows.groups), scores, rows.groups), rel=1e-5)
    assert found != pytest.approx(criterion(rows.labels, scores, rows.groups), rel=1e-3)
