"""`random_over`: every cell filled up at random to the size of the largest, by imbalanced-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.sampling.base import BALANCED_ATTRIBUTES, Sample, Sampler, plain_sample
from biascxr.mitigation.sampling.cell_sizes import NOTHING_TO_BALANCE, CellSizes


@dataclass(frozen=True)
class RandomOverSettings:
    """Settings of `random_over`.

    Attributes:
        attributes: attributes whose crossing makes the cells; those the cohort lacks are left out.
        max_copies: how often a row may occur at most, as in `median_balance`; a cell stops at this many times its size.
        min_cell: a cell with fewer rows is left as it is: a handful of patients copied many times is not a group.
    """

    attributes: tuple[str, ...] = BALANCED_ATTRIBUTES
    max_copies: int = 10
    min_cell: int = 10

    def __post_init__(self) -> None:
        if self.max_copies < 1 or self.min_cell < 1:
            raise InputError(f"max_copies and min_cell must be at least 1; got {self.max_copies} and {self.min_cell}.")


class RandomOver(Sampler):
    """Keeps every row and adds to each cell copies, drawn with replacement, until it has as many rows as the largest cell.

    It is `imblearn.over_sampling.RandomOverSampler` on the cells instead of on classes. Differs: no row occurs more than
    `max_copies` times (a cell too small for that stays below the largest, and draws beyond the limit go to other rows of the
    cell); cells below `min_cell` and rows with an unknown attribute stay, once.

    When it helps: as `median_balance`, without losing a row of the large cells. When it harms: the split becomes many times
    larger with no new patient in it, and the copied patients are learned by heart; early stopping on validation limits that.

    Reference: Lemaitre, Nogueira and Aridas, "Imbalanced-learn", JMLR 18(17), 2017.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    selection (-0.27); no effect under prevalence, presentation and annotation; unclear under acquisition.
    """

    name: ClassVar[str] = "random_over"
    Settings: ClassVar[type] = RandomOverSettings

    def _sample(self, train: SplitData, rng: np.random.Generator) -> Sample:
        from imblearn.over_sampling import RandomOverSampler

        cells = CellSizes.of(train, self.settings.attributes, min_cell=self.settings.min_cell)
        if not cells.can_be_balanced:
            return plain_sample(np.arange(len(train)), NOTHING_TO_BALANCE)
        counted, largest, limit = np.flatnonzero(cells.is_counted), cells.sizes.max(), self.settings.max_copies
        wanted = {int(cell): int(min(largest, limit * cells.sizes[cell])) for cell in counted}
        rows = np.flatnonzero(cells.takes_part)
        sampler = RandomOverSampler(sampling_strategy=wanted, random_state=int(rng.integers(2**31)))
        sampler.fit_resample(rows[:, None], cells.codes[rows])
        times = limit_copies(np.bincount(rows[sampler.sample_indices_], minlength=len(train)), cells, limit, rng)
        times[~cells.takes_part] = 1
        notes = [f"{times.sum() - len(train):,} copies added: {largest:,} rows in each of {len(counted)} cells"]
        if n_limited := sum(size < largest for size in wanted.values()):
            notes.append(f"{n_limited} cells stopped at {limit} copies of a row")
        return plain_sample(np.repeat(np.arange(len(train)), times), (*notes, *cells.left_alone()))


def limit_copies(times: np.ndarray, cells: CellSizes, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Moves draws beyond the limit to random other rows of the same cell.

    Args:
        times: `[n] int64`, how often each row was drawn; no cell more than `limit` times its rows.
        cells: of the rows.
        limit: how often a row may occur at most.
        rng: of the choice of other rows.

    Returns:
        `[n] int64`, at most `limit`, with the same sum in every cell.
    """
    limited = np.minimum(times, limit)
    for cell in np.unique(cells.codes[times > limit]):
        rows = cells.rows(cell)
        room = np.repeat(rows, limit - limited[rows])
        chosen = rng.choice(room, (times[rows] - limited[rows]).sum(), replace=False)
        np.add.at(limited, chosen, 1)
    return limited
