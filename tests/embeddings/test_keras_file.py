"""The user's own Keras models: read at their vector, run on what they expect, refused by name when they cannot be."""

import json
import zipfile

import numpy as np
import pytest

from biascxr.embeddings import find_encoder
from biascxr.errors import InputError

keras = pytest.importorskip("keras")

SIZE, BATCH = 32, 4


class TestFingerprint:
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
        with pytest.raises(InputError, match=r"expected one image input and a vector output.*\(None, 30, 30, 2\)"):
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

    def test_may_say_what_it_was_trained_on(self, tmp_path, make_encoder, stand_in):
        stand_in().save(tmp_path / "mine.keras")
        (tmp_path / "mine.card.json").write_text(json.dumps({"trained_on": "another phantom"}))
        assert make_encoder(tmp_path / "mine.keras").card()["trained_on"] == "another phantom"


def test_a_keras_file_decides_the_encoder_and_the_encoder_wants_a_keras_file():
    assert find_encoder("densenet121", "mine.keras").name == "keras_file"
    with pytest.raises(InputError, match=r"--encoder keras_file needs --weights MODEL\.keras; got 'random'"):
        find_encoder("keras_file", "random")
