"""An encoder whose network is an exported graph: what a worker needs of a Keras encoder, without Keras."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.embeddings.base import Encoder
from biascxr.embeddings.keras_encoder import KerasEncoder
from biascxr.embeddings.onnx_graph import GraphSession, export
from biascxr.embeddings.pixels import SOURCES
from biascxr.errors import InputError
from biascxr.work import written_whole


class GraphEncoder(Encoder):
    """Runs the graph that `write_graph` wrote, on one thread; no TensorFlow is loaded.

    Args:
        path: the graph; what else there is to know lies beside it.
    """

    name: ClassVar[str] = "graph"
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def __init__(self, path: Path) -> None:
        try:
            self._session = GraphSession(path)
        except ImportError as error:
            raise InputError('This worker has no ONNX Runtime: pip install "biascxr[onnx]", or --runtime keras.') from error
        self._described = json.loads(_beside(path).read_text(encoding="utf-8"))
        self._source = SOURCES[self._described["source"]]

    @property
    def vector_length(self) -> int:
        return self._described["card"]["vector_length"]

    def encode(self, images: np.ndarray) -> np.ndarray:
        given = self._source.to_input(images, channels=self._described["channels"], size=self._described["input_size"])
        return self._session(given)

    def card(self) -> dict:
        return self._described["card"]


def write_graph(encoder: KerasEncoder, path: Path, card: dict) -> None:
    """Writes a Keras encoder as a graph, and beside it what a `GraphEncoder` needs; does nothing where both are there already.

    Args:
        encoder: the encoder.
        path: where the graph goes.
        card: the encoder's card, with its runtime.
    """
    described = {
        "source": encoder.source.name,
        "channels": encoder.channels,
        "input_size": encoder.input_size,
        "card": card,
    }
    beside = _beside(path)
    if path.is_file() and beside.is_file() and json.loads(beside.read_text(encoding="utf-8")) == described:
        return
    beside.unlink(missing_ok=True)  # it says that the graph is this one
    export(encoder.model, path, size=encoder.input_size)
    with written_whole(beside) as temporary:
        temporary.write_text(json.dumps(described, sort_keys=True), encoding="utf-8")


def remove_graph(path: Path) -> None:
    """Removes a graph and what lies beside it."""
    path.unlink(missing_ok=True)
    _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")
