"""The variance of an AUROC is that of sums over all pairs and of resampled patients, and gives tests of the right size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from biascxr.metrics import auroc, auroc_replicates, patient_weights
from biascxr.metrics.delong import clustered_auroc, clustered_auroc_covariance, delong_test, delong_test_unpaired


def correlated_images(seed, n_patients, *, shift=1.0, shift_b=None, label_spread=1.0, share=0.6):
    """Patients with 1 to 6 images, whose labels and two scores share a patient effect. Returns y, a, b, patient."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 7, n_patients))
    n = len(patient)
    y = (rng.normal(0, label_spread, n_patients)[patient] + rng.normal(size=n) > 0.8).astype(float)
    both, own_a, own_b = (rng.normal(0, np.sqrt(share), n_patients)[patient] for _ in range(3))
    noise_a, noise_b = rng.normal(0, np.sqrt(1 - share), (2, n))
    a = shift * y + both + own_a + noise_a
    b = (shift if shift_b is None else shift_b) * y + both + own_b + noise_b
    return y, a, b, patient


def covariance_over_pairs(y, scores, patient) -> np.ndarray:
    """Obuchowski's (1997) equations, one pair and one patient after another."""
    positives, negatives = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    m, n = len(positives), len(negatives)
    k = len(scores)
    theta, v10, v01 = np.zeros(k), np.zeros((k, len(y))), np.zeros((k, len(y)))
    for s, score in enumerate(scores):
        for i in positives:
            for j in negatives:
                won = 1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0
                theta[s] += won / (m * n)
                v10[s, i] += won / n
                v01[s, j] += won / m
    patients = sorted(set(patient[positives]) | set(patient[negatives]))
    i10, i01, total = len(set(patient[positives])), len(set(patient[negatives])), len(patients)
    s10, s01, s11 = np.zeros((k, k)), np.zeros((k, k)), np.zeros((k, k))
    for p in patients:
        up = np.array([sum(v10[s, i] - theta[s] for i in positives if patient[i] == p) for s in range(k)], float)
        down = np.array([sum(v01[s, j] - theta[s] for j in negatives if patient[j] == p) for s in range(k)], float)
        s10 += i10 / ((i10 - 1) * m) * np.outer(up, up)
        s01 += i01 / ((i01 - 1) * n) * np.outer(down, down)
        s11 += total / (total - 1) * np.outer(up, down)
    return s10 / m + s01 / n + (s11 + s11.T) / (m * n)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decimals", [0, 6], ids=["tied", "untied"])
def test_value_variance_and_covariance_are_the_sums_over_all_pairs(seed, decimals):
    y, a, b, patient = correlated_images(seed, 18)
    a, b = a.round(decimals), b.round(decimals)
    y[::7] = np.nan
    expected = covariance_over_pairs(y, (a, b), patient)
    made = clustered_auroc(y, a, patient)
    known = ~np.isnan(y)
    assert made.value == pytest.approx(roc_auc_score(y[known], a[known]), abs=1e-12)
    assert made.variance == pytest.approx(expected[0, 0], rel=1e-10)
    assert made.n_positive_patients == len(set(patient[y == 1])) and made.n_negative_patients == len(set(patient[y == 0]))
    assert made.n_patients == len(set(patient[known]))
    np.testing.assert_allclose(clustered_auroc_covariance(y, a, b, patient), expected, rtol=1e-10)
    difference = roc_auc_score(y[known], a[known]) - roc_auc_score(y[known], b[known])
    z = difference / np.sqrt(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1])
    result = delong_test(y, a, b, patient)
    assert (result.statistic, result.p_value) == pytest.approx((z, 2 * stats.norm.sf(abs(z))), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_with_one_image_per_patient_it_is_delongs_covariance(seed):
    rng = np.random.default_rng(seed)
    y = np.r_[np.ones(13), np.zeros(29)]
    scores = rng.normal(size=(2, 42)).round(1) + y
    wins = np.array([np.heaviside(s[y == 1][:, None] - s[y == 0][None], 0.5) for s in scores])  # [2, 13, 29]
    delong = np.cov(wins.mean(axis=2)) / 13 + np.cov(wins.mean(axis=1)) / 29
    np.testing.assert_allclose(clustered_auroc_covariance(y, *scores, rng.permutation(42)), delong, rtol=1e-10)
    ignoring = delong_test(y, *scores)
    assert ignoring == delong_test(y, *scores, np.arange(42))


drawn_rows = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, np.nan]), st.integers(-4, 4), st.integers(-4, 4), st.integers(0, 5), st.integers(0, 3)
    ),
    min_size=2,
    max_size=40,
).map(lambda r: tuple(np.array(column, np.float64) for column in zip(*r, strict=True)))


@given(drawn_rows)
@settings(deadline=None, max_examples=150)
def test_whole_number_weights_are_copies_of_rows_within_the_patient(drawn):
    y, a, _, patient, weight = drawn
    copies = np.repeat(np.arange(len(y)), weight.astype(int))
    expected = clustered_auroc(y[copies], a[copies], patient[copies])
    made = clustered_auroc(y, a, patient, weight)
    for name in vars(expected):
        assert getattr(made, name) == pytest.approx(getattr(expected, name), rel=1e-9, abs=1e-15, nan_ok=True), name
    assert made.value == pytest.approx(auroc(y, a, weight), abs=1e-12, nan_ok=True)
    scaled = clustered_auroc(y, a, patient, weight / 7)
    assert scaled.variance == pytest.approx(made.variance, rel=1e-9, abs=1e-15, nan_ok=True)


@given(drawn_rows)
@settings(deadline=None, max_examples=150)
def test_a_monotone_score_changes_nothing_and_a_reversed_one_mirrors_the_value(drawn):
    y, a, _, patient, weight = drawn
    made = clustered_auroc(y, a, patient, weight)
    assert clustered_auroc(y, np.exp(a) - 3, patient, weight) == made or np.isnan(made.variance)
    mirrored = clustered_auroc(y, -a, patient, weight)
    assert mirrored.value == pytest.approx(1 - made.value, abs=1e-12, nan_ok=True)
    assert mirrored.variance == pytest.approx(made.variance, rel=1e-9, abs=1e-15, nan_ok=True)


@given(drawn_rows)
@settings(deadline=None, max_examples=150)
def test_a_covariance_has_no_negative_eigenvalue(drawn):
    y, a, b, patient, weight = drawn
    covariance = clustered_auroc_covariance(y, a, b, patient, weight)
    if np.isnan(covariance).any():
        return
    assert np.linalg.eigvalsh(covariance).min() >= -1e-12


@pytest.mark.parametrize("weighted", [False, True])
def test_the_bootstrap_over_patients_has_the_same_variance(weighted):
    y, a, b, patient = correlated_images(3, 1500)
    weight = 1 / np.bincount(patient)[patient] if weighted else np.ones(len(y))
    resamples = patient_weights(patient.astype(str), 1500, seed=0) * weight
    replicates = np.stack([auroc_replicates(y, score, resamples) for score in (a, b)])
    made = clustered_auroc_covariance(y, a, b, patient, weight)
    np.testing.assert_allclose(made, np.cov(replicates), rtol=0.1)
    ignoring = clustered_auroc(y, a, np.arange(len(y)), weight).variance
    assert ignoring < 0.8 * np.var(replicates[0])  # what taking images for patients would claim


def test_swapping_the_scores_flips_the_sign():
    y, a, b, patient = correlated_images(0, 60, shift_b=0.4)
    forth, back = delong_test(y, a, b, patient), delong_test(y, b, a, patient)
    assert forth.statistic > 2 and back.statistic == -forth.statistic and back.p_value == forth.p_value
    assert forth.p_value < 0.05 and forth.df == 1


def test_one_ranking_does_not_differ_from_itself():
    y, a, _, patient = correlated_images(0, 60)
    result = delong_test(y, a, np.exp(a), patient)
    assert (result.statistic, result.p_value) == (0, 1)


def test_a_difference_without_variance_has_no_p_value():
    y = np.array([0.0, 0, 0, 1, 1])
    result = delong_test(y, y, np.zeros(5))  # a perfect score against a constant one
    assert np.isnan(result.statistic) and np.isnan(result.p_value)


def test_the_unpaired_test_is_a_difference_over_its_standard_error():
    first, second = (clustered_auroc(*np.array(correlated_images(s, 80, shift=d))[[0, 1, 3]]) for s, d in ((1, 2.0), (2, 0.5)))
    result = delong_test_unpaired(first, second)
    z = (first.value - second.value) / np.hypot(np.sqrt(first.variance), np.sqrt(second.variance))
    assert result.statistic == pytest.approx(z) and z > 2
    assert result.p_value == pytest.approx(2 * stats.norm.sf(z))
    assert delong_test_unpaired(second, first).statistic == -result.statistic


@pytest.mark.parametrize("y", [[1.0, 1, 1], [0.0, 0, np.nan], [np.nan] * 3])
def test_without_both_classes_everything_is_undefined(y):
    y, score = np.array(y), np.arange(3.0)
    made = clustered_auroc(y, score, np.arange(3))
    assert np.isnan(made.value) and np.isnan(made.variance) and made.n_patients == (~np.isnan(y)).sum()
    assert np.isnan(clustered_auroc_covariance(y, score, score, np.arange(3))).all()
    assert np.isnan(delong_test(y, score, -score).p_value)
    assert np.isnan(delong_test_unpaired(made, made).p_value)


def test_one_positive_patient_gives_a_value_without_variance():
    made = clustered_auroc(np.array([1.0, 1, 0, 0]), np.array([3.0, 1, 0, 2]), np.array([0, 0, 1, 2]))
    assert made.value == 0.75 and np.isnan(made.variance) and made.n_positive_patients == 1


def test_no_row_is_no_auroc():
    made = clustered_auroc(np.zeros(0), np.zeros(0), np.zeros(0, int))
    assert np.isnan(made.value) and made.n_patients == 0


def test_wrong_input_is_named():
    y, score, patient = np.array([0.0, 1, 1]), np.arange(3.0), np.arange(3)
    with pytest.raises(ValueError, match=r"patient_id must have one value per row of y_true, shape \(3,\)"):
        clustered_auroc(y, score, np.arange(2))
    with pytest.raises(ValueError, match="score must have one value per row"):
        delong_test(y, score, score[:2])
    with pytest.raises(ValueError, match="weight must be 0 or more"):
        clustered_auroc(y, score, patient, np.array([1, -1, 1]))
    with pytest.raises(ValueError, match="y_true must be 0, 1 or NaN"):
        clustered_auroc(y - 1, score, patient)
    with pytest.raises(ValueError, match="score is NaN where y_true is known"):
        clustered_auroc(y, np.array([0, np.nan, 1]), patient)


def test_a_missing_score_of_an_unknown_label_does_no_harm():
    made = clustered_auroc(np.array([0.0, 1, np.nan, 1, 0]), np.array([0, 2, np.nan, 1, 1]), np.arange(5))
    assert made.value == 0.875


@pytest.mark.slow
def test_the_paired_test_has_its_size_only_if_it_keeps_patients_together():
    rejected = np.zeros(2)
    for seed in range(1000):
        y, a, b, patient = correlated_images(seed, 150, label_spread=2.0)
        rejected += [delong_test(y, a, b, ids).p_value < 0.05 for ids in (patient, None)]
    clustered, ignoring = rejected / 1000
    assert 0.03 < clustered < 0.075  # Monte Carlo error 0.007
    assert ignoring > 0.15
