"""What encoders from another tool's file share: one image input as the file has it, one output pooled to a vector, card."""

from __future__ import annotations

import hashlib
from abc import abstractmethod

import numpy as np

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings.base import (
    Encoder,
    check_weights_path,
    files_fingerprint,
    in_batches,
    map_shape_of,
    stated_in_card,
    to_vectors,
    weights_files,
)
from biascxr.embeddings.image_input import ImageInput
from biascxr.errors import InputError


class ForeignNetwork(Encoder):
    """A network in a file that says how it takes images and what it gives; a member opens it and runs it."""

    def __init__(self, config: EmbeddingsConfig, *, image_size: int, seed: int) -> None:
        self._config, self._image_size = config, image_size
        self._path = check_weights_path(config.weights)
        self._files = files_fingerprint(p for p in weights_files(config.weights) if not p.name.endswith(".card.json"))
        self._input, self._output = self._open()
        self._source = self._input.source(config.weights_source, weights=str(self._path))
        self._stated = stated_in_card(self._path)
        # Only a run tells the shape for certain (a file may leave axes open), and it finds now what would fail hours later.
        blank = np.zeros((config.inference_batch, image_size, image_size), np.uint8)
        answer = self._answers(blank)
        if answer.ndim not in (2, 3, 4) or len(answer) != len(blank):
            raise InputError(
                f"--weights {self._path}: output {self._output!r} must be one vector or map per image; got shape "
                f"{answer.shape} for {len(blank)} images. Name another one with --layer."
            )
        self._is_pooled = answer.ndim > 2
        self._channels_last = answer.ndim < 4 or self._is_channels_last(answer.shape)
        self._length = self._pool(answer).shape[1]
        self._map_shape = map_shape_of(answer.shape, config.pooling, channels_last=self._channels_last)

    @abstractmethod
    def _open(self) -> tuple[ImageInput, str]:
        """Opens the file; returns how it takes images, and the name of the output to read."""

    @abstractmethod
    def _run(self, inputs: np.ndarray) -> np.ndarray:
        """Runs the network on its own number of images; returns the output, unpooled."""

    def _reading(self) -> tuple:
        """What else than files, output, pooling, pixels and batch decides a vector; for the fingerprint."""
        return ()

    @property
    def vector_length(self) -> int:
        return self._length

    def encode(self, images: np.ndarray) -> np.ndarray:
        return self._pool(self._answers(images))

    def card(self) -> dict:
        pixels = self._input.describe(self._source, self._image_size)
        reading = (self._output, self._config.pooling, pixels, self._image_size, self._config.inference_batch, *self._reading())
        return {
            "encoder": self.name,
            "weights": self._path.name,
            "layer": self._output,
            "pooling": self._config.pooling if self._is_pooled else "as the file has it",
            "map_shape": self._map_shape,
            "pixels": pixels,
            "vector_length": self.vector_length,
            "fingerprint": hashlib.sha256(repr((self._files, reading)).encode()).hexdigest(),
            "is_trained": True,
            **self._stated,
        }

    def _answers(self, images: np.ndarray) -> np.ndarray:
        return in_batches(self._run, self._prepare(images), self._input.batch)

    def _prepare(self, images: np.ndarray) -> np.ndarray:
        return self._input.pixels(images, self._source)

    def _pool(self, answer: np.ndarray) -> np.ndarray:
        return to_vectors(answer, self._config.pooling, channels_last=self._channels_last)

    def _is_channels_last(self, shape: tuple[int, ...]) -> bool:
        """Tells a map's layout from its shape: a square image gives a square map, whatever the input's own layout.

        (What Keras exports to ONNX takes channels last, and holds its maps channels first.)
        """
        first, last = shape[2] == shape[3], shape[1] == shape[2]
        if first == last:
            raise InputError(
                f"--weights {self._path}: output {self._output!r} of shape {shape} does not tell which axes are height "
                "and width. Name an output that is pooled with --layer."
            )
        return last
