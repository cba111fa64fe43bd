"""`sqrt_reweight`: a row weighs as the inverse square root of the size of its cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.mitigation.base import SplitData
from biascxr.mitigation.sampling.base import BALANCED_ATTRIBUTES, Sample, Sampler, plain_sample
from biascxr.mitigation.sampling.cell_sizes import NOTHING_TO_BALANCE, CellSizes


@dataclass(frozen=True)
class SqrtReweightSettings:
    """Settings of `sqrt_reweight`.

    Attributes:
        attributes: attributes whose crossing makes the cells; those the cohort lacks are left out.
    """

    attributes: tuple[str, ...] = BALANCED_ATTRIBUTES


class SqrtReweight(Sampler):
    """Keeps every row, with a weight in proportion to `1 / sqrt(rows of its cell)`, of mean 1 over the rows with a known cell.

    A cell's total weight is then in proportion to `sqrt(rows)`: half way, on the scale of logarithms, between the data as they
    are and cells of equal weight. No limit is needed: a cell a hundred times smaller weighs ten times as much a row. Rows with
    an unknown attribute weigh 1.

    It is the inverse square root of the class frequency, by which Mahajan et al. resample hashtags (ECCV 2018, "Exploring the
    limits of weakly supervised pretraining", after the subsampling of words by Mikolov et al., NeurIPS 2013), here as weights
    and for groups of patients instead of classes.

    When it helps: as full balancing does, by less, and at less cost: the effective number of rows stays larger. When it harms:
    it does not touch how labels go with groups, so a label that is recorded too rarely in a group stays so.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    selection (-0.13); no effect under prevalence, presentation, annotation and acquisition.
    """

    name: ClassVar[str] = "sqrt_reweight"
    Settings: ClassVar[type] = SqrtReweightSettings

    def _sample(self, train: SplitData, rng: np.random.Generator) -> Sample:
        cells = CellSizes.of(train, self.settings.attributes)
        if not cells.can_be_balanced:
            return plain_sample(np.arange(len(train)), NOTHING_TO_BALANCE)
        of_cell = 1 / np.sqrt(cells.sizes)
        of_cell *= cells.sizes.sum() / (of_cell @ cells.sizes)
        weights = np.where(cells.codes < 0, 1, of_cell[cells.codes])
        notes = (f"weights of rows in {len(cells.names)} cells: {of_cell.min():.2f} to {of_cell.max():.2f}",)
        return Sample(np.arange(len(train)), weights.astype(np.float32), (*notes, *cells.left_alone()))
