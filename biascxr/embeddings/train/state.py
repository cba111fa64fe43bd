"""The state of a training after an epoch, on disk: what the next epoch needs, whole or not at all.

Keras's `BackupAndRestore` does not do: it writes weights and epoch number into two files in place, so that a kill between them,
or in one, leaves weights of one epoch under the number of another or a broken file; and it does not hold the best weights so
far and the epochs' history.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import keras
import numpy as np

from biascxr.errors import InputError

STATE, BEST = "state.npz", "best_{}.npz"


class TrainingState:
    """Saves and restores a model, its optimizer, the best weights so far and the history.

    Args:
        folder: where; made if it is not there.
        settings: everything that decides the result, plain JSON types. A state with others is not gone on from.
    """

    def __init__(self, folder: Path, settings: dict) -> None:
        self._folder = Path(folder)
        self._settings = json.loads(json.dumps(settings))

    def exists(self) -> bool:
        """Whether there is a state to go on from."""
        return (self._folder / STATE).is_file()

    def check(self) -> None:
        """Raises InputError, naming what differs, for a state with other settings."""
        stored = self._about()["settings"]
        if stored != self._settings:
            raise InputError(
                f"{self._folder} holds an unfinished training with other settings ({differences(stored, self._settings)}). "
                "Give the same flags to go on with it, another --output, or --overwrite to begin anew."
            )

    def is_of_these_settings(self) -> bool:
        """Returns whether `check` would let it be gone on with."""
        try:
            self.check()
        except InputError:
            return False
        return True

    def discard(self) -> None:
        """Deletes the state."""
        for path in (self._folder / STATE, *self._folder.glob(BEST.format("*")), *self._folder.glob("*.npz.tmp")):
            path.unlink(missing_ok=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def save(self, model: keras.Model, history: list[dict], best_epoch: int) -> None:
        """Writes the state after the last epoch of `history`; a kill at any moment leaves the one before or this one.

        Args:
            model: compiled; its optimizer has variables.
            history: one row of plain numbers per epoch.
            best_epoch: number of the best one, from 1; if that is the last, the model's weights are kept as the best.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        best = self._folder / BEST.format(best_epoch)
        if best_epoch == len(history):
            _write(best, model.get_weights())
        about = {"settings": self._settings, "history": history, "best_epoch": best_epoch}
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        _write(self._folder / STATE, [text, *(keras.ops.convert_to_numpy(v) for v in _variables(model))])
        for older in self._folder.glob(BEST.format("*")):
            if older != best:
                older.unlink()

    def restore(self, model: keras.Model) -> list[dict]:
        """Brings a model, its optimizer and its random state to where they were; returns the history.

        Args:
            model: compiled, built as the saved one was.
        """
        with np.load(self._folder / STATE, allow_pickle=False) as stored:
            variables = _variables(model)
            for index, variable in enumerate(variables, start=1):
                variable.assign(stored[f"arr_{index}"])
        return self._about()["history"]

    def best_weights(self) -> tuple[int, list[np.ndarray]]:
        """Returns the best epoch, from 1, and its weights in the order of `model.get_weights()`."""
        epoch = self._about()["best_epoch"]
        with np.load(self._folder / BEST.format(epoch), allow_pickle=False) as stored:
            return epoch, [stored[f"arr_{i}"] for i in range(len(stored.files))]

    def _about(self) -> dict:
        with np.load(self._folder / STATE, allow_pickle=False) as stored:
            return json.loads(stored["arr_0"].tobytes())


def differences(stored: dict, given: dict) -> str:
    """Returns in words which settings differ, the two dicts flat but for dicts of versions."""
    names = [n for n in {**stored, **given} if stored.get(n) != given.get(n)]
    return "; ".join(f"{n}: {stored.get(n)} there, {given.get(n)} now" for n in names)


def _variables(model: keras.Model) -> list:
    """Returns weights, the state of dropout's draws, and the optimizer's variables."""
    return [*model.variables, *model.optimizer.variables]


def _write(path: Path, arrays: list[np.ndarray]) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "wb") as file:
        np.savez(file, *arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
