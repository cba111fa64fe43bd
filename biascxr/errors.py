"""Errors that a user can act on: what was expected, what was received, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
