"""How fast are 20,000 files of one vector each gathered into the store, beside TensorFlow's ways of reading them?

    python benchmarks/vector_gathering.py            # 20,000 files; the store with 100,000 vectors: ten minutes
    python benchmarks/vector_gathering.py --quick    # 4,000 files and 20,000 vectors: two minutes

The files are CXR Foundation's: one `.tfrecord` per image with `embedding` (1,376 floats) and `image/id`, in the folders of
MIMIC-CXR. All of them are read once before, so the page cache is warm and the speed of a disk is not measured. Beside biascxr:
`tf.data` interleaving one dataset per file (parallel calls and parsing by AUTOTUNE), one `TFRecordDataset` of the list of
files with batched parsing, and one dataset per file read eagerly (a few hundred files only; it is slow). TensorFlow's ways end
with an array in memory; biascxr's also checks that the vector is this image's and finite, and writes the store. Turns are
interleaved and each side's median counts. Beside the seconds stand those of the processor, of all threads, which other work on
the machine leaves as they are.

The goals: at least 8 times the interleaved and 3 times the list of files; peak memory that does not grow with the number of
files; the store within 1.5 times of `numpy.save`, and its reading within 1.5 times of a memory map.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import pandas as pd

import biascxr
from biascxr.containers import Attribute, Cohort, EmbeddingSet
from biascxr.embeddings.precomputed import gather_from, gather_vectors
from biascxr.embeddings.vectors.base import ArraySource
from biascxr.records import encode_example, write_record

D = 1376
GOAL_INTERLEAVE, GOAL_LIST, GOAL_STORE, GOAL_GROWTH_MB = 8.0, 3.0, 1.5, 20.0
REACHED = {True: "reached", False: "NOT reached"}


def image_id(i: int) -> str:
    return f"{i:08x}-00000000-00000000-00000000-00000000"


def relative_path(i: int) -> str:
    return f"files/p1{i % 10}/p1{i % 997:07d}/s5{i:07d}/{image_id(i)}.tfrecord"


def write_tree(folder: Path, n: int) -> None:
    """Writes n files as CXR Foundation's vectors of MIMIC-CXR are published; each is in the page cache afterwards."""
    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder / relative_path(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        vector = rng.standard_normal(D, dtype=np.float32)
        with open(path, "wb") as file:
            write_record(file, encode_example({"embedding": vector, "image/id": f"gs://bucket/{path.stem}.dcm"}))


def cohort_of(ids: list[str], paths: list[str], root: Path) -> Cohort:
    names = dict.fromkeys(("image_id", "study_id", "patient_id"), ids)
    table = pd.DataFrame({**names, "path": paths, "view": "PA", "split": "train", "age": np.nan, "sex": "F"})
    labels = np.zeros((len(ids), 1), np.float32)
    return Cohort(table, labels, ("Edema",), (Attribute("sex", ("F", "M"), True),), "generic", "vector", root)


@dataclass
class Turn:
    """What one side took in one turn, and what it found.

    Attributes:
        seconds: wall-clock.
        cpu_seconds: of all threads of the process; unlike seconds they do not depend on what else the machine does.
        ids: `[n]` the images.
        vectors: `[n, d] float32`.
    """

    seconds: float
    cpu_seconds: float
    ids: np.ndarray
    vectors: np.ndarray


def turn(work: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Turn:
    start, cpu = time.perf_counter(), time.process_time()
    ids, vectors = work()
    return Turn(time.perf_counter() - start, time.process_time() - cpu, ids, vectors)


def by_biascxr(cohort: Cohort, folder: Path) -> Turn:
    with tempfile.TemporaryDirectory(dir=folder) as name:

        def gather() -> tuple[np.ndarray, np.ndarray]:
            made = gather_vectors(cohort, Path(name), vector_length=None)
            return made.image_id, made.vectors

        taken = turn(gather)
        taken.vectors = np.array(taken.vectors)
        return taken


def cohort_in(folder: Path, n: int) -> Cohort:
    return cohort_of([image_id(i) for i in range(n)], [relative_path(i) for i in range(n)], folder)


def tensorflow_ways(folder: Path, n: int) -> dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """TensorFlow's ways by name; each returns ids and vectors."""
    import tensorflow as tf

    paths = [str(folder / relative_path(i)) for i in range(n)]
    features = {"embedding": tf.io.FixedLenFeature([D], tf.float32), "image/id": tf.io.FixedLenFeature([], tf.string)}

    def collect(batches) -> tuple[np.ndarray, np.ndarray]:
        names, vectors, done = np.empty(n, object), np.empty((n, D), np.float32), 0
        for batch in batches.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
            size = len(batch["embedding"])
            names[done : done + size], vectors[done : done + size] = batch["image/id"], batch["embedding"]
            done += size
        ids = np.array([name.decode().rsplit("/", 1)[-1].removesuffix(".dcm") for name in names[:done]], object)
        return ids, vectors[:done]

    def parse(batch):
        return tf.io.parse_example(batch, features)

    def interleave():
        files = tf.data.Dataset.from_tensor_slices(paths)
        records = files.interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return collect(records.batch(512).map(parse, num_parallel_calls=tf.data.AUTOTUNE))

    def list_of_files():
        return collect(tf.data.TFRecordDataset(paths).batch(512).map(parse, num_parallel_calls=tf.data.AUTOTUNE))

    def eager():
        rows = [tf.io.parse_single_example(next(iter(tf.data.TFRecordDataset(path))), features) for path in paths]
        ids = [row["image/id"].numpy().decode().rsplit("/", 1)[-1].removesuffix(".dcm") for row in rows]
        return np.array(ids, object), np.stack([row["embedding"].numpy() for row in rows])

    return {"interleave": interleave, "list": list_of_files, "eager": eager}


def timed(work: Callable, *arguments) -> tuple[float, object]:
    start = time.perf_counter()
    made = work(*arguments)
    return time.perf_counter() - start, made


def is_same(left: Turn, right: Turn) -> bool:
    """Whether two sides found the same vector for each image, to the last bit."""
    orders = [np.argsort(side.ids.astype(str)) for side in (left, right)]
    are_same_ids = np.array_equal(left.ids[orders[0]], right.ids[orders[1]])
    return are_same_ids and np.array_equal(left.vectors[orders[0]], right.vectors[orders[1]])


def race_files(folder: Path, n: int, n_eager: int, turns: int) -> bool:
    cohort, ways = cohort_in(folder, n), tensorflow_ways(folder, n)
    sides = {
        "biascxr": lambda: by_biascxr(cohort, folder),
        "interleave": lambda: turn(ways["interleave"]),
        "list": lambda: turn(ways["list"]),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    same = True
    for side in sides.values():
        side()  # reads every file into the page cache, and builds TensorFlow's graphs
    for _ in range(turns):
        found = {name: side() for name, side in sides.items()}
        for name, made in found.items():
            taken[name].append((made.seconds, made.cpu_seconds))
        same = same and all(is_same(found["biascxr"], found[name]) for name in ("interleave", "list"))
    eager = turn(tensorflow_ways(folder, n_eager)["eager"])
    same = same and is_same(eager, by_biascxr(cohort_in(folder, n_eager), folder))
    rate = {name: n / np.median(turns, axis=0) for name, turns in taken.items()}
    rate["eager"] = n_eager / np.array([eager.seconds, eager.cpu_seconds])
    titles = {
        "biascxr": "biascxr, into the store",
        "interleave": "tf.data interleave",
        "list": "TFRecordDataset(list of files)",
        "eager": "one dataset per file, eager",
    }
    print(f"\n{'':34}{'files/s':>10}{'biascxr is x':>14}{'per CPU s':>11}{'biascxr is x':>14}{'240,000 files, min':>20}")
    for name, (wall, cpu) in rate.items():
        ratios = rate["biascxr"] / rate[name]
        print(f"{titles[name]:34}{wall:10,.0f}{ratios[0]:14.1f}{cpu:11,.0f}{ratios[1]:14.1f}{240_000 / wall / 60:20.1f}")
    for name, goal in (("interleave", GOAL_INTERLEAVE), ("list", GOAL_LIST)):
        ratio = rate["biascxr"][0] / rate[name][0]
        print(f"{ratio:.1f} times {titles[name]} (goal {goal:g}): {REACHED[bool(ratio >= goal)]}")
    print(f"the same vectors to the last bit: {'yes' if same else 'NO'}")
    return same


def peak_growth(folder: Path, n: int) -> None:
    """Peak memory of gathering a quarter of the files and all of them, each in a process of its own."""
    peaks = {}
    for part in (n // 4, n):
        command = [sys.executable, __file__, "--peak", str(folder), str(part)]
        peaks[part] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    first, last = peaks.values()
    shown = ", ".join(f"{part:,} files {mb:.0f} MB" for part, mb in peaks.items())
    print(f"peak of resident memory beyond imports: {shown}; growth {last - first:.0f} MB (goal {GOAL_GROWTH_MB:g}): "
          f"{REACHED[last - first <= GOAL_GROWTH_MB]}")  # fmt: skip


def print_peak(folder: Path, n: int) -> None:
    """Prints by how many MB the peak of resident memory rises while n files are gathered."""
    cohort = cohort_in(folder, n)
    Path("/proc/self/clear_refs").write_text("5")  # the peak until now, of the imports, is forgotten
    before = resident("VmRSS")
    with tempfile.TemporaryDirectory(dir=folder) as store:
        gather_vectors(cohort, Path(store), vector_length=None)
        print((resident("VmHWM") - before) / 1024)


def resident(name: str) -> int:
    """A line of /proc/self/status, in KB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


class InMemory(ArraySource):
    """An array as a source, so that the store alone is measured."""

    kind = "in memory"

    def __init__(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        self._path, self._vectors, self._shape, self.image_ids = "", vectors, vectors.shape, ids

    def _slice(self, start: int, stop: int, into: np.ndarray) -> dict[int, str]:
        into[:] = self._vectors[start:stop]
        return {}


def race_store(folder: Path, n: int, turns: int) -> bool:
    vectors = np.random.default_rng(0).standard_normal((n, D), dtype=np.float32)
    ids = [image_id(i) for i in range(n)]
    cohort = cohort_of(ids, ids, folder)
    own = cohort.table["image_id"].to_numpy(object)
    shuffled = np.random.default_rng(1).permutation(n)
    placed = np.argsort(shuffled)
    shuffled_vectors = vectors[shuffled]
    sources = {"in order": InMemory(vectors, own), "shuffled": InMemory(shuffled_vectors, own[shuffled])}
    taken: dict[str, list[tuple[float, float]]] = {}
    same = True

    def note(name: str, work: Callable, *arguments) -> object:
        start, cpu = time.perf_counter(), time.process_time()
        made = work(*arguments)
        taken.setdefault(name, []).append((time.perf_counter() - start, time.process_time() - cpu))
        return made

    def through_map() -> None:
        made = np.lib.format.open_memmap(folder / "map.npy", mode="w+", dtype=np.float32, shape=vectors.shape)
        for start in range(0, n, 10_000):
            made[start : start + 10_000] = vectors[start : start + 10_000]

    for _ in range(turns):
        note("numpy.save", np.save, folder / "plain.npy", vectors)
        note("numpy.save, another order", lambda: np.save(folder / "order.npy", shuffled_vectors[placed]))
        note("memory map, written", through_map)
        for order, source in sources.items():
            with tempfile.TemporaryDirectory(dir=folder) as name:
                made = note(f"biascxr, {order}", gather_from, source, cohort, Path(name))
                made.save(Path(name))
                same = same and np.array_equal(made.vectors, vectors)
                ours = note(f"read, {order}", lambda path: EmbeddingSet.load(path).vectors.sum(), Path(name))
                theirs = note("read, memory map", lambda: np.load(folder / "plain.npy", mmap_mode="r").sum())
                same = same and ours == theirs
        for name in ("plain.npy", "order.npy", "map.npy"):
            (folder / name).unlink()
    median = {name: np.median(turns, axis=0) for name, turns in taken.items()}
    print(f"\nthe store, {n:,} vectors of {D:,} ({vectors.nbytes / 1e9:.2f} GB)\n{'':34}{'seconds':>10}{'CPU seconds':>14}")
    for name, (wall, cpu) in median.items():
        print(f"{name:34}{wall:10.3f}{cpu:14.3f}")
    for title, ours, theirs in (
        ("written in order, beside numpy.save", "biascxr, in order", "numpy.save"),
        ("written from another order, beside numpy.save", "biascxr, shuffled", "numpy.save, another order"),
        ("read, beside a memory map", "read, in order", "read, memory map"),
    ):
        wall, cpu = median[ours] / np.maximum(median[theirs], 1e-9)
        is_reached = REACHED[bool(wall <= GOAL_STORE)]
        print(f"{title}: {wall:.2f} times the time, {cpu:.2f} times the CPU time (goal {GOAL_STORE:g}): {is_reached}")
    print(f"the same vectors to the last bit: {'yes' if same else 'NO'}")
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--files", type=int)
    parser.add_argument("--rows", type=int, help="vectors of the store's part")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.peak:
        print_peak(Path(flags.peak[0]), int(flags.peak[1]))
        return
    n_files = flags.files or (4_000 if flags.quick else 20_000)
    n_rows = flags.rows or (20_000 if flags.quick else 100_000)
    if min(n_files, n_rows) < 8 or flags.turns < 1:
        parser.error("--files and --rows must be at least 8 and --turns at least 1")
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "tensorflow", "google-crc32c", "protobuf"))
    print("python", platform.python_version(), "biascxr", biascxr.__version__, *versions)
    print(f"{len(os.sched_getaffinity(0))} cores, {n_files:,} files of one record")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tree(folder, n_files)
        same = race_files(folder, n_files, min(n_files, 100 if flags.quick else 300), flags.turns)
        peak_growth(folder, n_files)
    with tempfile.TemporaryDirectory() as name:
        same = race_store(Path(name), n_rows, flags.turns) and same
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
