"""DenseNet121. A small stand-in takes its place where its depth does not matter."""

import re
import urllib.error

import numpy as np
import pytest

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import densenet, find_encoder
from biascxr.embeddings.base import grey_batch, weights_files
from biascxr.errors import InputError

keras = pytest.importorskip("keras")

SIZE, BATCH = 32, 4


@pytest.fixture
def small_network(monkeypatch, stand_in):
    """DenseNet121 is built as the small stand-in."""
    monkeypatch.setattr(densenet, "_network", lambda name, shape, pooling, weights=None: stand_in(shape[-1], pooling, shape[0]))


class TestRandomWeights:
    def test_are_determined_by_the_seed(self, small_network, images, make_encoder):
        one, two, other = make_encoder("random", seed=1), make_encoder("random", seed=1), make_encoder("random", seed=2)
        np.testing.assert_array_equal(one.encode(images), two.encode(images))
        assert not np.allclose(one.encode(images), other.encode(images))
        assert one.card() == two.card()
        assert one.card()["fingerprint"] != other.card()["fingerprint"]

    def test_keep_the_variance_of_he(self, small_network, make_encoder):
        drawn = make_encoder("random")._model.layers[2].kernel.numpy()
        assert drawn.std() == pytest.approx(np.sqrt(2 / np.prod(drawn.shape[:3])), rel=0.1)

    def test_say_that_they_are_not_trained(self, small_network, make_encoder):
        card = make_encoder("random", seed=7).card()
        assert card["is_trained"] is False
        assert card["weights"] == "random, seed 7"
        assert card["trained_on"] == "nothing"
        assert card["vector_length"] == 6

    def test_padding_does_not_change_a_vector(self, small_network, images, make_encoder):
        network = make_encoder("random")
        alone = np.concatenate([images[:1], np.repeat(images[1:2], BATCH - 1, axis=0)])
        np.testing.assert_array_equal(network.encode(images)[0], network.encode(alone)[0])


class TestWeightsFile:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_decides_the_channels_and_gives_its_own_vectors(
        self, small_network, tmp_path, images, channels, make_encoder, stand_in
    ):
        model = stand_in(channels)
        model.save_weights(tmp_path / "mine.weights.h5")
        loaded = make_encoder(tmp_path / "mine.weights.h5")
        np.testing.assert_array_equal(loaded.encode(images), model.predict_on_batch(grey_batch(images, channels=channels)))
        assert loaded.card()["is_trained"] is True

    def test_of_another_network_is_refused(self, tmp_path, make_encoder):
        keras.Sequential([keras.Input((SIZE, SIZE, 1)), keras.layers.Conv2D(4, 3)]).save_weights(tmp_path / "a.weights.h5")
        with pytest.raises(InputError, match="no 7x7 convolution on 1 or 3 channels, so this is not DenseNet121"):
            make_encoder(tmp_path / "a.weights.h5")

    def test_that_does_not_fit_is_refused(self, small_network, tmp_path, make_encoder, stand_in):
        stand_in(head=2).save_weights(tmp_path / "a.weights.h5")
        model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), keras.layers.Conv2D(3, 7)])
        model.save_weights(tmp_path / "b.weights.h5")
        with pytest.raises(InputError, match="these are not weights of DenseNet121 without its classifier"):
            make_encoder(tmp_path / "b.weights.h5")

    def test_that_is_no_hdf5_is_refused(self, tmp_path, make_encoder):
        (tmp_path / "a.weights.h5").write_text("hello")
        with pytest.raises(InputError, match="is not an HDF5 file"):
            make_encoder(tmp_path / "a.weights.h5")


class TestTheFlag:
    def test_a_name_that_is_neither_known_nor_a_file(self, make_encoder):
        with pytest.raises(InputError, match=r"--weights must be imagenet, random, or a file ending.*got 'imagnet'"):
            make_encoder("imagnet")

    def test_a_missing_file(self, tmp_path, make_encoder):
        with pytest.raises(InputError, match=r"none\.weights\.h5: no such file"):
            make_encoder(tmp_path / "none.weights.h5")

    def test_a_source_of_pixels_without_a_file(self):
        config = EmbeddingsConfig(weights="random", weights_source="chexnet")
        with pytest.raises(InputError, match=r"--weights_source chexnet says how a weights file .*--weights random is no file"):
            find_encoder(config.encoder, config.weights)(config, image_size=SIZE, seed=0)

    def test_a_folder_that_is_no_saved_model(self, tmp_path, make_encoder):
        with pytest.raises(InputError, match=r"this folder is not a TensorFlow SavedModel"):
            make_encoder(tmp_path)


class TestWeightsFiles:
    def test_of_a_named_kind_are_none(self):
        assert weights_files("imagenet") == weights_files("random") == []

    def test_of_a_file_are_the_file_and_its_card(self, tmp_path):
        for name in ("m.pth", "m.card.json", "other.pth"):
            (tmp_path / name).write_text("x")
        assert [p.name for p in weights_files(str(tmp_path / "m.pth"))] == ["m.pth", "m.card.json"]

    def test_of_a_folder_are_all_in_it_in_one_order_and_the_card_beside_it(self, tmp_path):
        for name in ("m.v2/variables/b", "m.v2/variables/a", "m.v2/saved_model.pb", "m.v2.card.json", "m.card.json"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
        found = [str(p.relative_to(tmp_path)) for p in weights_files(str(tmp_path / "m.v2"))]
        assert found == ["m.v2/saved_model.pb", "m.v2/variables/a", "m.v2/variables/b", "m.v2.card.json"]

    def test_of_onnx_are_the_files_that_it_names_whatever_they_are_called(self, tmp_path):
        onnx = pytest.importorskip("onnx")
        values = onnx.numpy_helper.from_array(np.zeros(2000, np.float32), "w")
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["w"], ["y"])], "g", [],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2000])], [values],
        )  # fmt: skip
        model = onnx.helper.make_model(graph)
        onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
        (tmp_path / "m.onnx.bak").touch()
        assert [p.name for p in weights_files(str(tmp_path / "m.onnx"))] == ["m.onnx", "weights.bin"]

    def test_of_onnx_are_its_tensors_too(self, tmp_path):
        for name in ("m.onnx", "m.onnx.data", "m.onnx_data", "n.onnx"):
            (tmp_path / name).write_text("x")
        assert [p.name for p in weights_files(str(tmp_path / "m.onnx"))] == ["m.onnx", "m.onnx.data", "m.onnx_data"]


class TestImagenet:
    def test_gets_three_channels_and_says_what_it_saw(self, monkeypatch, images, make_encoder, stand_in):
        asked = []

        def downloaded(name, shape, pooling, weights=None):
            asked.append((shape, pooling, weights))
            return stand_in(shape[-1], pooling)

        monkeypatch.setattr(densenet, "_network", downloaded)
        network = make_encoder("imagenet", pooling="avg")
        assert asked == [((SIZE, SIZE, 3), "avg", "imagenet")]
        assert network.encode(images).shape == (BATCH, 6)
        assert network.card()["is_trained"] is True
        assert network.card()["trained_on"] == "ImageNet (natural photographs)"

    def test_another_failure_is_not_called_a_failed_download(self, monkeypatch, make_encoder):
        def fails(*args, **kwargs):
            raise ValueError("out of luck")

        monkeypatch.setattr(densenet, "_network", fails)
        with pytest.raises(ValueError, match=r"^out of luck$"):
            make_encoder("imagenet")

    def test_offline_says_what_to_do(self, monkeypatch, tmp_path, make_encoder):
        def no_network(*args, **kwargs):
            raise urllib.error.URLError("Name or service not known")

        monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", no_network)
        monkeypatch.setattr("keras.src.backend.config.keras_home", lambda: str(tmp_path), raising=False)
        monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path), raising=False)
        with pytest.raises(InputError) as error:
            make_encoder("imagenet")
        message = str(error.value)
        assert "could not be downloaded" in message
        assert "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5" in message
        assert "--weights random" in message
        assert re.search(r"\.keras or \.weights\.h5", message)


@pytest.mark.slow
class TestTheRealNetwork:
    def test_random_vectors_are_1024_long_and_differ_between_images(self, images, make_encoder):
        network = make_encoder("random")
        vectors = network.encode(images)
        assert vectors.shape == (BATCH, network.vector_length) == (BATCH, 1024)
        assert np.isfinite(vectors).all()
        assert np.ptp(vectors, axis=0).max() > 1e-2

    def test_same_seed_same_bytes_and_padding_does_not_change_a_vector(self, images, make_encoder):
        one, two = make_encoder("random", seed=5), make_encoder("random", seed=5)
        np.testing.assert_array_equal(one.encode(images), two.encode(images))
        alone = np.repeat(images[:1], BATCH, axis=0)
        np.testing.assert_array_equal(one.encode(images)[0], one.encode(alone)[0])

    def test_its_weights_file_gives_its_vectors(self, tmp_path, images, make_encoder):
        model = keras.applications.DenseNet121(include_top=False, weights=None, input_shape=(SIZE, SIZE, 1), pooling="avg")
        model.save_weights(tmp_path / "mine.weights.h5")
        loaded = make_encoder(tmp_path / "mine.weights.h5", pooling="avg")
        expected = model.predict_on_batch(images[..., None] / np.float32(255))
        np.testing.assert_allclose(loaded.encode(images), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("pooling", ["max", "avg"])
    def test_its_last_map_pools_to_its_vector(self, images, make_encoder, pooling):
        size = 64
        images = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
        kept, pooled = (make_encoder("random", size=size, pooling=p) for p in ("none", pooling))
        maps = kept.encode(images).reshape(BATCH, *kept.card()["map_shape"])
        assert maps.shape == (BATCH, 2, 2, 1024)
        np.testing.assert_allclose(
            getattr(maps, pooling if pooling == "max" else "mean")((1, 2)), pooled.encode(images), atol=1e-6
        )
