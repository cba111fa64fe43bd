"""A whole set in one HDF5 file: the datasets `image_ids` and `embeddings`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.embeddings.vectors.base import ID_NAMES, VECTOR_NAMES, ArraySource, as_ids, choose
from biascxr.errors import InputError

_ROWS_AT_ONCE = 64


class Hdf5Vectors(ArraySource):
    """Rows are read in slices; a slice that the file cannot give is read row by row, and its bad rows have a reason."""

    kind: ClassVar[str] = "hdf5"

    def __init__(self, path: Path) -> None:
        import h5py

        self._path = str(path)
        try:
            self._file = h5py.File(path, "r", rdcc_nbytes=64 << 20)  # a compressed chunk is not decompressed once per slice
            # only datasets of this file: a link into another one is not followed
            links = [n for n in self._file if isinstance(self._file.get(n, getlink=True), (h5py.HardLink, h5py.SoftLink))]
            names = [n for n in links if isinstance(self._file.get(n), h5py.Dataset)]
            ids = choose(names, ID_NAMES, "dataset of image ids", self._path)
            self._data = self._file[choose(names, VECTOR_NAMES, "dataset of vectors", self._path)]
            if self._data.dtype.kind not in "fiu":
                raise InputError(f"{path}: the vectors are {self._data.dtype}; expected real numbers.")
            self._shape = self._data.shape or ()
            self.image_ids = as_ids(np.asarray(self._file[ids][()]), self._path)
        except InputError:
            raise
        except (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise InputError(
                f"{path} cannot be read as an HDF5 file of vectors: {error}. It must hold the datasets image_ids (text) and "
                "embeddings (float32 [n, d])."
            ) from None
        self._check()

    def _slice(self, start: int, stop: int, into: np.ndarray) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for first in range(0, stop - start, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, stop - start)
            try:
                into[first:last] = self._data[start + first : start + last].reshape(last - first, -1)
                continue
            except (OSError, RuntimeError):
                pass  # a damaged chunk; which of its rows can still be read is seen row by row
            for row in range(first, last):
                try:
                    into[row] = self._data[start + row].reshape(-1)
                except (OSError, RuntimeError):
                    reasons[row] = "unreadable (the HDF5 file is damaged here)"
        return reasons
