"""How much memory does training from a memory map take, and what does it cost in speed?

    python benchmarks/training_memory.py            # 300,000 vectors of 1,376 numbers, a file of 1.65 GB: ten minutes
    python benchmarks/training_memory.py --quick    # 130,000 vectors, four minutes

The 1376-512-256-14 head at batch 512. The goal: at least 0.9 times the speed of a PyTorch `DataLoader` loop that has all
vectors in memory, with less than 1 GB of anonymous memory (RssAnon of /proc/self/status, the whole process, its largest value
while it trains; pages of the mapped file are not in it, the system takes them back when it needs them). The file lies in a
temporary folder (`TMPDIR` chooses where) and is removed. It was written just before and is in the page cache: the speed of a
disk is not measured. Up to 640 MiB of vectors `fit_head` holds in memory by itself, mapped or not, so fewer than 122,000 are no
test of the map.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import tempfile
from pathlib import Path

from training_turns import Racer, is_installed, machine, race, sleeping_threads_are_faster, write_vectors

import biascxr

GOAL_SPEED, GOAL_GB = 0.9, 1.0
BATCH_SIZE = 512


def racers(folder: Path, epochs: int, *, threads_sleep: bool) -> list[Racer]:
    """All that are installed; the first is what the others are compared with."""
    settings = {"folder": str(folder), "batch_size": BATCH_SIZE, "epochs": epochs}
    made = [Racer("biascxr, TensorFlow, in memory", "tensorflow", **settings)]
    if is_installed("torch"):
        made.insert(0, Racer("PyTorch, DataLoader, in memory", "loader", threads_sleep=threads_sleep, **settings))
    made.append(Racer("biascxr, TensorFlow, memory map", "tensorflow", is_mapped=True, **settings))
    if is_installed("jax"):
        made.append(Racer("biascxr, JAX, memory map", "jax", is_mapped=True, **settings))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    flags = parser.parse_args()
    rows = flags.rows or (130_000 if flags.quick else 300_000)
    if flags.epochs < 1 or rows < 100:
        parser.error("--rows must be at least 100 and --epochs at least 1")
    names = ("numpy", "keras", "tensorflow", *(name for name in ("torch", "jax") if is_installed(name)))
    versions = (f"{name} {importlib.metadata.version(name)}" for name in names)
    print("python", platform.python_version(), "biascxr", biascxr.__version__, *versions)
    if not is_installed("torch"):
        print("torch is not installed; compared with training in memory instead: pip install torch")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_vectors(folder, rows, 1376, 14, n_validation=max(500, rows // 50))
        file_gb = (folder / "train_vectors.npy").stat().st_size / 1e9
        sleep = is_installed("torch") and sleeping_threads_are_faster(folder, batch_size=BATCH_SIZE)
        print(f"{machine()}\n\n1376-512-256-14, {rows:,} vectors ({file_gb:.2f} GB), batch {BATCH_SIZE}, {flags.epochs} epochs")
        processes = race(racers(folder, flags.epochs, threads_sleep=sleep), flags.epochs)

    peer = processes[0]
    print(
        f"{'':34}{'samples/s':>11}{'x the first':>13}{'per CPU s':>11}{'x the first':>13}{'anonymous GB':>14}{'val. loss':>11}"
    )
    for process in processes:
        ratios = peer.seconds / process.seconds, peer.cpu_seconds / process.cpu_seconds
        print(f"{process.racer.title:34}{rows / process.seconds:11,.0f}{ratios[0]:13.2f}{rows / process.cpu_seconds:11,.0f}"
              f"{ratios[1]:13.2f}{process.peak_gb:14.2f}{process.validation_loss:11.4f}")  # fmt: skip
    mapped = next(p for p in processes if p.racer.is_mapped)
    speed = peer.seconds / mapped.seconds
    reached = {True: "reached", False: "NOT reached"}
    print(f"speed {speed:.2f} times the first (goal {GOAL_SPEED}): {reached[speed >= GOAL_SPEED]}")
    print(f"anonymous memory {mapped.peak_gb:.2f} GB (goal under {GOAL_GB}): {reached[mapped.peak_gb < GOAL_GB]}")


if __name__ == "__main__":
    main()
