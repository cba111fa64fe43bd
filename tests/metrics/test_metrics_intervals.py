"""Intervals against statsmodels and closed forms; the coverage of all of them is in test_coverage.py."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from biascxr.metrics import (
    expected_noise_gap,
    gap_change_interval,
    logit_t_interval,
    max_t_gap_interval,
    mover_difference,
    noise_corrected_gap,
    percentile_interval,
    wilson_interval,
)


def binomial_error(rate: float, n: int) -> float:
    return np.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize(("hits", "n"), [(3, 40), (20, 40), (39, 40), (150, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_independent_images_give_the_plain_wilson_interval(hits, n, confidence):
    ours = wilson_interval(hits / n, binomial_error(hits / n, n), n, confidence, df=n - 1)
    assert ours == pytest.approx(proportion_confint(hits, n, alpha=1 - confidence, method="wilson"))


@pytest.mark.parametrize("hits", [0, 40])
def test_a_rate_of_0_or_1_has_a_wilson_interval_at_the_number_of_patients(hits):
    ours = wilson_interval(hits / 40, 0.0, 100, 0.95, df=39)
    assert ours == pytest.approx(proportion_confint(hits, 40, alpha=0.05, method="wilson"))


def test_images_that_repeat_each_other_count_once():
    error = binomial_error(0.3, 50)  # 200 images that are worth 50
    assert wilson_interval(0.3, error, 200, 0.95, df=49) == pytest.approx(proportion_confint(15, 50, method="wilson"))


def test_a_design_effect_below_one_is_not_believed():
    too_small = binomial_error(0.3, 100) / 3
    assert wilson_interval(0.3, too_small, 100, 0.95, df=99) == pytest.approx(proportion_confint(30, 100, method="wilson"))


def test_with_few_patients_the_t_quantile_widens_wilson():
    few, many = (wilson_interval(0.3, binomial_error(0.3, 60), 60, 0.95, df=df) for df in (7, 59))
    assert few[0] < many[0] and few[1] > many[1]


@pytest.mark.parametrize(("a", "b"), [((8, 20), (5, 30)), ((56, 70), (48, 80)), ((9, 10), (3, 10)), ((5, 56), (0, 29))])
def test_mover_of_two_wilson_intervals_is_newcombes(a, b):
    (x, m), (y, n) = a, b
    ours = mover_difference(
        (x / m, *proportion_confint(x, m, method="wilson")), (y / n, *proportion_confint(y, n, method="wilson"))
    )
    assert ours == pytest.approx(confint_proportions_2indep(x, m, y, n, method="newcomb", compare="diff"))


def test_mover_turns_over_with_its_arguments():
    a, b = (0.7, 0.6, 0.75), (0.5, 0.45, 0.6)
    low, high = mover_difference(a, b)
    assert mover_difference(b, a) == pytest.approx((-high, -low))
    assert low < 0.2 < high


def test_logit_interval_is_symmetric_on_its_scale_and_near_wald_when_narrow():
    value, error, df = 0.8, 0.002, 30
    low, high = logit_t_interval(value, error, 0.95, df=df)
    logit = stats.logistic.ppf
    assert logit(value) - logit(low) == pytest.approx(logit(high) - logit(value))
    reach = stats.t.ppf(0.975, df) * error
    assert (low, high) == pytest.approx((value - reach, value + reach), abs=1e-4)


@pytest.mark.parametrize("value", [0.02, 0.5, 0.98, 0.999])
def test_a_logit_interval_stays_inside_0_and_1_and_holds_its_value(value):
    low, high = logit_t_interval(value, 0.1, 0.95, df=5)
    assert 0 <= low < value < high <= 1


def test_a_perfect_auroc_still_has_an_interval():
    low, high = logit_t_interval(1.0, 0.0, 0.95, df=19)
    assert high == 1 and low == pytest.approx(0.025 ** (1 / 20))
    assert logit_t_interval(0.0, 0.0, 0.95, df=19) == pytest.approx((0, 1 - low))


@pytest.mark.parametrize("interval", [lambda v, df: wilson_interval(v, 0.1, 10, 0.95, df=df),
                                      lambda v, df: logit_t_interval(v, 0.1, 0.95, df=df)])  # fmt: skip
def test_undefined_values_and_single_patients_have_no_interval(interval):
    assert np.isnan(interval(np.nan, 10)).all()
    assert np.isnan(interval(0.5, 0)).all()
    assert not np.isnan(interval(0.5, 1)).any()


def test_percentile_interval_is_numpys_and_needs_nine_tenths_defined():
    values = np.random.default_rng(0).normal(size=200)
    assert percentile_interval(values, 0.9) == pytest.approx(tuple(np.quantile(values, [0.05, 0.95])))
    values[:19] = np.nan
    assert percentile_interval(values, 0.9) == pytest.approx(tuple(np.nanquantile(values, [0.05, 0.95])))
    values[:21] = np.nan
    assert np.isnan(percentile_interval(values, 0.9)).all()


@pytest.mark.parametrize("errors", [(0.02, 0.05), (0.1, 0.1)])
def test_noise_gap_of_two_groups_is_the_half_normal_mean(errors):
    expected = np.sqrt(2 / np.pi) * np.hypot(*errors)
    assert expected_noise_gap(np.array(errors), seed=0, n_draws=400_000) == pytest.approx(expected, rel=0.005)
    assert expected_noise_gap(np.array(errors), seed=0) == pytest.approx(expected, rel=0.05)


def test_noise_gap_grows_with_groups_and_vanishes_without_noise():
    gaps = [expected_noise_gap(np.full(k, 0.1), seed=0) for k in (2, 3, 5)]
    assert gaps == sorted(gaps) and gaps[0] > 0
    assert gaps[2] == pytest.approx(0.2326, rel=0.03)  # expected range of five standard normals: 2.326
    assert expected_noise_gap(np.zeros(3), seed=0) == 0


def test_a_gap_no_larger_than_noise_is_corrected_to_0():
    assert noise_corrected_gap(0.05, 0.06) == 0
    assert noise_corrected_gap(0.13, 0.05) == pytest.approx(0.12)


def normal_bounds(values, errors):
    def bounds(confidence):
        reach = stats.norm.ppf((1 + confidence) / 2) * errors
        return values - reach, values + reach

    return bounds


def test_gap_interval_of_two_groups_holds_the_absolute_difference_and_is_cut_at_0():
    values, errors = np.array([0.7, 0.72]), np.array([0.03, 0.03])
    low, high = max_t_gap_interval(values, normal_bounds(values, errors), errors, 0.95, seed=0)
    assert low == 0
    assert high == pytest.approx(0.02 + 1.96 * np.hypot(*errors), abs=1e-4)


def test_gap_interval_finds_a_large_gap_and_does_not_care_about_the_order_of_groups():
    values, errors = np.array([0.9, 0.7, 0.72, 0.5]), np.array([0.02, 0.01, 0.03, 0.02])
    low, high = max_t_gap_interval(values, normal_bounds(values, errors), errors, 0.95, seed=0)
    assert 0.25 < low < 0.4 < high < 0.5
    turned = max_t_gap_interval(values[::-1], normal_bounds(values[::-1], errors[::-1]), errors[::-1], 0.95, seed=0)
    assert turned == pytest.approx((low, high), abs=0.003)


def test_more_groups_make_the_lower_end_more_careful():
    errors = np.full(6, 0.03)
    values = np.array([0.6, 0.8, 0.7, 0.7, 0.7, 0.7])
    two = max_t_gap_interval(values[:2], normal_bounds(values[:2], errors[:2]), errors[:2], 0.95, seed=0)
    six = max_t_gap_interval(values, normal_bounds(values, errors), errors, 0.95, seed=0)
    assert six[0] < two[0]


def test_the_gap_change_of_identical_models_is_0():
    rng = np.random.default_rng(0)
    values = np.array([0.6, 0.7, 0.8])
    replicates = values + rng.normal(0, 0.05, (200, 3))
    low, high = gap_change_interval(values, values, replicates, replicates, 0.95)
    assert low <= 0 <= high and high - low < 1e-9


def test_a_gap_that_clearly_closes_has_an_interval_below_0():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.05, (400, 3))
    before, after = np.array([0.5, 0.7, 0.9]), np.array([0.7, 0.7, 0.7])
    low, high = gap_change_interval(before, after, before + shared, after + shared + rng.normal(0, 0.005, (400, 3)), 0.95)
    assert high < 0 and low <= -0.4


def test_groups_that_swap_places_do_not_change_the_gap():
    noise = np.random.default_rng(0).normal(0, 0.01, (400, 2))
    before, after = np.array([0.6, 0.8]), np.array([0.8, 0.6])
    low, high = gap_change_interval(before, after, before + noise, after + noise, 0.95)
    assert low < 0 < high


def test_a_gap_change_with_many_undefined_resamples_is_undefined():
    replicates = np.random.default_rng(0).normal(size=(50, 2))
    replicates[:6, 0] = np.nan
    assert np.isnan(gap_change_interval(np.zeros(2), np.zeros(2), replicates, replicates, 0.95)).all()
