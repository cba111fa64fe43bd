"""A whole set in one `.npz` file: the arrays `image_ids` and `embeddings`."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import ClassVar

import numpy as np

from biascxr.embeddings.vectors.base import ID_NAMES, VECTOR_NAMES, ArraySource, as_ids, choose
from biascxr.errors import InputError

_CHUNK = 1 << 20
_DAMAGE = (OSError, EOFError, ValueError, SyntaxError, TokenError, MemoryError, RuntimeError, NotImplementedError)


class NpzVectors(ArraySource):
    """Rows are read from the archive as it is decompressed, so the array is never in memory as a whole.

    The archive's checksums are compared once, when it is opened: a zip file says that it is damaged only at its end.
    """

    kind: ClassVar[str] = "npz"

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        try:
            self._archive = zipfile.ZipFile(path)
            names = [name.removesuffix(".npy") for name in self._archive.namelist() if name.endswith(".npy")]
            ids = choose(names, ID_NAMES, "array of image ids", self._path)
            vectors = choose(names, VECTOR_NAMES, "array of vectors", self._path)
            for name in (ids, vectors):
                with self._archive.open(f"{name}.npy") as member:
                    while member.read(_CHUNK):
                        pass
            with self._archive.open(f"{ids}.npy") as member:
                self.image_ids = as_ids(np.lib.format.read_array(member, allow_pickle=False), self._path)
            self._stream = self._archive.open(f"{vectors}.npy")
            self._shape, self._dtype = self._read_header()
        except InputError:
            raise
        except (*_DAMAGE, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(
                f"{path} cannot be read as an .npz file of vectors: {error}. Write it with np.savez(path, image_ids=ids as "
                "text, embeddings=float32 [n, d]); nothing that was pickled is loaded."
            ) from None
        self._begin = self._stream.tell()
        self._check()

    def _read_header(self) -> tuple[tuple[int, ...], np.dtype]:
        version = np.lib.format.read_magic(self._stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"the vectors' array has the format version {version}")
        shape, is_fortran, dtype = readers[version](self._stream)
        if is_fortran and sum(n > 1 for n in shape) > 1:
            raise ValueError("the vectors lie column by column; save np.ascontiguousarray(embeddings)")
        if dtype.kind not in "fiu":
            raise ValueError(f"the vectors are {dtype}, no real numbers")
        n_bytes = self._stream.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
        if n_bytes != self._archive.getinfo(self._stream.name).file_size:
            raise ValueError(f"the vectors' array says shape {shape} and is of another size")
        return shape, dtype

    def _slice(self, start: int, stop: int, into: np.ndarray) -> dict[int, str]:
        row_bytes = into.shape[1] * self._dtype.itemsize
        self._stream.seek(self._begin + start * row_bytes)  # forwards from where it stands: what lies between is skipped
        step = max(1, _CHUNK // row_bytes)
        for first in range(0, stop - start, step):
            n = min(step, stop - start - first)
            into[first : first + n] = np.frombuffer(self._stream.read(n * row_bytes), self._dtype).reshape(n, -1)
        return {}
