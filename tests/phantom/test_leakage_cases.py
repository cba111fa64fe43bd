"""The five planted cases are what they say they are, by readers and formulas that know nothing of the leakage stage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import special, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from biascxr.errors import InputError
from biascxr.phantom.leakage_cases import ATTRIBUTE_SHIFT, CASES, draw_case

N = 1500


@pytest.fixture(scope="module")
def cases():
    return {name: draw_case(name, n_patients=N, seed=0) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_patients_are_whole_and_the_same_seed_gives_the_same_case(cases, name):
    case = cases[name]
    assert case.vectors.dtype == np.float32 and len(np.unique(case.patient_id)) == N
    for values in (case.codes, case.split):
        assert all(len(set(values[case.patient_id == p])) == 1 for p in range(0, N, 50))
    images = np.bincount(case.patient_id)
    assert images.min() == 1 and images.max() == 6
    labels_vary = [len(set(case.labels[case.patient_id == p, 0])) == 2 for p in range(N)]
    assert np.mean(labels_vary) > 0.03
    again, other = draw_case(name, n_patients=N, seed=0), draw_case(name, n_patients=N, seed=1)
    assert again.vectors.tobytes() == case.vectors.tobytes() and again.scores.tobytes() == case.scores.tobytes()
    assert other.vectors.tobytes() != case.vectors.tobytes()


@pytest.mark.parametrize("name", CASES)
def test_scores_are_what_the_last_layer_makes_of_its_inputs(cases, name):
    case = cases[name]
    np.testing.assert_allclose(case.scores, special.expit(case.hidden @ case.kernel + case.bias), rtol=1e-6)
    assert case.hidden.min() == 0
    for j in range(case.labels.shape[1]):
        assert roc_auc_score(case.labels[:, j], case.scores[:, j]) > 0.75


@pytest.mark.parametrize("name", CASES)
def test_who_can_read_the_attribute(cases, name):
    case = cases[name]
    train, test = case.rows("train"), case.rows("test")
    linear = LogisticRegression(max_iter=500).fit(case.vectors[train], case.codes[train])
    neighbours = KNeighborsClassifier(25).fit(case.vectors[train], case.codes[train])
    by_line, by_neighbours = (
        roc_auc_score(case.codes[test], reader.predict_proba(case.vectors[test])[:, 1]) for reader in (linear, neighbours)
    )
    best = stats.norm.cdf(ATTRIBUTE_SHIFT / np.sqrt(2))  # of two normal groups so far apart
    if case.truth.is_linear and name != "unequal_prevalence":
        assert by_line == pytest.approx(best, abs=0.03)
    assert (by_line > 0.75) == case.truth.is_linear
    assert (by_neighbours > 0.65) == case.truth.is_encoded
    if not case.truth.is_linear:
        assert abs(by_line - 0.5) < 0.06


@pytest.mark.parametrize("name", CASES)
def test_the_score_differs_by_group_at_one_label_where_the_case_says_so(cases, name):
    case = cases[name]
    for j in range(case.labels.shape[1]):
        for value in (0, 1):
            at = case.labels[:, j] == value
            separation = abs(roc_auc_score(case.codes[at], case.scores[at, j]) - 0.5)
            assert separation > 0.15 if case.truth.is_used else separation < 0.06


def test_only_one_case_has_unequal_prevalence_and_its_head_is_blind_to_it(cases):
    for name, case in cases.items():
        gap = case.labels[case.codes == 1].mean(0) - case.labels[case.codes == 0].mean(0)
        assert (gap > 0.08).all() if name == "unequal_prevalence" else (np.abs(gap) < 0.05).all()
    case = cases["unequal_prevalence"]
    # A head trained normally does use it: the group's coordinate says how common the finding is.
    trained = LogisticRegression(max_iter=500).fit(case.vectors, case.labels[:, 0])
    logits = case.vectors @ trained.coef_[0]
    at = case.labels[:, 0] == 0
    planted, learned = (roc_auc_score(case.codes[at], s) for s in (case.scores[at, 0], logits[at]))
    assert abs(planted - 0.5) < 0.04 and learned > planted + 0.05


def test_the_planted_weight_of_a_finding_is_bayes():
    """The score is calibrated where prevalence is alike: among rows scored p, a share p is labelled positive."""
    case = draw_case("absent", n_patients=6000, seed=0)
    for j in range(3):
        score, label = case.scores[:, j], case.labels[:, j]
        edges = np.quantile(score, np.linspace(0, 1, 6))
        for low, high in itertools.pairwise(edges):
            own = (score >= low) & (score <= high)
            assert label[own].mean() == pytest.approx(score[own].mean(), abs=0.04)


def test_an_unknown_case_names_the_nearest_and_a_handful_of_patients_is_refused():
    with pytest.raises(InputError, match="Did you mean 'encoded_used'"):
        draw_case("encoded_use", n_patients=100, seed=0)
    with pytest.raises(InputError, match="n_patients must be 40 or more"):
        draw_case("absent", n_patients=10, seed=0)
