"""What encoders that are Keras models share: pixels in, one forward pass, card."""

from __future__ import annotations

import math
from abc import abstractmethod
from contextlib import nullcontext
from typing import ClassVar

import numpy as np

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings.base import Encoder, weights_fingerprint
from biascxr.embeddings.pixels import Source
from biascxr.embeddings.precision import rebuilt
from biascxr.embeddings.replicas import Replicas
from biascxr.errors import InputError


class KerasEncoder(Encoder):
    """An encoder whose network is a Keras model with one image input, channels last.

    A member's `__init__` sets `_config`, `_model` (whose output is the vector, or the map that becomes one), `_source` (how it
    wants its pixels) and `_image_size` (of the records), and ends with `_settle`.
    """

    libraries: ClassVar[tuple[str, ...]] = ("keras", "tensorflow")
    _config: EmbeddingsConfig
    _model: object
    _source: Source
    _image_size: int
    _replicas: Replicas | None = None
    _map_shape: list[int] | None = None

    def _settle(self) -> None:
        """Lets the network end in a vector; brings it into the precision and onto the devices that the settings ask for.

        Raises:
            InputError: see `Replicas` and `rebuilt`.
        """
        config = self._config
        if len(self._model.output_shape) == 4:
            self._model, self._map_shape = flattened(self._model, self.input_size)
        if config.distribute == "mirrored":
            self._replicas = Replicas(config.inference_batch)
        if self._replicas is not None or config.mixed_precision != "off":
            with self._replicas.scope() if self._replicas is not None else nullcontext():
                self._model = rebuilt(self._model, config.mixed_precision, weights=f"--weights {config.weights}")

    @abstractmethod
    def _reading(self) -> tuple:
        """What decides a vector beside the weights, the input's shape and how it is computed; for the fingerprint."""

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
        batch, model = self.prepare(images), self._model
        made = model.predict_on_batch(batch) if self._replicas is None else self._replicas.predict(model, batch)
        vectors = np.asarray(made, np.float32)
        if self._config.mixed_precision != "off" and not np.isfinite(vectors).all():
            why = (
                ""
                if self._config.mixed_precision == "bfloat16"
                else (", probably because a number inside it is beyond float16's largest, 65504; bfloat16 reaches further")
            )
            raise InputError(
                f"--mixed_precision {self._config.mixed_precision}: the network gives NaN or infinity for an image{why}. Leave "
                "the flag out to compute in float32."
            )
        return vectors

    def pixels(self) -> str:
        """Returns how the network gets its pixels, for the card."""
        return self._source.describe(channels=self.channels, size=self.input_size)

    def fingerprints(self) -> dict[str, str]:
        """Returns what identifies the network and its vectors, for the card.

        Returns:
            `network`: the same whatever computes it: of one image at a time, in float32, on one device. `fingerprint`: as
            `network`, but of the batch, precision and devices that Keras computes with. `mixed_precision` and `distribute`.
        """
        config, n = self._config, self._replicas.number if self._replicas is not None else 0
        way = [f"mixed_precision {config.mixed_precision}"] if config.mixed_precision != "off" else []
        way += [f"distribute {n}"] if n else []
        return {
            "network": weights_fingerprint(self._model, 1, *self._reading()),
            "fingerprint": weights_fingerprint(self._model, config.inference_batch, *self._reading(), *way),
            "mixed_precision": config.mixed_precision,
            "distribute": f"{config.distribute} over {n} device{'s'[: n > 1]}" if n else "off",
        }


def flattened(model, size: int) -> tuple[object, list[int]]:
    """Returns a network whose map is flattened row by row, and that map's `[height, width, channels]`.

    It is a layer of the network, so whatever else computes the network gives the same.

    Args:
        model: images `[n, size, size, c]` -> map `[n, h, w, d]`.
        size: height and width of its input, which the model may leave open.
    """
    import keras

    shape = model.compute_output_shape((1, size, size, model.input_shape[-1]))[1:]
    flat = keras.layers.Reshape((math.prod(shape),), name="flattened_map")(model.outputs[0])
    return keras.Model(model.inputs[0], flat), list(shape)
