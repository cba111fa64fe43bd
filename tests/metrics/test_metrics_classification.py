"""Rates of decisions agree with scikit-learn and fairlearn, and are NaN where they are undefined."""

from __future__ import annotations

import fairlearn.metrics
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, precision_score, recall_score

from biascxr.metrics import classification

RATES = {
    "TPR": classification.true_positive_rate,
    "FPR": classification.false_positive_rate,
    "TNR": classification.true_negative_rate,
    "FNR": classification.false_negative_rate,
    "PPV": classification.positive_predictive_value,
    "NPV": classification.negative_predictive_value,
    "selection_rate": classification.selection_rate,
    "accuracy": classification.accuracy,
}
ALL = {**RATES, "balanced accuracy": classification.balanced_accuracy}

# Labels and decisions, both masked at times, and whole-number weights: each row has one of each.
rows = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, np.nan]), st.sampled_from([0.0, 1.0, np.nan]), st.integers(0, 4)),
    min_size=1,
    max_size=30,
).map(lambda r: tuple(np.array(column, np.float64) for column in zip(*r, strict=True)))


def from_confusion_matrix(y, decision, weight) -> dict[str, float]:
    """Every metric from scikit-learn's confusion matrix of the rows whose label and decision are known."""
    known = ~np.isnan(y) & ~np.isnan(decision)
    if not weight[known].sum():
        return dict.fromkeys(ALL, np.nan)
    matrix = confusion_matrix(y[known], decision[known], labels=[0, 1], sample_weight=weight[known])
    (tn, fp), (fn, tp) = matrix.astype(float)
    shares = {
        "TPR": (tp, tp + fn), "FPR": (fp, fp + tn), "TNR": (tn, fp + tn), "FNR": (fn, tp + fn), "PPV": (tp, tp + fp),
        "NPV": (tn, tn + fn), "selection_rate": (tp + fp, matrix.sum()), "accuracy": (tp + tn, matrix.sum()),
    }  # fmt: skip
    found = {name: part / whole if whole else np.nan for name, (part, whole) in shares.items()}
    return {**found, "balanced accuracy": (found["TPR"] + found["TNR"]) / 2}


@given(rows, st.integers(0, 1000))
@settings(deadline=None, max_examples=200)
def test_metrics_are_shares_of_scikit_learns_confusion_matrix(drawn, seed):
    y, decision, weight = drawn
    for w in (weight, np.random.default_rng(seed).random(len(y)) + 0.01):
        expected = from_confusion_matrix(y, decision, w)
        for name, metric in ALL.items():
            assert metric(y, decision, w) == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_scikit_learns_and_fairlearns_of_the_same_name(labels_and_scores, seed):
    y, score = labels_and_scores(seed)
    decision = (score > 0.5).astype(float)
    weight = np.random.default_rng(seed).random(len(y))
    oracles = {
        "TPR": recall_score, "PPV": precision_score, "accuracy": accuracy_score,
        "balanced accuracy": balanced_accuracy_score, "FPR": fairlearn.metrics.false_positive_rate,
        "selection_rate": fairlearn.metrics.selection_rate, "TNR": lambda *a, **k: recall_score(*a, pos_label=0, **k),
        "NPV": lambda *a, **k: precision_score(*a, pos_label=0, **k), "FNR": fairlearn.metrics.false_negative_rate,
    }  # fmt: skip
    assert oracles.keys() == ALL.keys()
    for name, metric in ALL.items():
        for w in (None, weight):
            assert metric(y, decision, w) == pytest.approx(oracles[name](y, decision, sample_weight=w), abs=1e-12), name


@given(rows)
@settings(deadline=None, max_examples=100)
def test_whole_number_weights_are_copies_of_rows(drawn):
    y, decision, weight = drawn
    copies = np.repeat(np.arange(len(y)), weight.astype(int))
    for name, metric in ALL.items():
        expected = metric(y[copies], decision[copies])
        assert metric(y, decision, weight) == pytest.approx(expected, abs=1e-12, nan_ok=True), name


def test_a_row_with_an_unknown_label_does_not_count_as_selected():
    y, decision = np.array([0.0, 1.0, np.nan, np.nan]), np.array([0.0, 1.0, 1.0, 1.0])
    assert classification.selection_rate(y, decision) == 0.5


@pytest.mark.parametrize("prevalence", [0.05, 0.5])
def test_predictive_values_follow_prevalence_by_bayes_and_balanced_accuracy_does_not(prevalence):
    tpr, fpr = 0.8, 0.1
    y, decision = np.array([1.0, 1.0, 0.0, 0.0]), np.array([1.0, 0.0, 1.0, 0.0])
    weight = np.r_[prevalence * np.array([tpr, 1 - tpr]), (1 - prevalence) * np.array([fpr, 1 - fpr])]
    flagged = prevalence * tpr + (1 - prevalence) * fpr
    ppv = classification.positive_predictive_value(y, decision, weight)
    npv = classification.negative_predictive_value(y, decision, weight)
    assert ppv == pytest.approx(prevalence * tpr / flagged)
    assert npv == pytest.approx((1 - prevalence) * (1 - fpr) / (1 - flagged))
    assert classification.balanced_accuracy(y, decision, weight) == pytest.approx((tpr + 1 - fpr) / 2)


def test_nobody_flagged_has_no_ppv_and_everyone_flagged_no_npv():
    y = np.array([0.0, 1.0, 1.0])
    assert np.isnan(classification.positive_predictive_value(y, np.zeros(3)))
    assert np.isnan(classification.negative_predictive_value(y, np.ones(3)))
    assert classification.negative_predictive_value(y, np.zeros(3)) == pytest.approx(1 / 3)


def test_balanced_accuracy_of_one_class_is_undefined_where_scikit_learn_leaves_the_other_out():
    y, decision = np.ones(4), np.array([1.0, 1.0, 0.0, 1.0])
    assert np.isnan(classification.balanced_accuracy(y, decision))


def test_an_unknown_rate_names_the_known_ones():
    with pytest.raises(ValueError, match=r"one of TPR, FPR, .*accuracy; got 'recall'"):
        classification.rate_replicates("recall", np.zeros(2), np.zeros(2), np.ones((1, 2)))


def test_a_masked_label_is_as_if_the_row_were_not_there(labels_and_scores):
    y, score = labels_and_scores(3, masked=0.4)
    decision = (score > 0.5).astype(float)
    known = ~np.isnan(y)
    assert 0 < known.sum() < len(y)
    for metric in ALL.values():
        assert metric(y, decision) == metric(y[known], decision[known])


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
    of_rates = {name: RATES[name] for name in functions}
    ours = pd.DataFrame(
        {name: {g: rate(y[group == g], decision[group == g]) for g in "abc"} for name, rate in of_rates.items()}
    )
    pd.testing.assert_frame_equal(ours, frame.by_group, check_names=False, check_dtype=False)
    for name in functions:
        assert np.ptp(ours[name]) == pytest.approx(frame.difference()[name])


def test_a_rate_without_its_class_is_undefined_and_neither_zero_nor_one():
    negatives, positives, flags = np.zeros(4), np.ones(4), np.array([0.0, 1.0, 1.0, 0.0])
    assert np.isnan(classification.true_positive_rate(negatives, flags)) and np.isnan(
        classification.false_negative_rate(negatives, flags)
    )
    assert np.isnan(classification.false_positive_rate(positives, flags)) and np.isnan(
        classification.true_negative_rate(positives, flags)
    )
    assert classification.false_positive_rate(negatives, flags) == 0.5


def test_a_group_without_positives_has_no_tpr_where_fairlearn_says_0():
    y, flags = np.zeros(4), np.array([0.0, 1.0, 1.0, 0.0])
    assert fairlearn.metrics.true_positive_rate(y, flags) == 0
    assert np.isnan(classification.true_positive_rate(y, flags))


def test_nothing_known_is_undefined():
    assert all(np.isnan(metric(np.full(3, np.nan), np.ones(3))) for metric in ALL.values())


def test_a_missing_decision_is_left_out_of_rates():
    y, decision = np.array([1.0, 1.0, 1.0, 0.0]), np.array([1.0, np.nan, 0.0, 1.0])
    assert classification.true_positive_rate(y, decision) == 0.5
    assert classification.false_negative_rate(y, decision) == 0.5
    assert np.isnan(classification.false_positive_rate(np.zeros(2), np.full(2, np.nan)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_weightings_at_once_equal_one_at_a_time(labels_and_scores, dtype):
    y, score = labels_and_scores(5, 60, masked=0.2)
    weights = np.random.default_rng(5).integers(0, 4, (30, len(y))).astype(dtype)
    weights[0, y == 1] = 0  # undefined among defined ones
    decision = (score > 0.5).astype(float)
    assert RATES.keys() == set(classification.RATES)
    for name, rate in RATES.items():
        expected = [rate(y, decision, w) for w in weights]
        np.testing.assert_allclose(classification.rate_replicates(name, y, decision, weights), expected, rtol=1e-6)
    assert np.isnan(classification.rate_replicates("TPR", y, decision, weights)[0])


def test_rates_of_many_labels_at_once_equal_one_label_at_a_time():
    rng = np.random.default_rng(0)
    y = rng.choice([0.0, 1.0, np.nan], (50, 4))
    decision = rng.choice([0.0, 1.0, np.nan], (50, 4), p=[0.5, 0.4, 0.1])
    weights = rng.integers(0, 3, (7, 50)).astype(np.float32)
    for name in RATES:
        together = classification.rate_replicates(name, y, decision, weights)
        assert together.shape == (7, 4)
        for label in range(4):
            one = classification.rate_replicates(name, y[:, label], decision[:, label], weights)
            np.testing.assert_array_equal(together[:, label], one)
