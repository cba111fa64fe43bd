"""Exact nearest neighbours of many vectors: a search in float32 that proves its answer, ranked in float64.

Scikit-learn's brute force multiplies in float64. Single precision is twice as fast, and enough to tell which few rows can be
among the nearest: a matrix product of d terms is wrong by a known bound at most (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, equation 3.5: |fl(q.t) - q.t| <= gamma_d |q||t|, gamma_d = d u / (1 - d u), in any order of summation). So
each query keeps its k + `SPARE` candidates by a lower bound of their distance, these are ranked by the distance in float64, and
the answer stands where the k-th is nearer than the bound of all rows that were not kept. Queries where it is not (many
duplicates, clusters far tighter than the cloud) are searched again in float64.

The bound splits into a part of the row and one of the query, so it costs nothing while searching: with vectors centred and
scaled, 2 |q||t| <= |q|^2 + |t|^2, hence |t - q|^2 >= (1 - e)|t|^2 - 2 fl(q.t) + (1 - e)|q|^2, e = gamma_(d + 12). The twelve
beyond d pay for the rounding of the centred vectors (|c - fl(c)| <= u |c|; five), of norms, of the sum, and for slack.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from biascxr.errors import InputError

SPARE = 50
QUERY_BLOCK, ROW_BLOCK = 1024, 1024
FILTER = 64  # columns that are compared with the worst candidate all together, before any is looked at by itself
# Below so many multiplications the pass in float64 is done before numba has compiled the search.
SMALL_WORK = 4e9
EXACT_CELLS = 4_000_000  # query x row cells of float64 held at once
U32, U64 = 2.0**-24, 2.0**-53
FAR = 1e15  # a query so many times farther out than the farthest row would overflow float32 when squared
UNDERFLOW = 1e-30  # far above d products below the smallest float32, far below a scaled distance that it could decide


@dataclass(frozen=True)
class _Cloud:
    """The rows to search in, centred and scaled by a power of two.

    Attributes:
        given: `[n, d] float32`, as they came.
        scaled: `[n, d] float32`.
        bound: `[n] float32`, (1 - e) |t|^2, rounded down.
        centre: `[d] float64`.
        scale: what centred vectors are multiplied by.
        e: the relative bound, see above.
    """

    given: np.ndarray
    scaled: np.ndarray
    bound: np.ndarray
    centre: np.ndarray
    scale: float
    e: float


def nearest_neighbours(
    train: np.ndarray, queries: np.ndarray, k: int, *, is_always_searched_in_float32: bool = False
) -> np.ndarray:
    """Finds the k nearest rows of each query by Euclidean distance, exactly.

    Rows at the same distance (computed in float64 from the given values) come in the order of their numbers. The processor's
    cores are used as numba's and the BLAS library's settings allow (`NUMBA_NUM_THREADS`, `OMP_NUM_THREADS`).

    Args:
        train: `[n, d] float32`.
        queries: `[m, d] float32`.
        k: number of neighbours, 1 to n.
        is_always_searched_in_float32: also where the work is so small that float64 would be quicker; the answer is the same.

    Returns:
        `[m, k] int64`, row numbers in train, nearest first. Beside the arguments, memory of about `n x d` float32 is used.

    Raises:
        InputError: other shapes or dtypes, k out of range, or a value that is not finite.
    """
    _check(train, queries, k)
    n, d = train.shape
    if len(queries) == 0:
        return np.empty((0, k), np.int64)
    centre = np.mean(train, axis=0, dtype=np.float64)
    if not np.isfinite(centre).all() or not np.isfinite(np.sum(queries, dtype=np.float64)):
        raise InputError(
            "train and queries must hold finite values; received NaN or infinity. Leave those rows out, or fix the encoder."
        )
    n_workers = _count_workers()
    found = np.empty((len(queries), k), np.int64)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_workers) as pool:
        # Each worker multiplies and selects by itself: threads inside the product would wait for each other twice a block.
        open_rows, cutoff = np.arange(len(queries)), np.full(len(queries), np.inf)
        if is_always_searched_in_float32 or n * d * len(queries) > SMALL_WORK:
            cloud = _centred(train, centre, pool)
            parts = list(_even_parts(len(queries), QUERY_BLOCK, n_workers))
            is_proven = list(pool.map(lambda own: _search(cloud, queries[own], k, found[own], cutoff[own]), parts))
            open_rows = np.flatnonzero(~np.concatenate(is_proven))
            del cloud
        if len(open_rows):
            norms = np.concatenate([_square_norms(train[own] - centre) for own in _even_parts(n, ROW_BLOCK, 1)])
            block = max(1, min(256, EXACT_CELLS // n))
            pieces = [open_rows[own] for own in _even_parts(len(open_rows), block, n_workers)]
            exact = pool.map(lambda rows: _search_exactly(train, norms, centre, queries[rows], k, cutoff[rows]), pieces)
            for rows, neighbours in zip(pieces, exact, strict=True):
                found[rows] = neighbours
    return found


def _check(train: np.ndarray, queries: np.ndarray, k: int) -> None:
    for name, x in (("train", train), ("queries", queries)):
        if x.ndim != 2 or x.dtype != np.float32:
            raise InputError(f"{name} must be [rows, d] float32; received shape {x.shape}, {x.dtype}. Convert it beforehand.")
    if train.shape[1] != queries.shape[1] or train.shape[1] == 0:
        raise InputError(
            f"train and queries must have vectors of one length, 1 or more; received {train.shape[1]} and {queries.shape[1]}."
        )
    if not 1 <= k <= len(train):
        raise InputError(f"k must be from 1 to the number of training rows, {len(train)}; received {k}. Ask for fewer.")


def _count_workers() -> int:
    blas = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    return max(1, min([numba.get_num_threads(), *blas]))


def _even_parts(n: int, largest: int, n_workers: int) -> Iterator[slice]:
    """Yields slices of at most `largest` rows that differ by one row at most, a multiple of the workers where n allows."""
    n_parts = min(n, -(-n // (largest * n_workers)) * n_workers)
    edges = np.linspace(0, n, n_parts + 1).astype(int)
    for start, stop in itertools.pairwise(edges):
        yield slice(start, stop)


def _square_norms(x: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", x, x, dtype=np.float64)


def _centred(train: np.ndarray, centre: np.ndarray, pool: ThreadPoolExecutor) -> _Cloud:
    n, d = train.shape
    largest = max(np.abs(part).max() for part in (train.max(0) - centre, train.min(0) - centre))
    scale = 2.0 ** -np.ceil(np.log2(largest)) if largest > 0 else 1.0
    scaled, norms = np.empty((n, d), np.float32), np.empty(n)
    parts = _even_parts(n, ROW_BLOCK, 1)
    list(pool.map(lambda own: _centre_rows(train[own], centre, scale, scaled[own], norms[own]), parts))
    e = (d + 12) * U32 / (1 - (d + 12) * U32)
    bound = np.nextafter(((1 - e) * norms - UNDERFLOW).astype(np.float32), np.float32(-np.inf))
    return _Cloud(train, scaled, bound, centre, scale, e)


def _search(cloud: _Cloud, queries: np.ndarray, k: int, found: np.ndarray, cutoff: np.ndarray) -> np.ndarray:
    """Fills `found [b, k]`, and in `cutoff [b]` a square distance that k rows do not exceed; returns `[b] bool`: proven?"""
    b, n = len(queries), len(cloud.given)
    centred = (queries - cloud.centre) * cloud.scale
    is_far = np.abs(centred).max(1) > FAR
    centred[is_far] = 0
    centred = centred.astype(np.float32)
    n_kept = min(k + SPARE, n)
    bounds, kept = np.full((b, n_kept), np.inf, np.float32), np.zeros((b, n_kept), np.int64)
    doubled, products = -2 * centred, np.empty((b, ROW_BLOCK), np.float32)
    for start in range(0, n, ROW_BLOCK):
        rows = cloud.scaled[start : start + ROW_BLOCK]
        own = products[:, : len(rows)] if len(rows) == ROW_BLOCK else np.empty((b, len(rows)), np.float32)
        np.matmul(doubled, rows.T, out=own)
        _keep_lowest(own, cloud.bound[start : start + len(rows)], start, bounds, kept)
    distance = np.empty((b, n_kept))
    _square_distances(cloud.given, queries, kept, distance)
    order = np.lexsort((kept, distance), axis=1)[:, :k]
    found[:] = np.take_along_axis(kept, order, 1)
    farthest = np.take_along_axis(distance, order[:, -1:], 1)[:, 0] * (1 + (queries.shape[1] + 4) * 2 * U64)
    cutoff[:] = farthest
    if n_kept == n:
        return np.ones(b, bool)
    beyond = bounds[:, 0] + (1 - cloud.e) * _square_norms(centred) - UNDERFLOW  # every row that was not kept is as far
    return (farthest * cloud.scale**2 < beyond) & ~is_far


def _search_exactly(
    train: np.ndarray, norms: np.ndarray, centre: np.ndarray, queries: np.ndarray, k: int, cutoff: np.ndarray
) -> np.ndarray:
    """Finds the neighbours `[b, k]` with products in float64; every row that could be one is ranked by its own distance."""
    b, (n, d) = len(queries), train.shape
    centred = queries - centre
    own_norms = _square_norms(centred)
    low = np.empty((b, n))
    for own in _even_parts(n, ROW_BLOCK, 1):
        low[:, own] = (-2 * centred) @ (train[own] - centre).T
    e = (d + 12) * U64 / (1 - (d + 12) * U64)
    low += (1 - e) * norms
    low += ((1 - e) * own_norms)[:, None]  # now the lower bounds of the square distances
    neighbours = np.empty((b, k), np.int64)
    for i, query in enumerate(queries):
        limit = cutoff[i]
        if np.isinf(limit):
            limit = np.partition(low[i] + 2 * e * (norms + own_norms[i]), k - 1)[k - 1]
        rows = np.flatnonzero(low[i] <= limit)
        distance = np.empty(len(rows))
        for start in range(0, len(rows), ROW_BLOCK):
            part = rows[start : start + ROW_BLOCK]
            distance[start : start + ROW_BLOCK] = _square_norms(train[part] - query.astype(np.float64))
        neighbours[i] = rows[np.argsort(distance, kind="stable")[:k]]
    return neighbours


@numba.njit(nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def _centre_rows(train, centre, scale, scaled, norms):
    """Fills centred and scaled rows, and their square norms in float64."""
    for i in range(train.shape[0]):
        total, row, made = 0.0, train[i], scaled[i]
        for c in range(len(row)):
            made[c] = np.float32((row[c] - centre[c]) * scale)
        for c in range(len(row)):
            total += np.float64(made[c]) * np.float64(made[c])
        norms[i] = total


@numba.njit(nogil=True, fastmath={"nnan", "nsz", "contract"}, error_model="numpy")
def _keep_lowest(products, bound, first, bounds, kept):
    """Puts each row's lowest `bound + products` into its heap, the highest of the heap at its top."""
    n_columns, n_kept = products.shape[1], bounds.shape[1]
    for i in range(products.shape[0]):
        row, heap, own = products[i], bounds[i], kept[i]
        for start in range(0, n_columns, FILTER):
            stop = min(start + FILTER, n_columns)
            products_here, bounds_here, worst = row[start:stop], bound[start:stop], heap[0]
            is_any_lower = np.int32(0)  # 32 bits beside float32, so that eight columns are compared at once
            for j in range(stop - start):
                is_any_lower |= np.int32(products_here[j] + bounds_here[j] < worst)
            if not is_any_lower:
                continue
            for j in range(start, stop):
                value = row[j] + bound[j]
                if value < heap[0]:
                    place = 0
                    while True:
                        child = 2 * place + 1
                        if child >= n_kept:
                            break
                        if child + 1 < n_kept and heap[child + 1] > heap[child]:
                            child += 1
                        if heap[child] <= value:
                            break
                        heap[place], own[place] = heap[child], own[child]
                        place = child
                    heap[place], own[place] = value, first + j


@numba.njit(nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def _square_distances(train, queries, rows, distance):
    """Square distances in float64 of each query to its rows; equal vectors get equal distances."""
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            row, total = train[rows[i, j]], 0.0
            for c in range(train.shape[1]):
                difference = np.float64(row[c]) - np.float64(queries[i, c])
                total += difference * difference
            distance[i, j] = total
