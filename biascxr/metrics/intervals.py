"""Intervals, from the standard errors and replicates that resampling patients gives.

Which one serves what was settled by simulation (`tests/metrics/test_coverage.py` repeats a part): percentile intervals are
too narrow for rates and AUROCs of small groups and never cover a max-min gap of 0, so groups and gaps use the forms below.
"""

from __future__ import annotations

import numpy as np
from scipy import stats


def percentile_interval(replicates: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of the defined replicates; NaN if under nine tenths of them are defined."""
    defined = replicates[~np.isnan(replicates)]
    if len(defined) < 0.9 * len(replicates):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def wilson_interval(rate: float, standard_error: float, n: int, confidence: float, *, df: int) -> tuple[float, float]:
    """Wilson score interval of a rate at its effective sample size.

    The effective size is `rate (1 - rate) / se^2`, at most the number of images: a design effect below 1 is not believed.
    At a rate of 0 or 1, where the standard error says nothing, it is the number of patients.

    Args:
        rate: in [0, 1].
        standard_error: of the rate, patients resampled.
        n: images that it was measured on.
        confidence: level.
        df: patients behind it, less one; the t quantile is used below 25 patients.

    Reference: Wilson 1927; effective n, Korn and Graubard 1998.
    """
    if np.isnan(rate) or df < 1:
        return float("nan"), float("nan")
    spread = rate * (1 - rate)
    effective = min(n, spread / standard_error**2) if spread > 0 and standard_error > 0 else float(df + 1)
    tail = (1 + confidence) / 2
    z = stats.t.ppf(tail, df) if df < 24 else stats.norm.ppf(tail)
    centre = (rate + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * np.sqrt(spread / effective + z**2 / (4 * effective**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def logit_t_interval(value: float, standard_error: float, confidence: float, *, df: int) -> tuple[float, float]:
    """Interval of an AUROC on the logit scale with a t quantile.

    At an AUROC of 0 or 1 the logit is infinite: the bound is then the rule-of-three analogue, `1 - alpha^(1 / (df + 1))`.

    Args:
        value: in [0, 1].
        standard_error: on the probability scale, patients resampled.
        confidence: level.
        df: patients with a positive image (or a negative one, if fewer), less one.

    Reference: Qin and Hotilovac, Statistical Methods in Medical Research 2008.
    """
    if np.isnan(value) or df < 1:
        return float("nan"), float("nan")
    if value in (0.0, 1.0) or standard_error == 0:
        reach = 1 - ((1 - confidence) / 2) ** (1 / (df + 1))
        return (max(0.0, value - reach), min(1.0, value + reach))
    half = stats.t.ppf((1 + confidence) / 2, df) * standard_error / (value * (1 - value))
    logit = np.log(value / (1 - value))
    return tuple(float(1 / (1 + np.exp(-(logit + side)))) for side in (-half, half))


def mover_difference(a: tuple[float, float, float], b: tuple[float, float, float]) -> tuple[float, float]:
    """Interval of `a - b` from the intervals of two independent estimates (Newcombe's hybrid, MOVER).

    Args:
        a: value, low, high.
        b: value, low, high.

    Reference: Newcombe 1998, method 10; Zou and Donner 2008.
    """
    difference = a[0] - b[0]
    low = difference - np.hypot(a[0] - a[1], b[2] - b[0])
    high = difference + np.hypot(a[2] - a[0], b[0] - b[1])
    return float(low), float(high)


def expected_noise_gap(standard_errors: np.ndarray, *, seed: int, n_draws: int = 4000) -> float:
    """The max-min gap that noise alone would give if all groups were equal: E range of N(0, se_g^2).

    Args:
        standard_errors: `[k]`, independent groups.
    """
    draws = np.random.default_rng(seed).standard_normal((n_draws, len(standard_errors))) * standard_errors
    return float(np.ptp(draws, axis=1).mean())


def noise_corrected_gap(gap: float, noise: float) -> float:
    """`sqrt(max(0, gap^2 - noise^2))`: the naive gap is too large, most of all near 0."""
    return float(np.sqrt(max(0.0, gap**2 - noise**2)))


def max_t_gap_interval(
    values: np.ndarray, bounds, standard_errors: np.ndarray, confidence: float, *, seed: int, n_draws: int = 4000
) -> tuple[float, float]:
    """Interval of a max-min gap over independent groups: max-T MOVER.

    Lower end: the largest MOVER lower bound over ordered pairs, at the simultaneous critical value (the quantile of
    `max_ij |Z_ij|` from the groups' standard errors), cut at 0. Upper end: the largest pointwise upper bound.

    Args:
        values: `[k]`.
        bounds: function of a confidence level that gives the groups' low and high ends, each `[k]`.
        standard_errors: `[k]`.
        confidence: level.
        seed: seed of the normal draws behind the critical value.
        n_draws: how many.

    Returns:
        Low and high; the low end is at least 0.
    """
    k = len(values)
    errors = np.maximum(standard_errors, 1e-9)
    i, j = np.nonzero(~np.eye(k, dtype=bool))
    draws = np.random.default_rng(seed).standard_normal((n_draws, k)) * errors
    z = np.abs(draws[:, i] - draws[:, j]) / np.hypot(errors[i], errors[j])
    critical = np.quantile(z.max(axis=1), (1 + confidence) / 2)

    def over_pairs(level: float) -> np.ndarray:
        low, high = bounds(level)
        pairs = [
            mover_difference((values[a], low[a], high[a]), (values[b], low[b], high[b])) for a, b in zip(i, j, strict=True)
        ]
        return np.array(pairs)

    low = over_pairs(2 * stats.norm.cdf(critical) - 1)[:, 0].max()
    high = over_pairs(confidence)[:, 1].max()
    return float(max(0.0, low)), float(high)


def gap_change_interval(
    before: np.ndarray,
    after: np.ndarray,
    before_replicates: np.ndarray,
    after_replicates: np.ndarray,
    confidence: float,
) -> tuple[float, float]:
    """Interval of the change of a max-min gap between two models on the same patients: max-min projection.

    With `d_ij` the signed difference of groups i and j: `U = max_ij min_kl (dB_ij - dA_kl + c s)` and
    `L = min_kl max_ij (dB_ij - dA_kl - c s)`, where s is the contrast's standard error over the replicates and c the
    simultaneous critical value. Unlike the percentile interval it holds when groups change their order.

    Args:
        before: `[k]` values of model A.
        after: `[k]` values of model B.
        before_replicates: `[R, k]`.
        after_replicates: `[R, k]`, the same resamples.
        confidence: level.

    Returns:
        Low and high of gap(B) - gap(A).
    """
    k = len(before)
    i, j = np.nonzero(~np.eye(k, dtype=bool))
    defined = ~(np.isnan(before_replicates).any(1) | np.isnan(after_replicates).any(1))
    if defined.sum() < 0.9 * len(defined):
        return float("nan"), float("nan")

    def contrasts(b: np.ndarray, a: np.ndarray) -> np.ndarray:
        d_b, d_a = b[..., i] - b[..., j], a[..., i] - a[..., j]
        return d_b[..., :, None] - d_a[..., None, :]  # [..., ij, kl]

    point = contrasts(after, before)
    spread = contrasts(after_replicates[defined], before_replicates[defined])  # [R, ij, kl]
    error = np.maximum(spread.std(axis=0, ddof=1), 1e-12)
    z = np.abs(spread - spread.mean(axis=0)) / error
    critical = np.quantile(z.reshape(len(z), -1).max(axis=1), confidence)
    high = (point + critical * error).min(axis=1).max()
    low = (point - critical * error).max(axis=0).min()
    return float(low), float(high)
