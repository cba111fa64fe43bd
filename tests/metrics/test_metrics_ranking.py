"""AUROC, AUPRC and AUROCs across groups agree with scikit-learn and with counting pairs; undefined is NaN."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from biascxr.metrics import ranking

# Labels, scores on few values (ties), whole-number weights, groups: each row has one of each.
rows_with_groups = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, np.nan]), st.integers(0, 6), st.integers(0, 4), st.integers(0, 2)),
    min_size=2,
    max_size=40,
).map(lambda r: tuple(np.array(column, np.float64) for column in zip(*r, strict=True)))
rows = rows_with_groups.map(lambda r: r[:3])


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
    assert ranking.auroc(y, score) == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    assert ranking.auroc(y, score, weight) == pytest.approx(roc_auc_score(y, score, sample_weight=weight), abs=1e-12)


@given(rows)
@settings(deadline=None, max_examples=200)
def test_auroc_is_the_share_of_pairs_won(drawn):
    y, score, weight = drawn
    assert ranking.auroc(y, score, weight) == pytest.approx(pairs_won(y, score, weight), abs=1e-12, nan_ok=True)


@given(rows_with_groups)
@settings(deadline=None, max_examples=100)
def test_whole_number_weights_are_copies_of_rows(drawn):
    y, score, weight, group = drawn
    copies = np.repeat(np.arange(len(y)), weight.astype(int))
    for metric in (ranking.auroc, ranking.auprc):
        expected = metric(y[copies], score[copies])
        assert metric(y, score, weight) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    for metric in (ranking.bnsp_auroc, ranking.bpsn_auroc):
        expected = metric(y[copies], score[copies], group[copies] == 1)
        assert metric(y, score, group == 1, weight) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    expected = ranking.cross_auroc(y[copies], score[copies], group[copies] == 0, group[copies] == 2)
    assert ranking.cross_auroc(y, score, group == 0, group == 2, weight) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(rows)
@settings(deadline=None, max_examples=100)
def test_auroc_of_the_opposite_score_is_one_minus_auroc(drawn):
    y, score, weight = drawn
    assert ranking.auroc(y, -score, weight) == pytest.approx(1 - ranking.auroc(y, score, weight), abs=1e-12, nan_ok=True)


@given(rows, st.integers(0, 1000))
@settings(deadline=None, max_examples=200)
def test_auprc_is_scikit_learns_average_precision(drawn, seed):
    y, score, weight = drawn
    known = ~np.isnan(y)
    for w in (weight, np.random.default_rng(seed).random(len(y))):
        if not w[y == 1].sum():
            assert np.isnan(ranking.auprc(y, score, w))  # scikit-learn says 0
            continue
        expected = average_precision_score(y[known], score[known], sample_weight=w[known])
        assert ranking.auprc(y, score, w) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("prevalence", [0.1, 0.5])
def test_a_score_that_says_nothing_has_the_prevalence_as_auprc(prevalence):
    y = (np.arange(1000) < 1000 * prevalence).astype(float)
    assert ranking.auprc(y, np.full(1000, 0.3)) == pytest.approx(prevalence)
    assert ranking.auprc(y, y) == 1


@given(rows_with_groups)
@settings(deadline=None, max_examples=200)
def test_cross_auroc_is_the_share_of_pairs_won_across_two_groups(drawn):
    y, score, weight, group = drawn
    for a in range(3):
        for b in range(3):
            kept = ((y == 1) & (group == a)) | ((y == 0) & (group == b))
            expected = pairs_won(np.where(kept, y, np.nan), score, weight)
            found = ranking.cross_auroc(y, score, group == a, group == b, weight)
            assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_cross_auroc_of_a_group_with_itself_is_its_auroc(labels_and_scores):
    y, score = labels_and_scores(7, masked=0.1)
    own = np.arange(len(y)) % 3 == 0
    assert ranking.cross_auroc(y, score, own, own) == ranking.auroc(y[own], score[own])


def test_the_auroc_of_all_is_the_mean_of_the_cross_aurocs_over_pairs_of_groups(labels_and_scores):
    y, score = labels_and_scores(8, 300, masked=0.1)
    group = np.random.default_rng(8).integers(0, 3, len(y))
    weight = np.random.default_rng(9).random(len(y))
    mean = 0.0
    for a in range(3):
        for b in range(3):
            share = weight[(y == 1) & (group == a)].sum() * weight[(y == 0) & (group == b)].sum()
            mean += share * ranking.cross_auroc(y, score, group == a, group == b, weight)
    mean /= weight[y == 1].sum() * weight[y == 0].sum()
    assert mean == pytest.approx(ranking.auroc(y, score, weight), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_bnsp_and_bpsn_are_scikit_learns_auroc_on_the_rows_they_are_named_after(labels_and_scores, seed):
    y, score = labels_and_scores(seed, masked=0.1)
    own = np.random.default_rng(seed + 50).random(len(y)) < 0.3
    weight = np.random.default_rng(seed + 10).random(len(y))
    subgroup, background = own & ~np.isnan(y), ~own & ~np.isnan(y)
    cases = {
        ranking.bnsp_auroc: (background & (y == 0)) | (subgroup & (y == 1)),
        ranking.bpsn_auroc: (background & (y == 1)) | (subgroup & (y == 0)),
    }
    for metric, kept in cases.items():
        expected = roc_auc_score(y[kept], score[kept], sample_weight=weight[kept])
        assert metric(y, score, own, weight) == pytest.approx(expected, abs=1e-12)


def test_a_subgroup_that_scores_too_high_shows_in_bpsn_and_not_in_its_own_auroc():
    rng = np.random.default_rng(0)
    y, own = (rng.random(4000) < 0.4).astype(float), rng.random(4000) < 0.5
    score = rng.normal(1.5 * y + 1.0 * own, 1)
    within = [ranking.auroc(y[g], score[g]) for g in (own, ~own)]
    assert within[0] == pytest.approx(within[1], abs=0.03)
    assert ranking.bpsn_auroc(y, score, own) < within[0] - 0.1 < within[0] + 0.05 < ranking.bnsp_auroc(y, score, own)


def test_a_masked_label_is_as_if_the_row_were_not_there(labels_and_scores):
    y, score = labels_and_scores(3, masked=0.4)
    known = ~np.isnan(y)
    assert 0 < known.sum() < len(y)
    assert ranking.auroc(y, score) == pytest.approx(roc_auc_score(y[known], score[known]), abs=1e-12)
    assert ranking.auprc(y, score) == pytest.approx(average_precision_score(y[known], score[known]), abs=1e-12)


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_what_needs_both_classes_is_undefined_with_one(only):
    y, score = np.full(6, only), np.linspace(0, 1, 6)
    assert np.isnan(ranking.auroc(y, score))
    assert np.isnan(ranking.roc_curve_on_grid(y, score, np.array([0.1, 0.5]))).all()


def test_nothing_known_has_no_curve():
    assert np.isnan(ranking.roc_curve_on_grid(np.full(3, np.nan), np.array([0.1, 0.2, 0.3]), np.array([0.5]))).all()


def test_weight_on_one_class_only_is_undefined():
    y, score = np.array([0.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.3])
    assert np.isnan(ranking.auroc(y, score, np.array([1.0, 1.0, 0.0])))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_weightings_at_once_equal_one_at_a_time(labels_and_scores, dtype):
    y, score = labels_and_scores(5, 60, masked=0.2)
    weights = np.random.default_rng(5).integers(0, 4, (30, len(y))).astype(dtype)
    weights[0, y == 1] = 0  # undefined among defined ones
    together = ranking.auroc_replicates(y, score, weights)
    np.testing.assert_allclose(together, [ranking.auroc(y, score, w) for w in weights], rtol=1e-12)
    assert np.isnan(together[0]) and not np.isnan(together[1:]).any()


def test_resamples_of_a_large_set_are_exact_in_float32(labels_and_scores):
    y, score = labels_and_scores(2, 300_000, levels=10_000)
    weights = np.random.default_rng(2).integers(0, 5, (2, len(y)))
    in_float32 = ranking.auroc_replicates(y, score, weights.astype(np.float32))
    np.testing.assert_allclose(in_float32, ranking.auroc_replicates(y, score, weights.astype(np.float64)), rtol=1e-9)


def test_the_curve_on_a_grid_passes_through_scikit_learns_operating_points(labels_and_scores):
    y, score = labels_and_scores(4, masked=0.2)
    known = ~np.isnan(y)
    fpr, tpr, _ = roc_curve(y[known], score[known], drop_intermediate=False)
    highest = pd.Series(tpr).groupby(fpr).max()  # on a vertical piece the curve's upper end
    np.testing.assert_allclose(ranking.roc_curve_on_grid(y, score, highest.index.to_numpy()), highest, atol=1e-12)
    grid = np.linspace(0, 1, 51)
    on_grid = ranking.roc_curve_on_grid(y, score, grid)
    assert (np.diff(on_grid) >= 0).all() and on_grid[-1] == 1
    assert np.trapezoid(on_grid, grid) == pytest.approx(ranking.auroc(y, score), abs=0.02)
