"""Tests of equal rates agree with scipy, statsmodels and brute force, and hold their size where a patient has many images."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.oneway import anova_oneway

from biascxr.metrics.significance import (
    adjust_p_values,
    donner_test,
    floored_score_test,
    permutation_p_value,
    permuted_donner,
    step_down_min_p,
    welch_james_test,
)


def clustered_images(seed, sizes, rates, *, correlation=0.5, most=6):
    """Patients with 1 to `most` images that agree with a chance of `correlation`. Returns hit per image, patient, group."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    rng.shuffle(group)
    patient = np.repeat(np.arange(len(group)), rng.integers(1, most + 1, len(group)))
    own = rng.random(len(patient)) < np.asarray(rates)[group[patient]]
    common = rng.random(len(group)) < np.asarray(rates)[group]
    hit = np.where(rng.random(len(patient)) < np.sqrt(correlation), common[patient], own)
    return hit.astype(float), patient, group


def patient_sums(hit, patient, weight=None):
    weight = np.ones(len(hit)) if weight is None else weight
    return np.bincount(patient, weight * hit), np.bincount(patient, weight), np.bincount(patient, weight**2)


def naive_chi_square(hits, trials, group):
    table = np.array([[hits[group == g].sum(), (trials - hits)[group == g].sum()] for g in np.unique(group)])
    return stats.chi2_contingency(table, correction=False)


def donner_by_the_book(hits, trials, group) -> float:
    """Donner and Klar (2000), patient by patient."""
    members = {g: np.flatnonzero(group == g) for g in np.unique(group[group >= 0])}
    total, patients = sum(trials[i].sum() for i in members.values()), sum(map(len, members.values()))
    pooled = sum(hits[i].sum() for i in members.values()) / total
    between = within = inner = 0.0
    for rows in members.values():
        rate = hits[rows].sum() / trials[rows].sum()
        for i in rows:
            own = hits[i] / trials[i]
            between += trials[i] * (own - rate) ** 2
            within += trials[i] * own * (1 - own)
            inner += trials[i] ** 2 / trials[rows].sum()
    between, within = between / (patients - len(members)), within / (total - patients)
    size = (total - inner) / (patients - len(members))
    rho = max(0.0, (between - within) / (between + (size - 1) * within))
    chi_square = 0.0
    for rows in members.values():
        n = trials[rows].sum()
        clumping = sum(trials[i] * (1 + (trials[i] - 1) * rho) for i in rows) / n
        chi_square += (hits[rows].sum() - n * pooled) ** 2 / (clumping * n * pooled * (1 - pooled))
    return chi_square


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_donners_statistic_is_the_books(seed, correlation):
    hit, patient, group = clustered_images(seed, (40, 15, 25), (0.7, 0.5, 0.6), correlation=correlation)
    group[::9] = -1
    hits, trials, _ = patient_sums(hit, patient)
    result = donner_test(hits, trials, group)
    expected = donner_by_the_book(hits, trials, group)
    assert result.statistic == pytest.approx(expected, rel=1e-10)
    assert result.df == 2 and result.p_value == pytest.approx(stats.chi2.sf(expected, 2), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_with_one_image_per_patient_donners_is_the_plain_chi_square(seed):
    hit, patient, group = clustered_images(seed, (60, 20, 30, 9), (0.7, 0.5, 0.6, 0.6), most=1)
    hits, trials, _ = patient_sums(hit, patient)
    plain = naive_chi_square(hits, trials, group)
    result = donner_test(hits, trials, group)
    assert (result.statistic, result.p_value, result.df) == pytest.approx((plain.statistic, plain.pvalue, plain.dof))


@pytest.mark.parametrize("correlation", [0.2, 0.6])  # near 0 the estimate is cut at 0 before, not after
def test_every_image_twice_doubles_the_plain_chi_square_and_leaves_donners(correlation):
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], [200, 80])
    rates = np.array([0.75, 0.6])[group, None]
    own, common = rng.random((280, 3)) < rates, rng.random((280, 1)) < rates
    hits = np.where(rng.random((280, 3)) < np.sqrt(correlation), common, own).sum(axis=1)
    trials = np.full(280, 3)
    once, twice = (naive_chi_square(times * hits, times * trials, group).statistic for times in (1, 2))
    assert twice == pytest.approx(2 * once)
    once, twice = (donner_test(times * hits, times * trials, group).statistic for times in (1, 2))
    assert once > 3 and twice == pytest.approx(once, rel=0.05)


@given(st.integers(0, 10_000), st.sampled_from([0.25, 3.0, 100.0]))
@settings(deadline=None, max_examples=50)
def test_the_scale_of_weights_does_not_matter_and_equal_weights_are_none(seed, scale):
    hit, patient, group = clustered_images(seed, (12, 8), (0.6, 0.5))
    plain = patient_sums(hit, patient)
    uneven = np.random.default_rng(seed).random(len(hit)) + 0.1
    for test in (donner_test, floored_score_test):
        weighted = [
            test(h, t, group, squared_weights=s).statistic
            for h, t, s in (patient_sums(hit, patient, w) for w in (np.full(len(hit), scale), uneven, uneven * scale))
        ]
        assert weighted[0] == pytest.approx(test(*plain[:2], group).statistic, rel=1e-9, nan_ok=True)
        assert weighted[2] == pytest.approx(weighted[1], rel=1e-9, nan_ok=True)


def test_patients_whose_images_all_agree_count_once():
    """Three copies of each image are a correlation of 1: the chi-square is that of the patients."""
    hit, patient, group = clustered_images(1, (80, 40), (0.8, 0.6), most=1)
    hits, trials, _ = patient_sums(hit, patient)
    result = donner_test(3 * hits, 3 * trials, group)
    assert result.statistic == pytest.approx(naive_chi_square(hits, trials, group).statistic)
    apart = donner_test(3.0 * group, np.full(len(group), 3), group)  # no spread within either group
    assert apart.statistic == pytest.approx(len(group))


def test_unknown_and_empty_groups_are_not_compared():
    hit, patient, group = clustered_images(2, (40, 30, 20), (0.7, 0.6, 0.6))
    hits, trials, _ = patient_sums(hit, patient)
    without = group != 1
    expected = donner_test(hits[without], trials[without], np.where(group == 0, 0, 1)[without])
    unknown = donner_test(hits, trials, np.where(group == 1, -1, group))
    assert expected.df == unknown.df == 1 and unknown.statistic == pytest.approx(expected.statistic)
    floored = floored_score_test(hits, trials, np.where(group == 1, -1, group))
    assert floored.statistic == pytest.approx(floored_score_test(hits[without], trials[without], group[without]).statistic)


@pytest.mark.parametrize("test", [donner_test, floored_score_test])
@pytest.mark.parametrize(
    ("hits", "trials", "group"),
    [
        ([0, 0, 0, 0], [1, 2, 3, 1], [0, 0, 1, 1]),
        ([1, 2, 3, 1], [1, 2, 3, 1], [0, 0, 1, 1]),
        ([1, 0, 3, 1], [1, 2, 3, 1], [0, 0, 0, 0]),
        ([1, 0, 3, 1], [1, 2, 3, 1], [0, 0, -1, -1]),
        ([1, 0, 3, 1], [1, 2, 3, 1], [-1, -1, -1, -1]),
        ([], [], []),
    ],
    ids=["no hit", "only hits", "one group", "one known group", "no known group", "nobody"],
)
def test_where_there_is_nothing_to_test_the_result_is_nan(test, hits, trials, group):
    result = test(np.array(hits, float), np.array(trials, float), np.array(group, int))
    assert np.isnan(result.statistic) and np.isnan(result.p_value)
    observed, permuted = permuted_donner(
        np.array(hits, float), np.array(trials, float), np.array(group, int)[:, None], n_permutations=5, seed=0
    )
    assert np.isnan(observed).all() and observed.shape == (1,) and permuted.shape == (5, 1)
    assert np.isnan(permutation_p_value(observed, permuted)).all()


def test_one_patient_per_group_does_not_show_how_alike_images_are():
    assert np.isnan(donner_test([2, 1], [4, 5], np.array([0, 1])).statistic)
    assert donner_test([1, 0], [1, 1], np.array([0, 1])).statistic == pytest.approx(2)


def test_wrong_input_is_named():
    group = np.array([0, 1, 1])
    with pytest.raises(ValueError, match="trials must be above 0: leave out the patients"):
        donner_test([0, 1, 1], [0, 1, 1], group)
    with pytest.raises(ValueError, match="hits must lie between 0 and trials"):
        donner_test([2, 1, 1], [1, 1, 1], group)
    with pytest.raises(ValueError, match="give squared_weights"):
        donner_test([0.2, 0.5, 0.1], [0.5, 0.5, 0.5], group)
    with pytest.raises(ValueError, match=r"at most trials\^2"):
        donner_test([0.2, 0.5, 0.1], [0.5, 0.5, 0.5], group, squared_weights=[0.5, 0.2, 0.2])
    with pytest.raises(ValueError, match="group must hold whole numbers"):
        floored_score_test([0, 1, 1], [1, 1, 1], np.array([0.0, 1, np.nan]))
    with pytest.raises(ValueError, match=r"shape \[m, A\] with m = 3 patients"):
        permuted_donner([0, 1, 1], [1, 1, 1], group, n_permutations=3, seed=0)
    with pytest.raises(ValueError, match=r"keys must have the shape \[n_permutations, m\] = \[3, 3\]"):
        permuted_donner([0, 1, 1], [1, 1, 1], group[:, None], n_permutations=3, seed=0, keys=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"permuted must have the shape \[B, 2\]"):
        step_down_min_p(np.zeros(2), np.zeros((9, 3)))
    with pytest.raises(ValueError, match="must be alike in length"):
        welch_james_test(np.zeros(3), np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match=r"received 'holmes'\. Did you mean 'holm'\?"):
        adjust_p_values(np.zeros(2), "holmes")


# Permutations


def two_attributes(seed, m=60):
    hit, patient, first = clustered_images(seed, (m // 2, m // 3, m - m // 2 - m // 3), (0.7, 0.6, 0.5))
    second = np.where(np.random.default_rng(seed).random(m) < 0.8, first % 2, 1 - first % 2)
    groups = np.stack([first, second], axis=1)
    groups[::11, 0] = -1
    groups[::7, 1] = -1
    return *patient_sums(hit, patient), groups


@pytest.mark.parametrize("is_weighted", [False, True])
def test_permuted_statistics_are_those_of_the_test_on_permuted_patients(is_weighted):
    hits, trials, squared, groups = two_attributes(0)
    if is_weighted:
        hits, trials, squared = hits / trials, trials / trials, squared / trials**2
    keys = np.random.default_rng(1).random((300, len(hits)))  # over one chunk of draws
    observed, permuted = permuted_donner(hits, trials, groups, n_permutations=300, seed=0, keys=keys, squared_weights=squared)
    in_order = groups[np.lexsort(groups.T[::-1])]
    for a in range(2):
        expected = donner_test(hits, trials, groups[:, a], squared_weights=squared).statistic
        assert observed[a] == pytest.approx(expected, rel=1e-10)
        for b in (0, 1, 150, 255, 256, 299):
            moved = np.empty_like(groups)
            moved[np.argsort(keys[b])] = in_order
            expected = donner_test(hits, trials, moved[:, a], squared_weights=squared).statistic
            assert permuted[b, a] == pytest.approx(expected, rel=1e-10), (a, b)


def test_the_permutation_p_value_is_that_of_all_permutations():
    hits, trials, group = np.array([2.0, 3, 1, 0, 1, 0, 1, 0]), np.array([2.0, 3, 1, 2, 2, 1, 4, 1]), np.repeat([0, 1], 4)
    observed = donner_test(hits, trials, group).statistic
    every = []
    for code in range(256):
        labels = (code >> np.arange(8)) & 1
        if labels.sum() == 4:
            every.append(donner_test(hits, trials, labels).statistic)
    exact = np.mean(np.array(every) >= observed - 1e-9)
    drawn = permutation_p_value(*permuted_donner(hits, trials, group[:, None], n_permutations=10_000, seed=0))
    assert 0.01 < exact < 0.3 and drawn[0] == pytest.approx(exact, abs=4 * np.sqrt(exact / 10_000))


def test_the_same_seed_gives_the_same_draws_and_more_draws_begin_with_them():
    hits, trials, _, groups = two_attributes(1)
    first = permuted_donner(hits, trials, groups, n_permutations=300, seed=4)[1]
    np.testing.assert_array_equal(first, permuted_donner(hits, trials, groups, n_permutations=400, seed=4)[1][:300])
    assert not np.array_equal(first, permuted_donner(hits, trials, groups, n_permutations=300, seed=5)[1])


def test_attributes_move_together():
    hits, trials, _, groups = two_attributes(2)
    same = permuted_donner(hits, trials, groups[:, [0, 0]], n_permutations=200, seed=0)[1]
    np.testing.assert_allclose(same[:, 0], same[:, 1])
    rng = np.random.default_rng(0)
    unrelated = np.stack([rng.integers(0, 2, len(hits)), rng.integers(0, 2, len(hits))], axis=1)
    apart = permuted_donner(hits, trials, unrelated, n_permutations=2000, seed=0)[1]
    assert abs(np.corrcoef(apart.T)[0, 1]) < 0.1


def test_shared_keys_keep_the_dependence_between_findings():
    """Two findings with the same hits, of patients that overlap in part: their statistics move together, if the keys do."""
    hits, trials, _, groups = two_attributes(3, 400)
    rng = np.random.default_rng(0)
    keys = rng.random((400, 400))
    keep = [rng.random(400) < 0.95 for _ in range(2)]

    def draws(kept, own_keys):
        return permuted_donner(hits[kept], trials[kept], groups[kept], n_permutations=400, seed=0, keys=own_keys)[1][:, 0]

    shared = np.corrcoef([draws(kept, keys[:, kept]) for kept in keep])[0, 1]
    apart = np.corrcoef(draws(keep[0], keys[:, keep[0]]), draws(keep[1], rng.random((400, keep[1].sum()))))[0, 1]
    assert shared > 0.5 and abs(apart) < 0.2


def test_ties_count_against_the_finding_and_undefined_draws_do_not():
    permuted = np.array([[2.0, 1], [2.0 - 1e-12, 5], [1.0, 6], [np.nan, 7]])
    np.testing.assert_allclose(permutation_p_value(np.array([2.0, np.nan]), permuted), [3 / 5, np.nan])


# Variance floored at independent images


def test_the_floored_test_is_the_quadratic_form_it_states():
    hit, patient, group = clustered_images(0, (40, 15, 25), (0.7, 0.5, 0.6))
    hits, trials, _ = patient_sums(hit, patient)
    pooled = hits.sum() / trials.sum()
    rates, variances, was_floored = [], [], []
    for g in range(3):
        h, t = hits[group == g], trials[group == g]
        rates.append(h.sum() / t.sum())
        robust, floor = sum((h - t * pooled) ** 2) / t.sum() ** 2, pooled * (1 - pooled) / t.sum()
        variances.append(max(robust, floor))
        was_floored.append(floor > robust)
    # The quadratic form of the contrasts with the first group: contrast' V^-1 contrast.
    contrast = np.array([[1.0, -1, 0], [1, 0, -1]])
    delta = contrast @ rates
    expected = delta @ np.linalg.solve(contrast @ np.diag(variances) @ contrast.T, delta)
    result = floored_score_test(hits, trials, group)
    assert result.statistic == pytest.approx(expected, rel=1e-10) and result.df == 2
    assert result.p_value == pytest.approx(stats.chi2.sf(expected, 2)) and not all(was_floored)


def test_patients_who_agree_by_chance_gain_no_certainty():
    """Each patient's rate is the pooled one: the sums show no variance, yet images are no better than independent."""
    trials, group = np.full(20, 2.0), np.repeat([0, 1], 10)
    hits = np.ones(20)
    hits[0] = 2
    independent = naive_chi_square(hits, trials, group).statistic
    assert 0 < floored_score_test(hits, trials, group).statistic <= independent * (1 + 1e-12)


# Welch and James


@pytest.mark.parametrize("k", [2, 3, 5])
def test_for_sample_means_it_is_statsmodels_welch(k):
    rng = np.random.default_rng(k)
    samples = [rng.normal(0.3 * g, 1 + g, 5 + 4 * g) for g in range(k)]
    means, errors, df = zip(*((s.mean(), s.std(ddof=1) / np.sqrt(len(s)), len(s) - 1) for s in samples), strict=True)
    result = welch_james_test(np.array(means), np.array(errors), np.array(df))
    oracle = anova_oneway(samples, use_var="unequal")
    assert (result.statistic, result.p_value) == pytest.approx((oracle.statistic, oracle.pvalue), rel=1e-9)
    assert (result.df, result.denominator_df) == pytest.approx(oracle.df, rel=1e-9)


def test_known_standard_errors_give_a_chi_square():
    values, errors = np.array([0.2, 0.5, 0.9]), np.array([0.1, 0.2, 0.3])
    known = welch_james_test(values, errors, np.full(3, np.inf))
    mean = np.average(values, weights=errors**-2)
    assert known.statistic == pytest.approx((((values - mean) / errors) ** 2).sum() / 2)
    assert known.p_value == pytest.approx(stats.chi2.sf(known.statistic * 2, 2))
    assert welch_james_test(values, errors, np.full(3, 1e7)).p_value == pytest.approx(known.p_value, rel=1e-4)


def test_a_group_without_a_value_is_left_out_and_one_without_variance_forbids_the_test():
    values, errors, df = np.array([0.2, np.nan, 0.9]), np.array([0.1, np.nan, 0.3]), np.array([9.0, 0, 30])
    assert welch_james_test(values, errors, df) == welch_james_test(values[[0, 2]], errors[[0, 2]], df[[0, 2]])
    for value, error, freedom in ((np.inf, 0.1, 5), (1.0, 0.0, 5), (1.0, np.nan, 5), (1.0, 0.1, 0)):
        result = welch_james_test(np.array([0.2, value]), np.array([0.1, error]), np.array([9, freedom]))
        assert np.isnan(result.statistic) and np.isnan(result.p_value)
    assert np.isnan(welch_james_test(values[:1], errors[:1], df[:1]).p_value)


# Many tests


def step_down_by_the_book(observed, permuted) -> np.ndarray:
    """Westfall and Young's algorithm, draw by draw."""
    draws = np.vstack([observed, permuted])
    n, m = draws.shape
    p = np.array([[sum(draws[c, j] >= draws[b, j] for c in range(n)) / n for j in range(m)] for b in range(n)])
    order = sorted(range(m), key=lambda j: p[0, j])
    adjusted, largest = np.zeros(m), 0.0
    for position, j in enumerate(order):
        share = np.mean([min(p[b, i] for i in order[position:]) <= p[0, j] + 1e-12 for b in range(n)])
        largest = max(largest, share)
        adjusted[j] = largest
    return adjusted


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(3, 25))
@settings(deadline=None, max_examples=40)
def test_step_down_is_the_books_and_lies_between_no_correction_and_holm(seed, n_tests, n_draws):
    draws = np.random.default_rng(seed).integers(0, 9, (n_draws, n_tests)).astype(float)
    observed, permuted = draws[0], draws[1:]
    adjusted = step_down_min_p(observed, permuted)
    np.testing.assert_allclose(adjusted, step_down_by_the_book(observed, permuted), atol=1e-12)
    single = permutation_p_value(observed, permuted)
    assert (adjusted >= single - 1e-12).all()
    assert (adjusted <= adjust_p_values(single, "holm") + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(single, kind="stable")]) >= 0).all()


def test_copies_of_one_test_cost_nothing_and_independent_ones_nearly_what_sidak_says():
    rng = np.random.default_rng(0)
    one = rng.chisquare(1, (4000, 1))
    observed = np.array([stats.chi2.isf(0.02, 1)])
    single = permutation_p_value(observed, one)
    np.testing.assert_allclose(step_down_min_p(np.repeat(observed, 6), np.repeat(one, 6, axis=1)), np.repeat(single, 6))
    many, none = rng.chisquare(1, (4000, 6)), np.zeros(5)
    adjusted = step_down_min_p(np.r_[observed, none], many)
    assert adjusted[0] == pytest.approx(1 - 0.98**6, abs=0.02)


def test_undefined_tests_stay_nan_and_cost_nothing():
    rng = np.random.default_rng(1)
    observed, permuted = np.array([6.0, np.nan, 3.0]), rng.chisquare(1, (500, 3))
    permuted[::5, 0] = np.nan
    adjusted = step_down_min_p(observed, permuted)
    assert np.isnan(adjusted[1])
    np.testing.assert_allclose(adjusted[[0, 2]], step_down_min_p(observed[[0, 2]], permuted[:, [0, 2]]))
    single = permutation_p_value(observed[:1], permuted[:, :1])  # an undefined draw is not a large one
    np.testing.assert_allclose(step_down_min_p(observed[:1], permuted[:, :1]), single)
    assert single < 0.05
    assert np.isnan(step_down_min_p(np.full(2, np.nan), permuted[:, :2])).all()


def test_degrees_of_freedom_lift_the_smallest_p_value_off_the_number_of_tests():
    rng = np.random.default_rng(2)
    df = np.tile([1, 3], 20)
    permuted = rng.chisquare(df, (999, 40))
    observed = rng.chisquare(df).astype(float)
    observed[0] = 60.0
    assert step_down_min_p(observed, permuted)[0] > 0.02  # near 40 / 1000
    assert step_down_min_p(observed, permuted, df=df)[0] == pytest.approx(0.001)


def test_statistics_whose_p_value_is_0_in_floating_point_are_still_ordered():
    """df 1 against df 2 far out: -log p is about x / 2 + log(sqrt(x pi / 2)) against x / 2."""
    tail_of_df_1 = np.log(2) + stats.norm.logsf(np.sqrt(2000.0))
    equal = -2 * tail_of_df_1  # the chi-square of df 2 with this p-value, exactly exp(-x / 2)
    permuted = np.zeros((9, 2))
    for off, expected in ((0.001, 0.2), (-0.001, 0.1)):
        permuted[0] = 0, equal + off
        adjusted = step_down_min_p(np.array([2000.0, 1.0]), permuted, df=np.array([1, 2]))
        assert adjusted[0] == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("uses_df", [False, True])
def test_step_down_flags_something_in_one_of_twenty_fair_worlds(uses_df):
    flagged, n_worlds = 0, 600
    for seed in range(n_worlds):
        rng = np.random.default_rng(seed)
        common = rng.normal(size=(400, 1))  # ten tests that depend on each other, five of 1 and five of 2 degrees of freedom
        z = 0.7 * common + np.sqrt(1 - 0.7**2) * rng.normal(size=(400, 15))
        draws = np.hstack([z[:, :5] ** 2, z[:, 5:10] ** 2 + z[:, 10:] ** 2])
        df = np.repeat([1, 2], 5) if uses_df else None
        flagged += step_down_min_p(draws[0], draws[1:], df=df).min() <= 0.05
    assert 0.02 < flagged / n_worlds < 0.075


def test_corrections_are_those_of_hand_and_skip_nan():
    p = np.array([0.01, np.nan, 0.04, 0.03])
    np.testing.assert_allclose(adjust_p_values(p, "holm"), [0.03, np.nan, 0.06, 0.06])
    np.testing.assert_allclose(adjust_p_values(p, "benjamini_hochberg"), [0.03, np.nan, 0.04, 0.04])
    assert np.isnan(adjust_p_values(np.full(3, np.nan), "holm")).all() and adjust_p_values(np.zeros(0), "holm").shape == (0,)


def test_statsmodels_is_loaded_where_it_is_used_only():
    check = "import biascxr.metrics.delong, sys; sys.exit('statsmodels' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


# Size


@pytest.mark.slow
@pytest.mark.parametrize("is_weighted", [False, True], ids=["images", "patients weighted alike"])
def test_in_fair_worlds_the_tests_hold_their_size_and_the_plain_chi_square_does_not(is_weighted):
    """Groups differ in prevalence (positive images per patient) and size; a patient's images are alike; all TPRs are .7."""
    n_worlds = 1000
    p_values = {name: np.empty(n_worlds) for name in ("donner", "permuted", "floored", "plain")}
    for seed in range(n_worlds):
        rng = np.random.default_rng(seed)
        group = np.repeat([0, 1, 2], [260, 100, 60])
        patient = np.repeat(np.arange(420), rng.integers(1, 7, 420))
        sick = rng.normal(size=420)[patient] + rng.normal(size=len(patient)) > np.array([1.5, 0.8, 0.4])[group[patient]]
        found = rng.normal(size=420)[patient] + rng.normal(size=len(patient)) < np.sqrt(2) * stats.norm.ppf(0.7)
        weight = 1 / np.bincount(patient)[patient] if is_weighted else np.ones(len(patient))
        hits, trials, squared = (np.bincount(patient[sick], w[sick], 420) for w in (weight * found, weight, weight**2))
        rows = np.flatnonzero(trials > 0)
        hits, trials, squared, own = hits[rows], trials[rows], squared[rows], group[rows]
        p_values["donner"][seed] = donner_test(hits, trials, own, squared_weights=squared).p_value
        p_values["floored"][seed] = floored_score_test(hits, trials, own, squared_weights=squared).p_value
        drawn = permuted_donner(hits, trials, own[:, None], n_permutations=199, seed=seed, squared_weights=squared)
        p_values["permuted"][seed] = permutation_p_value(*drawn)[0]
        images = np.bincount(patient[sick], found[sick], 420)[rows], np.bincount(patient[sick], minlength=420)[rows]
        p_values["plain"][seed] = naive_chi_square(*images, own).pvalue
    size = {name: np.mean(p < 0.05 + 1e-9) for name, p in p_values.items()}
    for name in ("donner", "permuted", "floored"):
        assert 0.02 < size[name] < 0.08, (name, size)
    for name in ("donner", "permuted"):  # near uniform over the whole range
        assert stats.kstest(p_values[name], "uniform").statistic < 0.06, name
    assert size["plain"] > 0.1
