"""Shift between groups: no more is found than there is, what is planted is found, and a patient's images count together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.oneway import anova_oneway

from biascxr.cohort.shift import AGE, AP_VIEW, COLUMNS, group_shift
from biascxr.containers import Attribute, Cohort

RACE = Attribute("race", ("WHITE", "BLACK", "ASIAN"), True)
LABELS = ("Edema", "Atelectasis", "Fracture")


def made_up(seed: int, *, m: int = 600, images: int = 5, prevalence=(0.25, 0.4, 0.06), affected=None, **changes) -> Cohort:
    """Patients of 1 to `images` images whose labels go together; race has nothing to do with anything, unless planted.

    Args:
        affected: a group whose age, labels or views are changed.
        **changes: `age`: years added; `Edema`: factor of its prevalence; `ap`: added to the chance of an AP view.
    """
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(m), rng.integers(1, images + 1, m))
    race = rng.choice([*RACE.groups, "unknown"], m, p=[0.6, 0.2, 0.12, 0.08])
    is_affected = race == affected
    frailty = rng.gamma(2.0, 0.5, m)[:, None]
    chance = np.clip(frailty * np.array(prevalence), 0, 1)
    chance[is_affected, 0] *= changes.get("Edema", 1.0)
    labels = (rng.random((len(patient), len(prevalence))) < chance[patient]).astype(np.float32)
    labels[rng.random(labels.shape) < 0.05] = np.nan
    chance_ap = np.clip(rng.beta(1, 1, m) + changes.get("ap", 0.0) * is_affected, 0, 1)
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(len(patient))],
            "study_id": [f"s{i}" for i in range(len(patient))],
            "patient_id": [f"p{i}" for i in patient],
            "path": "x.jpg",
            "view": np.where(rng.random(len(patient)) < chance_ap[patient], "AP", "PA"),
            "split": "train",
            "age": (rng.normal(55, 15, m) + changes.get("age", 0.0) * is_affected)[patient] + rng.uniform(0, 5, len(patient)),
            "race": race[patient],
        }
    )
    return Cohort(table, labels, LABELS[: len(prevalence)], (RACE,), "generic", "image", Path("/"))


def of(table: pd.DataFrame, variable: str) -> pd.DataFrame:
    return table[table["variable"] == variable].set_index("group")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return made_up(1)


@pytest.fixture(scope="module")
def shift(cohort) -> pd.DataFrame:
    return group_shift(cohort)


def test_ages_are_compared_at_the_first_image_by_welchs_analysis_of_variance(cohort, shift):
    first = cohort.table.loc[cohort.table.groupby("patient_id")["age"].idxmin()]
    ages = [first["age"][first["race"] == g] for g in RACE.groups]
    own = of(shift, AGE)
    expected = anova_oneway(ages, use_var="unequal")
    assert own["p"].iloc[0] == pytest.approx(expected.pvalue, rel=1e-9)
    assert own["statistic"].iloc[0] == pytest.approx(expected.statistic, rel=1e-9)
    np.testing.assert_allclose(own["value"], [a.mean() for a in ages])
    assert own["n"].tolist() == [len(a) for a in ages]
    everyone = np.concatenate(ages)
    between = sum(len(a) * (a.mean() - everyone.mean()) ** 2 for a in ages)
    assert own["explained"].iloc[0] == pytest.approx(between / ((everyone - everyone.mean()) ** 2).sum())


@pytest.mark.parametrize("variable", [AP_VIEW, *LABELS])
def test_differences_are_those_from_everyone_else(cohort, shift, variable):
    values = cohort.table["view"].eq("AP") * 1.0 if variable == AP_VIEW else cohort.labels[:, LABELS.index(variable)]
    frame = pd.DataFrame({"race": cohort.table["race"], "value": values}).query("race != 'unknown'").dropna()
    for group, row in of(shift, variable).iterrows():
        own, others = (frame["value"][(frame["race"] == group) == side] for side in (True, False))
        spread = np.sqrt((own.var(ddof=0) + others.var(ddof=0)) / 2)
        assert row["value"] == pytest.approx(own.mean(), rel=1e-6)
        assert row["smd"] == pytest.approx((own.mean() - others.mean()) / spread, rel=1e-5, abs=1e-6)
        assert row["n"] == len(own)


def test_with_one_image_each_it_is_pearsons_chi_square():
    cohort = made_up(2, images=1)
    table = group_shift(cohort)
    for i, label in enumerate(LABELS[:2]):
        known = (cohort.table["race"] != "unknown").to_numpy() & ~np.isnan(cohort.labels[:, i])
        counts = pd.crosstab(cohort.table["race"][known], cohort.labels[known, i])
        expected = stats.chi2_contingency(counts, correction=False)
        assert of(table, label)["p"].iloc[0] == pytest.approx(expected.pvalue, rel=1e-9)
        # Cramer's V squared is the share of variance explained, times the smaller number of levels less one (here 1).
        assert of(table, label)["explained"].iloc[0] == pytest.approx(expected.statistic / known.sum(), rel=1e-9)


def test_copies_of_a_patients_image_add_no_evidence():
    cohort = made_up(3, images=1, affected="BLACK", Edema=0.7)
    n = len(cohort)
    five = replace(
        cohort,
        table=pd.concat(
            [cohort.table.assign(image_id=cohort.table["image_id"] + f"copy{c}") for c in range(5)], ignore_index=True
        ),
        labels=np.vstack([cohort.labels] * 5),
    )
    once, often = group_shift(cohort), group_shift(five)
    assert len(five) == 5 * n
    np.testing.assert_allclose(often["p"], once["p"], rtol=1e-9)
    np.testing.assert_allclose(often["smd"], once["smd"], atol=1e-12)


def test_p_values_are_holms_over_every_test(shift):
    tests = shift.drop_duplicates("variable")
    assert len(tests) == 5 and tests["p"].notna().all()
    np.testing.assert_allclose(tests["p_adjusted"], multipletests(tests["p"], method="holm")[1])
    assert tuple(shift.columns) == COLUMNS


@pytest.mark.parametrize(
    ("variable", "sign", "changes"),
    [(AGE, 1, {"age": 10.0}), ("Edema", -1, {"Edema": 0.5}), (AP_VIEW, 1, {"ap": 0.3})],
)
def test_a_planted_shift_is_found_and_nothing_else(variable, sign, changes):
    table = group_shift(made_up(4, m=1500, affected="BLACK", **changes))
    tests = table.drop_duplicates("variable").set_index("variable")["p_adjusted"]
    assert set(tests.index[tests < 0.05]) == {variable}
    own = of(table, variable)
    assert own["smd"].abs().idxmax() == "BLACK" and np.sign(own.loc["BLACK", "smd"]) == sign
    if variable == AGE:
        assert own.loc["BLACK", "smd"] == pytest.approx(10 / 15, abs=0.15)


def test_a_small_group_keeps_its_values_and_is_not_tested(cohort):
    few = cohort.table["patient_id"][cohort.table["race"] == "ASIAN"].unique()[10:]
    table = cohort.table.assign(race=cohort.table["race"].where(~cohort.table["patient_id"].isin(few), "unknown"))
    own = of(group_shift(replace(cohort, table=table)), AGE)
    assert own["is_tested"].to_dict() == {"WHITE": True, "BLACK": True, "ASIAN": False}
    assert own.loc["ASIAN", "n_patients"] == 10 and np.isfinite(own.loc["ASIAN", "smd"])
    assert (own["df"] == 1).all()


def test_a_group_that_could_hold_no_positive_by_chance_alone_is_not_tested():
    """Of 70 patients one in a hundred: a single positive more or less would decide."""
    own = of(group_shift(made_up(6, images=1, prevalence=(0.3, 0.01))), "Atelectasis")
    assert not own.loc["ASIAN", "is_tested"]


def test_age_is_not_compared_between_age_groups(cohort):
    table = cohort.table.assign(age_group=np.where(cohort.table["age"] < 55, "0-55", "55+"))
    attribute = Attribute("age_group", ("0-55", "55+"), False)
    variables = group_shift(replace(cohort, table=table, attributes=(attribute,)))["variable"]
    assert set(variables) == {AP_VIEW, *LABELS}


def test_without_attributes_there_is_an_empty_table(cohort):
    table = group_shift(replace(cohort, attributes=()))
    assert len(table) == 0 and tuple(table.columns) == COLUMNS


@pytest.mark.slow
def test_groups_dealt_out_at_random_are_found_different_in_one_test_of_twenty():
    cohort = made_up(7, m=500)
    patients = cohort.table.drop_duplicates("patient_id").set_index("patient_id")["race"]
    rng = np.random.default_rng(8)
    p_values = []
    for _ in range(500):
        dealt = pd.Series(rng.permutation(patients.to_numpy()), index=patients.index)
        table = group_shift(replace(cohort, table=cohort.table.assign(race=cohort.table["patient_id"].map(dealt))))
        p_values.append(table.drop_duplicates("variable").set_index("variable")["p"])
    shares = (pd.DataFrame(p_values) < 0.05).mean()
    assert shares.between(0.02, 0.08).all(), shares.to_dict()
