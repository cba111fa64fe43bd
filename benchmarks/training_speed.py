"""How fast does a head train? Samples per second beside PyTorch loops of the same network, to the same validation loss.

    python benchmarks/training_speed.py            # 100,000 vectors: a quarter of an hour on two cores
    python benchmarks/training_speed.py --quick    # 16,000 vectors: three minutes

The 1376-512-256-14 head at batch 512 and at BiasCXR's batch 16, and the small fits of a sweep (30 epochs of a 64-64-5 head on
5,000 vectors, everything included that a fit needs: network, compilation, validation, AUROC). Two PyTorch peers: the
`DataLoader` loop of the tutorials (the peer of the stated goals), and rows gathered by index with Adam in one fused pass, the
fastest that we know. All race in turns, an epoch each, and count with their fastest; processor time stands beside it, because
wall time on a busy machine says little. It needs PyTorch, and JAX for the third racer:

    pip install torch jax
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import tempfile
from pathlib import Path

from training_turns import Process, Racer, is_installed, machine, race, sleeping_threads_are_faster, write_vectors

import biascxr

# Times a `DataLoader` loop, by batch size and backend.
GOALS = {(512, "tensorflow"): 0.95, (16, "tensorflow"): 1.15, (512, "jax"): 1.7, (16, "jax"): 3.0}
LOSSES_AGREE = 0.02
TITLES = {
    "loader": "PyTorch, DataLoader",
    "gather": "PyTorch, gathered rows, fused Adam",
    "tensorflow": "biascxr, TensorFlow",
    "jax": "biascxr, JAX",
}
SMALL_FIT = {"batch_size": 256, "epochs": 30, "hidden": (64,), "turn": "fit"}


def racers(folder: Path, *, threads_sleep: bool, **settings: object) -> list[Racer]:
    """All that are installed."""
    needs = {"loader": "torch", "gather": "torch", "tensorflow": "tensorflow", "jax": "jax"}
    return [
        Racer(TITLES[kind], kind, str(folder), threads_sleep=threads_sleep and module == "torch", **settings)
        for kind, module in needs.items()
        if is_installed(module)
    ]


def show(processes: list[Process], n_samples: int) -> list[str]:
    """Prints one race; returns the goals that were not reached."""
    named, fastest = (next((p for p in processes if p.racer.kind == kind), None) for kind in ("loader", "gather"))
    columns = {"samples/s": 11, "x DataLoader": 14, "x gathered": 12, "goal": 7, "per CPU s": 11, "x DataLoader ": 14}
    columns |= {"first turn, s": 15, "best, s": 9, "val. loss": 11}
    print(f"{'':36}" + "".join(f"{name.strip():>{width}}" for name, width in columns.items()))
    missed = []
    for process in processes:
        racer = process.racer
        goal = GOALS.get((racer.batch_size, racer.kind)) if racer.turn == "epoch" else None
        by_name = named.seconds / process.seconds if named else float("nan")
        values = (
            f"{n_samples / process.seconds:,.0f}",
            f"{by_name:.2f}" if named else "-",
            f"{fastest.seconds / process.seconds:.2f}" if fastest else "-",
            str(goal or ""),
            f"{n_samples / process.cpu_seconds:,.0f}",
            f"{named.cpu_seconds / process.cpu_seconds:.2f}" if named else "-",
            f"{process.turns[0]['seconds']:.2f}",
            f"{process.seconds:.2f}",
            f"{process.validation_loss:.4f}",
        )
        print(f"{racer.title:36}" + "".join(f"{v:>{width}}" for v, width in zip(values, columns.values(), strict=True)))
        if goal and by_name < goal:
            missed.append(f"{racer.title} at batch {racer.batch_size}: {by_name:.2f}, goal {goal}")
    losses = [process.validation_loss for process in processes]
    differ = max(losses) / min(losses) - 1
    print(f"validation losses differ by {differ:.1%} at most")
    if differ > LOSSES_AGREE:
        raise SystemExit(f"FAILED: the sides do not reach the same validation loss (allowed {LOSSES_AGREE:.0%}).")
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, help="training vectors of the large race")
    parser.add_argument("--epochs", type=int, default=4, help="of the large race; also trainings of the small one")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[512, 16], help="of the large race")
    parser.add_argument("--no-small", action="store_true", help="leave out the small fits")
    flags = parser.parse_args()
    rows = flags.rows or (16_000 if flags.quick else 100_000)
    if flags.epochs < 1 or rows < 100 or min(flags.batch_sizes) < 1:
        parser.error("--rows must be at least 100, --epochs and --batch-sizes at least 1")
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "keras", "tensorflow")}
    versions |= {name: importlib.metadata.version(name) for name in ("torch", "jax") if is_installed(name)}
    print("python", platform.python_version(), "biascxr", biascxr.__version__, *(f"{k} {v}" for k, v in versions.items()))
    for name in ("torch", "jax"):
        if not is_installed(name):
            print(f"{name} is not installed and its part is left out: pip install {name}")

    missed, n_goals = [], 0
    with tempfile.TemporaryDirectory() as name:
        folder, small = Path(name) / "large", Path(name) / "small"
        for made in (folder, small):
            made.mkdir()
        write_vectors(folder, rows, 1376, 14, n_validation=max(500, rows // 10))
        write_vectors(small, 5_000, 64, 5, n_validation=1_500)
        sleep = is_installed("torch") and sleeping_threads_are_faster(small, batch_size=512)
        print(machine(), "; PyTorch's idle threads sleep, which was faster in a trial" if sleep else "", sep="")
        for batch_size in flags.batch_sizes:
            print(f"\n1376-512-256-14, {rows:,} vectors in memory, batch {batch_size}, {flags.epochs} epochs")
            processes = race(racers(folder, threads_sleep=sleep, batch_size=batch_size, epochs=flags.epochs), flags.epochs)
            missed += show(processes, rows)
            n_goals += sum((batch_size, process.racer.kind) in GOALS for process in processes)
        if not flags.no_small:
            print(f"\n64-64-5, 5,000 vectors, batch {SMALL_FIT['batch_size']}, {SMALL_FIT['epochs']} epochs: whole fits")
            processes = race(racers(small, threads_sleep=sleep, **SMALL_FIT), flags.epochs)
            show(processes, 5_000 * SMALL_FIT["epochs"])
    if is_installed("torch") and n_goals:
        print(f"\n{n_goals - len(missed)} of {n_goals} goals are reached; NOT reached: {'; '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()
