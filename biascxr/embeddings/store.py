"""The store of a run: vectors as one array on disk, and for each row the key of what it was made from."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np

from biascxr.containers import Cohort
from biascxr.run_folder import code_digest, library_versions
from biascxr.work import written_whole

VECTORS, KEYS = "vectors.npy", "keys.npy"
KEY_BYTES = 16


# Modules whose code turns a stored image into a vector.
COMPUTING = tuple(
    f"embeddings/{name}"
    for name in (
        "base", "pixels", "keras_encoder", "densenet", "keras_file", "nested_layers", "torch_densenet", "foreign",
        "image_input", "signature", "saved_model", "onnx_file", "onnx_graph", "graph_encoder", "shards",
    )
)  # fmt: skip


def made_by(card: dict, libraries: tuple[str, ...]) -> str:
    """Returns what decides a vector beside its image: encoder, what computes it, and the code and libraries that do.

    Args:
        card: the encoder's.
        libraries: distributions whose version can change a vector.
    """
    versions = " ".join(f"{name} {version}" for name, version in sorted(library_versions(libraries).items()))
    return f"{card['fingerprint']} {card.get('runtime', '')} {versions} code {code_digest(COMPUTING)[:16]}"


def row_key(image: bytes, maker: str) -> bytes:
    """Returns what a vector follows from, as 16 bytes: the stored image and the encoder.

    The stored image is the file after reading, resizing and equalization, so a changed pixel or option of the records changes
    the key of just the images that it changes.

    Args:
        image: the image as the record holds it, compressed.
        maker: see `made_by`.
    """
    return hashlib.sha256(maker.encode() + b"\0" + image).digest()[:KEY_BYTES]


class KnownVectors:
    """Vectors of an earlier store, by key.

    Args:
        folder: a finished embeddings folder; one without keys knows nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._row: dict[bytes, int] = {}
        self._vectors = np.zeros((0, 0), np.float32)
        if (folder / KEYS).is_file() and (folder / VECTORS).is_file():
            keys = np.load(folder / KEYS, allow_pickle=False)
            vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
            if len(keys) == len(vectors):
                self._row = {key.tobytes(): row for row, key in enumerate(keys)}
                self._vectors = vectors

    @classmethod
    @functools.lru_cache(maxsize=2)
    def open(cls, folder: Path) -> KnownVectors:
        """Opens a store once for all shards that a process works on."""
        return cls(folder)

    def get(self, key: bytes) -> np.ndarray | None:
        """Returns the vector `[d] float32` made from this, or None."""
        row = self._row.get(key)
        return None if row is None else np.asarray(self._vectors[row], np.float32)


def assemble(cohort: Cohort, parts: list[Path], folder: Path, *, vector_length: int) -> np.ndarray:
    """Puts the shards' vectors into the cohort's row order: `vectors.npy` and `keys.npy`.

    Args:
        cohort: gives the order; images of it that are in no part are not in the result.
        parts: finished parts, see `biascxr.embeddings.shards.embed_shard`; they are left as they are.
        folder: where to write.
        vector_length: d.

    Returns:
        `[n] object`, the image_ids of the rows.
    """
    ids = [read_part(part)[0] for part in parts]
    found = {image_id for part in ids for image_id in part}
    kept = [image_id for image_id in cohort.table["image_id"] if image_id in found]
    position = {image_id: row for row, image_id in enumerate(kept)}
    store = np.lib.format.open_memmap(folder / VECTORS, mode="w+", dtype=np.float32, shape=(len(kept), vector_length))
    keys = np.zeros((len(kept), KEY_BYTES), np.uint8)
    for part in parts:
        image_ids, part_keys, vectors = read_part(part)
        rows = np.array([position.get(image_id, -1) for image_id in image_ids], np.int64)
        store[rows[rows >= 0]] = vectors[rows >= 0]
        keys[rows[rows >= 0]] = part_keys[rows >= 0]
    store.flush()
    with written_whole(folder / KEYS) as temporary, open(temporary, "wb") as file:
        np.save(file, keys)
    return np.array(kept, object)


def write_part(part: Path, image_ids: list[str], keys: np.ndarray, vectors: np.ndarray, *, made_by: str) -> None:
    """Writes one shard's rows, whole or not at all, the same bytes each time."""
    with written_whole(part) as temporary, open(temporary, "wb") as file:
        np.savez(file, image_id=np.array(image_ids, np.str_), key=keys, vector=vectors, made_by=np.array(made_by))


def maker_of(part: Path) -> str:
    """Returns what a part was made by."""
    with np.load(part, allow_pickle=False) as found:
        return str(found["made_by"])


def read_part(part: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Returns the image_ids, keys `[m, 16] uint8` and vectors `[m, d] float32` of a part."""
    with np.load(part, allow_pickle=False) as found:
        return found["image_id"].tolist(), found["key"], found["vector"]
