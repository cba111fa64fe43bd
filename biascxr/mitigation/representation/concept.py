"""What an attribute is to an eraser: one column for each group, centred, 0 where nothing is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.errors import InputError
from biascxr.mitigation.cells import Cells, chosen_attributes

NO_GROUPS = "no attribute with two known groups: vectors are left as they are"


@dataclass(frozen=True)
class ConceptSettings:
    """Which groups should not be readable from a vector.

    Attributes:
        attributes: whose groups; empty: race where the cohort has it, else its first attribute. More than two groups are kept
            apart.
        crossed: of several attributes, take the groups of their crossing (`BLACK / F`) instead of each attribute's own; what
            is readable of the interaction then counts too, over more and smaller groups.
    """

    attributes: tuple[str, ...] = ()
    crossed: bool = False

    def __post_init__(self) -> None:
        if len(set(self.attributes)) < len(self.attributes):
            raise InputError(f"attributes must name each attribute once; got {list(self.attributes)}.")


@dataclass(frozen=True)
class Concept:
    """One column for each group of each attribute, side by side: 1 for its rows, 0 for others, less the column's mean.

    Means are over the rows whose group is known, so that a row of an unknown group (or of one that was not there at the fit)
    is the mean row: 0 in all of that attribute's columns. It then adds nothing to a covariance with these columns, and
    nothing is subtracted from it.

    Attributes:
        cells: the groups of each attribute, or those of one crossing.
        means: `[k] float64`, the weighted share of each group among the rows whose group is known.
    """

    cells: tuple[Cells, ...]
    means: np.ndarray

    @classmethod
    def of(cls, method: str, settings: ConceptSettings, table: pd.DataFrame, weights: np.ndarray) -> Concept:
        """Finds the groups in the training rows; an attribute with fewer than two known groups is left out.

        Args:
            method: name of the method, for messages.
            settings: which groups.
            table: `[n]` rows, one column per attribute.
            weights: `[n] float64`.

        Raises:
            InputError: an attribute that the cohort does not have.
        """
        names = chosen_attributes(method, settings.attributes, list(table))
        crossings = [names] if settings.crossed else [(name,) for name in names]
        cells = tuple(c for c in (Cells.of(table, crossing) for crossing in crossings) if len(c) > 1)
        means = [np.zeros(0)]
        for own in cells:
            codes = own.codes(table)
            sums = np.bincount(codes[codes >= 0], weights[codes >= 0], minlength=len(own))
            means.append(sums / sums.sum())
        return cls(cells, np.concatenate(means))

    def __len__(self) -> int:
        return len(self.means)

    @property
    def title(self) -> str:
        """The attributes, `"race, sex"`, for a note."""
        return ", ".join(own.title for own in self.cells)

    def blocks(self) -> list[slice]:
        """Returns each attribute's columns."""
        ends = np.cumsum([len(own) for own in self.cells], dtype=int)
        return [slice(int(end) - len(own), int(end)) for own, end in zip(self.cells, ends, strict=True)]

    def codes(self, table: pd.DataFrame) -> list[np.ndarray]:
        """Returns each attribute's group of each row, `[n] int64`, -1 where unknown."""
        missing = np.full(len(table), -1)  # a cohort that does not record an attribute knows nobody's group
        return [own.codes(table) if set(own.attributes) <= set(table) else missing for own in self.cells]

    def encode(self, table: pd.DataFrame) -> np.ndarray:
        """Returns the centred columns, `[n, k] float64`."""
        out = np.zeros((len(table), len(self)))
        for codes, columns in zip(self.codes(table), self.blocks(), strict=True):
            known = codes >= 0
            one_hot = codes[known, None] == np.arange(columns.stop - columns.start)
            out[known, columns] = one_hot - self.means[columns]
        return out

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the concept as arrays, for an .npz file: one entry per column."""
        attributes = [own.title for own in self.cells for _ in own.names]
        groups = [name for own in self.cells for name in own.names]
        return {"attributes": np.array(attributes, str), "groups": np.array(groups, str), "means": self.means}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Concept:
        """Returns the concept that `to_arrays` told of."""
        titles, groups = arrays["attributes"], arrays["groups"]
        cells = tuple(
            Cells.named(str(title), tuple(str(g) for g in groups[titles == title])) for title in dict.fromkeys(titles.tolist())
        )
        return cls(cells, arrays["means"])


def identity(width: int) -> dict[str, np.ndarray]:
    """Returns the state of an affine representation that changes no bit: no mean is subtracted and added again."""
    return {"mean": np.zeros(width), "left": np.zeros((width, 0)), "right": np.zeros((0, width))}
