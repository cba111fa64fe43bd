"""TensorFlow SavedModels, read as TensorFlow itself reads them: one with CXR Foundation's signature, and ones of images."""

import logging

import cv2
import numpy as np
import pytest

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import find_encoder
from biascxr.errors import InputError

tf = pytest.importorskip("tensorflow")

SIZE, BATCH, LENGTH = 32, 4, 1376


class Foundation(tf.Module):
    """The form of `elixr-c-v2-pooled`: one serialized Example, a PNG in it, resized and scaled inside; an 8x8x1376 map."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(0).normal(size=(1, 1, 3, LENGTH)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="input_example")])
    def maps(self, input_example):
        wanted = {key: tf.io.FixedLenFeature([], tf.string) for key in ("image/encoded", "image/format")}
        parsed = tf.io.parse_example(input_example, wanted)
        tf.debugging.assert_equal(parsed["image/format"], "png")
        image = tf.io.decode_png(parsed["image/encoded"][0], channels=1)  # the real graph, too, reads one image
        image = tf.image.resize(image[None], (64, 64))
        image = tf.tile((image - tf.reduce_min(image)) / (tf.reduce_max(image) - tf.reduce_min(image) + 1e-6), (1, 1, 1, 3))
        return {"feature_maps_0": tf.nn.avg_pool2d(tf.nn.relu(tf.nn.conv2d(image, self.kernel, 1, "SAME")), 8, 8, "VALID")}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="input_example")])
    def vector(self, input_example):
        return {"other": tf.zeros([1, 3]), "embedding": tf.reduce_mean(self.maps(input_example)["feature_maps_0"], (1, 2))}


class OnImages(tf.Module):
    """A graph that takes pixels and gives their sums over three stripes, and a map."""

    def __init__(self, dtype=tf.float32, shape=(None, None, None, 1), several=False):
        super().__init__()
        self.weight = tf.Variable(2.0)

        def run(image):
            x = tf.cast(image, tf.float32) * self.weight
            axes = [a for a in range(1, len(shape))]
            vector = tf.stack([tf.reduce_sum(x, axes), tf.reduce_max(x, axes)], axis=1)
            return {"vector": vector, "maps": x} if several else {"vector": vector}

        self.serve = tf.function(run, input_signature=[tf.TensorSpec(shape, dtype, name="image")])


def save(module, folder, signature=None, name="serving_default"):
    tf.saved_model.save(module, str(folder), signatures={name: signature or module.serve})
    return folder


def encoder_of(folder, image_size=SIZE, **settings):
    config = EmbeddingsConfig(weights=str(folder), inference_batch=BATCH, **settings)
    return find_encoder(config.encoder, config.weights)(config, image_size=image_size, seed=0)


def serialized(image):
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(cv2.imencode(".png", image)[1].tobytes())
    example.features.feature["image/format"].bytes_list.value.append(b"png")
    return example.SerializeToString()


@pytest.fixture(scope="module")
def foundation(tmp_path_factory):
    module = Foundation()
    return save(module, tmp_path_factory.mktemp("saved") / "elixr-c-v2-pooled", module.maps)


class TestCxrFoundation:
    @pytest.mark.parametrize("pooling", ["avg", "max"])
    def test_gets_one_example_per_image_and_its_map_is_pooled(self, foundation, images, pooling):
        encoder = encoder_of(foundation, pooling=pooling)
        vectors = encoder.encode(images)
        signature = tf.saved_model.load(str(foundation)).signatures["serving_default"]
        maps = [signature(input_example=tf.constant([serialized(image)]))["feature_maps_0"].numpy()[0] for image in images]
        assert maps[0].shape == (8, 8, LENGTH)
        expected = [m.mean((0, 1)) if pooling == "avg" else m.max((0, 1)) for m in maps]
        np.testing.assert_allclose(vectors, expected, rtol=1e-6, atol=1e-7)
        assert vectors.shape == (BATCH, encoder.vector_length) == (BATCH, LENGTH)

    def test_that_gives_the_vector_itself_is_read_at_embedding(self, tmp_path, foundation, images):
        module = Foundation()
        encoder = encoder_of(save(module, tmp_path / "v1", module.vector))
        np.testing.assert_allclose(encoder.encode(images), encoder_of(foundation, pooling="avg").encode(images), rtol=1e-5)
        assert (encoder.card()["layer"], encoder.card()["pooling"]) == ("embedding", "as the file has it")
        assert encoder_of(tmp_path / "v1", layer="other").vector_length == 3

    def test_card_says_how_it_was_read(self, foundation):
        card = encoder_of(foundation, pooling="avg").card()
        assert card["weights"] == "elixr-c-v2-pooled"
        assert (card["layer"], card["pooling"], card["vector_length"]) == ("feature_maps_0", "avg", LENGTH)
        assert card["pixels"] == "tf.train.Example with a PNG: 1 channel, 32 x 32, 0 to 255"
        assert card["trained_on"] == "not stated by the weights file"

    def test_small_records_are_warned_of(self, foundation, caplog):
        with caplog.at_level(logging.WARNING, logger="biascxr"):
            encoder_of(foundation)
        assert "takes images of 1024 pixels or more, the records hold 32: set --image_size 1024" in caplog.text

    def test_scales_for_itself(self, foundation):
        with pytest.raises(InputError, match=r"--weights_source chexnet: the network in .* takes files, scaled by itself"):
            encoder_of(foundation, weights_source="chexnet")

    def test_written_by_tensorflow_1_is_read_too(self, tmp_path, images):
        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            serial = v1.placeholder(tf.string, [None])
            parsed = v1.io.parse_example(serial, {"image/encoded": v1.FixedLenFeature([], tf.string)})
            image = tf.cast(tf.io.decode_png(parsed["image/encoded"][0], channels=1), tf.float32)
            scale = v1.get_variable("scale", initializer=tf.constant([1.0, 2.0, 3.0]))
            maps = tf.reshape(tf.reduce_mean(image) * scale, [1, 1, 1, 3])
            session.run(v1.global_variables_initializer())
            v1.saved_model.simple_save(session, str(tmp_path / "old"), {"input_example": serial}, {"feature_maps_0": maps})
        expected = images.mean((1, 2))[:, None] * np.array([1, 2, 3])
        np.testing.assert_allclose(encoder_of(tmp_path / "old").encode(images), expected, rtol=1e-5)


class TestImages:
    @pytest.mark.parametrize(
        ("shape", "dtype", "sums"),
        [
            ((None, None, None, 1), tf.float32, lambda x: x / 255),
            ((None, SIZE, SIZE), tf.float32, lambda x: x / 255),
            ((None, 1, SIZE, SIZE), tf.float32, lambda x: x / 255),
            ((None, SIZE, SIZE, 3), tf.uint8, lambda x: 3 * x),
            ((1, SIZE, SIZE, 1), tf.float64, lambda x: x / 255),
            ((3, SIZE, SIZE, 1), tf.int32, lambda x: x),
        ],
    )
    def test_go_in_as_the_signature_has_them(self, tmp_path, images, shape, dtype, sums):
        vectors = encoder_of(save(OnImages(dtype, shape), tmp_path / "m")).encode(images)
        np.testing.assert_allclose(vectors[:, 0], 2 * sums(images.sum((1, 2), np.float64)), rtol=1e-5)

    def test_of_another_size_are_resized(self, tmp_path, images):
        from biascxr.embeddings.pixels import resize

        vectors = encoder_of(save(OnImages(shape=(None, 20, 20, 1)), tmp_path / "m")).encode(images)
        np.testing.assert_allclose(vectors[:, 0], 2 * resize(images.astype(np.float32), 20).sum((1, 2)) / 255, rtol=1e-5)

    def test_a_named_source_is_followed(self, tmp_path, images):
        save(OnImages(shape=(None, None, None, 1)), tmp_path / "m")
        encoder = encoder_of(tmp_path / "m", weights_source="torchxrayvision")
        assert encoder.card()["pixels"].startswith("torchxrayvision: 1 channel, 224 x 224, -1024 to 1024")
        assert encoder.encode(images)[:, 1].max() > 100

    def test_what_keras_exports_gives_keras_numbers(self, tmp_path, images, stand_in, make_encoder):
        model = stand_in(3)
        model.save(tmp_path / "m.keras")
        model.export(tmp_path / "m", verbose=False)
        np.testing.assert_allclose(
            encoder_of(tmp_path / "m").encode(images), make_encoder(tmp_path / "m.keras").encode(images), rtol=1e-5, atol=1e-6
        )


class TestFingerprint:
    def test_holds_weights_output_pooling_and_batch(self, tmp_path):
        module = OnImages(several=True)
        save(module, tmp_path / "a")
        first = encoder_of(tmp_path / "a", layer="maps").card()["fingerprint"]
        assert encoder_of(tmp_path / "a", layer="maps").card()["fingerprint"] == first
        others = [encoder_of(tmp_path / "a", layer="vector"), encoder_of(tmp_path / "a", layer="maps", pooling="avg"),
                  encoder_of(tmp_path / "a", layer="maps", image_size=40)]  # fmt: skip
        module.weight.assign(3.0)
        others.append(encoder_of(save(module, tmp_path / "b"), layer="maps"))
        assert len({first, *(other.card()["fingerprint"] for other in others)}) == 5

    def test_does_not_hold_the_card_beside_the_folder(self, tmp_path):
        save(OnImages(), tmp_path / "a-1.0")
        first = encoder_of(tmp_path / "a-1.0").card()
        (tmp_path / "a-1.0.card.json").write_text('{"trained_on": "other films"}')
        second = encoder_of(tmp_path / "a-1.0").card()
        assert second["trained_on"] == "other films"
        assert second["fingerprint"] == first["fingerprint"]


class TestWhatCannotBeRead:
    def test_several_outputs_are_listed(self, tmp_path):
        save(OnImages(several=True), tmp_path / "m")
        with pytest.raises(InputError, match=r"several outputs \(.*maps .*; name the one to read with --layer"):
            encoder_of(tmp_path / "m")

    def test_an_unknown_output_is_answered_with_the_nearest(self, tmp_path):
        save(OnImages(several=True), tmp_path / "m")
        with pytest.raises(InputError, match=r"--layer: no output 'vectr' in .*Did you mean 'vector'\? They are: .*maps"):
            encoder_of(tmp_path / "m", layer="vectr")

    @pytest.mark.parametrize("shape", [(None, 5), (None, SIZE, SIZE, 2), (None, 20, 30, 1), None])
    def test_an_input_that_is_no_square_image(self, tmp_path, shape):
        module = tf.Module()
        module.serve = tf.function(lambda x: {"v": x}, input_signature=[tf.TensorSpec(shape, tf.float32, name="x")])
        with pytest.raises(InputError, match=r"expected serialized tf\.train\.Examples .* input 'x' is float32 of shape"):
            encoder_of(save(module, tmp_path / "m"))

    def test_two_inputs(self, tmp_path):
        module = tf.Module()
        specs = [tf.TensorSpec([None, 8, 8, 1], tf.float32, name=name) for name in ("a", "b")]
        module.serve = tf.function(lambda a, b: {"v": a + b}, input_signature=specs)
        with pytest.raises(InputError, match="expected one image input; got a, b"):
            encoder_of(save(module, tmp_path / "m"))

    def test_one_number_for_all_images(self, tmp_path):
        module = tf.Module()
        spec = [tf.TensorSpec([None, None, None, 1], tf.float32, name="x")]
        module.serve = tf.function(lambda x: {"v": tf.reduce_sum(x)}, input_signature=spec)
        with pytest.raises(InputError, match=r"must be one vector or map per image; got shape \(\) for 4 images"):
            encoder_of(save(module, tmp_path / "m"))

    def test_a_graph_that_does_not_want_this_example(self, tmp_path):
        module = tf.Module()

        def run(input_example):
            return {"v": tf.io.parse_example(input_example, {"other": tf.io.FixedLenFeature([2], tf.float32)})["other"]}

        module.serve = tf.function(run, input_signature=[tf.TensorSpec([None], tf.string, name="input_example")])
        with pytest.raises(InputError, match=r"the model cannot take what it is given \(tf\.train\.Example with a PNG.*other"):
            encoder_of(save(module, tmp_path / "m"))

    def test_no_signature_or_several(self, tmp_path):
        tf.saved_model.save(tf.Module(), str(tmp_path / "none"))
        with pytest.raises(
            InputError, match="expected a SavedModel with the signature 'serving_default' or only one; got none"
        ):
            encoder_of(tmp_path / "none")
        module = OnImages()
        tf.saved_model.save(module, str(tmp_path / "two"), signatures={"one": module.serve, "two": module.serve})
        with pytest.raises(InputError, match="got 'one', 'two'"):
            encoder_of(tmp_path / "two")
        assert encoder_of(save(module, tmp_path / "only", name="embed")).vector_length == 2

    def test_a_damaged_or_another_folder(self, tmp_path):
        (tmp_path / "saved_model.pb").write_text("hello")
        with pytest.raises(InputError, match="TensorFlow cannot load this SavedModel"):
            encoder_of(tmp_path)
        (tmp_path / "saved_model.pb").unlink()
        with pytest.raises(InputError, match=r"this folder is not a TensorFlow SavedModel \(it holds no saved_model\.pb\)"):
            encoder_of(tmp_path)
        with pytest.raises(InputError, match=r"--encoder saved_model needs --weights FOLDER"):
            find_encoder("saved_model", str(tmp_path))
