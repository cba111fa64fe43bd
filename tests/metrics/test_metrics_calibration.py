"""Brier, log loss, ECE and the calibration intercept and slope against scikit-learn, statsmodels, draws and made-up truth."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as scikit_learns_log_loss

from biascxr.metrics import calibration

METRICS = {
    name: getattr(calibration, name)
    for name in (
        "brier_score",
        "log_loss",
        "expected_calibration_error",
        "debiased_calibration_error",
        "calibration_in_the_large",
        "calibration_slope",
    )
}

# Labels, scores on few values (0, 1 and edges of bins among them), whole-number weights: each row has one of each.
rows = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, np.nan]), st.integers(0, 10).map(lambda i: i / 10), st.integers(0, 4)),
    min_size=1,
    max_size=40,
).map(lambda r: tuple(np.array(column, np.float64) for column in zip(*r, strict=True)))


def patients(n: int, *, seed: int, intercept: float = 0.0, slope: float = 1.0):
    """Returns labels and scores where `logit P(y = 1) = intercept + slope * logit(score)`."""
    rng = np.random.default_rng(seed)
    score = rng.beta(2, 4, n)
    return (rng.random(n) < special.expit(intercept + slope * special.logit(score))).astype(float), score


@given(rows, st.integers(0, 1000))
@settings(deadline=None, max_examples=100)
def test_brier_and_log_loss_are_scikit_learns(drawn, seed):
    y, score, _ = drawn
    weight = np.random.default_rng(seed).random(len(y)) + 0.01
    known = ~np.isnan(y)
    if not known.any():
        assert np.isnan(calibration.brier_score(y, score)) and np.isnan(calibration.log_loss(y, score))
        return
    clipped = np.clip(score[known], 1e-7, 1 - 1e-7)
    for w, own in ((None, None), (weight, weight[known])):
        brier = brier_score_loss(y[known], score[known], sample_weight=own, pos_label=1)
        assert calibration.brier_score(y, score, w) == pytest.approx(brier, abs=1e-12)
        expected = scikit_learns_log_loss(y[known], clipped, sample_weight=own, labels=[0, 1])
        assert calibration.log_loss(y, score, w) == pytest.approx(expected, abs=1e-9)


def test_a_row_that_is_wholly_wrong_costs_16_nats_and_not_infinity():
    assert calibration.log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(-np.log(1e-7))
    assert calibration.log_loss(np.array([0.0]), np.array([1.0])) == pytest.approx(-np.log(1e-7))


def binned(y, score, weight, n_bins) -> pd.DataFrame:
    """The rows that count, with pandas' bins of equal width, closed to the left, the last one closed."""
    frame = pd.DataFrame({"y": y, "s": score, "w": weight}).dropna()
    edges = np.r_[np.linspace(0, 1, n_bins + 1)[:-1], 1.1]
    return frame[frame["w"] > 0].assign(bin=lambda f: pd.cut(f["s"], edges, right=False))


@given(rows, st.sampled_from([1, 5, 10, 15]))
@settings(deadline=None, max_examples=100)
def test_ece_is_the_weighted_mean_over_pandas_bins(drawn, n_bins):
    y, score, weight = drawn
    frame = binned(y, score, weight, n_bins)
    expected = np.nan
    if len(frame):
        bins = [b for _, b in frame.groupby("bin", observed=True)]
        gaps = [abs(np.average(b["s"], weights=b["w"]) - np.average(b["y"], weights=b["w"])) for b in bins]
        expected = np.average(gaps, weights=[b["w"].sum() for b in bins])
    found = calibration.expected_calibration_error(y, score, weight, n_bins=n_bins)
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(rows)
@settings(deadline=None, max_examples=100)
def test_one_bin_sees_only_the_difference_of_the_means(drawn):
    y, score, _ = drawn
    known = ~np.isnan(y)
    expected = abs(score[known].mean() - y[known].mean()) if known.any() else np.nan
    found = calibration.expected_calibration_error(y, score, n_bins=1)
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert not found > calibration.expected_calibration_error(y, score, n_bins=4) + 1e-12  # finer bins see more


def test_bins_are_the_same_for_a_group_and_for_all():
    y, score = patients(2000, seed=0)
    group = score > 0.37  # a group whose scores cover a part of [0, 1] only
    apart = sum(g.mean() * calibration.expected_calibration_error(y[g], score[g], n_bins=1000) for g in (group, ~group))
    assert apart == pytest.approx(calibration.expected_calibration_error(y, score, n_bins=1000), abs=1e-12)


@given(rows)
@settings(deadline=None, max_examples=60)
def test_the_debiased_error_subtracts_scipys_folded_normal_per_bin(drawn):
    y, score, weight = drawn
    frame = binned(y, score, weight, 15)
    if frame.empty:
        assert np.isnan(calibration.debiased_calibration_error(y, score, weight))
        return
    expected = 0.0
    for _, b in frame.groupby("bin", observed=True):
        d, share = np.average(b["s"] - b["y"], weights=b["w"]), b["w"].sum() / frame["w"].sum()
        n = b["w"].sum() ** 2 / (b["w"] ** 2).sum()
        p = np.average(b["y"], weights=b["w"])
        error = np.sqrt(p * (1 - p) / (n - 1)) if len(b) > 1 and 0 < p < 1 else 0
        bias = stats.foldnorm.mean(abs(d) / error, scale=error) - abs(d) if error else 0
        expected += share * (abs(d) - bias)
    assert calibration.debiased_calibration_error(y, score, weight) == pytest.approx(max(0, expected), abs=1e-9)


def test_the_closed_form_is_what_the_draws_of_kumar_liang_and_ma_come_to():
    y, score = patients(300, seed=3, intercept=0.3)
    frame = binned(y, score, np.ones(len(y)), 15)
    rng = np.random.default_rng(0)
    drawn = np.zeros(20_000)
    for _, b in frame.groupby("bin", observed=True):
        p = b["y"].mean()
        error = np.sqrt(p * (1 - p) / (len(b) - 1)) if len(b) > 1 else 0
        drawn += len(b) / len(frame) * np.abs(b["s"].mean() - rng.normal(p, error, len(drawn)))
    naive = calibration.expected_calibration_error(y, score)
    expected = naive - (drawn.mean() - naive)
    assert 0.01 < expected < naive - 0.01
    assert calibration.debiased_calibration_error(y, score) == pytest.approx(expected, abs=5e-4)  # 4 errors of the draws


@pytest.mark.parametrize("n", [100, 1000])
def test_debiasing_takes_two_fifths_of_the_noise_from_scores_that_are_right(n):
    """At a true error of 0 the correction sees a |d| that is itself noise and removes sqrt(2) - 1 = .41 of it."""
    worlds = [patients(n, seed=seed) for seed in range(200)]
    naive = np.mean([calibration.expected_calibration_error(*world) for world in worlds])
    debiased = np.mean([calibration.debiased_calibration_error(*world) for world in worlds])
    assert naive > 0.25 / np.sqrt(n)  # nothing is wrong but noise
    assert 1 - debiased / naive == pytest.approx(np.sqrt(2) - 1, abs=0.05)


def test_a_large_error_is_hardly_touched_and_nearer_to_the_truth():
    truth = calibration.expected_calibration_error(*patients(400_000, seed=0, intercept=-0.6))
    worlds = [patients(1000, seed=seed, intercept=-0.6) for seed in range(1, 101)]
    naive = np.mean([calibration.expected_calibration_error(*world) for world in worlds])
    debiased = np.mean([calibration.debiased_calibration_error(*world) for world in worlds])
    assert truth > 0.1 and naive > truth
    assert abs(debiased - truth) < abs(naive - truth) and debiased == pytest.approx(truth, abs=0.004)


@given(rows)
@settings(deadline=None, max_examples=100)
def test_debiasing_never_adds_and_never_goes_below_0(drawn):
    y, score, weight = drawn
    naive = calibration.expected_calibration_error(y, score, weight)
    debiased = calibration.debiased_calibration_error(y, score, weight)
    assert np.isnan(naive) == np.isnan(debiased)
    assert np.isnan(naive) or 0 <= debiased <= naive + 1e-12


def test_an_error_smaller_than_what_noise_gives_is_corrected_to_0():
    y, score = np.array([0.0, 1.0, 0.0, 1.0, 0.0]), np.full(5, 0.42)
    assert calibration.expected_calibration_error(y, score) == pytest.approx(0.02)
    assert calibration.debiased_calibration_error(y, score) == 0


def test_bins_with_one_effective_row_are_not_corrected():
    y, score = np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.5, 0.9])
    assert calibration.debiased_calibration_error(y, score) == calibration.expected_calibration_error(y, score) > 0
    pair, same = np.array([0.0, 1.0]), np.array([0.3, 0.3])
    alone = calibration.debiased_calibration_error(pair, same, np.array([1.0, 0.0]))
    assert alone == calibration.expected_calibration_error(pair[:1], same[:1])
    assert calibration.debiased_calibration_error(pair, same) < calibration.expected_calibration_error(pair, same)


def test_weights_that_copy_rows_tell_the_debiased_error_nothing_new():
    y, score = patients(200, seed=5)
    debiased = calibration.debiased_calibration_error
    assert debiased(y, score, np.full(200, 7.0)) == pytest.approx(debiased(y, score), abs=1e-12)
    assert debiased(np.tile(y, 7), np.tile(score, 7)) > debiased(y, score) + 0.01  # rows are believed to be independent


@given(rows, st.integers(0, 1000))
@settings(deadline=None, max_examples=150)
def test_the_intercept_solves_its_equation_and_is_statsmodels(drawn, seed):
    y, score, weight = drawn
    weight = weight + np.random.default_rng(seed).random(len(y))
    found = calibration.calibration_in_the_large(y, score, weight)
    known = ~np.isnan(y)
    y, w, offset = y[known], weight[known], special.logit(np.clip(score[known], 1e-7, 1 - 1e-7))
    if len(np.unique(y)) < 2:
        assert np.isnan(found)
        return
    assert (w * y).sum() == pytest.approx((w * special.expit(found + offset)).sum(), rel=1e-9)
    if np.abs(offset).max() < 5:  # beyond, statsmodels' own steps may run away
        model = sm.GLM(y, np.ones(len(y)), family=sm.families.Binomial(), freq_weights=w, offset=offset)
        assert found == pytest.approx(model.fit(tol=1e-12).params[0], abs=1e-6)


def is_separated(y, x) -> bool:
    """Whether one class lies at or above some point and the other at or below it, by trying every point."""
    return any((sign * (x - point) * (2 * y - 1) >= 0).all() for point in x for sign in (1, -1))


@given(rows, st.integers(0, 1000))
@settings(deadline=None, max_examples=150)
def test_the_slope_is_statsmodels_and_undefined_where_classes_are_separated(drawn, seed):
    y, score, weight = drawn
    weight = weight + np.random.default_rng(seed).random(len(y)) + 0.01
    score = np.clip(score, 0.02, 0.98)  # statsmodels' own steps may run away with more extreme ones
    found = calibration.calibration_slope(y, score, weight)
    known = ~np.isnan(y)
    y, w, x = y[known], weight[known], special.logit(score[known])
    if not known.any() or is_separated(y, x):
        assert np.isnan(found)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its guess at separation
        model = sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial(), freq_weights=w).fit(tol=1e-13, maxiter=300)
    assert found == pytest.approx(model.params[1], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("seed", range(200))
def test_extreme_scores_and_weights_still_have_the_slope_that_root_finding_gives(seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(4, 12)
    score, y = rng.choice([0, 1e-9, 0.3, 0.5, 0.999, 1], n), rng.choice([0.0, 1.0], n)
    weight = rng.choice([0.01, 1, 100], n)
    found, x = calibration.calibration_slope(y, score, weight), special.logit(np.clip(score, 1e-7, 1 - 1e-7))
    if len(np.unique(y)) < 2 or is_separated(y, x):
        assert np.isnan(found)
        return

    # The likelihood's slope in b, with the best intercept for each b, falls through 0 at the answer.
    def derivative(b: float) -> float:
        a = calibration_intercept(y, b * x, weight)
        residual = np.where(y == 1, special.expit(-a - b * x), -special.expit(a + b * x))
        return (weight * residual * (x - x.mean())).sum()

    width = 1e-6 * (1 + abs(found))
    assert derivative(found - width) > 0 > derivative(found + width)


def calibration_intercept(y, offset, weight) -> float:
    """The intercept by halving, to the last digit."""
    low, high = -60 - np.abs(offset).max(), 60 + np.abs(offset).max()
    for _ in range(200):
        middle = (low + high) / 2
        residual = np.where(y == 1, special.expit(-middle - offset), -special.expit(middle + offset))
        low, high = (middle, high) if (weight * residual).sum() > 0 else (low, middle)
    return (low + high) / 2


@pytest.mark.parametrize(("intercept", "slope"), [(0.0, 1.0), (0.8, 1.0), (0.0, 0.5), (-0.3, 1.8)])
def test_what_was_put_into_the_patients_is_found(intercept, slope):
    y, score = patients(40_000, seed=11, intercept=intercept, slope=slope)
    assert calibration.calibration_slope(y, score) == pytest.approx(slope, abs=0.05)  # about 3 standard errors
    if slope == 1:
        assert calibration.calibration_in_the_large(y, score) == pytest.approx(intercept, abs=0.035)


def test_scores_that_are_too_extreme_have_a_slope_below_1():
    y, score = patients(5000, seed=12)
    extreme = special.expit(2 * special.logit(score))
    assert calibration.calibration_slope(y, extreme) == pytest.approx(calibration.calibration_slope(y, score) / 2)
    shifted = special.expit(special.logit(score) + 0.7)
    expected = calibration.calibration_in_the_large(y, score) - 0.7
    assert calibration.calibration_in_the_large(y, shifted) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("y", [[0, 0, 1, 1], [1, 1, 0, 0]])
@pytest.mark.parametrize("score", [[0.1, 0.2, 0.8, 0.9], [0.1, 0.5, 0.5, 0.9]])
def test_separated_classes_have_no_slope_but_an_intercept(y, score):
    y, score = np.array(y, float), np.array(score)
    assert np.isnan(calibration.calibration_slope(y, score))
    assert calibration.calibration_in_the_large(y, score) == pytest.approx(0, abs=1e-9)


@given(rows)
@settings(deadline=None, max_examples=100)
def test_whole_number_weights_are_copies_of_rows(drawn):
    y, score, weight = drawn
    copies = np.repeat(np.arange(len(y)), weight.astype(int))
    for name, metric in METRICS.items():
        if name != "debiased_calibration_error":  # there a copy is no new patient; its own test is above
            expected = metric(y[copies], score[copies])
            assert metric(y, score, weight) == pytest.approx(expected, rel=1e-7, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_a_masked_label_is_as_if_the_row_were_not_there_and_the_unit_of_weights_plays_no_part(metric):
    y, score = patients(300, seed=13)
    weight = np.random.default_rng(0).random(300)
    masked = np.random.default_rng(1).random(300) < 0.3
    value = metric(np.where(masked, np.nan, y), score, weight)
    assert value == metric(y[~masked], score[~masked], weight[~masked])
    assert not np.isnan(value)
    assert metric(np.where(masked, np.nan, y), score, 1000 * weight) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
@pytest.mark.parametrize("wrong", [1.5, -0.1, np.nan])
def test_a_score_that_is_no_probability_is_refused(metric, wrong):
    with pytest.raises(ValueError, match=rf"probabilities in \[0, 1\]; got {wrong} "):
        metric(np.array([0.0, 1.0]), np.array([0.5, wrong]))
    assert not np.isnan(metric(np.array([0.0, 1.0, 0.0, np.nan]), np.array([0.3, 0.4, 0.5, wrong])))  # its label is unknown


@pytest.mark.parametrize("metric", [calibration.expected_calibration_error, calibration.debiased_calibration_error])
def test_no_bins_are_refused(metric):
    with pytest.raises(ValueError, match="n_bins must be at least 1; got 0"):
        metric(np.array([0.0, 1.0]), np.array([0.5, 0.5]), n_bins=0)
