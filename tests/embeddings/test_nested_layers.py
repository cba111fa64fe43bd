"""Models in models, as transfer learning nests them: read at a layer inside by the names on the way to it, and as chains."""

import numpy as np
import pytest

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import find_encoder
from biascxr.errors import InputError

keras = pytest.importorskip("keras")

SIZE, BATCH = 32, 4


def backbone():
    image = keras.Input((SIZE, SIZE, 3))
    maps = keras.layers.Conv2D(6, 3, name="conv")(image)
    return keras.Model(image, keras.layers.ReLU(name="relu")(maps), name="backbone")


def sequential():
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *transferred()])


def sequential_without_input():
    return keras.Sequential(transferred())


def transferred():
    return [backbone(), keras.layers.GlobalAveragePooling2D(name="pool"), keras.layers.Dense(2, name="scores")]


def functional():
    """With something before the nested model, and a sequential one behind it."""
    image = keras.Input((SIZE, SIZE, 3))
    maps = backbone()(keras.layers.Rescaling(2.0, name="twice")(image))
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(maps)
    head = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, name="hidden"), keras.layers.Dense(2)], name="head")
    return keras.Model(image, head(pooled))


def twice_nested():
    image = keras.Input((SIZE, SIZE, 3))
    inner = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="pool")(backbone()(image)), name="inner")
    outer = keras.Input((SIZE, SIZE, 3))
    return keras.Model(outer, keras.layers.Dense(2, name="scores")(inner(outer)))


@pytest.fixture
def read_at(tmp_path):
    """Function `(model, layer) -> Encoder` of the model as it is read from its file."""

    def make(model, layer):
        model.save(tmp_path / "mine.keras")
        config = EmbeddingsConfig(
            weights=str(tmp_path / "mine.keras"), layer=layer, inference_batch=BATCH, weights_source="unit_range", pooling="avg"
        )
        return find_encoder(config.encoder, config.weights)(config, image_size=SIZE, seed=0)

    return make


def expected_maps(nested, images, *, scale, relu):
    """What the convolution of a backbone gives, with its weights, in another model."""
    batch = np.repeat(images[..., None], 3, axis=-1).astype(np.float32) / 255 * scale
    kernel, bias = nested.get_layer("conv").get_weights()
    maps = keras.ops.convert_to_numpy(keras.ops.conv(batch, kernel, padding="valid")) + bias
    return np.maximum(maps, 0) if relu else maps


@pytest.mark.parametrize(
    ("build", "way", "scale"),
    [
        (sequential, "backbone", 1.0),
        (sequential_without_input, "backbone", 1.0),
        (functional, "backbone", 2.0),
        (twice_nested, "inner/backbone", 1.0),
    ],
)
def test_is_read_on_what_the_outer_model_gives_to_the_nested_one(build, way, scale, images, read_at):
    model = build()
    nested = model
    for name in way.split("/"):
        nested = nested.get_layer(name)
    fingerprints = set()
    for layer, relu in ((f"{way}/conv", False), (f"{way}/relu", True), (way, True)):
        encoder = read_at(model, layer)
        expected = expected_maps(nested, images, scale=scale, relu=relu).mean((1, 2))
        np.testing.assert_allclose(encoder.encode(images), expected, rtol=1e-4, atol=1e-5)
        assert (encoder.card()["layer"], encoder.card()["pooling"]) == (layer, "avg")
        fingerprints.add(encoder.card()["fingerprint"])
        assert read_at(model, layer).card()["fingerprint"] == encoder.card()["fingerprint"]
    assert len(fingerprints) >= 2


def test_a_layer_inside_a_nested_sequential_behind_others_is_found_too(images, read_at):
    model = functional()
    hidden = model.get_layer("head").layers[0]
    pooled = expected_maps(model.get_layer("backbone"), images, scale=2.0, relu=True).mean((1, 2))
    expected = pooled @ hidden.get_weights()[0] + hidden.get_weights()[1]
    np.testing.assert_allclose(read_at(model, "head/hidden").encode(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [sequential, sequential_without_input, functional, twice_nested])
def test_without_a_name_the_last_pooling_is_read_be_it_inside_a_nested_model(build, images, read_at):
    model = build()
    found, named = read_at(model, None), read_at(model, "inner/pool" if build is twice_nested else "pool")
    assert (found.vector_length, found.card()["pooling"]) == (6, "as the file has it")
    np.testing.assert_array_equal(found.encode(images), named.encode(images))


def test_a_chain_of_layers_with_a_head_is_read_at_its_pooling_too(images, read_at):
    convolution = keras.layers.Conv2D(6, 3)
    layers = [convolution, keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(2)]
    encoder = read_at(keras.Sequential([keras.Input((SIZE, SIZE, 1)), *layers]), None)
    expected = keras.ops.convert_to_numpy(convolution(images[..., None] / np.float32(255))).max((1, 2))
    np.testing.assert_allclose(encoder.encode(images), expected, rtol=1e-4, atol=1e-5)


def test_a_nested_model_that_pools_for_itself_is_read_at_its_pooling(images, read_at):
    image = keras.Input((SIZE, SIZE, 3))
    nested = keras.Model(image, keras.layers.GlobalMaxPooling2D(name="pool")(backbone()(image)), name="inner")
    model = keras.Sequential([nested, keras.layers.Dense(2)])
    expected = expected_maps(nested.get_layer("backbone"), images, scale=1.0, relu=True).max((1, 2))
    np.testing.assert_allclose(read_at(model, None).encode(images), expected, rtol=1e-4, atol=1e-5)


def test_a_nested_pooling_with_a_way_round_it_is_not_read(images, read_at):
    """A squeeze-and-excitation block as a model of its own."""
    maps = keras.Input((SIZE, SIZE, 3))
    squeezed = keras.layers.Reshape((1, 1, 3))(keras.layers.GlobalAveragePooling2D(name="squeeze")(maps))
    block = keras.Model(maps, keras.layers.Multiply()([maps, squeezed]), name="block")
    image = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(block(image))))
    assert read_at(model, None).vector_length == 2


def test_a_name_from_inside_is_answered_with_the_way_to_it(read_at):
    with pytest.raises(
        InputError, match=r"no layer 'relu' in .*Did you mean 'backbone/relu'\? They are: .*backbone, backbone/"
    ):
        read_at(sequential(), "relu")
    with pytest.raises(InputError, match=r"no layer 'backbone/rleu' in .*Did you mean 'backbone/relu'"):
        read_at(sequential(), "backbone/rleu")
