"""Intervals against statsmodels and closed forms; the coverage of all of them is in test_coverage.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from biascxr.metrics import (
    bca_interval,
    expected_noise_gap,
    gap_change,
    logit_t_interval,
    max_t_gap_interval,
    mover_difference,
    noise_corrected_gap,
    percentile_interval,
    studentized_interval,
    t_interval,
    wilson_interval,
)
from biascxr.metrics.intervals import t_p_value


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


def paired_replicates(rng, before, after, *, n: int = 400, shared: float = 0.05, own: float = 0.01):
    """Returns `[k, R]` replicates of two models whose errors are mostly the same."""
    noise = rng.normal(0, shared, (len(before), n))
    return [np.asarray(v)[:, None] + noise + rng.normal(0, own, noise.shape) for v in (before, after)]


def test_the_gap_change_of_identical_models_is_0():
    values = np.array([0.6, 0.7, 0.8])
    replicates = values[:, None] + np.random.default_rng(0).normal(0, 0.05, (3, 200))
    found = gap_change(values, values, replicates, replicates, 0.95)
    assert found.low <= 0 <= found.high and found.high - found.low < 1e-9
    assert found.p_value == 1


def test_a_gap_that_clearly_closes_has_an_interval_below_0():
    rng = np.random.default_rng(0)
    before, after = np.array([0.5, 0.7, 0.9]), np.array([0.7, 0.7, 0.7])
    found = gap_change(before, after, *paired_replicates(rng, before, after, own=0.005), 0.95)
    assert found.high < 0 and found.low <= -0.4
    assert found.p_value < 0.05


def test_a_change_far_beyond_all_resamples_has_a_p_value_far_below_their_number():
    """A share of 400 resamples cannot be below 1 / 401, too much for a correction for many tests."""
    before, after = np.array([0.5, 0.9]), np.array([0.65, 0.85])
    found = gap_change(before, after, *paired_replicates(np.random.default_rng(0), before, after, own=0.005), 0.95)
    assert found.p_value < 0.1 / 401


def test_groups_that_swap_places_do_not_change_the_gap():
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 400))
    before, after = np.array([0.6, 0.8]), np.array([0.8, 0.6])
    found = gap_change(before, after, before[:, None] + noise, after[:, None] + noise, 0.95)
    assert found.low < 0 < found.high and found.p_value > 0.5


def test_a_gap_change_with_many_undefined_resamples_is_undefined():
    replicates = np.random.default_rng(0).normal(size=(2, 50))
    replicates[0, :6] = np.nan
    found = gap_change(np.zeros(2), np.zeros(2), replicates, replicates, 0.95)
    assert np.isnan([found.low, found.high, found.p_value]).all()


def test_a_gap_change_of_an_undefined_group_is_undefined():
    replicates = np.random.default_rng(0).normal(size=(2, 50))
    found = gap_change(np.array([0.5, np.nan]), np.zeros(2), replicates, replicates, 0.95)
    assert np.isnan([found.low, found.high, found.p_value]).all()


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99])
def test_the_p_value_of_a_gap_change_is_below_alpha_where_its_interval_is_off_0(confidence):
    """They may part only where the p-value is within two of the R resamples of alpha."""
    rng = np.random.default_rng(3)
    n, alpha, n_off = 400, 1 - confidence, 0
    for closed in np.linspace(0, 0.4, 40):
        before = np.array([0.2, 0.7, 0.72])
        after = before + np.array([closed, 0, 0])
        found = gap_change(before, after, *paired_replicates(rng, before, after, n=n, own=0.02), confidence)
        is_off = found.low > 0 or found.high < 0
        n_off += is_off
        if abs(found.p_value - alpha) > 2 / (n + 1):
            assert (found.p_value < alpha) == is_off
    assert 3 < n_off < 37  # both answers were seen


def test_the_change_of_two_groups_in_one_order_is_the_paired_z_interval():
    """Far from a change of order the gap is a plain difference, whose change has a normal interval."""
    rng = np.random.default_rng(4)
    before, after = np.array([0.2, 0.8]), np.array([0.25, 0.8])
    replicates = paired_replicates(rng, before, after, n=4000)
    found = gap_change(before, after, *replicates, 0.95)
    error = np.std(np.diff(replicates[1] - replicates[0], axis=0), ddof=1)
    # The critical value is simultaneous over the change and the sums of both gaps: a little above 1.96.
    assert found.high == pytest.approx(-0.05 + 2.15 * error, abs=0.25 * error)
    assert found.low == pytest.approx(-0.05 - 2.15 * error, abs=0.25 * error)
    assert found.high > -0.05 + 1.9 * error


def test_equalized_odds_of_one_metric_twice_is_that_metric():
    rng = np.random.default_rng(5)
    before, after = np.array([0.5, 0.7, 0.9]), np.array([0.6, 0.7, 0.85])
    a, b = paired_replicates(rng, before, after)
    once = gap_change(before, after, a, b, 0.95)
    for copies in (1, 2):
        many = gap_change(*((v,) * copies for v in (before, after, a, b)), 0.95)
        assert (many.low, many.high) == pytest.approx((once.low, once.high))


def test_a_metric_that_is_the_same_constant_in_all_groups_does_not_move_equalized_odds():
    """Only the critical value grows a little, for the contrasts with 0 are among those that it covers."""
    rng = np.random.default_rng(6)
    before, after = np.array([0.5, 0.7, 0.9]), np.array([0.65, 0.7, 0.85])
    a, b = paired_replicates(rng, before, after)
    flat, flats = np.full(3, 0.1), np.full((3, a.shape[1]), 0.1)
    one = gap_change(before, after, a, b, 0.95)
    both = gap_change((before, flat), (after, flat), (a, flats), (b, flats), 0.95)
    width = one.high - one.low
    assert both.low <= one.low + 1e-12 and one.high <= both.high + 1e-12
    assert both.high - both.low < 1.3 * width
    assert both.high < 0


def test_equalized_odds_follows_the_metric_whose_gap_is_larger():
    rng = np.random.default_rng(7)
    large, small, smaller = np.array([0.5, 0.9]), np.array([0.30, 0.35]), np.array([0.30, 0.31])
    a, b = paired_replicates(rng, large, large)
    c, d = paired_replicates(rng, small, smaller)
    alone, found = gap_change(large, large, a, b, 0.95), gap_change((large, small), (large, smaller), (a, c), (b, d), 0.95)
    assert found.low < 0 < found.high and found.p_value > 0.2  # the smaller gap shrinks, which does not count
    assert found.high - found.low < 1.5 * (alone.high - alone.low)
    turned = gap_change((small, large), (smaller, large), (c, a), (d, b), 0.95)
    assert (turned.low, turned.high, turned.p_value) == pytest.approx((found.low, found.high, found.p_value))


values = st.integers(0, 100).map(lambda i: i / 100)
errors = st.integers(0, 30).map(lambda i: i / 100)
degrees = st.integers(0, 60)
cells = st.lists(st.tuples(values, errors, st.integers(1, 300), degrees), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(cells=cells, confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_an_array_of_cells_has_the_intervals_of_each_cell(cells, confidence):
    value, error, n, df = (np.array(column, float) for column in zip(*cells, strict=True))
    value = np.where(value > 0.97, np.nan, value)
    forms = {
        "wilson": lambda v, e, m, d: wilson_interval(v, e, m, confidence, df=d),
        "logit t": lambda v, e, m, d: logit_t_interval(v, e, confidence, df=d),
        "t": lambda v, e, m, d: t_interval(v, e, confidence, df=d),
    }
    for form in forms.values():
        together = np.array(form(value, error, n, df))
        alone = np.array([form(*cell) for cell in zip(value, error, n, df, strict=True)]).T
        np.testing.assert_allclose(together, alone, rtol=1e-12)
        blocks = [part.reshape(1, -1, 1) for part in (value, error, n, df)]
        np.testing.assert_allclose(np.array(form(*blocks))[:, 0, :, 0], alone, rtol=1e-12)


def test_one_argument_broadcasts_over_the_others():
    rates, degrees_of_freedom = np.array([0.2, 0.5]), np.array([[5.0], [30.0]])
    low, high = wilson_interval(rates, 0.1, 40, 0.95, df=degrees_of_freedom)
    assert low.shape == high.shape == (2, 2)
    assert (low[1, 0], high[1, 0]) == pytest.approx(wilson_interval(0.2, 0.1, 40, 0.95, df=30))


@pytest.mark.parametrize("df", [1, 7, 40])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_t_interval_and_its_p_value_are_scipys(df, confidence):
    sample = np.random.default_rng(df).normal(0.3, 1, df + 1)
    error = stats.sem(sample)
    ours = t_interval(sample.mean(), error, confidence, df=df)
    assert ours == pytest.approx(stats.t.interval(confidence, df, loc=sample.mean(), scale=error))
    assert t_p_value(sample.mean(), error, df=df) == pytest.approx(stats.ttest_1samp(sample, 0).pvalue)


def test_with_infinite_degrees_of_freedom_t_is_normal():
    assert t_interval(1.0, 0.5, 0.95, df=np.inf) == pytest.approx(stats.norm.interval(0.95, 1.0, 0.5))
    assert t_p_value(1.0, 0.5, df=np.inf) == pytest.approx(2 * stats.norm.sf(2))


def test_the_p_value_of_what_never_varies_is_1_where_nothing_changed_and_0_where_something_did():
    np.testing.assert_array_equal(t_p_value([0.0, 0.1, np.nan, 0.1], [0.0, 0.0, 0.1, np.nan], df=9), [1, 0, np.nan, np.nan])
    assert np.isnan(t_p_value(0.1, 0.1, df=0))


@pytest.mark.parametrize("statistic", [np.mean, stats.skew, lambda x: np.quantile(x, 0.7)])
def test_the_bca_interval_is_scipys_on_the_same_resamples(statistic):
    sample = np.random.default_rng(0).exponential(size=60)
    options = {"vectorized": False, "method": "BCa", "n_resamples": 999, "confidence_level": 0.9}
    made = stats.bootstrap((sample,), statistic, rng=np.random.default_rng(1), **options)
    jackknife = np.array([statistic(np.delete(sample, i)) for i in range(len(sample))])
    ours = bca_interval(statistic(sample), made.bootstrap_distribution, jackknife, 0.9)
    assert ours == pytest.approx(tuple(made.confidence_interval), rel=1e-9)


def test_without_bias_and_skewness_bca_is_the_percentile_interval():
    replicates = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    ours = bca_interval(0.0, replicates, np.array([-1.0, 1.0]), 0.95)
    assert ours == pytest.approx(percentile_interval(replicates, 0.95), abs=1e-6)


def test_a_bca_interval_needs_replicates_on_both_sides_of_the_estimate():
    replicates = np.random.default_rng(0).normal(size=100)
    assert np.isnan(bca_interval(replicates.min() - 1, replicates, np.array([-1.0, 1.0]), 0.95)).all()
    assert np.isnan(bca_interval(np.nan, replicates, np.array([-1.0, 1.0]), 0.95)).all()
    replicates[:11] = np.nan
    assert np.isnan(bca_interval(0.0, replicates, np.array([-1.0, 1.0]), 0.95)).all()


def test_the_studentized_interval_of_a_normal_mean_is_the_t_interval_in_the_limit():
    """Means and standard errors of normal samples of 8: their ratio is Student's t, so the ends are."""
    rng = np.random.default_rng(0)
    n, n_replicates = 8, 200_000
    value, error = 3.0, 0.4
    replicates = rng.normal(value, error, n_replicates)
    replicate_errors = error * np.sqrt(rng.chisquare(n - 1, n_replicates) / (n - 1))
    ours = studentized_interval(value, error, replicates, replicate_errors, 0.95)
    expected = t_interval(value, error, 0.95, df=n - 1)
    assert ours == pytest.approx(expected, abs=0.02 * error * stats.t.ppf(0.975, n - 1))


def test_a_skewed_replicate_turns_the_studentized_interval_over():
    """The long side of the replicates' ratio becomes the other side of the interval."""
    ratios = np.random.default_rng(0).exponential(size=5000) - 1
    low, high = studentized_interval(0.0, 1.0, ratios, np.ones(5000), 0.9)
    assert (low, high) == pytest.approx((-np.quantile(ratios, 0.95), -np.quantile(ratios, 0.05)))
    assert -low > high


def test_a_studentized_interval_needs_nine_tenths_of_the_ratios():
    replicates, replicate_errors = np.random.default_rng(0).normal(size=100), np.ones(100)
    replicate_errors[:11] = 0
    assert np.isnan(studentized_interval(0.0, 1.0, replicates, replicate_errors, 0.9)).all()


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.3, 0.9])
def test_mover_of_normal_intervals_is_the_variance_of_a_difference(correlation):
    z, (a, b) = stats.norm.ppf(0.975), (0.05, 0.08)
    ours = mover_difference((0.7, 0.7 - z * a, 0.7 + z * a), (0.4, 0.4 - z * b, 0.4 + z * b), correlation=correlation)
    error = np.sqrt(a**2 + b**2 - 2 * correlation * a * b)
    assert ours == pytest.approx((0.3 - z * error, 0.3 + z * error))


def test_the_mover_interval_shrinks_with_positive_correlation_and_grows_with_negative():
    a, b = (0.7, 0.6, 0.75), (0.5, 0.45, 0.6)
    widths = [np.ptp(mover_difference(a, b, correlation=r)) for r in (-0.8, -0.3, 0.0, 0.3, 0.8)]
    assert (np.diff(widths) < 0).all()


def test_estimates_that_move_together_have_no_width_between_them():
    low, high = mover_difference((0.7, 0.6, 0.8), (0.5, 0.4, 0.6), correlation=1.0)
    assert (low, high) == pytest.approx((0.2, 0.2))


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.5, 0.95])
def test_noise_gap_of_two_correlated_groups_is_the_half_normal_mean(correlation):
    a, b = 0.05, 0.08
    expected = np.sqrt(2 / np.pi) * np.sqrt(a**2 + b**2 - 2 * correlation * a * b)
    matrix = np.array([[1, correlation], [correlation, 1]])
    ours = expected_noise_gap(np.array([a, b]), seed=0, n_draws=400_000, correlation=matrix)
    assert ours == pytest.approx(expected, rel=0.005)


def test_groups_that_do_not_correlate_are_independent_groups():
    values, errors = np.array([0.9, 0.7, 0.72, 0.5]), np.array([0.02, 0.01, 0.03, 0.02])
    options = {"seed": 0, "n_draws": 100_000}
    bounds = normal_bounds(values, errors)
    plain = max_t_gap_interval(values, bounds, errors, 0.95, **options)
    identity = max_t_gap_interval(values, bounds, errors, 0.95, correlation=np.eye(4), **options)
    assert identity == pytest.approx(plain, abs=1e-9)
    assert expected_noise_gap(errors, correlation=np.eye(4), **options) == pytest.approx(
        expected_noise_gap(errors, **options), rel=1e-9
    )


def test_correlated_groups_have_a_narrower_gap_interval():
    values, errors = np.array([0.9, 0.7, 0.6]), np.array([0.03, 0.03, 0.03])
    matrix = np.full((3, 3), 0.6) + 0.4 * np.eye(3)
    plain = max_t_gap_interval(values, normal_bounds(values, errors), errors, 0.95, seed=0)
    related = max_t_gap_interval(values, normal_bounds(values, errors), errors, 0.95, seed=0, correlation=matrix)
    assert plain[0] < related[0] < 0.3 < related[1] < plain[1]
    # In the limit of groups whose errors share the part 0.6: the independent gap at errors smaller by sqrt(0.4).
    smaller = errors * np.sqrt(0.4)
    expected = max_t_gap_interval(values, normal_bounds(values, smaller), smaller, 0.95, seed=0)
    assert related == pytest.approx(expected, abs=0.003)
