"""The contract of an encoder: images of the records in, one vector per image out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.config import EmbeddingsConfig
from biascxr.errors import InputError


class Encoder(ABC):
    """A network with fixed weights.

    Attributes:
        name: key in `biascxr.embeddings.ENCODERS`.
        libraries: distributions whose version can change a vector; part of the stage's fingerprint.
    """

    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]

    @abstractmethod
    def __init__(self, config: EmbeddingsConfig, *, image_size: int, seed: int) -> None:
        """Builds the network and loads its weights.

        Args:
            config: weights, pooling, batch.
            image_size: height and width of the records' images, in pixels.
            seed: seed of random weights.

        Raises:
            InputError: the weights cannot be had or do not fit; the message says what to do.
        """

    @property
    @abstractmethod
    def vector_length(self) -> int:
        """The d of `[n, d]`."""

    @abstractmethod
    def encode(self, images: np.ndarray) -> np.ndarray:
        """Turns one full batch into vectors.

        Args:
            images: `[inference_batch, size, size] uint8`; always a full batch, so that the shape never varies.

        Returns:
            `[inference_batch, d] float32`.
        """

    @abstractmethod
    def card(self) -> dict:
        """Returns `encoder, weights, fingerprint, is_trained, trained_on` for the `EmbeddingSet`."""


NAMED_WEIGHTS = ("imagenet", "random")


def check_weights_path(weights: str) -> Path | None:
    """Returns the file that `weights` points to, or None where it is one of the named kinds.

    Raises:
        InputError: neither a named kind nor an existing .keras or .weights.h5 file.
    """
    if weights in NAMED_WEIGHTS:
        return None
    path = Path(weights)
    if not weights.endswith((".keras", ".weights.h5")):
        raise InputError(
            f"--weights must be {', '.join(NAMED_WEIGHTS)}, or a file ending in .keras or .weights.h5; got {weights!r}."
        )
    if not path.is_file():
        raise InputError(f"--weights {weights}: no such file.")
    return path


def grey_batch(images: np.ndarray, *, channels: int) -> np.ndarray:
    """Turns stored grey images into a network's input.

    Args:
        images: `[n, h, w] uint8`.
        channels: 1 (pixels in [0, 1]) or 3 (repeated, normalised with the ImageNet mean and deviation).

    Returns:
        `[n, h, w, channels] float32`.
    """
    batch = images[..., None].astype(np.float32)
    if channels == 1:
        return batch / 255.0
    import keras

    return keras.applications.densenet.preprocess_input(np.repeat(batch, 3, axis=-1))


def weights_fingerprint(model, batch: int) -> str:
    """Returns the SHA-256 of a Keras model's weights, its input shape and the batch it is run with."""
    digest = hashlib.sha256(repr((model.input_shape, batch)).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()
