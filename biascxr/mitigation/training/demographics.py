"""Recorded attributes as numbers: what a head may take beside the vector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN
from biascxr.errors import InputError, unknown_name

CODINGS = ("one_hot", "binary")


@dataclass(frozen=True)
class DemographicInputs:
    """Recorded attributes as numbers.

    `one_hot`: a column for each known group, 1 where a row is of it, so that an unknown attribute, or a group that was not
    there, has zeros in all of that attribute's columns. `binary`: a column for each attribute, 0 for its first group and 1 for
    its second, 0.5 for what is neither.

    Attributes:
        groups: per attribute its groups, in column order.
        coding: `one_hot` or `binary`.
    """

    groups: dict[str, tuple[str, ...]]
    coding: str = "one_hot"

    def __post_init__(self) -> None:
        if self.coding not in CODINGS:
            raise unknown_name("coding of demographics", self.coding, CODINGS)
        for name, own in self.groups.items():
            if self.coding == "binary" and len(own) > 2:
                raise InputError(
                    f"coding=binary takes attributes of two groups; {name} has {len(own)}: {', '.join(own)}. Make them two "
                    "with --against_rest or --age_bins, or take coding=one_hot."
                )

    @classmethod
    def of(cls, table: pd.DataFrame, names: tuple[str, ...], coding: str = "one_hot") -> DemographicInputs:
        """Finds the groups of these attributes in a table."""
        return cls({name: tuple(sorted(set(table[name]) - {UNKNOWN})) for name in names}, coding)

    @property
    def n_columns(self) -> int:
        """Number of columns over all attributes."""
        return sum(len(own) if self.coding == "one_hot" else 1 for own in self.groups.values())

    def encode(self, table: pd.DataFrame) -> np.ndarray:
        """Returns `[n, k] float32`; an attribute that the table does not have is unknown for everyone."""
        nothing = pd.Series(UNKNOWN, index=table.index)
        columns: list[np.ndarray] = []
        for name, own in self.groups.items():
            is_of = [(table.get(name, nothing) == group).to_numpy(np.float32) for group in own]
            columns += is_of if self.coding == "one_hot" else [_as_one_column(is_of, len(table))]
        return np.stack(columns, axis=1) if columns else np.zeros((len(table), 0), np.float32)


def _as_one_column(is_of: list[np.ndarray], n: int) -> np.ndarray:
    """Returns 0 for the first of two groups, 1 for the second, 0.5 for neither: `[n] float32`."""
    first, second = [*is_of, *[np.zeros(n, np.float32)] * 2][:2]
    return (1 + second - first) / 2


def demographic_notes(demographics: DemographicInputs | None) -> tuple[str, ...]:
    """Says which attributes a head takes as inputs."""
    return () if demographics is None else (f"takes as inputs: {', '.join(demographics.groups)}",)
