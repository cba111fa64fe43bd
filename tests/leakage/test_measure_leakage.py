"""A planted signal is read from the vectors; a shuffled or an absent one is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from biascxr.config import AuditConfig, LeakageConfig
from biascxr.containers import Attribute, Cohort, EmbeddingSet
from biascxr.errors import InputError
from biascxr.leakage import PROBES, find_probe, measure_leakage
from biascxr.leakage.build import _shuffle_patients

AUDIT = AuditConfig(n_replicates=200)
N = 900


def made_up(seed: int = 0, *, strength: float = 2.0, identity: float = 0.0) -> tuple[Cohort, EmbeddingSet]:
    """Three images a patient; race moves the first column by `strength`, sex moves nothing; 8 % unknown.

    `identity` is the size of a patient's own fingerprint in the vectors.
    """
    rng = np.random.default_rng(seed)
    patient = np.arange(N) // 3
    race = rng.choice(["A", "B", "C", "unknown"], N // 3, p=[0.5, 0.27, 0.15, 0.08])[patient]
    sex = rng.choice(["F", "M"], N // 3)[patient]
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(N)], "study_id": "s", "patient_id": [f"p{p}" for p in patient],
            "path": "x.jpg", "view": "PA", "age": 50.0, "race": race, "sex": sex,
            "split": rng.choice(["train", "validation", "test"], N // 3, p=[0.6, 0.1, 0.3])[patient],
        }
    )  # fmt: skip
    vectors = rng.normal(size=(N, 6)) + identity * rng.normal(size=(N // 3, 6))[patient]
    vectors[:, 0] += strength * (race == "B") - strength * (race == "C")
    attributes = (Attribute("race", ("A", "B", "C"), True), Attribute("sex", ("F", "M"), True))
    cohort = Cohort(table, np.zeros((N, 1), np.float32), ("x",), attributes, "generic", "image", ".")
    ids = table["image_id"].to_numpy(object)
    return cohort, EmbeddingSet(ids, np.zeros(N, np.int32), vectors.astype(np.float32), {})


@pytest.fixture(scope="module")
def table():
    return measure_leakage(*made_up(), LeakageConfig(), AUDIT, seed=0)


def row(table: pd.DataFrame, attribute: str, probe: str, group: str = "macro", *, control: bool = False) -> pd.Series:
    found = table.query("attribute == @attribute and probe == @probe and group == @group and is_control == @control")
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("probe", PROBES)
def test_a_planted_signal_is_found_above_its_shuffled_control(table, probe):
    real, control = row(table, "race", probe), row(table, "race", probe, control=True)
    assert real["auroc"] > 0.75 and real["low"] > control["high"]
    assert row(table, "race", probe, "C")["auroc"] > 0.8


@pytest.mark.parametrize("probe", PROBES)
def test_an_absent_signal_is_not_found(table, probe):
    real = row(table, "sex", probe)
    assert real["low"] < 0.5 < real["high"]


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("attribute", ["race", "sex"])
def test_the_shuffled_control_stands_around_one_half(table, attribute, probe):
    control = row(table, attribute, probe, control=True)
    assert abs(control["auroc"] - 0.5) < 0.05
    assert 0.4 < control["low"] <= control["auroc"] <= control["high"] < 0.6


def test_the_control_stays_around_one_half_where_the_attribute_is_strongly_encoded():
    """Were only train shuffled, a probe's chance direction would part the true test groups: AUROC from .1 to .9."""
    config = LeakageConfig(probes=("logistic",), n_shuffles=20)
    made = measure_leakage(*made_up(strength=3.0), config, AUDIT, seed=0)
    for group in ("A", "B", "C", "macro"):
        control = row(made, "race", "logistic", group, control=True)
        assert 0.3 < control["low"] < 0.5 < control["high"] < 0.7


@pytest.mark.parametrize("probe", PROBES)
def test_a_shuffled_attribute_is_not_read_even_when_patients_can_be_recognised(probe):
    """Every patient's images look alike here. Patients never straddle the split, so recognising one reads nothing."""
    cohort, embeddings = made_up(3, strength=0.0, identity=5.0)
    made = measure_leakage(cohort, embeddings, LeakageConfig(probes=(probe,)), AUDIT, seed=0)
    for attribute in ("race", "sex"):
        real = row(made, attribute, probe)
        assert real["low"] < 0.5 < real["high"]


def test_one_vs_rest_aurocs_are_scikit_learns(table):
    cohort, embeddings = made_up()
    known = (cohort.table["race"] != "unknown").to_numpy()
    train, test = ((cohort.table["split"] == s).to_numpy() & known for s in ("train", "test"))
    every = (cohort.table["split"] == "train").to_numpy()
    scaled = (embeddings.vectors - embeddings.vectors[every].mean(0)) / embeddings.vectors[every].std(0)
    race = cohort.table["race"].to_numpy(object).astype(str)
    peer = KNeighborsClassifier(5).fit(scaled[train], race[train]).predict_proba(scaled[test])
    aurocs = [roc_auc_score(race[test] == g, peer[:, i]) for i, g in enumerate("ABC")]
    for group, value in zip("ABC", aurocs, strict=True):
        assert row(table, "race", "knn", group)["auroc"] == pytest.approx(value, abs=1e-3)
    assert row(table, "race", "knn")["auroc"] == pytest.approx(np.mean(aurocs), abs=1e-3)


def test_rows_with_an_unknown_attribute_are_left_out(table):
    cohort, embeddings = made_up()
    in_test = cohort.table[cohort.table["split"] == "test"]
    assert (in_test["race"] == "unknown").any()
    found = row(table, "race", "logistic", "B")
    assert found["n"] == (in_test["race"] != "unknown").sum() and found["n_group"] == (in_test["race"] == "B").sum()
    moved = embeddings.vectors.copy()
    moved[(cohort.table["race"] == "unknown").to_numpy()] += 0.5  # moves mean and scale a little, and no row that is used
    again = measure_leakage(cohort, replace(embeddings, vectors=moved), LeakageConfig(), AUDIT, seed=0)
    assert row(again, "race", "logistic", "B")["auroc"] == pytest.approx(found["auroc"], abs=0.01)


def test_validation_and_calibration_rows_are_not_used(table):
    cohort, embeddings = made_up()
    changed = embeddings.vectors.copy()
    changed[(cohort.table["split"] == "validation").to_numpy()] = 1e6
    again = measure_leakage(cohort, replace(embeddings, vectors=changed), LeakageConfig(), AUDIT, seed=0)
    pd.testing.assert_frame_equal(table, again)


def test_shuffling_keeps_the_images_of_a_patient_together_and_the_groups_as_large():
    patients = np.repeat([f"p{i}" for i in range(30)], 3)[np.random.default_rng(0).permutation(90)]
    codes = np.array([int(p[1:]) % 3 for p in patients])
    shuffled = _shuffle_patients(codes, patients, np.random.default_rng(0))
    assert all(len(set(shuffled[patients == p])) == 1 for p in set(patients))
    np.testing.assert_array_equal(np.bincount(shuffled), np.bincount(codes))
    assert (shuffled != codes).any()


def test_same_seed_same_table_and_another_seed_other_intervals(table):
    config = LeakageConfig(probes=("knn",))
    again, other = (measure_leakage(*made_up(), config, AUDIT, seed=s) for s in (0, 1))
    of_knn = table[table["probe"] == "knn"].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_knn, again)
    assert row(table, "race", "knn")["auroc"] == row(other, "race", "knn")["auroc"]
    assert row(table, "race", "knn")["low"] != row(other, "race", "knn")["low"]


def test_a_group_that_training_lacks_is_undefined_and_not_one_half():
    cohort, embeddings = made_up()
    lacking = (cohort.table["race"] == "C") & (cohort.table["split"] == "train")
    cohort.table.loc[lacking, "race"] = "unknown"
    made = measure_leakage(cohort, embeddings, LeakageConfig(probes=("knn",)), AUDIT, seed=0)
    missing = row(made, "race", "knn", "C")
    assert np.isnan(missing["auroc"]) and missing["n_group"] > 0
    assert row(made, "race", "knn")["auroc"] == pytest.approx(np.mean([row(made, "race", "knn", g)["auroc"] for g in "AB"]))


def test_an_attribute_with_one_group_in_train_is_left_out_and_the_table_keeps_its_columns():
    cohort, embeddings = made_up()
    cohort.table.loc[cohort.table["split"] == "train", ["race", "sex"]] = ["A", "F"]
    made = measure_leakage(cohort, embeddings, LeakageConfig(), AUDIT, seed=0)
    assert len(made) == 0 and {"attribute", "probe", "is_control", "group", "auroc"} <= set(made)


def test_constant_and_nearly_constant_columns_do_no_harm(table):
    cohort, embeddings = made_up()
    noise = np.float32(1000) + np.random.default_rng(0).choice([0, 6e-5], (N, 40)).astype(np.float32)
    more = np.c_[embeddings.vectors, np.zeros((N, 1)), noise].astype(np.float32)
    again = measure_leakage(cohort, replace(embeddings, vectors=more), LeakageConfig(), AUDIT, seed=0)
    np.testing.assert_allclose(again["auroc"], table["auroc"], atol=1e-3)


class TestProbes:
    @pytest.mark.parametrize("name", PROBES)
    @pytest.mark.parametrize("d", [16, 1376])
    def test_a_probe_gives_a_probability_per_group_the_same_for_the_same_seed(self, name, d):
        rng = np.random.default_rng(0)
        train, codes, test = rng.normal(size=(30, d)), np.arange(30) % 3, rng.normal(size=(7, d))
        first, again = (find_probe(name).fit_predict(train, codes, test, seed=0) for _ in range(2))
        assert first.shape == (7, 3) and ((first >= 0) & (first <= 1)).all()
        np.testing.assert_allclose(first.sum(1), 1)
        np.testing.assert_array_equal(first, again)

    @pytest.mark.parametrize("name", PROBES)
    def test_a_probe_has_its_names(self, name):
        probe = find_probe(name)
        assert probe.name == name and probe.title and type(probe).__doc__

    def test_knn_with_fewer_rows_than_neighbours(self):
        scores = find_probe("knn").fit_predict(np.eye(3), np.array([0, 1, 1]), np.eye(3), seed=0)
        np.testing.assert_allclose(scores, [[1 / 3, 2 / 3]] * 3)

    def test_an_unknown_probe_gets_the_nearest_name(self):
        with pytest.raises(InputError, match=r"Unknown probe 'logistik'\. Did you mean 'logistic'\?"):
            find_probe("logistik")
