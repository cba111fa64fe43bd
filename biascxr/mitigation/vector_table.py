"""Vectors that are read when they are needed: rows of a store on disk, chosen, transformed and mixed without a copy of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

ROWS_PER_CHUNK = 8192
# A transformed table up to this size is made once and kept; a larger one is made anew, batch by batch, in every epoch.
KEEP_IN_MEMORY = 512 * 2**20


class VectorTable:
    """`[n, d] float32`, read by row numbers.

    It is indexed as an array is (`table[rows]`, `table[3:7]`), and `np.asarray(table)` reads all of it. What it is taken or
    transformed from stays where it is, so that one store on disk serves every recipe.

    Args:
        read: row numbers `[b] int64` -> vectors `[b, d] float32`.
        shape: (n, d).
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], shape: tuple[int, int]) -> None:
        self._read, self.shape = read, shape

    @classmethod
    def of(cls, vectors: np.ndarray | VectorTable) -> VectorTable:
        """Wraps an array `[n, d]`, in memory or memory-mapped; a table is returned as it is."""
        if isinstance(vectors, cls):
            return vectors
        if vectors.ndim != 2:
            raise ValueError(f"Vectors must be [n, d]; got shape {vectors.shape}.")
        return cls(lambda rows: np.asarray(vectors[rows], np.float32), vectors.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        rows = np.asarray(rows)
        return self._read(np.flatnonzero(rows) if rows.dtype == bool else rows)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        out = np.empty(self.shape, np.float32)
        for rows, vectors in self.chunks():
            out[rows] = vectors
        return out if dtype is None else out.astype(dtype, copy=False)

    def chunks(self, size: int = ROWS_PER_CHUNK) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields (slice of rows, their vectors) from first to last."""
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self[rows]

    def take(self, rows: np.ndarray) -> VectorTable:
        """Returns these rows, in this order; a row may occur several times. Nothing is read."""
        rows = np.asarray(rows, np.int64)
        return VectorTable(lambda chosen: self._read(rows[chosen]), (len(rows), self.shape[1]))

    def followed_by(self, other: VectorTable) -> VectorTable:
        """Returns this table's rows and, behind them, another's."""
        n = len(self)

        def read(rows: np.ndarray) -> np.ndarray:
            out = np.empty((len(rows), self.shape[1]), np.float32)
            is_own = rows < n
            out[is_own] = self._read(rows[is_own])
            out[~is_own] = other._read(rows[~is_own] - n)
            return out

        return VectorTable(read, (n + len(other), self.shape[1]))

    def mixed(self, partners: np.ndarray, shares: np.ndarray) -> VectorTable:
        """Returns rows drawn towards others: `shares x own + (1 - shares) x partner`.

        Args:
            partners: `[n] int64`, rows of this table.
            shares: `[n] float32` in [0, 1]; 1 leaves a row as it is.
        """
        shares = np.asarray(shares, np.float32)[:, None]

        def read(rows: np.ndarray) -> np.ndarray:
            own, share = self._read(rows), shares[rows]
            drawn = np.flatnonzero(share[:, 0] < 1)
            if len(drawn):
                own[drawn] = share[drawn] * own[drawn] + (1 - share[drawn]) * self._read(partners[rows[drawn]])
            return own

        return VectorTable(read, self.shape)

    def transformed(self, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> VectorTable:
        """Returns the table whose rows are `function(vectors [b, d], rows [b]) -> [b, d']`; rows must not depend on each other.

        It is kept in memory where it is small enough (`KEEP_IN_MEMORY`), and made as it is read otherwise.
        """
        width = function(self._read(np.arange(min(1, len(self)))), np.arange(min(1, len(self)))).shape[1]
        lazy = VectorTable(lambda rows: np.asarray(function(self._read(rows), rows), np.float32), (len(self), width))
        is_small = lazy.shape[0] * width * 4 <= KEEP_IN_MEMORY
        return VectorTable.of(np.asarray(lazy)) if is_small else lazy


def weighted_mean(vectors: VectorTable, weights: np.ndarray) -> np.ndarray:
    """Mean of each column, in float64 whatever the type of the vectors.

    Args:
        vectors: `[n, d]`.
        weights: `[n]`, with a sum above 0.
    """
    total = np.zeros(vectors.shape[1])
    for rows, chunk in vectors.chunks():
        total += weights[rows].astype(np.float64) @ chunk.astype(np.float64)
    return total / weights.sum(dtype=np.float64)


def weighted_covariance(vectors: VectorTable, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Covariance of the columns `[d, d]` in float64: weights sum to one, the divisor is n.

    Args:
        vectors: `[n, d]`.
        weights: `[n]`, with a sum above 0.
        mean: `[d]`, their weighted mean.
    """
    total = np.zeros((vectors.shape[1], vectors.shape[1]))
    for rows, chunk in vectors.chunks():
        centred = chunk - mean
        total += (centred * weights[rows, None].astype(np.float64)).T @ centred
    return total / weights.sum(dtype=np.float64)


def weighted_variance(vectors: VectorTable, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Variance of each column `[d]` in float64; arguments as in `weighted_covariance`."""
    total = np.zeros(vectors.shape[1])
    for rows, chunk in vectors.chunks():
        total += weights[rows].astype(np.float64) @ np.square(chunk - mean)
    return total / weights.sum(dtype=np.float64)
