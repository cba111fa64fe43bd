"""Sampling slot: which training rows count, and how often."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import Member, SplitData

BALANCED_ATTRIBUTES = ("sex", "race", "age_group")
FEW = 10  # notes go into the report: no count of patients or rows below this stands in them


@dataclass(frozen=True)
class Sample:
    """A choice of training rows.

    Attributes:
        rows: `[m] int64` into the training split; a row may occur several times.
        weights: `[m] float32`, above 0.
        notes: what the method did, in words, for the report.
        partners: optional `[m] int64` into the training split: rows that the vectors are drawn towards.
        shares: with `partners`, `[m] float32` in (0, 1]: vector = share x own + (1 - share) x partner's. Labels, attributes
            and patient stay those of `rows`.
    """

    rows: np.ndarray
    weights: np.ndarray
    notes: tuple[str, ...] = ()
    partners: np.ndarray | None = None
    shares: np.ndarray | None = None

    def of(self, train: SplitData) -> SplitData:
        """Returns the rows that the head learns from."""
        taken = train.take(self.rows)
        if self.partners is None:
            return taken
        # Own rows, then the partners behind them, so that one table can mix the two.
        both, m = train.vectors.take(np.r_[self.rows, self.partners]), len(self.rows)
        partners = np.r_[np.arange(m, 2 * m), np.arange(m)]
        mixed = both.mixed(partners, np.r_[self.shares, np.ones(m, np.float32)]).take(np.arange(m))
        return dataclasses.replace(taken, vectors=mixed)

    def then(self, later: Sample, sampler: str) -> Sample:
        """Returns the two choices as one, `later` being a choice among this one's rows; weights multiply."""
        if self.partners is not None and later.partners is not None:
            raise InputError(f"{sampler} draws vectors towards each other, and so does a sampler before it: name one of them.")
        partners = shares = None
        if self.partners is not None:
            partners, shares = self.partners[later.rows], self.shares[later.rows]
        elif later.partners is not None:
            partners, shares = self.rows[later.partners], later.shares
        weights = self.weights[later.rows] * later.weights
        return Sample(self.rows[later.rows], weights, (*self.notes, *later.notes), partners, shares)


class Sampler(Member):
    """Chooses training rows. It returns row indices, so that vectors, groups and patients stay aligned.

    Attributes:
        uses_views: whether it may choose augmented views; any other sampler is shown the images only.
    """

    uses_views: ClassVar[bool] = False

    def sample(self, train: SplitData, *, seed: int) -> Sample:
        """Returns the rows to train on.

        Args:
            train: the training split, augmented views behind the images.
            seed: seed of the draw.

        Raises:
            ValueError: handed the test split, or the method returned no row, a row out of range, a weight at or below 0, or
                partners that are not rows with shares in (0, 1].
        """
        train.refuse_test(self.name)
        seen = train if self.uses_views else train.images()
        sample = self._sample(seen, np.random.default_rng(seed))
        if len(sample.rows) == 0 or sample.rows.min() < 0 or sample.rows.max() >= len(seen):
            raise ValueError(f"{self.name} must return rows of the training split; got {len(sample.rows)} rows.")
        if sample.weights.shape != sample.rows.shape or not (sample.weights > 0).all():
            raise ValueError(f"{self.name} must return one weight above 0 for each row.")
        if not _are_partners(sample, len(seen)):
            raise ValueError(
                f"{self.name} must return one partner among the rows and one share in (0, 1] for each row, or neither."
            )
        return sample

    @abstractmethod
    def _sample(self, train: SplitData, rng: np.random.Generator) -> Sample:
        """The method's own choice."""


def sample_in_order(samplers: list[Sampler], train: SplitData, *, seed: int) -> Sample:
    """Lets each sampler choose among the rows that the one before it chose.

    A sampler sees rows (drawn towards their partners, where they are), not the weights given to them before; weights
    multiply. Only the first sees augmented views apart from images.

    Args:
        samplers: at least one.
        train: the training split.
        seed: seed of the draws.
    """
    first, *others = samplers
    sample = first.sample(train, seed=seed)
    for number, sampler in enumerate(others, start=1):
        chosen = dataclasses.replace(sample.of(train), view_id=None)
        sample = sample.then(sampler.sample(chosen, seed=seed + number), sampler.name)
    return sample


def _are_partners(sample: Sample, n: int) -> bool:
    partners, shares = sample.partners, sample.shares
    if partners is None or shares is None:
        return partners is shares
    is_aligned = partners.shape == shares.shape == sample.rows.shape
    return is_aligned and ((partners >= 0) & (partners < n) & (shares > 0) & (shares <= 1)).all()


def count_of(n: int, what: str) -> str:
    """Returns a count of patients or rows as a note may say it: `"1,234 rows"`, `"fewer than 10 rows"`."""
    return f"{n:,} {what}" if n >= FEW or n == 0 else f"fewer than {FEW} {what}"


def plain_sample(rows: np.ndarray, notes: tuple[str, ...] = ()) -> Sample:
    """Returns rows of weight 1, in rising order."""
    rows = np.sort(np.asarray(rows, np.int64))
    return Sample(rows, np.ones(len(rows), np.float32), notes)
