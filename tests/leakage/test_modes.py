"""Groups that differ along a leading mode are told apart there, groups that do not are not; the patient counts once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.decomposition import PCA
from statsmodels.stats.multitest import multipletests

from biascxr.containers import Attribute, Cohort
from biascxr.leakage.modes import compare_modes, groupings, leading_modes


def world(n_patients: int = 1200, *, films=lambda rng, sex, n: np.full(n, 2), shift: float = 0.0, seed: int = 0):
    """Sex moves the second of three modes by `shift`; a finding moves the first; half of a film's variance is the patient's."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["F", "M"], n_patients)
    patient = np.repeat(np.arange(n_patients), films(rng, sex, n_patients))
    n = len(patient)
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)], "study_id": "s", "patient_id": [f"p{p}" for p in patient], "path": "x",
            "view": "PA", "age": 50.0, "sex": sex[patient],
            "split": rng.choice(["train", "test"], n_patients)[patient],
        }
    )  # fmt: skip
    label = (rng.random(n) < 0.3).astype(np.float32)
    vectors = np.sqrt(0.5) * (rng.normal(size=(n, 3)) + rng.normal(size=(n_patients, 3))[patient])
    vectors[:, 1] += shift * (table["sex"] == "F")
    vectors[:, 0] += label
    vectors = vectors * [9, 3, 1]
    cohort = Cohort(table, label[:, None], ("finding",), (Attribute("sex", ("F", "M"), True),), "x", "image", ".")
    return cohort, vectors.astype(np.float32)


def frame(*args, **more) -> pd.DataFrame:
    return pd.DataFrame(compare_modes(*args, **more)).set_index(["by", "group", "mode"])


def test_a_planted_difference_is_found_in_its_mode_and_nowhere_else():
    found = frame(*world(shift=0.6))
    assert found.loc[("sex", "F", 2), "p_adjusted"] < 1e-6
    assert found.loc[("finding", "positive", 1), "p_adjusted"] < 1e-6
    others = found.drop([("sex", "F", 2), ("sex", "M", 2), ("finding", "positive", 1)])
    assert (others["p_adjusted"] > 0.05).all()
    assert set(found.loc["finding"].index.get_level_values("group")) == {"positive"}


def test_statistics_are_those_of_scipy_on_the_means_of_patients_and_of_statsmodels():
    cohort, vectors = world(300, shift=0.3)
    found = frame(cohort, vectors, films="mean")
    pca = PCA(3).fit(vectors[cohort.split_rows("train")])
    test = cohort.table["split"] == "test"
    points = pd.DataFrame(pca.transform(vectors[test])).groupby(cohort.table["patient_id"][test].to_numpy()).mean()
    is_f = cohort.table[test].groupby("patient_id")["sex"].first().loc[points.index] == "F"
    is_positive = pd.Series(cohort.labels[test, 0]).groupby(cohort.table["patient_id"][test].to_numpy()).max() == 1
    for by, group, chosen in (("sex", "F", is_f), ("finding", "positive", is_positive)):
        for mode in range(3):
            expected = stats.ks_2samp(points[mode][chosen.to_numpy()], points[mode][~chosen.to_numpy()])
            own = found.loc[(by, group, mode + 1)]
            assert (own["ks"], own["p_value"]) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-6)
            assert own["explained"] == pytest.approx(pca.explained_variance_ratio_[mode])
            assert (own["n"], own["n_patients"]) == (len(points), chosen.sum())
    assert found["p_adjusted"].to_numpy() == pytest.approx(multipletests(found["p_value"], method="fdr_by")[1])


def test_modes_are_those_of_scikit_learn_up_to_their_sign():
    cohort, vectors = world(200)
    train = cohort.split_rows("train")
    modes, pca = leading_modes(vectors, train, n_modes=2), PCA(2).fit(vectors[train])
    assert np.abs((modes.axes * pca.components_.T).sum(0)) == pytest.approx([1, 1])


def test_one_film_a_patient_does_not_tell_groups_apart_by_their_numbers_of_films_and_their_means_do():
    """Sex moves nothing; men have 9 films, women one."""

    def films(rng, sex, n):
        return np.where(sex == "M", 9, 1)

    is_told_apart = {"one": [], "mean": []}
    for seed in range(20):
        cohort, vectors = world(2000, films=films, seed=seed)
        for kind, found in is_told_apart.items():
            found.append(frame(cohort, vectors, films=kind, seed=seed).loc[("sex", "F", 2), "p_value"] < 0.05)
    assert np.mean(is_told_apart["one"]) <= 0.15
    assert np.mean(is_told_apart["mean"]) >= 0.4


def test_the_film_drawn_of_a_positive_patient_is_a_positive_one():
    cohort, vectors = world(600, films=lambda rng, sex, n: np.full(n, 5))
    vectors[:, 0] += 100 * cohort.labels[:, 0]
    rare = replace(cohort, labels=cohort.labels * (np.arange(len(cohort)) % 5 == 0)[:, None])
    vectors[:, 0] -= 100 * (cohort.labels - rare.labels)[:, 0]
    assert frame(rare, vectors, films="one").loc[("finding", "positive", 1), "ks"] == pytest.approx(1)


def test_a_patient_is_positive_with_any_positive_film_and_of_the_first_group_that_is_known():
    cohort, _ = world(3)
    table = cohort.table.assign(age_group=["unknown", "old", "old", "young", "unknown", "unknown"])
    labels = np.array([0, 1, 0, np.nan, np.nan, np.nan], np.float32)[:, None]
    age = Attribute("age_group", ("young", "old"), False)
    cohort = replace(cohort, table=table, labels=labels, attributes=(age,))
    by = {g.by: g.of_patients(np.arange(6), np.arange(6) // 2).tolist() for g in groupings(cohort)}
    assert by == {"age_group": [1, 1, -1], "finding": [1, 0, -1]}


def test_a_group_of_one_patient_is_not_tested():
    cohort, vectors = world(60)
    lonely = cohort.table["patient_id"] == cohort.table["patient_id"][cohort.split_rows("test")[0]]
    table = cohort.table.assign(sex=np.where(lonely, "M", "F"))
    found = frame(replace(cohort, table=table), vectors)
    assert found.loc[("sex", "M", 1), ["ks", "p_value", "p_adjusted"]].isna().all()
    assert found.loc[("sex", "M", 1), "n_patients"] == 1
    assert np.isfinite(found.loc[("finding", "positive", 1), "p_adjusted"])
