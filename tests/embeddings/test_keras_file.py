"""The user's own Keras models: read at their vector, run on what they expect, refused by name when they cannot be."""

import json
import zipfile

import numpy as np
import pytest

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import find_encoder
from biascxr.errors import InputError

keras = pytest.importorskip("keras")

SIZE, BATCH = 32, 4


@pytest.fixture
def read_at():
    """Function `(weights, layer, **settings) -> Encoder` of records of 32 pixels."""

    def make(weights, layer, **settings):
        config = EmbeddingsConfig(weights=str(weights), layer=layer, inference_batch=BATCH, **settings)
        return find_encoder(config.encoder, config.weights)(config, image_size=SIZE, seed=0)

    return make


class TestFingerprint:
    def test_is_the_same_whatever_keras_has_built_before(self, tmp_path, make_encoder):
        layers = [keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
        keras.Sequential([keras.Input((SIZE, SIZE, 1)), *layers]).save(tmp_path / "a.keras")
        first = make_encoder(tmp_path / "a.keras").card()["fingerprint"]
        for _ in range(3):
            keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 1), keras.layers.GlobalMaxPooling2D()])
        assert make_encoder(tmp_path / "a.keras").card()["fingerprint"] == first

    def test_holds_what_the_layers_do(self, tmp_path, make_encoder):
        model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D()])
        model.save(tmp_path / "a.keras")
        model.layers[0].activation = keras.activations.relu
        model.save(tmp_path / "b.keras")
        one, other = make_encoder(tmp_path / "a.keras"), make_encoder(tmp_path / "b.keras")
        assert one.card()["fingerprint"] != other.card()["fingerprint"]

    def test_holds_the_batch_the_size_and_the_weights(self, tmp_path, make_encoder, stand_in):
        stand_in().save(tmp_path / "a.keras")
        stand_in(size=40).save(tmp_path / "b.keras")
        base = make_encoder(tmp_path / "a.keras").card()["fingerprint"]
        assert base == make_encoder(tmp_path / "a.keras").card()["fingerprint"]
        assert make_encoder(tmp_path / "a.keras", batch=5).card()["fingerprint"] != base
        assert make_encoder(tmp_path / "b.keras", size=40).card()["fingerprint"] != base


class TestKerasFile:
    def test_is_read_at_its_last_global_pooling(self, tmp_path, images, make_encoder, stand_in):
        model = stand_in(head=2)
        model.save(tmp_path / "mine.keras")
        vectors = make_encoder(tmp_path / "mine.keras").encode(images)
        pooled = keras.Model(model.inputs, model.layers[-2].output).predict_on_batch(images[..., None] / np.float32(255))
        assert vectors.shape == (BATCH, 6)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, pooled, rtol=1e-5, atol=1e-6)

    def test_without_pooling_is_read_at_its_vector_output(self, tmp_path, images, make_encoder):
        model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), keras.layers.Flatten(), keras.layers.Dense(5)])
        model.save(tmp_path / "mine.keras")
        assert make_encoder(tmp_path / "mine.keras").encode(images).shape == (BATCH, 5)

    def test_of_three_channels_gets_imagenets_preprocessing(self, tmp_path, images, make_encoder, stand_in):
        model = stand_in(channels=3)
        model.save(tmp_path / "mine.keras")
        mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        prepared = (images[..., None] / 255 - mean) / deviation
        np.testing.assert_allclose(
            make_encoder(tmp_path / "mine.keras").encode(images), model.predict_on_batch(prepared.astype(np.float32)), rtol=1e-4
        )

    def test_of_any_size_takes_the_records_size(self, tmp_path, images, make_encoder, stand_in):
        stand_in(size=None).save(tmp_path / "mine.keras")
        assert make_encoder(tmp_path / "mine.keras").encode(images).shape == (BATCH, 6)

    def test_card_names_the_file_and_not_its_folder(self, tmp_path, make_encoder, stand_in):
        stand_in().save(tmp_path / "mine.keras")
        card = make_encoder(tmp_path / "mine.keras").card()
        assert card["weights"] == "mine.keras"
        assert card["is_trained"] is True
        assert card["trained_on"] == "not stated by the weights file"

    def test_of_another_size_says_what_to_set(self, tmp_path, make_encoder, stand_in):
        stand_in(size=40).save(tmp_path / "mine.keras")
        with pytest.raises(InputError, match=r"the model takes \(40, 40, 1\); the records hold \(32, 32\).*--image_size"):
            make_encoder(tmp_path / "mine.keras")

    def test_of_two_channels_is_refused(self, tmp_path, make_encoder, stand_in):
        stand_in(channels=2).save(tmp_path / "mine.keras")
        with pytest.raises(InputError, match="given as 1 or 3 channels"):
            make_encoder(tmp_path / "mine.keras")

    def test_that_gives_maps_is_refused(self, tmp_path, make_encoder):
        keras.Sequential([keras.Input((SIZE, SIZE, 1)), keras.layers.Conv2D(2, 3)]).save(tmp_path / "mine.keras")
        with pytest.raises(InputError, match=r"expected a vector output, a global pooling layer.*\(None, 30, 30, 2\)"):
            make_encoder(tmp_path / "mine.keras")

    def test_of_two_inputs_is_refused(self, tmp_path, make_encoder):
        inputs = [keras.Input((4,)), keras.Input((4,))]
        keras.Model(inputs, keras.layers.Add()(inputs)).save(tmp_path / "mine.keras")
        with pytest.raises(InputError, match="got 2 inputs"):
            make_encoder(tmp_path / "mine.keras")

    def test_with_code_inside_is_not_run(self, tmp_path, make_encoder):
        image = keras.Input((SIZE, SIZE, 1))
        x = keras.layers.GlobalMaxPooling2D()(keras.layers.Lambda(lambda v: v * 2)(image))
        keras.Model(image, x).save(tmp_path / "mine.keras")
        with pytest.raises(InputError, match=r"Keras cannot load this file: .*Lambda"):
            make_encoder(tmp_path / "mine.keras")

    def test_that_is_damaged_or_something_else_is_named(self, tmp_path, make_encoder, stand_in):
        whole, path = tmp_path / "whole.keras", tmp_path / "mine.keras"
        stand_in().save(whole)
        data = whole.read_bytes()
        damaged = bytearray(data)
        third = len(data) // 3
        damaged[third : third + 300] = bytes(b ^ 85 for b in damaged[third : third + 300])
        with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
            archive.writestr("notes.txt", "hello")
        for content in (b"hello", data[: len(data) // 2], bytes(damaged), (tmp_path / "other.zip").read_bytes()):
            path.write_bytes(content)
            with pytest.raises(InputError, match=r"--weights .*mine\.keras: Keras cannot load this file: .+"):
                make_encoder(path)

    def test_that_is_missing_is_named(self, tmp_path, make_encoder):
        with pytest.raises(InputError, match=r"--weights .*none\.keras: .*[Ff]ile not found"):
            make_encoder(tmp_path / "none.keras")

    def test_with_a_layer_named_vector_is_read_there(self, tmp_path, images, make_encoder):
        image = keras.Input((SIZE, SIZE, 1))
        pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3)(image))
        vector = keras.layers.Dense(5, name="vector")(pooled)
        keras.Model(image, keras.layers.Dense(2)(vector)).save(tmp_path / "mine.keras")
        expected = keras.Model(image, vector).predict_on_batch(images[..., None] / np.float32(255))
        np.testing.assert_allclose(make_encoder(tmp_path / "mine.keras").encode(images), expected, rtol=1e-5, atol=1e-6)

    def test_is_read_at_the_layer_that_is_named_a_map_there_pooled(self, tmp_path, images, read_at):
        image = keras.Input((SIZE, SIZE, 1))
        maps = keras.layers.Conv2D(6, 3, name="maps")(image)
        hidden = keras.layers.Dense(5, name="hidden")(keras.layers.GlobalAveragePooling2D(name="pool")(maps))
        keras.Model(image, keras.layers.Dense(2, name="scores")(hidden)).save(tmp_path / "mine.keras")
        batch = images[..., None] / np.float32(255)
        cards = set()
        for layer, pooling, expected in (
            ("hidden", "max", keras.Model(image, hidden).predict_on_batch(batch)),
            ("maps", "max", keras.Model(image, maps).predict_on_batch(batch).max((1, 2))),
            ("maps", "avg", keras.Model(image, maps).predict_on_batch(batch).mean((1, 2))),
            (None, "max", keras.Model(image, maps).predict_on_batch(batch).mean((1, 2))),
        ):
            encoder = read_at(tmp_path / "mine.keras", layer, pooling=pooling)
            np.testing.assert_allclose(encoder.encode(images), expected, rtol=1e-5, atol=1e-5)
            cards.add(encoder.card()["fingerprint"])
            assert encoder.card()["pooling"] == (pooling if layer == "maps" else "as the file has it")
        assert len(cards) == 3  # the last two are the same function

    def test_a_layer_that_is_not_there_is_answered_with_the_nearest(self, tmp_path, stand_in, read_at):
        many = [keras.layers.Dropout(0.5, name=f"block{i}_drop") for i in range(20)]
        keras.Sequential([keras.Input((SIZE, SIZE, 1)), *many, keras.layers.Flatten()]).save(tmp_path / "many.keras")
        with pytest.raises(
            InputError, match=r"no layer 'block7_dorp' in .*Did you mean 'block7_drop'.* It has 2\d; the last are: "
        ):
            read_at(tmp_path / "many.keras", "block7_dorp")
        stand_in().save(tmp_path / "mine.keras")
        with pytest.raises(InputError, match=r"--layer: no layer 'xyz' in .*mine\.keras\. They are: "):
            read_at(tmp_path / "mine.keras", "xyz")

    def test_a_layer_that_gives_neither_vector_nor_map_is_refused(self, tmp_path, read_at):
        image = keras.Input((SIZE, SIZE, 1))
        x = keras.layers.Flatten()(keras.layers.Reshape((SIZE * SIZE, 1), name="tokens")(image))
        keras.Model(image, x).save(tmp_path / "mine.keras")
        with pytest.raises(InputError, match=r"--layer tokens: expected a vector or a map in .*; got \(None, 1024, 1\)"):
            read_at(tmp_path / "mine.keras", "tokens")

    def test_takes_its_pixels_as_the_named_source_has_them(self, tmp_path, images, stand_in, read_at):
        model = stand_in()
        model.save(tmp_path / "mine.keras")
        encoder = read_at(tmp_path / "mine.keras", None, weights_source="torchxrayvision")
        batch = ((2.0 * images / 255 - 1) * 1024).astype(np.float32)[..., None]
        np.testing.assert_allclose(encoder.encode(images), model.predict_on_batch(batch), rtol=1e-4, atol=1e-2)
        assert encoder.card()["fingerprint"] != read_at(tmp_path / "mine.keras", None).card()["fingerprint"]

    def test_may_say_what_it_was_trained_on(self, tmp_path, make_encoder, stand_in):
        stand_in().save(tmp_path / "mine.keras")
        (tmp_path / "mine.card.json").write_text(json.dumps({"trained_on": "another phantom"}))
        assert make_encoder(tmp_path / "mine.keras").card()["trained_on"] == "another phantom"


def test_a_keras_file_decides_the_encoder_and_the_encoder_wants_a_keras_file():
    assert find_encoder("densenet121", "mine.keras").name == "keras_file"
    with pytest.raises(InputError, match=r"--encoder keras_file needs --weights MODEL\.keras; got 'random'"):
        find_encoder("keras_file", "random")
