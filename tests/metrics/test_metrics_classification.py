"""AUROC and rates agree with scikit-learn and fairlearn, and are NaN where they are undefined."""

from __future__ import annotations

import fairlearn.metrics
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, recall_score, roc_auc_score, roc_curve

from biascxr import metrics

RATES = {
    "TPR": metrics.true_positive_rate,
    "FPR": metrics.false_positive_rate,
    "TNR": metrics.true_negative_rate,
    "FNR": metrics.false_negative_rate,
}

# Labels, scores on few values (ties), whole-number weights: each row has one of each.
rows = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, np.nan]), st.integers(0, 6), st.integers(0, 4)), min_size=2, max_size=40
).map(lambda r: tuple(np.array(column, np.float64) for column in zip(*r, strict=True)))


def pairs_won(y, score, weight) -> float:
    """AUROC by its definition: every pair of a positive and a negative."""
    won = total = 0.0
    for i in np.flatnonzero(y == 1):
        for j in np.flatnonzero(y == 0):
            total += weight[i] * weight[j]
            won += weight[i] * weight[j] * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
    return won / total if total else np.nan


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_scikit_learns_with_ties_and_weights(labels_and_scores, seed):
    y, score = labels_and_scores(seed)
    weight = np.random.default_rng(seed).random(len(y))
    assert metrics.auroc(y, score) == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    assert metrics.auroc(y, score, weight) == pytest.approx(roc_auc_score(y, score, sample_weight=weight), abs=1e-12)


@given(rows)
@settings(deadline=None, max_examples=200)
def test_auroc_is_the_share_of_pairs_won(drawn):
    y, score, weight = drawn
    assert metrics.auroc(y, score, weight) == pytest.approx(pairs_won(y, score, weight), abs=1e-12, nan_ok=True)


@given(rows)
@settings(deadline=None, max_examples=100)
def test_whole_number_weights_are_copies_of_rows(drawn):
    y, score, weight = drawn
    copies = np.repeat(np.arange(len(y)), weight.astype(int))
    expected = metrics.auroc(y[copies], score[copies])
    assert metrics.auroc(y, score, weight) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(rows)
@settings(deadline=None, max_examples=100)
def test_auroc_of_the_opposite_score_is_one_minus_auroc(drawn):
    y, score, weight = drawn
    assert metrics.auroc(y, -score, weight) == pytest.approx(1 - metrics.auroc(y, score, weight), abs=1e-12, nan_ok=True)


def test_a_masked_label_is_as_if_the_row_were_not_there(labels_and_scores):
    y, score = labels_and_scores(3, masked=0.4)
    decision = (score > 0.5).astype(float)
    known = ~np.isnan(y)
    assert 0 < known.sum() < len(y)
    assert metrics.auroc(y, score) == pytest.approx(roc_auc_score(y[known], score[known]), abs=1e-12)
    for rate in RATES.values():
        assert rate(y, decision) == rate(y[known], decision[known])


@pytest.mark.parametrize("seed", range(3))
def test_rates_are_scikit_learns(labels_and_scores, seed):
    y, score = labels_and_scores(seed)
    decision = (score > 0.5).astype(float)
    weight = np.random.default_rng(seed).random(len(y))
    for w in (None, weight):
        tn, fp, fn, tp = confusion_matrix(y, decision, sample_weight=w).ravel()
        expected = {"TPR": tp / (tp + fn), "FPR": fp / (fp + tn), "TNR": tn / (fp + tn), "FNR": fn / (tp + fn)}
        for name, rate in RATES.items():
            assert rate(y, decision, w) == pytest.approx(expected[name], abs=1e-12)
    assert metrics.true_positive_rate(y, decision) == pytest.approx(recall_score(y, decision))


def test_group_rates_and_their_differences_are_fairlearns(labels_and_scores):
    y, score = labels_and_scores(1, 400)
    decision = (score > 0.45).astype(float)
    group = np.random.default_rng(99).choice(["a", "b", "c"], len(y), p=[0.6, 0.3, 0.1])
    functions = {
        "TPR": fairlearn.metrics.true_positive_rate,
        "FPR": fairlearn.metrics.false_positive_rate,
        "TNR": fairlearn.metrics.true_negative_rate,
        "FNR": fairlearn.metrics.false_negative_rate,
    }
    frame = fairlearn.metrics.MetricFrame(metrics=functions, y_true=y, y_pred=decision, sensitive_features=group)
    ours = pd.DataFrame({name: {g: rate(y[group == g], decision[group == g]) for g in "abc"} for name, rate in RATES.items()})
    pd.testing.assert_frame_equal(ours, frame.by_group, check_names=False, check_dtype=False)
    for name in RATES:
        assert np.ptp(ours[name]) == pytest.approx(frame.difference()[name])


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_what_needs_both_classes_is_undefined_with_one(only):
    y, score = np.full(6, only), np.linspace(0, 1, 6)
    assert np.isnan(metrics.auroc(y, score))
    assert np.isnan(metrics.roc_curve_on_grid(y, score, np.array([0.1, 0.5]))).all()


def test_a_rate_without_its_class_is_undefined_and_neither_zero_nor_one():
    negatives, positives, flags = np.zeros(4), np.ones(4), np.array([0.0, 1.0, 1.0, 0.0])
    assert np.isnan(metrics.true_positive_rate(negatives, flags)) and np.isnan(metrics.false_negative_rate(negatives, flags))
    assert np.isnan(metrics.false_positive_rate(positives, flags)) and np.isnan(metrics.true_negative_rate(positives, flags))
    assert metrics.false_positive_rate(negatives, flags) == 0.5


def test_a_group_without_positives_has_no_tpr_where_fairlearn_says_0():
    y, flags = np.zeros(4), np.array([0.0, 1.0, 1.0, 0.0])
    assert fairlearn.metrics.true_positive_rate(y, flags) == 0
    assert np.isnan(metrics.true_positive_rate(y, flags))


def test_nothing_known_is_undefined():
    y, score = np.full(3, np.nan), np.array([0.1, 0.2, 0.3])
    assert np.isnan(metrics.auroc(y, score)) and np.isnan(metrics.auroc(y[:0], score[:0]))
    assert all(np.isnan(rate(y, np.ones(3))) for rate in RATES.values())


def test_weight_on_one_class_only_is_undefined():
    y, score = np.array([0.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.3])
    assert np.isnan(metrics.auroc(y, score, np.array([1.0, 1.0, 0.0])))


def test_a_missing_decision_is_left_out_of_rates():
    y, decision = np.array([1.0, 1.0, 1.0, 0.0]), np.array([1.0, np.nan, 0.0, 1.0])
    assert metrics.true_positive_rate(y, decision) == 0.5
    assert metrics.false_negative_rate(y, decision) == 0.5
    assert np.isnan(metrics.false_positive_rate(np.zeros(2), np.full(2, np.nan)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_weightings_at_once_equal_one_at_a_time(labels_and_scores, dtype):
    y, score = labels_and_scores(5, 60, masked=0.2)
    weights = np.random.default_rng(5).integers(0, 4, (30, len(y))).astype(dtype)
    weights[0, y == 1] = 0  # undefined among defined ones
    together = metrics.auroc_replicates(y, score, weights)
    np.testing.assert_allclose(together, [metrics.auroc(y, score, w) for w in weights], rtol=1e-12)
    assert np.isnan(together[0]) and not np.isnan(together[1:]).any()
    decision = (score > 0.5).astype(float)
    for name, rate in RATES.items():
        expected = [rate(y, decision, w) for w in weights]
        np.testing.assert_allclose(metrics.rate_replicates(name, y, decision, weights), expected, rtol=1e-6)


def test_rates_of_many_labels_at_once_equal_one_label_at_a_time():
    rng = np.random.default_rng(0)
    y = rng.choice([0.0, 1.0, np.nan], (50, 4))
    decision = rng.choice([0.0, 1.0, np.nan], (50, 4), p=[0.5, 0.4, 0.1])
    weights = rng.integers(0, 3, (7, 50)).astype(np.float32)
    for name in RATES:
        together = metrics.rate_replicates(name, y, decision, weights)
        assert together.shape == (7, 4)
        for label in range(4):
            one = metrics.rate_replicates(name, y[:, label], decision[:, label], weights)
            np.testing.assert_array_equal(together[:, label], one)


def test_resamples_of_a_large_set_are_exact_in_float32(labels_and_scores):
    y, score = labels_and_scores(2, 300_000, levels=10_000)
    weights = np.random.default_rng(2).integers(0, 5, (2, len(y)))
    in_float32 = metrics.auroc_replicates(y, score, weights.astype(np.float32))
    np.testing.assert_allclose(in_float32, metrics.auroc_replicates(y, score, weights.astype(np.float64)), rtol=1e-9)


def test_the_curve_on_a_grid_passes_through_scikit_learns_operating_points(labels_and_scores):
    y, score = labels_and_scores(4, masked=0.2)
    known = ~np.isnan(y)
    fpr, tpr, _ = roc_curve(y[known], score[known], drop_intermediate=False)
    highest = pd.Series(tpr).groupby(fpr).max()  # on a vertical piece the curve's upper end
    np.testing.assert_allclose(metrics.roc_curve_on_grid(y, score, highest.index.to_numpy()), highest, atol=1e-12)
    grid = np.linspace(0, 1, 51)
    on_grid = metrics.roc_curve_on_grid(y, score, grid)
    assert (np.diff(on_grid) >= 0).all() and on_grid[-1] == 1
    assert np.trapezoid(on_grid, grid) == pytest.approx(metrics.auroc(y, score), abs=0.02)
