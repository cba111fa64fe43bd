"""Vectors that point the same way, in different splits: exact, without holding them: 0.25 KB for each, not d numbers.

`cos(u, v)` of unit vectors splits into a part within k directions and a rest: `p . q + rest . rest`. By Cauchy and Schwarz
the rest is at most `|rest u| |rest v|`, so with the length of the rest as one more coordinate the short vectors' product is
never below the cosine. Whatever stays below the limit there is done with, the others are looked at in full. The k
directions are the principal ones of a sample, for speed only: any would give the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from sklearn.utils.extmath import randomized_svd

N_DIRECTIONS = 63
N_SAMPLE = 4096
N_BLOCK, N_TILE = 1024, 8192  # 32 MiB of products at a time
N_READ = 4096  # vectors read at a time
SLACK = 1e-5  # float32 products are off by less
# A vector nearer to the mean than this share of its length has no direction but that of its rounding.
NO_DIRECTION = 1e-6


@dataclass(frozen=True)
class NearCopies:
    """Which rows have a near copy elsewhere.

    Attributes:
        found: `[n, n_groups] bool`: the row has a near copy in that group; never in its own.
        pairs: one pair of rows for each that was needed to know `found`, as they were met.
    """

    found: np.ndarray
    pairs: list[tuple[int, int]] = field(default_factory=list)


class _Directions:
    """Unit vectors around the mean, read from disk as they are needed."""

    def __init__(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        self.vectors, self.rows = vectors, rows
        parts = self._parts()
        self.mean = sum(vectors[rows[part]].sum(axis=0, dtype=np.float64) for part in parts) / max(len(rows), 1)

    def _parts(self) -> list[slice]:
        return [slice(start, start + N_READ) for start in range(0, len(self.rows), N_READ)]

    def __call__(self, which: np.ndarray | slice) -> np.ndarray:
        """Returns unit vectors `[m, d] float64`; zero where there is no direction."""
        raw = np.asarray(self.vectors[self.rows[which]], np.float64)
        centred = raw - self.mean
        length = np.sqrt(np.einsum("ij,ij->i", centred, centred))
        least = NO_DIRECTION * (np.sqrt(np.einsum("ij,ij->i", raw, raw)) + np.linalg.norm(self.mean))
        has_one = length > least
        return centred * np.where(has_one, 1.0 / np.where(has_one, length, 1.0), 0.0)[:, None]

    def shortened(self) -> np.ndarray:
        """Returns `[n, k + 1] float32` whose products are not below the cosines; zero where there is no direction."""
        n, d = len(self.rows), self.vectors.shape[1]
        sample = self(np.linspace(0, n - 1, min(n, N_SAMPLE)).astype(np.int64))
        k = min(N_DIRECTIONS, d, len(sample))
        basis = randomized_svd(sample, k, random_state=0)[2].T  # [d, k]
        short = np.empty((n, k + 1), np.float32)
        for part in self._parts():
            unit = self(part)
            within = unit @ basis
            rest = np.einsum("ij,ij->i", unit, unit) - np.einsum("ij,ij->i", within, within)
            short[part, :k] = within
            short[part, k] = np.sqrt(np.maximum(rest, 0.0))
        return short


def near_copies(
    vectors: np.ndarray, group: np.ndarray, *, rows: np.ndarray | None = None, n_groups: int, cosine: float
) -> NearCopies:
    """Finds the rows that have a near copy in another group.

    Args:
        vectors: `[N, d] float32` or `float16`, may be memory-mapped.
        group: `[n]` in 0 to n_groups - 1; rows of one group are not compared.
        rows: `[n]` the vectors to compare; default: all.
        n_groups: number of groups.
        cosine: a pair above it, after the mean of all rows is taken off, is a near copy.
    """
    n = len(group)
    rows = np.arange(len(vectors)) if rows is None else rows
    result = NearCopies(np.zeros((n, n_groups), bool))
    if n < 2:
        return result
    unit = _Directions(vectors, rows)
    short = unit.shortened()
    # Along the first direction near copies lie near each other too: |u - v|^2 = 2 - 2 cos.
    order = np.argsort(short[:, 0], kind="stable")
    short = short[order]
    reach = np.sqrt(2 - 2 * cosine) + SLACK
    own = np.zeros_like(result.found)
    own[np.arange(n), group] = True
    for start in range(0, n, N_BLOCK):
        block = np.arange(start, min(start + N_BLOCK, n))
        window = np.arange(start, np.searchsorted(short[:, 0], short[block[-1], 0] + reach, side="right"))
        if (result.found | own)[order[block]].all():  # then only rows that still lack something are worth looking at
            window = window[~(result.found | own)[order[window]].all(axis=1)]
        for first in range(0, len(window), N_TILE):
            tile = window[first : first + N_TILE]
            hits = np.flatnonzero(short[block] @ short[tile].T > cosine - SLACK)
            a, b = block[hits // len(tile)], tile[hits % len(tile)]
            after = b > a
            _settle(order[a[after]], order[b[after]], group, unit, cosine, result)
    return result


def _settle(a: np.ndarray, b: np.ndarray, group: np.ndarray, unit: _Directions, cosine: float, result: NearCopies) -> None:
    """Looks at pairs in full, as long as they can tell something new: in a heap of copies one partner per group will do."""
    found, n_groups = result.found, result.found.shape[1]
    differ = group[a] != group[b]
    a, b = a[differ], b[differ]
    while len(a):
        needed = ~(found[a, group[b]] & found[b, group[a]])
        a, b = a[needed], b[needed]
        chosen = np.union1d(_firsts(a * n_groups + group[b]), _firsts(b * n_groups + group[a]))
        for start in range(0, len(chosen), N_READ):
            part = chosen[start : start + N_READ]
            near = np.einsum("ij,ij->i", unit(a[part]), unit(b[part])) > cosine
            own, other = a[part][near], b[part][near]
            found[own, group[other]] = True
            found[other, group[own]] = True
            result.pairs.extend(zip(own.tolist(), other.tolist(), strict=True))
        left = np.ones(len(a), bool)
        left[chosen] = False
        a, b = a[left], b[left]


def _firsts(keys: np.ndarray) -> np.ndarray:
    """Returns the first position of every key."""
    return np.unique(keys, return_index=True)[1]
