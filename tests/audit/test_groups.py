"""Groups are those whose value is known; everyone else is the rest of the known; crossings are all combinations that exist."""

from __future__ import annotations

import numpy as np
import pytest

from biascxr.audit.groups import ALL, OVERALL, find_groups
from biascxr.containers import Attribute
from biascxr.errors import InputError

SEX = Attribute("sex", ("F", "M"), True)
RACE = Attribute("race", ("A", "B", "C"), True)
AGE = Attribute("age_group", ("20", "40"), False)
COLUMNS = {
    "sex": ["F", "M", "unknown", "F", "M", "F"],
    "race": ["A", "B", "C", "unknown", "B", "C"],
    "age_group": ["20", "40", "40", "20", "unknown", "20"],
}


@pytest.fixture
def predictions(make_predictions):
    return make_predictions(np.zeros((6, 1)), np.zeros((6, 1)), attributes=(SEX, RACE, AGE), **COLUMNS)


def test_the_columns_are_everyone_then_the_groups_then_everyone_else_of_each(predictions):
    groups = find_groups(predictions, (SEX, RACE))
    own = [(OVERALL, ALL), ("sex", "F"), ("sex", "M"), ("race", "A"), ("race", "B"), ("race", "C")]
    assert groups.names == tuple((*name, is_others) for is_others in (False, True) for name in own)
    assert groups.n_own == 6 and groups.attributes == (SEX, RACE)
    for column, (attribute, group, is_others) in enumerate(groups.names):
        assert groups.index(attribute, group, others=is_others) == column


def test_a_mask_is_the_rows_whose_value_is_the_group_and_everyone_else_the_other_known_rows(predictions):
    groups = find_groups(predictions, (SEX, RACE))
    assert groups.mask(groups.index(OVERALL, ALL)).all()
    assert not groups.mask(groups.index(OVERALL, ALL, others=True)).any()
    for attribute in (SEX, RACE):
        values = np.array(COLUMNS[attribute.name])
        for group in attribute.groups:
            np.testing.assert_array_equal(groups.mask(groups.index(attribute.name, group)), values == group)
            others = groups.mask(groups.index(attribute.name, group, others=True))
            np.testing.assert_array_equal(others, (values != group) & (values != "unknown"))


def test_a_crossing_has_the_combinations_that_exist_and_needs_every_value_known(predictions):
    groups = find_groups(predictions, (SEX,), ("sex x race", "race x sex x age_group"))
    crossed = {a.name: a for a in groups.attributes}
    assert crossed["sex x race"].groups == ("F, A", "F, C", "M, B")  # no M, A: nobody is; in the attributes' order
    assert crossed["race x sex x age_group"].groups == ("A, F, 20", "B, M, 40", "C, F, 20")
    np.testing.assert_array_equal(np.flatnonzero(groups.mask(groups.index("sex x race", "M, B"))), [1, 4])
    np.testing.assert_array_equal(np.flatnonzero(groups.mask(groups.index("sex x race", "M, B", others=True))), [0, 5])
    assert crossed["sex x race"].constant and not crossed["race x sex x age_group"].constant


def test_a_crossing_may_join_attributes_that_are_not_compared_by_themselves(predictions):
    groups = find_groups(predictions, (RACE,), ("sex x age_group",))
    assert [a.name for a in groups.attributes] == ["race", "sex x age_group"]


def test_a_crossing_given_twice_is_one(predictions):
    once, twice = (find_groups(predictions, (SEX,), names) for names in (("sex x race",), ("sex x race", " sex x  race")))
    assert once.names == twice.names


def test_groups_written_as_digits_are_found_when_a_csv_gave_them_back_as_numbers(make_predictions):
    ages = make_predictions(np.zeros((3, 1)), np.zeros((3, 1)), attributes=(AGE,), age_group=[20, 40, 20])
    np.testing.assert_array_equal(find_groups(ages, (AGE,)).groupings[1].codes, [0, 1, 0])


@pytest.mark.parametrize("missing", [None, np.nan, "unknown", "another"])
def test_a_value_that_is_no_group_is_unknown(make_predictions, missing):
    values = np.array(["F", missing, "M"], object)
    found = find_groups(make_predictions(np.zeros((3, 1)), np.zeros((3, 1)), attributes=(SEX,), sex=values), (SEX,))
    np.testing.assert_array_equal(found.groupings[1].codes, [0, -1, 1])


def test_an_unknown_attribute_of_a_crossing_is_named_with_the_nearest(predictions):
    with pytest.raises(InputError, match=r"attribute of a crossing 'rase'. Did you mean 'race'\? Known: age_group, race, sex"):
        find_groups(predictions, (SEX,), ("sex x rase",))


@pytest.mark.parametrize("name", ["sex", "sex x sex", "sex x race x sex"])
def test_a_crossing_joins_different_attributes(predictions, name):
    with pytest.raises(InputError, match=f"joins two or more attributes, each once, for instance 'race x sex'; got '{name}'"):
        find_groups(predictions, (SEX,), (name,))


def test_a_crossing_in_which_nobody_is_known_is_an_error(make_predictions):
    columns = {"sex": ["F", "M", "unknown", "unknown"], "race": ["unknown", "unknown", "A", "B"]}
    predictions = make_predictions(np.zeros((4, 1)), np.zeros((4, 1)), attributes=(SEX, RACE), **columns)
    with pytest.raises(InputError, match="'sex x race' has no group: no row has a known value of each of sex, race"):
        find_groups(predictions, (SEX,), ("sex x race",))
