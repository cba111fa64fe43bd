"""Runs `biascxr` again and again in the same folder, each life killed at a step of its own with its whole process group.

A step is the opening, renaming or removing of a file of the embeddings stage, by whichever process of the life: a moment that
is the same on every machine. Lives are forked from a process that has imported what they need, which would take each of them
longer than its work.

    python lives.py FOLDER SEED N_KILLS FLAGS...

writes FOLDER/undisturbed and FOLDER/killed, runs with these flags, and prints as JSON what came of each life.
"""

import importlib
import json
import os
import random
import shutil
import signal
import sys
import threading
from itertools import pairwise
from multiprocessing import resource_tracker
from pathlib import Path

STAGE = "03_embeddings"
NEEDED = ("tensorflow", "keras", "biascxr.pipeline", "biascxr.records", "biascxr.embeddings.keras_file")
GRAPHS = ("tf2onnx", "onnx", "onnxruntime")
STEPS = ("open", "os.rename", "os.remove", "os.mkdir", "shutil.rmtree")


def watch(counter, last, seconds):
    """Ends the process group at its step number `last`, or with `seconds` that long after it, and before the next."""
    file = os.open(counter, os.O_WRONLY | os.O_APPEND)

    def die():
        os.killpg(os.getpgrp(), signal.SIGKILL)

    def look(event, args):
        if event not in STEPS or not any(STAGE in str(arg) for arg in args):
            return
        os.write(file, b".")  # its size is the number of steps of all processes of the life
        number = os.fstat(file).st_size
        if last is not None and number == last and seconds:
            threading.Timer(seconds, die).start()
        elif last is not None and number >= last:
            die()

    sys.addaudithook(look)


if "LIFE" in os.environ:  # a worker of the life imports this file too
    watch(*json.loads(os.environ["LIFE"]))


def live(flags, counter, last=None, seconds=0.0):
    """Returns how a life ended (minus the signal, or the exit status), and after how many steps."""
    from biascxr.cli import main

    counter.write_bytes(b"")
    child = os.fork()
    if child == 0:
        os.setsid()
        how = (str(counter), last, seconds)
        os.environ["LIFE"] = json.dumps(how)
        watch(*how)
        os._exit(main(flags))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), counter.stat().st_size


def finished(run):
    """Returns the number of parts that a stopped stage holds; -1 where they were put together."""
    folder = next(run.glob(f"*{STAGE}*"), None)
    names = [path.name for path in folder.rglob("*")] if folder else []
    return -1 if {"keys.npy", "vectors.npy"} <= set(names) else sum(name.endswith(".npz") for name in names)


def main():
    flags = sys.argv[4:]
    for name in NEEDED + GRAPHS * ("onnxruntime" in flags):
        importlib.import_module(name)
    resource_tracker.ensure_running()  # it removes the semaphores of killed pools: their own would be killed with them
    folder, seed, n_kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    undisturbed, killed, counter = folder / "undisturbed", folder / "killed", folder / "steps"
    end, n_steps = live([*flags, "--output_dir", str(undisturbed)], counter)
    lives = [{"end": end, "steps": n_steps, "finished": finished(undisturbed)}]
    shutil.copytree(undisturbed, killed, ignore=shutil.ignore_patterns(STAGE))
    rng = random.Random(seed)
    edges = [1 + n_steps * k // n_kills for k in range(n_kills + 1)]
    moments = [rng.randrange(begin, end) for begin, end in pairwise(edges)]  # one in each n-th part of the steps
    for number, last in enumerate([*moments, None]):
        end, steps = live([*flags, "--output_dir", str(killed)], counter, last, 0.0 if number % 2 else rng.uniform(0, 0.01))
        lives.append({"end": end, "steps": steps, "finished": finished(killed)})
    print(json.dumps(lives))


if __name__ == "__main__":
    main()
