"""Cells of crossed attributes (race x sex x age group), numbered once and recognised again in other rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN
from biascxr.errors import InputError

CROSSED, JOINED = " x ", " / "


@dataclass(frozen=True)
class Cells:
    """The cells there are.

    Attributes:
        attributes: the crossed attributes.
        names: of the cells, sorted: `"BLACK / F"`.
    """

    attributes: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, table: pd.DataFrame, attributes: tuple[str, ...]) -> Cells:
        """Finds the cells of these attributes' known values in a table; attributes it does not have are left out.

        Raises:
            InputError: an attribute's name holds the text that joins names of crossings.
        """
        used = tuple(a for a in attributes if a in table)
        named = [a for a in used if CROSSED in a]
        if named and len(used) > 1:
            raise InputError(f"Attribute {named[0]!r} cannot be crossed with others: its name holds {CROSSED!r} itself.")
        text, known = _cell_texts(table, used)
        return cls(used, tuple(sorted(set(text[known]))))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def title(self) -> str:
        """The crossing's name, `"race x sex"`."""
        return CROSSED.join(self.attributes)

    def codes(self, table: pd.DataFrame) -> np.ndarray:
        """Returns each row's cell, `[n] int64`; -1 where an attribute is unknown or not in the table, or the cell is new."""
        if not self.names or not set(self.attributes) <= set(table):
            return np.full(len(table), -1)
        text, known = _cell_texts(table, self.attributes)
        return np.where(known, pd.Index(self.names).get_indexer(text), -1)


def _cell_texts(table: pd.DataFrame, attributes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    if not attributes or len(table) == 0:
        return np.full(len(table), "", object), np.zeros(len(table), bool)
    columns = [table[a].astype(str) for a in attributes]
    if len(columns) > 1:  # "A / B" crossed with "C" is not "A" crossed with "B / C"
        columns = [c.str.replace(JOINED, " // ", regex=False) for c in columns]
    text = columns[0].str.cat(columns[1:], sep=JOINED) if len(columns) > 1 else columns[0]
    known = np.logical_and.reduce([(c != UNKNOWN).to_numpy(bool) for c in columns])
    return text.to_numpy(object), known


def chosen_attributes(method: str, wanted: tuple[str, ...], available: list[str]) -> tuple[str, ...]:
    """Returns whose groups a method acts on.

    Args:
        method: its name, for the message.
        wanted: its setting; empty: race where the cohort has it, else the cohort's first attribute, else none.
        available: the cohort's attributes.

    Raises:
        InputError: an attribute that the cohort does not have.
    """
    missing = [a for a in wanted if a not in available]
    if missing:
        raise InputError(f"{method}.attributes={list(wanted)}: {missing[0]!r} is not an attribute of this cohort: {available}.")
    if wanted or not available:
        return tuple(wanted)
    return ("race",) if "race" in available else (available[0],)
