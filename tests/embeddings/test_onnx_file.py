"""ONNX files: what Keras and PyTorch export gives their numbers; layout, channels and size are the file's own."""

import builtins

import numpy as np
import pytest

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import find_encoder
from biascxr.errors import InputError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SIZE, BATCH = 32, 4


def write(
    path, *, shape=("n", SIZE, SIZE, 1), kind=TensorProto.FLOAT, layout="last", vector=True, extra=False, inputs=("image",)
):
    """A graph by hand: 1x1 convolution of the channels to 5, then the average, then a linear layer to 2 scores."""
    rng = np.random.default_rng(0)
    channels = shape[1] if layout == "first" else shape[-1]
    weights = {
        "kernel": rng.normal(size=(5, channels if isinstance(channels, int) else 1, 1, 1)).astype(np.float32),
        "head": rng.normal(size=(5, 2)).astype(np.float32),
    }
    nodes = [helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Transpose", ["float"], ["first"], perm=[0, 3, 1, 2])] if layout == "last" else [
        helper.make_node("Identity", ["float"], ["first"])
    ]  # fmt: skip
    nodes += [
        helper.make_node("Conv", ["first", "kernel"], ["maps"], kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "head"], ["scores"]),
    ]
    names = ["features"] if vector else ["maps"]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names + (["scores"] * extra)]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, kind, list(shape)) for name in inputs], outputs,
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return weights


def encoder_of(path, image_size=SIZE, **settings):
    config = EmbeddingsConfig(weights=str(path), inference_batch=BATCH, **settings)
    return find_encoder(config.encoder, config.weights)(config, image_size=image_size, seed=0)


class TestNumbers:
    def test_are_pytorchs(self, tmp_path, images):
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 7, 2),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
        ).eval()
        axes = {"image": {0: "n"}}
        arguments = (torch.zeros(2, 3, SIZE, SIZE), str(tmp_path / "m.onnx"))
        torch.onnx.export(model, *arguments, input_names=["image"], output_names=["v"], dynamic_axes=axes, dynamo=False)
        mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
        batch = (images[..., None] / np.float32(255) - mean) / deviation
        with torch.no_grad():
            expected = model(torch.tensor(np.moveaxis(batch, -1, 1).copy())).numpy()
        found = encoder_of(tmp_path / "m.onnx").encode(images)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()

    @pytest.mark.parametrize("channels", [1, 3])
    def test_are_kerass(self, tmp_path, images, stand_in, make_encoder, channels):
        pytest.importorskip("tf2onnx")
        model = stand_in(channels)
        model.save(tmp_path / "m.keras")
        model(np.zeros((1, SIZE, SIZE, channels), np.float32))  # a model that was never called is not exported
        model.export(tmp_path / "m.onnx", format="onnx", verbose=False)
        found, expected = encoder_of(tmp_path / "m.onnx").encode(images), make_encoder(tmp_path / "m.keras").encode(images)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


class TestInput:
    @pytest.mark.parametrize(
        ("shape", "layout", "kind", "scale"),
        [
            (("n", SIZE, SIZE, 1), "last", TensorProto.FLOAT, 255),
            ((BATCH, "h", "w", 1), "last", TensorProto.FLOAT, 255),
            ((1, 1, SIZE, SIZE), "first", TensorProto.FLOAT, 255),
            ((3, 1, "h", "w"), "first", TensorProto.DOUBLE, 255),
            (("n", SIZE, SIZE, 1), "last", TensorProto.UINT8, 1),
        ],
    )
    def test_is_laid_out_as_the_file_says(self, tmp_path, images, shape, layout, kind, scale):
        weights = write(tmp_path / "m.onnx", shape=shape, layout=layout, kind=kind)
        expected = images.mean((1, 2))[:, None] / scale * weights["kernel"][:, 0, 0, 0]
        found = encoder_of(tmp_path / "m.onnx").encode(images)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert found.dtype == np.float32

    def test_of_another_size_is_resized_and_said(self, tmp_path, images):
        write(tmp_path / "m.onnx", shape=("n", 1, 20, 20), layout="first")
        encoder = encoder_of(tmp_path / "m.onnx")
        assert encoder.encode(images).shape == (BATCH, 5)
        assert encoder.card()["pixels"] == "unit_range: 1 channel, 20 x 20, 0 to 1, channels first"

    def test_a_named_source_is_followed(self, tmp_path, images):
        weights = write(tmp_path / "m.onnx")
        found = encoder_of(tmp_path / "m.onnx", weights_source="torchxrayvision").encode(images)
        expected = ((2.0 * images / 255 - 1) * 1024).mean((1, 2))[:, None] * weights["kernel"][:, 0, 0, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-3)

    @pytest.mark.parametrize("shape", [("n", 5), ("n", SIZE, SIZE, 2), ("n", 20, 30, 1), ("n", "c", "h", "w")])
    def test_that_is_no_square_image_is_refused(self, tmp_path, shape):
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name in "xy")
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
        with pytest.raises(
            InputError, match=r"expected square images of 1 or 3 channels.*input 'x' is tensor\(float\) of shape"
        ):
            encoder_of(tmp_path / "m.onnx")

    def test_of_two_is_refused(self, tmp_path):
        write(tmp_path / "m.onnx", inputs=("image", "more"))
        with pytest.raises(InputError, match="expected one image input; got image, more"):
            encoder_of(tmp_path / "m.onnx")


class TestOutput:
    @pytest.mark.parametrize(("shape", "layout"), [(("n", SIZE, SIZE, 1), "last"), (("n", 1, SIZE, SIZE), "first")])
    def test_that_is_a_map_is_pooled_over_the_image_whatever_the_layout_of_the_input(self, tmp_path, images, shape, layout):
        weights = write(tmp_path / "m.onnx", shape=shape, layout=layout, vector=False)
        scaled = images.mean((1, 2))[:, None] / 255 * weights["kernel"][:, 0, 0, 0]
        encoder = encoder_of(tmp_path / "m.onnx", pooling="avg")
        np.testing.assert_allclose(encoder.encode(images), scaled, rtol=1e-4)
        assert (encoder.card()["pooling"], encoder.vector_length) == ("avg", 5)

    def test_whose_axes_do_not_tell_is_refused(self, tmp_path):
        write(tmp_path / "m.onnx", shape=("n", 5, 5, 1), vector=False)
        with pytest.raises(InputError, match=r"'maps' of shape \(4, 5, 5, 5\) does not tell which axes are height and width"):
            encoder_of(tmp_path / "m.onnx")

    def test_may_be_a_value_inside_the_graph(self, tmp_path, images):
        write(tmp_path / "m.onnx")
        inside = encoder_of(tmp_path / "m.onnx", layer="scores")
        assert inside.vector_length == 2
        assert inside.card()["fingerprint"] != encoder_of(tmp_path / "m.onnx").card()["fingerprint"]

    def test_of_several_is_asked_for_and_the_nearest_name_offered(self, tmp_path):
        write(tmp_path / "m.onnx", extra=True)
        with pytest.raises(InputError, match=r"which output is the vector\? \(features .*scores .*--layer"):
            encoder_of(tmp_path / "m.onnx")
        with pytest.raises(InputError, match=r"--layer: no output or value 'featurs' in .*Did you mean 'features'\?"):
            encoder_of(tmp_path / "m.onnx", layer="featurs")
        assert encoder_of(tmp_path / "m.onnx", layer="scores").vector_length == 2


class TestTheFile:
    def test_that_is_damaged_is_named(self, tmp_path):
        write(tmp_path / "m.onnx")
        data = (tmp_path / "m.onnx").read_bytes()
        for content in (b"hello", b"", data[: len(data) // 2]):
            (tmp_path / "m.onnx").write_bytes(content)
            with pytest.raises(InputError, match=r"m\.onnx: (ONNX Runtime cannot open this file|expected one image)"):
                encoder_of(tmp_path / "m.onnx")

    def test_that_is_missing_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.onnx: no such file"):
            encoder_of(tmp_path / "none.onnx")

    def test_with_its_tensors_beside_it_is_one_with_them(self, tmp_path, images):
        write(tmp_path / "m.onnx")
        model = onnx.load(tmp_path / "m.onnx")
        whole = encoder_of(tmp_path / "m.onnx").encode(images)
        onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0)
        assert (tmp_path / "m.onnx.data").is_file()
        encoder = encoder_of(tmp_path / "m.onnx")
        np.testing.assert_array_equal(encoder.encode(images), whole)
        data = bytearray((tmp_path / "m.onnx.data").read_bytes())
        data[2] ^= 1
        (tmp_path / "m.onnx.data").write_bytes(bytes(data))
        assert encoder_of(tmp_path / "m.onnx").card()["fingerprint"] != encoder.card()["fingerprint"]

    def test_without_onnx_runtime_says_what_to_install(self, tmp_path, monkeypatch):
        write(tmp_path / "m.onnx")
        real = builtins.__import__

        def fails(name, *args, **kwargs):
            if name == "onnxruntime":
                raise ImportError("No module named 'onnxruntime'")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", fails)
        with pytest.raises(InputError, match=r"an ONNX file needs ONNX Runtime: pip install 'biascxr\[onnx\]'"):
            encoder_of(tmp_path / "m.onnx")

    def test_is_wanted_by_the_encoder_onnx(self):
        with pytest.raises(InputError, match=r"--encoder onnx needs --weights MODEL\.onnx; got 'random'"):
            find_encoder("onnx", "random")
