"""Reweighted, groups are alike in what is known of them; what is read only because of it is not read any more."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from biascxr.containers import Attribute, Cohort
from biascxr.leakage import reweight
from biascxr.leakage.covariates import covariate_vectors
from biascxr.leakage.readout import Readout, group_codes
from biascxr.leakage.reweight import MIN_PATIENTS, balancing_weights
from biascxr.leakage.scores import one_vs_rest


def cohort(seed: int = 0, *, n: int = 1500, k: int = 3, pull: float = 1.0, shares=None) -> tuple[Cohort, Attribute]:
    """Groups that differ in age and view as `pull` says, one or two images a patient."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) * 2 // 3
    group = rng.choice(k, n, p=shares)[patient]
    at = (group - (k - 1) / 2) * pull
    attribute = Attribute("race", tuple("ABCDE"[:k]), True)
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)], "study_id": "s", "patient_id": [f"p{p}" for p in patient],
            "path": "x.jpg", "split": "test", "race": np.array(attribute.groups, object)[group],
            "age": 50 + 8 * at + 15 * rng.normal(size=n),
            "view": np.where(rng.random(n) < 1 / (1 + np.exp(-at)), "AP", "PA"),
        }
    )  # fmt: skip
    labels = (rng.random((n, 1)) < 0.3).astype(np.float32)
    return Cohort(table, labels, ("Edema",), (attribute,), "generic", "image", "."), attribute


def weighted_means(made: Cohort, attribute: Attribute, weight: np.ndarray) -> np.ndarray:
    columns = covariate_vectors(made, attribute).vectors
    codes = group_codes(made, attribute)
    return np.stack([np.average(columns[codes == g], axis=0, weights=weight[codes == g]) for g in range(len(attribute.groups))])


def test_between_two_groups_unpenalised_weights_balance_every_mean_exactly(monkeypatch):
    """Li, Morgan and Zaslavsky 2018, theorem 3."""
    monkeypatch.setattr(reweight, "INVERSE_PENALTY", 1e8)
    made, attribute = cohort(k=2)
    found = balancing_weights(made, attribute, np.arange(len(made)))
    before = weighted_means(made, attribute, np.ones(len(made)))
    after = weighted_means(made, attribute, found.weight)
    assert np.abs(before[0] - before[1]).max() > 0.2
    np.testing.assert_allclose(after[0], after[1], atol=2e-3)
    assert found.largest_imbalance < 2e-3


def test_between_two_groups_a_row_weighs_the_propensity_of_the_other_group(monkeypatch):
    monkeypatch.setattr(reweight, "INVERSE_PENALTY", 1e8)
    made, attribute = cohort(k=2)
    columns = covariate_vectors(made, attribute).vectors.astype(float)
    codes = group_codes(made, attribute)
    other = LogisticRegression(C=np.inf, solver="newton-cholesky").fit((columns - columns.mean(0)) / columns.std(0), codes)
    expected = other.predict_proba((columns - columns.mean(0)) / columns.std(0))[np.arange(len(made)), 1 - codes]
    found = balancing_weights(made, attribute, np.arange(len(made))).weight
    for g in (0, 1):
        own = codes == g
        np.testing.assert_allclose(found[own], expected[own] * own.sum() / expected[own].sum(), rtol=5e-3)


def test_several_groups_become_alike_and_keep_their_sizes():
    made, attribute = cohort(k=4, n=3000, pull=0.6)
    rows = np.random.default_rng(0).permutation(3000)[:2500]
    found = balancing_weights(made, attribute, rows)
    whole = np.zeros(len(made))
    whole[rows] = found.weight
    before = weighted_means(made, attribute, np.isin(np.arange(3000), rows).astype(float))
    after = weighted_means(made, attribute, whole)
    assert np.ptp(before, axis=0).max() > 0.7 and np.ptp(after, axis=0).max() < 0.1
    assert found.largest_imbalance < 0.1 and found.note == ""
    codes = group_codes(made, attribute)[rows]
    for g, group in enumerate(attribute.groups):
        own = found.weight[codes == g]
        assert own.sum() == pytest.approx((codes == g).sum())
        assert found.n_effective[group] == pytest.approx(own.sum() ** 2 / (own**2).sum())


@pytest.mark.parametrize("planted", [0.0, 1.0])
def test_what_is_read_through_age_alone_vanishes_and_what_is_not_stays(planted):
    made, attribute = cohort(k=2, pull=1.5, n=3000)
    codes = group_codes(made, attribute)
    noise = np.random.default_rng(1).normal(size=len(made))
    score = made.table["age"].to_numpy() / 15 + noise + planted * codes
    patients = made.table["patient_id"].to_numpy(object)
    scores = np.c_[-score, score]
    readout = Readout(attribute, "knn", np.arange(3000), codes, scores, np.zeros(3000, int), patients, "", np.nan)
    weight = balancing_weights(made, attribute, readout.rows).weight
    raw, like = (one_vs_rest(readout, confidence=0.95, weight=w)[-1] for w in (None, weight))
    assert raw["low"] > 0.6
    if planted:
        assert like["low"] > 0.6 and like["auroc"] < raw["auroc"]
    else:
        assert like["low"] < 0.5 < like["high"]


def test_a_group_of_too_few_patients_takes_no_part_and_is_named():
    made, attribute = cohort(k=3, shares=[0.6, 0.385, 0.015])
    n_patients = made.table.loc[made.table["race"] == "C", "patient_id"].nunique()
    assert 2 < n_patients < MIN_PATIENTS
    found = balancing_weights(made, attribute, np.arange(len(made)))
    codes = group_codes(made, attribute)
    assert (found.weight[codes == 2] == 0).all() and (found.weight[codes < 2] > 0).all()
    assert found.note == "not reweighted: C (under 25 patients)" and set(found.n_effective) == {"A", "B"}


def test_groups_that_resemble_no_other_are_refused_and_do_not_spoil_the_others():
    made, attribute = cohort(k=3, pull=0.2)
    apart = (made.table["race"] == "C").to_numpy()
    made.table.loc[apart, "age"] += 200.0
    found = balancing_weights(made, attribute, np.arange(len(made)))
    assert (found.weight[apart] == 0).all() and set(found.n_effective) == {"A", "B"}
    assert found.n_effective["A"] > 0.7 * (made.table["race"] == "A").sum()
    assert found.note.startswith("not reweighted: C (effective n ")


def test_two_groups_without_overlap_give_no_weight_at_all():
    made, attribute = cohort(k=2)
    made.table.loc[made.table["race"] == "B", "age"] += 400.0
    found = balancing_weights(made, attribute, np.arange(len(made)))
    assert np.isnan(found.weight).all() and np.isnan(found.largest_imbalance)
    assert found.note.startswith("not reweighted: ") and "nothing left to compare with" in found.note


def test_groups_that_weights_leave_unlike_are_refused(monkeypatch):
    """A heavy penalty hides that there is no overlap: effective numbers are fine, means are far apart."""
    monkeypatch.setattr(reweight, "INVERSE_PENALTY", 1e-4)
    made, attribute = cohort(k=2)
    made.table.loc[made.table["race"] == "B", "age"] += 30.0
    found = balancing_weights(made, attribute, np.arange(len(made)))
    assert np.isnan(found.weight).all() and "standard deviations from the others" in found.note


def test_without_covariates_every_row_counts_once():
    made, attribute = cohort(k=2)
    table = made.table.assign(age=np.nan, view="unknown")
    blank = Cohort(table, np.full((len(made), 1), np.nan, np.float32), ("Edema",), (attribute,), "generic", "image", ".")
    np.testing.assert_allclose(balancing_weights(blank, attribute, np.arange(len(made))).weight, 1)
