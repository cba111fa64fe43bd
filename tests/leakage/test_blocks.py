"""Each block's vector is its map, pooled as the encoder pools; the attribute is read from the block that holds it on."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from biascxr.config import EmbeddingsConfig
from biascxr.containers import Attribute
from biascxr.embeddings import find_encoder
from biascxr.errors import InputError
from biascxr.leakage import find_probe
from biascxr.leakage.blocks import block_maps, block_vectors, pooling_of, read_blocks
from biascxr.leakage.growth import Task
from biascxr.leakage.readout import Fold
from biascxr.records import encode_example, write_record
from biascxr.records.shard_list import Shard, ShardReport, write_shard_list

keras = pytest.importorskip("keras")
SIZE = 32


def write_films(folder, image_id, films):
    """Writes records as the records stage does, in two shards and not in the order of image_id."""
    reports = []
    for number, places in enumerate(np.array_split(np.arange(len(films))[::-1], 2)):
        path = folder / f"films{number}.tfrecord"
        with open(path, "wb") as file:
            for i in places:
                png = cv2.imencode(".png", films[i])[1].tobytes()
                write_record(file, encode_example({"image": png, "image_id": image_id[i]}))
        reports.append(ShardReport(Shard(path.name, "test", len(places), path.stat().st_size, ""), str(number), []))
    write_shard_list(folder, reports)
    return folder


def network(pooling: str = "avg", *, branch: bool = False):
    """Three sizes (16, 8, 4), two layers each, a padding between; a side branch at 16 that only a vector comes from."""
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 1))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="a1")(image)
    x = layers.ReLU(name="a2")(x)
    side = layers.GlobalMaxPooling2D()(layers.ReLU(name="side2")(layers.ReLU(name="side")(x)))
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(5, 3, strides=2, name="b1")(x)
    x = layers.ReLU(name="b2")(x)
    x = layers.Conv2D(6, 3, strides=2, padding="same", name="c1")(x)
    x = layers.ReLU(name="c2")(x)
    pool = layers.GlobalMaxPooling2D if pooling == "max" else layers.GlobalAveragePooling2D
    vector = pool()(x)
    return keras.Model(image, layers.Concatenate(name="vector")([vector, side]) if branch else vector)


def encoder_of(model, path, *, size: int = SIZE, **settings):
    model.save(path)
    config = EmbeddingsConfig(weights=str(path), inference_batch=4, **settings)
    return find_encoder("keras_file", str(path))(config, image_size=size, seed=0)


@pytest.fixture
def films(tmp_path):
    """22 films: five full batches of 4 and one of two."""
    films = np.random.default_rng(0).integers(0, 255, (22, SIZE, SIZE), dtype=np.uint8)
    image_id = np.array([f"i{i:02d}" for i in range(22)], object)
    return write_films(tmp_path, image_id, films), image_id, films


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_a_blocks_vector_is_its_last_map_pooled_as_the_encoder_pools(films, tmp_path, pooling):
    records, image_id, pixels = films
    model = network(pooling)
    encoder = encoder_of(model, tmp_path / "net.keras")
    found = block_vectors(encoder, records, image_id=image_id, batch=4)
    assert list(found) == ["a2", "b2", "c2", "vector"]
    for name in ("a2", "b2", "c2"):
        maps = keras.Model(model.inputs, model.get_layer(name).output).predict(pixels[..., None] / 255, verbose=0)
        expected = maps.mean((1, 2)) if pooling == "avg" else maps.max((1, 2))
        assert found[name].vectors == pytest.approx(expected, abs=1e-6)
        assert found[name].card["pooling"] == pooling
    assert found["vector"].vectors == pytest.approx(found["c2"].vectors)
    assert found["vector"].vectors[:4] == pytest.approx(encoder.encode(pixels[:4]), abs=1e-6)


def test_films_are_given_in_the_order_asked_for(films, tmp_path):
    records, image_id, _ = films
    encoder = encoder_of(network(), tmp_path / "net.keras")
    whole = block_vectors(encoder, records, image_id=image_id, batch=4)["b2"].vectors
    some = np.array([20, 3, 11])
    assert block_vectors(encoder, records, image_id=image_id[some], batch=4)["b2"].vectors == pytest.approx(whole[some])


def test_a_side_branch_ends_no_block_and_padding_is_none():
    assert list(block_maps(network(branch=True))) == ["a2", "b2", "c2"]


def test_a_nested_network_is_entered(films, tmp_path):
    records, image_id, _ = films
    inner = network("max")
    inner = keras.Model(inner.inputs, inner.get_layer("c2").output, name="backbone")
    image = keras.Input((SIZE, SIZE, 1))
    outer = keras.Model(image, keras.layers.GlobalMaxPooling2D()(inner(image)))
    encoder = encoder_of(outer, tmp_path / "outer.keras")
    found = block_vectors(encoder, records, image_id=image_id, batch=4)
    assert list(found) == ["backbone/a2", "backbone/b2", "backbone/c2", "vector"]
    assert pooling_of(encoder) == "max"
    straight = block_vectors(encoder_of(inner, tmp_path / "inner.keras", layer="c2"), records, image_id=image_id, batch=4)
    for name in ("a2", "b2", "c2"):
        assert found[f"backbone/{name}"].vectors == pytest.approx(straight[name].vectors, abs=1e-6)


def test_densenet_ends_its_blocks_where_its_authors_do():
    model = keras.applications.DenseNet121(include_top=False, weights=None, input_shape=(64, 64, 1), pooling="max")
    maps = block_maps(model)
    assert {name: (tensor.shape[1], tensor.shape[-1]) for name, tensor in maps.items()} == {
        "pool1": (16, 64),
        "conv2_block6_concat": (16, 256),
        "conv3_block12_concat": (8, 512),
        "conv4_block24_concat": (4, 1024),
        "conv5_block16_concat": (2, 1024),
    }


def test_an_attribute_is_read_from_the_block_that_keeps_it_and_no_longer_from_the_one_that_drops_it(tmp_path):
    """Films differ in fine stripes alone: the first block sees them, an average over 4 x 4 pixels does not."""
    rng = np.random.default_rng(0)
    codes = np.arange(80) % 2
    grey = rng.integers(60, 180, 80)
    stripes = np.where(np.arange(SIZE) % 2, 20, -20)
    films = (grey[:, None, None] + codes[:, None, None] * stripes + np.zeros((80, SIZE, 1))).astype(np.uint8)
    image_id = np.array([f"i{i:02d}" for i in range(80)], object)
    image = keras.Input((SIZE, SIZE, 1))
    edges = keras.layers.Conv2D(2, 2, padding="same", name="edges")
    first = keras.layers.ReLU(name="first")(edges(image))
    coarse = keras.layers.AveragePooling2D(4, name="coarse")(image)
    both = keras.layers.Concatenate(name="join")([coarse, keras.layers.AveragePooling2D(4, name="rest")(first)])
    last = keras.layers.Conv2D(1, 1, name="last")(both)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(last))
    edges.set_weights([np.array([[[[1, 0]], [[-1, 0]]], [[[0, 1]], [[0, 0]]]], np.float32), np.zeros(2)])
    model.get_layer("last").set_weights([np.array([[[[1], [0], [0]]]], np.float32), np.zeros(1)])
    part = np.arange(80) // 20
    fold = Fold(np.flatnonzero(part < 2), np.flatnonzero(part == 2), np.flatnonzero(part == 3))

    def score(readout):
        value = roc_auc_score(readout.codes, readout.scores[:, 1])
        return [{"group": "macro", "auroc": value, "low": value, "high": value}]

    task = Task(find_probe("logistic"), Attribute("sex", ("F", "M"), True), codes, image_id, (fold,), score)
    encoder = encoder_of(model, tmp_path / "net.keras")
    rows = read_blocks(task, block_vectors(encoder, write_films(tmp_path, image_id, films), image_id=image_id, batch=4))
    auroc = {row["block"]: row["auroc"] for row in rows}
    assert list(auroc) == ["first", "last", "vector"]
    assert auroc["first"] == 1
    assert max(auroc["last"], auroc["vector"]) < 0.8
    assert [row["amount"] for row in rows] == [1, 2, 3]


def test_what_has_no_blocks_is_said(films, tmp_path):
    records, image_id, _ = films
    with pytest.raises(InputError, match=r"expected a Keras network as encoder.*ready made"):
        block_vectors(None, records, image_id=image_id, batch=4)
    flat = keras.Sequential([keras.Input((SIZE, SIZE, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    with pytest.raises(InputError, match="expected a convolutional network"):
        block_vectors(encoder_of(flat, tmp_path / "flat.keras"), records, image_id=image_id, batch=4)
    with pytest.raises(InputError, match="1 of 1 are not in"):
        encoder = encoder_of(network(), tmp_path / "net.keras")
        block_vectors(encoder, records, image_id=np.array(["gone"], object), batch=4)
