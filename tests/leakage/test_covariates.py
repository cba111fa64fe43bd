"""Covariates hold what is known without the image, say what is not known, and never hold the attribute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from biascxr.containers import Attribute, Cohort
from biascxr.leakage.covariates import covariate_vectors

RACE, SEX = Attribute("race", ("A", "B"), True), Attribute("sex", ("F", "M"), True)
VIEW, AGE_GROUP = Attribute("view", ("AP", "PA"), False), Attribute("age_group", ("0-40", "40+"), False)
N = 300


def cohort(**columns) -> Cohort:
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, N).round()
    age[:30] = np.nan
    labels = (rng.random((N, 2)) < 0.3).astype(np.float32)
    labels[:60, 1] = np.nan
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(N)], "study_id": "s", "patient_id": [f"p{i}" for i in range(N)],
            "path": "x.jpg", "split": "test", "age": age, "view": rng.choice(["PA", "AP", "LL"], N, p=[0.6, 0.3, 0.1]),
            "race": rng.choice(["A", "B"], N), "sex": rng.choice(["F", "M", "unknown"], N, p=[0.6, 0.3, 0.1]),
            "age_group": np.where(np.isnan(age), "unknown", np.where(age < 40, "0-40", "40+")), **columns,
        }
    )  # fmt: skip
    return Cohort(table, labels, ("Edema", "Pneumonia"), (RACE, SEX), "generic", "image", ".")


def test_columns_are_age_sex_view_and_labels_with_flags_where_something_is_not_known():
    made = covariate_vectors(cohort(), RACE)
    assert made.names == (
        "age", "age not known", "age squared", "sex M", "sex unknown", "view AP", "view LL", "Edema", "Pneumonia",
        "Pneumonia not known",
    )  # fmt: skip
    assert made.vectors.shape == (N, 10) and made.vectors.dtype == np.float32 and np.isfinite(made.vectors).all()
    column = dict(zip(made.names, made.vectors.T, strict=True))
    table = cohort().table
    known = table["age"].notna().to_numpy()
    age = table["age"][known]
    np.testing.assert_allclose(column["age"][known], (age - age.mean()) / age.std(ddof=0), rtol=1e-5, atol=1e-6)
    assert np.allclose(column["age"][~known], 0, atol=1e-6) and (column["age not known"] == ~known).all()
    assert (column["view AP"] == (table["view"] == "AP")).all()
    labels = cohort().labels[:, 1]
    np.testing.assert_allclose(column["Pneumonia"][:60], np.nanmean(labels), rtol=1e-5)
    assert (column["Pneumonia not known"] == np.isnan(labels)).all()


def test_every_column_is_of_a_fact_and_whether_something_is_known_is_one_of_its_own():
    made = covariate_vectors(cohort(), RACE)
    assert made.facts == (
        "age", "whether age is known", "age", "sex", "sex", "view", "view", "Edema", "Pneumonia", "whether Pneumonia is known",
    )  # fmt: skip
    np.testing.assert_array_equal(made.of_fact("age"), made.vectors[:, [0, 2]])
    named = replace(cohort(), label_names=("view", "Pneumonia"))  # a finding of that name takes no other column's place
    assert covariate_vectors(named, RACE).vectors.shape == made.vectors.shape


def test_neither_the_attribute_nor_what_it_is_made_of_is_a_column():
    for attribute, word in (
        (SEX, "sex"),
        (VIEW, "view"),
        (AGE_GROUP, "age"),
        (Attribute("portable", ("a", "b"), False), "port"),
    ):
        made = covariate_vectors(cohort(portable=np.resize(["portable", "fixed", "fixed"], N)), attribute)
        assert not [name for name in made.names if name.startswith(word)]
        others = {"sex", "view", "age", "port"} - {word}
        assert all(any(name.startswith(other) for name in made.names) for other in others)


def test_rare_views_share_a_column_and_columns_that_do_not_vary_are_left_out():
    rare = np.where(np.arange(N) < 9, [f"odd {i % 3}" for i in range(N)], np.resize(["PA", "AP", "AP"], N))
    made = covariate_vectors(cohort(view=rare, sex="F", age=50.0), RACE)
    assert made.names == ("view PA", "view other", "Edema", "Pneumonia", "Pneumonia not known")
    assert made.vectors[:, 1].sum() == 9


def test_a_cohort_that_knows_nothing_has_no_columns():
    nothing = cohort(view="unknown", sex="unknown", age=np.nan)
    empty = Cohort(nothing.table, np.full((N, 2), np.nan, np.float32), nothing.label_names, (RACE,), "generic", "image", ".")
    made = covariate_vectors(empty, RACE)
    assert made.vectors.shape == (N, 0) and made.names == ()
