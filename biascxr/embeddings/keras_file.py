"""The user's own Keras model as encoder: a `.keras` file, read at its last global pooling layer or at its vector output."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings.base import Encoder, grey_batch, weights_fingerprint
from biascxr.errors import InputError


class KerasFile(Encoder):
    """Any Keras model with one image input of 1 or 3 channels.

    A model that ends in a vector layer named `vector` is read there; otherwise at its last global pooling layer; otherwise
    at its output, which must be a vector. One channel takes grey pixels in [0, 1]; three channels take the grey image
    repeated, with the ImageNet mean and deviation (`keras.applications.densenet`). Loaded in Keras's safe mode.

    A `<name>.card.json` beside the file may say `trained_on`.
    """

    name: ClassVar[str] = "keras_file"
    libraries: ClassVar[tuple[str, ...]] = ("keras", "tensorflow")

    def __init__(self, config: EmbeddingsConfig, *, image_size: int, seed: int) -> None:
        self._path = Path(config.weights)
        self._batch = config.inference_batch
        self._model = _load(self._path, (image_size, image_size))
        self._stated = _read_card(self._path.with_suffix(".card.json"))

    @property
    def vector_length(self) -> int:
        return int(self._model.output_shape[-1])

    def encode(self, images: np.ndarray) -> np.ndarray:
        batch = grey_batch(images, channels=self._model.input_shape[-1])
        return np.asarray(self._model.predict_on_batch(batch), np.float32)

    def card(self) -> dict:
        return {
            "encoder": self.name,
            "weights": self._path.name,
            "pooling": "as the file has it",
            "vector_length": self.vector_length,
            "fingerprint": weights_fingerprint(self._model, self._batch),
            "is_trained": True,
            "trained_on": self._stated.get("trained_on", "not stated by the weights file"),
            # Digests of its training patients: the contract looks for test patients among them.
            **{key: self._stated[key] for key in ("trained_on_patients",) if key in self._stated},
        }


def _read_card(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}, the card beside --weights, is not valid JSON: {error}") from error
    if not isinstance(card, dict):
        raise InputError(f"{path}, the card beside --weights, must hold a JSON object; got a {type(card).__name__}.")
    return card


def _load(path: Path, shape: tuple[int, int]):
    import keras

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"--weights {path}: Keras cannot load this file: {error}") from error
    named = [layer for layer in model.layers if layer.name == "vector"]
    pools = [layer for layer in model.layers if type(layer).__name__.startswith("Global")]
    # A Sequential that was loaded and never called has `outputs` and no `output`.
    output = (named or pools)[-1].output if named or pools else model.outputs[0]
    if len(model.inputs) != 1 or len(output.shape) != 2:
        raise InputError(
            f"--weights {path}: expected one image input and a vector output or a global pooling layer; "
            f"got {len(model.inputs)} inputs and output shape {tuple(output.shape)}."
        )
    wanted = model.input_shape
    fits = len(wanted) == 4 and wanted[-1] in (1, 3) and all(w in (None, s) for w, s in zip(wanted[1:3], shape, strict=True))
    if not fits:
        raise InputError(
            f"--weights {path}: the model takes {tuple(wanted[1:])}; the records hold {shape} images, given as 1 or 3 "
            "channels. Set --image_size to match, or give another model."
        )
    return keras.Model(model.inputs, output)
