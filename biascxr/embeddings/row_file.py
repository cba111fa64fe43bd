"""A `.npy` file whose rows are written in any order, and the journal by which an interrupted writing goes on."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np


class RowFile:
    """A `.npy` file of `[n, d] float32`, opened for writing rows anywhere; one that is there already is kept.

    Rows are written by plain writes: a memory map costs a page fault for each 4 KB, and its pages count as this process's.

    Args:
        path: the file.
        shape: n and d.
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
        self._begin = len(head.getvalue())
        self.length = shape[1]
        size = self._begin + 4 * shape[0] * shape[1]
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self.is_new = os.fstat(self._file).st_size != size or os.pread(self._file, self._begin, 0) != head.getvalue()
        if self.is_new:
            os.ftruncate(self._file, 0)
            os.ftruncate(self._file, size)
            _write_all(self._file, head.getvalue(), 0)

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def write(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Writes vectors `[m, d] float32` to rows `[m] int`; rows that follow each other take one write."""
        data = memoryview(np.ascontiguousarray(vectors, "<f4")).cast("B") if len(rows) else b""
        size = 4 * self.length
        for begin, end in _runs(rows):
            _write_all(self._file, data[begin * size : end * size], self._begin + int(rows[begin]) * size)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the vectors `[m, d] float32` of rows `[m] int`."""
        made = np.zeros((len(rows), self.length), "<f4")
        data = memoryview(made).cast("B") if len(rows) else None
        size = 4 * self.length
        for begin, end in _runs(rows):
            os.preadv(self._file, [data[begin * size : end * size]], self._begin + int(rows[begin]) * size)
        return made


def _runs(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields (begin, end) of the stretches in which each row is the one after the last."""
    if len(rows):
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        yield from zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True)


def _write_all(file: int, data: bytes | memoryview, offset: int) -> None:
    while len(data):
        n = os.pwrite(file, data, offset)
        data, offset = data[n:], offset + n


class Journal:
    """One line of JSON for each finished part of a work, so that a killed process goes on after the last whole line.

    Args:
        path: the file.
        header: what the work is; a journal of another work is not gone on with.
    """

    def __init__(self, path: Path, header: dict) -> None:
        self._path = path
        self.entries: list[dict] = []
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        whole = lines[:-1]  # what follows the last line end is half a line, or nothing
        try:
            found = [json.loads(line) for line in whole]
        except ValueError:
            found = []
        if found and found[0] == header:
            self.entries = found[1:]
            os.truncate(path, sum(len(line) + 1 for line in whole))
        else:
            path.write_text(json.dumps(header) + "\n", encoding="utf-8")

    def add(self, entry: dict) -> None:
        """Appends a finished part."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.entries.append(entry)
