"""One group against the rest: two groups, nobody lost, and the rest is named."""

from __future__ import annotations

import pandas as pd
import pytest

from biascxr.cohort.against_rest import set_against_rest
from biascxr.cohort.build import build_cohort
from biascxr.config import CohortConfig
from biascxr.errors import InputError

TABLE = pd.DataFrame({"race": ["WHITE", "ASIAN", "unknown", "BLACK", "ASIAN"], "sex": ["F", "M", "F", "M", "unknown"]})
NAMES = ["sex", "race", "insurance"]


def test_the_named_group_stays_the_known_others_are_the_rest_and_unknown_stays_unknown():
    table, notes = set_against_rest(TABLE, ("race=WHITE",), NAMES)
    assert table["race"].tolist() == ["WHITE", "not WHITE", "unknown", "not WHITE", "not WHITE"]
    assert table["sex"].tolist() == TABLE["sex"].tolist()
    assert notes == ["race: WHITE against the rest; 'not WHITE' holds, in images: ASIAN 2, BLACK 1."]
    assert TABLE["race"].tolist()[1] == "ASIAN"


def test_without_a_text_the_table_is_as_it_was():
    table, notes = set_against_rest(TABLE, (), NAMES)
    assert table.equals(TABLE) and notes == []


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("race",), "takes ATTRIBUTE=GROUP, for instance race=WHITE; got 'race'"),
        (("race=",), "takes ATTRIBUTE=GROUP"),
        (("rase=WHITE",), "Unknown attribute in --against_rest 'rase'.*race"),
        (("insurance=Medicaid",), "Unknown attribute in --against_rest 'insurance'"),
        (("race=White",), "Unknown group of race in --against_rest 'White'.*WHITE"),
        (("race=WHITE", "race=ASIAN"), "names race twice"),
    ],
)
def test_what_cannot_be_done_is_said(texts, said):
    with pytest.raises(InputError, match=said):
        set_against_rest(TABLE, texts, NAMES)


def test_a_group_without_another_stands_against_nothing():
    with pytest.raises(InputError, match="race has no other known group than WHITE"):
        set_against_rest(TABLE.assign(race=["WHITE", "WHITE", "unknown", "WHITE", "unknown"]), ("race=WHITE",), NAMES)


def test_an_age_group_can_stand_against_the_rest(biascxr_table, write_table):
    cohort = build_cohort(write_table(biascxr_table()), None, CohortConfig(against_rest=("age_group=20-40",)), seed=0)
    (age,) = [a for a in cohort.attributes if a.name == "age_group"]
    assert age.groups == ("20-40", "not 20-40")


def test_the_cohorts_attribute_has_these_two_groups_and_says_so(biascxr_table, write_table):
    path = write_table(biascxr_table())
    group = build_cohort(path, None, CohortConfig(), seed=0).attributes
    (race,) = [a for a in group if a.name == "race"]
    assert len(race.groups) > 2
    cohort = build_cohort(path, None, CohortConfig(against_rest=(f"race={race.groups[0]}",)), seed=0)
    (coarse,) = [a for a in cohort.attributes if a.name == "race"]
    assert set(coarse.groups) == {race.groups[0], f"not {race.groups[0]}"}
    assert any(note.startswith(f"race: {race.groups[0]} against the rest") for note in cohort.accounting["notes"])
