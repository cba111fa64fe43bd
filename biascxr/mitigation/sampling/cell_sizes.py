"""How many training rows stand in each cell of crossed attributes: where every balancing sampler begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.sampling.base import count_of

NOTHING_TO_BALANCE = ("fewer than two cells: nothing to balance",)


@dataclass(frozen=True)
class CellSizes:
    """The cells of a split and their sizes.

    Attributes:
        title: the crossing's name, `"sex x race"`.
        names: of the k cells.
        codes: `[n] int64`, each row's cell; -1 where an attribute is unknown.
        sizes: `[k] int64`, rows of each cell.
        min_cell: a cell with fewer rows is small: no sampler changes it, and it has no say in how large the others become.
    """

    title: str
    names: tuple[str, ...]
    codes: np.ndarray
    sizes: np.ndarray
    min_cell: int

    @classmethod
    def of(cls, train: SplitData, attributes: tuple[str, ...], *, min_cell: int = 1) -> CellSizes:
        """Counts the rows of each cell; attributes that the split does not have are left out."""
        cells = Cells.of(train.attributes, attributes)
        codes = cells.codes(train.attributes)
        return cls(cells.title, cells.names, codes, np.bincount(codes[codes >= 0], minlength=len(cells)), min_cell)

    @property
    def is_counted(self) -> np.ndarray:
        """Which cells are not small: `[k] bool`."""
        return self.sizes >= self.min_cell

    @property
    def can_be_balanced(self) -> bool:
        """Whether there are two cells at least that are not small."""
        return self.is_counted.sum() >= 2

    @property
    def median(self) -> int:
        """Median size of the cells that are not small, rounded down."""
        return int(np.median(self.sizes[self.is_counted]))

    @property
    def takes_part(self) -> np.ndarray:
        """Rows in a cell that is not small: `[n] bool`."""
        return (self.codes >= 0) & np.r_[self.is_counted, False][self.codes]

    def rows(self, cell: int) -> np.ndarray:
        """Returns the rows of a cell, in order."""
        return np.flatnonzero(self.codes == cell)

    def left_alone(self) -> tuple[str, ...]:
        """Says which rows no sampler changes."""
        notes = []
        if n_small := int((~self.is_counted).sum()):
            notes.append(f"cells under {self.min_cell} rows left as they are: {n_small}")
        if n_unknown := int((self.codes < 0).sum()):
            notes.append(f"{count_of(n_unknown, 'rows')} with an unknown attribute left as they are")
        return tuple(notes)
