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


def disagreement(processes: list[Process]) -> float:
    """Returns by which share the validation losses differ."""
    losses = [process.validation_loss for process in processes]
    return max(losses) / min(losses) - 1


def show(processes: list[Process], n_samples: int, what: str) -> list[str]:
    """Prints one race; returns the goals that were not reached."""
    peer = next((p for p in processes if p.racer.kind == "loader"), None)
    best = next((p for p in processes if p.racer.kind == "gather"), None)
    print(f"{'':36}{'samples/s':>11}{'x DataLoader':>14}{'x fastest':>11}{'goal':>7}{'per CPU s':>11}{'x DataLoader':>14}{what:>14}{'val. loss':>11}")
    missed = []
    for process in processes:
        racer = process.racer
        goal = GOALS.get((racer.batch_size, racer.kind)) if racer.turn == "epoch" else None
        cells = [f"{n_samples / process.seconds:11,.0f}"]
        cells += [f"{other.seconds / process.seconds:{w}.2f}" if other else " " * w for other, w in ((peer, 14), (best, 11))]
        cells += [f"{goal or '':>7}", f"{n_samples / process.cpu_seconds:11,.0f}"]
        cells += [f"{peer.cpu_seconds / process.cpu_seconds:14.2f}" if peer else " " * 14]
        first = process.turns[0]["seconds"] if racer.turn == "epoch" else process.seconds
        print(f"{racer.title:36}{''.join(cells)}{first:14.2f}{process.validation_loss:11.4f}")
        if goal and peer and peer.seconds / process.seconds < goal:
            missed.append(f"{racer.title} at batch {racer.batch_size}: {peer.seconds / process.seconds:.2f}, goal {goal}")
    differ = disagreement(processes)
    print(f"validation losses differ by {differ:.1%} at most")
    if differ > LOSSES_AGREE:
        raise SystemExit(f"FAILED: the sides do not reach the same validation loss (allowed {LOSSES_AGREE:.0%}).")
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, help="training vectors of the large race")
    parser.add_argument("--epochs", type=int, default=4, help="of the large race; also trainings of the small one")
    flags = parser.parse_args()
    rows = flags.rows or (16_000 if flags.quick else 100_000)
    if flags.epochs < 1 or rows < 100:
        parser.error("--rows must be at least 100 and --epochs at least 1")
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "keras", "tensorflow")}
    versions |= {name: importlib.metadata.version(name) for name in ("torch", "jax") if is_installed(name)}
    print("python", platform.python_version(), "biascxr", biascxr.__version__, *(f"{k} {v}" for k, v in versions.items()))
    for name in ("torch", "jax"):
        if not is_installed(name):
            print(f"{name} is not installed and its part is left out: pip install {name}")

    missed = []
    with tempfile.TemporaryDirectory() as name:
        folder, small = Path(name) / "large", Path(name) / "small"
        for made in (folder, small):
            made.mkdir()
        write_vectors(folder, rows, 1376, 14, n_validation=max(500, rows // 10))
        write_vectors(small, 5_000, 64, 5, n_validation=1_500)
        sleep = is_installed("torch") and sleeping_threads_are_faster(small)
        print(machine(), f"; PyTorch's idle threads {'sleep' if sleep else 'stay awake'}, which was faster in a trial", sep="")
        for batch_size in (512, 16):
            print(f"\n1376-512-256-14, {rows:,} vectors in memory, batch {batch_size}, {flags.epochs} epochs")
            processes = race(racers(folder, threads_sleep=sleep, batch_size=batch_size, epochs=flags.epochs), flags.epochs)
            missed += show(processes, rows, "first epoch, s")
        print(f"\n64-64-5, 5,000 vectors, batch {SMALL_FIT['batch_size']}, {SMALL_FIT['epochs']} epochs: whole fits")
        processes = race(racers(small, threads_sleep=sleep, **SMALL_FIT), flags.epochs)
        show(processes, 5_000 * SMALL_FIT["epochs"], "a fit, s")
    if is_installed("torch"):
        print("\nall goals are reached" if not missed else "\ngoals that are NOT reached: " + "; ".join(missed))


if __name__ == "__main__":
    main()
