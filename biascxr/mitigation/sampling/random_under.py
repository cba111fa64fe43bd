"""`random_under`: every cell cut at random to the size of the smallest, by imbalanced-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.sampling.base import BALANCED_ATTRIBUTES, Sample, Sampler, count_of, plain_sample
from biascxr.mitigation.sampling.cell_sizes import NOTHING_TO_BALANCE, CellSizes


@dataclass(frozen=True)
class RandomUnderSettings:
    """Settings of `random_under`.

    Attributes:
        attributes: attributes whose crossing makes the cells; those the cohort lacks are left out.
        min_cell: a cell with fewer rows is left as it is, and the others are not cut down to it.
    """

    attributes: tuple[str, ...] = BALANCED_ATTRIBUTES
    min_cell: int = 10

    def __post_init__(self) -> None:
        if self.min_cell < 1:
            raise InputError(f"min_cell must be at least 1; got {self.min_cell}.")


class RandomUnder(Sampler):
    """Draws from every cell, without replacement, as many rows as the smallest cell has.

    It is `imblearn.under_sampling.RandomUnderSampler` on the cells instead of on classes. Differs: cells below `min_cell` take
    no part (with crossed attributes the smallest cell is often a handful of rows, and all others would be cut down to that);
    rows with an unknown attribute stay, once.

    When it helps: where a spurious cue is kept up by the larger groups and rows are plenty; subsampling groups was as good as
    any remedy in the worst group of four benchmarks (SUBG in Idrissi et al., CLeaR 2022). When it harms: most rows are thrown
    away, which costs accuracy in every group where rows are not plenty.

    Reference: Lemaitre, Nogueira and Aridas, "Imbalanced-learn", JMLR 18(17), 2017.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    acquisition (+0.44); harms under selection (-0.33); no effect under prevalence, presentation and annotation.
    """

    name: ClassVar[str] = "random_under"
    Settings: ClassVar[type] = RandomUnderSettings

    def _sample(self, train: SplitData, rng: np.random.Generator) -> Sample:
        from imblearn.under_sampling import RandomUnderSampler

        cells = CellSizes.of(train, self.settings.attributes, min_cell=self.settings.min_cell)
        if not cells.can_be_balanced:
            return plain_sample(np.arange(len(train)), NOTHING_TO_BALANCE)
        rows = np.flatnonzero(cells.takes_part)
        sampler = RandomUnderSampler(random_state=int(rng.integers(2**31)))
        sampler.fit_resample(rows[:, None], cells.codes[rows])
        kept = rows[sampler.sample_indices_]
        smallest = count_of(cells.sizes[cells.is_counted].min(), "rows")
        notes = (f"{len(kept):,} of {len(rows):,} rows kept: {smallest} of each of {cells.is_counted.sum()} cells",)
        return plain_sample(np.r_[kept, np.flatnonzero(~cells.takes_part)], (*notes, *cells.left_alone()))
