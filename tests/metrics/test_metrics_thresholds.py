"""Thresholds: the lowest one that keeps the FPR, Youden's, ties, float32 scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from biascxr.metrics import decide, false_positive_rate, fixed_fpr_threshold, true_positive_rate, youden_threshold

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
