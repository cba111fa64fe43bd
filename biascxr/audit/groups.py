"""The groups that an audit compares: everyone, the known groups of each attribute and of crossings, and everyone else."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from biascxr.containers import Attribute, Predictions
from biascxr.errors import InputError, unknown_name

OVERALL, ALL = "overall", "all"
OTHERS = "everyone else"
CROSSING = " x "


@dataclass(frozen=True)
class Grouping:
    """Rows put into groups by one attribute, or by a crossing of attributes.

    Attributes:
        attribute: its name and groups.
        codes: `[n] int32`, the group of each row, -1 where it is unknown.
    """

    attribute: Attribute
    codes: np.ndarray


@dataclass(frozen=True)
class Groups:
    """All groups of an audit. A column is one of them; columns of "everyone else" follow those of the groups themselves.

    Attributes:
        groupings: the first has the one group of everyone.
    """

    groupings: tuple[Grouping, ...]
    _index: dict = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._index.update({name: column for column, name in enumerate(self.names)})

    @cached_property
    def names(self) -> tuple[tuple[str, str, bool], ...]:
        """`(attribute, group, is_others)` of each column."""
        own = [(g.attribute.name, group) for g in self.groupings for group in g.attribute.groups]
        return tuple((*name, False) for name in own) + tuple((*name, True) for name in own)

    @property
    def n_own(self) -> int:
        """Number of groups; there are twice as many columns."""
        return len(self.names) // 2

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The attributes and crossings compared, without the one of everyone."""
        return tuple(g.attribute for g in self.groupings[1:])

    def index(self, attribute: str, group: str, *, others: bool = False) -> int:
        """Returns the column of a group, or of everyone else of the same attribute whose group is known."""
        return self._index[(attribute, group, others)]

    def mask(self, column: int) -> np.ndarray:
        """Returns `[n] bool`, the rows of a column."""
        attribute, group, is_others = self.names[column]
        grouping = next(g for g in self.groupings if g.attribute.name == attribute)
        is_own = grouping.codes == grouping.attribute.groups.index(group)
        return (grouping.codes >= 0) & ~is_own if is_others else is_own


def find_groups(predictions: Predictions, attributes: tuple[Attribute, ...], crossings: tuple[str, ...] = ()) -> Groups:
    """Builds the groups of attributes and of their crossings. Rows with an unknown value are in no group of that attribute.

    Args:
        predictions: the rows.
        attributes: the attributes compared one by one.
        crossings: names such as `"race x sex"`, of attributes among the predictions'.

    Raises:
        InputError: a crossing names an attribute that is not there or one twice, or no row has a known value of each.
    """
    table = predictions.table
    groupings = [Grouping(Attribute(OVERALL, (ALL,), True), np.zeros(len(table), np.int32))]
    groupings += [Grouping(a, _codes(table[a.name], a.groups)) for a in attributes]
    known = {a.name: a for a in (*predictions.attributes, *attributes)}
    crossed = {grouping.attribute.name: grouping for grouping in (_cross(table, name, known) for name in crossings)}
    return Groups((*groupings, *crossed.values()))  # a crossing given twice is one


def _codes(values: pd.Series, groups: tuple[str, ...]) -> np.ndarray:
    text = values.astype(str)  # a CSV gives groups written as digits back as numbers
    return pd.Categorical(text, categories=list(groups)).codes.astype(np.int32)


def crossed_attributes(name: str, known: dict[str, Attribute]) -> list[Attribute]:
    """Returns the attributes that a crossing such as `"race x sex"` joins.

    Raises:
        InputError: one is not known, or there are not two different ones.
    """
    parts = [part.strip() for part in name.split(CROSSING)]
    for part in parts:
        if part not in known:
            raise unknown_name("attribute of a crossing", part, known)
    if len(parts) < 2 or len(set(parts)) < len(parts):
        raise InputError(f"A crossing joins two or more attributes, each once, for instance 'race x sex'; got {name!r}.")
    return [known[part] for part in parts]


def _cross(table: pd.DataFrame, name: str, known: dict[str, Attribute]) -> Grouping:
    attributes = crossed_attributes(name, known)
    parts = [a.name for a in attributes]
    codes = np.zeros(len(table), np.int64)
    is_known = np.ones(len(table), bool)
    for attribute in attributes:
        own = _codes(table[attribute.name], attribute.groups)
        is_known &= own >= 0
        codes = codes * len(attribute.groups) + own
    shape = tuple(len(a.groups) for a in attributes)
    present = np.unique(codes[is_known])
    if not len(present):
        raise InputError(f"The crossing {name!r} has no group: no row has a known value of each of {', '.join(parts)}.")
    groups = tuple(", ".join(a.groups[i] for a, i in zip(attributes, np.unravel_index(c, shape), strict=True)) for c in present)
    own = np.where(is_known, np.searchsorted(present, codes), -1).astype(np.int32)
    return Grouping(Attribute(CROSSING.join(parts), groups, all(a.constant for a in attributes)), own)
