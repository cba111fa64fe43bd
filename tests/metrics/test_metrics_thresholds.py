"""Thresholds: each rule against a search through every candidate and scikit-learn's curves, ties, weights, float32."""

from __future__ import annotations

import importlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_curve

from biascxr.metrics import decide, false_positive_rate, fixed_fpr_threshold, true_positive_rate, youden_threshold
from biascxr.metrics.thresholds import (
    THRESHOLD_RULES,
    f1_threshold,
    fixed_tpr_threshold,
    g_mean_threshold,
    half_threshold,
    minimum_gap_threshold,
    shrink_threshold,
)

drawn_rows = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 1.0, np.nan]), st.integers(0, 8)), min_size=1, max_size=40).map(
    lambda r: (np.array([y for y, _ in r]), np.array([s / 8 for _, s in r], np.float32))
)


@given(drawn_rows, st.floats(0, 1))
@settings(deadline=None, max_examples=300)
def test_fixed_fpr_is_the_lowest_threshold_that_keeps_the_fpr(rows, target):
    y, score = rows
    threshold = fixed_fpr_threshold(y, score, fpr=target)
    if not (y == 0).any():
        assert np.isnan(threshold)
        return
    flagged = decide(score, threshold)
    assert false_positive_rate(y, flagged) <= target + 1e-9
    # Any threshold that flags one more distinct score goes over the target, or there is no more to flag.
    left = score[flagged == 0]
    if len(left):
        lower = decide(score, float(left.max()))
        assert false_positive_rate(y, lower) > target


@pytest.mark.parametrize("fpr", [0.0, 0.1, 0.2, 0.3, 0.7, 1.0])
def test_a_share_that_is_a_whole_number_of_negatives_is_used_in_full(fpr):
    y, score = np.zeros(10), np.arange(10, dtype=np.float32) / 10
    assert false_positive_rate(y, decide(score, fixed_fpr_threshold(y, score, fpr=fpr))) == pytest.approx(fpr)


def test_tied_negatives_are_not_flagged_when_all_of_them_would_go_over():
    y = np.array([0, 0, 0, 0, 1], float)
    score = np.array([0.5, 0.5, 0.5, 0.1, 0.6], np.float32)
    flagged = decide(score, fixed_fpr_threshold(y, score, fpr=0.5))
    np.testing.assert_array_equal(flagged, [0, 0, 0, 0, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", [lambda y, s: fixed_fpr_threshold(y, s, fpr=0.2), youden_threshold])
def test_a_threshold_decides_the_same_alone_and_in_a_float64_array(rule, dtype):
    rng = np.random.default_rng(0)
    y = (rng.random(500) < 0.3).astype(float)
    score = rng.random(500).astype(dtype)
    threshold = rule(y, score)
    np.testing.assert_array_equal(decide(score, threshold), decide(score, np.full(500, threshold)))
    rates = [rate(y, decide(score, np.full(500, threshold))) for rate in (false_positive_rate, true_positive_rate)]
    if rule is youden_threshold:
        fpr, tpr, _ = roc_curve(y, score, drop_intermediate=False)
        assert rates[1] - rates[0] == pytest.approx((tpr - fpr).max())
    else:
        assert rates[0] == pytest.approx(0.2, abs=1 / (y == 0).sum())


@pytest.mark.parametrize("seed", range(8))
def test_youden_is_the_first_maximum_of_scikit_learns_curve(labels_and_scores, seed):
    y, score = labels_and_scores(seed, masked=0.1)
    known = ~np.isnan(y)
    fpr, tpr, thresholds = roc_curve(y[known], score[known], drop_intermediate=False)
    assert (tpr - fpr).max() > 0
    assert youden_threshold(y, score) == thresholds[np.argmax(tpr - fpr)]


def test_of_several_best_thresholds_youden_takes_the_highest():
    assert youden_threshold(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.6, 0.4, 0.1])) == 0.9


def test_one_class_has_no_youden_threshold_and_no_decision():
    score = np.array([0.2, 0.8], np.float32)
    assert np.isnan(youden_threshold(np.ones(2), score)) and np.isnan(youden_threshold(np.zeros(2), score))
    assert np.isnan(youden_threshold(np.full(2, np.nan), score))
    assert np.isnan(decide(score, float("nan"))).all()


def test_a_score_at_the_threshold_is_flagged():
    np.testing.assert_array_equal(decide(np.array([0.4, 0.5, 0.6]), 0.5), [0, 1, 1])
    np.testing.assert_array_equal(decide(np.array([0.4, 0.5, 0.6]), np.array([0.5, np.nan, 0.5])), [0, np.nan, 1])


def counts_at(y, score, weight, threshold):
    """Returns the weights of true positives, false positives, positives and negatives, exact."""
    total = [Fraction(0)] * 4
    for label, s, w in zip(y.tolist(), score.tolist(), weight.tolist(), strict=True):
        w = Fraction(w)
        total[0] += w * (label == 1 and s >= threshold)
        total[1] += w * (label == 0 and s >= threshold)
        total[2] += w * (label == 1)
        total[3] += w * (label == 0)
    return total


# What each rule makes as large as possible, in exact arithmetic.
CRITERIA = {
    youden_threshold: lambda tp, fp, p, n: tp / p - fp / n,
    g_mean_threshold: lambda tp, fp, p, n: tp / p * (1 - fp / n),
    minimum_gap_threshold: lambda tp, fp, p, n: -abs(tp / p - (1 - fp / n)),
    f1_threshold: lambda tp, fp, p, n: 2 * tp / (tp + fp + p),
    fixed_tpr_threshold: lambda tp, fp, p, n: tp / p >= Fraction(3, 4),
}

weighted_rows = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 1.0, np.nan]), st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=25
).map(lambda r: (np.array([y for y, _, _ in r]), np.array([s / 8 for _, s, _ in r], np.float32), np.array([w for *_, w in r])))


def apply(rule, y, score, weight=None):
    """Calls a rule, with the TPR that `CRITERIA` asks for."""
    return rule(y, score, weight, tpr=0.75) if rule is fixed_tpr_threshold else rule(y, score, weight)


@pytest.mark.parametrize("rule", CRITERIA, ids=lambda rule: rule.__name__)
@given(rows=weighted_rows)
@settings(deadline=None, max_examples=150)
def test_a_rule_finds_the_highest_of_the_best_of_all_distinct_scores(rule, rows):
    y, score, weight = rows
    counts = ~np.isnan(y) & (weight > 0)
    threshold = apply(rule, y, score, weight)
    needs_negatives = rule not in (f1_threshold, fixed_tpr_threshold)
    if not (y[counts] == 1).any() or (needs_negatives and not (y[counts] == 0).any()):
        assert np.isnan(threshold)
        return
    candidates = sorted(set(score[counts].tolist()), reverse=True)
    reached = [CRITERIA[rule](*counts_at(y, score, weight, c)) for c in candidates]
    assert threshold == candidates[reached.index(max(reached))]


@pytest.mark.parametrize("rule", [*CRITERIA, fixed_fpr_threshold], ids=lambda rule: rule.__name__)
@given(rows=weighted_rows)
@settings(deadline=None, max_examples=60)
def test_a_weight_of_two_is_the_row_written_twice(rule, rows):
    y, score, weight = rows
    np.testing.assert_equal(apply(rule, y, score, weight), apply(rule, np.repeat(y, weight), np.repeat(score, weight)))


@pytest.mark.parametrize("scale", [1e-3, 7.3])
@pytest.mark.parametrize("rule", [*CRITERIA, fixed_fpr_threshold], ids=lambda rule: rule.__name__)
def test_the_unit_of_the_weights_changes_no_threshold(labels_and_scores, rule, scale):
    y, score = labels_and_scores(3, masked=0.1)
    weight = np.random.default_rng(3).integers(0, 4, len(y))
    assert apply(rule, y, score, weight) == apply(rule, y, score, weight * scale)


@given(weighted_rows, st.sampled_from([0.0, 0.2, 0.5, 1.0]))
@settings(deadline=None, max_examples=150)
def test_a_weighted_fpr_is_kept_and_no_lower_threshold_keeps_it(rows, fpr):
    y, score, weight = rows
    threshold = fixed_fpr_threshold(y, score, weight, fpr=fpr)
    if not (weight[y == 0] > 0).any():
        assert np.isnan(threshold)
        return
    assert false_positive_rate(y, decide(score, threshold), weight) <= fpr + 1e-9
    left = score[(score < threshold) & (weight > 0)]
    if len(left):
        assert false_positive_rate(y, decide(score, float(left.max())), weight) > fpr


@pytest.mark.parametrize("seed", range(4))
def test_the_rules_reach_what_scikit_learns_curves_reach(labels_and_scores, seed):
    y, score = labels_and_scores(seed)
    fpr, tpr, _ = roc_curve(y, score, drop_intermediate=False)
    fpr, tpr = fpr[1:], tpr[1:]  # the first point flags nobody

    def rates(threshold):
        flagged = decide(score, threshold)
        return true_positive_rate(y, flagged), false_positive_rate(y, flagged)

    own_tpr, own_fpr = rates(g_mean_threshold(y, score))
    assert own_tpr * (1 - own_fpr) == pytest.approx((tpr * (1 - fpr)).max())
    own_tpr, own_fpr = rates(minimum_gap_threshold(y, score))
    assert abs(own_tpr + own_fpr - 1) == pytest.approx(np.abs(tpr + fpr - 1).min())
    precision, recall, thresholds = precision_recall_curve(y, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert f1_threshold(y, score) == pytest.approx(thresholds[np.argmax(f1[:-1])])
    for wanted in (0.0, 0.8, 1.0):
        assert fixed_tpr_threshold(y, score, tpr=wanted) == thresholds[recall[:-1] >= wanted].max()


def test_the_default_false_positive_rate_is_a_fifth():
    y, score = np.zeros(10), np.arange(10, dtype=np.float32) / 10
    assert fixed_fpr_threshold(y, score) == fixed_fpr_threshold(y, score, fpr=0.2)
    assert false_positive_rate(y, decide(score, fixed_fpr_threshold(y, score))) == pytest.approx(0.2)


def test_the_table_names_functions_that_are_there():
    y, score = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8])
    for name, address in THRESHOLD_RULES.items():
        module, function = address.split(":")
        settings_of_rule = {"tpr": 0.9} if name == "fixed_tpr" else {}
        threshold = getattr(importlib.import_module(module), function)(y, score, None, **settings_of_rule)
        assert isinstance(threshold, float) and 0 < threshold < 1
    assert half_threshold(y, score) == 0.5


@pytest.mark.parametrize("share", [-0.1, 20, np.nan])
def test_a_percentage_is_refused(share):
    y, score = np.array([0.0, 1.0]), np.array([0.2, 0.8])
    with pytest.raises(ValueError, match=r"fpr must lie in \[0, 1\].*fraction"):
        fixed_fpr_threshold(y, score, fpr=share)
    with pytest.raises(ValueError, match=r"tpr must lie in \[0, 1\].*fraction"):
        fixed_tpr_threshold(y, score, tpr=share)


def test_shrinking_weighs_logits_by_the_positives():
    # 25 positives at strength 25: the middle of logit(.2) and logit(.5) = 0.
    assert shrink_threshold(0.2, 0.5, 25) == pytest.approx(1 / 3)
    # 75 positives: three quarters of log 4 and of -log 4 to the other side.
    assert shrink_threshold(0.8, 0.5, 75) == pytest.approx(4**0.75 / (1 + 4**0.75))


shares = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 1e-12, 1 - 1e-12, float(np.nextafter(np.float32(1), 2))]))


@given(shares, shares, st.integers(0, 1000), st.floats(0, 100))
@settings(deadline=None, max_examples=300)
def test_a_shrunken_threshold_lies_between_and_nears_the_own_with_more_positives(own, overall, n_positive, strength):
    drawn, more = (shrink_threshold(own, overall, n, strength) for n in (n_positive, 2 * n_positive + 1))
    assert min(own, overall) <= drawn <= max(own, overall)
    assert abs(more - own) <= abs(drawn - own) + 1e-9


def test_nothing_to_shrink_gives_the_threshold_itself_to_the_last_bit():
    t = float(np.float32(0.7))
    assert shrink_threshold(t, t, 10) == t
    assert shrink_threshold(t, 0.3, 10, 0) == t
    assert shrink_threshold(0.3, t, 0) == t
    assert shrink_threshold(float("nan"), t, 10) == t
    assert np.isnan(shrink_threshold(t, float("nan"), 10))


def test_negative_counts_are_refused():
    with pytest.raises(ValueError, match="at least 0; got -1 and 25"):
        shrink_threshold(0.2, 0.5, -1)
    with pytest.raises(ValueError, match="at least 0; got 1 and -5"):
        shrink_threshold(0.2, 0.5, 1, -5)
