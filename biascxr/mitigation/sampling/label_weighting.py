"""What `reweigh` and `label_group_balance` share: every row stays, and weights change how labels go with groups."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.metrics import effective_n
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import chosen_attributes
from biascxr.mitigation.sampling.base import Sample, Sampler, count_of, plain_sample
from biascxr.mitigation.sampling.cell_sizes import NOTHING_TO_BALANCE, CellSizes
from biascxr.mitigation.sampling.raking import LabelTables, Raked

REACHED = 1e-6


@dataclass(frozen=True)
class LabelWeightingSettings:
    """Settings of a sampler that weighs labels and groups.

    Attributes:
        attributes: attributes whose crossing makes the groups; empty: race where the cohort has it, else its first attribute.
            Not all of them by default: how a label goes with age is mostly medicine.
        min_cell: a group takes part in a label's table with at least this many rows labelled positive and as many labelled
            negative, and at all with as many rows; otherwise it is left out of that table, or its rows weigh 1.
        max_weight: most that a row may weigh, where the average is 1.
    """

    attributes: tuple[str, ...] = ()
    min_cell: int = 10
    max_weight: float = 100.0

    def __post_init__(self) -> None:
        if self.min_cell < 1:
            raise InputError(f"min_cell must be at least 1; got {self.min_cell}.")
        if not self.max_weight > 1:
            raise InputError(f"max_weight must be above 1, the average weight; got {self.max_weight}.")


class LabelWeighting(Sampler):
    """Keeps every row once, with weights of mean 1; rows with an unknown attribute, and those of small groups, weigh 1."""

    Settings: ClassVar[type] = LabelWeightingSettings

    @abstractmethod
    def _raked(self, tables: LabelTables) -> Raked:
        """The method's own weights."""

    def _sample(self, train: SplitData, rng: np.random.Generator) -> Sample:
        attributes = chosen_attributes(self.name, self.settings.attributes, list(train.attributes))
        cells = CellSizes.of(train, attributes, min_cell=self.settings.min_cell)
        if not cells.can_be_balanced:
            return plain_sample(np.arange(len(train)), NOTHING_TO_BALANCE)
        rows = np.flatnonzero(cells.takes_part)
        groups = np.unique(cells.codes[rows], return_inverse=True)[1]
        tables = LabelTables.of(groups, train.labels[rows], min_cell=self.settings.min_cell)
        raked = self._raked(tables)
        weights = np.ones(len(train), np.float32)
        weights[rows] = raked.weights
        notes = self._notes(tables, raked, cells.title, train.label_names)
        return Sample(np.arange(len(train)), weights, (*notes, *cells.left_alone()))

    def _notes(self, tables: LabelTables, raked: Raked, title: str, label_names: tuple[str, ...]) -> list[str]:
        """Says what holds under the weights, what does not, and what the limit has to do with it."""
        in_tables = tables.takes_part.sum(axis=1) >= 2
        off = raked.deviation.max()
        reached = (
            "to within 1e-6" if off <= REACHED else f"to within {off:.2g} ({label_names[raked.deviation.max(1).argmax()]})"
        )
        share = tables.masses(raked.of_pattern)[0].sum(axis=1) / len(raked.weights)
        low, high, n = raked.weights.min(), raked.weights.max(), len(raked.weights)
        notes = [
            f"labels that have one positive rate in all groups of {title} under the weights: {in_tables.sum()} of "
            f"{len(in_tables)}, {reached}",
            f"weights {low:.3f} to {high:.2f}, worth {effective_n(raked.weights):,.0f} of {n:,} rows of equal weight",
            f"a group's share of all weight: {share.min():.3f} to {share.max():.3f}",
        ]
        if left := int((~tables.takes_part[in_tables]).sum()):
            notes.append(
                f"times a group is left out of a label's table for want of {self.settings.min_cell} rows of each value: {left}"
            )
        if raked.is_at_limit.any():
            notes.append(f"{count_of(int(raked.is_at_limit.sum()), 'rows')} stopped at weight {self.settings.max_weight:g}")
        return notes
