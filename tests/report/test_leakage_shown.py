"""Nothing in the shareable leakage tables is about fewer than ten patients, and none follows by subtraction."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from leakage_tables import made_up_tables

from biascxr.report.leakage_shown import hidden_groups, shareable

SMALL = {"race": {"WHITE": 330, "BLACK": 150, "HISPANIC": 114, "ASIAN": 6}}
TWO_SMALL = {"race": {"WHITE": 330, "BLACK": 150, "HISPANIC": 7, "ASIAN": 6}}
ONE_LARGE = {"sex": {"F": 400, "M": 7}}


def tables_of(groups):
    return made_up_tables(groups=groups)


def test_a_small_group_has_no_value_in_any_table():
    shown = shareable(tables_of(SMALL))
    own = shown.readings[shown.readings["group"] == "ASIAN"]
    assert len(own) and own[["auroc", "low", "high", "p_value"]].isna().all(axis=None)
    for name in ("roc", "confusion", "dependence", "modes", "panels"):
        table = getattr(shown, name)
        assert len(table) and "ASIAN" not in set(table["group"]), name


def test_the_macro_value_and_the_other_groups_do_not_give_the_small_one_away():
    """Macro is the mean over groups: with three of four shown, the fourth would be 4 x macro less the three."""
    readings = shareable(tables_of(SMALL)).readings
    own = readings[(readings["control"] == "none") & (readings["probe"] == "knn") & (readings["representation"] == "vectors")]
    values = own.set_index("group")["auroc"]
    assert values["macro"] > 0.5 and values.drop("macro").isna().sum() == 2
    assert values.drop("macro").dropna().index.tolist() == ["WHITE", "BLACK"], "the smallest of the large goes"


def test_two_small_groups_protect_each_other():
    assert hidden_groups(tables_of(TWO_SMALL).readings) == {("race", "HISPANIC"), ("race", "ASIAN")}


def test_a_small_group_without_a_value_takes_no_other_with_it():
    result = tables_of(SMALL)
    readings = result.readings.copy()
    readings.loc[readings["group"] == "ASIAN", ["auroc", "low", "high"]] = np.nan
    assert hidden_groups(readings) == {("race", "ASIAN")}


@pytest.mark.parametrize("facts", [("Hernia",), ("Hernia", "view")])
def test_a_fact_that_few_of_a_group_share_is_not_shown_and_one_fact_alone_hides_all_of_them_together(facts):
    """From the AUROC of a column of zeros and ones, and its interval, the few could be counted."""
    result = made_up_tables()
    own = result.readings.query("attribute == 'race' and representation == 'vectors' and group == 'macro'")
    real = own[own["control"] == "none"].iloc[0].to_dict()
    smallest = {"Hernia": 7, "view": 40}
    rows = pd.DataFrame([real | {"control": f"fact:{f}", "n_group_patients": smallest[f]} for f in facts])
    shown = shareable(replace(result, readings=pd.concat([result.readings, rows], ignore_index=True))).readings
    shown = shown[(shown["attribute"] == "race") & (shown["group"] == "macro")].set_index("control")
    assert shown.loc[["fact:Hernia"], ["auroc", "low", "high", "p_value"]].isna().all(axis=None)
    assert shown.loc[["covariates"], "auroc"].isna().all() == (facts == ("Hernia",))
    assert shown.loc[["none"], "auroc"].notna().all()
    if "view" in facts:
        assert shown.loc["fact:view", "auroc"] == real["auroc"]


def test_an_attribute_with_one_large_group_shows_nothing_at_all():
    shown = shareable(tables_of(ONE_LARGE))
    assert shown.readings["auroc"].isna().all()
    for name in ("verdicts", "curves", "dependence", "roc", "confusion"):
        assert len(getattr(shown, name)) == 0, name
    assert "sex" not in set(shown.panels["by"]) and "sex" not in set(shown.modes["by"])


def test_large_groups_stay_as_they_are():
    result = made_up_tables(("sex", "age_group"))
    shown = shareable(result)
    for field in fields(result):
        if field.name != "confusion":
            pd.testing.assert_frame_equal(getattr(shown, field.name), getattr(result, field.name), check_dtype=False)


def test_hiding_twice_changes_nothing_more():
    once = shareable(tables_of(SMALL))
    twice = shareable(once)
    for field in fields(once):
        pd.testing.assert_frame_equal(getattr(once, field.name), getattr(twice, field.name))


def test_a_share_of_fewer_than_ten_patients_is_blank_and_cannot_be_worked_out():
    result = tables_of({"race": {"WHITE": 400, "BLACK": 120, "HISPANIC": 80}})
    confusion = result.confusion
    own = (confusion["group"] == "BLACK") & (confusion["probe"] == "knn")
    confusion.loc[own, "share"] = [0.05, 0.8, 0.15]  # 6, 96 and 18 patients
    shown = shareable(result).confusion
    row = shown[(shown["group"] == "BLACK") & (shown["probe"] == "knn")].set_index("read_as")["share"]
    assert np.isnan(row["WHITE"]) and np.isnan(row["HISPANIC"]) and row["BLACK"] == 0.8


def test_a_cell_of_nine_patients_is_not_in_a_panel():
    result = made_up_tables(("sex",))
    panels = result.panels.assign(n_patients=lambda t: np.where(np.arange(len(t)) == 0, 9, t["n_patients"]))
    shown = shareable(replace(result, panels=panels)).panels
    assert len(shown) == len(panels) - 1 and shown["n_patients"].min() >= 10


@pytest.mark.parametrize(("name", "is_kept"), [("ASIAN", False), ("ASIANS", True)])
def test_a_reason_that_names_a_small_group_is_not_printed(name, is_kept):
    result = tables_of(SMALL)
    result = replace(result, verdicts=result.verdicts.assign(reason=f"Of recorded race, {name} is readable."))
    assert (shareable(result).verdicts["reason"] != "").all() == is_kept


def test_a_verdict_that_rests_on_a_hidden_group_tells_neither_reason_nor_figures():
    result = tables_of(SMALL)
    verdicts = result.verdicts.assign(
        reason="Of recorded race, ASIAN is readable from the vector.", auroc=0.9, low=0.8, high=0.95
    )
    shown = shareable(replace(result, verdicts=verdicts)).verdicts
    assert len(shown) and (shown["reason"] == "").all()
    assert shown[["auroc", "low", "high", "p_value"]].isna().all(axis=None) and shown["verdict"].notna().all()
    other = shareable(replace(result, verdicts=verdicts.assign(reason="Recorded race is readable."))).verdicts
    assert (other["auroc"] == 0.9).all()


def test_a_finding_that_nearly_everyone_has_shows_no_distance_to_the_few_without_it():
    result = tables_of(SMALL)
    modes = result.modes.assign(n=result.modes["n_patients"] + 9)
    assert len(shareable(result).modes) and len(shareable(replace(result, modes=modes)).modes) == 0
