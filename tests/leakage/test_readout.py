"""Rows are judged by fits that have not seen their patient, and shuffling moves patients, not images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from biascxr.errors import InputError
from biascxr.leakage import find_probe
from biascxr.leakage.logistic import Logistic
from biascxr.leakage.readout import group_codes, make_folds, read_out, shuffle_patients, standardise


def readout(cohort, embeddings, *, folds=1, probe="logistic", **options):
    attribute = cohort.attributes[0]
    codes = group_codes(cohort, attribute)
    patients = cohort.table["patient_id"].to_numpy(object)
    divided = make_folds(cohort, codes, folds, seed=0)
    return read_out(find_probe(probe), embeddings.vectors, attribute, codes, patients, divided, seed=0, **options)


@pytest.mark.parametrize("n_folds", [3, 5])
def test_folds_judge_every_row_once_and_part_no_patient(made_up, n_folds):
    cohort, _ = made_up()
    folds = make_folds(cohort, group_codes(cohort, cohort.attributes[0]), n_folds, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([f.test for f in folds])), np.arange(len(cohort)))
    patients = cohort.table["patient_id"].to_numpy(object)
    for fold in folds:
        parts = [set(patients[rows]) for rows in (fold.train, fold.validation, fold.test)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        assert sum(map(len, parts)) == len(set(patients))


def test_one_fold_is_the_cohorts_own_split(made_up):
    cohort, _ = made_up()
    (fold,) = make_folds(cohort, np.zeros(len(cohort), int), 1, seed=0)
    for rows, split in ((fold.train, "train"), (fold.validation, "validation"), (fold.test, "test")):
        np.testing.assert_array_equal(rows, cohort.split_rows(split))


def test_two_folds_are_refused_with_the_reason(made_up):
    cohort, _ = made_up()
    with pytest.raises(InputError, match="from 3 to the number of patients, 300"):
        make_folds(cohort, np.zeros(len(cohort), int), 2, seed=0)


def test_rows_of_an_unknown_group_are_neither_learned_from_nor_judged(made_up):
    cohort, embeddings = made_up()
    found = readout(cohort, embeddings)
    known = cohort.table["race"] != "unknown"
    np.testing.assert_array_equal(found.rows, np.flatnonzero((cohort.table["split"] == "test") & known))
    moved = embeddings.vectors.copy()
    moved[(~known & (cohort.table["split"] == "test")).to_numpy()] = 1e6
    again = readout(cohort, replace(embeddings, vectors=moved))
    np.testing.assert_array_equal(found.scores, again.scores)


def test_test_rows_change_no_other_row_s_score_and_no_setting(made_up):
    cohort, embeddings = made_up()
    found = readout(cohort, embeddings)
    moved = embeddings.vectors.copy()
    moved[found.rows[0]] += 100
    again = readout(cohort, replace(embeddings, vectors=moved))
    np.testing.assert_allclose(found.scores[1:], again.scores[1:], atol=1e-6)
    assert found.settings == again.settings and not np.allclose(found.scores[0], again.scores[0])


def test_folds_rank_as_well_as_the_split(made_up):
    cohort, embeddings = made_up()
    found = readout(cohort, embeddings, folds=5)
    assert len(found) == (cohort.table["race"] != "unknown").sum() and set(found.fold) == set(range(5))
    assert found.validation_auroc == pytest.approx(readout(cohort, embeddings).validation_auroc, abs=0.1)


def test_given_settings_are_used_and_not_chosen_again(made_up):
    found = readout(*made_up(), settings={0: 0.0001})
    assert found.settings == {0: 0.0001} and found.setting == "C = 0.0001"


def test_a_shuffled_readout_holds_the_shuffled_groups(made_up):
    cohort, embeddings = made_up()
    found, shuffled = readout(cohort, embeddings), readout(cohort, embeddings, shuffled=np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(found.codes), np.bincount(shuffled.codes))
    assert (found.codes != shuffled.codes).any()


def test_over_folds_a_patient_is_learned_from_and_judged_with_one_shuffled_group(made_up, monkeypatch):
    """Shuffled anew in each fold, the folds' AUROCs would lose what they have in common, and p-values be too small."""
    seen: dict[str, set[int]] = {}
    read = Logistic.read

    def spy(self, train, parts, **options):
        for patient, code in zip(train.patient_id, train.codes, strict=True):
            seen.setdefault(patient, set()).add(int(code))
        return read(self, train, parts, **options)

    monkeypatch.setattr(Logistic, "read", spy)
    found = readout(*made_up(), folds=4, shuffled=np.random.default_rng(0))
    for patient, code in zip(found.patient_id, found.codes, strict=True):
        seen[patient].add(int(code))
    assert len(seen) > 200 and all(len(codes) == 1 for codes in seen.values())
    true = readout(*made_up(), folds=4)
    assert (true.codes != found.codes).any()
    for fold in range(4):
        np.testing.assert_array_equal(np.bincount(true.codes[true.fold == fold]), np.bincount(found.codes[found.fold == fold]))


def test_kept_vectors_give_the_same_scores(made_up):
    kept: dict = {}
    first = readout(*made_up(), standardised=kept)
    assert set(kept) == {0}
    np.testing.assert_array_equal(first.scores, readout(*made_up(), standardised=kept).scores)


def test_one_group_in_train_is_no_readout(made_up):
    cohort, embeddings = made_up()
    table = cohort.table.assign(race=np.where(cohort.table["split"] == "train", "A", cohort.table["race"]))
    assert readout(replace(cohort, table=table), embeddings) is None


def test_standardising_is_by_the_training_rows_and_constant_columns_become_zero():
    rng = np.random.default_rng(0)
    vectors = np.column_stack([rng.normal(5, 3, 50), np.full(50, 1e6) + rng.normal(0, 1e-3, 50)]).astype(np.float32)
    train = np.arange(30)
    own, other = standardise(vectors, train, [train, np.arange(30, 50)])
    assert own[:, 0].mean() == pytest.approx(0, abs=1e-5) and own[:, 0].std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(other[:, 0], (vectors[30:, 0] - vectors[train, 0].mean()) / vectors[train, 0].std(), rtol=1e-4)
    assert not own[:, 1].any()


def test_shuffling_keeps_the_images_of_a_patient_together_and_the_groups_as_large():
    patients = np.repeat([f"p{i}" for i in range(30)], 3)[np.random.default_rng(0).permutation(90)]
    codes = np.array([int(p[1:]) % 3 for p in patients])
    shuffled = shuffle_patients(codes, patients, np.random.default_rng(0))
    assert all(len(set(shuffled[patients == p])) == 1 for p in set(patients))
    np.testing.assert_array_equal(np.bincount(shuffled), np.bincount(codes))
    assert (shuffled != codes).any()
