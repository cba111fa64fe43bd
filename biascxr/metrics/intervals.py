"""Intervals, from the standard errors and replicates that resampling patients gives.

Which one serves what was settled by simulation (`tests/metrics/test_coverage.py` repeats a part): percentile intervals are
too narrow for rates and AUROCs of small groups and never cover a max-min gap of 0, so groups and gaps use the forms below.
"""

from __future__ import annotations

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
