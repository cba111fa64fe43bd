"""DenseNet121, 169 and 201 with global pooling: 1024-, 1664- and 1920-d vectors; or their last map."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings.base import NAMED_WEIGHTS, TORCH_ENDINGS, check_weights_path, stated_in_card
from biascxr.embeddings.keras_encoder import KerasEncoder
from biascxr.embeddings.pixels import SOURCES, source_for
from biascxr.embeddings.torch_densenet import map_to_keras, tell_source, torchvision_names
from biascxr.errors import InputError

KERAS_NAMES = {"densenet121": "DenseNet121", "densenet169": "DenseNet169", "densenet201": "DenseNet201"}


class DenseNet(KerasEncoder):
    """A Keras DenseNet without its classifier; DenseNet121's vector is that of the MIMIC Racial Fairness code.

    Weights are ImageNet's, random, a `.weights.h5` file of this network, or a PyTorch state dict of it (torchvision, CheXNet,
    TorchXRayVision), which gives PyTorch's numbers. A whole `.keras` model is `keras_file`'s.

    Pixels go in as the weights' source has them (`biascxr.embeddings.pixels.SOURCES`): Keras weights of one channel take grey
    pixels in [0, 1], of three channels ImageNet's mean and deviation, both at the records' size; PyTorch weights at the size
    they were trained at, to which the records' images are resized.

    Reference: Huang et al., Densely Connected Convolutional Networks, CVPR 2017.
    """

    def __init__(self, config: EmbeddingsConfig, *, image_size: int, seed: int) -> None:
        self._config, self._seed, self._image_size = config, seed, image_size
        if config.layer is not None:
            raise InputError(
                f"--layer {config.layer}: {self.name} is read at its last map; save it as .keras to read another layer."
            )
        path = check_weights_path(config.weights)
        if path is None:
            self._use_named_weights()
        elif config.weights.endswith(TORCH_ENDINGS):
            self._use_torch_weights(path)
        else:
            self._use_keras_weights(path)
        self._settle()

    def _use_named_weights(self) -> None:
        weights, size = self._config.weights, (self._image_size, self._image_size)
        if self._config.weights_source != "auto":
            raise InputError(
                f"--weights_source {self._config.weights_source} says how a weights file wants its pixels; --weights {weights} "
                "is no file. Leave one of them out."
            )
        if weights == "imagenet":
            self._model = _imagenet(self.name, size, self._config.pooling)
            self._source, trained_on = SOURCES["imagenet"], "ImageNet (natural photographs)"
        else:
            self._model = _network(self.name, (*size, 1), self._config.pooling)
            _draw_weights(self._model, self._seed)
            self._source, trained_on = SOURCES["unit_range"], "nothing"
        self._stated = {"trained_on": trained_on}

    def _use_keras_weights(self, path: Path) -> None:
        title, size = KERAS_NAMES[self.name], (self._image_size, self._image_size)
        channels = _channels_of(path, title)
        self._source = source_for(self._config.weights_source, channels, weights=str(path))
        if self._source.size is not None:
            size = (self._source.size, self._source.size)
        self._model = _network(self.name, (*size, channels), self._config.pooling)
        try:
            self._model.load_weights(path)
        except ValueError as error:
            raise InputError(
                f"--weights {path}: these are not weights of {title} without its classifier ({error}). "
                "Save a whole model as .keras instead."
            ) from error
        self._stated = stated_in_card(path, otherwise=self._source.trained_on)

    def _use_torch_weights(self, path: Path) -> None:
        from biascxr.embeddings.torch_file import read_state_dict

        state = torchvision_names(read_state_dict(path))
        # What the file is comes before what it was trained on: the weights of another network are refused as such.
        layers = map_to_keras(state, self.name, weights=str(path))
        self._source, trained_on = tell_source(state, self._config.weights_source, weights=str(path))
        size = self._source.size or self._image_size
        channels = layers["conv1_conv"][0].shape[2]
        self._model = _network(self.name, (size, size, channels), self._config.pooling)
        for name, weights in layers.items():
            self._model.get_layer(name).set_weights(weights)
        self._stated = stated_in_card(path, otherwise=trained_on)

    def _reading(self) -> tuple:
        return (self.name, self._config.pooling, self.pixels(), self._image_size)

    def card(self) -> dict:
        is_random = self._config.weights == "random"
        named = self._config.weights in NAMED_WEIGHTS
        return {
            "encoder": self.name,
            "weights": f"random, seed {self._seed}" if is_random else Path(self._config.weights).name,
            "pooling": self._config.pooling,
            "map_shape": self._map_shape,
            "pixels": self.pixels(),
            "vector_length": self.vector_length,
            **self.fingerprints(),
            "is_trained": not is_random,
            **({} if named else {"weights_source": self._source.name}),
            **self._stated,
        }


class DenseNet121(DenseNet):
    """DenseNet121: 1024-d, 7 million weights."""

    name: ClassVar[str] = "densenet121"


class DenseNet169(DenseNet):
    """DenseNet169: 1664-d, 12.5 million weights."""

    name: ClassVar[str] = "densenet169"


class DenseNet201(DenseNet):
    """DenseNet201: 1920-d, 18 million weights; the backbone of the Causal Fairness code."""

    name: ClassVar[str] = "densenet201"


def _network(name: str, input_shape: tuple[int, int, int], pooling: str, weights: str | None = None):
    import keras

    build = getattr(keras.applications, KERAS_NAMES[name])
    return build(include_top=False, weights=weights, input_shape=input_shape, pooling=None if pooling == "none" else pooling)


def _draw_weights(model, seed: int) -> None:
    """Draws every convolution from He's normal distribution, variance 2 / fan-in (He et al., ICCV 2015).

    Keras's default (Glorot) halves the variance at each ReLU: after 121 layers all vectors are nearly the same tiny
    vector, and a head on them learns nothing (NIH sample: macro AUROC .54 against .61).
    """
    import keras

    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            shape = layer.kernel.shape
            deviation = np.sqrt(2 / np.prod(shape[:3]))
            layer.kernel.assign(rng.normal(0, deviation, shape).astype(np.float32))


def _imagenet(name: str, shape: tuple[int, int], pooling: str):
    try:
        return _network(name, (*shape, 3), pooling, weights="imagenet")
    except Exception as error:
        # Keras's download helper raises a bare Exception; anything that is not a failed download goes up as it is.
        if "URL fetch failure" not in str(error):
            raise
        raise InputError(
            f"--weights imagenet: the ImageNet weights of {KERAS_NAMES[name]} are not on this machine and could not be "
            "downloaded (no network?). Either run once where there is a network and copy "
            f"~/.keras/models/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5 here, or give --weights a .keras or "
            ".weights.h5 file or a PyTorch state dict, or try the pipeline with --weights random (its numbers have no "
            "scientific meaning)."
        ) from error


def _channels_of(path: Path, title: str) -> int:
    """Returns the input channels of a DenseNet's weights file, told by its first 7x7 convolution."""
    import h5py

    found: list[int] = []

    def visit(_, item) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 4 and item.shape[:2] == (7, 7):
            found.append(item.shape[2])

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
    except OSError as error:
        raise InputError(f"--weights {path} is not an HDF5 file: {error}") from error
    if not found or found[0] not in (1, 3):
        raise InputError(f"--weights {path}: no 7x7 convolution on 1 or 3 channels, so this is not {title}.")
    return found[0]
