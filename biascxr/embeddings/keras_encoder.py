"""What encoders that are Keras models share: pixels in, one forward pass, card."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.embeddings.base import Encoder
from biascxr.embeddings.pixels import Source


class KerasEncoder(Encoder):
    """An encoder whose network is a Keras model with one image input, channels last.

    A member's `__init__` sets `_model` (whose output is the vector), `_source` (how it wants its pixels) and `_image_size` (of
    the records).
    """

    libraries: ClassVar[tuple[str, ...]] = ("keras", "tensorflow")
    _model: object
    _source: Source
    _image_size: int

    @property
    def model(self) -> object:
        """The network: prepared images -> vectors."""
        return self._model

    @property
    def source(self) -> Source:
        """How the network wants its pixels."""
        return self._source

    @property
    def vector_length(self) -> int:
        return int(self._model.output_shape[-1])

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return int(self._model.input_shape[-1])

    @property
    def input_size(self) -> int:
        """Height and width of the network's input, in pixels."""
        return int(self._model.input_shape[1] or self._source.size or self._image_size)

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Turns `[n, s, s] uint8` images of the records into the network's input, `[n, size, size, channels] float32`."""
        return self._source.to_input(images, channels=self.channels, size=self.input_size)

    def encode(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._model.predict_on_batch(self.prepare(images)), np.float32)

    def pixels(self) -> str:
        """Returns how the network gets its pixels, for the card."""
        return self._source.describe(channels=self.channels, size=self.input_size)
