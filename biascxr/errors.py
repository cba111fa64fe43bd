"""Errors that a user can act on: what was expected, what was received, what to do."""

from __future__ import annotations

import difflib
import functools
import os
import select
import sys
from collections.abc import Callable, Iterable
from typing import TextIO

READER_GONE = 141  # what a shell says of a program that SIGPIPE ended: 128 + 13


class InputError(ValueError):
    """Something the user gave cannot be used. The command line prints its message without a traceback and exits with 2.

    Args:
        message: what is wrong and what to do; it also goes into the log, so it names no patient, study or image.
        examples: a few identifiers or paths for the person at the machine; printed, never logged.
    """

    def __init__(self, message: str = "", *, examples: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.examples = tuple(examples)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Returns the error for an unknown name: the nearest known one first, then all of them.

    Args:
        kind: what the name was meant to be, for instance `"recipe part"`.
        name: the name received.
        known: the names that would have been accepted.
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return InputError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")


def ends_with_its_reader(command: Callable[..., int]) -> Callable[..., int]:
    """Makes a command end quietly, with status 141, once nobody reads what it prints: `biascxr inspect FILE | head -1`.

    Any other broken pipe, as of a connection, stays an error.

    Args:
        command: returns its exit status, or raises SystemExit.
    """

    @functools.wraps(command)
    def run(*args, **kwargs) -> int:
        try:
            try:
                status = command(*args, **kwargs)
            except SystemExit:  # --help
                _flush(sys.stdout)
                raise
            _flush(sys.stdout)  # what its buffer still holds; else Python would try, and complain, at its end
            return status
        except BrokenPipeError:
            unread = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
            if not unread:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in unread:
                os.dup2(nowhere, stream.fileno())
            return READER_GONE

    return run


def _flush(stream: TextIO | None) -> None:
    if hasattr(stream, "flush"):  # it is None where the shell closed it
        stream.flush()


def _has_no_reader(stream: TextIO | None) -> bool:
    try:
        number = stream.fileno()
    except (AttributeError, OSError, ValueError):  # none, or a stand-in without a descriptor, as of a notebook
        return False
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(number, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
