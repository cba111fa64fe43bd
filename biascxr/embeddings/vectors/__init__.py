"""Where precomputed vectors come from: a file or folder with a whole set (`open_vectors`), or one file per image."""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
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
    usable, faults = [], []
    for file in files:
        try:
            usable.append((file, member(file).image_ids))
        except InputError as error:
            faults.append(Fault(str(file), None, None, str(error)))
    if not usable:
        raise InputError(f"--vectors {path}: none of its {len(files):,} files can be read.", examples=(faults[-1].reason,))
    return JoinedVectors(member, usable, tuple(faults))


class JoinedVectors(VectorSource):
    """Several files of one kind, one after the other; one is open at a time, however many there are.

    Args:
        member: opens a file.
        files: each with its image_ids.
        faults: files that cannot be used.
    """

    kind: ClassVar[str] = "joined"

    def __init__(
        self, member: Callable[[Path], VectorSource], files: list[tuple[Path, np.ndarray]], faults: tuple[Fault, ...]
    ) -> None:
        self._member, self._files = member, [file for file, _ in files]
        self._begins = np.cumsum([0, *(len(ids) for _, ids in files)])
        self._open: tuple[int, VectorSource] | None = None
        self.kind = member.kind
        self.image_ids = np.concatenate([ids for _, ids in files])
        self.faults = faults

    def _source(self, which: int) -> VectorSource:
        if self._open is None or self._open[0] != which:
            self._open = None  # closed before the next one is opened
            self._open = (which, self._member(self._files[which]))
        return self._open[1]

    def place(self, row: int) -> str:
        which = int(np.searchsorted(self._begins, row, side="right")) - 1
        return self._source(which).place(row - int(self._begins[which]))

    def _lengths(self) -> Iterator[int | str]:
        for which in range(len(self._files)):
            yield from self._source(which)._lengths()

    def _rows(self, start: int, stop: int, into: np.ndarray) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for which, (begin, end) in enumerate(pairwise(self._begins)):
            first, last = max(start, int(begin)), min(stop, int(end))
            if first >= last:
                continue
            why = self._source(which)._rows(first - int(begin), last - int(begin), into[first - start : last - start])
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
