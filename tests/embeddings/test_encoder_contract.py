"""What every encoder promises, held over the whole table with small networks in the place of deep ones."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re

import numpy as np
import pytest

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import ENCODERS, check_weights_path, densenet, find_encoder
from biascxr.embeddings.base import card_path, weights_files

keras = pytest.importorskip("keras")

SIZE, BATCH = 32, 4


def keras_model(stand_in, folder):
    stand_in(3).save(folder / "m.keras")
    return folder / "m.keras"


def saved_model(stand_in, folder):
    stand_in(1).export(folder / "m", verbose=False)
    return folder / "m"


def onnx_model(stand_in, folder):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    model = stand_in(1)
    model(np.zeros((1, SIZE, SIZE, 1), np.float32))
    model.export(folder / "m.onnx", format="onnx", verbose=False)
    return folder / "m.onnx"


def keras_weights(stand_in, folder):
    stand_in(1).save_weights(folder / "m.weights.h5")
    return folder / "m.weights.h5"


# How each member gets weights of a small network: a new member is added here, or the test below says so.
WEIGHTS = {
    "densenet121": keras_weights,
    "densenet169": keras_weights,
    "densenet201": keras_weights,
    "keras_file": keras_model,
    "saved_model": saved_model,
    "onnx": onnx_model,
}


def test_every_encoder_is_tried():
    assert WEIGHTS.keys() == ENCODERS.keys()


@pytest.fixture(params=sorted(ENCODERS))
def name(request):
    return request.param


@pytest.fixture
def make(name, tmp_path, monkeypatch, stand_in):
    """Function `(batch=4, size=32, pooling="max") -> Encoder` of the member, always from the same file."""
    monkeypatch.setattr(densenet, "_network", lambda _, shape, pooling, weights=None: stand_in(shape[-1], pooling, shape[0]))
    weights = str(WEIGHTS[name](stand_in, tmp_path))

    def build(*, batch=BATCH, size=SIZE, pooling="max"):
        config = EmbeddingsConfig(encoder=name, weights=weights, inference_batch=batch, pooling=pooling)
        return find_encoder(config.encoder, config.weights)(config, image_size=size, seed=0)

    build.weights = check_weights_path(weights)
    return build


def test_vectors_are_float32_of_the_stated_length_and_tell_images_apart(name, make, images):
    encoder = make()
    vectors = encoder.encode(images)
    assert encoder.name == name
    assert (vectors.shape, vectors.dtype) == ((BATCH, encoder.vector_length), np.float32)
    assert np.isfinite(vectors).all()
    assert np.ptp(vectors, axis=0).max() > 0


def test_the_same_images_give_the_same_bytes_in_any_company(make, images):
    one, two = make(), make()
    np.testing.assert_array_equal(one.encode(images), two.encode(images))
    for place in range(BATCH):  # at its place, an image has the same vector whatever the other places hold
        others = np.repeat(images[place - 1 : place] if place else images[1:2], BATCH, axis=0)
        others[place] = images[place]
        np.testing.assert_array_equal(one.encode(images)[place], two.encode(others)[place])
    # Its place in the batch may move a vector's last digit, as it does on processors without AVX-512.
    np.testing.assert_allclose(one.encode(images[::-1].copy())[::-1], two.encode(images), rtol=1e-5, atol=1e-7)


def test_the_images_are_not_changed(make, images):
    before = images.copy()
    make().encode(images)
    np.testing.assert_array_equal(images, before)


def test_the_card_says_what_made_the_vectors(name, make):
    encoder = make()
    card = json.loads(json.dumps(encoder.card()))
    assert {
        "encoder",
        "weights",
        "pooling",
        "map_shape",
        "pixels",
        "vector_length",
        "fingerprint",
        "is_trained",
        "trained_on",
    } <= card.keys()
    assert card["encoder"] == name
    assert card["weights"] == make.weights.name  # and not its folder, which may name a person or a project
    assert card["vector_length"] == encoder.vector_length
    assert card["is_trained"] is True
    assert card["trained_on"] == "not stated by the weights file"
    assert re.fullmatch(r"[0-9a-f]{64}", card["fingerprint"])
    assert "32 x 32" in card["pixels"]


def test_the_fingerprint_is_of_what_computes_the_vectors(name, make):
    first = make().card()["fingerprint"]
    assert make().card()["fingerprint"] == first
    assert make(batch=5).card()["fingerprint"] != first
    if name.startswith("densenet"):
        assert make(pooling="avg").card()["fingerprint"] != first


class TestMaps:
    @pytest.fixture
    def make_on_maps(self, name, tmp_path, monkeypatch, stand_in):
        """Function `(pooling) -> Encoder` of the member, from a network whose output is a map."""
        monkeypatch.setattr(
            densenet, "_network", lambda _, shape, pooling, weights=None: stand_in(shape[-1], pooling, shape[0])
        )
        weights = str(WEIGHTS[name](functools.partial(stand_in, pooling="none"), tmp_path))
        layer = "maps" if name == "keras_file" else None

        def build(pooling):
            config = EmbeddingsConfig(encoder=name, weights=weights, inference_batch=BATCH, pooling=pooling, layer=layer)
            return find_encoder(config.encoder, config.weights)(config, image_size=SIZE, seed=0)

        return build

    def test_a_map_that_is_kept_is_the_one_that_is_otherwise_pooled(self, make_on_maps, images):
        kept, card = make_on_maps("none"), make_on_maps("none").card()
        assert (card["pooling"], card["map_shape"], card["vector_length"]) == ("none", [11, 11, 6], 726)
        vectors = kept.encode(images)
        assert (vectors.shape, vectors.dtype, kept.vector_length) == ((BATCH, 726), np.float32, 726)
        maps = vectors.reshape(BATCH, 11, 11, 6)
        assert np.ptp(maps, axis=(1, 2)).max() > 0.01  # places differ: a map in another order would not pool to the same
        for pooling, pooled in (("max", maps.max((1, 2))), ("avg", maps.mean((1, 2)))):
            other = make_on_maps(pooling)
            np.testing.assert_allclose(pooled, other.encode(images), rtol=1e-5, atol=1e-6)
            assert other.card()["map_shape"] is None
            assert other.card()["fingerprint"] != card["fingerprint"]

    def test_a_network_that_has_no_map_keeps_giving_its_vector(self, name, make, images):
        if name.startswith("densenet"):
            pytest.skip("it has one")
        np.testing.assert_array_equal(make(pooling="none").encode(images), make().encode(images))
        card = make(pooling="none").card()
        assert (card["map_shape"], card["pooling"]) == (None, "as the file has it")


def test_a_card_beside_the_weights_is_passed_on_and_is_a_file_of_the_stage(make):
    first = make().card()
    beside = card_path(make.weights)
    beside.write_text(json.dumps({"trained_on": "other films", "trained_on_patients": ["00ff"], "note": "x"}))
    card = make().card()
    assert (card["trained_on"], card["trained_on_patients"]) == ("other films", ["00ff"])
    assert "note" not in card
    assert card["fingerprint"] == first["fingerprint"]
    assert weights_files(str(make.weights))[-1] == beside


def test_the_libraries_are_distributions_with_a_version(make):
    for library in make().libraries:
        assert importlib.metadata.version(library)
