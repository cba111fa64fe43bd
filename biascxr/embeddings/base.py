"""The contract of an encoder: images of the records in, one vector per image out."""

from __future__ import annotations

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


def check_weights_path(weights: str, named: tuple[str, ...]) -> Path | None:
    """Returns the file that `weights` points to, or None where it is one of the named kinds.

    Raises:
        InputError: neither a named kind nor an existing .keras or .weights.h5 file.
    """
    if weights in named:
        return None
    path = Path(weights)
    if not weights.endswith((".keras", ".weights.h5")):
        raise InputError(f"--weights must be {', '.join(named)}, or a file ending in .keras or .weights.h5; got {weights!r}.")
    if not path.is_file():
        raise InputError(f"--weights {weights}: no such file.")
    return path
