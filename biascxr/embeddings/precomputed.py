"""Vectors that exist already: one `.npy` or `.tfrecord` file per image, in CXR Foundation's form."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tokenize import TokenError

import numpy as np
from tqdm import tqdm

from biascxr.containers import Cohort, EmbeddingSet
from biascxr.errors import InputError
from biascxr.records import RecordError, decode_example, read_records, write_rejected

N_FILES_FOR_LENGTH = 101


class VectorError(InputError):
    """A file cannot be used as a vector; the message is the reason that goes into `rejected.csv`."""


def read_vector(path: Path, image_id: str | None = None) -> np.ndarray:
    """Reads one precomputed vector.

    Args:
        path: `.npy` (`[d]` or `[1, d]`) or `.tfrecord` (one Example with `embedding`, and perhaps `image/id`).
        image_id: if given and the record names an image, they must agree.

    Returns:
        `[d] float32`.

    Raises:
        VectorError: missing, empty, unreadable, not one finite vector, or another image's.
    """
    if not path.is_file():
        raise VectorError("missing file")
    if path.stat().st_size == 0:
        raise VectorError("empty file (zero bytes)")
    if path.suffix.lower() == ".npy":
        try:
            with open(path, "rb") as file:
                values = np.lib.format.read_array(file, allow_pickle=False)  # np.load would also open a zip of arrays
        except (ValueError, OSError, EOFError, SyntaxError, TokenError) as error:
            raise VectorError(f"not a readable .npy array ({error})") from None
    else:
        values = _read_record(path, image_id)
    if not np.issubdtype(values.dtype, np.number) or values.squeeze().ndim != 1 or values.size == 0:
        raise VectorError(f"not one vector (shape {values.shape}, {values.dtype})")
    vector = values.reshape(-1).astype(np.float32)
    if not np.isfinite(vector).all():
        raise VectorError("NaN or infinite values in the vector")
    return vector


def _read_record(path: Path, image_id: str | None) -> np.ndarray:
    try:
        records = list(read_records(path))
        if len(records) != 1:
            raise VectorError(f"not one record ({len(records)} in the file)")
        example = decode_example(records[0])
    except RecordError as error:
        raise VectorError(str(error)) from None
    values = example.get("embedding")
    if not isinstance(values, np.ndarray):
        raise VectorError(f"no float feature 'embedding' (found: {', '.join(sorted(example)) or 'nothing'})")
    named = example.get("image/id")
    if image_id and isinstance(named, list) and named:
        name = Path(named[0].decode(errors="replace")).name
        if image_id not in (name, name.rsplit(".", 1)[0]):  # an id may hold dots itself, as DICOM UIDs do
            raise VectorError("another image's vector (image/id disagrees with dicom_id)")
    return values


def gather_vectors(cohort: Cohort, folder: Path, *, vector_length: int | None) -> EmbeddingSet:
    """Gathers one file per image into one array on disk, in table order; writes `rejected.csv`.

    Args:
        cohort: rows whose `path` is a vector file.
        folder: where `vectors.npy` is made.
        vector_length: required length; default: the most frequent one among the first readable files.

    Raises:
        InputError: no file can be read.
    """
    paths = [cohort.images_root / p for p in cohort.table["path"]]
    image_ids = cohort.table["image_id"].to_numpy(object)
    length = vector_length or _most_frequent_length(paths)
    # A plain .npy that is filled row by row: memory stays flat at any size, and nothing is padded.
    store = np.lib.format.open_memmap(folder / "all.npy", mode="w+", dtype=np.float32, shape=(len(paths), length))
    rejected, kept = [], np.zeros(len(paths), bool)
    for row, path in enumerate(tqdm(paths, desc="vectors", unit="file", mininterval=0.5)):
        try:
            vector = read_vector(path, image_ids[row])
            if len(vector) != length:
                raise VectorError(f"wrong length ({len(vector)}; expected {length})")
        except VectorError as error:
            rejected.append({"image_id": image_ids[row], "path": str(path), "reason": str(error)})
            continue
        store[row], kept[row] = vector, True
    store.flush()
    if kept.all():
        (folder / "all.npy").replace(folder / "vectors.npy")
    else:
        np.save(folder / "vectors.npy", store[kept])
        del store
        (folder / "all.npy").unlink()
    write_rejected(folder, rejected)
    card = {
        "encoder": "precomputed",
        "weights": "not known here",
        "vector_length": length,
        "fingerprint": "not known here",
        "is_trained": True,
        "trained_on": "not known here",
    }
    vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    return EmbeddingSet(image_ids[kept], np.zeros(int(kept.sum()), np.int32), vectors, card)


def _most_frequent_length(paths: list[Path]) -> int:
    lengths: Counter[int] = Counter()
    reason = ""
    for path in paths:
        try:
            lengths[len(read_vector(path))] += 1
        except VectorError as error:
            reason = str(error)
        if lengths.total() >= N_FILES_FOR_LENGTH:
            break
    if not lengths:
        raise InputError(f"None of the {len(paths):,} vector files can be read; the last reason: {reason}.")
    return lengths.most_common(1)[0][0]
