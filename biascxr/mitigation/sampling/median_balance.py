"""`median_balance`: BiasCXR's resampling of demographic cells to their median size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.metrics import gini_coefficient, normalized_entropy
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.sampling.base import BALANCED_ATTRIBUTES, FEW, Sample, Sampler, plain_sample
from biascxr.mitigation.sampling.cell_sizes import NOTHING_TO_BALANCE, CellSizes


@dataclass(frozen=True)
class MedianBalanceSettings:
    """Settings of `median_balance`.

    Attributes:
        attributes: attributes whose crossing makes the cells; those the cohort lacks are left out.
        bias_threshold: a cell is label-biased when its bias score is above this.
        far_share: share of a biased cell's rows, those farthest from the overall rates, that are copied once before any other.
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
        for name in ("far_share", "bias_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in [0, 1]; got {getattr(self, name)}.")


class MedianBalance(Sampler):
    """Brings every cell of sex x race x age group to the median cell size.

    A cell's bias score is the mean over labels of `|positive rate in the cell - positive rate overall|`, and a row's distance
    the sum over its labels of `|label - positive rate overall|`. Below the median, copies are added: in a biased cell first of
    the `far_share` of rows with the largest distance, farthest first, then at random; in another at random. Above it, that
    many rows are kept: in a biased cell those with the smallest distance, in another random ones. The scores, and the Gini
    coefficient and entropy of the cell sizes before and after, stand in the notes.

    Follows BiasCXR's code (github.com/aahmadnejad/BiasCXR, `create_debiased_dataframe`). Differs: made on the training split
    only, after the split, so that no copy stands on both sides; a limit on copies, and random copies are spread evenly (no row
    a third time before every row a second time) where it draws with replacement; cells below `min_cell` and rows with an
    unknown attribute are left as they are and out of the median; masked labels (0 there) are left out of rates and distances,
    a distance being the mean over the labels that are not.

    When it helps: where errors come from a group being rare. When it harms: large cells lose rows that nothing replaces, and
    copies add no patient, so the head may learn the few patients of a small cell by heart; cells of equal size can differ in
    prevalence as before, and keeping the rows nearest to the overall rates takes the rarer positives out of large biased cells.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    acquisition (+0.23); no effect under presentation; unclear under prevalence, annotation and selection.
    """

    name: ClassVar[str] = "median_balance"
    Settings: ClassVar[type] = MedianBalanceSettings

    def _sample(self, train: SplitData, rng: np.random.Generator) -> Sample:
        cells = CellSizes.of(train, self.settings.attributes, min_cell=self.settings.min_cell)
        if not cells.can_be_balanced:
            return plain_sample(np.arange(len(train)), NOTHING_TO_BALANCE)
        target = cells.median
        distance = row_distances(train.labels, positive_rates(train.labels))
        bias = bias_scores(train.labels, cells.codes, len(cells.names))
        chosen = [np.flatnonzero(~cells.takes_part)]
        n_limited = 0
        for cell in np.flatnonzero(cells.is_counted):
            rows, is_biased = cells.rows(cell), bias[cell] > self.settings.bias_threshold
            if len(rows) >= target:
                chosen.append(self._keep(rows, target, distance, is_biased, rng))
            else:
                wanted = min(target, len(rows) * self.settings.max_copies)
                n_limited += wanted < target
                chosen.append(np.r_[rows, self._copy(rows, wanted - len(rows), distance, is_biased, rng)])
        rows = np.concatenate(chosen)
        notes = [f"target: {target:,} rows a cell, {len(cells.names)} cells", *evenness(cells, rows), *cells.left_alone()]
        if n_limited:
            notes.append(f"{n_limited} cells stopped at {self.settings.max_copies} copies of a row")
        notes += self._bias_note(train, cells, bias)
        return plain_sample(rows, tuple(notes))

    def _bias_note(self, train: SplitData, cells: CellSizes, bias: np.ndarray) -> list[str]:
        """Names every cell with its bias score, the most biased first; cells of few patients are not named."""
        cell_and_patient = np.unique(
            np.c_[cells.codes, np.unique(train.patient_id.astype(str), return_inverse=True)[1]], axis=0
        )
        patients = np.bincount(cell_and_patient[cell_and_patient[:, 0] >= 0, 0], minlength=len(cells.names))
        is_shown = (patients >= FEW) & ~np.isnan(bias)
        shown = sorted(np.flatnonzero(is_shown), key=lambda cell: -bias[cell])
        if not shown:
            return []
        scores = ", ".join(f"{cells.names[cell]} {bias[cell]:.2f}" for cell in shown)
        hidden = "" if is_shown.all() else f"; cells of fewer than {FEW} patients are not shown"
        return [f"bias score by {cells.title} (above {self.settings.bias_threshold:g}: biased): {scores}{hidden}"]

    @staticmethod
    def _keep(rows: np.ndarray, n: int, distance: np.ndarray, is_biased: bool, rng: np.random.Generator) -> np.ndarray:
        shuffled = rng.permutation(rows)
        if is_biased:
            shuffled = shuffled[np.argsort(distance[shuffled], kind="stable")]
        return shuffled[:n]

    def _copy(self, rows: np.ndarray, n: int, distance: np.ndarray, is_biased: bool, rng: np.random.Generator) -> np.ndarray:
        """Draws n copies, each row at most `max_copies - 1` times, so that no row occurs more than `max_copies` times."""
        shuffled = rng.permutation(rows)
        first = shuffled[:0]
        if is_biased:
            farthest_first = shuffled[np.argsort(-distance[shuffled], kind="stable")]
            first = farthest_first[: int(self.settings.far_share * len(rows))][:n]
            # Rows that have a copy already come last in every further round.
            shuffled = np.r_[shuffled[~np.isin(shuffled, first)], rng.permutation(first)]
        return np.r_[first, np.resize(shuffled, n - len(first))]


def evenness(cells: CellSizes, rows: np.ndarray) -> list[str]:
    """Says how even the cells' sizes are before and after: BiasCXR's check of a balanced set."""
    after = cells.codes[rows]
    after = np.bincount(after[after >= 0], minlength=len(cells.names))
    gini, entropy = ([measure(sizes) for sizes in (cells.sizes, after)] for measure in (gini_coefficient, normalized_entropy))
    return [
        f"cell sizes: Gini coefficient {gini[0]:.2f} before, {gini[1]:.2f} after; entropy {entropy[0]:.2f} before, "
        f"{entropy[1]:.2f} after (1: all equal)"
    ]


def bias_scores(labels: np.ndarray, codes: np.ndarray, n_cells: int) -> np.ndarray:
    """BiasCXR's bias score of each cell: mean over labels of |positive rate in the cell - positive rate overall|.

    Args:
        labels: `[n, L]` in {0, 1, NaN}; a label that is masked in a whole cell is left out of its mean.
        codes: `[n]`, each row's cell, -1 for none; such rows count in the overall rates.
        n_cells: k.

    Returns:
        `[k]` in [0, 1]; NaN for a cell without a row or with all labels masked.
    """
    overall = positive_rates(labels)
    gaps = np.array([np.abs(positive_rates(labels[codes == cell]) - overall) for cell in range(n_cells)])
    known = ~np.isnan(gaps)
    n_known = known.sum(1)
    return np.divide(np.where(known, gaps, 0).sum(1), n_known, out=np.full(n_cells, np.nan), where=n_known > 0)


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
