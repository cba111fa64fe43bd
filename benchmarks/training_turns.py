"""Trainings that take turns: each in its own process, an epoch at a time, so that a busy machine is busy for all of them.

`training_speed.py` and `training_memory.py` are made of these. A racer is `biascxr.models.fit_head`, or a PyTorch loop
that trains the same network (initial weights of the same distribution, Adam 1e-3, binary cross-entropy), judges it on the
validation rows after each epoch and keeps its best weights, as `fit_head` does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

DROPOUT = 0.3
LEARNING_RATE = 1e-3
CHUNK = 10_000
LATENT = 32


@dataclass(frozen=True)
class Racer:
    """What a process trains.

    Attributes:
        title: its row in the table.
        kind: `tensorflow` or `jax` (biascxr on that backend), `loader` or `gather` (PyTorch).
        folder: where `write_vectors` wrote.
        batch_size: rows a step.
        epochs: passes, one a turn.
        hidden: units of the hidden layers.
        is_mapped: whether the training vectors stay on disk.
        threads_sleep: whether PyTorch's idle threads sleep; awake they are faster on a free machine and thirty times as slow on
            a busy one.
        turn: `epoch`, or `fit` for a whole training a turn.
    """

    title: str
    kind: str
    folder: str
    batch_size: int
    epochs: int
    hidden: tuple[int, ...] = (512, 256)
    is_mapped: bool = False
    threads_sleep: bool = False
    turn: str = "epoch"


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def write_vectors(folder: Path, n_rows: int, n_features: int, n_labels: int, *, n_validation: int, seed: int = 0) -> None:
    """Writes made-up vectors and labels, piece by piece: labels follow a few directions of the vectors, with noise."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(LATENT, n_features)).astype(np.float32) / 2
    directions = rng.normal(size=(LATENT, n_labels)) / np.sqrt(LATENT) * 1.5
    for name, n in (("train", n_rows), ("validation", n_validation)):
        vectors = np.lib.format.open_memmap(folder / f"{name}_vectors.npy", "w+", np.float32, (n, n_features))
        labels = np.empty((n, n_labels), np.float32)
        for start in range(0, n, CHUNK):
            latent = rng.normal(size=(min(CHUNK, n - start), LATENT)).astype(np.float32)
            noise = rng.standard_normal((len(latent), n_features), np.float32)
            vectors[start : start + CHUNK] = latent @ loadings + noise
            chance = 1 / (1 + np.exp(1.5 - latent @ directions))
            labels[start : start + CHUNK] = rng.random(chance.shape) < chance
        vectors.flush()
        np.save(folder / f"{name}_labels.npy", labels)


def read_rows(racer: Racer, name: str) -> tuple[np.ndarray, np.ndarray]:
    is_mapped = racer.is_mapped and name == "train"
    vectors = np.load(Path(racer.folder) / f"{name}_vectors.npy", mmap_mode="r" if is_mapped else None)
    return vectors, np.load(Path(racer.folder) / f"{name}_labels.npy")


# In the process of a racer ------------------------------------------------------------------------------------------------


def anonymous_gb() -> float:
    """Memory of this process that is not a file's."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024 / 1e9


class Turns:
    """Waits until it is this process's turn, and tells what the turn took."""

    def __init__(self) -> None:
        self.peak = anonymous_gb()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, anonymous_gb())
            time.sleep(0.02)

    def begin(self) -> None:
        if not sys.stdin.readline():
            os._exit(0)  # the race is over, wherever this training stands
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def end(self, validation_loss: float) -> None:
        seconds, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        told = {"seconds": seconds, "cpu": cpu, "validation_loss": validation_loss, "peak_gb": max(self.peak, anonymous_gb())}
        print(json.dumps(told), flush=True)


def race_biascxr(racer: Racer) -> None:
    """Trains with `fit_head`; a turn ends where the validation loss of an epoch is known."""
    import keras

    from biascxr.models import CRITERIA, FitSettings, HeadTrainer, Rows, build_mlp, fit_head

    train, validation = (
        Rows(vectors, labels, np.ones(len(labels), np.float32), np.full(len(labels), -1, np.int32))
        for vectors, labels in (read_rows(racer, name) for name in ("train", "validation"))
    )
    turns, plain_loss = Turns(), CRITERIA["loss"]

    def loss_that_ends_a_turn(*arguments: np.ndarray) -> float:
        loss = plain_loss(*arguments)
        turns.end(loss)
        turns.begin()
        return loss

    n_labels, seed = train.labels.shape[1], 0
    while True:
        turns.begin()
        keras.utils.set_random_seed(seed)
        history = fit_head(
            HeadTrainer(build_mlp(train.vectors.shape[1], n_labels, hidden=racer.hidden, dropout=DROPOUT)),
            train,
            validation,
            label_names=tuple(f"finding {i + 1}" for i in range(n_labels)),
            settings=FitSettings(LEARNING_RATE, racer.batch_size, max_epochs=racer.epochs, patience=racer.epochs),
            seed=seed,
            criterion=loss_that_ends_a_turn if racer.turn == "epoch" else plain_loss,
        )
        turns.end(history["val_loss"].min())
        seed += 1


def race_torch(racer: Racer) -> None:
    """Trains with PyTorch: `DataLoader` and Adam as they come, or rows gathered by index and Adam in one fused pass."""
    import copy

    import torch
    from torch.utils.data import DataLoader, TensorDataset

    (x, y), (x_validation, y_validation) = (
        tuple(torch.from_numpy(part) for part in read_rows(racer, name)) for name in ("train", "validation")
    )
    turns, is_gathered = Turns(), racer.kind == "gather"

    def network() -> torch.nn.Module:
        sizes, layers = [x.shape[1], *racer.hidden, y.shape[1]], []
        for n_in, n_out in pairwise(sizes):
            linear = torch.nn.Linear(n_in, n_out)
            torch.nn.init.xavier_uniform_(linear.weight)  # Keras's
            torch.nn.init.zeros_(linear.bias)
            layers += [linear, torch.nn.ReLU(), torch.nn.Dropout(DROPOUT)]
        return torch.nn.Sequential(*layers[:-2])

    loss_of = torch.nn.BCEWithLogitsLoss()
    seed = 0
    while True:
        if racer.turn == "fit":
            turns.begin()
        torch.manual_seed(seed)
        model, best, kept = network(), np.inf, None
        optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, eps=1e-7, fused=is_gathered)
        loader = DataLoader(TensorDataset(x, y), batch_size=racer.batch_size, shuffle=True)
        for _ in range(racer.epochs):
            if racer.turn == "epoch":
                turns.begin()
            model.train()
            batches = ((x[r], y[r]) for r in torch.randperm(len(x)).split(racer.batch_size)) if is_gathered else loader
            for x_batch, y_batch in batches:
                optimizer.zero_grad()
                loss_of(model(x_batch), y_batch).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                loss = loss_of(model(x_validation), y_validation).item()
            if loss < best:
                best, kept = loss, copy.deepcopy(model.state_dict())
            if racer.turn == "epoch":
                turns.end(loss)
        model.load_state_dict(kept)
        if racer.turn == "fit":
            turns.end(best)
        seed += 1


def run_racer(racer: Racer) -> None:
    import logging

    logging.disable(logging.WARNING)
    {"loader": race_torch, "gather": race_torch}.get(racer.kind, race_biascxr)(racer)


# In the process that holds the race ---------------------------------------------------------------------------------------


class Process:
    """A racer in its own process."""

    def __init__(self, racer: Racer) -> None:
        self.racer, self.turns = racer, []
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        if racer.kind in ("tensorflow", "jax"):
            environment["KERAS_BACKEND"] = racer.kind
        if racer.threads_sleep:
            environment["OMP_WAIT_POLICY"] = "PASSIVE"
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(asdict(racer))], text=True, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def take_turn(self) -> None:
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # told below, with the reason
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"FAILED: {self.racer.title}\n{self._process.communicate()[1]}")
        self.turns.append(json.loads(line))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def seconds(self) -> float:
        """Of its fastest turn."""
        return min(turn["seconds"] for turn in self.turns)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of its cheapest turn, all cores together."""
        return min(turn["cpu"] for turn in self.turns)

    @property
    def validation_loss(self) -> float:
        """Of its best epoch."""
        return min(turn["validation_loss"] for turn in self.turns)

    @property
    def peak_gb(self) -> float:
        return max(turn["peak_gb"] for turn in self.turns)


def race(racers: list[Racer], n_turns: int) -> list[Process]:
    """Lets the racers take turns and returns what each turn took."""
    processes = [Process(racer) for racer in racers]
    try:
        for _ in range(n_turns):
            for process in processes:
                process.take_turn()
    finally:
        for process in processes:
            process.close()
    return processes


def sleeping_threads_are_faster(folder: Path, *, batch_size: int) -> bool:
    """Whether PyTorch should let its idle threads sleep, on this machine as busy as it is now."""
    racers = [Racer("trial", "gather", str(folder), batch_size, 3, threads_sleep=sleeps) for sleeps in (False, True)]
    awake, asleep = race(racers, 3)
    return asleep.seconds < awake.seconds


def machine() -> str:
    load = os.getloadavg()[0]
    return f"{len(os.sched_getaffinity(0))} cores, load {load:.1f}" + (" before the race: BUSY" if load > 0.5 else "")


if __name__ == "__main__":
    described = json.loads(sys.argv[1])
    run_racer(Racer(**described | {"hidden": tuple(described["hidden"])}))
