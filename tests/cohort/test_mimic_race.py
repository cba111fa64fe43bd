"""Recorded race: the groups of MIMIC-IV's own texts, and every other text has a group or a reason."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.cohort.mimic_race import RULES, race_notes, race_rules_table, sort_races
from biascxr.cohort.race import RACE_GROUPS

# Written by hand from MIMIC-IV's list of values, not from the rules.
EXPECTED = {
    "WHITE": "WHITE",
    "WHITE - RUSSIAN": "WHITE",
    "WHITE - OTHER EUROPEAN": "WHITE",
    "WHITE - EASTERN EUROPEAN": "WHITE",
    "WHITE - BRAZILIAN": "WHITE",
    "PORTUGUESE": "WHITE",
    "BLACK/AFRICAN AMERICAN": "BLACK/AFRICAN AMERICAN",
    "BLACK/CAPE VERDEAN": "BLACK/AFRICAN AMERICAN",
    "BLACK/CARIBBEAN ISLAND": "BLACK/AFRICAN AMERICAN",
    "BLACK/AFRICAN": "BLACK/AFRICAN AMERICAN",
    "HISPANIC/LATINO": "HISPANIC/LATINO",
    "HISPANIC OR LATINO": "HISPANIC/LATINO",
    "HISPANIC/LATINO - PUERTO RICAN": "HISPANIC/LATINO",
    "HISPANIC/LATINO - DOMINICAN": "HISPANIC/LATINO",
    "SOUTH AMERICAN": "HISPANIC/LATINO",
    "ASIAN": "ASIAN",
    "ASIAN - CHINESE": "ASIAN",
    "ASIAN - ASIAN INDIAN": "ASIAN",
    "AMERICAN INDIAN/ALASKA NATIVE": "AMERICAN INDIAN/ALASKA NATIVE",
    "NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER": "NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER",
    "MULTIPLE RACE/ETHNICITY": "MULTIPLE RACE/ETHNICITY",
    "OTHER": "OTHER",
}
REASONS = {
    "UNKNOWN": "recorded as unknown",
    "UNKNOWN/NOT SPECIFIED": "recorded as unknown",
    "UNABLE TO OBTAIN": "unable to obtain",
    "PATIENT DECLINED TO ANSWER": "declined to answer",
    "": "blank",
    "  ": "blank",
}


@pytest.mark.parametrize("dress", [str, str.lower, str.title, "  {}  ".format])
def test_each_text_of_mimic_iv_has_its_group(dress):
    races = sort_races(pd.Series([dress(text) for text in EXPECTED]))
    assert races.group.tolist() == list(EXPECTED.values())
    assert (races.reason == "").all()
    assert (races.unforeseen == "").all()


def test_what_says_nothing_is_unknown_with_a_reason_and_not_other():
    races = sort_races(pd.Series(list(REASONS)))
    assert set(races.group) == {"unknown"}
    assert races.reason.tolist() == list(REASONS.values())


@pytest.mark.parametrize("text", ["MARTIAN", "WHITEHALL", "ASIANS", "BLACKFOOT", "NOT WHITE"])
def test_an_unforeseen_text_is_other_and_said(text):
    races = sort_races(pd.Series([text, "WHITE", text]))
    assert races.group.tolist() == ["OTHER", "WHITE", "OTHER"]
    assert races.unforeseen.tolist() == [text, "", text]
    (note,) = [n for n in race_notes(pd.Series(["a", "b", "c"]), races) if text in n and "no rule" in n]
    assert note.startswith("2 patients have")


def test_the_ambiguous_texts_are_counted_by_patient_with_their_reason():
    races = sort_races(pd.Series(["PORTUGUESE", "PORTUGUESE", "WHITE - BRAZILIAN", "SOUTH AMERICAN", "WHITE"]))
    notes = race_notes(pd.Series(["a", "a", "b", "c", "d"]), races)
    said = {text: [n for n in notes if repr(text) in n] for text in ("PORTUGUESE", "WHITE - BRAZILIAN", "SOUTH AMERICAN")}
    assert all(len(found) == 1 and found[0].startswith("1 patients") for found in said.values())
    assert "counted as WHITE: an origin in Europe" in said["PORTUGUESE"][0]
    assert "counted as HISPANIC/LATINO" in said["SOUTH AMERICAN"][0]


def test_the_rules_are_printed_whole():
    first = race_notes(pd.Series([], dtype=object), sort_races(pd.Series([], dtype=object)))[0]
    table = race_rules_table()
    for rule in RULES:
        assert f"{rule.begins_with}..." in set(table["recorded"])
        assert rule.group == "unknown" or rule.begins_with in first
    assert set(table["group"]) == {*RACE_GROUPS, "unknown"}


texts = st.one_of(
    st.text(max_size=30), st.sampled_from([*EXPECTED, *REASONS]), st.sampled_from([*EXPECTED]).map(lambda t: t + "?")
)


@settings(deadline=None)
@given(st.lists(texts, max_size=12))
def test_every_text_has_a_group_or_a_reason_and_never_both(recorded):
    races = sort_races(pd.Series(recorded, dtype=object))
    assert len(races.group) == len(recorded)
    for group, reason, unforeseen in zip(races.group, races.reason, races.unforeseen, strict=True):
        assert (group == "unknown" and reason != "") or (group in RACE_GROUPS and reason == "")
        assert unforeseen == "" or group == "OTHER"
