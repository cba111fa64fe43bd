"""Ranking within a label value: what it finds, what it leaves alone, and how often it errs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import roc_auc_score

from biascxr.containers import Attribute
from biascxr.errors import InputError
from biascxr.leakage.dependence import ScoredRows, given_label, stratified_auroc
from biascxr.leakage.dependence.rank_permutations import FindingRanks
from biascxr.metrics.delong import clustered_auroc

RACE = Attribute("race", ("A", "B", "C"), True)
NAMES = ("x", "y")


def world(
    seed: int, *, n_patients: int = 400, in_negatives: float = 0.0, in_positives: float = 0.0, by_age: float = 0.0
) -> ScoredRows:
    """1 to 4 images a patient, images alike within patients; prevalence .2 to .5 by group; a score shift for group C.

    `by_age` moves the score with a binary age that goes with the group and not with the label.
    """
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 5, n_patients))
    group = rng.choice(3, n_patients, p=[0.5, 0.3, 0.2])
    age = (rng.random(n_patients) < np.array([0.2, 0.5, 0.8])[group]).astype(int)
    ill = rng.random((n_patients, 2)) < np.array([0.2, 0.3, 0.5])[group][:, None]
    label = (ill[patient] ^ (rng.random((len(patient), 2)) < 0.1)).astype(np.float32)
    logit = label * 1.5 + rng.normal(size=(n_patients, 2))[patient] + rng.normal(size=label.shape) + by_age * age[patient, None]
    is_c = (group[patient] == 2)[:, None]
    logit = logit + is_c * np.where(label == 1, in_positives, in_negatives)
    label[rng.random(label.shape) < 0.05] = np.nan
    return ScoredRows(special.expit(logit), label, group[patient], patient, NAMES, RACE, {"age": age[patient]})


def test_with_one_stratum_it_is_the_clustered_delong_auroc():
    rows, weight = world(0), np.random.default_rng(1).uniform(0.2, 3, len(world(0)))
    # A patient whose rows stand on both sides makes the two sides covary.
    side = np.random.default_rng(2).random(len(rows)) < 0.3
    for w, is_group in ((None, rows.codes == 1), (weight, rows.codes == 1), (None, side), (weight, side)):
        own = stratified_auroc(
            is_group, rows.scores[:, 0], patient_id=rows.patient_id, strata=np.zeros(len(rows), int), weight=w
        )
        peer = clustered_auroc(is_group, rows.scores[:, 0], rows.patient_id, w)
        assert own.value == pytest.approx(peer.value, abs=1e-12) and own.variance == pytest.approx(peer.variance, rel=1e-9)
        assert own.n_group_patients == peer.n_positive_patients and own.n_other_patients == peer.n_negative_patients


def test_it_is_the_mean_of_scikit_learns_aurocs_weighted_by_pairs_ties_included():
    rows, rng = world(2), np.random.default_rng(2)
    strata, score = rng.integers(0, 4, len(rows)), rng.integers(0, 9, len(rows)).astype(float)
    is_group = (rows.codes == 2) & (strata != 3)  # one stratum without the group: no pairs
    values, pairs = [], []
    for s in range(3):
        own = strata == s
        values.append(roc_auc_score(is_group[own], score[own]))
        pairs.append(is_group[own].sum() * (~is_group[own]).sum())
    found = stratified_auroc(is_group, score, patient_id=rows.patient_id, strata=strata)
    assert found.value == pytest.approx(np.average(values, weights=pairs), abs=1e-12)
    assert found.n_other_patients == len(np.unique(rows.patient_id[~is_group & (strata != 3)]))
    assert (found.influence[strata == 3] == 0).all()


def test_the_influence_of_a_row_is_the_derivative_by_its_weight():
    rows, rng = world(3, n_patients=40), np.random.default_rng(3)
    strata, weight, step = rng.integers(0, 3, len(rows)), rng.uniform(0.5, 2, len(rows)), 1e-6

    def at(w):
        return stratified_auroc(rows.codes == 0, rows.scores[:, 0], patient_id=rows.patient_id, strata=strata, weight=w)

    found = at(weight)
    for i in range(0, len(rows), 7):
        moved = weight.copy()
        moved[i] *= 1 + step
        assert found.influence[i] == pytest.approx((at(moved).value - found.value) / step, abs=1e-6)
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)


def test_the_value_within_permutations_is_the_stratified_auroc():
    """The permutations go by sums of centred ranks; that these give the AUROC is what makes them fast."""
    rows = world(4)
    label = rows.labels[:, 0]
    known = ~np.isnan(label)
    age = rows.covariates["age"].astype(np.int64)
    finding = FindingRanks.of(rows.scores[:, 0], label, rows.patient_id, age, rows.patient_id.max() + 1)
    codes = rows.codes[np.unique(rows.patient_id, return_index=True)[1]]
    for part, used in zip(finding.parts, (known, label == 1), strict=True):
        added = np.zeros((1, len(codes), 3))
        value, variance = (found[0] for found in part.scores(codes[None], np.array([True] * 3), added))
        np.testing.assert_allclose(variance, (added[0] ** 2).sum(axis=0), rtol=1e-12)
        for g in range(3):
            strata = 2 * age + np.nan_to_num(label).astype(int)
            direct = stratified_auroc(
                rows.codes == g, rows.scores[:, 0], patient_id=rows.patient_id, strata=strata, weight=used.astype(float)
            )
            assert value[g] == pytest.approx(direct.value - 0.5, abs=1e-12)
            # Under no dependence the two variances estimate the same.
            assert variance[g] == pytest.approx(direct.variance, rel=0.15)


def test_prevalence_that_differs_is_no_dependence_and_a_shift_within_a_label_is():
    rows = world(5)
    prevalence = [np.nanmean(rows.labels[rows.codes == g, 0]) for g in range(3)]
    assert prevalence[2] - prevalence[0] > 0.15
    assert roc_auc_score(rows.codes == 2, rows.scores[:, 0]) > 0.55  # a plain ranking calls prevalence dependence
    fair = given_label(rows, n_permutations=199, seed=0)
    assert fair["p_value"].min() > 0.05
    assert ((fair["low"] < 0.5) & (fair["high"] > 0.5)).all()
    unfair = given_label(world(5, in_negatives=1.5, in_positives=1.5), n_permutations=199, seed=0)
    found = unfair[(unfair["label"] == "macro") & (unfair["group"] == "C")].iloc[0]
    assert found["p_value"] == 0.005 and found["low"] > 0.6 and found["value"] > found["control_high"]


def test_the_table_holds_the_mean_of_scikit_learns_aurocs_over_label_values_weighted_by_pairs():
    rows = world(13, in_negatives=0.5, in_positives=-0.5)
    table = given_label(rows, n_permutations=9, seed=0).set_index(["measure", "label", "group"])["value"]
    macro = []
    for j, label in enumerate(NAMES):
        values, pairs = [], []
        for y in (0, 1):
            at = rows.labels[:, j] == y
            values.append(roc_auc_score(rows.codes[at] == 2, rows.scores[at, j]))
            pairs.append((rows.codes[at] == 2).sum() * (rows.codes[at] != 2).sum())
        macro.append(np.average(values, weights=pairs))
        assert table["auroc", label, "C"] == pytest.approx(macro[-1], abs=1e-12)
        assert table["auroc_positives", label, "C"] == pytest.approx(values[1], abs=1e-12)
    assert table["auroc", "macro", "C"] == pytest.approx(np.mean(macro), abs=1e-12)


def test_dependence_among_positives_alone_is_found_by_their_own_row():
    table = given_label(world(6, n_patients=900, in_positives=-1.2), n_permutations=199, seed=0)
    of_c = table[(table["group"] == "C") & (table["label"] == "x")].set_index("measure")
    assert of_c.loc["auroc_positives", "p_value"] == 0.005 and of_c.loc["auroc_positives", "high"] < 0.45
    assert abs(of_c.loc["auroc", "value"] - 0.5) < abs(of_c.loc["auroc_positives", "value"] - 0.5)


def test_what_a_covariate_explains_is_gone_once_it_is_held_fixed():
    rows = world(7, n_patients=900, by_age=1.5)
    plain = given_label(rows, n_permutations=199, seed=0)
    held = given_label(rows, given=("age",), n_permutations=199, seed=0)
    assert plain["p_value"].min() == 0.005 and set(plain["evidence"]) == {"given_label"}
    assert held["p_value"].min() > 0.05 and set(held["evidence"]) == {"given_label_and_covariates"}


def test_a_score_that_is_the_same_for_all_depends_on_nothing():
    rows = world(14)
    rows.scores[:, 0] = 0.3
    table = given_label(rows, n_permutations=99, seed=0)
    own = table[table["label"] == "x"]
    assert (own["value"] == 0.5).all() and (own["p_value"] == 1).all()
    assert table.loc[table["label"] == "y", "p_value"].min() > 0.05


def test_a_finding_with_few_positives_counts_through_its_negatives():
    rows = world(8, in_negatives=1.5)
    positive = np.flatnonzero((rows.labels[:, 0] == 1) & (rows.codes == 2))
    rows.labels[positive[10:], 0] = np.nan
    table = given_label(rows, n_permutations=99, seed=0)
    of_c = table[(table["group"] == "C") & (table["label"] == "x")].set_index("measure")
    few = of_c.loc["auroc_positives"]
    assert np.isfinite(few["value"]) and np.isnan([few["p_value"], few["low"], few["high"]]).all()
    assert of_c.loc["auroc", "p_value"] == 0.01


def test_patients_are_permuted_whole_within_their_pattern_and_alike_in_all_findings():
    rows = world(9, n_patients=2000)
    codes = rows.codes[np.unique(rows.patient_id, return_index=True)[1]]
    cell = np.zeros(len(rows), np.int64)
    findings = [FindingRanks.of(rows.scores[:, j], rows.labels[:, j], rows.patient_id, cell, len(codes)) for j in range(2)]
    images = np.bincount(rows.patient_id)
    agreement, moved = [], []
    rng = np.random.default_rng(0)
    orders = np.stack([rng.permutation(len(codes)) for _ in range(20)])
    for permuted in zip(*(f.permuted(f.sorted_groups(codes), orders) for f in findings), strict=True):
        for j, (finding, own) in enumerate(zip(findings, permuted, strict=True)):
            for pattern in np.unique(finding.pattern):
                at = finding.pattern == pattern
                np.testing.assert_array_equal(np.bincount(own[at], minlength=3), np.bincount(codes[at], minlength=3))
                if pattern >= 0:  # a pattern is one set of label values
                    sets = {frozenset(rows.labels[rows.patient_id == p, j][~np.isnan(rows.labels[rows.patient_id == p, j])])
                            for p in np.flatnonzero(at)[:5]}  # fmt: skip
                    assert len(sets) == 1 and len(set(images[at] > 1)) <= 2
            moved.append((own != codes).mean())
        agreement.append((permuted[0] == permuted[1]).mean())
    assert np.mean(moved) > 0.4  # else nothing was permuted
    # A patient falls into the same group in both findings mostly; drawn apart, in 38% (.5^2 + .3^2 + .2^2).
    assert np.mean(agreement) > 0.6


def test_an_attribute_that_changes_within_a_patient_counts_with_the_first_group():
    rows = world(10)
    rows.codes[::5] = (rows.codes[::5] + 1) % 3
    kept = rows.of_constant_group()
    groups = {p: set(kept.codes[kept.patient_id == p]) for p in kept.patient_id}
    assert all(len(found) == 1 for found in groups.values()) and 0 < len(kept) < len(rows)
    table = given_label(rows, n_permutations=19, seed=0)
    of_x = table[(table["label"] == "x") & (table["measure"] == "auroc")]
    assert set(of_x["n"]) == {len(np.unique(kept.patient_id[~np.isnan(kept.labels[:, 0])]))}


def test_the_same_seed_gives_the_same_table_and_monotone_scores_too():
    rows = world(11)
    first = given_label(rows, n_permutations=49, seed=3)
    squared = ScoredRows(rows.scores**2, rows.labels, rows.codes, rows.patient_id, NAMES, RACE)
    assert first.equals(given_label(rows, n_permutations=49, seed=3)) and first.equals(
        given_label(squared, n_permutations=49, seed=3)
    )
    assert not first["p_value"].equals(given_label(rows, n_permutations=49, seed=4)["p_value"])


def test_errors_name_the_argument():
    rows = world(12, n_patients=20)
    with pytest.raises(InputError, match=r"covariate 'agee'.*'age'"):
        given_label(rows, given=("agee",), seed=0)
    with pytest.raises(InputError, match="codes must lie in -1"):
        ScoredRows(rows.scores, rows.labels, rows.codes + 1, rows.patient_id, NAMES, RACE)
    with pytest.raises(InputError, match="scores must have one row"):
        ScoredRows(rows.scores[:5], rows.labels, rows.codes, rows.patient_id, NAMES, RACE)
    with pytest.raises(InputError, match="labels must be 0, 1 or NaN"):
        ScoredRows(rows.scores, rows.labels - 1, rows.codes, rows.patient_id, NAMES, RACE)


@pytest.mark.slow
def test_in_fair_worlds_it_rejects_at_its_level_and_the_joint_intervals_cover():
    """200 worlds with unequal prevalence, images a patient and group sizes: 5% nominal, standard error 1.5 points."""
    p_values, covered = [], []
    for seed in range(200):
        table = given_label(world(1000 + seed, n_patients=200), n_permutations=99, seed=seed)
        p_values.append(table["p_value"].min())
        own = table[table["p_value"].notna()]
        covered.append(((own["low"] < 0.5) & (own["high"] > 0.5)).all())
    assert 0.02 <= np.mean(np.array(p_values) <= 0.05) <= 0.09
    assert 0.14 <= np.mean(np.array(p_values) <= 0.2) <= 0.27
    assert np.mean(covered) > 0.90
