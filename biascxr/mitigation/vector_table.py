"""Vectors that are read when they are needed: rows of a store on disk, chosen, transformed and mixed without a copy of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

ROWS_PER_CHUNK = 8192
# A transformed table up to this size is made once and kept; a larger one is made anew, batch by batch, in every epoch.
KEEP_IN_MEMORY = 512 * 2**20
# A direction with less than this share of the largest one's variance is empty: rounding of sums in float64 leaves about 1e-16
# of it, times the number of columns.
EIGENVALUE_TOLERANCE = 1e-12


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

    def __getitem__(self, rows: int | np.ndarray | slice) -> np.ndarray:
        if isinstance(rows, (int, np.integer)):
            return self._read(self._row_numbers([rows]))[0]
        return self._read(self._row_numbers(rows))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("A VectorTable is read, not viewed: it has no array that needs no copy.")
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
        rows = self._row_numbers(rows)
        return VectorTable(lambda chosen: self._read(rows[chosen]), (len(rows), self.shape[1]))

    def _row_numbers(self, rows: np.ndarray | slice) -> np.ndarray:
        """Returns what an array would be indexed with as row numbers `[b] int64` from 0 on.

        Raises:
            IndexError: a row that is not there, or a mask of another length.
        """
        n = len(self)
        if isinstance(rows, slice):
            return np.arange(n)[rows]
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if rows.shape != (n,):
                raise IndexError(f"A mask over {n} rows must have one value for each; got shape {rows.shape}.")
            return np.flatnonzero(rows)
        if rows.size and not np.issubdtype(rows.dtype, np.integer):
            raise IndexError(f"Rows are chosen by whole numbers or a mask; got {rows.dtype}.")
        rows = rows.astype(np.int64, copy=False)
        if rows.size and not (-n <= rows.min() and rows.max() < n):
            raise IndexError(f"Rows must lie in 0 to {n - 1}; got {rows.min()} to {rows.max()}.")
        return np.where(rows < 0, rows + n, rows)  # a row of another table may stand behind: -1 must be this one's last

    def followed_by(self, other: VectorTable) -> VectorTable:
        """Returns this table's rows and, behind them, another's.

        Raises:
            ValueError: the other's vectors are of another length.
        """
        n = len(self)
        if other.shape[1] != self.shape[1]:
            raise ValueError(
                f"Vectors of one table have one length; these have {self.shape[1]} numbers, those to follow {other.shape[1]}."
            )

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

    Raises:
        ValueError: weights of another length, or with a sum of 0.
    """
    total, weight = np.zeros(vectors.shape[1]), _total_weight(vectors, weights)
    for rows, chunk in vectors.chunks():
        total += weights[rows].astype(np.float64) @ chunk.astype(np.float64)
    return total / weight


def weighted_covariance(vectors: VectorTable, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Covariance of the columns `[d, d]` in float64: weights sum to one, the divisor is n.

    Args:
        vectors: `[n, d]`.
        weights: `[n]`, at least 0, with a sum above 0.
        mean: `[d]`, their weighted mean.
    """
    total, weight = np.zeros((vectors.shape[1], vectors.shape[1])), _total_weight(vectors, weights)
    for rows, chunk in vectors.chunks():
        scaled = (chunk - mean) * np.sqrt(weights[rows, None].astype(np.float64))
        total += scaled.T @ scaled  # one array twice: NumPy then computes one triangle only, and the result is symmetric
    return total / weight


def weighted_cross_covariance(vectors: VectorTable, other: np.ndarray, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Covariance of each column with each of another table's, `[d, k]` in float64; the divisor is n.

    Args:
        vectors: `[n, d]`.
        other: `[n, k] float64`, already centred: its columns' weighted means are 0.
        weights: `[n]`, with a sum above 0.
        mean: `[d]`, the vectors' weighted mean.
    """
    total, weight = np.zeros((vectors.shape[1], other.shape[1])), _total_weight(vectors, weights)
    for rows, chunk in vectors.chunks():
        total += (chunk - mean).T @ (other[rows] * weights[rows, None].astype(np.float64))
    return total / weight


def weighted_variance(vectors: VectorTable, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Variance of each column `[d]` in float64; arguments as in `weighted_covariance`."""
    total, weight = np.zeros(vectors.shape[1]), _total_weight(vectors, weights)
    for rows, chunk in vectors.chunks():
        total += weights[rows].astype(np.float64) @ np.square(chunk - mean)
    return total / weight


def principal_axes(
    vectors: VectorTable, weights: np.ndarray, mean: np.ndarray, scale: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of the covariance of the columns, those left out that are rounding.

    Args:
        vectors: `[n, d]`.
        weights: `[n]`, at least 0, with a sum above 0.
        mean: `[d]`, their weighted mean.
        scale: `[d]`, a factor for each column; 1 / deviation gives the axes of the correlation matrix.

    Returns:
        Variances `[r]`, falling, each above `EIGENVALUE_TOLERANCE` of the first, and axes `[d, r]`, all in float64.
    """
    n, d = vectors.shape
    scale = np.ones(d) if scale is None else scale
    if n < d:  # the rows themselves are the smaller problem
        root = np.sqrt(weights[:, None].astype(np.float64) / _total_weight(vectors, weights))
        _, sizes, rows = np.linalg.svd((vectors[:] - mean) * scale * root, full_matrices=False)
        values, axes = np.square(sizes), rows.T
    else:
        values, axes = np.linalg.eigh(weighted_covariance(vectors, weights, mean) * np.outer(scale, scale))
        values, axes = values[::-1], axes[:, ::-1]
    kept = values > EIGENVALUE_TOLERANCE * values[0]
    return values[kept], axes[:, kept]


def _total_weight(vectors: VectorTable, weights: np.ndarray) -> float:
    total = weights.sum(dtype=np.float64)
    if weights.shape != (len(vectors),) or not total > 0:
        raise ValueError(
            f"Moments need one weight per row and a total above 0; got weights {weights.shape} of total {total:g} for "
            f"{len(vectors)} rows."
        )
    return total


def mean_and_scale(vectors: VectorTable, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each column and the factor that brings it to deviation 1: two `[d] float64`.

    The factor is 0 for a column whose deviation is lost in rounding: it is constant, and scaling it up would blow noise up to
    size 1.

    Args:
        vectors: `[n, d]`.
        weights: `[n]`, with a sum above 0.
    """
    mean = weighted_mean(vectors, weights)
    variance = weighted_variance(vectors, weights, mean)
    varies = variance > (1e-6 * np.abs(mean)) ** 2
    return mean, np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0.0)
