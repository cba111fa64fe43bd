"""Shuffled among patients, an attribute that is there stands out, one that is not does not, in the promised share of worlds."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from biascxr.containers import Attribute
from biascxr.errors import InputError
from biascxr.leakage import find_probe
from biascxr.leakage.readout import Fold, Readout, read_out
from biascxr.leakage.scores import one_vs_rest
from biascxr.leakage.shuffles import MIN_REFITS, _exchangeable, _statistics, _units, refitted, shuffle_test


def readout(patient: np.ndarray, codes: np.ndarray, scores: np.ndarray, fold: np.ndarray | None = None) -> Readout:
    names = tuple("ABCDE"[: scores.shape[1]])
    fold = np.zeros(len(codes), np.int64) if fold is None else fold
    return Readout(Attribute("race", names, True), "knn", np.arange(len(codes)), codes, scores, fold, patient, "", np.nan)


def world(seed: int, *, n_patients=(40, 15, 8), images=((1, 4),) * 3, strength: float = 0.0, identity: float = 2.0) -> Readout:
    """Patients whose images resemble each other; groups have their own numbers of images, uniform on a range."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(n_patients)), n_patients)
    counts = np.array([rng.integers(*images[g]) for g in group])
    patient, k = np.repeat(np.arange(len(group)), counts), len(n_patients)
    scores = identity * rng.normal(size=(len(group), k))[patient] + rng.normal(size=(len(patient), k))
    return readout(patient, group[patient], scores + strength * np.eye(k)[group[patient]])


def rejected(p_values: list[float]) -> float:
    return float((np.array(p_values) <= 0.05).mean())


def test_the_p_value_is_that_of_all_permutations_of_the_patients():
    rng = np.random.default_rng(4)
    patient = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 5])
    codes = np.array([0, 0, 1, 0, 1, 1])
    score = rng.normal(size=len(patient)).round(1) + 1.5 * codes[patient]
    made = readout(patient, codes[patient], np.c_[-score, score])
    aurocs = [roc_auc_score(np.isin(patient, group), score) for group in combinations(range(6), 3)]
    observed = roc_auc_score(codes[patient], score)
    expected = np.mean(np.array(aurocs) >= observed - 1e-12)
    found = shuffle_test(made, n_permutations=9999, seed=0, is_studentised=False)
    assert 0.05 < expected < 0.5
    assert found["B"] == pytest.approx(expected, abs=4 * np.sqrt(expected / 9999))
    assert found["A"] == found["B"] == found["macro"]


def test_of_two_folds_the_p_value_is_that_of_all_permutations_within_each():
    """Three of four patients are of group B in one fold, one in the other: 4 x 4 permutations, not the 70 of all eight."""
    codes, fold = np.array([1, 1, 1, 0, 1, 0, 0, 0]), np.repeat([0, 1], 4)
    score = np.array([3.0, 2.0, 4.0, 1.0, 3.0, 1.0, 4.0, 2.0])
    made = readout(np.arange(8), codes, np.c_[-score, score], fold)
    shuffled = []
    for alone, other in product(range(4), range(4, 8)):
        drawn = np.where(fold == 0, np.arange(8) != alone, np.arange(8) == other)
        shuffled.append(np.mean([roc_auc_score(drawn[fold == f], score[fold == f]) for f in (0, 1)]))  # as many pairs in each
    observed = np.mean([roc_auc_score(codes[fold == f], score[fold == f]) for f in (0, 1)])
    expected = np.mean(np.array(shuffled) >= observed - 1e-12)
    found = shuffle_test(made, n_permutations=9999, seed=0, is_studentised=False, over_folds=True)["B"]
    assert 0.1 < expected < 0.5 and found == pytest.approx(expected, abs=4 * np.sqrt(expected / 9999))


@pytest.mark.parametrize("varies", [False, True], ids=["constant", "varies within patients"])
def test_the_statistics_are_the_aurocs_and_these_over_their_standard_errors(varies):
    rng = np.random.default_rng(0)
    made = world(1, n_patients=(200, 150, 90), strength=1.5)
    made = replace(made, fold=made.patient_id % 3, scores=made.scores.round(1))
    if varies:
        made = replace(made, codes=np.where(rng.random(len(made)) < 0.3, rng.integers(0, 3, len(made)), made.codes))
    strata = rng.integers(0, 2, len(made))
    cell = made.fold * 2 + strata
    units = _units(made.codes, made.scores, cell, made.patient_id)
    codes = units.codes_from(np.arange(440)[None])
    value, ratio = (_statistics(units, codes, np.ones(3, bool), s)[0] for s in (False, True))
    rows = one_vs_rest(made, confidence=0.95, strata=strata)
    np.testing.assert_allclose(value + 0.5, [row["auroc"] for row in rows], atol=1e-12)
    width = np.array([row["high"] - row["low"] for row in rows])
    np.testing.assert_allclose(ratio, value / (width / 2 / 1.97), rtol=0.06)  # pooled ranks in place of DeLong's placements


@pytest.mark.parametrize("is_studentised", [True, False])
def test_a_planted_attribute_has_the_smallest_p_value_there_is(is_studentised):
    made = world(0, strength=6.0)
    found = shuffle_test(made, n_permutations=199, seed=0, is_studentised=is_studentised)
    assert set(found) == {"A", "B", "C", "macro"} and set(found.values()) == {1 / 200}


def test_an_absent_attribute_is_found_in_one_of_twenty_worlds_even_where_patients_can_be_recognised():
    """Nearly all of a score is its patient's: were images shuffled and not patients, most worlds would reject."""
    p_values = [shuffle_test(world(s, identity=5.0), n_permutations=99, seed=s) for s in range(400)]
    for name in ("A", "C", "macro"):
        assert 0.05 - 3.3 * 0.0109 < rejected([p[name] for p in p_values]) < 0.05 + 3.3 * 0.0109


@pytest.mark.slow
def test_groups_with_other_numbers_of_images_are_found_too_often_unless_studentised():
    def share(is_studentised: bool) -> float:
        made = (world(s, n_patients=(60, 30), images=((5, 10), (1, 2)), identity=0.7) for s in range(500))
        return rejected(
            [shuffle_test(m, n_permutations=99, seed=1, is_studentised=is_studentised)["B"] for m in made]
        )  # fmt: skip

    assert share(False) > 0.075
    assert 0.025 < share(True) < 0.075


@pytest.mark.slow
def test_a_group_that_changes_within_patients_is_found_in_one_of_twenty_worlds():
    def p_value(seed: int) -> float:
        made = world(seed, n_patients=(80, 40), images=((1, 6),) * 2)
        rng = np.random.default_rng(seed)
        inclined = rng.normal(size=120)[made.patient_id] + 0.5 * rng.normal(size=len(made))
        return shuffle_test(replace(made, codes=(inclined > 0.5).astype(np.int64)), n_permutations=99, seed=seed)["macro"]

    assert 0.025 < rejected([p_value(s) for s in range(500)]) < 0.08


def test_a_change_within_patients_that_is_read_is_found():
    made = world(3, n_patients=(80, 40), images=((2, 6),) * 2)
    codes = np.random.default_rng(0).integers(0, 2, len(made))
    made = replace(made, codes=codes, scores=made.scores + 2 * np.eye(2)[codes])
    assert shuffle_test(made, n_permutations=199, seed=0)["macro"] == 1 / 200


def test_patients_change_places_within_their_fold_only():
    """The folds' scores are on scales of their own, and their groups differ in share: no reason to find anything."""
    rng = np.random.default_rng(0)
    fold = np.repeat([0, 1], 60)
    codes = (rng.random(120) < np.where(fold == 0, 0.2, 0.8)).astype(np.int64)
    score = rng.normal(size=120) + 5 * fold
    made = readout(np.arange(120), codes, np.c_[-score, score], fold)
    assert shuffle_test(replace(made, fold=np.zeros(120, int)), n_permutations=199, seed=0)["macro"] == 1 / 200
    assert shuffle_test(made, n_permutations=199, seed=0, over_folds=True)["macro"] > 0.05
    blocks = _exchangeable(np.array([0, 1, 0, 1, 1, 2]), np.array([0, 0, 1, 2, 3, 4]))
    assert [block.tolist() for block in blocks] == [[2, 3]]  # 0 is in both cells, 1 and 4 each in one of their own


def test_several_folds_have_no_p_value_unless_asked_for():
    """Their probes have seen each other's groups: 11 % of worlds would reject at 5 %."""
    made = world(0, strength=6.0)
    made = replace(made, fold=made.patient_id % 2)
    assert np.isnan([*shuffle_test(made, n_permutations=49, seed=0).values()]).all()
    assert shuffle_test(made, n_permutations=49, seed=0, over_folds=True)["macro"] == 1 / 50


def test_within_strata_a_view_that_explains_everything_leaves_nothing():
    rng = np.random.default_rng(1)
    view = rng.integers(0, 2, 300)
    codes = (rng.random(300) < np.where(view == 0, 0.2, 0.8)).astype(np.int64)
    score = rng.normal(size=300) + 2 * view
    made = readout(np.arange(300), codes, np.c_[-score, score])
    assert shuffle_test(made, n_permutations=199, seed=0)["macro"] == 1 / 200
    assert shuffle_test(made, n_permutations=199, seed=0, strata=view)["macro"] > 0.1
    score = score + codes
    read = made.with_scores(np.c_[-score, score])
    assert shuffle_test(read, n_permutations=199, seed=0, strata=view)["macro"] == 1 / 200
    left_out = np.where(np.arange(300) < 150, view, -1)
    half = replace(read, **{name: getattr(read, name)[:150] for name in ("rows", "codes", "scores", "fold", "patient_id")})
    same = [shuffle_test(r, n_permutations=99, seed=0, strata=s) for r, s in ((read, left_out), (half, view[:150]))]
    assert same[0] == same[1]


def test_same_seed_same_p_values():
    first, again, other = (shuffle_test(world(2), n_permutations=99, seed=s) for s in (0, 0, 1))
    assert first == again != other


def test_scores_that_say_nothing_have_p_1_and_undefined_groups_none():
    made = world(0)
    constant = shuffle_test(made.with_scores(np.zeros_like(made.scores)), n_permutations=49, seed=0)
    assert set(constant.values()) == {1.0}
    scores = made.scores.copy()
    scores[:, 2] = np.nan
    found = shuffle_test(made.with_scores(scores), n_permutations=49, seed=0)
    assert np.isnan(found["C"]) and not np.isnan([found["A"], found["B"], found["macro"]]).any()
    nothing = shuffle_test(made.with_scores(np.full_like(scores, np.nan)), n_permutations=49, seed=0)
    assert np.isnan([*nothing.values()]).all()


def test_no_permutation_is_refused():
    with pytest.raises(InputError, match="n_permutations must be at least 1; got 0"):
        shuffle_test(world(0), n_permutations=0, seed=0)


def again(rows):
    """Reads anew with groups shuffled."""
    return lambda rng: read_out(*rows, shuffled=rng, seed=0)


class TestRefitted:
    @pytest.fixture(scope="class")
    def rows(self):
        """Vectors that hold group B strongly; 3 images a patient."""
        rng = np.random.default_rng(0)
        group = rng.choice(3, 120, p=[0.5, 0.3, 0.2])
        patient = np.repeat(np.arange(120), 3)
        vectors = rng.normal(size=(360, 5)).astype(np.float32)
        vectors[:, 0] += 3 * (group[patient] == 1)
        parts = (np.flatnonzero((patient % 4 == 0) if part == "test" else (patient % 4 == 1) if part == "validation"
                                else (patient % 4 > 1)) for part in ("train", "validation", "test"))  # fmt: skip
        attribute = Attribute("race", ("A", "B", "C"), True)
        return find_probe("logistic"), vectors, attribute, group[patient], patient.astype(str), (Fold(*parts),)

    def test_shuffled_attributes_are_read_by_chance_alone(self, rows):
        made = refitted(again(rows), n_shuffles=8, seed=0)
        assert [row["group"] for row in made] == ["A", "B", "C", "macro"]
        for row in made:
            assert row["control"] == "shuffled" and np.isnan(row["p_value"])
            assert 0.2 < row["low"] < row["auroc"] < row["high"] < 0.8
        assert str(made) == str(refitted(again(rows), n_shuffles=8, seed=0))  # as text: NaN equals nothing
        assert made[0]["auroc"] != refitted(again(rows), n_shuffles=8, seed=1)[0]["auroc"]

    def test_with_enough_refits_there_is_a_p_value(self, rows):
        observed = read_out(*rows, seed=0)
        few = refitted(again(rows), n_shuffles=MIN_REFITS - 1, seed=0, observed=observed)
        made = refitted(again(rows), n_shuffles=MIN_REFITS, seed=0, observed=observed)
        assert all(np.isnan(row["p_value"]) for row in few)
        assert made[1]["p_value"] == made[3]["p_value"] == 1 / 20

    def test_where_nothing_can_be_read_there_is_no_row(self, rows):
        probe, vectors, attribute, codes, patients, folds = rows
        assert refitted(again((probe, vectors, attribute, np.zeros_like(codes), patients, folds)), n_shuffles=2, seed=0) == []
        with pytest.raises(InputError, match="n_shuffles must be at least 1"):
            refitted(again(rows), n_shuffles=0, seed=0)
