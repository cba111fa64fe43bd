"""The contract of an encoder: images of the records in, one vector per image out."""

from __future__ import annotations

import difflib
import glob
import hashlib
import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings.pixels import NOT_STATED, source_for
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
        """Returns the `EmbeddingSet`'s card.

        It holds `encoder, weights, pooling, map_shape, pixels, vector_length, fingerprint, is_trained, trained_on`.
        `map_shape` is `[height, width, channels]` where a vector is a map flattened row by row, otherwise null. The fingerprint
        changes with everything that computes a vector: weights, the layer read, pooling, pixels, batch. A network that is
        computed in several ways has a `network` too, the same in all of them.
        """


NAMED_WEIGHTS = ("imagenet", "random")
TORCH_ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".pth.tar")
FILE_ENDINGS = (".keras", ".weights.h5", *TORCH_ENDINGS, ".onnx")


def check_weights_path(weights: str) -> Path | None:
    """Returns the file or folder that `weights` points to, or None where it is one of the named kinds.

    Raises:
        InputError: neither a named kind, nor an existing file with a known ending, nor the folder of a SavedModel.
    """
    if weights in NAMED_WEIGHTS:
        return None
    path = Path(weights)
    if is_saved_model(weights):
        return path
    if path.is_dir():
        raise InputError(f"--weights {weights}: this folder is not a TensorFlow SavedModel (it holds no saved_model.pb).")
    if not weights.endswith(FILE_ENDINGS):
        raise InputError(
            f"--weights must be {', '.join(NAMED_WEIGHTS)}, or a file ending in {', '.join(FILE_ENDINGS[:-1])} or "
            f"{FILE_ENDINGS[-1]}, or the folder of a TensorFlow SavedModel; got {weights!r}."
        )
    if not path.is_file():
        raise InputError(f"--weights {weights}: no such file.")
    return path


def is_saved_model(weights: str) -> bool:
    """Whether `weights` is the folder of a TensorFlow SavedModel."""
    return any((Path(weights) / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt"))


def weights_files(weights: str) -> list[Path]:
    """Returns every file that decides what an encoder with these weights does, for the stage's fingerprint.

    Args:
        weights: the setting: a named kind (no file), a file, or the folder of a SavedModel.

    Returns:
        The files in a fixed order; a card beside them is the last.
    """
    if weights in NAMED_WEIGHTS:
        return []
    path = Path(weights)
    if path.is_dir():
        files = sorted(path.rglob("*"))
    elif weights.endswith(".onnx"):
        files = [path, *external_tensors(path)]
    else:
        files = [path]
    return [p for p in (*files, card_path(path)) if p.is_file()]


def external_tensors(path: Path) -> list[Path]:
    """Returns the files beside an ONNX file that hold tensors of it, as those of large networks do; by name, in order.

    Without the onnx library, those whose names begin as its own does: what exporters write unless they are told otherwise.
    """
    beside = sorted(p for p in path.parent.glob(f"{glob.escape(path.name)}?*") if p.suffix != ".json")
    if importlib.util.find_spec("onnx") is None:
        return beside
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except (DecodeError, OSError, ValueError):  # the encoder says what is wrong with it
        return beside
    names = {entry.value for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"}
    return [path.parent / name for name in sorted(names)]


def card_path(weights: Path) -> Path:
    """Returns where a card may lie beside weights: `mine.keras` and `mine.weights.h5` have `mine.card.json`, the folder `f` has
    `f.card.json`."""
    endings = () if weights.is_dir() else (e for e in FILE_ENDINGS if weights.name.endswith(e))
    ending = max(endings, key=len, default="")  # `.pth.tar`, not `.tar`
    return weights.with_name(f"{weights.name.removesuffix(ending)}.card.json")


def stated_in_card(weights: Path, *, otherwise: str = NOT_STATED) -> dict:
    """Returns what the card beside the weights says about their training, for an encoder's own card.

    Args:
        weights: the file or folder.
        otherwise: `trained_on` where no card says it.

    Returns:
        `trained_on`, and where the card has it `trained_on_patients`: digests, which the contract looks for test patients in.

    Raises:
        InputError: the card is not a JSON object.
    """
    path = card_path(weights)
    card = {}
    if path.is_file():
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}, the card beside --weights, is not valid JSON: {error}") from error
        if not isinstance(card, dict):
            raise InputError(f"{path}, the card beside --weights, must hold a JSON object; got a {type(card).__name__}.")
    return {"trained_on": otherwise} | {k: card[k] for k in ("trained_on", "trained_on_patients") if k in card}


def grey_batch(images: np.ndarray, *, channels: int) -> np.ndarray:
    """Turns stored grey images into a Keras network's input.

    Args:
        images: `[n, h, w] uint8`.
        channels: 1 (pixels in [0, 1]) or 3 (repeated, normalised with the ImageNet mean and deviation).

    Returns:
        `[n, h, w, channels] float32`.
    """
    return source_for("auto", channels, weights="").to_input(images, channels=channels)


def weights_fingerprint(model, batch: int, *more: object) -> str:
    """Returns the SHA-256 of a Keras model's weights, its input shape, its batch, and what else decides a vector.

    Args:
        model: the network.
        batch: images per forward pass.
        more: anything whose `repr` is the same in every process.
    """
    digest = hashlib.sha256(repr((model.input_shape, batch, *more)).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def files_fingerprint(files: Iterable[Path]) -> str:
    """Returns the SHA-256 of files' contents, in the given order."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def to_vectors(values: np.ndarray, pooling: str, *, channels_last: bool = True) -> np.ndarray:
    """Pools or flattens a network's output to one vector per image.

    Args:
        values: `[n, d]` (as it is), `[n, tokens, d]`, `[n, h, w, d]`, or `[n, d, h, w]` with `channels_last=False`.
        pooling: `"max"`, `"avg"`, or `"none"`, which flattens row by row.
        channels_last: whether the vector's axis of a map is the last one.

    Returns:
        `[n, d] float32`.
    """
    values = np.asarray(values, np.float32)
    if values.ndim == 4 and not channels_last:
        values = np.moveaxis(values, 1, -1)
    axes = tuple(range(1, values.ndim - 1))
    if not axes:
        return values
    if pooling == "none":
        return values.reshape(len(values), -1)  # [n, h w d]
    return values.max(axis=axes) if pooling == "max" else values.mean(axis=axes)


def map_shape_of(shape: tuple[int, ...], pooling: str, *, channels_last: bool = True) -> list[int] | None:
    """Returns `[height, width, channels]` of the map that `to_vectors` flattens, or None where it gives a vector.

    Args:
        shape: of the network's output, as `to_vectors` takes it; tokens are a map of one column.
        pooling: see `to_vectors`.
        channels_last: see `to_vectors`.
    """
    if pooling != "none" or len(shape) < 3:
        return None
    if len(shape) == 3:
        return [shape[1], 1, shape[2]]
    return list(shape[1:] if channels_last else (*shape[2:], shape[1]))


def in_batches(run: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray, size: int | None) -> np.ndarray:
    """Runs a network that takes a fixed number of images: `[n, ...]` in parts of `size`, the last part padded.

    Args:
        run: the network.
        inputs: `[n, ...]`.
        size: images that it takes; None for any number.

    Returns:
        `[n, ...]`.
    """
    if size is None or size == len(inputs):
        return run(inputs)
    parts = []
    for start in range(0, len(inputs), size):
        part = inputs[start : start + size]
        padding = np.repeat(part[-1:], size - len(part), axis=0)
        parts.append(run(np.concatenate([part, padding]))[: len(part)])
    return np.concatenate(parts)


def unknown_layer(kind: str, name: str, known: list[str], weights: str) -> InputError:
    """Returns the error for a layer or output that is not there: the nearest names, then the last of hundreds.

    Args:
        kind: what `--layer` names in this file, for instance `"layer"` or `"output"`.
        name: the name received.
        known: the names there are, in the network's order.
        weights: the file.
    """
    nearest = [n for n in known if n.endswith(f"/{name}")][:3] or difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    shown = known[-10:]
    which = "They are" if len(shown) == len(known) else f"It has {len(known)}; the last are"
    return InputError(f"--layer: no {kind} {name!r} in {weights}.{hint} {which}: {', '.join(shown)}.")
