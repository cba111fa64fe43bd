"""Are rates or AUROCs equal across groups? Tests that keep the images of a patient together, and corrections for many tests.

A rate enters as sums per patient: `trials`, the images of the class (positives for a TPR, negatives for an FPR), and `hits`,
those of them that are flagged. Only patients with an image of the class belong in a test of that rate.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

_ROUNDING = 1e-12
_DRAWS_AT_ONCE = 256


@dataclass(frozen=True)
class TestResult:
    """What a test of significance gives.

    Attributes:
        statistic: chi-square, F or z; NaN where there is nothing to test.
        df: its degrees of freedom: groups compared less one; 1 for a z.
        p_value: in [0, 1], NaN where there is nothing to test.
        denominator_df: of an F; infinite for a chi-square and a z.
    """

    statistic: float
    df: float
    p_value: float
    denominator_df: float = float("inf")


def _patient_terms(hits: np.ndarray, trials: np.ndarray, squared_weights: np.ndarray | None) -> np.ndarray:
    """Returns what each patient adds to its group, `[6, m]`, in the order of the unpacking in `_donner_statistic`."""
    hits, trials = np.asarray(hits, np.float64), np.asarray(trials, np.float64)
    if hits.ndim != 1 or hits.shape != trials.shape:
        raise ValueError(f"hits and trials must hold one value per patient; their shapes are {hits.shape} and {trials.shape}.")
    if not (trials > 0).all():
        raise ValueError("trials must be above 0: leave out the patients without an image of the class.")
    if not ((hits >= 0) & (hits <= trials * (1 + 1e-9))).all():
        raise ValueError("hits must lie between 0 and trials in every patient.")
    if squared_weights is None:
        if not np.allclose(trials, np.round(trials), atol=1e-9):
            raise ValueError(
                "trials are not whole numbers, so images are weighted: give squared_weights, the sum of the squared "
                "weights of each patient's images of the class."
            )
        squared_weights = trials
    squared_weights = np.asarray(squared_weights, np.float64)
    if squared_weights.shape != trials.shape:
        raise ValueError(f"squared_weights must have the shape of trials, {trials.shape}; it is {squared_weights.shape}.")
    if not ((squared_weights > 0) & (squared_weights <= trials**2 * (1 + 1e-9))).all():
        raise ValueError("squared_weights must be above 0 and at most trials^2, which is one image per patient.")
    spread = hits**2 / trials
    return np.stack([hits, trials, trials**2, spread, squared_weights, squared_weights / trials])


def _check_groups(groups: np.ndarray, n_patients: int, *, ndim: int) -> np.ndarray:
    groups = np.asarray(groups)
    if groups.ndim != ndim or len(groups) != n_patients:
        expected = "[m]" if ndim == 1 else "[m, A]"
        raise ValueError(f"group must have the shape {expected} with m = {n_patients} patients; its shape is {groups.shape}.")
    if not np.issubdtype(groups.dtype, np.integer) or groups.min(initial=0) < -1:
        raise ValueError("group must hold whole numbers: 0 to k - 1, or -1 where the group is unknown.")
    return groups


def _sums_by_group(terms: np.ndarray, group: np.ndarray) -> np.ndarray:
    known = group >= 0
    k = int(group.max(initial=-1)) + 1
    return np.stack([np.bincount(group[known], term[known], k) for term in terms])


def _donner_statistic(sums: np.ndarray) -> np.ndarray:
    """Donner's chi-square from the sums of the groups, `[6, ..., k] -> [...]`; NaN where there is nothing to test.

    With t = sum w and s = sum w^2 over a patient's images and h its hits, `var(h) = p (1 - p) (s + rho (t^2 - s))`. The
    expectations of the sums of squares between and within patients then give the ANOVA estimator of rho; for weights of 1
    (s = t) it is the textbook's, with K - k and M - K degrees of freedom.
    """
    hits, trials, trials_squared, spread, squared, squared_by_trials = sums  # each [..., k]
    filled = np.where(trials > 0, trials, 1.0)  # an empty group has 0 above this, too
    all_hits, all_trials = hits.sum(-1), trials.sum(-1)
    between = (spread - hits**2 / filled).sum(-1)
    within = (hits - spread).sum(-1)
    between_df = (squared_by_trials - squared / filled).sum(-1)  # patients less groups
    within_df = (trials - squared_by_trials).sum(-1)  # images less patients
    small = _ROUNDING * all_trials
    between, within = (np.where(part > small, part, 0.0) for part in (between, within))
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = all_hits / all_trials
        mean_between, mean_within = between / between_df, within / within_df
        size = (all_trials - (trials_squared / filled).sum(-1)) / between_df
        denominator = mean_between + (size - 1) * mean_within
        # No spread at all within the groups: a patient's images agree, which is a correlation of 1.
        correlation = np.where(denominator > 0, np.maximum((mean_between - mean_within) / denominator, 0.0), 1.0)
        # One image per patient has no correlation to estimate, and needs none; one patient per group does not show it.
        correlation = np.where(within_df <= small, 0.0, np.where(between_df <= small, np.nan, correlation))
        inflated = squared + correlation[..., None] * (trials_squared - squared)
        variance = (rate * (1 - rate))[..., None] * inflated
        terms = np.where(trials > 0, (hits - trials * rate[..., None]) ** 2 / variance, 0.0)
    is_testable = ((trials > 0).sum(-1) > 1) & (all_hits > small) & (all_trials - all_hits > small)
    return np.where(is_testable, terms.sum(-1), np.nan)


def _chi_square_result(statistic: float, n_groups: int) -> TestResult:
    df = float(max(n_groups - 1, 0))
    p_value = stats.chi2.sf(statistic, df) if df > 0 else np.nan
    return TestResult(float(statistic), df, float(p_value))


def donner_test(
    hits: np.ndarray, trials: np.ndarray, group: np.ndarray, *, squared_weights: np.ndarray | None = None
) -> TestResult:
    """Donner's adjusted chi-square test of equal rates in groups of patients with several images each.

    `sum_g (H_g - n_g p)^2 / (C_g n_g p (1 - p))` with H_g hits of n_g images in group g, p the rate of all, and
    `C_g = sum_i n_i (1 + (n_i - 1) rho) / n_g` over the group's patients. rho is the correlation within patients, by the ANOVA
    estimator pooled over the groups, at least 0.

    Args:
        hits: `[m]`, per patient, the (weighted) number of images flagged.
        trials: `[m]`, above 0, per patient, the (weighted) number of images of the class.
        group: `[m] int`, 0 to k - 1; a patient whose group is -1 is left out.
        squared_weights: `[m]`, sum of the squared weights of the images counted in `trials`; needed when they are weighted.
            The statistic does not depend on the scale of the weights.

    Returns:
        Chi-square with df = groups that hold a patient, less one. NaN with one such group, with no hit or nothing but hits,
        and where every group has one patient only, with several images.

    Raises:
        ValueError: shapes, or values that cannot be; trials that are not whole numbers without `squared_weights`.

    Reference: Donner, Statistics in Medicine 1989; Donner and Klar, Design and Analysis of Cluster Randomization Trials, 2000.
    """
    terms = _patient_terms(hits, trials, squared_weights)
    sums = _sums_by_group(terms, _check_groups(group, terms.shape[1], ndim=1))
    return _chi_square_result(float(_donner_statistic(sums)), int((sums[1] > 0).sum()))


def permuted_donner(
    hits: np.ndarray,
    trials: np.ndarray,
    groups: np.ndarray,
    *,
    n_permutations: int,
    seed: int,
    keys: np.ndarray | None = None,
    squared_weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Donner's statistic under permutations of the groups among these patients, several attributes at once.

    The attributes of a patient move together, so the dependence between attributes is kept. An unknown group (-1) moves too.

    Args:
        hits: `[m]` as in `donner_test`. Only patients with an image of the class: a permutation over all patients rejects
            fair classifiers, for groups may differ in prevalence.
        trials: `[m]`, above 0.
        groups: `[m, A] int`, one attribute a column; -1 is unknown.
        n_permutations: B.
        seed: seed of the permutations; not used with `keys`.
        keys: `[B, m]` random numbers. Patients in the order of their keys take the groups in sorted order; so findings that
            use the same key for the same patient give it nearly the same group in each draw, even if each has other patients
            besides, and the dependence between findings is kept.
        squared_weights: `[m]` as in `donner_test`.

    Returns:
        The observed statistics `[A]` and the permuted ones `[B, A]`; NaN where there is nothing to test.
    """
    terms = _patient_terms(hits, trials, squared_weights)
    m = terms.shape[1]
    groups = _check_groups(groups, m, ndim=2)
    if keys is not None and np.shape(keys) != (n_permutations, m):
        raise ValueError(f"keys must have the shape [n_permutations, m] = [{n_permutations}, {m}]; it is {np.shape(keys)}.")
    if m == 0:
        return np.full(groups.shape[1], np.nan), np.full((n_permutations, groups.shape[1]), np.nan)
    # Patients of the same groups in all attributes stand side by side: one pass over the permuted patients sums them up.
    joint, code, count = np.unique(groups, axis=0, return_inverse=True, return_counts=True)
    starts = np.r_[0, np.cumsum(count)[:-1]].astype(np.intp)
    members = [(column[:, None] == np.arange(max(column.max(initial=-1) + 1, 1))).astype(np.float64) for column in joint.T]

    def statistics(sums: np.ndarray) -> np.ndarray:
        by_attribute = (np.moveaxis(sums @ member, 1, 0) for member in members)  # [draws, 6, J] -> [6, draws, k]
        return np.stack([_donner_statistic(part) for part in by_attribute], axis=1)

    observed = np.add.reduceat(terms[:, np.argsort(code.ravel(), kind="stable")], starts, axis=1)
    permuted = np.empty((n_permutations, groups.shape[1]))
    rng = np.random.default_rng(seed)
    for first in range(0, n_permutations, _DRAWS_AT_ONCE):
        draws = range(first, min(first + _DRAWS_AT_ONCE, n_permutations))
        sums = np.empty((len(draws), len(terms), len(joint)))
        for row, draw in enumerate(draws):
            order = rng.permutation(m) if keys is None else np.argsort(keys[draw])
            np.add.reduceat(np.take(terms, order, axis=1), starts, axis=1, out=sums[row])
        permuted[draws.start : draws.stop] = statistics(sums)
    return statistics(observed[None])[0], permuted


def _at_least(permuted: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Is each permuted statistic as large as the observed one, rounding apart? An undefined one is not."""
    return permuted >= observed - 1e-9 * np.maximum(1.0, np.abs(observed))


def permutation_p_value(observed: np.ndarray, permuted: np.ndarray) -> np.ndarray:
    """`(1 + #{permuted >= observed}) / (B + 1)`, ties counted against the finding.

    A permuted statistic that is undefined could have rejected nothing, and is not counted as large.

    Args:
        observed: `[m]` statistics, large where the hypothesis fails.
        permuted: `[B, m]`.

    Returns:
        `[m]`, NaN where the observed statistic is NaN.

    Reference: Phipson and Smyth 2010.
    """
    p_value = (1 + _at_least(permuted, observed).sum(axis=0)) / (len(permuted) + 1)
    return np.where(np.isnan(observed), np.nan, p_value)


def floored_score_test(
    hits: np.ndarray, trials: np.ndarray, group: np.ndarray, *, squared_weights: np.ndarray | None = None
) -> TestResult:
    """Chi-square test of equal rates whose variance never falls below that of independent images.

    `sum_g (p_g - pbar)^2 / var_g`, pbar the mean weighted by 1 / var_g. With p0 the rate of all and t_i a patient's trials,
    `var_g = max(sum_i (h_i - t_i p0)^2, p0 (1 - p0) sum_i s_i) / n_g^2`, where s_i = t_i without weights: the second is then
    `p0 (1 - p0) / n_g`. In a small group the patients' sums alone may show too little variance by chance; a Wald test is
    liberal for that reason.

    Args:
        hits: `[m]` as in `donner_test`.
        trials: `[m]`, above 0.
        group: `[m] int`; -1 is left out.
        squared_weights: `[m]` as in `donner_test`.

    Returns:
        Chi-square with df = groups that hold a patient, less one. NaN with one such group, no hit or nothing but hits.
    """
    terms = _patient_terms(hits, trials, squared_weights)
    group = _check_groups(group, terms.shape[1], ndim=1)
    known = group >= 0
    sums = _sums_by_group(terms, group)
    present = sums[1] > 0
    n_groups, (all_hits, all_trials) = int(present.sum()), sums[:2].sum(axis=1)
    if n_groups < 2 or not _ROUNDING < all_hits / all_trials < 1 - _ROUNDING:
        return _chi_square_result(np.nan, n_groups)
    pooled = all_hits / all_trials
    residuals = terms[0, known] - terms[1, known] * pooled
    robust = np.bincount(group[known], residuals**2, len(present))
    variance = np.maximum(robust, pooled * (1 - pooled) * sums[4])[present] / sums[1, present] ** 2
    rates = sums[0, present] / sums[1, present]
    mean = (rates / variance).sum() / (1 / variance).sum()
    return _chi_square_result(float(((rates - mean) ** 2 / variance).sum()), n_groups)


def welch_james_test(values: np.ndarray, standard_errors: np.ndarray, df: np.ndarray) -> TestResult:
    """Welch's test that independent estimates of unequal precision are equal.

    With `w = 1 / se^2`, k groups and `L = sum_g (1 - w_g / sum w)^2 / df_g`,
    `F = sum_g w_g (v_g - vbar)^2 / (k - 1) / (1 + 2 (k - 2) L / (k^2 - 1))`, on k - 1 and `(k^2 - 1) / (3 L)` degrees of
    freedom.

    Args:
        values: `[k]`; for AUROCs their logits. A group whose value is NaN is left out.
        standard_errors: `[k]`, on the same scale.
        df: `[k]`, behind each standard error: patients less one. Infinite where it is known.

    Returns:
        F. NaN with one group, or where a value is infinite (the logit of an AUROC of 1), a standard error is not above 0, or
        a df is below 1: what such a group says cannot be weighed against the others.

    Reference: Welch, Biometrika 1951; James, Biometrika 1951.
    """
    values, errors, df = (np.asarray(part, np.float64) for part in (values, standard_errors, df))
    if not values.shape == errors.shape == df.shape or values.ndim != 1:
        raise ValueError(
            f"values, standard_errors and df must be alike in length; shapes are {values.shape}, {errors.shape} and {df.shape}."
        )
    compared = ~np.isnan(values)
    values, errors, df = values[compared], errors[compared], df[compared]
    k = len(values)
    is_usable = np.isfinite(values) & np.isfinite(errors) & (errors > 0) & (df >= 1)
    if k < 2 or not is_usable.all():
        return TestResult(float("nan"), float(max(k - 1, 0)), float("nan"), float("nan"))
    weights = 1 / errors**2
    mean = weights @ values / weights.sum()
    lack = ((1 - weights / weights.sum()) ** 2 / df).sum()
    statistic = weights @ (values - mean) ** 2 / (k - 1) / (1 + 2 * (k - 2) * lack / (k**2 - 1))
    if lack == 0:
        return TestResult(float(statistic), float(k - 1), float(stats.chi2.sf(statistic * (k - 1), k - 1)))
    denominator = (k**2 - 1) / (3 * lack)
    return TestResult(float(statistic), float(k - 1), float(stats.f.sf(statistic, k - 1, denominator)), float(denominator))


def step_down_min_p(observed: np.ndarray, permuted: np.ndarray, *, df: np.ndarray | None = None) -> np.ndarray:
    """Adjusts many tests by the joint permutations that they share: Westfall and Young's step-down min-P.

    Each draw, the observed one among them, gets a p-value per test. A test's adjusted p-value is the share of draws whose
    smallest p-value, over this test and those with larger observed p-values, is as small as its own. Dependence between the
    tests is used, where Holm fears the worst.

    Args:
        observed: `[m]` statistics, large where the hypothesis fails. A NaN column is no test.
        permuted: `[B, m]`; row b of all columns comes from the same permutation. An undefined statistic counts as the smallest.
        df: `[m]`; if given, the p-values compared are those of a chi-square with these degrees of freedom. By default each
            column is ranked among its own draws; then up to m draws share the smallest p-value, 1 / (B + 1), and no adjusted
            one can be far below m / (B + 1): take B well above 20 m, or give `df`. The level holds either way.

    Returns:
        `[m]` adjusted p-values; NaN where the observed statistic is NaN.

    Reference: Westfall and Young, Resampling-Based Multiple Testing, 1993, algorithm 2.8; Ge, Dudoit and Speed, Test 2003.
    """
    observed, permuted = np.asarray(observed, np.float64), np.asarray(permuted, np.float64)
    if permuted.shape[1:] != observed.shape or observed.ndim != 1:
        raise ValueError(f"permuted must have the shape [B, {len(observed)}]; its shape is {permuted.shape}.")
    adjusted = np.full(len(observed), np.nan)
    defined = np.flatnonzero(~np.isnan(observed))
    if len(defined) == 0:
        return adjusted
    draws = np.vstack([observed, permuted])[:, defined]  # row 0 is what was observed
    draws = np.where(np.isnan(draws), -np.inf, draws)
    if df is None:
        p_values = np.stack([_ranked_p_values(column) for column in draws.T], axis=1)
    else:
        p_values = _log_chi_square_tail(np.maximum(draws, 0), np.asarray(df, np.float64)[defined])
    order = np.argsort(p_values[0], kind="stable")
    smallest = np.minimum.accumulate(p_values[:, order[::-1]], axis=1)[:, ::-1]  # over this test and the later ones
    own = p_values[0, order]
    share = (smallest <= own + 1e-9 * np.maximum(1.0, np.abs(own))).mean(axis=0)
    adjusted[defined[order]] = np.maximum.accumulate(share)
    return adjusted


def _log_chi_square_tail(statistics: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Logarithm of the chi-square p-value, also where the p-value itself is 0 in floating point, so that it can be ordered."""
    half_df, half = np.broadcast_to(df / 2, statistics.shape), statistics / 2
    tail = special.gammaincc(half_df, half)
    is_far = tail < 1e-280
    logarithm = np.log(np.where(is_far, 1.0, tail))
    a, x = half_df[is_far], half[is_far]
    # The asymptotic series of the incomplete gamma function.
    series = 1 + (a - 1) / x * (1 + (a - 2) / x)
    logarithm[is_far] = (a - 1) * np.log(x) - x - special.gammaln(a) + np.log(series)
    return logarithm


def _ranked_p_values(statistics: np.ndarray) -> np.ndarray:
    """Share of all draws whose statistic is as large as each draw's own, rounding apart."""
    ranked = np.sort(statistics)
    finite = np.where(np.isfinite(statistics), statistics, 0.0)
    edge = np.where(np.isfinite(statistics), finite - 1e-9 * np.maximum(1.0, np.abs(finite)), statistics)
    return (len(ranked) - np.searchsorted(ranked, edge, side="left")) / len(ranked)


def adjust_p_values(p: np.ndarray, method: str) -> np.ndarray:
    """Adjusts p-values for their number.

    Args:
        p: `[m]`; a NaN is no test: it stays NaN and is not counted.
        method: `"holm"` (the chance of any false finding) or `"benjamini_hochberg"` (the expected share of false findings).

    Raises:
        ValueError: an unknown method.

    Reference: Holm 1979; Benjamini and Hochberg 1995.
    """
    if method not in _CORRECTIONS:
        nearest = difflib.get_close_matches(str(method), _CORRECTIONS, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"method must be one of {', '.join(_CORRECTIONS)}; received {method!r}.{hint}")
    p = np.asarray(p, np.float64)
    adjusted = np.full(p.shape, np.nan)
    defined = ~np.isnan(p)
    if defined.any():
        adjusted[defined] = _CORRECTIONS[method](p[defined])
    return adjusted


def _holm(p: np.ndarray) -> np.ndarray:
    # statsmodels has it too, but collects garbage at each call, which took 60% of a small comparison's time.
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


_CORRECTIONS = {"holm": _holm, "benjamini_hochberg": stats.false_discovery_control}
