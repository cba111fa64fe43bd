"""Vectors that exist already, gathered once into the store: one file per image, or a file or folder that names its images."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import google_crc32c
import numpy as np
from tqdm import tqdm

from biascxr.containers import Cohort, EmbeddingSet
from biascxr.embeddings.row_file import Journal, RowFile
from biascxr.embeddings.store import in_precision
from biascxr.embeddings.vectors import Fault, VectorError, VectorSource, open_vectors
from biascxr.embeddings.vectors.base import MAP_LENGTH, MAP_SHAPE, sums_of
from biascxr.embeddings.vectors.per_image import FilePerImage, names_of, read_vector
from biascxr.errors import InputError
from biascxr.records import read_rejected, write_rejected
from biascxr.work import remove_left_overs

logger = logging.getLogger("biascxr")

BLOCK_ROWS = 10_000
STEP_BYTES = 1 << 20  # read, looked at and written while it is in the processor's cache
DAMAGE_FILE, PROGRESS_FILE = "source_damage.csv", "progress.jsonl"


def gather_vectors(
    cohort: Cohort,
    folder: Path,
    *,
    vector_length: int | None,
    precision: str = "float32",
    is_stage: bool = False,
    keep_maps: bool = False,
) -> EmbeddingSet:
    """Gathers one file per image into one array on disk, in table order; writes `rejected.csv`.

    Args:
        cohort: rows whose `path` is a vector file.
        folder: where `vectors.npy` is made.
        vector_length: required length; default: the most frequent one among the first readable files.
        precision: type of the numbers in `vectors.npy`, float32 or float16.
        is_stage: see `gather_from`.
        keep_maps: see `gather_from`.

    Raises:
        InputError: no file can be read, or the type cannot hold a vector.
    """
    root = str(cohort.images_root)
    paths = [os.path.join(root, path) for path in cohort.table["path"].to_numpy(object)]  # pathlib takes longer than to read
    source = FilePerImage(paths, cohort.table["image_id"].to_numpy(object))
    return gather_from(source, cohort, folder, vector_length, precision, is_stage=is_stage, keep_maps=keep_maps)


def gather_from(
    source: VectorSource,
    cohort: Cohort,
    folder: Path,
    vector_length: int | None = None,
    precision: str = "float32",
    *,
    is_stage: bool = False,
    keep_maps: bool = False,
) -> EmbeddingSet:
    """Gathers a source's vectors of a cohort's images into `vectors.npy`, in the cohort's order, without holding them.

    Written to the folder beside it: `rejected.csv`, every image that has no usable vector and why; `source_damage.csv` where
    something in the source is damaged and cannot be told to be of an image. While it works, `all.npy` and `progress.jsonl`
    hold what is done: a killed process goes on from there, to the same bytes.

    Args:
        source: see `open_vectors`.
        cohort: gives the images and their order.
        folder: the stage's folder.
        vector_length: required length of a vector; default: what most of the source's first readable rows have.
        precision: type of the numbers in `vectors.npy`, float32 or float16.
        is_stage: the folder belongs to this cohort and this state of the source alone, as a stage's does, so `vectors.npy` in
            it is what this would make: a run was stopped before the rest of the stage was done.
        keep_maps: a feature map stays as it is, flattened row by row, in place of its mean over places.

    Returns:
        The vectors of the images that have one; `card` says where a feature map was pooled, or its `map_shape`.

    Raises:
        InputError: no row of the source can be read, it holds none of the cohort's images, or the type cannot hold a vector.
    """
    remove_left_overs(folder)
    source.keeps_maps = keep_maps
    raw_length = source.raw_length(vector_length)
    length = source.length_of(raw_length)
    image_ids = cohort.table["image_id"].to_numpy(object)
    kept = _kept_before(image_ids, folder, length, precision) if is_stage else None
    if kept is None:
        kept = _gather(source, cohort, folder, raw_length, precision)
    vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    return EmbeddingSet(image_ids[kept], np.zeros(int(kept.sum()), np.int32), vectors, _card(source, raw_length, precision))


def _gather(source: VectorSource, cohort: Cohort, folder: Path, raw_length: int, precision: str) -> np.ndarray:
    """Writes `vectors.npy`, `rejected.csv` and what else `gather_from` says; returns which rows are in it, `[n] bool`."""
    image_ids = cohort.table["image_id"].to_numpy(object)
    target, reasons, n_others = _match(source, image_ids)
    if n_others:
        logger.info("embeddings: %d vectors of the source are of images that the cohort does not hold", n_others)
    kept = np.zeros(len(cohort), bool)
    with (
        RowFile(folder / "all.npy", (len(cohort), source.length_of(raw_length)), precision) as store,
        tqdm(total=len(source), desc="vectors", unit="image", mininterval=0.5) as bar,
    ):
        ids = [_digest(source.image_ids), _digest(image_ids)]
        work = {"ids": ids, "raw_length": raw_length, "source": source.kind, "precision": precision}
        journal = Journal(folder / PROGRESS_FILE, work)
        done = {part.start: part for part in map(_part, journal.entries) if not store.is_new}
        for start in range(0, len(source), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(source))
            part = done.get(start)
            if part is None or not _is_written(part, store, target, stop):
                part = _gather_block(source, store, target, (start, stop), raw_length, precision)
                journal.add(asdict(part))
            kept[part.rows(target, stop)] = True
            for place, reason in part.reasons:
                row = start + place
                reasons[int(target[row])] = (source.place(row), reason)
            bar.update(stop - start)
        _write_reasons(source, cohort, folder, kept, reasons)
        _keep_rows(store, kept, folder, precision)  # last: where the vectors are, the reasons are
    return kept


def _kept_before(image_ids: np.ndarray, folder: Path, length: int, precision: str) -> np.ndarray | None:
    """Returns which rows are in the `vectors.npy` of a run that was stopped behind it, `[n] bool`; None where there is none."""
    if not (folder / "vectors.npy").is_file():
        return None
    rejected = {row["image_id"] for row in read_rejected(folder)}
    kept = np.array([image_id not in rejected for image_id in image_ids], bool)
    found = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    if found.shape != (int(kept.sum()), length) or found.dtype != precision:
        return None
    _remove_unfinished(folder)
    return kept


@dataclass(frozen=True)
class _Part:
    """What came of one block: its first row, why rows of it cannot be used, and a checksum.

    The checksum (CRC-32C) is of the sums of its vectors: they are there already, and tell as well as all the numbers do a row
    that was written from one that was not.
    """

    start: int
    reasons: list[tuple[int, str]]
    crc: int

    def rows(self, target: np.ndarray, stop: int) -> np.ndarray:
        """Returns the rows of the store that the block fills, in the block's order."""
        rows = target[self.start : stop].copy()
        rows[[place for place, _ in self.reasons]] = -1
        return rows[rows >= 0]


def _digest(image_ids: np.ndarray) -> str:
    return hashlib.sha256("\0".join(map(str, image_ids)).encode()).hexdigest()


def _part(entry: dict) -> _Part:
    return _Part(entry["start"], [(place, reason) for place, reason in entry["reasons"]], entry["crc"])


def _gather_block(
    source: VectorSource, store: RowFile, target: np.ndarray, span: tuple[int, int], raw_length: int, precision: str
) -> _Part:
    """Reads one block of the source and writes its rows to their places; what holds other images only is not read."""
    reasons: list[tuple[int, str]] = []
    crc = 0
    step = max(1, STEP_BYTES // (4 * raw_length))
    for start in range(span[0], span[1], step):
        stop = min(start + step, span[1])
        rows = target[start:stop]
        is_used = rows >= 0
        if not is_used.any():
            continue
        block = source.read(start, stop, raw_length)
        bad = [place for place in sorted(block.reasons) if is_used[place]]
        reasons += [(start - span[0] + place, block.reasons[place]) for place in bad]
        is_used[bad] = False
        vectors, sums = block.vectors if is_used.all() else block.vectors[is_used], block.sums[is_used]
        if precision != "float32":
            vectors = in_precision(vectors, precision, source.image_ids[start:stop][is_used])
            sums = _sums(vectors)
        store.write(rows[is_used], vectors)
        crc = google_crc32c.extend(crc, sums.tobytes())
    return _Part(span[0], reasons, crc)


def _sums(stored: np.ndarray) -> np.ndarray:
    """Returns the sum of each vector as a store holds them, `[m] float32`."""
    return sums_of(np.asarray(stored, np.float32))


def _is_written(part: _Part, store: RowFile, target: np.ndarray, stop: int) -> bool:
    """Returns whether the store holds what an earlier process wrote; after a power failure it may not."""
    rows = part.rows(target, stop)
    crc = 0
    step = max(1, STEP_BYTES // (4 * store.length))
    for start in range(0, len(rows), step):
        crc = google_crc32c.extend(crc, _sums(store.read(rows[start : start + step])).tobytes())
    return crc == part.crc


def _match(source: VectorSource, own: np.ndarray) -> tuple[np.ndarray, dict[int, tuple[str, str]], int]:
    """Finds each source row's place in the cohort.

    Returns:
        `[n] int64`, the cohort's row or -1; images that cannot be used because several rows name them (cohort row -> file
        and reason); and how many rows are of other images.
    """
    if source.image_ids is own or np.array_equal(source.image_ids, own):
        return np.arange(len(own)), {}, 0
    position = {image_id: row for row, image_id in enumerate(own)}
    target = np.array([_position(name, position) for name in source.image_ids], np.int64)
    n_others = int((target < 0).sum())
    if n_others == len(target):
        raise InputError(
            f"None of the {len(target):,} vectors is of an image of this table: their ids do not match its image_ids.",
            examples=[str(source.image_ids[0]), str(own[0])] if len(target) and len(own) else (),
        )
    counts = np.bincount(target[target >= 0], minlength=len(own))
    reasons = {}
    for row in np.flatnonzero(target >= 0):
        place = int(target[row])
        if counts[place] > 1:  # which of them is right nobody knows
            reasons[place] = (source.place(int(row)), f"{counts[place]} vectors of this image in the source")
            target[row] = -1
    return target, reasons, n_others


def _position(name: str, position: dict[str, int]) -> int:
    """Returns the row of the image that a source's id names, the whole name before parts of it (see `names_of`); or -1."""
    return next((position[other] for other in names_of(name) if other in position), -1)


def _keep_rows(store: RowFile, kept: np.ndarray, folder: Path, precision: str) -> None:
    """Makes `vectors.npy` of the rows that are kept, and removes the files of the unfinished work."""
    if kept.all():
        (folder / "all.npy").replace(folder / "vectors.npy")
    else:
        rows = np.flatnonzero(kept)
        step = max(1, STEP_BYTES // (4 * store.length))
        temporary = folder / "vectors.tmp"
        with RowFile(temporary, (len(rows), store.length), precision) as target:
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                target.write(np.arange(start, start + len(part)), store.read(part))
        temporary.replace(folder / "vectors.npy")
    _remove_unfinished(folder)


def _remove_unfinished(folder: Path) -> None:
    """Removes the files of the unfinished work."""
    for name in ("all.npy", PROGRESS_FILE):
        (folder / name).unlink(missing_ok=True)


def _write_reasons(
    source: VectorSource, cohort: Cohort, folder: Path, kept: np.ndarray, reasons: dict[int, tuple[str, str]]
) -> None:
    """Writes `rejected.csv`, in the cohort's order, and `source_damage.csv` where there is some."""
    none = "no vector in the source"
    if source.faults:
        none += f" (it is damaged, and may have lost it there: {DAMAGE_FILE})"
        with open(folder / DAMAGE_FILE, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [f.name for f in fields(Fault)])
            writer.writeheader()
            writer.writerows(asdict(fault) for fault in source.faults)
        logger.warning("embeddings: %d faults in the source of vectors, listed in %s", len(source.faults), DAMAGE_FILE)
    left_out = np.flatnonzero(~kept)
    rejected = []
    for row, image_id, path in zip(left_out, *(cohort.table[c].iloc[left_out] for c in ("image_id", "path")), strict=True):
        where, reason = reasons.get(int(row), (path, none))
        rejected.append({"image_id": image_id, "path": where, "reason": reason})
    write_rejected(folder, rejected)


def _card(source: VectorSource, raw_length: int, precision: str) -> dict:
    is_map, is_kept = raw_length == MAP_LENGTH, source.keeps_maps
    pooled = f"mean over the 8x8 places of a {'x'.join(map(str, MAP_SHAPE))} feature map"
    return {
        "encoder": "precomputed",
        "weights": "not known here",
        "pooling": pooled if is_map and not is_kept else "as the source has it",
        "map_shape": list(MAP_SHAPE) if is_map and is_kept else None,
        "source": source.kind,
        "vector_length": source.length_of(raw_length),
        "store_precision": precision,
        "fingerprint": "not known here",
        "is_trained": True,
        "trained_on": "not known here",
    }


__all__ = ["VectorError", "gather_from", "gather_vectors", "open_vectors", "read_vector"]
