"""All that SIGKILL can leave of a piece of work in a folder, and whether the work goes on from there to the same files.

A kill leaves what stands in the folder at that moment. So the work is done once with a look at the folder before each of its
changes (a file opened for writing, renamed, cut or removed): these are the states that a kill leaves, and, where a file was
opened, the same with nothing and with half of it written. From each state it is done again, with states of its own, until no
new one comes: all sequences of kills, however long.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

CHANGES = ("os.rename", "os.link", "os.truncate", "os.remove", "os.mkdir", "os.rmdir", "os.pwrite")

State = dict[str, bytes | None]  # path within the folder -> content; None for a folder


class Moment(NamedTuple):
    """Before a change: what stands, which file is opened for writing, and how many bytes of it stay."""

    state: State
    opened: str | None = None
    n_kept: int = 0


def taken(folder: Path) -> State:
    """Returns the state of the folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def restore(state: State, folder: Path) -> None:
    """Brings the folder to a state."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for name, content in state.items():
        (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)


def key(state: State) -> tuple:
    """Returns what two states must differ in to be two: neither drawn names, nor what is thrown away, nor seconds."""
    plain = {}
    for name, content in state.items():
        if name.endswith("manifest.json"):
            content = re.sub(rb'"seconds": [\d.]+', b"", content)
        plain[re.sub(r"[0-9a-f]{12}\.tmp$", "tmp", name)] = b"" if name.endswith(".tmp") else content
    return tuple(sorted(plain.items()))


def watch(folder: Path) -> list[Moment]:
    """Returns a list to which each change that this process makes adds the moment before it."""
    moments: list[Moment] = []
    is_looking = False

    def look(event, args):
        nonlocal is_looking
        writes = event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if is_looking or not (writes or event in CHANGES):
            return
        is_looking = True
        moment = Moment(taken(folder))
        if writes and not os.path.relpath(args[0], folder).startswith(".."):
            opened = os.path.relpath(args[0], folder)
            moment = Moment(moment.state, opened, 0 if args[2] & os.O_TRUNC else len(moment.state.get(opened) or b""))
        moments.append(moment)
        is_looking = False

    sys.addaudithook(look)
    return moments


def live(work: Callable[[], object], folder: Path) -> tuple[str, list[Moment]]:
    """Does the work in a process of its own; returns what stopped it (the last of its error), and its moments."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        moments, error = watch(folder), ""
        try:
            work()
        except BaseException:
            error = traceback.format_exc(limit=-2)
        told = [*moments, Moment(taken(folder))]  # a copy: the watch goes on, and sees the pipe opened
        with open(write, "wb") as file:
            pickle.dump((error, told), file)
        os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        told = pickle.load(file)
    os.waitpid(child, 0)
    return told


def left_by_a_kill(moments: list[Moment]) -> Iterator[tuple[State, str]]:
    """Yields the states that kills leave, each with its moment in words."""
    for number, (state, opened, n_kept) in enumerate(moments[:-1]):
        yield state, f"before change {number + 1} of {len(moments) - 1}"
        after = moments[number + 1].state
        written = None if opened is None else after.get(opened)
        if written is not None and len(written) > n_kept:
            yield after | {opened: written[:n_kept]}, f"nothing of {opened} written"
            yield after | {opened: written[: (n_kept + len(written)) // 2]}, f"half of {opened} written"
    yield moments[-1].state, "at the end"


def die_everywhere(works: Sequence[Callable[[], object]], folder: Path) -> tuple[list[str], int]:
    """Tries every sequence of kills.

    Args:
        works: what is done, from whatever stands in the folder; each time in a process of its own, forked from this one, which
            must not have started TensorFlow. Where there are several, any of them may come after any.
        folder: where, empty.

    Returns:
        What went wrong, one line for each state from which a work does not come to what it gives undisturbed; and the number of
        states.
    """
    expected: list[tuple] = []
    waiting: list[tuple[State, str]] = [({}, "")]
    seen, wrong = {key({})}, []
    for state, story in waiting:
        for number, work in enumerate(works):
            restore(state, folder)
            error, moments = live(work, folder)
            found = key(moments[-1].state)
            if not state:
                expected.append(found)
            if error or found != expected[number]:
                names = sorted({name for name, _ in set(found) ^ set(expected[number])})
                wrong.append(f"{story}, then work {number}: {error or f'other files: {names}'}")
                continue
            for left, moment in left_by_a_kill(moments):
                if key(left) not in seen:
                    seen.add(key(left))
                    waiting.append((left, f"{story}; work {number}, {moment}".lstrip("; ")))
    return wrong, len(seen)
