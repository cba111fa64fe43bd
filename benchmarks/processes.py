"""What a command and all that it starts take, looked up while it runs in /proc of Linux."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

EVERY_SECONDS = 0.1


@dataclass(frozen=True)
class Taken:
    """What a command took.

    Attributes:
        seconds: by the clock, starts and imports included.
        peak_mb: largest sum, over its processes, of their anonymous memory (RssAnon): pages of mapped files, which the system
            takes back when it needs them, are not in it.
    """

    seconds: float
    peak_mb: float


def descendants(root: int | None = None) -> list[int]:
    """A process, this one by default, and all that it has started."""
    found = [os.getpid() if root is None else root]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found.extend(int(child) for child in task.read_text().split())
            except OSError:
                continue
    return found


def anonymous_mb(process: int) -> float:
    """A process's anonymous memory; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def watched(command: list[str], log: Path) -> Taken:
    """Runs a command to its end, what it says into a file; a failure ends the benchmark with the last lines of it."""
    start, peak = time.perf_counter(), 0.0
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
        while process.poll() is None:
            peak = max(peak, sum(anonymous_mb(one) for one in descendants(process.pid)))
            time.sleep(EVERY_SECONDS)
    if process.returncode:
        raise SystemExit(f"FAILED: {' '.join(command)}\n{log.read_text()[-3000:]}")
    return Taken(time.perf_counter() - start, peak)
