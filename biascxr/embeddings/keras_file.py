"""The user's own Keras model as encoder: a `.keras` file, read at a layer of the user's choice, or at its vector."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import ClassVar

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings.base import stated_in_card, unknown_layer
from biascxr.embeddings.keras_encoder import KerasEncoder
from biascxr.embeddings.nested_layers import last_pooling, layer_names, output_of
from biascxr.embeddings.pixels import source_for
from biascxr.errors import InputError


class KerasFile(KerasEncoder):
    """Any Keras model with one image input of 1 or 3 channels.

    It is read at the layer that `layer` names (`densenet121/relu` lies inside a nested model), a map there pooled or kept as
    `pooling` says. Without one: at the layer named `vector` where that gives a vector; otherwise at its last global pooling
    layer; otherwise at its output, which must be a vector, or with `pooling` none may be a map. A pooling of the file's own
    stays: for the map before it, name its layer.
    One channel takes grey pixels in [0, 1], three channels the grey image repeated, with the ImageNet mean and deviation,
    unless `weights_source` names another convention. Loaded in Keras's safe mode.

    A `<name>.card.json` beside the file may say `trained_on` and `trained_on_patients`.
    """

    name: ClassVar[str] = "keras_file"

    def __init__(self, config: EmbeddingsConfig, *, image_size: int, seed: int) -> None:
        self._config, self._image_size = config, image_size
        self._path = Path(config.weights)
        loaded = _load(self._path)
        _check_input(loaded, (image_size, image_size), self._path)
        self._model, self._pooling = _reader(loaded, config, self._path)
        self._source = source_for(config.weights_source, self.channels, weights=str(self._path))
        self._stated = stated_in_card(self._path)
        self._layers = _architecture(self._model)
        self._settle()

    def _reading(self) -> tuple:
        return (self._layers, self.pixels(), self._image_size)

    def card(self) -> dict:
        return {
            "encoder": self.name,
            "weights": self._path.name,
            "layer": self._config.layer or "the vector of the file",
            "pooling": self._pooling,
            "map_shape": self._map_shape,
            "pixels": self.pixels(),
            "vector_length": self.vector_length,
            **self.fingerprints(),
            "is_trained": True,
            **self._stated,
        }


def _load(path: Path):
    import keras

    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"--weights {path}: Keras cannot load this file: {error}") from error


def _check_input(model, shape: tuple[int, int], path: Path) -> None:
    if len(model.inputs) != 1:
        raise InputError(f"--weights {path}: expected one image input; got {len(model.inputs)} inputs.")
    wanted = model.input_shape
    fits = len(wanted) == 4 and wanted[-1] in (1, 3) and all(w in (None, s) for w, s in zip(wanted[1:3], shape, strict=True))
    if not fits:
        raise InputError(
            f"--weights {path}: the model takes {tuple(wanted[1:])}; the records hold {shape} images, given as 1 or 3 "
            "channels. Set --image_size to match, or give another model."
        )


def _reader(model, config: EmbeddingsConfig, path: Path) -> tuple:
    """Returns the model up to the vector, or to the map that is to be kept, and how a map is pooled there, in words."""
    import keras

    if config.layer:
        names = layer_names(model)
        if config.layer not in names:
            raise unknown_layer("layer", config.layer, names, str(path))
        try:
            output = output_of(model, config.layer)
        except (AttributeError, ValueError) as error:
            raise InputError(f"--layer {config.layer}: this layer of {path} has no single output to read ({error}).") from error
        if not isinstance(output, keras.KerasTensor) or len(output.shape) not in (2, 4):
            shape = tuple(getattr(output, "shape", ())) or "several outputs"
            raise InputError(f"--layer {config.layer}: expected a vector or a map in {path}; got {shape}.")
        if len(output.shape) == 2:
            return keras.Model(model.inputs[0], output), "as the file has it"
        if config.pooling == "none":
            return keras.Model(model.inputs[0], output), "none"
        pool = keras.layers.GlobalMaxPooling2D if config.pooling == "max" else keras.layers.GlobalAveragePooling2D
        return keras.Model(model.inputs[0], pool(data_format="channels_last")(output)), config.pooling
    named = [layer for layer in model.layers if layer.name == "vector"]
    pool = None if named else last_pooling(model)
    # A Sequential that was loaded and never called has `outputs` and no `output`.
    output = named[-1].output if named else output_of(model, pool) if pool else model.outputs[0]
    if len(output.shape) == 4 and config.pooling == "none":
        return keras.Model(model.inputs[0], output), "none"
    if len(output.shape) != 2:
        raise InputError(
            f"--weights {path}: expected a vector output, a global pooling layer or a layer named 'vector'; got output shape "
            f"{tuple(output.shape)}. Name the layer to read with --layer; a map there is pooled, or kept by --pooling none."
        )
    return keras.Model(model.inputs[0], output), "as the file has it"


def _architecture(model) -> str:
    """Returns the model's layers and their connections as text, the same in every process: Keras numbers unnamed layers."""
    order = {layer.name: f"layer {i}" for i, layer in enumerate(model.layers)}

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return order.get(value, value) if isinstance(value, str) else value

    config = {key: value for key, value in model.get_config().items() if key != "name"}
    return json.dumps(plain(config), sort_keys=True, default=repr)
