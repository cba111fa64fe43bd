"""The masked loss is Keras's where nothing is masked, and masked labels move nothing."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from biascxr.models import MaskedBinaryCrossentropy


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.integers(0, 2, (20, 5)).astype(np.float32), rng.random((20, 5)).astype(np.float32)


def test_without_a_mask_it_is_keras_binary_crossentropy(batch):
    weight = np.random.default_rng(1).random(20).astype(np.float32)
    ours, peer = MaskedBinaryCrossentropy(), keras.losses.BinaryCrossentropy()
    assert float(ours(*batch)) == pytest.approx(float(peer(*batch)), rel=1e-6)
    assert float(ours(*batch, sample_weight=weight)) == pytest.approx(float(peer(*batch, sample_weight=weight)), rel=1e-6)


def test_it_is_its_formula_with_masked_labels(batch):
    y, p = batch
    y = y.copy()
    y[np.random.default_rng(2).random(y.shape) < 0.3] = np.nan
    known = ~np.isnan(y)
    per_label = -np.where(y == 1, np.log(p), np.log(1 - p))
    expected = np.where(known, per_label, 0).sum(axis=1) / y.shape[1]  # divided by L, not by the known ones
    np.testing.assert_allclose(ops.convert_to_numpy(MaskedBinaryCrossentropy().call(y, p)), expected, rtol=1e-5)


def gradient_of_weights(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gradient of the loss of a one-layer head, `[d, L]`, by one step of plain gradient descent with rate 1."""
    inputs = keras.Input((x.shape[1],))
    layer = keras.layers.Dense(y.shape[1], activation="sigmoid", kernel_initializer="zeros", use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=MaskedBinaryCrossentropy())
    model.fit(x, y, batch_size=len(x), epochs=1, verbose=0)
    return -ops.convert_to_numpy(layer.kernel)


def test_masked_labels_add_no_gradient_and_no_nan():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3)).astype(np.float32)
    y = rng.integers(0, 2, (12, 4)).astype(np.float32)
    masked = y.copy()
    masked[:, 1] = np.nan
    masked[:6, 2] = np.nan
    gradient = gradient_of_weights(masked, x)
    assert np.isfinite(gradient).all()
    assert (gradient[:, 1] == 0).all()
    full = gradient_of_weights(y, x)
    np.testing.assert_allclose(gradient[:, [0, 3]], full[:, [0, 3]], rtol=1e-5)
    expected = x[6:].T @ (0.5 - y[6:, 2]) / (12 * 4)  # the closed form at p = 1/2
    np.testing.assert_allclose(gradient[:, 2], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_sure_and_wrong_answer_has_a_finite_loss_and_a_masked_one_none(probability):
    p = np.full((1, 1), probability, np.float32)
    wrong = MaskedBinaryCrossentropy()(np.array([[1 - probability]], np.float32), p)
    assert 10 < float(wrong) < 100
    assert float(MaskedBinaryCrossentropy()(np.array([[np.nan]], np.float32), p)) == 0


def test_a_row_that_is_masked_whole_weighs_nothing(batch):
    y, p = batch
    y = y.copy()
    y[0] = np.nan
    losses = ops.convert_to_numpy(MaskedBinaryCrossentropy().call(y, p))
    assert losses[0] == 0 and (losses[1:] > 0).all()


def test_it_comes_back_from_its_config():
    again = keras.losses.deserialize(keras.losses.serialize(MaskedBinaryCrossentropy()))
    assert isinstance(again, MaskedBinaryCrossentropy)
