"""DenseNet weights from PyTorch in Keras's places: torchvision, CheXNet and TorchXRayVision.

Both build the same network (Huang et al., CVPR 2017; 7x7 convolution padded by 3, 3x3 max pool padded by 1, ReLU after the last
batch normalisation: torchvision applies it in `forward`, Keras as a layer). What differs is the names, the order of a kernel's
axes, and the batch normalisation's epsilon.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from biascxr.embeddings.pixels import SOURCES, Source, source_for
from biascxr.errors import InputError

BLOCKS = {"densenet121": (6, 12, 24, 16), "densenet169": (6, 12, 32, 32), "densenet201": (6, 12, 48, 32)}
FIRST, GROWTH, BOTTLENECK = 64, 32, 128  # channels: of the first convolution, a layer adds, between its two convolutions
TORCH_EPSILON, KERAS_EPSILON = 1e-5, 1.001e-5
NORM = ("weight", "bias", "running_mean", "running_var")  # Keras's order: gamma, beta, moving mean, moving variance
_OLD = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # torchvision before 0.2.1 had norm.1 for norm1
_FIRST = re.compile(r"^(.*?)(features\.)?conv0\.weight$")


@dataclass(frozen=True)
class Layer:
    """One layer with weights.

    Attributes:
        torch: its name in a state dict.
        keras: its name in `keras.applications.DenseNet121`.
        shape: of a convolution's kernel in PyTorch, `(out, in, height, width)`, or of a batch normalisation, `(channels,)`.
    """

    torch: str
    keras: str
    shape: tuple[int, ...]

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Returns the state dict's names and shapes."""
        return {f"{self.torch}.{part}": self.shape for part in (NORM if len(self.shape) == 1 else NORM[:1])}

    def to_keras(self, state: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Returns the weights as `keras_layer.set_weights` takes them."""
        values = [state[name] for name in self.tensors()]
        if len(self.shape) == 4:
            return [values[0].transpose(2, 3, 1, 0)]  # (out, in, height, width) -> (height, width, in, out)
        # The variance takes up the difference of the epsilons, so that 1 / sqrt(variance + epsilon) is PyTorch's.
        values[3] = (values[3].astype(np.float64) + (TORCH_EPSILON - KERAS_EPSILON)).astype(np.float32)
        return values


def layers_of(blocks: tuple[int, ...], channels: int) -> Iterator[Layer]:
    """Yields the layers with weights of a DenseNet, in their order.

    Args:
        blocks: dense layers in each of the four blocks.
        channels: of the input.
    """
    yield Layer("features.conv0", "conv1_conv", (FIRST, channels, 7, 7))
    yield Layer("features.norm0", "conv1_bn", (FIRST,))
    width = FIRST
    for block, n_layers in enumerate(blocks, start=1):
        for index in range(1, n_layers + 1):
            torch, keras = f"features.denseblock{block}.denselayer{index}", f"conv{block + 1}_block{index}"
            yield Layer(f"{torch}.norm1", f"{keras}_0_bn", (width,))
            yield Layer(f"{torch}.conv1", f"{keras}_1_conv", (BOTTLENECK, width, 1, 1))
            yield Layer(f"{torch}.norm2", f"{keras}_1_bn", (BOTTLENECK,))
            yield Layer(f"{torch}.conv2", f"{keras}_2_conv", (GROWTH, BOTTLENECK, 3, 3))
            width += GROWTH
        if block < len(blocks):
            yield Layer(f"features.transition{block}.norm", f"pool{block + 1}_bn", (width,))
            yield Layer(f"features.transition{block}.conv", f"pool{block + 1}_conv", (width // 2, width, 1, 1))
            width //= 2
    yield Layer("features.norm5", "bn", (width,))


def torchvision_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Brings a state dict's names to torchvision's present ones.

    What stands before `features.` goes (`module.` of DataParallel, `module.densenet121.` of CheXNet, `model.`, ...), `norm.1`
    becomes `norm1`, and the state dict of `model.features` alone gets its `features.`.
    """
    first = next((match for match in map(_FIRST.match, state) if match), None)
    prefix, features = first.groups() if first else ("", "features.")
    added = "" if features else "features."

    def renamed(name: str) -> str:
        return _OLD.sub(r"\1\2", added + name.removeprefix(prefix) if name.startswith(prefix) else name)

    return {renamed(name): values for name, values in state.items()}


def map_to_keras(state: Mapping[str, np.ndarray], encoder: str, *, weights: str) -> dict[str, list[np.ndarray]]:
    """Gives every layer of a Keras DenseNet its weights.

    Args:
        state: a state dict with torchvision's names.
        encoder: key of `BLOCKS`.
        weights: the file, for the message.

    Returns:
        Keras layer name -> what its `set_weights` takes.

    Raises:
        InputError: the file is another network's, or tensors are missing, left over, of another shape or not finite.
    """
    channels = channels_of(state, weights=weights)
    found = tuple(_n_layers(state, block) for block in range(1, 5))
    other = next((name for name, blocks in BLOCKS.items() if blocks == found), None)
    if other not in (None, encoder):
        raise InputError(f"--weights {weights} are weights of {other}; give --encoder {other} with them, not {encoder}.")
    layers = list(layers_of(BLOCKS[encoder], channels))
    expected = {name: shape for layer in layers for name, shape in layer.tensors().items()}
    problems = [
        _listed("missing", [name for name in expected if name not in state]),
        _listed("not part of it", [name for name in state if name not in expected and not _may_be_left(name)]),
        _listed(
            "of another shape",
            [f"{n} {state[n].shape} for {s}" for n, s in expected.items() if n in state and state[n].shape != s],
        ),
        _listed("with NaN or infinite values", [n for n in expected if n in state and not np.isfinite(state[n]).all()]),
    ]
    if any(problems):
        raise InputError(f"--weights {weights} are not whole weights of {encoder}: {'; '.join(filter(None, problems))}.")
    return {layer.keras: layer.to_keras(state) for layer in layers}


def channels_of(state: Mapping[str, np.ndarray], *, weights: str) -> int:
    """Returns the channels of the input, from the first convolution.

    Raises:
        InputError: there is none, or it takes another number than 1 or 3.
    """
    kernel = state.get("features.conv0.weight")
    if kernel is None or kernel.ndim != 4:
        some = ", ".join(list(state)[:4]) or "nothing"
        raise InputError(
            f"--weights {weights}: no first convolution features.conv0.weight, so this is no DenseNet; got {some}."
        )
    if kernel.shape[1] not in (1, 3):
        raise InputError(f"--weights {weights}: its first convolution takes {kernel.shape[1]} channels; expected 1 or 3.")
    return kernel.shape[1]


def tell_source(state: Mapping[str, np.ndarray], named: str, *, weights: str) -> tuple[Source, str]:
    """Tells whose weights these are, and so how they want their pixels.

    Three channels are ImageNet's mean and deviation at 224 pixels whoever trained them: 1000 classes are torchvision's, 14
    CheXNet's. One channel and 18 classes are TorchXRayVision's.

    Args:
        state: a state dict with torchvision's names.
        named: the user's choice, or `auto`.
        weights: the file, for the message.

    Returns:
        The source, and what the network was trained on as far as this tells it.

    Raises:
        InputError: one channel and another number of classes, with nothing named: the range of pixels cannot be told.
    """
    channels = channels_of(state, weights=weights)
    if named != "auto":
        source = source_for(named, channels, weights=weights)
        return source, source.trained_on
    classes = _n_classes(state)
    if channels == 1:
        if classes != 18:
            raise InputError(
                f"--weights {weights}: one channel and {classes or 'no'} classes do not tell which range of pixels this "
                "network was trained on. Say it with --weights_source torchxrayvision (-1024 to 1024, at 224 pixels) or "
                "unit_range (0 to 1)."
            )
        return SOURCES["torchxrayvision"], SOURCES["torchxrayvision"].trained_on
    if classes == 14:
        return SOURCES["chexnet"], f"14 classes, so probably {SOURCES['chexnet'].trained_on}"
    source = SOURCES["torchvision"]
    return source, "ImageNet (natural photographs)" if classes == 1000 else source.trained_on


def _n_layers(state: Mapping[str, np.ndarray], block: int) -> int:
    pattern = re.compile(rf"features\.denseblock{block}\.(denselayer\d+)\.")
    return len({match[1] for match in map(pattern.match, state) if match})


def _n_classes(state: Mapping[str, np.ndarray]) -> int | None:
    """Returns the classes of the classifier, which may be a linear layer or start a sequence (CheXNet: linear, sigmoid)."""
    heads = [v.shape[0] for name, v in state.items() if re.fullmatch(r"classifier(\.\d+)*\.weight", name) and v.ndim == 2]
    return heads[-1] if heads else None


def _may_be_left(name: str) -> bool:
    """Whether a tensor has no part in a vector: the classifier, TorchXRayVision's thresholds, batch normalisation's counter."""
    return name.startswith("classifier.") or name == "op_threshs" or name.endswith(".num_batches_tracked")


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{what}: {', '.join(names[:4])}{more}" if names else ""
