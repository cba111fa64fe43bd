"""Intervals, from the standard errors and replicates that resampling patients gives.

Which one serves what was settled by simulation (`tests/metrics/test_coverage.py` repeats a part): percentile intervals are
too narrow for rates and AUROCs of small groups and never cover a max-min gap of 0, so groups and gaps use the forms below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special, stats


def percentile_interval(replicates: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of the defined replicates; NaN if under nine tenths of them are defined."""
    defined = replicates[~np.isnan(replicates)]
    if len(defined) < 0.9 * len(replicates):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def wilson_interval(rate, standard_error, n, confidence: float, *, df) -> tuple[np.ndarray, np.ndarray]:
    """Wilson score interval of rates at their effective sample size; all arguments broadcast.

    The effective size is `rate (1 - rate) / se^2`, at most the number of images: a design effect below 1 is not believed.
    At a rate of 0 or 1, where the standard error says nothing, it is the number of patients.

    Args:
        rate: in [0, 1].
        standard_error: of the rate, patients as the unit.
        n: images that it was measured on.
        confidence: level.
        df: patients behind it, less one; the t quantile is used below 25 patients.

    Returns:
        Low and high ends, NaN where the rate is or `df` is below 1.

    Reference: Wilson 1927; effective n, Korn and Graubard 1998.
    """
    rate, standard_error, n, df = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (rate, standard_error, n, df)))
    spread = rate * (1 - rate)
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where((spread > 0) & (standard_error > 0), np.minimum(n, spread / standard_error**2), df + 1)
        tail = (1 + confidence) / 2
        z = np.where(df < 24, student_t(tail, df), stats.norm.ppf(tail))
        centre = (rate + z**2 / (2 * effective)) / (1 + z**2 / effective)
        half = z / (1 + z**2 / effective) * np.sqrt(spread / effective + z**2 / (4 * effective**2))
    is_defined = ~np.isnan(rate) & (df >= 1)
    low, high = np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)
    return np.where(is_defined, low, np.nan)[()], np.where(is_defined, high, np.nan)[()]


def student_t(tail: float, df: np.ndarray) -> np.ndarray:
    """Returns the t quantile for each of many degrees of freedom, NaN below 1; each different one is computed once."""
    different, at = np.unique(np.where(df >= 1, df, 1.0), return_inverse=True)
    return np.where(df >= 1, stats.t.ppf(tail, different)[at].reshape(np.shape(df)), np.nan)


def logit_t_interval(value, standard_error, confidence: float, *, df) -> tuple[np.ndarray, np.ndarray]:
    """Interval of AUROCs (or other values in [0, 1]) on the logit scale with a t quantile; all arguments broadcast.

    At 0 or 1 the logit is infinite: the bound is then the rule-of-three analogue, `1 - (alpha / 2)^(1 / (df + 1))`.

    Args:
        value: in [0, 1].
        standard_error: on the probability scale, patients as the unit.
        confidence: level.
        df: patients with a positive image (or a negative one, if fewer), less one.

    Returns:
        Low and high ends, NaN where the value is or `df` is below 1.

    Reference: Qin and Hotilovac, Statistical Methods in Medical Research 2008.
    """
    value, standard_error, df = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (value, standard_error, df)))
    with np.errstate(divide="ignore", invalid="ignore"):
        is_inner = (value > 0) & (value < 1) & (standard_error > 0)
        half = student_t((1 + confidence) / 2, df) * standard_error / (value * (1 - value))
        logit = special.logit(value)
        reach = 1 - ((1 - confidence) / 2) ** (1 / (df + 1))
        low = np.where(is_inner, special.expit(logit - half), np.maximum(0.0, value - reach))
        high = np.where(is_inner, special.expit(logit + half), np.minimum(1.0, value + reach))
    is_defined = ~np.isnan(value) & (df >= 1) & ~np.isnan(standard_error)
    return np.where(is_defined, low, np.nan)[()], np.where(is_defined, high, np.nan)[()]


def t_interval(value, standard_error, confidence: float, *, df) -> tuple[np.ndarray, np.ndarray]:
    """`value -+ t x standard error`; all arguments broadcast, infinite `df` is the normal quantile.

    Args:
        value: any.
        standard_error: of the value.
        confidence: level.
        df: degrees of freedom; NaN ends below 1.
    """
    value, standard_error, df = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (value, standard_error, df)))
    half = student_t((1 + confidence) / 2, df) * standard_error
    return (value - half)[()], (value + half)[()]


def t_p_value(value, standard_error, *, df) -> np.ndarray:
    """Two-sided p-value of `value = 0`; all arguments broadcast. NaN below 1 degree of freedom; 1 where nothing varies."""
    value, standard_error, df = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (value, standard_error, df)))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where((value == 0) & (standard_error == 0), 0.0, np.abs(value) / standard_error)
    return np.where(df >= 1, 2 * stats.t.sf(t, np.maximum(df, 1.0)), np.nan)[()]


def bca_interval(value: float, replicates: np.ndarray, jackknife: np.ndarray, confidence: float) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval: percentiles moved for the bias and the skewness of the replicates.

    Safe for smooth metrics from about 100 patients of the class on; like the percentile interval it fails for max-min gaps.

    Args:
        value: the estimate.
        replicates: `[R]`; NaN ends if under nine tenths of them are defined, or all lie on one side of the estimate.
        jackknife: `[m]`, the value with each patient left out; gives the acceleration.
        confidence: level.

    Reference: Efron, JASA 1987.
    """
    defined = replicates[~np.isnan(replicates)]
    if np.isnan(value) or len(defined) < 0.9 * len(replicates):
        return float("nan"), float("nan")
    share = ((defined < value).sum() + 0.5 * (defined == value).sum()) / len(defined)
    if not 0 < share < 1:
        return float("nan"), float("nan")
    bias = stats.norm.ppf(share)
    deviation = np.nanmean(jackknife) - jackknife[~np.isnan(jackknife)]
    size = (deviation**2).sum() ** 1.5
    acceleration = (deviation**3).sum() / (6 * size) if size > 0 else 0.0
    z = bias + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(defined, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def studentized_interval(
    value: float, standard_error: float, replicates: np.ndarray, replicate_errors: np.ndarray, confidence: float
) -> tuple[float, float]:
    """Studentised (bootstrap-t) interval: quantiles of `(replicate - value) / its own standard error` in place of Student's.

    Args:
        value: the estimate.
        standard_error: of the estimate.
        replicates: `[R]`.
        replicate_errors: `[R]`, the standard error computed within each resample.
        confidence: level.

    Returns:
        Low and high; NaN if under nine tenths of the ratios are defined.

    Reference: Efron and Tibshirani 1993, chapter 12.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (replicates - value) / replicate_errors
    defined = ratios[np.isfinite(ratios)]
    if len(defined) < 0.9 * len(ratios):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(value - high * standard_error), float(value - low * standard_error)


def mover_difference(a, b, *, correlation=0.0) -> tuple[np.ndarray, np.ndarray]:
    """Interval of `a - b` from the intervals of two estimates (Newcombe's hybrid, MOVER); elements may be arrays.

    Args:
        a: value, low, high.
        b: value, low, high.
        correlation: of the two estimates: patients who are in both groups at different ages make them depend.

    Reference: Newcombe 1998, method 10; Zou and Donner 2008; with a correlation, Zou 2008.
    """
    difference = a[0] - b[0]

    def reach(one, two):
        return np.sqrt(np.maximum(one**2 + two**2 - 2 * correlation * one * two, 0.0))

    return difference - reach(a[0] - a[1], b[2] - b[0]), difference + reach(a[2] - a[0], b[0] - b[1])


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


def gap_change(before, after, before_replicates, after_replicates, confidence: float) -> GapChange:
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
    s = np.sqrt(np.maximum(np.diag(of_b)[:, None] + np.diag(of_a)[None, :] - 2 * crossed, 1e-24))  # [ij, kl]
    point = (after[i] - after[j])[:, None] - (before[i] - before[j])[None, :]
    # The contrast (ji, lk) is the mirror image of (ij, kl): half of the pairs are enough.
    half = i < j
    largest = _largest_studentized((errors[i] - errors[j])[half], errors[k + i] - errors[k + j], s[half])

    def ends(c: float) -> tuple[float, float]:
        return float((point - c * s).max(axis=0).min()), float((point + c * s).min(axis=1).max())

    def is_off_zero(c: float) -> bool:
        low, high = ends(c)
        return low > 0 or high < 0

    low, high = ends(float(np.quantile(largest, confidence)))
    below, above = 0.0, 40.0
    for _ in range(50):  # the c at which the interval comes to hold 0
        middle = (below + above) / 2
        below, above = (middle, above) if is_off_zero(middle) else (below, middle)
    # Beyond the largest replicate the normal tail goes on, over all contrasts (Bonferroni): a share of R resamples cannot
    # be small enough to stand a correction for many tests.
    tail = 2 * stats.norm.sf(above) * half.sum() * len(i)
    return GapChange(low, high, float(min((1 + (largest >= above).sum()) / (1 + len(largest)), tail)))


def _largest_studentized(of_b: np.ndarray, of_a: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Returns `[R]`: the largest |contrast| / s over all contrasts, one slice at a time (20 groups have 144,400)."""
    largest = np.zeros(of_b.shape[1])
    for ij in range(len(of_b)):
        np.maximum(largest, (np.abs(of_b[ij] - of_a) / s[ij][:, None]).max(axis=0), out=largest)
    return largest
