"""What attributes reach and what they do not, shapes, and a map of one place against a vector."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from biascxr.models import Refusion
from biascxr.models.refusion import Bottleneck

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(7, 16)).astype(np.float32)
MAPS = RNG.normal(size=(7, 3, 4, 16)).astype(np.float32)
ATTRIBUTES, OTHERS = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1, 2]], np.eye(4, dtype=np.float32)[[3, 3, 3, 0, 1, 2, 0]]


def layer_of(features, **settings) -> Refusion:
    keras.utils.set_random_seed(1)
    layer = Refusion(**{"units": 24, "reduction": 4, **settings})
    layer(features, ATTRIBUTES)
    return layer


@pytest.mark.parametrize("features", [VECTORS, MAPS], ids=["vectors", "maps"])
@pytest.mark.parametrize("settings", [{}, {"encoder": "deep", "normalise": True, "blocks": 1}])
class TestAttributes:
    def test_they_change_the_features_which_keep_their_shape(self, features, settings):
        layer = layer_of(features, **settings)
        out = layer(features, ATTRIBUTES)
        assert out.shape == features.shape == layer.compute_output_shape(features.shape, ATTRIBUTES.shape)
        assert np.abs(ops.convert_to_numpy(out)).max() > 0
        assert np.abs(out - layer(features, OTHERS)).max() > 1e-5

    def test_with_mean_0_and_std_1_they_change_nothing_at_all(self, features, settings):
        layer = layer_of(features, **settings)
        for decoder, constant in ((layer.mean, 0.0), (layer.std, 1.0)):
            decoder.set_weights([np.zeros_like(decoder.kernel), np.full(24, constant, np.float32)])
        out = layer(features, ATTRIBUTES)
        np.testing.assert_array_equal(out, layer(features, OTHERS))
        np.testing.assert_array_equal(out, layer.rescale(features, 0.0, 1.0))

    def test_a_pair_is_as_two_arguments(self, features, settings):
        layer = layer_of(features, **settings)
        np.testing.assert_array_equal(layer((features, ATTRIBUTES)), layer(features, ATTRIBUTES))

    def test_it_comes_back_from_disk_in_safe_mode_with_all_its_weights(self, features, settings, tmp_path):
        inputs, attributes = keras.Input(features.shape[1:]), keras.Input((4,))
        layer = Refusion(units=24, reduction=4, **settings, name="refusion")
        model = keras.Model([inputs, attributes], layer((inputs, attributes)))
        assert layer.built and all(block.built for block in layer.cascade)
        model.save(tmp_path / "m.keras")
        again = keras.models.load_model(tmp_path / "m.keras", safe_mode=True)
        np.testing.assert_array_equal(again([features, ATTRIBUTES]), model([features, ATTRIBUTES]))
        assert again.get_layer("refusion").get_config() == layer.get_config()


@pytest.mark.parametrize("settings", [{}, {"encoder": "deep"}, {"normalise": True}])
def test_attributes_that_are_all_0_leave_the_features_their_size_and_can_be_learned_for(settings):
    """0 0 0 is a group (`coding=binary`), or nobody's attributes: neither may be without an image."""
    layer, nothing = layer_of(VECTORS, **settings), np.zeros_like(ATTRIBUTES)
    _, std = layer.scales(nothing)
    assert np.abs(std).min() > 0.1
    size = [np.abs(layer(VECTORS, attributes)).mean() for attributes in (nothing, ATTRIBUTES)]
    assert 0.3 < size[0] / size[1] < 3
    encoded = nothing
    for dense in layer.encoding:
        encoded = dense(encoded)
    assert np.abs(encoded).max() > 0  # else no gradient would reach what is theirs alone


def test_a_block_is_its_equation():
    layer = layer_of(VECTORS, blocks=1, normalise=True)
    mean, std = (ops.convert_to_numpy(part) for part in layer.scales(ATTRIBUTES))
    block = layer.cascade[0]
    inner = np.maximum(VECTORS @ block.down.kernel + block.down.bias, 0)
    inner = inner / np.linalg.norm(inner, axis=1, keepdims=True) * std + mean
    scale = np.maximum(inner @ ops.convert_to_numpy(block.up.kernel) + block.up.bias, 0)
    x = VECTORS * scale
    for convolution in block.bottleneck.convolutions:  # fresh moving averages: mean 0, variance 1
        x = x @ ops.convert_to_numpy(convolution.kernel) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(layer(VECTORS, ATTRIBUTES), np.maximum(x, 0), rtol=1e-4, atol=1e-6)


def test_a_map_of_one_place_is_a_vector_under_the_middle_of_the_3x3_kernel():
    places = VECTORS[:, None, None]
    on_maps, on_vectors = layer_of(places), layer_of(VECTORS)
    on_vectors.set_weights([w[1, 1] if w.ndim == 4 else w for w in on_maps.get_weights()])
    np.testing.assert_allclose(on_maps(places, ATTRIBUTES)[:, 0, 0], on_vectors(VECTORS, ATTRIBUTES), rtol=1e-4, atol=1e-6)


def test_a_bottleneck_sees_neighbours_on_a_map_and_keeps_a_channel_where_there_are_few():
    layer = Bottleneck(reduction=8)
    few = MAPS[..., :3]
    layer(few)
    assert layer.convolutions[1].kernel.shape == (3, 3, 1, 1)
    layer.set_weights([np.abs(w) for w in layer.get_weights()])  # so that the ReLU lets what comes pass
    start, moved = np.zeros((1, 3, 4, 3), np.float32), np.zeros((1, 3, 4, 3), np.float32)
    moved[0, 1, 1] = 1
    change = np.abs(layer(moved) - layer(start)).sum(axis=-1)[0]
    assert (change[:3, :3] > 0).all() and (change[:, 3] == 0).all()


def test_a_missing_attribute_argument_and_unknown_settings_are_named():
    for call in (lambda: Refusion()(VECTORS), lambda: layer_of(VECTORS)(VECTORS)):
        with pytest.raises(ValueError, match="takes features and attributes"):
            call()
    with pytest.raises(ValueError, match=r"encoder must be one of \['deep', 'simple'\]; got 'flat'"):
        Refusion(encoder="flat")
    with pytest.raises(ValueError, match="blocks and reduction must be at least 1; got 256, 0 and 8"):
        Refusion(blocks=0)
