"""Splits drawn at random pass, splits that differ are named; small groups are named without their size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biascxr.cohort.contract import Evidence
from biascxr.cohort.contract.groups import small_group, split_mix
from biascxr.cohort.split import draw_patients
from biascxr.config import SPLITS
from biascxr.containers import Attribute, Cohort

SHARES = (0.6, 0.1, 0.1, 0.2)
GROUPS = ("WHITE", "BLACK", "ASIAN", "OTHER", "NATIVE")
ATTRIBUTES = (
    Attribute("sex", ("F", "M"), True),
    Attribute("race", GROUPS, True),
    Attribute("age_group", ("0-40", "40-60", "60+"), False),
)


def made_up(seed: int, *, m: int = 1000, draw=None) -> Cohort:
    """Patients with 1 to 5 images, some of unknown race; the split is drawn at random, or by `draw(table, rng)`."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(m), rng.integers(1, 6, m))
    n = len(patient)
    race = rng.choice([*GROUPS, "unknown"], m, p=[0.6, 0.15, 0.05, 0.05, 0.004, 0.146])
    age = rng.normal(55, 15, m)[patient] + rng.uniform(0, 8, n)
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)], "study_id": [f"s{i}" for i in range(n)],
            "patient_id": [f"p{p}" for p in patient], "path": "x.png", "view": "PA", "age": age,
            "sex": rng.choice(["F", "M"], m)[patient], "race": race[patient],
            "age_group": np.array(["0-40", "40-60", "60+"])[np.digitize(age, [40, 60])],
        }
    )  # fmt: skip
    labels = (rng.random((n, 1)) < 0.2).astype(np.float32)
    table["split"] = rng.choice(SPLITS, m, p=SHARES)[patient] if draw is None else draw(table, labels, seed)
    return Cohort(table, labels, ("Edema",), ATTRIBUTES, "generic", "image", "/")


def stratified(table, labels, seed):
    return table["patient_id"].map(draw_patients(table, labels, ("sex", "race", "age_group"), SHARES, seed)).to_numpy(object)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [None, stratified], ids=["at random", "stratified"])
def test_random_splits_are_seldom_called_uneven(draw):
    """200 draws: at most two may be warned of."""
    warned = sum(len(split_mix(Evidence(cohort=made_up(seed, draw=draw)))) for seed in range(200))
    assert warned <= 2


def test_a_difference_of_many_patients_is_found_and_named():
    """Of a test part half of white patients are moved to train: their share falls from six to four of ten."""
    cohort = made_up(0, m=4000)
    patients = cohort.table["patient_id"].str[1:].astype(int)
    moved = (cohort.table["split"] == "test") & (cohort.table["race"] == "WHITE") & (patients % 2 == 0)
    table = cohort.table.assign(split=cohort.table["split"].mask(moved, "train"))
    (found,) = split_mix(Evidence(cohort=replace(cohort, table=table)))
    assert found.count == 1 and not found.is_error
    known = table[table["race"] != "unknown"].drop_duplicates("patient_id")
    share = (known["race"] == "WHITE").groupby(known["split"] == "test").mean()
    assert f"race (WHITE in test: {share[True]:.0%} of patients, {share[False]:.0%} in the other splits)" in found.message


def test_a_significant_difference_that_is_small_is_not_worth_a_warning():
    """52% of 30,000 test patients are women and 50% of the others: p is tiny, the standardised difference 0.04."""
    m = 120_000
    rng = np.random.default_rng(0)
    split = np.where(np.arange(m) % 4 == 0, "test", "train")
    sex = np.where(rng.random(m) < np.where(split == "test", 0.52, 0.50), "F", "M")
    ids = np.arange(m).astype(str)
    table = pd.DataFrame({"image_id": ids, "study_id": ids, "patient_id": ids, "path": "x.png", "view": "PA", "age": 50.0})
    cohort = Cohort(
        table.assign(split=split, sex=sex), np.zeros((m, 1), np.float32), ("Edema",), ATTRIBUTES[:1], "g", "image", "/"
    )
    assert split_mix(Evidence(cohort=cohort)) == []
    sex = np.where(rng.random(m) < np.where(split == "test", 0.57, 0.50), "F", "M")
    assert split_mix(Evidence(cohort=replace(cohort, table=table.assign(split=split, sex=sex))))


def test_the_group_at_the_first_image_counts():
    """In test everyone is followed up for ten years more: at the first image the ages are alike."""
    cohort = made_up(3, m=2000)
    first = cohort.table.drop_duplicates("patient_id")
    in_test = first[first["split"] == "test"]
    later = in_test.assign(image_id=in_test["image_id"] + "later", age=in_test["age"] + 30, age_group="60+")
    table = pd.concat([later, first], ignore_index=True)  # the later image stands first in the table
    assert split_mix(Evidence(cohort=replace(cohort, table=table, labels=np.zeros((len(table), 1), np.float32)))) == []
    only = later.assign(image_id=later["image_id"] + "alone")
    table = pd.concat([only, first[first["split"] != "test"]], ignore_index=True)
    (found,) = split_mix(Evidence(cohort=replace(cohort, table=table, labels=np.zeros((len(table), 1), np.float32))))
    assert "age group" in found.message


def test_no_share_is_said_where_few_patients_are_behind_it():
    cohort = made_up(1, m=600)
    patients = cohort.table.drop_duplicates("patient_id")
    women = patients["patient_id"][(patients["split"] == "test") & (patients["sex"] == "F")]
    moved = cohort.table["patient_id"].isin(women[5:])  # five women are left in test
    table = cohort.table.assign(split=cohort.table["split"].mask(moved, "train"))
    (found,) = split_mix(Evidence(cohort=replace(cohort, table=table)))
    assert "in test" in found.message and "%" not in found.message


@pytest.mark.parametrize("m", [1, 30])
def test_too_few_patients_are_not_compared(m):
    assert split_mix(Evidence(cohort=made_up(0, m=m))) == []


def test_small_groups_are_those_below_the_minimum_in_test():
    cohort = made_up(2, m=1500)
    test = cohort.table[cohort.table["split"] == "test"]
    sizes = test.groupby("race")["patient_id"].nunique()
    smallest = sizes[["ASIAN", "OTHER"]].min()
    (found,) = small_group(Evidence(cohort=cohort, min_patients=int(smallest)))
    assert found.count == 1 and "NATIVE (fewer than 10)" in found.message  # a group of just the minimum is not small
    (found,) = small_group(Evidence(cohort=cohort, min_patients=int(smallest) + 1))
    assert found.count == 2 and f"(fewer than {smallest + 1})" in found.message
    assert f"NATIVE: {sizes.get('NATIVE', 0)}" in found.examples
