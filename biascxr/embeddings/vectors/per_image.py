"""One file per image: `.npy`, `.npz`, or `.tfrecord` in CXR Foundation's form."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tokenize import TokenError
from typing import ClassVar

import numpy as np

from biascxr.embeddings.vectors.base import VectorError, VectorSource, pool, raw_vector, wrong_length
from biascxr.embeddings.vectors.packed import PackedRecord
from biascxr.records.tfrecord import RecordError, decode_example, frame_of, masked_crc, read_records

_UNREADABLE_ARRAY = (ValueError, OSError, EOFError, SyntaxError, TokenError, MemoryError)
_NAME_BYTES = 4096  # more than a record in CXR Foundation's form takes beside its floats


FILE_ENDINGS = {"dcm", "dicom", "png", "jpg", "jpeg", "npy", "npz", "tfrecord"}


def read_vector(path: Path, image_id: str | None = None) -> np.ndarray:
    """Reads one precomputed vector.

    Args:
        path: `.npy` (`[d]`, `[1, d]` or a map `[8, 8, 1376]`), `.npz` (the same, named `embedding`), or `.tfrecord` (one
            Example with `embedding`, and perhaps `image/id`).
        image_id: if given and the record names an image, they must agree.

    Returns:
        `[d] float32`; a map's mean over its places.

    Raises:
        VectorError: missing, empty, unreadable, not one finite vector, or another image's.
    """
    vector = pool(read_raw(path, image_id)[None])[0]
    if not np.isfinite(vector).all():
        raise VectorError("NaN or infinite values in the vector")
    return vector


def read_raw(path: Path, image_id: str | None = None) -> np.ndarray:
    """Reads a vector's numbers as stored, `[raw_length] float32`; see `read_vector`."""
    if not path.is_file():
        raise VectorError("missing file")
    if path.stat().st_size == 0:
        raise VectorError("empty file (zero bytes)")
    reader = FILE_READERS.get(path.suffix.lower(), _read_record)
    return raw_vector(reader(path, image_id))


def names_image(named: bytes, image_id: str) -> bool:
    """Returns whether a record's `image/id` (`gs://.../<dicom_id>.dcm`, or the id alone) is this image's."""
    return image_id in names_of(named.decode(errors="replace"))


def names_of(name: str) -> Iterator[str]:
    """Yields the image_ids that a name may stand for: itself, then without an ending of files, then parts of its path.

    An id may hold dots, as DICOM UIDs do, and slashes, as CheXpert's do: only endings that image files have are taken off, and
    longer parts of a path come before shorter ones.
    """
    parts = name.split("/")
    for start in range(len(parts)):
        part = "/".join(parts[start:])
        yield part
        stem, dot, ending = part.rpartition(".")
        if dot and ending.lower() in FILE_ENDINGS:
            yield stem


def _read_npy(path: Path, image_id: str | None) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)  # np.load would also open a zip of arrays
    except _UNREADABLE_ARRAY as error:
        raise VectorError(f"not a readable .npy array ({error})") from None


def _read_npz(path: Path, image_id: str | None) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive, archive.open("embedding.npy") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except KeyError:
        raise VectorError("no array 'embedding' in the .npz file") from None
    except (*_UNREADABLE_ARRAY, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise VectorError(f"not a readable .npz file ({error})") from None


def _read_record(path: Path, image_id: str | None) -> np.ndarray:
    try:
        records = list(read_records(path))
        if len(records) != 1:
            raise VectorError(f"not one record ({len(records)} in the file)")
        example = decode_example(records[0])
    except RecordError as error:
        raise VectorError(str(error)) from None
    except OSError as error:
        raise VectorError(f"unreadable file: {error.strerror}") from None
    named = example.get("image/id")
    if image_id and isinstance(named, list) and named and not names_image(named[0], image_id):
        raise VectorError("another image's vector (image/id disagrees with dicom_id)")
    return floats_of(example)


def floats_of(example: dict) -> np.ndarray:
    """Returns a decoded Example's `embedding`, or raises VectorError saying what is there instead."""
    values = example.get("embedding")
    if not isinstance(values, np.ndarray):
        raise VectorError(f"no float feature 'embedding' (found: {', '.join(sorted(example)) or 'nothing'})")
    return values


FILE_READERS: dict[str, Callable[[Path, str | None], np.ndarray]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".tfrecord": _read_record,
}


class FilePerImage(VectorSource):
    """One file per image, as CXR Foundation's vectors of MIMIC-CXR are published: 240,000 files.

    Args:
        paths: the files.
        image_ids: the image that each must be of; default: the files' names without their ending.
    """

    kind: ClassVar[str] = "files"

    def __init__(self, paths: list[str], image_ids: np.ndarray | None = None) -> None:
        self._paths = [str(path) for path in paths]
        self._are_named = image_ids is not None
        self.image_ids = np.array([Path(p).stem for p in self._paths], object) if image_ids is None else image_ids

    def place(self, row: int) -> str:
        return self._paths[row]

    def _lengths(self) -> Iterator[int | str]:
        for path in self._paths:
            try:
                yield len(read_raw(Path(path)))
            except VectorError as error:
                yield str(error)

    def _rows(self, start: int, stop: int, into: np.ndarray) -> dict[int, str]:
        raw_length = into.shape[1]
        places = memoryview(into).cast("B")
        packed = PackedRecord(raw_length)
        size = packed.n_bytes
        reasons: dict[int, str] = {}
        for row, path in enumerate(self._paths[start:stop]):
            image_id = self.image_ids[start + row]
            found = _read_packed(path, image_id, packed) if path.endswith(".tfrecord") else None
            if found is not None:
                places[row * size : (row + 1) * size] = found
                continue
            try:
                vector = read_raw(Path(path), image_id if self._are_named else None)
                if len(vector) != raw_length:
                    raise VectorError(wrong_length(len(vector), raw_length))
            except VectorError as error:
                reasons[row] = str(error)
                continue
            into[row] = vector
        return reasons


def _read_packed(path: str, image_id: str, packed: PackedRecord) -> memoryview | None:
    """Returns the floats of a file that is one whole, undamaged record in CXR Foundation's form and names no other image.

    Whatever is not that is None, and left to `read_raw`, which also says what is wrong with it.
    """
    try:
        # Three system calls; Python's own open() makes seven. NONBLOCK: a pipe in the folder is not waited for.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            data = os.read(file, packed.n_bytes + _NAME_BYTES)
        finally:
            os.close(file)
    except OSError:
        return None
    size = len(data) - 16
    if size <= packed.n_bytes or not data.startswith(frame_of(size)):
        return None
    found = packed.find(data, 12, size)
    if found is None or masked_crc(data[12:-4]) != int.from_bytes(data[-4:], "little"):
        return None
    floats_at, named = found
    if named is not None and not names_image(named, image_id):
        return None
    return memoryview(data)[floats_at : floats_at + packed.n_bytes]
