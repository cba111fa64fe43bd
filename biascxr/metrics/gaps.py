"""Max-min gaps between groups: what noise alone gives, intervals, and the change of a gap between two models.

A gap is never below 0, so its estimate is too large and its percentile interval never holds a true gap of 0; the forms below
held in simulation (`benchmarks/audit_calibration.py` measures them, `tests/metrics/test_coverage.py` repeats a part).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from biascxr.metrics.intervals import mover_difference


@lru_cache(maxsize=64)
def _standard_normal(k: int, seed: int, n_draws: int) -> np.ndarray:
    draws = np.random.default_rng(seed).standard_normal((n_draws, k))
    draws.flags.writeable = False
    return draws


def group_noise(
    standard_errors: np.ndarray, seed: int, n_draws: int = 4000, correlation: np.ndarray | None = None
) -> np.ndarray:
    """Returns `[n_draws, k]` draws of the groups' errors."""
    draws = _standard_normal(len(standard_errors), seed, n_draws)
    if correlation is not None:
        values, vectors = np.linalg.eigh(correlation)
        draws = draws @ (vectors * np.sqrt(np.maximum(values, 0))).T
    return draws * standard_errors


def expected_noise_gap(
    standard_errors: np.ndarray, *, seed: int, n_draws: int = 4000, correlation: np.ndarray | None = None
) -> float:
    """The max-min gap that noise alone would give if all groups were equal: E range of N(0, se_g^2).

    Args:
        standard_errors: `[k]`.
        seed: seed of the draws.
        n_draws: how many.
        correlation: `[k, k]` of the groups' estimates; default: independent.
    """
    return float(np.ptp(group_noise(standard_errors, seed, n_draws, correlation), axis=1).mean())


def noise_corrected_gap(gap: float, noise: float) -> float:
    """`sqrt(max(0, gap^2 - noise^2))`: the naive gap is too large, most of all near 0."""
    return float(np.sqrt(max(0.0, gap**2 - noise**2)))


def max_t_gap_interval(
    values: np.ndarray,
    bounds: Callable[[float], tuple[np.ndarray, np.ndarray]],
    standard_errors: np.ndarray,
    confidence: float,
    *,
    seed: int,
    n_draws: int = 4000,
    correlation: np.ndarray | None = None,
) -> tuple[float, float]:
    """Interval of a max-min gap over groups: max-T MOVER.

    Lower end: the largest MOVER lower bound over ordered pairs, at the simultaneous critical value (the quantile of
    `max_ij |Z_ij|` from the groups' standard errors), cut at 0. Upper end: the largest pointwise upper bound.

    Args:
        values: `[k]`.
        bounds: function of a confidence level that gives the groups' low and high ends, each `[k]`.
        standard_errors: `[k]`.
        confidence: level.
        seed: seed of the normal draws behind the critical value.
        n_draws: how many.
        correlation: `[k, k]` of the groups' estimates; default: independent.

    Returns:
        Low and high; the low end is at least 0.
    """
    errors = np.maximum(standard_errors, 1e-9)
    i, j = np.triu_indices(len(values), 1)
    pairs = np.zeros(len(i)) if correlation is None else correlation[i, j]
    noise = group_noise(errors, seed, n_draws, correlation)
    width = np.sqrt(np.maximum(errors[i] ** 2 + errors[j] ** 2 - 2 * pairs * errors[i] * errors[j], 1e-18))
    critical = np.quantile(_largest_of_pairs(np.ascontiguousarray(noise.T), i, j, width), (1 + confidence) / 2)

    def over_pairs(level: float) -> tuple[np.ndarray, np.ndarray]:
        low, high = bounds(level)
        first, second = ((values[a], low[a], high[a]) for a in (i, j))
        forward = mover_difference(first, second, correlation=pairs)
        # The pair the other way round is the mirror image.
        return np.maximum(forward[0], -forward[1]), np.maximum(forward[1], -forward[0])

    low = over_pairs(2 * stats.norm.cdf(critical) - 1)[0].max()
    high = over_pairs(confidence)[1].max()
    return float(max(0.0, low)), float(high)


def _largest_of_pairs(noise: np.ndarray, i: np.ndarray, j: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Returns `[n_draws]`: max over pairs of |difference| / width, from `[k, n_draws]`, pair by pair to stay in the cache."""
    largest, pair = np.zeros(noise.shape[1]), np.empty(noise.shape[1])
    for a, b, scale in zip(i, j, 1 / width, strict=True):
        np.subtract(noise[a], noise[b], out=pair)
        np.abs(pair, out=pair)
        pair *= scale
        np.maximum(largest, pair, out=largest)
    return largest


DUST = 1e-13  # of a difference of variances, as a share of them


@dataclass(frozen=True)
class GapChange:
    """The change of a max-min gap from one model to another.

    Attributes:
        low: lower end of the interval of gap(B) - gap(A).
        high: upper end.
        p_value: two-sided, of no change, from the same projection.
    """

    low: float
    high: float
    p_value: float


def gap_change(before, after, before_replicates, after_replicates, confidence: float, *, df: float = np.inf) -> GapChange:
    """Change of a max-min gap between two models on the same patients: max-min projection.

    With `d_ij` the signed difference of groups i and j: `U = max_ij min_kl (dB_ij - dA_kl + c s)` and
    `L = min_kl max_ij (dB_ij - dA_kl - c s)`, where s is the contrast's standard error over the replicates and c the
    simultaneous critical value. Unlike the percentile interval it holds when groups change their order. The p-value is the
    share of replicates whose largest studentised error is at least the c at which the interval touches 0, or the normal tail
    over all contrasts where that is smaller.

    Args:
        before: `[k]` values of model A; or several such arrays, whose largest gap it then is (equalized odds: TPR and FPR).
        after: `[k]` values of model B, likewise.
        before_replicates: `[k, R]`, likewise.
        after_replicates: `[k, R]`, the same resamples, likewise.
        confidence: level.
        df: degrees of freedom of the replicates' spread, where that itself was estimated from few (training runs): c is
            widened as Student's quantile is, and the p-value is the tail of that, over all contrasts.

    Returns:
        Interval and p-value, NaN if under nine tenths of the resamples are defined.
    """
    blocks = [len(block) for block in before] if isinstance(before, tuple) else [len(before)]
    before, after, before_replicates, after_replicates = (
        np.concatenate(v) if isinstance(v, tuple) else v for v in (before, after, before_replicates, after_replicates)
    )
    undefined = GapChange(float("nan"), float("nan"), float("nan"))
    if np.isnan(before).any() or np.isnan(after).any():
        return undefined
    k = len(before)
    block = np.repeat(np.arange(len(blocks)), blocks)
    i, j = np.nonzero((block[:, None] == block[None, :]) & ~np.eye(k, dtype=bool))
    both = np.concatenate([after_replicates, before_replicates])  # [2 k, R]
    defined = ~np.isnan(both).any(axis=0)
    if defined.sum() < 0.9 * len(defined):
        return undefined
    errors = both[:, defined] - both[:, defined].mean(axis=1, keepdims=True)
    covariance = errors @ errors.T / (errors.shape[1] - 1)
    # Contrast (ij, kl) is +B_i -B_j -A_k +A_l: its variance from the covariance of the 2 k values.
    d = np.zeros((len(i), k))
    d[np.arange(len(i)), i], d[np.arange(len(i)), j] = 1, -1
    of_b, of_a, crossed = d @ covariance[:k, :k] @ d.T, d @ covariance[k:, k:] @ d.T, d @ covariance[:k, k:] @ d.T
    apart = np.diag(of_b)[:, None] + np.diag(of_a)[None, :]  # [ij, kl]
    variance = apart - 2 * crossed
    # Of two equal contrasts nothing is left but rounding, whose size is the linear algebra library's.
    s = np.sqrt(np.where(variance > DUST * apart, np.maximum(variance, 1e-24), 1e-24))
    point = (after[i] - after[j])[:, None] - (before[i] - before[j])[None, :]
    # The contrast (ji, lk) is the mirror image of (ij, kl): half of the pairs are enough.
    half = i < j
    largest = _largest_studentized((errors[i] - errors[j])[half], errors[k + i] - errors[k + j], s[half])

    def ends(c: float) -> tuple[float, float]:
        return float((point - c * s).max(axis=0).min()), float((point + c * s).min(axis=1).max())

    def is_off_zero(c: float) -> bool:
        low, high = ends(c)
        return low > 0 or high < 0

    widened = stats.t.ppf((1 + confidence) / 2, df) / stats.norm.ppf((1 + confidence) / 2)
    low, high = ends(float(np.quantile(largest, confidence)) * float(widened))
    below, above = 0.0, 40.0
    for _ in range(50):  # the c at which the interval comes to hold 0
        middle = (below + above) / 2
        below, above = (middle, above) if is_off_zero(middle) else (below, middle)
    # Beyond the largest replicate the normal tail goes on, over all contrasts (Bonferroni): a share of R resamples cannot
    # be small enough to stand a correction for many tests.
    tail = 2 * stats.t.sf(above, df) * half.sum() * len(i)
    share = (1 + (largest >= above).sum()) / (1 + len(largest))
    return GapChange(low, high, float(min(share, tail) if np.isinf(df) else min(1.0, tail)))


def _largest_studentized(of_b: np.ndarray, of_a: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Returns `[R]`: the largest |contrast| / s over all contrasts, one slice at a time (20 groups have 144,400)."""
    largest = np.zeros(of_b.shape[1])
    for ij in range(len(of_b)):
        np.maximum(largest, (np.abs(of_b[ij] - of_a) / s[ij][:, None]).max(axis=0), out=largest)
    return largest
