"""Gaps between groups agree with fairlearn; unknown groups are left out; groups that are copies of each other have none."""

from __future__ import annotations

import warnings

import fairlearn.metrics
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_score, roc_auc_score

from biascxr.metrics import fairness
from biascxr.metrics.calibration import expected_calibration_error

ON_DECISIONS = {
    "demographic parity": fairness.demographic_parity_difference,
    "equal opportunity on TPR": fairness.equal_opportunity_difference,
    "equal opportunity on TNR": lambda *rows: fairness.equal_opportunity_difference(*rows, on="TNR"),
    "equalized odds": fairness.equalized_odds_difference,
    "predictive parity": fairness.predictive_parity_difference,
    "underdiagnosis": fairness.underdiagnosis_gap,
}
ON_SCORES = {
    "AUROC gap": fairness.auroc_gap,
    "calibration gap": fairness.calibration_gap,
    "cross AUROC gap": fairness.cross_auroc_gap,
}
ALL = {**ON_DECISIONS, **ON_SCORES}

group_values = st.lists(st.one_of(st.floats(0, 1), st.just(np.nan)), max_size=8).map(lambda v: np.array(v, np.float64))
# Labels, scores on few values (ties), groups (unknown in three ways), whole-number weights.
rows = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, np.nan]),
        st.integers(0, 6).map(lambda i: i / 6),
        st.sampled_from(["a", "b", "c", "unknown", None, np.nan]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=60,
).map(
    lambda r: (
        np.array([row[0] for row in r]),
        np.array([row[1] for row in r]),
        np.array([row[2] for row in r], object),
        np.array([row[3] for row in r], np.float64),
    )
)


def decided(score) -> np.ndarray:
    return (score >= 0.5).astype(np.float64)


def cohort(seed: int, n: int = 600):
    """Returns labels, scores, groups (some unknown) and weights of groups that are treated differently."""
    rng = np.random.default_rng(seed)
    group = rng.choice(np.array(["a", "b", "c", "unknown", None, np.nan], object), n, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.05])
    y = (rng.random(n) < np.where(group == "a", 0.3, 0.5)).astype(np.float64)
    score = np.clip(rng.normal(0.4 + 0.2 * y + 0.1 * (group == "b") + 0.3 * (group == "unknown"), 0.2), 0, 1).round(2)
    y[rng.random(n) < 0.1] = np.nan
    return y, score, group, rng.random(n)


def known_rows(y, score, group, weight):
    keep = ~np.isnan(y) & pd.notna(group) & (group != "unknown")
    return y[keep], score[keep], group[keep].astype(str), weight[keep]


@given(group_values)
@settings(deadline=None, max_examples=200)
def test_gap_ratio_and_spread_are_numpys_over_the_defined_values(values):
    if (~np.isnan(values)).sum() < 2:
        assert all(np.isnan(f(values)) for f in (fairness.gap, fairness.ratio, fairness.spread))
        return
    low, high = np.nanmin(values), np.nanmax(values)
    assert fairness.gap(values) == high - low
    assert fairness.ratio(values) == pytest.approx(low / high if high else np.nan, nan_ok=True)
    assert fairness.spread(values) == pytest.approx(np.nanstd(values), abs=1e-12)
    assert fairness.spread(values) <= fairness.gap(values) / 2 + 1e-12


@given(st.floats(0.001, 1), st.integers(2, 6))
@settings(deadline=None, max_examples=50)
def test_equal_groups_have_no_gap_and_no_spread_to_the_last_digit(value, k):
    values = np.full(k, value)
    assert fairness.gap(values) == fairness.spread(values) == fairness.noise_corrected_spread(values, np.zeros(k)) == 0
    assert fairness.ratio(values) == 1


@given(group_values)
@settings(deadline=None, max_examples=200)
def test_the_worst_group_has_no_other_below_it_or_above_it(values):
    for sign in (1, -1):
        worst = fairness.worst_group(values, higher_is_better=sign > 0)
        if (~np.isnan(values)).sum() < 2:
            assert worst == -1
        else:
            assert not (sign * values < sign * values[worst]).any()
            assert not (values[:worst] == values[worst]).any()  # of several, the first


def test_noise_does_not_count_as_spread_between_groups():
    rng = np.random.default_rng(0)
    true, errors = np.array([0.5, 0.7, 0.8, 0.9]), np.array([0.02, 0.03, 0.05, 0.06])
    worlds = true + rng.normal(0, errors, (4000, 4))
    squared = np.mean([fairness.noise_corrected_spread(world, errors) ** 2 for world in worlds])
    assert squared == pytest.approx(true.var(ddof=1), rel=0.03)
    assert worlds.var(axis=1, ddof=1).mean() > 1.05 * true.var(ddof=1)


def test_groups_no_further_apart_than_their_errors_have_a_corrected_spread_of_0():
    assert fairness.noise_corrected_spread(np.array([0.70, 0.72]), np.array([0.05, 0.05])) == 0
    expected = np.sqrt(0.02 - 0.0025)  # var([.5, .7]) = .02
    assert fairness.noise_corrected_spread(np.array([0.5, 0.7]), np.array([0.05, 0.05])) == pytest.approx(expected)


def test_a_group_without_a_value_or_an_error_is_left_out_of_the_corrected_spread():
    values, errors = np.array([0.5, np.nan, 0.7, 0.9]), np.array([0.01, 0.01, 0.01, np.nan])
    expected = fairness.noise_corrected_spread(values[[0, 2]], errors[[0, 2]])
    assert fairness.noise_corrected_spread(values, errors) == expected > 0
    assert np.isnan(fairness.noise_corrected_spread(values[:2], errors[:2]))


def fairlearns_gap(metric, y, value, group, weight) -> float:
    """The gap of a metric that fairlearn's MetricFrame finds between the known groups."""
    frame = fairlearn.metrics.MetricFrame(
        metrics=metric,
        y_true=y,
        y_pred=value,
        sensitive_features=group,
        sample_params=None if weight is None else {"sample_weight": weight},
    )
    return frame.difference(method="between_groups")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_gaps_of_decisions_are_fairlearns_with_unknown_groups_left_out(seed, weighted):
    y, score, group, weight = cohort(seed)
    y_known, score_known, group_known, weight_known = known_rows(y, score, group, weight)
    assert len(set(group_known)) == 3 and 100 < len(y_known) < len(y) - 50
    weight, weight_known = (weight, weight_known) if weighted else (None, None)

    def expected(metric):
        return fairlearns_gap(metric, y_known, decided(score_known), group_known, weight_known)

    of_fairlearn = fairlearn.metrics
    same_name = {"sensitive_features": group_known, "sample_weight": weight_known}
    oracles = {
        "demographic parity": expected(of_fairlearn.selection_rate),
        "equal opportunity on TPR": expected(of_fairlearn.true_positive_rate),
        "equal opportunity on TNR": expected(of_fairlearn.true_negative_rate),
        "equalized odds": of_fairlearn.equalized_odds_difference(y_known, decided(score_known), **same_name),
        "predictive parity": expected(precision_score),
        "underdiagnosis": expected(of_fairlearn.false_positive_rate),
    }
    for name, metric in ON_DECISIONS.items():
        found = metric(y, decided(score), group, weight)
        assert found == pytest.approx(oracles[name], abs=1e-12), name
        assert found > 0.005, name  # the cohort is unfair, so a metric that always says 0 fails
    parity = of_fairlearn.demographic_parity_difference(y_known, decided(score_known), **same_name)
    assert oracles["demographic parity"] == pytest.approx(parity)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weighted", [False, True])
def test_gaps_of_scores_are_those_of_a_metric_frame(seed, weighted):
    y, score, group, weight = cohort(seed)
    y_known, score_known, group_known, weight_known = known_rows(y, score, group, weight)
    weight, weight_known = (weight, weight_known) if weighted else (None, None)

    def ece(y_true, y_pred, sample_weight=None):
        return expected_calibration_error(y_true, y_pred, sample_weight, n_bins=10)

    expected = fairlearns_gap(roc_auc_score, y_known, score_known, group_known, weight_known)
    assert fairness.auroc_gap(y, score, group, weight) == pytest.approx(expected, abs=1e-12)
    expected = fairlearns_gap(ece, y_known, score_known, group_known, weight_known)
    assert fairness.calibration_gap(y, score, group, weight, n_bins=10) == pytest.approx(expected, abs=1e-12)


@given(rows)
@settings(deadline=None, max_examples=150)
def test_the_cross_auroc_gap_is_the_largest_over_pairs_counted_one_by_one(drawn):
    y, score, group, weight = drawn

    def won(a: str, b: str) -> float:
        i, j = np.flatnonzero((y == 1) & (group == a)), np.flatnonzero((y == 0) & (group == b))
        pairs = weight[i][:, None] * weight[j][None]
        better = (score[i][:, None] > score[j]) + 0.5 * (score[i][:, None] == score[j])
        return (pairs * better).sum() / pairs.sum() if pairs.sum() else np.nan

    disparities = [abs(won(a, b) - won(b, a)) for a, b in (("a", "b"), ("a", "c"), ("b", "c"))]
    expected = np.nan if np.isnan(disparities).all() else np.nanmax(disparities)
    assert fairness.cross_auroc_gap(y, score, group, weight) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_scores_shifted_between_groups_show_in_the_cross_auroc_gap_and_not_in_the_auroc_gap():
    y, score = np.tile([0.0, 0.0, 1.0, 1.0], 2), np.tile([0.1, 0.2, 0.15, 0.3], 2)
    group = np.repeat(["a", "b"], 4)
    shifted = score + 0.5 * (group == "b")
    assert fairness.auroc_gap(y, shifted, group) == 0
    assert fairness.cross_auroc_gap(y, score, group) == 0
    assert fairness.cross_auroc_gap(y, shifted, group) == 1  # all positives of b above all negatives of a, none the other way


@given(rows, st.integers(2, 4))
@settings(deadline=None, max_examples=100)
def test_groups_that_are_copies_of_each_other_have_no_gap_to_the_last_digit(drawn, k):
    y, score, _, weight = drawn
    weight = weight / 3
    group = np.repeat([f"group {i}" for i in range(k)], len(y))
    for name, metric in ALL.items():
        value = score if name in ON_SCORES else decided(score)
        found = metric(np.tile(y, k), np.tile(value, k), group, np.tile(weight, k))
        assert found == 0 or np.isnan(found), name


def test_copies_of_a_group_with_both_classes_have_a_gap_of_0_and_not_an_undefined_one():
    y, score, _, weight = cohort(5, 100)
    for name, metric in ALL.items():
        value = score if name in ON_SCORES else decided(score)
        assert metric(np.tile(y, 3), np.tile(value, 3), np.repeat(["a", "b", "c"], 100), np.tile(weight, 3)) == 0, name


@given(rows)
@settings(deadline=None, max_examples=100)
def test_whole_number_weights_are_copies_of_rows(drawn):
    y, score, group, weight = drawn
    copies = np.repeat(np.arange(len(y)), weight.astype(int))
    for name, metric in ALL.items():
        value = score if name in ON_SCORES else decided(score)
        expected = metric(y[copies], value[copies], group[copies])
        assert metric(y, value, group, weight) == pytest.approx(expected, abs=1e-9, nan_ok=True), name


@given(rows)
@settings(deadline=None, max_examples=100)
def test_the_names_of_groups_and_their_order_play_no_part(drawn):
    y, score, group, weight = drawn
    renamed = np.array([{"a": "z", "b": 1, "c": 0.5}.get(g, g) for g in group], object)
    for name, metric in ALL.items():
        value = score if name in ON_SCORES else decided(score)
        assert metric(y, value, group, weight) == pytest.approx(metric(y, value, renamed, weight), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("missing", ["unknown", None, np.nan, pd.NA, pd.NaT])
def test_a_missing_group_is_no_group(missing):
    y, score, group, _ = cohort(6)
    keep = np.isin(group.astype(str), ["a", "b"])
    marked = np.where(keep, group, missing)
    for name, metric in ALL.items():
        value = score if name in ON_SCORES else decided(score)
        assert metric(y, value, marked) == metric(y[keep], value[keep], group[keep]) > 0, name
        assert metric(y, value, pd.Series(marked)) == metric(y, value, marked)


def test_a_group_may_be_called_none():
    """MIMIC-IV's insurance has patients without any, which is not the same as not recorded."""
    y, score, group, _ = cohort(6)
    named = np.where(group == "a", "None", np.where(group == "b", "Medicare", None))
    assert fairness.auroc_gap(y, score, named) == fairness.auroc_gap(y, score, np.where(group == "c", None, group))


def test_a_group_on_which_the_metric_is_undefined_is_left_out_and_one_alone_has_no_gap():
    y = np.array([0, 1, 1, 0, 1, 1, 0, 0], float)
    decision = np.array([0, 1, 0, 1, 1, 1, 0, 1], float)
    group = np.array(["a", "a", "a", "b", "b", "b", "c", "c"])
    assert fairness.equal_opportunity_difference(y, decision, group) == 0.5  # a: 1/2, b: 1, c has no positives
    assert np.isnan(fairness.equal_opportunity_difference(y, decision, np.where(group == "b", "unknown", group)))
    assert fairness.equal_opportunity_difference(y, decision, group, on="TNR") == 1  # a: 1, b: 0, c: 1/2


def test_equalized_odds_is_the_larger_of_the_two_gaps_and_needs_both():
    for seed in range(5):
        y, score, group, weight = cohort(seed)
        gaps = [fairness.equal_opportunity_difference(y, decided(score), group, weight, on=on) for on in ("TPR", "TNR")]
        assert fairness.equalized_odds_difference(y, decided(score), group, weight) == max(gaps)
    only_negatives = np.zeros(6)
    flags, group = np.array([0.0, 1, 1, 0, 0, 1]), np.array(list("aaabbb"))
    assert np.isnan(fairness.equalized_odds_difference(only_negatives, flags, group))
    assert fairness.equal_opportunity_difference(only_negatives, flags, group, on="TNR") == pytest.approx(1 / 3)


def test_another_class_for_equal_opportunity_is_refused():
    with pytest.raises(ValueError, match="on must be 'TPR' or 'TNR'; got 'FPR'"):
        fairness.equal_opportunity_difference(np.zeros(2), np.zeros(2), np.array(["a", "b"]), on="FPR")


def test_underdiagnosis_counts_the_ill_who_are_called_healthy():
    no_finding = np.array([0, 0, 0, 0, 1, 0, 0, 0, 0, 1], float)
    called_healthy = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0], float)
    group = np.repeat(["a", "b"], 5)
    assert fairness.underdiagnosis_gap(no_finding, called_healthy, group) == 3 / 4 - 1 / 4


def test_no_finding_is_derived_from_the_likeliest_pathology():
    scores = np.array([[0.1, 0.7, 0.2], [0.0, 0.0, 0.0], [0.1, np.nan, 0.2]])
    np.testing.assert_allclose(fairness.derived_no_finding(scores), [0.3, 1.0, np.nan])
    y = np.array([[0, 0, 0], [0, 1, np.nan], [0, np.nan, 0], [np.nan] * 3, [1, 1, 1]], float)
    np.testing.assert_array_equal(fairness.derived_no_finding_label(y), [1, 0, np.nan, np.nan, 0])


@given(st.integers(1, 5), st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_flagging_no_finding_is_flagging_no_pathology(n_pathologies, seed):
    rng = np.random.default_rng(seed)
    scores, y = rng.random((40, n_pathologies)), rng.integers(0, 2, (40, n_pathologies)).astype(float)
    np.testing.assert_array_equal(fairness.derived_no_finding(scores) > 0.6, ~(scores >= 0.4).any(axis=1))
    np.testing.assert_array_equal(fairness.derived_no_finding_label(y), 1 - y.max(axis=1))


@pytest.mark.parametrize("derive", [fairness.derived_no_finding, fairness.derived_no_finding_label])
def test_no_pathologies_derive_no_label(derive):
    for shape in ((4,), (4, 0)):
        with pytest.raises(ValueError, match=r"must have shape \[n, P\]"):
            derive(np.zeros(shape))
    assert derive(np.zeros((0, 3))).shape == (0,)


def test_fate_is_gain_less_growth_of_the_gap():
    assert fairness.fate(0.8, 0.88, 0.2, 0.1, gap_before_low=0.05) == pytest.approx(0.1 + 0.5)
    assert fairness.fate(0.8, 0.8, 0.2, 0.2, gap_before_low=0.05) == 0
    assert fairness.fate(0.8, 0.4, 0.2, 0.3, gap_before_low=0.05) == pytest.approx(-0.5 - 0.5)


@pytest.mark.parametrize("low", [0.0, -0.1, np.nan])
def test_fate_is_undefined_where_the_baselines_gap_may_be_noise(low):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(fairness.fate(0.8, 0.9, 0.02, 0.01, gap_before_low=low))


@pytest.mark.parametrize("position", range(4))
def test_fate_of_an_undefined_value_is_undefined(position):
    values = [0.8, 0.9, 0.2, 0.1]
    values[position] = np.nan
    assert np.isnan(fairness.fate(*values, gap_before_low=0.05))
    assert np.isnan(fairness.fate(0.0, 0.9, 0.2, 0.1, gap_before_low=0.05))
