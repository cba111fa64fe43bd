"""`cell_interpolation`: under-represented cells filled up with vectors between neighbours of the same cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.sampling.base import BALANCED_ATTRIBUTES, Sample, Sampler, count_of, plain_sample
from biascxr.mitigation.sampling.cell_sizes import NOTHING_TO_BALANCE, CellSizes
from biascxr.mitigation.vector_table import mean_and_scale

QUERIES_AT_ONCE = 1024
ROWS_FOR_SCALE = 8192


@dataclass(frozen=True)
class CellInterpolationSettings:
    """Settings of `cell_interpolation`.

    Attributes:
        attributes: attributes whose crossing makes the cells; those the cohort lacks are left out.
        n_neighbors: nearest rows that a partner is chosen among.
        max_copies: how often a row may occur at most, itself included, as in `median_balance`.
        min_cell: a cell with fewer rows is left as it is and takes no part in the median.
        search_rows: neighbours are looked for among this many rows of a cell, drawn at random where it has more; a cell of tens
            of thousands would take minutes, and its rows have near neighbours in any case.
    """

    attributes: tuple[str, ...] = BALANCED_ATTRIBUTES
    n_neighbors: int = 5
    max_copies: int = 10
    min_cell: int = 10
    search_rows: int = 2048

    def __post_init__(self) -> None:
        for name in ("n_neighbors", "max_copies", "min_cell"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.search_rows <= self.n_neighbors:
            raise InputError(f"search_rows must be above n_neighbors, {self.n_neighbors}; got {self.search_rows}.")


class CellInterpolation(Sampler):
    """Fills cells below the median size up to it with rows of theirs whose vectors are drawn towards a neighbour.

    A new vector is `s v + (1 - s) v'`, s uniform on [0.5, 1): nearer to the row it is made from, whose labels, attributes and
    patient it keeps. Rows of a cell are used evenly. The partner v' is a row of the same cell, of another image: of the
    `n_neighbors` nearest (Euclidean, columns scaled to unit variance) one at random of those whose labels agree
    most, over labels that both have. A cell with one image only has no partner, and its rows are copied. Cells above the
    median keep all rows (`median_balance` named after it cuts those); rows with an unknown attribute stay, once.

    It is what augmentation can be where only vectors exist; where there are images, `controlled_augmentation` makes true views.
    Differs from SMOTE (Chawla et al., JAIR 2002), which makes new rows of a *class* anywhere between a row and any of its
    neighbours: here it is cells of patients, a row has many labels, so neighbours are chosen by agreement and no vector passes
    the middle. Differs from mixup (Zhang et al., ICLR 2018), which mixes any two rows, and their labels in the same proportion.

    When it helps: as copies do (`median_balance`, `random_over`), with less learning by heart, where the labels are spread
    smoothly between neighbours. When it harms: near a boundary between labels, half way to a row that disagrees the kept label
    may be wrong; SMOTE is known to shrink a class's variance and to bring little in high dimensions (Blagus and Lusa, BMC
    Bioinformatics 2013), and 1,376 is high.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    acquisition (+0.13); no effect under prevalence, presentation, annotation and selection.
    """

    name: ClassVar[str] = "cell_interpolation"
    Settings: ClassVar[type] = CellInterpolationSettings

    def _sample(self, train: SplitData, rng: np.random.Generator) -> Sample:
        cells = CellSizes.of(train, self.settings.attributes, min_cell=self.settings.min_cell)
        if not cells.can_be_balanced:
            return plain_sample(np.arange(len(train)), NOTHING_TO_BALANCE)
        target, limit = cells.median, self.settings.max_copies
        notes = [f"target: {target:,} rows a cell, {len(cells.names)} cells", *cells.left_alone()]
        below = np.flatnonzero(cells.is_counted & (cells.sizes < target))
        if len(below) == 0 or limit == 1:
            return plain_sample(np.arange(len(train)), tuple(notes))
        some = rng.choice(len(train), min(len(train), ROWS_FOR_SCALE), replace=False)
        scale = mean_and_scale(train.vectors.take(np.sort(some)), np.ones(len(some)))[1].astype(np.float32)
        rows, partners = [], []
        for cell in below:
            own = cells.rows(cell)
            drawn = np.sort(np.resize(rng.permutation(own), min(target, len(own) * limit) - len(own)))
            rows.append(drawn)
            partners.append(self._partners(train, own, drawn, scale, rng))
        n_new = sum(map(len, rows))
        notes.append(f"{count_of(n_new, 'rows')} added, drawn towards a neighbour of their cell by up to half of the way")
        if n_limited := int((cells.sizes[below] * limit < target).sum()):
            notes.append(f"{n_limited} cells stopped at {limit} uses of a row")
        return _sorted_with(np.arange(len(train)), np.concatenate(rows), np.concatenate(partners), rng, tuple(notes))

    def _partners(
        self, train: SplitData, own: np.ndarray, drawn: np.ndarray, scale: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Returns a partner for each drawn row of a cell `own`: `[len(drawn)] int64`; the row itself where there is none."""
        from sklearn.neighbors import NearestNeighbors

        image = np.unique(train.image_id[own].astype(str), return_index=True, return_inverse=True)
        pool, image_of = own[image[1]], np.full(len(train), -1)  # copies of an image are looked for once
        image_of[own] = image[2]
        if len(pool) > self.settings.search_rows:
            pool = np.sort(rng.choice(pool, self.settings.search_rows, replace=False))
        k = min(self.settings.n_neighbors, len(pool) - 1)
        if k < 1:
            return drawn
        search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(train.vectors[pool] * scale)
        partners = np.empty(len(drawn), np.int64)
        for start in range(0, len(drawn), QUERIES_AT_ONCE):
            part = drawn[start : start + QUERIES_AT_ONCE]
            asked, which = np.unique(part, return_inverse=True)
            near = pool[search.kneighbors(train.vectors[asked] * scale, return_distance=False)]  # [a, k + 1], nearest first
            # Its own image is no partner: left out where it is found, the farthest of the k + 1 elsewhere.
            is_own = image_of[near] == image_of[asked][:, None]
            is_own[~is_own.any(axis=1), -1] = True
            near = near[~is_own].reshape(len(asked), k)
            best = _label_agreement(train.labels[asked], train.labels[near])
            best = best >= best.max(axis=1, keepdims=True)
            lot = np.where(best[which], rng.random((len(part), k)), -1).argmax(axis=1)
            partners[start : start + QUERIES_AT_ONCE] = near[which, lot]
        return partners


def _label_agreement(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of the labels that two rows both have on which they agree; 0 where they have none in common.

    Args:
        labels: `[a, L]`.
        others: `[a, k, L]`.

    Returns:
        `[a, k]`.
    """
    both = ~np.isnan(labels)[:, None] & ~np.isnan(others)
    return ((labels[:, None] == others) & both).sum(axis=2) / np.maximum(both.sum(axis=2), 1)


def _sorted_with(kept: np.ndarray, rows: np.ndarray, partners: np.ndarray, rng: np.random.Generator, notes: tuple) -> Sample:
    """Joins rows that stay as they are with rows drawn towards partners, in rising order."""
    drawn = np.where(partners == rows, 1, rng.uniform(0.5, 1, len(rows)))
    shares = np.r_[np.ones(len(kept)), drawn].astype(np.float32)
    rows, partners = np.r_[kept, rows], np.r_[kept, partners]
    order = np.argsort(rows, kind="stable")
    return Sample(rows[order], np.ones(len(rows), np.float32), notes, partners[order], shares[order])
