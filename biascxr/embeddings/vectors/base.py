"""What every source of precomputed vectors shares: rows named by image, read in blocks, each row a vector or a reason."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError

MAP_SHAPE = (8, 8, 1376)
"""ELIXR-C's feature map (CXR Foundation), the one form that is no vector and becomes one: its mean over the 8 x 8 places,
unless maps are to be kept."""
MAP_LENGTH = 8 * 8 * 1376
N_FOR_LENGTH = 101


class VectorError(InputError):
    """A file or row cannot be used as a vector; the message is the reason that goes into `rejected.csv`."""


@dataclass(frozen=True)
class Fault:
    """Something in a source that is damaged and whose image is not known, or a file of it that cannot be opened.

    Attributes:
        path: the file.
        record: number of the record in the file, from 0; None where it is the file as a whole.
        byte_offset: where the record begins; None likewise.
        reason: what is wrong.
    """

    path: str
    record: int | None
    byte_offset: int | None
    reason: str


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a source.

    Attributes:
        vectors: `[m, d] float32`; rows that have a reason hold anything.
        sums: `[m] float32`, the sum of each vector.
        reasons: why a row cannot be used, by its place in the block.
    """

    vectors: np.ndarray
    sums: np.ndarray
    reasons: dict[int, str]


def pooled_length(raw_length: int) -> int:
    """Returns the d of a vector that is stored as this many numbers: 1376 for a feature map, otherwise the same."""
    return MAP_SHAPE[-1] if raw_length == MAP_LENGTH else raw_length


def pool(raw: np.ndarray) -> np.ndarray:
    """Turns `[m, raw_length] float32` into vectors `[m, d] float32`: the mean over places of a map, otherwise unchanged."""
    if raw.shape[1] != MAP_LENGTH:
        return raw
    places = raw.reshape(len(raw), -1, MAP_SHAPE[-1])  # [m, 64, 1376]
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values are found and rejected afterwards
        return places.mean(axis=1, dtype=np.float64).astype(np.float32)


def raw_vector(values: np.ndarray) -> np.ndarray:
    """Returns an array's numbers as stored, `[raw_length] float32`.

    Args:
        values: one vector (axes of length 1 beside it are let go) or one feature map of `MAP_SHAPE`.

    Raises:
        VectorError: another shape, or no real numbers.
    """
    squeezed = values.squeeze()
    is_real = np.issubdtype(values.dtype, np.floating) or np.issubdtype(values.dtype, np.integer)
    if not is_real or values.size == 0 or (squeezed.ndim != 1 and squeezed.shape != MAP_SHAPE):
        raise VectorError(f"not one vector (shape {values.shape}, {values.dtype})")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is rejected
        return values.reshape(-1).astype(np.float32)


def sums_of(vectors: np.ndarray) -> np.ndarray:
    """Returns the sum of each vector, `[m] float32`, infinite or NaN where it is."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.einsum("ij->i", vectors)


def wrong_length(raw_length: int, expected: int) -> str:
    """Returns the reason for a row of another length than the rest."""
    return f"wrong length ({raw_length}; expected {expected})"


class VectorSource(ABC):
    """Vectors that exist already, one row per vector.

    Members give `image_ids`, and two hooks: `_lengths` and `_rows`.

    Attributes:
        kind: key in `biascxr.embeddings.vectors.SOURCES`, or `files` for the paths of a table.
        image_ids: `[n] object`, the image that each row says it is of.
        faults: what could not be read and has no image to be named by.
        keeps_maps: whether a feature map stays as it is, row by row, in place of its mean.
    """

    kind: ClassVar[str]
    image_ids: np.ndarray
    faults: tuple[Fault, ...] = ()
    keeps_maps: bool = False
    _buffer: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    @abstractmethod
    def place(self, row: int) -> str:
        """Returns the file that a row is in."""

    @abstractmethod
    def _lengths(self) -> Iterator[int | str]:
        """Yields how many numbers a row holds, or why it cannot be read, row by row; once where all are alike."""

    @abstractmethod
    def _rows(self, start: int, stop: int, into: np.ndarray) -> dict[int, str]:
        """Puts rows into `[stop - start, raw_length] float32`; returns the reasons of those that cannot be used."""

    def length_of(self, raw_length: int) -> int:
        """Returns the d of a vector that is stored as this many numbers."""
        return raw_length if self.keeps_maps else pooled_length(raw_length)

    def raw_length(self, vector_length: int | None = None) -> int:
        """Returns how many numbers a row must hold: what most of the first readable rows do.

        Args:
            vector_length: if given, only rows that become a vector of this length count.

        Raises:
            InputError: no row can be read.
        """
        counts: Counter[int] = Counter()
        reason = "there is none"
        for found in self._lengths():
            if isinstance(found, str):
                reason = found
                continue
            counts[found] += 1
            if counts.total() >= N_FOR_LENGTH:
                break
        if vector_length is not None:
            fitting = {n: count for n, count in counts.items() if self.length_of(n) == vector_length}
            return max(fitting, key=fitting.__getitem__, default=vector_length)
        if not counts:
            raise InputError(f"None of the {len(self):,} vector files can be read; the last reason: {reason}.")
        return counts.most_common(1)[0][0]

    def read(self, start: int, stop: int, raw_length: int) -> Block:
        """Reads rows; each is a finite vector of the right length, or has a reason. The next call writes over the block.

        Args:
            start: first row.
            stop: row after the last.
            raw_length: numbers that a row must hold, see `raw_length()`.
        """
        if self._buffer is None or self._buffer.shape[1] != raw_length or len(self._buffer) < stop - start:
            self._buffer = np.zeros((stop - start, raw_length), np.float32)  # kept: fresh memory costs more than filling it
        raw = self._buffer[: stop - start]
        reasons = self._rows(start, stop, raw)
        vectors = raw if self.keeps_maps else pool(raw)
        sums = sums_of(vectors)
        # A sum that is finite has finite terms only, so only the other rows are looked at number by number.
        for row in np.flatnonzero(~np.isfinite(sums)):
            if row not in reasons and not np.isfinite(vectors[row]).all():
                reasons[int(row)] = "NaN or infinite values in the vector"
        return Block(vectors, sums, reasons)


class ArraySource(VectorSource):
    """A file with all images' ids and one array of their vectors, rows aligned; members open it and read slices.

    A member sets `_path`, `image_ids`, `_shape` (of the array) and implements `_slice`.
    """

    _path: str
    _shape: tuple[int, ...]

    def _check(self) -> None:
        """Raises InputError where ids and vectors do not fit together."""
        if len(self._shape) not in (2, 4) or (len(self._shape) == 4 and self._shape[1:] != MAP_SHAPE) or 0 in self._shape[1:]:
            wanted = "x".join(map(str, MAP_SHAPE))
            raise InputError(f"{self._path}: vectors of shape {self._shape}; expected [n, d], or [n, {wanted}] to be pooled.")
        if self._shape[0] != len(self.image_ids):
            raise InputError(
                f"{self._path}: {len(self.image_ids):,} image ids and {self._shape[0]:,} vectors; expected one id per vector, "
                "in the same order. Write the file anew."
            )

    def place(self, row: int) -> str:
        return self._path

    def _lengths(self) -> Iterator[int | str]:
        yield int(np.prod(self._shape[1:]))

    def _rows(self, start: int, stop: int, into: np.ndarray) -> dict[int, str]:
        own = int(np.prod(self._shape[1:]))
        if own != into.shape[1]:
            return dict.fromkeys(range(stop - start), wrong_length(own, into.shape[1]))
        with np.errstate(over="ignore"):
            return self._slice(start, stop, into)

    @abstractmethod
    def _slice(self, start: int, stop: int, into: np.ndarray) -> dict[int, str]:
        """Puts rows into `[stop - start, raw_length] float32`; returns the reasons of those that cannot be read."""


ID_NAMES = ("image_ids", "image_id", "dicom_id", "image/id")
VECTOR_NAMES = ("embeddings", "embedding", "vectors", "vector")


def choose(names: list[str], wanted: tuple[str, ...], what: str, path: str) -> str:
    """Returns the first of the wanted names that a file has.

    Raises:
        InputError: it has none of them.
    """
    for name in wanted:
        if name in names:
            return name
    found = ", ".join(sorted(names)[:8]) or "nothing"
    raise InputError(f"{path}: no {what}; expected one of {', '.join(wanted)}; found {found}.")


def as_ids(values: np.ndarray, path: str) -> np.ndarray:
    """Returns ids as text, `[n] object`.

    Raises:
        InputError: not one column of texts or whole numbers.
    """
    if values.ndim != 1 or values.dtype.kind not in "OUSiu":
        raise InputError(f"{path}: image ids of shape {values.shape}, {values.dtype}; expected one text per vector.")
    return np.array([v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values.tolist()], object)
