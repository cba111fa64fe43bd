"""How much faster does a sweep go on all cores than on one, and does it then give the same numbers?

    python benchmarks/sweep_speed.py             # ten recipes x five seeds, 100,000 vectors of 1,376 numbers: an hour or more
    python benchmarks/sweep_speed.py --quick     # ten recipes x two seeds, 30,000 vectors: ten minutes

`biascxr sweep` on an embedding store, as a user runs it, with `--jobs 1` and with one job per core. A job is one training at a
time on one core, in a process of its own, so `--jobs 1` is the speed of one core. Patients, films and vectors are a phantom's.
Starts of processes and all imports are in the times. The audit that follows the trainings has its own line. The store's file is
mapped by every process and lies in memory once, in the system's cache. That is measured: what the processes read from the disk
(`read_bytes` of /proc/PID/io) beside the file's size; a cold cache would show the file once.

The goal: trainings on two cores at least 1.7 times as fast as on one, and every prediction equal to the last byte.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
from processes import descendants
from training_turns import machine

import biascxr
from biascxr.config import EmbeddingsConfig, MitigationConfig, SweepConfig
from biascxr.containers import Attribute, Cohort, EmbeddingSet
from biascxr.mitigation import parse_recipes
from biascxr.phantom import GROUP_SHARES, VectorConfig, draw_vectors
from biascxr.pipeline import run_stages
from biascxr.sweep import plan_trainings, sweep, train_all

GOAL = 1.7
FILMS_PER_PATIENT = 2.1
RECIPES = "erm, random_over+erm, reweigh+erm, standardize+erm, leace+erm, focal, group_dro, dfr, mixup, erm+group_youden"
# As long a training for every recipe: the machine is measured, not when a validation loss stops falling.
EPOCHS = 3
GROUPS = tuple(f"group {g}" for g in range(len(GROUP_SHARES)))


def write_store(folder: Path, n_vectors: int, n_features: int) -> Path:
    """Writes a cohort and its vectors as a run has them, and returns the store's folder."""
    drawn = VectorConfig(n_patients=round(1.05 * n_vectors / FILMS_PER_PATIENT), dimensions=n_features, mechanism="prevalence")
    world = draw_vectors(drawn)
    rows = np.arange(len(world))[:n_vectors]
    image = np.array([f"image {i}" for i in world.image[rows]], object)
    table = pd.DataFrame(
        {
            "image_id": image,
            "study_id": image,
            "patient_id": [f"patient {p}" for p in world.patient[rows]],
            "path": "",
            "view": "PA",
            "split": world.split[rows],
            "age": np.nan,
            "race": np.array(GROUPS, object)[world.group[rows]],
        }
    )
    names = tuple(f"finding {i}" for i in range(drawn.n_labels))
    labels = world.recorded[rows].astype(np.float32)
    attributes = (Attribute("race", GROUPS, True),)
    for name in ("01_cohort", "03_embeddings"):
        (folder / name).mkdir(parents=True)
    Cohort(table, labels, names, attributes, "generic", "vector", Path()).save(folder / "01_cohort")
    card = {
        "encoder": "phantom", "weights": "none", "fingerprint": "phantom", "is_trained": False, "trained_on": "nothing",
        "vector_length": n_features,
    }  # fmt: skip
    EmbeddingSet(image, np.zeros(len(rows), np.int32), world.vectors[rows], card).save(folder / "03_embeddings")
    return folder / "03_embeddings"


class DiskReads:
    """Adds up what all processes of this one have read from the disk while it is open."""

    def __enter__(self) -> DiskReads:
        self._last: dict[int, int] = {}
        self._first: dict[int, int] = {}
        self._done = threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def gigabytes(self) -> float:
        return sum(n - self._first.get(process, 0) for process, n in self._last.items()) / 1e9

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            self._look()

    def _look(self) -> None:
        for process in descendants():
            try:
                lines = Path(f"/proc/{process}/io").read_text().splitlines()
            except OSError:
                continue  # it has ended since
            self._last[process] = next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))
        self._first = self._first or dict(self._last)


def config_of(store: Path, folder: Path, *, seeds: int, jobs: int) -> SweepConfig:
    settings = tuple(f"{trainer}.{name}={EPOCHS}" for trainer in ("erm", "focal", "group_dro", "mixup", "dfr")
                     for name in ("max_epochs", "patience"))  # fmt: skip
    return SweepConfig(
        output_dir=folder,
        embeddings=EmbeddingsConfig(embedding_store=store),
        mitigation=MitigationConfig(recipes=RECIPES, settings=settings),
        seeds=seeds,
        jobs=jobs,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--vectors", type=int)
    parser.add_argument("--features", type=int, default=1376)
    parser.add_argument("--seeds", type=int)
    flags = parser.parse_args()
    n_vectors = flags.vectors or (30_000 if flags.quick else 100_000)
    n_seeds = flags.seeds or (2 if flags.quick else 5)
    if n_vectors < 1000 or n_seeds < 1:
        parser.error("--vectors must be at least 1000 and --seeds at least 1")
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "keras", "tensorflow"))
    print("python", platform.python_version(), "biascxr", biascxr.__version__, *versions)
    print(machine())

    all_cores = len(os.sched_getaffinity(0))
    if all_cores < 2:
        print("One core: nothing to compare.")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = write_store(folder / "source", n_vectors, flags.features)
        size = (store / "vectors.npy").stat().st_size / 1e9
        what = f"{len(parse_recipes(RECIPES, ()))} recipes x {n_seeds} seeds, {EPOCHS} epochs"
        print(f"{what}, {n_vectors:,} vectors of {flags.features:,} ({size:.2f} GB)\n")
        print(f"{'':10}{'trainings s':>13}{'each s':>9}{'audit s':>9}{'together s':>12}{'read from disk GB':>19}")
        seconds, predictions = {}, {}
        for jobs in (all_cores, 1):
            config = config_of(store, folder / f"jobs_{jobs}", seeds=n_seeds, jobs=jobs)
            run = run_stages(config.run_config(), until="embeddings", own_config=False)
            trainings = plan_trainings(run, parse_recipes(config.mitigation.recipes, config.mitigation.settings), config)
            with DiskReads() as reads:
                start = time.perf_counter()
                made = train_all(trainings, jobs)
                seconds[jobs] = time.perf_counter() - start
            start = time.perf_counter()
            sweep(config)  # all trainings are there: it audits and writes the page
            audit = time.perf_counter() - start
            predictions[jobs] = {member: (path / "predictions.parquet").read_bytes() for member, path in made.items()}
            each, together = seconds[jobs] / len(made), seconds[jobs] + audit
            print(
                f"--jobs {jobs:<3}{seconds[jobs]:13.1f}{each:9.2f}{audit:9.1f}{together:12.1f}{reads.gigabytes:19.2f}",
                flush=True,
            )

    ratio = seconds[1] / seconds[all_cores]
    is_equal = predictions[1] == predictions[all_cores]
    print(f"\ntrainings on {all_cores} cores {ratio:.2f} times as fast as on one (goal {GOAL} on 2): "
          f"{'reached' if ratio >= GOAL else 'NOT reached'}")  # fmt: skip
    print(f"predictions of {len(predictions[1])} trainings equal to the last byte: {'yes' if is_equal else 'NO'}")
    if not is_equal:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
