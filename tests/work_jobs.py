"""Jobs that do as they are told, for what works in parallel: here, since other processes import them by name."""

import os
import signal
import time
from dataclasses import dataclass

from biascxr.errors import InputError


@dataclass(frozen=True)
class Job:
    number: int
    seconds: float = 0.0
    act: str = ""


def do(job):
    time.sleep(job.seconds)
    if job.act == "refuse":
        raise InputError(f"job {job.number} cannot be done")
    if job.act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return job.number, os.getpid()


def write_one_row(key, sizes, methods, path):
    path.write_text(f"world\n{key.name}\n")
    return 0.0
