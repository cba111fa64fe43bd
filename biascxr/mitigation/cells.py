"""Cells of crossed attributes (race x sex x age group), numbered once and recognised again in other rows."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN
from biascxr.errors import InputError

CROSSED, JOINED = " x ", " / "
# Attributes that layouts have; one of these that a cohort lacks is left out, any other name is a mistake.
COMMON = ("sex", "race", "age_group", "ethnicity", "insurance", "portable")


@dataclass(frozen=True)
class Cells:
    """The cells there are.

    Attributes:
        attributes: the crossed attributes.
        names: of the cells, sorted: `"BLACK / F"`. In a crossing, a slash at the edge of a value or beside a blank is written
            `\\/`, so that no two cells share a name.
    """

    attributes: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, table: pd.DataFrame, attributes: tuple[str, ...]) -> Cells:
        """Finds the cells of these attributes' known values in a table; common attributes it does not have are left out.

        Raises:
            InputError: an attribute that the table does not have and that is none of `COMMON`, or whose name holds the text
                that joins names of crossings.
        """
        used = tuple(a for a in attributes if a in table)
        for name in attributes:
            if name not in table and name not in COMMON:
                raise InputError(f"{name!r} is not an attribute of this cohort: {list(table)}.")
            if CROSSED in name:
                raise InputError(f"Attribute {name!r} must be renamed: its name holds {CROSSED!r}, which joins names.")
        text, known = _cell_texts(table, used)
        return cls(used, tuple(sorted(set(text[known]))))

    @classmethod
    def named(cls, title: str, names: tuple[str, ...]) -> Cells:
        """Returns the cells of a `title` and `names` that were written down."""
        return cls(tuple(title.split(CROSSED)), names)

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

    def values(self) -> dict[str, set[str]]:
        """Returns per attribute the values that occur in the cells."""
        if len(self.attributes) == 1:
            return {self.attributes[0]: set(self.names)}
        parts = [[re.sub(r"\\(.)", r"\1", part) for part in name.split(JOINED)] for name in self.names]
        return {name: {own[i] for own in parts} for i, name in enumerate(self.attributes)}


def _cell_texts(table: pd.DataFrame, attributes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    if not attributes or len(table) == 0:
        return np.full(len(table), "", object), np.zeros(len(table), bool)
    columns = [table[a].astype(str) for a in attributes]
    known = np.logical_and.reduce([(c != UNKNOWN).to_numpy(bool) for c in columns])
    if len(columns) == 1:
        return columns[0].to_numpy(object), known
    columns = [c.map({value: _escaped(value) for value in c.unique()}) for c in columns]
    return columns[0].str.cat(columns[1:], sep=JOINED).to_numpy(object), known


def _escaped(value: str) -> str:
    """Marks what could be taken for the text between two values: `"A / B"` crossed with C is not A crossed with `"B / C"`."""
    return re.sub(r"(?<=\s)/|/(?=\s)|^/|/$", r"\/", value.replace("\\", "\\\\"))


def chosen_attributes(method: str, wanted: tuple[str, ...], available: list[str]) -> tuple[str, ...]:
    """Returns whose groups a method acts on.

    Args:
        method: its name, for the message.
        wanted: its setting; empty: race where the cohort has it, else the cohort's first attribute, else none. Of several, a
            common one that the cohort lacks is left out, so that one recipe serves cohorts with and without race.
        available: the cohort's attributes.

    Raises:
        InputError: an attribute that the cohort does not have and that is not common, or none of those wanted.
    """
    found = tuple(a for a in wanted if a in available)
    missing = [a for a in wanted if a not in available and (a not in COMMON or not found)]
    if missing:
        raise InputError(f"{method}.attributes={list(wanted)}: {missing[0]!r} is not an attribute of this cohort: {available}.")
    if wanted or not available:
        return found
    return ("race",) if "race" in available else (available[0],)
