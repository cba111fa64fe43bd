"""DenseNet weights from PyTorch: Keras gives PyTorch's numbers, and what does not fit is named tensor by tensor.

The small network of most tests is a real DenseNet with one layer in each block: every kind of layer stands in it.
"""

import dataclasses

import numpy as np
import pytest

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import densenet, find_encoder, torch_densenet
from biascxr.embeddings.pixels import SOURCES
from biascxr.embeddings.torch_densenet import BLOCKS, layers_of, map_to_keras, tell_source, torchvision_names
from biascxr.errors import InputError

SMALL = (1, 2, 1, 1)
BATCH = 2
SIDE = 64


def state_of(blocks=SMALL, channels=1, classes=18):
    """A state dict of the right names and shapes, without PyTorch."""
    rng = np.random.default_rng(0)
    state = {
        name: rng.uniform(0.5, 1, shape).astype(np.float32)
        for layer in layers_of(blocks, channels)
        for name, shape in layer.tensors().items()
    }
    if classes:
        width = state["features.norm5.weight"].size
        state |= {"classifier.weight": np.zeros((classes, width)), "classifier.bias": np.zeros(classes)}
    return state | {"features.norm0.num_batches_tracked": np.array(7)}


@pytest.fixture
def small(monkeypatch):
    """`densenet121` has one or two layers in each block, and every source is of 64 pixels."""
    for name, source in SOURCES.items():
        if source.size:
            monkeypatch.setitem(SOURCES, name, dataclasses.replace(source, size=SIDE))
    monkeypatch.setitem(BLOCKS, "densenet121", SMALL)
    keras_densenet = pytest.importorskip("keras.src.applications.densenet")

    def network(name, input_shape, pooling, weights=None):
        return keras_densenet.DenseNet(list(SMALL), include_top=False, weights=None, input_shape=input_shape, pooling=pooling)

    monkeypatch.setattr(densenet, "_network", network)


def random_torch_densenet(blocks, channels, classes):
    """A PyTorch DenseNet with random weights and random statistics, a variance of 0 among them."""
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    generator = torch.Generator().manual_seed(channels)
    model = torchvision.models.DenseNet(32, blocks, 64, num_classes=classes)
    if channels != 3:
        model.features.conv0 = torch.nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in ((module.weight.data, 0.5, 1.5), (module.bias.data, -0.5, 0.5),
                                      (module.running_mean, -1, 1), (module.running_var, 0.2, 2.0)):  # fmt: skip
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
            # Where the epsilon decides: 1e-5 and 1.001e-5 differ by 5e-4 of the scale.
            module.running_var[0], module.weight.data[0] = 0.0, 1e-3
        elif isinstance(module, torch.nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
    return model.eval()


def torch_vectors(model, batch, pooling):
    """What torchvision's `forward` gives before the classifier, or the maximum in place of the average."""
    import torch

    with torch.no_grad():
        features = torch.relu(model.features(torch.tensor(np.moveaxis(batch, -1, 1).copy())))
        return (features.amax((2, 3)) if pooling == "max" else features.mean((2, 3))).numpy()


def encoder_of(path, image_size, **settings):
    config = EmbeddingsConfig(weights=str(path), inference_batch=BATCH, **settings)
    return find_encoder(config.encoder, config.weights)(config, image_size=image_size, seed=0)


def check_equal(found, expected):
    largest = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.02 * largest  # vectors of two images differ
    assert np.abs(found - expected).max() <= 1e-5 * largest  # promised are 1e-4


def as_chexnet(state):
    """The keys of the published CheXNet checkpoint: DataParallel, a wrapper, a sequence as classifier, names with a dot."""
    named = {
        key.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv1.", "conv.1.").replace("conv2.", "conv.2.")
        .replace("classifier.", "classifier.0."): value
        for key, value in state.items()
    }  # fmt: skip
    return {"epoch": 4, "arch": "densenet", "state_dict": {f"module.densenet121.{key}": v for key, v in named.items()}}


class TestVectorsArePyTorchs:
    @pytest.mark.parametrize("pooling", ["max", "avg"])
    @pytest.mark.parametrize(("channels", "classes", "low", "high"), [(1, 18, -1024, 1024), (3, 1000, 0, 1)])
    def test_of_a_small_densenet(self, small, tmp_path, make_image, pooling, channels, classes, low, high):
        model = random_torch_densenet(SMALL, channels, classes)
        import torch

        torch.save(model.state_dict(), tmp_path / "a.pth")
        images = np.stack([make_image(seed, (SIDE, SIDE)) for seed in range(BATCH)])
        batch = (images[..., None] / np.float32(255) * (high - low) + low).astype(np.float32)
        if channels == 3:
            batch = (batch - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        encoder = encoder_of(tmp_path / "a.pth", SIDE, pooling=pooling)
        check_equal(encoder.encode(images), torch_vectors(model, batch, pooling))

    def test_of_records_of_another_size_are_those_of_images_resized_by_pytorch(self, small, tmp_path, make_image):
        model = random_torch_densenet(SMALL, 1, 18)
        import torch

        torch.save(model.state_dict(), tmp_path / "a.pth")
        images = np.stack([make_image(seed, (80, 80)) for seed in range(BATCH)])
        scaled = torch.tensor((2 * (images[:, None] / 255) - 1) * 1024, dtype=torch.float32)
        resized = torch.nn.functional.interpolate(scaled, size=(SIDE, SIDE), mode="bilinear", antialias=True)
        expected = torch_vectors(model, np.moveaxis(resized.numpy(), 1, -1), "avg")
        encoder = encoder_of(tmp_path / "a.pth", 80, pooling="avg")
        check_equal(encoder.encode(images), expected)
        assert encoder.card()["pixels"] == "torchxrayvision: 1 channel, 64 x 64, -1024 to 1024"

    def test_whatever_the_file_is_called_inside(self, small, tmp_path, make_image):
        model = random_torch_densenet(SMALL, 3, 14)
        import torch

        state = model.state_dict()
        pytest.importorskip("safetensors.torch").save_file(state, tmp_path / "a.safetensors")
        torch.save(as_chexnet(state), tmp_path / "b.pth.tar")
        torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "c.ckpt")
        images = np.stack([make_image(seed, (SIDE, SIDE)) for seed in range(BATCH)])
        vectors = [encoder_of(tmp_path / name, SIDE).encode(images) for name in ("a.safetensors", "b.pth.tar", "c.ckpt")]
        np.testing.assert_array_equal(vectors[0], vectors[1])
        np.testing.assert_array_equal(vectors[0], vectors[2])

    @pytest.mark.slow
    @pytest.mark.parametrize(("channels", "classes", "pooling"), [(1, 18, "max"), (3, 14, "avg")])
    def test_of_the_real_densenet121(self, tmp_path, make_image, channels, classes, pooling):
        model = random_torch_densenet(BLOCKS["densenet121"], channels, classes)
        import torch

        torch.save(model.state_dict(), tmp_path / "a.pth")
        encoder = encoder_of(tmp_path / "a.pth", 224, pooling=pooling)
        batch = encoder.prepare(np.stack([make_image(seed, (224, 224)) for seed in range(BATCH)]))
        found = np.asarray(encoder._model(batch, training=False))  # unlike `encode`, nothing to compile
        check_equal(found, torch_vectors(model, batch, pooling))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["densenet169", "densenet201"])
    def test_every_layer_of_the_deeper_ones_has_its_place(self, name):
        keras, torchvision = pytest.importorskip("keras"), pytest.importorskip("torchvision")
        theirs = getattr(torchvision.models, name)(weights=None).state_dict()
        mapped = map_to_keras({key: value.numpy() for key, value in theirs.items()}, name, weights="a.pth")
        ours = getattr(keras.applications, densenet.KERAS_NAMES[name])(include_top=False, weights=None, input_shape=(32, 32, 3))
        shapes = {layer.name: [w.shape for w in layer.weights] for layer in ours.layers if layer.weights}
        assert {key: [w.shape for w in weights] for key, weights in mapped.items()} == shapes


class TestNames:
    def test_every_form_becomes_torchvisions(self):
        state = state_of()
        checkpoint = as_chexnet(state)["state_dict"]
        assert {k.replace("classifier.0", "classifier") for k in torchvision_names(checkpoint)} == state.keys()
        assert torchvision_names({f"model.{k}": v for k, v in state.items()}).keys() == state.keys()
        alone = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
        assert torchvision_names(alone).keys() == {k for k in state if k.startswith("features.")}

    def test_a_kernel_is_turned(self):
        state = state_of()
        kernel = next(layers_of(SMALL, 1)).to_keras(state)[0]
        assert kernel.shape == (7, 7, 1, 64)
        assert kernel[2, 5, 0, 9] == state["features.conv0.weight"][9, 0, 2, 5]

    def test_a_variance_takes_up_the_other_epsilon(self):
        norm = next(layer for layer in layers_of(SMALL, 1) if layer.keras == "conv1_bn")
        variance = np.zeros(64, np.float32)
        variance[1:5] = 1e-8, 1e-6, 1e-3, 10
        state = state_of() | {"features.norm0.running_var": variance}
        scale = 1 / np.sqrt(norm.to_keras(state)[3].astype(np.float64) + 1.001e-5)  # Keras's epsilon
        np.testing.assert_allclose(scale, 1 / np.sqrt(variance.astype(np.float64) + 1e-5), rtol=1e-6)
        np.testing.assert_array_equal(state["features.norm0.running_var"], variance)  # the file's own are not changed


class TestWhatDoesNotFit:
    @pytest.fixture(autouse=True)
    def blocks(self, monkeypatch):
        monkeypatch.setitem(BLOCKS, "densenet121", SMALL)

    def refused(self, message, **changes):
        state = state_of() | {name: value for name, value in changes.items() if value is not None}
        state = {name: value for name, value in state.items() if not (name in changes and changes[name] is None)}
        with pytest.raises(InputError, match=message):
            map_to_keras(state, "densenet121", weights="a.pth")

    def test_whole_weights_are_taken(self):
        assert len(map_to_keras(state_of(), "densenet121", weights="a.pth")) == 2 + 4 * 5 + 2 * 3 + 1

    def test_missing_tensors_are_named(self):
        self.refused(
            r"a\.pth are not whole weights of densenet121: missing: features\.norm0\.bias, features\.transition1\.conv\.weight",
            **{"features.norm0.bias": None, "features.transition1.conv.weight": None},
        )

    def test_surplus_tensors_are_named(self):
        self.refused(r"not part of it: aux\.weight\.", **{"aux.weight": np.zeros(3)})

    def test_misshapen_tensors_are_named_with_both_shapes(self):
        self.refused(
            r"of another shape: features\.norm5\.weight \(3,\) for \(\d+,\)\.", **{"features.norm5.weight": np.zeros(3)}
        )

    def test_values_that_are_no_numbers_are_named(self):
        self.refused(r"NaN or infinite values: features\.norm0\.bias\.", **{"features.norm0.bias": np.full(64, np.nan)})

    def test_many_are_counted(self):
        gone = {f"features.norm0.{part}": None for part in torch_densenet.NORM} | {"features.norm5.weight": None}
        self.refused(r"missing: .*running_var and 1 more\.", **gone)

    def test_what_has_no_part_in_a_vector_may_be_there(self):
        state = state_of() | {"op_threshs": np.zeros(18), "classifier.1.weight": np.zeros((2, 2))}
        assert map_to_keras(state, "densenet121", weights="a.pth")

    def test_another_network_is_called_by_its_name(self):
        with pytest.raises(
            InputError, match="are weights of densenet169; give --encoder densenet169 with them, not densenet121"
        ):
            map_to_keras(state_of(BLOCKS["densenet169"]), "densenet121", weights="a.pth")

    def test_no_densenet_at_all(self):
        with pytest.raises(InputError, match=r"no first convolution features\.conv0\.weight.*got layer1\.weight\."):
            map_to_keras({"layer1.weight": np.zeros(3)}, "densenet121", weights="a.pth")
        with pytest.raises(InputError, match="takes 4 channels; expected 1 or 3"):
            map_to_keras(state_of(channels=4), "densenet121", weights="a.pth")


class TestSource:
    @pytest.mark.parametrize(
        ("channels", "classes", "name", "trained_on"),
        [
            (3, 1000, "torchvision", "ImageNet"),
            (3, 14, "chexnet", "14 classes, so probably NIH ChestX-ray14"),
            (3, 5, "torchvision", "not stated"),
            (3, None, "torchvision", "not stated"),
            (1, 18, "torchxrayvision", "TorchXRayVision"),
        ],
    )
    def test_is_told_from_channels_and_classes(self, channels, classes, name, trained_on):
        source, stated = tell_source(state_of(channels=channels, classes=classes), "auto", weights="a.pth")
        assert (source.name, source.size) == (name, 224)
        assert stated.startswith(trained_on) or trained_on in stated

    @pytest.mark.parametrize("classes", [None, 14, 1])
    def test_in_doubt_is_asked_for(self, classes):
        with pytest.raises(InputError, match=r"--weights_source torchxrayvision .* or unit_range"):
            tell_source(state_of(classes=classes), "auto", weights="a.pth")
        assert tell_source(state_of(classes=classes), "unit_range", weights="a.pth")[0].name == "unit_range"

    def test_of_chexnets_sequence_counts_its_classes(self):
        state = torchvision_names(as_chexnet(state_of(channels=3, classes=14))["state_dict"])
        assert tell_source(state, "auto", weights="a.pth")[0].name == "chexnet"

    def test_a_named_one_of_other_channels_is_refused(self):
        with pytest.raises(InputError, match="--weights_source chexnet is for 3 channels"):
            tell_source(state_of(), "chexnet", weights="a.pth")
