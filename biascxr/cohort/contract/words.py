"""How findings are worded: counts that the report can hide when they are small, and a few examples."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

N_EXAMPLES = 5
PLURALS = {"study": "studies"}


def counted(n: int, noun: str) -> str:
    """Returns `"1 image"`, `"2,300 images"`: digits before the noun, the form in which the report hides one to nine."""
    return f"{n:,} {noun if n == 1 else PLURALS.get(noun, noun + 's')}"


def some(values: Iterable[object]) -> tuple[str, ...]:
    """Returns the first few as texts, for the person at the machine."""
    return tuple(str(value) for value in islice(values, N_EXAMPLES))


def percent(share: float) -> str:
    """Returns a share in per cent with one digit; a small one is not rounded to nothing."""
    return "under 0.1%" if share < 0.001 else f"{share:.1%}"
