"""Where precomputed vectors come from: a file or folder with a whole set (`open_vectors`), or one file per image."""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.embeddings.vectors.base import Block, Fault, VectorError, VectorSource, wrong_length
from biascxr.errors import InputError
from biascxr.records.shard_files import is_tfrecord_name

logger = logging.getLogger("biascxr")

SOURCES = {
    "npz": "biascxr.embeddings.vectors.npz:NpzVectors",
    "hdf5": "biascxr.embeddings.vectors.hdf5:Hdf5Vectors",
    "parquet": "biascxr.embeddings.vectors.parquet:ParquetVectors",
    "tfrecord": "biascxr.embeddings.vectors.sharded_records:RecordVectors",
    "npy": "biascxr.embeddings.vectors.per_image:FilePerImage",
}
"""Kind of file -> what reads it. The first three hold ids and vectors each; the others are given all files at once."""
ENDINGS = {".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".parquet": "parquet", ".npy": "npy"}


def kind_of(path: Path) -> str | None:
    """Returns the kind of a file, a key of `SOURCES`, told by its name; None for any other file."""
    return "tfrecord" if is_tfrecord_name(path.name) else ENDINGS.get(path.suffix.lower())


def vector_files(path: Path) -> list[Path]:
    """Returns the files that `open_vectors` would read, in order: the file itself, or all below a folder that are vectors.

    Raises:
        InputError: no such file or folder, no vectors in it, or several kinds.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"--vectors {path}: no such file or folder.")
    files = sorted(f for f in path.rglob("*") if kind_of(f) and f.is_file()) if path.is_dir() else [path]
    kinds = Counter(kind_of(file) for file in files)
    known = f"{', '.join(ENDINGS)} and .tfrecord (shards too, .tfrecord-00000-of-00010)"
    if not files or None in kinds:
        what = "no file of vectors in this folder" if path.is_dir() else f"a file ending in {path.suffix!r}"
        raise InputError(f"--vectors {path}: {what}; expected {known}.")
    if len(kinds) > 1:
        raise InputError(f"--vectors {path}: a mixture of files, {dict(kinds)}; give a folder of one kind.")
    return files


def open_vectors(path: Path) -> VectorSource:
    """Opens precomputed vectors that name their images.

    Args:
        path: `.npz` (arrays `image_ids`, `embeddings`), HDF5 (datasets of these names), Parquet (a column of ids; a column of
            lists or one column per number), TFRecord (`image/id`, `embedding`), or a folder of such files, sub-folders too;
            a folder of `.npy` files, one per image and named by it.

    Returns:
        A source with `image_ids` and blocks of rows; see `gather_from`.

    Raises:
        InputError: no such file, or none of its files can be read as such.
    """
    files = vector_files(path)
    kind = kind_of(files[0])
    module, name = SOURCES[kind].split(":")
    member = getattr(importlib.import_module(module), name)
    if kind in ("tfrecord", "npy"):
        return member(files)
    if len(files) == 1:
        return member(files[0])
    sources, faults = [], []
    for file in files:
        try:
            sources.append(member(file))
        except InputError as error:
            faults.append(Fault(str(file), None, None, str(error)))
    if not sources:
        raise InputError(f"--vectors {path}: none of its {len(files):,} files can be read; the last: {faults[-1].reason}")
    return JoinedVectors(sources, tuple(faults))


class JoinedVectors(VectorSource):
    """Several files of one kind, one after the other."""

    kind: ClassVar[str] = "joined"

    def __init__(self, sources: list[VectorSource], faults: tuple[Fault, ...]) -> None:
        self._sources = sources
        self._begins = np.cumsum([0, *map(len, sources)])
        self.kind = sources[0].kind
        self.image_ids = np.concatenate([s.image_ids for s in sources])
        self.faults = faults

    def place(self, row: int) -> str:
        which = int(np.searchsorted(self._begins, row, side="right")) - 1
        return self._sources[which].place(row - int(self._begins[which]))

    def _lengths(self) -> Iterator[int | str]:
        for source in self._sources:
            yield from source._lengths()

    def _rows(self, start: int, stop: int, into: np.ndarray) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for source, begin, end in zip(self._sources, self._begins, self._begins[1:], strict=False):
            first, last = max(start, int(begin)), min(stop, int(end))
            if first >= last:
                continue
            why = source._rows(first - int(begin), last - int(begin), into[first - start : last - start])
            reasons |= {first - start + row: reason for row, reason in why.items()}
        return reasons


__all__ = [
    "ENDINGS",
    "SOURCES",
    "Block",
    "Fault",
    "JoinedVectors",
    "VectorError",
    "VectorSource",
    "kind_of",
    "open_vectors",
    "vector_files",
    "wrong_length",
]
