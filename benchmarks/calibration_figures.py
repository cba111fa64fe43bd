"""Shares of made-up worlds beside their targets, as the calibration benchmarks print them."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numba
import numpy as np
import scipy
import sklearn
from threadpoolctl import threadpool_limits

import biascxr

LEVEL = 0.05


@dataclass(frozen=True)
class Figure:
    """A share of worlds beside its target.

    Attributes:
        part: of the benchmark.
        setting: the worlds.
        what: what is counted.
        hits: `[worlds] bool`.
        target: the range that the share ought to be in; None where a known failure is shown.
    """

    part: str
    setting: str
    what: str
    hits: np.ndarray
    target: tuple[float, float] | None

    @property
    def error(self) -> float:
        """One Monte Carlo standard error."""
        share = (np.sum(self.hits) + 2) / (len(self.hits) + 4)  # Agresti and Coull: 0 of 10 worlds is not without error
        return float(np.sqrt(share * (1 - share) / len(self.hits)))

    @property
    def falls_short(self) -> bool:
        """Outside the target by more than two Monte Carlo errors."""
        if self.target is None:
            return False
        low, high = self.target
        return not low - 2 * self.error <= np.mean(self.hits) <= high + 2 * self.error

    def line(self) -> str:
        """Returns the line of the table."""
        beside = "shown, no target"
        if self.target is not None:
            beside = " to ".join(f"{100 * end:.1f}" for end in self.target)
        verdict = "FALLS SHORT" if self.falls_short else "" if self.target is None else "met"
        return (
            f"{self.part:9s} {self.setting:52s} {self.what:14s} {len(self.hits):5,d} worlds "
            f"{100 * np.mean(self.hits):5.1f} ± {100 * self.error:3.1f}"
            f"  {beside:16s}  {verdict}"
        )


def print_figures(
    title: str, about: str, parts: dict[str, Callable[[int, int], Iterator[Figure]]], arguments: list[str] | None, *, note: str
) -> int:
    """Runs parts of a benchmark on one thread and prints their figures; the command line chooses which, and how many worlds.

    Args:
        title: of the benchmark.
        about: its description; the first line is shown by `--help`.
        parts: name -> (worlds, seed) -> figures.
        arguments: of the command line; None reads it.
        note: settings worth a word in the first line.

    Returns:
        1 if a figure falls short, else 0.
    """
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("--worlds", type=int, default=1000, help="worlds of each setting")
    parser.add_argument("--quick", action="store_true", help="200 worlds")
    parser.add_argument("--part", default=",".join(parts), help=f"some of {', '.join(parts)}, joined by commas")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(arguments)
    wanted = flags.part.split(",")
    if flags.worlds < 1 or not set(wanted) <= set(parts):
        parser.error(f"--worlds must be at least 1 and --part some of {', '.join(parts)}.")
    n_worlds = 200 if flags.quick else flags.worlds
    threadpool_limits(1)
    numba.set_num_threads(1)
    print(
        f"{title}: {n_worlds} worlds a setting, fewer of some as said in the line, {note}, seed {flags.seed}, one thread\n"
        f"python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, scikit-learn "
        f"{sklearn.__version__}, biascxr {biascxr.__version__}\n"
        "percent of worlds ± Monte Carlo error; met: inside the target or within two errors of it",
        flush=True,
    )
    done, start = [], time.perf_counter()
    for part in wanted:
        for figure in parts[part](n_worlds, flags.seed):
            done.append(figure)
            print(figure.line(), flush=True)
        print(f"{time.perf_counter() - start:5.0f} s", flush=True)
    judged = [figure for figure in done if figure.target is not None]
    n_short = sum(figure.falls_short for figure in judged)
    print(f"{len(judged) - n_short} of {len(judged)} figures with a target are met")
    return int(n_short > 0)
