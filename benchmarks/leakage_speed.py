"""How fast are the leakage probes beside scikit-learn's, and do they give the same answers?

    python benchmarks/leakage_speed.py             # 100,000 vectors of 1,024: a quarter of an hour on two quiet cores
    python benchmarks/leakage_speed.py --quick     # 20,000 vectors of 1,024: two minutes
    python benchmarks/leakage_speed.py --memory    # 200,000 vectors of 1,376, each probe in a process of its own: peak memory

Nearest neighbours: the 50 nearest of 5,000 queries, beside `NearestNeighbors(algorithm="brute")` on the same float32 vectors
(it multiplies in float64). Logistic regression: one penalty from zero, beside `LogisticRegression` (float64, L-BFGS, tol 1e-4,
its default), on vectors whose columns are correlated, as an encoder's are, and on independent ones, where scikit-learn needs no
more than five steps; to convert to float64 is not counted. Turns are interleaved and the median counts. Beside the seconds
stand those of the processor, of all threads, which other work on the machine changes less. With `OMP_NUM_THREADS=1
NUMBA_NUM_THREADS=1` both sides take one core.

The goals: neighbours at least 1.8 times as fast and identical; logistic regression at least 1.7 times as fast, its objective at
most 1e-6 above scikit-learn's (relative), AUROC on other rows within 1e-3; 200,000 vectors of 1,376 within 12 GB.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import special

import biascxr
from biascxr.leakage.logistic import LogisticFit, fit_logistic
from biascxr.leakage.nearest import nearest_neighbours
from biascxr.metrics import auroc

D, NEIGHBOURS = 1024, 50
BIG_N, BIG_D = 200_000, 1376
GOAL_NEAREST, GOAL_LOGISTIC, GOAL_OBJECTIVE, GOAL_AUROC, GOAL_GB = 1.8, 1.7, 1e-6, 1e-3, 12.0
REACHED = {True: "reached", False: "NOT reached"}


@dataclass(frozen=True)
class Turn:
    """What one side took in one turn, in seconds of the clock and of the processor, and what it found."""

    seconds: float
    cpu_seconds: float
    found: object


def turn(work: Callable[[], object]) -> Turn:
    start, cpu = time.perf_counter(), time.process_time()
    found = work()
    return Turn(time.perf_counter() - start, time.process_time() - cpu, found)


def race(title: str, sides: dict[str, Callable[[], object]], turns: int, goal: float) -> dict[str, object]:
    """Runs two sides in turns, prints their medians and ratio, and returns what each found last."""
    taken = {name: [] for name in sides}
    for _ in range(turns):
        for name, work in sides.items():
            taken[name].append(turn(work))
    medians = {name: np.median([(t.seconds, t.cpu_seconds) for t in own], axis=0) for name, own in taken.items()}
    own, theirs = medians["biascxr"], medians["scikit-learn"]
    ratio, cpu_ratio = theirs / own
    print(f"\n{title}\n{'':16}{'seconds':>10}{'CPU seconds':>14}")
    for name, (seconds, cpu) in medians.items():
        print(f"{name:16}{seconds:10.2f}{cpu:14.2f}")
    is_reached = REACHED[bool(ratio >= goal)]
    print(f"{ratio:.2f} times as fast, {cpu_ratio:.2f} by CPU seconds (goal {goal:g}): {is_reached}", flush=True)
    return {name: own[-1].found for name, own in taken.items()}


def race_nearest(n: int, n_queries: int, turns: int) -> bool:
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    train = rng.standard_normal((n, D), dtype=np.float32)
    queries = rng.standard_normal((n_queries, D), dtype=np.float32)
    nearest_neighbours(train[:500], queries[:20], 5, is_always_searched_in_float32=True)  # compiles
    peer = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(train)
    sides = {
        "biascxr": lambda: nearest_neighbours(train, queries, NEIGHBOURS, is_always_searched_in_float32=True),
        "scikit-learn": lambda: peer.kneighbors(queries, return_distance=False),
    }
    title = f"the {NEIGHBOURS} nearest of {n:,} vectors of {D:,}, {n_queries:,} queries"
    found = race(title, sides, turns, GOAL_NEAREST)
    is_same = np.array_equal(found["biascxr"], found["scikit-learn"])
    print(f"identical neighbours: {'yes' if is_same else 'NO'}")
    return is_same


def made_up(n: int, d: int, k: int, is_correlated: bool) -> tuple[np.ndarray, np.ndarray]:
    """Vectors `[n, d] float32` of columns with deviation 1, and groups that depend on them."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, d), dtype=np.float32)
    if is_correlated:
        mix = rng.standard_normal((d, d), dtype=np.float32) * (np.arange(1, d + 1, dtype=np.float32) ** -0.75)[:, None]
        for start in range(0, n, 10_000):
            x[start : start + 10_000] = x[start : start + 10_000] @ mix
        x /= x.std(0)
    logits = x @ (rng.standard_normal((d, k), dtype=np.float32) / np.sqrt(d).astype(np.float32))
    return x, (logits + 1.5 * rng.gumbel(size=(n, k))).argmax(1)


def objective(x: np.ndarray, codes: np.ndarray, fit: LogisticFit, inverse_penalty: float) -> float:
    """Scikit-learn's objective in float64, by its definition."""
    logits = x @ fit.coefficients.T + fit.intercept
    logits = np.hstack([np.zeros_like(logits), logits]) if logits.shape[1] == 1 else logits
    losses = special.logsumexp(logits, axis=1) - logits[np.arange(len(codes)), codes]
    return losses.mean() + np.sum(fit.coefficients**2) / (2 * inverse_penalty * len(codes))


def race_logistic(n: int, k: int, inverse_penalty: float, is_correlated: bool, turns: int) -> bool:
    from sklearn.linear_model import LogisticRegression

    x, codes = made_up(n + n // 4, D, k, is_correlated)
    train, test, learnt, judged = x[:n], x[n:], codes[:n], codes[n:]
    fit_logistic(train[:6000], learnt[:6000], [1.0])  # compiles
    double = train.astype(np.float64)

    def peer() -> LogisticFit:
        model = LogisticRegression(C=inverse_penalty, max_iter=5000).fit(double, learnt)
        return LogisticFit(model.coef_, model.intercept_, float("nan"), int(np.max(model.n_iter_)), True)

    kind = "correlated" if is_correlated else "independent"
    title = f"logistic regression, {n:,} vectors of {D:,}, {kind} columns, {k} groups, C = {inverse_penalty:g}"
    sides = {"biascxr": lambda: fit_logistic(train, learnt, [inverse_penalty])[0], "scikit-learn": peer}
    found = race(title, sides, turns, GOAL_LOGISTIC)
    values = {name: objective(double, learnt, fit, inverse_penalty) for name, fit in found.items()}
    above = values["biascxr"] / values["scikit-learn"] - 1
    aurocs = []  # [side, group]
    for fit in found.values():
        scores = fit.probabilities(test)
        aurocs.append([auroc((judged == g).astype(float), scores[:, g]) for g in range(k)])
    apart = np.abs(np.subtract(*aurocs)).max()
    is_same = above <= GOAL_OBJECTIVE and apart <= GOAL_AUROC
    steps = [fit.n_steps for fit in found.values()]
    equal = "equal" if is_same else "NOT equal"
    print(
        f"steps {steps[0]} and {steps[1]}; objective {above:+.1e} relative to scikit-learn's, AUROC {apart:.1e} apart: {equal}"
    )
    return is_same


def race_memory() -> bool:
    is_reached = True
    for probe in ("knn", "logistic"):
        command = [sys.executable, __file__, "--peak", probe]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        gb, seconds = float(said[0]), float(said[1])
        is_reached = is_reached and gb <= GOAL_GB
        print(f"{probe}: peak of resident memory {gb:.2f} GB, vectors included, {seconds:.0f} s (goal {GOAL_GB:g} GB): "
              f"{REACHED[gb <= GOAL_GB]}", flush=True)  # fmt: skip
    return is_reached


def print_peak(probe: str) -> None:
    """Prints the peak of resident memory in GB and the seconds of one probe on `BIG_N` vectors of `BIG_D`."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BIG_N, BIG_D), dtype=np.float32)
    x[:, 1] += 2 * x[:, 0]
    x[:, 2:64] += 3 * x[:, :1]  # uneven enough that all steps of the search for axes are taken
    codes = (x[:, 0] + rng.logistic(size=BIG_N) > 0).astype(np.int64)
    start = time.perf_counter()
    if probe == "knn":
        nearest_neighbours(x, x[:2000], NEIGHBOURS)
    else:
        fit_logistic(x, codes, [0.01, 0.0001, 0.001, 0.1, 1.0])
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9
    print(f"{peak:.3f} {time.perf_counter() - start:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", action="store_true", help="peak memory only")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peak", choices=("knn", "logistic"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.peak:
        print_peak(flags.peak)
        return
    if flags.turns < 1:
        parser.error("--turns must be at least 1")
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scipy", "numba", "scikit-learn"))
    print("python", platform.python_version(), "biascxr", biascxr.__version__, *versions)
    threads = {name: os.environ.get(name, "not set") for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, {threads}", flush=True)
    if flags.memory:
        is_right = race_memory()
    else:
        n, n_queries = (20_000, 2_000) if flags.quick else (100_000, 5_000)
        is_right = race_nearest(n, n_queries, flags.turns)
        cases = [(2, 0.01, True), (2, 0.01, False)]
        if not flags.quick:
            cases += [(2, 0.0001, True), (4, 0.01, True)]
        for k, inverse_penalty, is_correlated in cases:
            is_right = race_logistic(n, k, inverse_penalty, is_correlated, flags.turns) and is_right
    if not is_right:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
