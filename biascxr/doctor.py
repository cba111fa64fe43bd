"""`biascxr doctor`: is what a run left whole, and what can this machine do? Nothing is written and nothing is mended."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import biascxr
from biascxr.errors import InputError
from biascxr.run_folder import REPORTED_LIBRARIES, STAGES, file_digest, manifest_of

AGAIN = "delete this folder and run the same command again: only what is missing is made anew"
TOLERANCE = 1e-4  # of the largest number of a vector
# What an optional library is for, and the extra that installs it.
EXTRAS = {
    "pydicom": ("DICOM images", "dicom"),
    "onnxruntime": ("embedding on a processor, twice as fast", "onnx"),
    "torch": ("PyTorch weights in .pth files", "torch"),
    "distributed": ("several machines, --scheduler", "dask"),
}


@dataclass(frozen=True)
class Problem:
    """Something that is not as a run leaves it.

    Attributes:
        place: file or folder.
        what: what is wrong.
        advice: what to do.
    """

    place: Path
    what: str
    advice: str = AGAIN

    def __str__(self) -> str:
        return f"{self.place}: {self.what}; {self.advice}"


def describe_machine() -> list[str]:
    """Returns versions, cores and memory, and which optional libraries are there, a line each; imports none of them."""
    lines = [f"biascxr {biascxr.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else float("nan")
    lines.append(f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory")
    lines.append(", ".join(f"{name} {_version(name)}" for name in REPORTED_LIBRARIES))
    for name, (purpose, extra) in EXTRAS.items():
        version = _version(name)
        absent = f'not installed (pip install "biascxr[{extra}]")'
        lines.append(f"{name}: {absent if version == 'missing' else version}, for {purpose}")
    return lines


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def examine(run: Path, *, thorough: bool = False, recompute: int = 0) -> Iterator[Problem]:
    """Yields what is wrong with a run's files.

    Args:
        run: the run's folder.
        thorough: compare every file with its digest, and every vector's key with the record that it was made from.
        recompute: so many vectors, evenly spaced, are made anew and compared.

    Raises:
        InputError: no stage of a run lies there.
    """
    stages = [folder for name in STAGES.values() for folder in sorted((run / name).glob("**/manifest.json"))]
    if not stages:
        raise InputError(f"{run} holds no finished stage of a run: name the folder that holds {STAGES['cohort']}.")
    for manifest in stages:
        yield from _check_files(manifest.parent, thorough=thorough)
    records, store = run / STAGES["records"], run / STAGES["embeddings"]
    if manifest_of(records):
        from biascxr.records import check_shards

        yield from (Problem(records, what) for what in check_shards(records, thorough=thorough))
    if manifest_of(store):
        found = list(_check_store(store))
        yield from found
        if not found and thorough and manifest_of(records):
            yield from _check_keys(store, records)
        if not found and recompute and manifest_of(records):
            yield from _recompute(run, store, records, recompute)


def _check_files(folder: Path, *, thorough: bool) -> Iterator[Problem]:
    for name, digest in manifest_of(folder)["outputs"].items():
        path = folder / name
        if not path.is_file():
            yield Problem(path, "is gone", f"delete {folder} and run the same command again")
        elif thorough and file_digest(path) != digest:
            yield Problem(path, "has changed since it was written", f"delete {folder} and run the same command again")


def _check_store(store: Path) -> Iterator[Problem]:
    from biascxr.containers import EmbeddingSet

    try:
        found = EmbeddingSet.load(store)
    except (ValueError, KeyError, OSError) as error:
        yield Problem(store, f"cannot be opened ({error})")
        return
    n, length = found.vectors.shape
    if length != found.card.get("vector_length", length):
        yield Problem(store, f"vectors of {length} numbers, where its card says {found.card['vector_length']}")
    named = list(zip(found.image_id, found.view_id, strict=True))
    if len(set(named)) < n:
        yield Problem(store, f"{n - len(set(named))} rows are of an image that is there already")
    broken = [
        start + np.flatnonzero(~np.isfinite(found.vectors[start : start + 8192]).all(axis=1)) for start in range(0, n, 8192)
    ]
    n_broken = sum(map(len, broken))
    if n_broken:
        yield Problem(store, f"{n_broken} of {n} vectors hold NaN or infinity")
    keys = store / "keys.npy"
    if keys.is_file() and len(np.load(keys, mmap_mode="r")) != n:
        yield Problem(keys, f"holds another number of rows than the {n} of the store")


def _check_keys(store: Path, records: Path) -> Iterator[Problem]:
    """Compares each row's key with the record that it was made from."""
    from biascxr.containers import EmbeddingSet
    from biascxr.embeddings.store import KEYS, made_by, row_key
    from biascxr.records import decode_example, read_records

    if not (store / KEYS).is_file():
        return
    found, keys = EmbeddingSet.load(store), np.load(store / KEYS)
    row = {image_id: index for index, image_id in enumerate(found.image_id)}
    n_other = n_absent = 0
    for shard in sorted(records.glob("*.tfrecord-*-of-*")):
        for data in read_records(shard):
            example = decode_example(data)
            index = row.get(example["image_id"][0].decode())
            if index is None:
                n_absent += 1
            elif keys[index].tobytes() != row_key(example["image"][0], made_by(found.card)):
                n_other += 1
    if n_other:
        yield Problem(store, f"{n_other} vectors were made from other images than their records hold")
    if n_absent:
        yield Problem(store, f"{n_absent} records have no vector")


def _recompute(run: Path, store: Path, records: Path, n: int) -> Iterator[Problem]:
    """Makes some vectors anew with the run's encoder."""
    from biascxr.apply.home import read_config
    from biascxr.containers import EmbeddingSet
    from biascxr.embeddings.shards import EncoderSpec
    from biascxr.records import decode, decode_example, read_records

    config, found = read_config(run), EmbeddingSet.load(store)
    wanted = {found.image_id[row]: row for row in np.linspace(0, len(found) - 1, min(n, len(found))).astype(int)}
    encoder = EncoderSpec(config.embeddings, config.records.image_size, config.seed).build()
    n_other, largest, batch = 0, 0.0, config.embeddings.inference_batch
    for shard in sorted(records.glob("*.tfrecord-*-of-*")):
        for data in read_records(shard):
            example = decode_example(data)
            row = wanted.get(example["image_id"][0].decode())
            if row is None:
                continue
            image = decode(example["image"][0])
            again = encoder.encode(np.repeat(image[None], batch, axis=0))[0]
            off = float(np.abs(again - found.vectors[row]).max() / max(np.abs(again).max(), 1e-12))
            n_other, largest = n_other + (off > TOLERANCE), max(largest, off)
    if n_other:
        advice = "the encoder's weights or libraries are others than those of the run"
        yield Problem(
            store, f"{n_other} of {len(wanted)} vectors come out differently (by {largest:.2g} of the largest)", advice
        )
