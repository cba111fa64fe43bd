"""`median_balance`: BiasCXR's resampling of demographic cells to their median size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.sampling.base import BALANCED_ATTRIBUTES, Sample, Sampler, plain_sample


@dataclass(frozen=True)
class MedianBalanceSettings:
    """Settings of `median_balance`.

    Attributes:
        attributes: attributes whose crossing makes the cells; those the cohort lacks are left out.
        bias_threshold: a cell is label-biased when its bias score is above this.
        far_share: share of a biased cell's rows, those farthest from the overall rates, that copies are drawn from first.
        max_copies: how often a row may occur at most; at MIMIC's marginals the plain rule would make 25 copies of a row.
        min_cell: a cell with fewer rows is left as it is and takes no part in the median: a handful of patients copied
            many times is not a group.
    """

    attributes: tuple[str, ...] = BALANCED_ATTRIBUTES
    bias_threshold: float = 0.1
    far_share: float = 0.7
    max_copies: int = 10
    min_cell: int = 10

    def __post_init__(self) -> None:
        if self.max_copies < 1 or self.min_cell < 1:
            raise InputError(f"max_copies and min_cell must be at least 1; got {self.max_copies} and {self.min_cell}.")
        if not 0 <= self.far_share <= 1:
            raise InputError(f"far_share must lie in [0, 1]; got {self.far_share}.")


class MedianBalance(Sampler):
    """Brings every cell of sex x race x age group to the median cell size.

    A cell's bias is the mean over labels of |cell positive rate - overall positive rate|. Below the median, copies are
    added: in a biased cell first from the `far_share` of rows farthest from the overall rates, otherwise at random. Above
    it, that many rows are kept: in a biased cell those nearest to the overall rates, otherwise at random.

    Follows BiasCXR's code (github.com/aahmadnejad/BiasCXR). Differs: made on the training split only, after the split, so
    that no copy stands on both sides; a limit on copies; cells below `min_cell` and rows with an unknown attribute are
    left as they are and out of the median; masked labels are left out of the rates.
    """

    name: ClassVar[str] = "median_balance"
    Settings: ClassVar[type] = MedianBalanceSettings

    def _sample(self, train: SplitData, rng: np.random.Generator) -> Sample:
        cells = Cells.of(train.attributes, self.settings.attributes)
        codes, names = cells.codes(train.attributes), cells.names
        sizes = np.bincount(codes[codes >= 0], minlength=len(names))
        counted = sizes[sizes >= self.settings.min_cell]
        if len(counted) < 2:
            return plain_sample(np.arange(len(train)), ("fewer than two cells: nothing to balance",))
        # Without the small cells: they stay as they are, and many of them would pull the others down to a handful of rows.
        target = int(np.median(counted))
        overall = positive_rates(train.labels)
        distance = row_distances(train.labels, overall)
        chosen = [np.flatnonzero(codes < 0)]
        n_small = n_limited = 0
        for cell in range(len(names)):
            rows = np.flatnonzero(codes == cell)
            if len(rows) < self.settings.min_cell:
                n_small += 1
                chosen.append(rows)
                continue
            bias = np.nanmean(np.abs(positive_rates(train.labels[rows]) - overall))
            is_biased = bias > self.settings.bias_threshold
            if len(rows) >= target:
                chosen.append(self._keep(rows, target, distance, is_biased, rng))
            else:
                wanted = min(target, len(rows) * self.settings.max_copies)
                n_limited += wanted < target
                chosen.append(np.r_[rows, self._copy(rows, wanted - len(rows), distance, is_biased, rng)])
        notes = [f"target: {target} rows a cell, {len(names)} cells"]
        if n_small:
            notes.append(f"{n_small} cells under {self.settings.min_cell} rows left as they are")
        if n_limited:
            notes.append(f"{n_limited} cells stopped at {self.settings.max_copies} copies of a row")
        if len(chosen[0]):
            notes.append(f"{len(chosen[0])} rows with an unknown attribute left as they are")
        return plain_sample(np.concatenate(chosen), tuple(notes))

    @staticmethod
    def _keep(rows: np.ndarray, n: int, distance: np.ndarray, is_biased: bool, rng: np.random.Generator) -> np.ndarray:
        shuffled = rng.permutation(rows)
        if is_biased:
            shuffled = shuffled[np.argsort(distance[shuffled], kind="stable")]
        return shuffled[:n]

    def _copy(self, rows: np.ndarray, n: int, distance: np.ndarray, is_biased: bool, rng: np.random.Generator) -> np.ndarray:
        """Draws n copies, each row at most `max_copies - 1` times, so that no row occurs more than `max_copies` times."""
        shuffled = rng.permutation(rows)
        copies: list[np.ndarray] = []
        if is_biased:
            farthest_first = shuffled[np.argsort(-distance[shuffled], kind="stable")]
            first = rng.permutation(farthest_first[: max(1, int(self.settings.far_share * len(rows)))])[:n]
            copies.append(first)
            shuffled = np.r_[np.setdiff1d(shuffled, first, assume_unique=True), first]
        left = n - sum(map(len, copies))
        pool = np.tile(shuffled, self.settings.max_copies)
        copies.append(pool[:left])
        return np.concatenate(copies)


def positive_rates(labels: np.ndarray) -> np.ndarray:
    """Positive rate of each label over its unmasked rows: `[L]`, NaN where all are masked."""
    known = ~np.isnan(labels)
    n = known.sum(0)
    return np.divide(np.nansum(labels, axis=0), n, out=np.full(labels.shape[1], np.nan), where=n > 0)


def row_distances(labels: np.ndarray, overall: np.ndarray) -> np.ndarray:
    """Mean over a row's unmasked labels of |label - overall rate|: `[n]`, 0 for a row that is masked whole."""
    gaps = np.abs(labels - overall)
    known = ~np.isnan(gaps)
    return np.where(known, gaps, 0).sum(1) / np.maximum(known.sum(1), 1)
