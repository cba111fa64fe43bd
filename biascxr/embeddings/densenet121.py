"""DenseNet121 with global pooling: 1024-d vectors, as in the MIMIC Racial Fairness code."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings.base import Encoder, check_weights_path, grey_batch, weights_fingerprint
from biascxr.errors import InputError


class DenseNet121(Encoder):
    """Keras DenseNet121 without its classifier.

    The number of input channels decides the preprocessing: one channel takes grey pixels in [0, 1]; three channels take
    the grey image repeated, normalised with the ImageNet mean and deviation (`keras.applications.densenet`).
    Weights are ImageNet's, random, or a `.weights.h5` file of this network; a whole `.keras` model is `keras_file`'s.

    Reference: Huang et al., Densely Connected Convolutional Networks, CVPR 2017.
    """

    name: ClassVar[str] = "densenet121"
    libraries: ClassVar[tuple[str, ...]] = ("keras", "tensorflow")

    def __init__(self, config: EmbeddingsConfig, *, image_size: int, seed: int) -> None:
        self._config = config
        self._seed = seed
        path = check_weights_path(config.weights)
        shape = (image_size, image_size)
        if path is None and config.weights == "imagenet":
            self._model = _imagenet(shape, config.pooling)
        elif path is None:
            self._model = _densenet((*shape, 1), config.pooling)
            _draw_weights(self._model, seed)
        else:
            self._model = _densenet((*shape, _channels_of(path)), config.pooling)
            try:
                self._model.load_weights(path)
            except ValueError as error:
                raise InputError(
                    f"--weights {path}: these are not weights of DenseNet121 without its classifier ({error}). "
                    "Save a whole model as .keras instead."
                ) from error

    @property
    def vector_length(self) -> int:
        return int(self._model.output_shape[-1])

    def encode(self, images: np.ndarray) -> np.ndarray:
        batch = grey_batch(images, channels=self._model.input_shape[-1])
        return np.asarray(self._model.predict_on_batch(batch), np.float32)

    def card(self) -> dict:
        is_random = self._config.weights == "random"
        known = {"imagenet": "ImageNet (natural photographs)", "random": "nothing"}
        return {
            "encoder": self.name,
            "weights": f"random, seed {self._seed}" if is_random else Path(self._config.weights).name,
            "pooling": self._config.pooling,
            "vector_length": self.vector_length,
            "fingerprint": weights_fingerprint(self._model, self._config.inference_batch),
            "is_trained": not is_random,
            "trained_on": known.get(self._config.weights, "not stated by the weights file"),
        }


def _densenet(input_shape: tuple[int, int, int], pooling: str, weights: str | None = None):
    import keras

    return keras.applications.DenseNet121(include_top=False, weights=weights, input_shape=input_shape, pooling=pooling)


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


def _imagenet(shape: tuple[int, int], pooling: str):
    try:
        return _densenet((*shape, 3), pooling, weights="imagenet")
    except Exception as error:
        # Keras's download helper raises a bare Exception; anything that is not a failed download goes up as it is.
        if "URL fetch failure" not in str(error):
            raise
        raise InputError(
            "--weights imagenet: the ImageNet weights of DenseNet121 are not on this machine and could not be downloaded "
            "(no network?). Either run once where there is a network and copy "
            "~/.keras/models/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5 here, or give --weights a .keras or "
            ".weights.h5 file, or try the pipeline with --weights random (its numbers have no scientific meaning)."
        ) from error


def _channels_of(path: Path) -> int:
    """Returns the input channels of a DenseNet121 weights file, told by its first 7x7 convolution."""
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
        raise InputError(f"--weights {path}: no 7x7 convolution on 1 or 3 channels, so this is not DenseNet121.")
    return found[0]
