"""Table 1 counts patients as patients and images as images; the tableone library is the oracle where it can be asked.

The library knows one unit per table, so it is asked twice: over patients, and over images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tableone import TableOne

from biascxr.cohort.table_one import AS_READ, IMAGES, IN_SEVERAL, PATIENTS, table_one
from biascxr.containers import Attribute, Cohort
from biascxr.errors import InputError

SPLITS = ("train", "validation", "calibration", "test")
SEX, RACE, AGE_GROUP = (
    Attribute("sex", ("F", "M"), True),
    Attribute("race", ("WHITE", "BLACK", "ASIAN"), True),
    Attribute("age_group", ("under 60", "60+"), False),
)
UNKNOWN_RACE = {"blank": 40, "declined to answer": 3}


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """300 patients with 1 to 6 images; some ages, sexes, races and labels are missing."""
    rng = np.random.default_rng(5)
    m = 300
    patient = np.repeat(np.arange(m), rng.integers(1, 7, m))
    n = len(patient)
    age = rng.normal(58, 15, m)[patient].clip(1, 100)
    age[rng.random(m)[patient] < 0.1] = np.nan
    recorded = rng.choice([0.0, 1.0, -1.0, np.nan], (n, 2), p=[0.5, 0.2, 0.1, 0.2]).astype(np.float32)
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)],
            "study_id": [f"s{i}" for i in range(n)],
            "patient_id": [f"p{i}" for i in patient],
            "path": "x.jpg",
            "view": rng.choice(["AP", "PA", ""], n, p=[0.5, 0.4, 0.1]),
            "split": rng.choice(SPLITS, m)[patient],
            "age": age,
            "sex": rng.choice(["F", "M", "unknown"], m, p=[0.5, 0.4, 0.1])[patient],
            "race": rng.choice(["WHITE", "BLACK", "ASIAN", "unknown"], m, p=[0.5, 0.2, 0.2, 0.1])[patient],
            "age_group": rng.choice(["under 60", "60+"], n),
        }
    )
    labels = np.where(recorded == -1, np.nan, np.nan_to_num(recorded)).astype(np.float32)
    accounting = {"unknown": {"race": UNKNOWN_RACE}}
    return Cohort(
        table, labels, ("Edema", "Fracture"), (SEX, RACE, AGE_GROUP), "generic", "image", Path("/"), accounting, recorded
    )


def cells(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index(["variable", "level", "statistic"]).sort_index()


def per_patient(cohort: Cohort) -> pd.DataFrame:
    """One row per patient; here an attribute and the age stay the same in all images of a patient."""
    return cohort.table.drop_duplicates("patient_id")


def counted(text: str) -> tuple[float, float]:
    """Reads `"12 (34.5)"`."""
    first, second = text.split(" (")
    return float(first.replace(",", "")), float(second.rstrip(")"))


@pytest.mark.parametrize("by", ["split", "race"])
def test_patients_and_ages_are_those_of_tableone(cohort, by):
    own = cells(table_one(cohort, by=None if by == "split" else by))
    frame = per_patient(cohort)[["age", "sex", by]]
    oracle = TableOne(frame, columns=["age", "sex"], categorical=["sex"], groupby=by, decimals=8).tableone
    oracle.columns = oracle.columns.droplevel(0)
    for column in frame[by].unique():
        mean, spread = counted(oracle.loc[("age, mean (SD)", ""), column])
        assert own.loc[("age", "", "mean"), column] == pytest.approx(mean, abs=1e-6)
        assert own.loc[("age", "", "sd"), column] == pytest.approx(spread, abs=1e-6)
        for level in ("F", "M", "unknown"):
            n, percent = counted(oracle.loc[("sex, n (%)", level), column])
            assert own.loc[("sex", level, "n"), column] == n
            assert 100 * own.loc[("sex", level, "share"), column] == pytest.approx(percent, abs=1e-6)
    assert own.loc[("age", "unknown", "n"), "overall"] == int(oracle.loc[("age, mean (SD)", ""), "Missing"])


def test_labels_as_recorded_are_those_of_tableone_over_images(cohort):
    kinds = {1.0: "positive", 0.0: "negative", -1.0: "uncertain"}
    text = [[kinds.get(float(v), "blank") for v in row] for row in cohort.recorded]
    frame = pd.DataFrame(text, columns=["Edema", "Fracture"]).assign(split=cohort.table["split"])
    columns = ["Edema", "Fracture"]
    oracle = TableOne(frame, columns=columns, categorical=columns, groupby="split", decimals=8).tableone
    oracle.columns = oracle.columns.droplevel(0)
    own = cells(table_one(cohort))
    for label in columns:
        for level in (*kinds.values(), "blank"):
            for split in SPLITS:
                n, percent = counted(oracle.loc[(f"{label}, n (%)", level), split])
                assert own.loc[(label, level, "n"), split] == n
                assert 100 * own.loc[(label, level, "share"), split] == pytest.approx(percent, abs=1e-6)


def test_differences_from_everyone_else_are_those_of_tableone_on_two_sides(cohort):
    own = cells(table_one(cohort, by="race"))
    patients = per_patient(cohort).query("race != 'unknown'")
    images = cohort.table.assign(positive=cohort.recorded[:, 0] == 1).query("race != 'unknown'")
    for group in RACE.groups:
        for key, frame, column in (
            (("age", "", "mean"), patients, "age"),
            (("sex", "F", "share"), patients.assign(is_woman=patients["sex"] == "F"), "is_woman"),
            (("Edema", "positive", "share"), images, "positive"),
        ):
            # "0" sorts before "1"; the library takes the second side minus the first.
            sides = frame[[column]].assign(side=np.where(frame["race"] == group, "1", "0"))
            categorical = [] if column == "age" else [column]
            oracle = TableOne(sides, columns=[column], categorical=categorical, groupby="side", smd=True).tableone
            expected = float(oracle[("Grouped by side", "SMD (0,1)")].replace("", np.nan).dropna().iloc[0])
            found = own.loc[key, f"smd {group}"]
            # Of what is yes or no the library gives the size alone.
            assert (found if column == "age" else abs(found)) == pytest.approx(expected, abs=6e-4)


def test_a_patient_with_many_images_counts_once(cohort):
    own = cells(table_one(cohort))
    again = cohort.table.assign(image_id="again" + cohort.table["image_id"])
    twice = Cohort(
        pd.concat([cohort.table, again], ignore_index=True), np.vstack([cohort.labels] * 2), cohort.label_names,
        cohort.attributes, "generic", "image", Path("/"), cohort.accounting, np.vstack([cohort.recorded] * 2),
    )  # fmt: skip
    doubled = cells(table_one(twice))
    is_patients = own["unit"].isin([PATIENTS, IN_SEVERAL]).to_numpy()
    pd.testing.assert_frame_equal(doubled[is_patients], own[is_patients])
    n_images = (own["unit"] == IMAGES).to_numpy() & (own.index.get_level_values("statistic") == "n")
    np.testing.assert_array_equal(doubled[n_images]["overall"], 2 * own[n_images]["overall"])


def test_what_is_missing_has_its_own_row_and_everything_adds_up(cohort):
    table = table_one(cohort)
    own = cells(table)
    columns = ["overall", *SPLITS]
    counts = table[(table["statistic"] == "n") & (table["unit"] != AS_READ)]
    for variable, total in [("sex", "patients"), ("race", "patients"), ("view", "images"), ("Edema", "images")]:
        added = counts[counts["variable"] == variable][columns].sum()
        assert added.tolist() == own.loc[(total, "", "n"), columns].tolist(), variable
    assert own.loc[("race", "unknown", "n"), "overall"] == (per_patient(cohort)["race"] == "unknown").sum() > 0
    assert own.loc[("view", "unknown", "n"), "overall"] == (cohort.table["view"] == "").sum() > 0


def test_why_a_race_is_unknown_stands_under_it_and_says_what_it_counts(cohort):
    table = table_one(cohort)
    reasons = table[table["unit"] == AS_READ]
    assert dict(zip(reasons["level"], reasons["overall"], strict=True)) == {f"unknown: {r}": n for r, n in UNKNOWN_RACE.items()}
    assert reasons[list(SPLITS)].isna().all(axis=None)
    above = table.loc[reasons.index[0] - 1]
    assert (above["variable"], above["level"]) == ("race", "unknown")


def test_a_patient_whose_group_changes_is_in_each_and_the_table_says_so(cohort):
    own = cells(table_one(cohort))
    in_groups = own.loc[("age_group", "under 60", "n"), "overall"] + own.loc[("age_group", "60+", "n"), "overall"]
    assert in_groups > own.loc[("patients", "", "n"), "overall"]
    assert own.loc[("age_group", "60+", "n"), "unit"] == IN_SEVERAL
    assert own.loc[("sex", "F", "n"), "unit"] == PATIENTS


def test_the_grouping_attribute_has_columns_and_no_rows(cohort):
    table = table_one(cohort, by="race")
    assert list(table.columns[4:]) == ["overall", *RACE.groups, "unknown", *(f"smd {g}" for g in RACE.groups)]
    assert "race" not in set(table["variable"])


def test_an_unknown_attribute_is_named_with_the_nearest(cohort):
    with pytest.raises(InputError, match=r"rase.*race"):
        table_one(cohort, by="rase")
