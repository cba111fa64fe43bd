"""Raking: row weights under which every label's table of groups has the masses that were asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MASKED = 2
MAX_SWEEPS = 200
SWEEPS_PER_CHECK = 5
TOLERANCE = 1e-8
# However far raking must go where the tables asked for cannot be had, a row keeps a thousandth of an average row's weight.
MIN_WEIGHT = 1e-3


@dataclass(frozen=True)
class LabelTables:
    """Per label a table groups x (negative, positive, masked) of rows.

    Rows of one group with the same labels have the same weight, so what is computed is one weight per *pattern*.

    Attributes:
        codes: `[L, p] int64`, where a pattern stands in each label's table: 3 x group + value.
        rows_of_pattern: `[p] int64`, how many rows have it.
        pattern: `[n] int64`, each row's pattern.
        counts: `[L, G, 3] int64`, rows.
        takes_part: `[L, G] bool`, groups with enough positives and enough negatives; others are left out of that table.
    """

    codes: np.ndarray
    rows_of_pattern: np.ndarray
    pattern: np.ndarray
    counts: np.ndarray
    takes_part: np.ndarray

    @classmethod
    def of(cls, groups: np.ndarray, labels: np.ndarray, *, min_cell: int) -> LabelTables:
        """Counts.

        Args:
            groups: `[n]`, 0 to G - 1, each with a row.
            labels: `[n, L]` in {0, 1, NaN}.
            min_cell: rows that a group must have with each value of a label to take part in its table.
        """
        values = np.where(np.isnan(labels), MASKED, labels).astype(np.int64)  # [n, L]
        # One byte a value, read as one piece of text per row: much faster to sort than rows of numbers.
        bytes_of_row = np.c_[groups.astype(np.int64).view(np.uint8).reshape(len(groups), 8), values.astype(np.uint8)]
        text = np.ascontiguousarray(bytes_of_row).view(np.dtype((np.void, bytes_of_row.shape[1])))[:, 0]
        _, first, pattern, n = np.unique(text, return_index=True, return_inverse=True, return_counts=True)
        codes = (3 * groups[first][:, None] + values[first]).T
        shape = (int(groups.max()) + 1, 3)
        counts = np.array([np.bincount(c, n, minlength=3 * shape[0]) for c in codes]).reshape(-1, *shape).astype(np.int64)
        return cls(codes, n, pattern, counts, (counts[:, :, :MASKED] >= min_cell).all(axis=2))

    @property
    def group_sizes(self) -> np.ndarray:
        """Rows of each group: `[G] int64`."""
        return self.counts[0].sum(axis=1)

    @property
    def known_share(self) -> np.ndarray:
        """Share of a group's rows on which a label is not masked: `[L, G]`."""
        return self.counts[:, :, :MASKED].sum(axis=2) / self.group_sizes

    def masses(self, weights: np.ndarray) -> np.ndarray:
        """Returns the tables under weights of the patterns `[p]`: `[L, G, 3]`."""
        mass = weights * self.rows_of_pattern
        return np.array([np.bincount(c, mass, minlength=self.counts[0].size) for c in self.codes]).reshape(self.counts.shape)

    def rates(self, weights: np.ndarray) -> np.ndarray:
        """Positive rate of each label over the groups that take part: `[L]`; 0 where none does."""
        known = np.where(self.takes_part[:, :, None], self.masses(weights)[:, :, :MASKED], 0).sum(axis=1)  # [L, 2]
        return np.divide(known[:, 1], known.sum(axis=1), out=np.zeros(len(known)), where=known.sum(axis=1) > 0)

    def deviation(self, weights: np.ndarray, rates: np.ndarray) -> np.ndarray:
        """|positive rate of a group - the rate asked for|: `[L, G]`, 0 where the group does not take part."""
        known = self.masses(weights)[:, :, :MASKED]
        total = known.sum(axis=2)
        rate = np.divide(known[:, :, 1], total, out=np.zeros_like(total), where=total > 0)
        return np.where(self.takes_part, np.abs(rate - rates[:, None]), 0)


@dataclass(frozen=True)
class Raked:
    """What raking came to.

    Attributes:
        weights: `[n] float64`, of mean 1.
        deviation: `[L, G]`, how far a group's positive rate stays from the rate asked for; 0 where it does not take part.
        of_pattern: `[p] float64`, the same weights by pattern.
        is_at_limit: `[n] bool`, rows that would weigh more without the limit.
    """

    weights: np.ndarray
    deviation: np.ndarray
    of_pattern: np.ndarray
    is_at_limit: np.ndarray


def rake(tables: LabelTables, start: np.ndarray, *, rates: np.ndarray, max_weight: float) -> Raked:
    """Changes weights until each label has one positive rate in all groups that take part, and each group its total.

    Iterative proportional fitting: label after label, `w_i <- w_i x (mass asked for) / (mass)` of the cell that row i stands
    in, until no rate is off by 1e-8 or for 200 sweeps. Asked for, in group g with total t, share k of unmasked rows
    and rate q: `t k q` positive, `t k (1 - q)` negative, `t (1 - k)` masked. Where weights with these tables exist, the result
    is the one of them that is nearest to the start in Kullback-Leibler divergence (Csiszar, Annals of Probability, 1975).

    After every sweep weights above `max_weight` are cut to it. What is cut off a group lowers its total, so that its rates can
    still be had; but each sweep asks again for the smaller of its rows and its total in the start, so that rates which cannot
    be had do not make a group vanish. The deviation says how far rates are off in the end.

    References: Deming and Stephan, Annals of Mathematical Statistics, 1940; for limits on weights Deville and Sarndal, JASA,
    1992 (their limits are on the change of a weight).

    Args:
        tables: of the rows.
        start: `[p]` weights of the patterns to begin with, above 0 and of mean 1 over the rows. Each group's sum is its total.
        rates: `[L]`; read only for labels that a group takes part in.
        max_weight: most that a row may weigh.
    """
    weights, n, groups = start.copy(), tables.rows_of_pattern, tables.codes[0] // 3
    n_groups = len(tables.group_sizes)
    least = np.minimum(tables.group_sizes, np.bincount(groups, weights * n, minlength=n_groups))
    known = tables.known_share
    # Shares of a group's total in each cell of a label's table, [L, 3 G] as the codes count.
    asked = np.stack([known * (1 - rates[:, None]), known * rates[:, None], 1 - known], axis=2).reshape(len(rates), -1)
    takes_part = np.repeat(tables.takes_part, 3, axis=1)
    for sweep in range(1, MAX_SWEEPS + 1):
        totals = np.repeat(np.maximum(np.bincount(groups, weights * n, minlength=n_groups), least), 3)
        for codes, share, is_asked in zip(tables.codes, asked, takes_part, strict=True):
            mass = np.bincount(codes, weights * n, minlength=len(share))
            weights *= np.divide(totals * share, mass, out=np.ones_like(mass), where=is_asked & (mass > 0))[codes]
        weights = np.clip(weights * (n.sum() / (weights @ n)), MIN_WEIGHT, max_weight)
        is_even = abs(weights @ n / n.sum() - 1) < TOLERANCE
        if sweep % SWEEPS_PER_CHECK == 0 and is_even and tables.deviation(weights, rates).max() < TOLERANCE:
            break
    weights = _with_mean_one(weights, n, max_weight)
    is_at_limit = weights >= max_weight
    return Raked(weights[tables.pattern], tables.deviation(weights, rates), weights, is_at_limit[tables.pattern])


def _with_mean_one(weights: np.ndarray, n: np.ndarray, max_weight: float) -> np.ndarray:
    """Scales weights to mean 1 where the limits have changed it; the limits hold afterwards as before."""
    for _ in range(100):
        mean = (weights @ n) / n.sum()
        if abs(mean - 1) < 1e-12:
            break
        weights = np.clip(weights / mean, MIN_WEIGHT, max_weight)
    return weights
