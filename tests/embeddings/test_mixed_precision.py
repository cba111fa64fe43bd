"""A Keras encoder in mixed precision: nearly the same vectors, known as other ones, and float32 where nobody asks."""

import numpy as np
import pytest

from biascxr.cli import run_command
from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import check_encoder, densenet, find_encoder
from biascxr.embeddings.base import weights_fingerprint
from biascxr.embeddings.keras_file import _architecture
from biascxr.embeddings.shards import EncoderSpec
from biascxr.errors import InputError

keras = pytest.importorskip("keras")

SIZE, BATCH = 32, 4
POLICY = {"float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}


def smallest_cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min()


def encoder_of(weights, precision="off", *, encoder="densenet121", size=SIZE, **given):
    config = EmbeddingsConfig(encoder=encoder, weights=str(weights), mixed_precision=precision, inference_batch=BATCH, **given)
    return EncoderSpec(config, size, 0).build()


@pytest.fixture
def involved(tmp_path):
    """A file with a layer used twice, a model inside the model, normalisation, a sum, and a mean as its vector."""
    keras.utils.set_random_seed(3)
    image = keras.Input((SIZE, SIZE, 1))
    x = keras.layers.Rescaling(2.0, -1.0)(image)
    x = keras.layers.Conv2D(8, 5, strides=2, activation="relu")(x)
    twice = keras.layers.Conv2D(8, 3, padding="same", activation="relu")
    x = keras.layers.BatchNormalization()(twice(twice(x)) + x)
    deep = keras.layers.Conv2D(6, 3, name="deep")
    inner = keras.Sequential([keras.Input(x.shape[1:]), deep, keras.layers.ReLU()], name="inner")
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(inner(x))).save(tmp_path / "involved.keras")
    return tmp_path / "involved.keras"


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
class TestOfAnyKerasFile:
    def test_computes_nearly_the_same_from_the_same_weights(self, precision, involved, images):
        full, mixed = encoder_of(involved), encoder_of(involved, precision)
        expected, found = full.encode(images), mixed.encode(images)
        assert found.dtype == np.float32
        assert smallest_cosine(found, expected) > 0.999
        assert (found != expected).any(axis=1).all()
        for a, b in zip(full.model.get_weights(), mixed.model.get_weights(), strict=True):
            assert b.dtype == np.float32
            np.testing.assert_array_equal(a, b)

    def test_every_layer_but_the_last_computes_in_it(self, precision, involved):
        model = encoder_of(involved, precision).model
        layers = [layer for layer in model.layers if isinstance(layer, keras.Layer)][1:]  # behind the input
        assert [layer.dtype_policy.name for layer in layers] == [POLICY[precision]] * (len(layers) - 1) + ["float32"]
        assert model.get_layer("inner").get_layer("deep").dtype_policy.name == POLICY[precision]
        assert keras.config.dtype_policy().name == "float32"  # the process's own is as it was

    def test_a_mean_keeps_the_digits_that_it_would_lose_in_float16(self, precision, involved, images):
        vectors = encoder_of(involved, precision).encode(images)
        assert (vectors.astype(np.float16) != vectors)[vectors != 0].mean() > 0.9

    def test_the_last_layer_of_a_model_inside_is_the_last_layer(self, precision, tmp_path, images):
        layers = [keras.layers.Conv2D(6, 3, name="deep"), keras.layers.GlobalAveragePooling2D(name="mean")]
        inner = keras.Sequential([keras.Input((SIZE, SIZE, 1)), *layers])
        image = keras.Input((SIZE, SIZE, 1))
        keras.Model(image, inner(image)).save(tmp_path / "nested.keras")
        encoder = encoder_of(tmp_path / "nested.keras", precision)
        deep, mean = (encoder.model.layers[-1].get_layer(name).dtype_policy.name for name in ("deep", "mean"))
        assert (deep, mean) == (POLICY[precision], "float32")
        assert smallest_cosine(encoder.encode(images), encoder_of(tmp_path / "nested.keras").encode(images)) > 0.999

    def test_is_known_as_another_computation_of_the_same_network(self, precision, involved):
        full, mixed = encoder_of(involved).card(), encoder_of(involved, precision).card()
        assert mixed["mixed_precision"] == precision and full["mixed_precision"] == "off"
        assert mixed["fingerprint"] != full["fingerprint"]
        assert mixed["network"] == full["network"]


def test_the_fingerprint_without_it_is_what_it_was(involved, tmp_path, stand_in, monkeypatch):
    encoder = encoder_of(involved)
    text = _architecture(encoder.model)
    assert encoder.card()["fingerprint"] == weights_fingerprint(encoder.model, BATCH, text, encoder.pixels(), SIZE)
    fingerprints = {encoder_of(involved, precision).card()["fingerprint"] for precision in ("off", "float16", "bfloat16")}
    assert len(fingerprints) == 3
    monkeypatch.setattr(densenet, "_network", lambda _, shape, pooling, weights=None: stand_in(shape[-1], pooling, shape[0]))
    stand_in(1).save_weights(tmp_path / "m.weights.h5")
    encoder = encoder_of(tmp_path / "m.weights.h5", encoder="densenet169")
    expected = weights_fingerprint(encoder.model, BATCH, "densenet169", "max", encoder.pixels(), SIZE)
    assert encoder.card()["fingerprint"] == expected


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_densenet121_in_mixed_precision_is_nearly_itself(precision, make_image):
    images = np.stack([make_image(seed, (64, 64)) for seed in range(BATCH)])
    full, mixed = (encoder_of("random", p, size=64).encode(images) for p in ("off", precision))
    assert smallest_cosine(full, mixed) > 0.999 and (full != mixed).any(axis=1).all()


def test_a_number_beyond_float16_inside_the_network_is_said_and_bfloat16_takes_it(tmp_path, images):
    image = keras.Input((SIZE, SIZE, 1))
    large = keras.layers.Rescaling(1e6)(image)
    keras.Model(image, keras.layers.GlobalMaxPooling2D()(large)).save(tmp_path / "large.keras")
    with pytest.raises(
        InputError, match=r"--mixed_precision float16: the network gives NaN or infinity .* bfloat16 reaches further"
    ):
        encoder_of(tmp_path / "large.keras", "float16").encode(images)
    expected = encoder_of(tmp_path / "large.keras").encode(images)
    np.testing.assert_allclose(encoder_of(tmp_path / "large.keras", "bfloat16").encode(images), expected, rtol=0.01)


def test_a_file_that_mixes_already_computes_as_it_says_and_takes_no_other_precision(tmp_path, images):
    image = keras.Input((SIZE, SIZE, 1))
    maps = keras.layers.Conv2D(4, 3, dtype="mixed_bfloat16")(image)
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(maps)).save(tmp_path / "mixing.keras")
    assert encoder_of(tmp_path / "mixing.keras").encode(images).shape == (BATCH, 4)
    with pytest.raises(InputError, match=r"mixing\.keras says itself what its layers compute in \(mixed_bfloat16\)"):
        encoder_of(tmp_path / "mixing.keras", "float16")


@pytest.mark.parametrize(("flag", "value"), [("mixed_precision", "float16"), ("distribute", "mirrored")])
class TestIsKerass:
    def test_and_not_onnx_runtimes(self, flag, value):
        with pytest.raises(InputError, match=f"--{flag} {value} is Keras's; --runtime onnxruntime is fp32"):
            EmbeddingsConfig(runtime="onnxruntime", **{flag: value})

    def test_and_not_another_files(self, flag, value, tmp_path, capsys):
        (tmp_path / "mine.onnx").touch()
        (tmp_path / "saved").mkdir()
        (tmp_path / "saved" / "saved_model.pb").touch()
        for weights, name in (("mine.onnx", "onnx"), ("saved", "saved_model")):
            config = EmbeddingsConfig(weights=str(tmp_path / weights), **{flag: value})
            assert find_encoder(config.encoder, config.weights).name == name
            with pytest.raises(InputError, match=f"--{flag} {value} is for Keras networks; {name} computes as its file"):
                check_encoder(config)
        (tmp_path / "meta.csv").touch()
        flags = ["--csv_path", str(tmp_path / "meta.csv"), "--weights", str(tmp_path / "mine.onnx"), f"--{flag}", value]
        assert run_command([*flags, "--output_dir", str(tmp_path / "run")]) == 2
        assert "is for Keras networks" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()  # said before anything is done
