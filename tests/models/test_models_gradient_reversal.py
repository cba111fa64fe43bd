"""The layer changes nothing forwards, and the gradient of what precedes it by exactly -strength."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from biascxr.models import GradientReversal

RATE = 0.1


def step(layer: keras.layers.Layer | None, *, strength: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """How far the weights before and behind a layer move in one step of plain gradient descent."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(8, 2)).astype(np.float32)
    before, behind = keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((3,)), before, *([] if layer is None else [layer]), behind])
    if strength is not None:
        layer.strength.assign(strength)
    model.compile(optimizer=keras.optimizers.SGD(RATE), loss="mse", run_eagerly=True)
    start = [ops.convert_to_numpy(part.kernel) for part in (before, behind)]
    model.train_on_batch(x, y)
    return tuple(ops.convert_to_numpy(part.kernel) - s for part, s in zip((before, behind), start, strict=True))


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_what_precedes_it_moves_the_other_way_by_its_strength_and_what_follows_as_ever(strength):
    plain, reversed_ = step(None), step(GradientReversal(strength))
    assert np.abs(plain[0]).max() > 1e-3
    np.testing.assert_allclose(reversed_[0], -strength * plain[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(reversed_[1], plain[1], rtol=1e-5, atol=1e-8)


def test_a_schedule_moves_its_strength():
    plain = step(None)
    np.testing.assert_allclose(step(GradientReversal(0.0), strength=3.0)[0], -3 * plain[0], rtol=1e-4, atol=1e-7)


def test_forwards_it_is_the_identity_to_the_last_bit():
    x = np.random.default_rng(1).normal(size=(5, 4, 3)).astype(np.float32) * 1e6
    np.testing.assert_array_equal(ops.convert_to_numpy(GradientReversal(0.7)(x)), x)


def test_it_trains_nothing_and_keeps_its_strength_on_disk(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), GradientReversal(0.5, name="reversal")])
    layer = model.get_layer("reversal")
    assert layer.trainable_weights == [] and layer.get_config()["strength"] == 0.5
    layer.strength.assign(0.25)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    x = np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert float(again.get_layer("reversal").strength) == 0.25


def test_a_negative_strength_is_refused():
    with pytest.raises(ValueError, match="strength of at least 0; got -1"):
        GradientReversal(-1)
