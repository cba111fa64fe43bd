"""A Keras encoder exported for ONNX Runtime: the same vectors, fewer products, and Keras where they are not the same."""

import logging

import numpy as np
import pytest

from biascxr.config import EmbeddingsConfig, RecordsConfig
from biascxr.containers import EmbeddingSet
from biascxr.embeddings import build, build_embeddings, find_encoder, onnx_graph
from biascxr.embeddings.graph_encoder import GraphEncoder, write_graph
from biascxr.embeddings.shards import EncoderSpec
from biascxr.errors import InputError
from biascxr.records import build_records

pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")
SIZE = 32


@pytest.fixture(scope="module")
def transition():
    """Two convolutions with a transition as DenseNet's between them: 1x1 convolution, then average pooling."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(16, 3, activation="relu")(image)
    x = keras.layers.Conv2D(8, 1, use_bias=False)(x)
    x = keras.layers.AveragePooling2D(2)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(6, 3, activation="relu")(x)
    return keras.Model(image, keras.layers.GlobalMaxPooling2D()(x))


def test_a_graph_gives_what_keras_gives_with_the_pooling_moved_before_the_convolution(transition, tmp_path):
    import onnx

    onnx_graph.export(transition, tmp_path / "graph.onnx")
    images = np.random.default_rng(0).random((3, SIZE, SIZE, 3)).astype(np.float32)
    expected = transition.predict(images, verbose=0)
    np.testing.assert_allclose(onnx_graph.GraphSession(tmp_path / "graph.onnx")(images), expected, rtol=1e-5, atol=1e-6)
    graph = onnx.load(tmp_path / "graph.onnx")
    onnx.checker.check_model(graph)
    maker = {output: node.op_type for node in graph.graph.node for output in node.output}
    pool = next(node for node in graph.graph.node if node.op_type == "AveragePool")
    assert maker[pool.input[0]] != "Conv"
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_whatever_is_moved_or_left_the_function_is_the_same(padding, kernel, tmp_path):
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(1)
    image = keras.Input((9, 9, 2))
    x = keras.layers.Conv2D(4, kernel, use_bias=True, bias_initializer="random_normal", padding="same")(image)
    branch = keras.layers.AveragePooling2D(2, padding=padding)(x)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(branch) + keras.layers.GlobalMaxPooling2D()(x))
    onnx_graph.export(model, tmp_path / "graph.onnx")
    images = np.random.default_rng(0).random((2, 9, 9, 2)).astype(np.float32)
    found = onnx_graph.GraphSession(tmp_path / "graph.onnx")(images)
    np.testing.assert_allclose(found, model.predict(images, verbose=0), rtol=1e-5, atol=1e-6)


def test_a_graph_gives_the_map_that_keras_keeps(transition, tmp_path):
    transition.save(tmp_path / "encoder.keras")
    config = EmbeddingsConfig(weights=str(tmp_path / "encoder.keras"), layer=transition.layers[-2].name, pooling="none")
    encoder = find_encoder(config.encoder, config.weights)(config, image_size=SIZE, seed=0)
    assert encoder.card()["map_shape"] == [13, 13, 6]
    write_graph(encoder, tmp_path / "graph.onnx", encoder.card())
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE)).astype(np.uint8)
    graph = GraphEncoder(tmp_path / "graph.onnx")
    np.testing.assert_allclose(graph.encode(images), encoder.encode(images), rtol=1e-4, atol=1e-5)
    assert graph.vector_length == encoder.vector_length == 13 * 13 * 6
    assert onnx_graph.smallest_cosine(encoder, onnx_graph.GraphSession(tmp_path / "graph.onnx")) > 0.999999


def test_the_cosine_of_another_network_is_far_from_one(transition, tmp_path):
    keras = pytest.importorskip("keras")
    onnx_graph.export(transition, tmp_path / "graph.onnx")
    session = onnx_graph.GraphSession(tmp_path / "graph.onnx")
    assert onnx_graph.smallest_cosine(encoder_of(transition, tmp_path), session) > 0.999999
    other = keras.models.clone_model(transition)
    assert not onnx_graph.smallest_cosine(encoder_of(other, tmp_path), session) > 0.999
    twice = keras.Model(transition.input, keras.layers.Rescaling(2.0)(transition.output))
    assert np.isnan(onnx_graph.smallest_cosine(encoder_of(twice, tmp_path), session))


def encoder_of(model, folder):
    model.save(folder / "encoder.keras")
    config = EmbeddingsConfig(weights=str(folder / "encoder.keras"), layer=model.layers[-1].name)
    return find_encoder(config.encoder, config.weights)(config, image_size=SIZE, seed=0)


def test_a_network_that_leaves_its_size_open_is_exported_at_that_of_the_records(tmp_path):
    keras = pytest.importorskip("keras")
    image = keras.Input((None, None, 1))
    maps = keras.layers.Conv2D(5, 3, activation="relu")(image)
    encoder = encoder_of(keras.Model(image, keras.layers.GlobalAveragePooling2D()(maps)), tmp_path)
    onnx_graph.export(encoder.model, tmp_path / "graph.onnx", size=encoder.input_size)
    assert onnx_graph.smallest_cosine(encoder, onnx_graph.GraphSession(tmp_path / "graph.onnx")) > 0.999999


@pytest.fixture
def records(tiny_images, make_cohort, tmp_path):
    files = sorted(f.name for f in tiny_images.iterdir())
    cohort = make_cohort([f.split(".")[0] for f in files], files, tiny_images, split=["train"] * len(files))
    folder = tmp_path / "records"
    folder.mkdir()
    build_records(cohort, RecordsConfig(image_size=SIZE, rows_per_shard=9), folder, n_workers=1)
    return cohort, folder


@pytest.fixture
def weights(stand_in, tmp_path):
    stand_in().save(tmp_path / "network.keras")
    return str(tmp_path / "network.keras")


def embed(records, weights, folder, **given) -> EmbeddingSet:
    cohort, shards = records
    folder.mkdir(exist_ok=True)
    runtime, n_workers, earlier = given.pop("runtime", "auto"), given.pop("n_workers", 1), given.pop("earlier", None)
    spec = EncoderSpec(EmbeddingsConfig(weights=weights, runtime=runtime, **given), SIZE, 0)
    return build_embeddings(cohort, shards, folder, spec, n_workers=n_workers, earlier=earlier)


@pytest.mark.slow
def test_onnx_runtime_computes_where_it_is_there_and_two_workers_write_the_bytes_of_one(records, weights, tmp_path):
    keras_made = embed(records, weights, tmp_path / "keras", runtime="keras")
    one, two = (embed(records, weights, tmp_path / str(n), n_workers=n) for n in (1, 2))
    assert one.card["runtime"].startswith("onnxruntime") and keras_made.card["runtime"] == "keras"
    assert one.card == two.card and one.card["network"] == keras_made.card["network"]
    keys = [np.load(tmp_path / name / "keys.npy") for name in ("1", "keras")]
    assert not (keys[0] == keys[1]).all(axis=1).any()  # the last digits differ: none is taken for the other
    np.testing.assert_allclose(one.vectors, keras_made.vectors, rtol=1e-4, atol=1e-5)
    for name in ("vectors.npy", "keys.npy"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "2").iterdir()) == ["keys.npy", "vectors.npy"]


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "n_taken"), [("onnxruntime", 40), ("keras", 0)])
def test_another_batch_costs_nothing_where_images_are_computed_singly(runtime, n_taken, records, weights, tmp_path, caplog):
    four = embed(records, weights, tmp_path / "four", runtime=runtime)
    with caplog.at_level(logging.INFO, "biascxr"):
        five = embed(records, weights, tmp_path / "five", runtime=runtime, inference_batch=5, earlier=tmp_path / "four")
    assert ("40 of 40 vectors are as they were and are taken over" in caplog.text) == (n_taken == 40)
    assert (four.card == five.card) == (four.card["made_by"] == five.card["made_by"]) == (n_taken == 40)
    assert four.card["network"] == five.card["network"]
    keys = [np.load(tmp_path / name / "keys.npy") for name in ("four", "five")]
    assert (keys[0] == keys[1]).all(axis=1).sum() == n_taken


@pytest.mark.slow
def test_a_precision_is_kerass_and_its_vectors_are_not_taken_for_others(records, weights, tmp_path):
    mixed = embed(records, weights, tmp_path / "mixed", mixed_precision="bfloat16")
    assert (mixed.card["runtime"], mixed.card["mixed_precision"]) == ("keras", "bfloat16")
    full = embed(records, weights, tmp_path / "full", runtime="keras", earlier=tmp_path / "mixed")
    assert (full.vectors != mixed.vectors).any(axis=1).all()
    np.testing.assert_allclose(full.vectors, mixed.vectors, atol=0.02 * np.abs(full.vectors).max())


def test_keras_computes_where_the_graph_does_not_give_the_same(records, weights, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(onnx_graph, "smallest_cosine", lambda *_: 0.9997)
    with caplog.at_level(logging.WARNING, "biascxr"):
        made = embed(records, weights, tmp_path / "made")
    assert made.card["runtime"] == "keras" and "cosine 0.999700" in caplog.text
    with pytest.raises(InputError, match="--runtime onnxruntime: ONNX Runtime's vectors differ from Keras's"):
        embed(records, weights, tmp_path / "again", runtime="onnxruntime")


@pytest.mark.slow
def test_what_an_interrupted_run_left_of_another_network_or_runtime_is_made_again(records, stand_in, tmp_path, monkeypatch):
    keras = pytest.importorskip("keras")
    stand_in().save(tmp_path / "network.keras")
    undisturbed = embed(records, str(tmp_path / "network.keras"), tmp_path / "undisturbed")

    def stop(*_, **__):
        raise KeyboardInterrupt

    for left_by in ("other weights", "other runtime"):
        folder, path = tmp_path / left_by, tmp_path / f"{left_by}.keras"
        model = keras.models.load_model(tmp_path / "network.keras")
        if left_by == "other weights":
            model.set_weights([2 * weight for weight in model.get_weights()])
        model.save(path)
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(build, "assemble", stop)
            embed(records, str(path), folder, runtime="auto" if left_by == "other weights" else "keras")
        assert list(folder.glob("*.npz"))
        made = embed(records, str(tmp_path / "network.keras"), folder)
        np.testing.assert_array_equal(made.vectors, undisturbed.vectors)
        assert (folder / "keys.npy").read_bytes() == (tmp_path / "undisturbed" / "keys.npy").read_bytes()


def test_keras_computes_where_onnx_runtime_is_not_installed(records, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "is_available", lambda: False)
    assert embed(records, weights, tmp_path / "asked", runtime="keras").card["runtime"] == "keras"
    assert embed(records, weights, tmp_path / "made").card["runtime"] == "keras"
    with pytest.raises(InputError, match=r"pip install \"biascxr\[onnx\]\""):
        embed(records, weights, tmp_path / "again", runtime="onnxruntime")


def test_keras_computes_where_there_is_a_gpu(records, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "has_gpu", lambda: True)
    assert embed(records, weights, tmp_path / "made").card["runtime"] == "keras on a GPU"
