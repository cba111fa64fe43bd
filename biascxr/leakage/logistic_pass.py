"""Cross-entropy of a logistic regression and its gradient in one pass over the vectors, in blocks and on all cores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from scipy import special

ROWS_PER_TASK = 4096
ROWS_PER_BLOCK = 64  # summed in float32 before they go to float64
SMALL_SIZE = 5_000_000  # numbers; numpy has passed over so few for every step before numba has compiled


@dataclass(frozen=True)
class RowSums:
    """Weighted sums over rows.

    Attributes:
        loss: of the cross-entropy.
        slope: `[o, d] float64`, its gradient by the coefficients.
        by_intercept: `[o] float64`, its gradient by the intercept.
    """

    loss: float
    slope: np.ndarray
    by_intercept: np.ndarray

    def divided(self, total: float) -> RowSums:
        """Returns the sums over so much."""
        return RowSums(self.loss / total, self.slope / total, self.by_intercept / total)


def pass_over_rows(
    vectors: np.ndarray,
    codes: np.ndarray,
    weights: np.ndarray,
    coefficients: np.ndarray,
    intercept: np.ndarray,
    *,
    pool: ThreadPoolExecutor,
) -> RowSums:
    """Sums the weighted cross-entropy and its gradient; products in float32, sums in float64.

    Args:
        vectors: `[n, d] float32`, contiguous.
        codes: `[n] int64`, the group of each row.
        weights: `[n] float64`.
        coefficients: `[o, d] float64`, o = 1 for two groups, else their number; used in float32.
        intercept: `[o] float64`.
        pool: threads that share the rows. Sums are added in the order of the rows, whichever was first, so that the same rows
            give the same sums.
    """
    used = coefficients.astype(np.float32)
    row_sums = _plain_row_sums if vectors.size <= SMALL_SIZE else _row_sums

    def task(own: slice) -> RowSums:
        slope, by_intercept = np.zeros(used.shape), np.zeros(len(used))
        loss = row_sums(vectors[own], codes[own], weights[own], used, intercept, slope, by_intercept)
        return RowSums(loss, slope, by_intercept)

    loss, slope, by_intercept = 0.0, np.zeros(used.shape), np.zeros(len(used))
    for part in pool.map(task, _tasks(len(codes))):
        loss += part.loss
        slope += part.slope
        by_intercept += part.by_intercept
    return RowSums(loss, slope, by_intercept)


def _tasks(n: int) -> Iterator[slice]:
    for first in range(0, n, ROWS_PER_TASK):
        yield slice(first, min(first + ROWS_PER_TASK, n))


def _plain_row_sums(vectors, codes, weights, coefficients, intercept, slope, by_intercept):
    """What `_row_sums` gives, by numpy."""
    logits = (vectors @ coefficients.T).astype(np.float64) + intercept
    if logits.shape[1] == 1:
        losses = np.logaddexp(0, -(2 * codes - 1) * logits[:, 0])
        residuals = special.expit(logits) - codes[:, None]
    else:
        rows = np.arange(len(codes))
        losses = special.logsumexp(logits, axis=1) - logits[rows, codes]
        residuals = special.softmax(logits, axis=1)
        residuals[rows, codes] -= 1
    residuals *= weights[:, None]
    slope += residuals.T.astype(np.float32) @ vectors
    by_intercept += residuals.sum(0)
    return losses @ weights


@numba.njit(nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def _row_sums(vectors, codes, weights, coefficients, intercept, slope, by_intercept):
    """Returns the weighted cross-entropy, and adds its gradient; each vector is read once, while it is in the cache."""
    o, d = coefficients.shape
    residuals, loss = np.empty(o), 0.0
    block = np.zeros((o, d), np.float32)
    for i in range(len(codes)):
        row, w, code = vectors[i], weights[i], codes[i]
        for g in range(o):
            own, product = coefficients[g], np.float32(0)
            for c in range(d):
                product += own[c] * row[c]
            residuals[g] = np.float64(product) + intercept[g]  # the logit, until the next lines
        if o == 1:
            sign = 1.0 if code == 1 else -1.0
            margin = sign * residuals[0]
            small = math.exp(-abs(margin))
            loss += w * (math.log1p(small) + max(-margin, 0.0))
            residuals[0] = -sign * (small if margin > 0 else 1.0) / (1 + small)
        else:
            highest, total = residuals[0], 0.0
            for g in range(1, o):
                highest = max(highest, residuals[g])
            loss += w * (highest - residuals[code])
            for g in range(o):
                residuals[g] = math.exp(residuals[g] - highest)
                total += residuals[g]
            loss += w * math.log(total)
            for g in range(o):
                residuals[g] /= total
            residuals[code] -= 1
        for g in range(o):
            by_intercept[g] += w * residuals[g]
            used, own = np.float32(w * residuals[g]), block[g]
            for c in range(d):
                own[c] += used * row[c]
        if i % ROWS_PER_BLOCK == ROWS_PER_BLOCK - 1 or i == len(codes) - 1:
            for g in range(o):
                for c in range(d):
                    slope[g, c] += block[g, c]
                    block[g, c] = 0
    return loss
