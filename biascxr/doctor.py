"""`biascxr doctor`: is what a run left whole, and what can this machine do? Nothing is written and nothing is mended."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import biascxr
from biascxr.errors import InputError
from biascxr.run_folder import REPORTED_LIBRARIES, STAGES, file_digest, manifest_of, outputs_digest

AGAIN = "delete this folder and run the same command again: only what is missing is made anew"
RUN_STAGES = ("cohort", "records", "embeddings", "mitigation", "leakage", "audit", "report")
TOLERANCE = 1e-4  # of the largest number of a vector
# Two kinds of machine may differ so much in mixed precision; DenseNet121 is 1e-3 and 6e-3 off its own float32.
MIXED = {"off": 0.0, "float16": 1e-2, "bfloat16": 5e-2}
ROUNDING = {"float32": 0.0, "float16": 2.0**-11}  # what storing a number adds, a share of it
# What optional libraries are for, and the extra that installs them.
EXTRAS = {
    "dicom": (("pydicom",), "DICOM images"),
    "deep": (("imagecodecs",), "JPEG of 12 and 16 bits, DICOM compressed as JPEG 2000 or JPEG-LS"),
    "onnx": (("onnxruntime", "onnx", "tf2onnx"), "faster embedding on a processor; .onnx files"),
    "torch": (("torch",), "PyTorch weights in .pth files"),
    "dask": (("distributed",), "several machines, --scheduler"),
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
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines.append(f"{n_cores} cores" + (f", {_memory():.0f} GiB of memory" if _memory() else ""))
    lines.append(", ".join(f"{name} {_version(name)}" for name in REPORTED_LIBRARIES))
    for extra, (names, purpose) in EXTRAS.items():
        versions = {name: _version(name) for name in names}
        absent = [name for name, version in versions.items() if version == "missing"]
        there = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "missing")
        said = f'without {", ".join(absent)} (pip install "biascxr[{extra}]")' if absent else there
        lines.append(f"{extra}: {said}: {purpose}")
    return lines


def _memory() -> float:
    """Returns the machine's memory in GiB, 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return 0.0


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
        recompute: so many vectors of the images, evenly spaced, are made anew and compared.

    Raises:
        InputError: no stage of a run lies there, or a number below 0.
    """
    if recompute < 0:
        raise InputError(f"recompute must be at least 0; got {recompute}.")
    folders = [path.parent for name in STAGES.values() for path in sorted((run / name).glob("**/manifest.json"))]
    if not folders:
        raise InputError(f"{run} holds no finished stage of a run: name the folder that holds {STAGES['cohort']}.")
    yield from _check_unfinished(run)
    whole = []
    for folder in folders:
        found = list(_guarded(folder, lambda folder=folder: _check_files(folder, run, thorough=thorough)))
        yield from found
        whole += [folder] if not found else []
    for store in [folder for folder in folders if STAGES["embeddings"] in folder.relative_to(run).parts]:
        records = run / STAGES["records"] / store.relative_to(run / STAGES["embeddings"])
        found = list(_guarded(records, lambda records=records: _check_records(records, thorough=thorough)))
        found += list(_guarded(store, lambda store=store: _check_store(store)))
        yield from found
        if found or not was_made_of(store, records):
            continue
        if thorough:
            yield from _guarded(store, lambda store=store, records=records: _check_keys(store, records))
        if recompute and store == run / STAGES["embeddings"]:
            yield from _guarded(store, lambda store=store, records=records: _recompute(run, store, records, recompute))


def _guarded(place: Path, check: Callable[[], Iterator[Problem]]) -> Iterator[Problem]:
    """Yields what a check finds, and its own failure: what is damaged may be so in any way."""
    try:
        yield from check()
    except Exception as error:
        yield Problem(place, f"cannot be read ({type(error).__name__}: {error})")


def was_made_of(store: Path, records: Path) -> bool:
    """Returns whether a store's vectors were made from records here, so that they can be compared with them."""
    card = store / "card.json"
    return (records / "shards.csv").is_file() and "made_by" in json.loads(card.read_text(encoding="utf-8"))


def _check_unfinished(run: Path) -> Iterator[Problem]:
    """Names what an interrupted run left, and stages that are gone from among others."""
    for name in STAGES.values():
        for partial in sorted(run.glob(f"{name}/**/.*.partial")) + sorted(run.glob(f".{name}-*.partial")):
            yield Problem(partial, "was left by a run that was interrupted", "run the same command again to go on from it")
    there = [name for name in RUN_STAGES if any((run / STAGES[name]).glob("**/manifest.json"))]  # recipes have their own
    last = max((RUN_STAGES.index(name) for name in there), default=-1)
    for name in RUN_STAGES[: last + 1]:
        if name not in there and name != "records":  # a run from vectors has none
            yield Problem(run / STAGES[name], "is not there, while later stages are", "run the same command again")
    if "report" in there and not (run / "report.html").is_file():
        yield Problem(run / "report.html", "is gone", f"delete {run / STAGES['report']} and run the same command again")


def _check_files(folder: Path, run: Path, *, thorough: bool) -> Iterator[Problem]:
    manifest, advice = manifest_of(folder), f"delete {folder} and run the same command again"
    for name, digest in manifest["outputs"].items():
        path = folder / name
        if not path.is_file():
            yield Problem(path, "is gone", advice)
        elif thorough and file_digest(path) != digest:
            yield Problem(path, "has changed since it was written", advice)
    for name, digest in manifest.get("made_from", {}).get("inputs", {}).items():
        source = run / STAGES[name] if name in STAGES else None
        if source is None or not manifest_of(source) or not isinstance(digest, str):
            continue
        names = [n for n in manifest_of(source)["outputs"] if n != "shard_keys.csv"] if name == "records" else None
        if digest not in (outputs_digest(source), outputs_digest(source, names)):
            yield Problem(folder, f"was made from another {STAGES[name]} than lies there now", "run the same command again")


def _check_records(records: Path, *, thorough: bool) -> Iterator[Problem]:
    from biascxr.records import check_shards

    if (records / "shards.csv").is_file():
        yield from (Problem(records, str(what)) for what in check_shards(records, thorough=thorough))


def _check_store(store: Path) -> Iterator[Problem]:
    from biascxr.containers import EmbeddingSet

    found = EmbeddingSet.load(store)
    n, length = found.vectors.shape
    if length != found.card.get("vector_length", length):
        yield Problem(store, f"vectors of {length} numbers, where its card says {found.card['vector_length']}")
    stored = found.vectors.dtype.name
    if stored != found.card.get("store_precision", stored):
        yield Problem(store, f"vectors of {stored}, where its card says {found.card['store_precision']}")
    named = set(zip(found.image_id, found.view_id, strict=True))
    if len(named) < n:
        yield Problem(store, f"{n - len(named)} rows are of an image that is there already")
    starts = range(0, n, 8192)
    n_broken = sum(int((~np.isfinite(found.vectors[start : start + 8192]).all(axis=1)).sum()) for start in starts)
    if n_broken:
        yield Problem(store, f"{n_broken} of {n} vectors hold NaN or infinity")
    keys = store / "keys.npy"
    if keys.is_file() and len(np.load(keys, mmap_mode="r", allow_pickle=False)) != n:
        yield Problem(keys, f"holds another number of rows than the {n} of the store")


def _examples(records: Path) -> Iterator[dict]:
    from biascxr.records import decode_example, read_records

    for shard in sorted(records.glob("*.tfrecord-*-of-*")):
        yield from map(decode_example, read_records(shard))


def _row_of(found) -> dict[str, int]:
    """Returns the row of each image, or of each view by the name that its record has."""
    from biascxr.cohort.views import SEPARATOR

    names = [
        image_id if view_id == 0 else f"{image_id}{SEPARATOR}{view_id}"
        for image_id, view_id in zip(found.image_id, found.view_id, strict=True)
    ]
    return {name: row for row, name in enumerate(names)}


def _check_keys(store: Path, records: Path) -> Iterator[Problem]:
    """Compares each row's key with the record that it was made from."""
    from biascxr.containers import EmbeddingSet
    from biascxr.embeddings.store import KEYS, row_key

    found, keys = EmbeddingSet.load(store), np.load(store / KEYS, allow_pickle=False)
    row = _row_of(found)
    n_other = n_absent = 0
    for example in _examples(records):
        index = row.get(example["image_id"][0].decode())
        if index is None:
            n_absent += 1
        elif keys[index].tobytes() != row_key(example["image"][0], found.card["made_by"]):
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
    from biascxr.records import decode

    config, found = read_config(run), EmbeddingSet.load(store)
    config = replace(config, embeddings=replace(config.embeddings, distribute="off"))  # this machine may have other devices
    wanted = {found.image_id[row]: row for row in np.linspace(0, len(found) - 1, min(n, len(found))).astype(int)}
    encoder = EncoderSpec(config.embeddings, config.records.image_size, config.seed).build()
    advice = "the encoder's weights or libraries are others than those of the run"
    if encoder.vector_length != found.vectors.shape[1]:
        lengths = f"{encoder.vector_length} numbers, the store's {found.vectors.shape[1]}"
        yield Problem(store, f"the encoder's vectors have {lengths}", advice)
        return
    n_other, largest, batch = 0, 0.0, config.embeddings.inference_batch
    tolerance = TOLERANCE + ROUNDING[found.vectors.dtype.name] + MIXED[config.embeddings.mixed_precision]
    for example in _examples(records):
        row = wanted.get(example["image_id"][0].decode())
        if row is None:
            continue
        again = encoder.encode(np.repeat(decode(example["image"][0])[None], batch, axis=0))[0]
        off = float(np.abs(again - found.vectors[row]).max() / max(np.abs(again).max(), 1e-12))
        if not off <= tolerance:
            n_other, largest = n_other + 1, max(largest, off)
    if n_other:
        yield Problem(
            store, f"{n_other} of {len(wanted)} vectors come out differently (by {largest:.2g} of the largest)", advice
        )
