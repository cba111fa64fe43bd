"""Cells of crossed attributes, numbered once and recognised again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biascxr.errors import InputError
from biascxr.mitigation.cells import Cells, chosen_attributes
from biascxr.mitigation.training import DemographicInputs

TABLE = pd.DataFrame({"race": ["A", "B", "unknown", "A"], "sex": ["F", "F", "M", "unknown"]})


def test_a_row_is_in_a_cell_where_all_its_attributes_are_known():
    cells = Cells.of(TABLE, ("race", "sex"))
    assert cells.names == ("A / F", "B / F") and cells.title == "race x sex"
    assert cells.codes(TABLE).tolist() == [0, 1, -1, -1]
    assert Cells.of(TABLE, ("race",)).codes(TABLE).tolist() == [0, 1, -1, 0]


def test_other_rows_are_numbered_alike_and_a_new_cell_is_in_none():
    cells = Cells.of(TABLE, ("race", "sex"))
    assert cells.codes(pd.DataFrame({"sex": ["F", "M"], "race": ["B", "B"]})).tolist() == [1, -1]
    assert cells.codes(pd.DataFrame({"race": ["A", "B"]})).tolist() == [-1, -1], "a cohort without sex"


def test_an_attribute_that_is_not_there_is_left_out_and_without_any_there_are_no_cells():
    assert Cells.of(TABLE, ("insurance", "race")).attributes == ("race",)
    none = Cells.of(TABLE, ("insurance",))
    assert len(none) == 0 and none.codes(TABLE).tolist() == [-1] * 4


@pytest.mark.parametrize(
    "rows",
    [
        [("A / B", "C"), ("A", "B / C")],
        [("A /", "B"), ("A", "/ B")],
        [("A / B", "C"), ("A // B", "C")],
        [("A\\", "B"), ("A\\\\", "B"), ("/", ""), ("", "/")],
    ],
)
def test_values_that_hold_the_joining_text_are_not_merged_and_come_back_as_they_were(rows):
    table = pd.DataFrame(rows, columns=["x", "y"])
    cells = Cells.of(table, ("x", "y"))
    assert len(cells) == len(rows) and len(set(cells.codes(table))) == len(rows)
    assert cells.values() == {"x": {x for x, _ in rows}, "y": {y for _, y in rows}}
    again = Cells.named(cells.title, cells.names)
    assert again.codes(table).tolist() == cells.codes(table).tolist()


def test_a_value_is_as_recorded_where_nothing_can_be_mistaken():
    table = pd.DataFrame({"race": ["BLACK/AFRICAN AMERICAN", "A / B"], "sex": ["F", "M"]})
    assert Cells.of(table, ("race",)).names == ("A / B", "BLACK/AFRICAN AMERICAN")
    assert "BLACK/AFRICAN AMERICAN / F" in Cells.of(table, ("race", "sex")).names


def test_a_mistyped_attribute_and_one_whose_name_joins_names_are_refused():
    with pytest.raises(InputError, match="'rase' is not an attribute of this cohort"):
        Cells.of(TABLE, ("rase",))
    with pytest.raises(InputError, match="'a x b' must be renamed"):
        Cells.of(pd.DataFrame({"a x b": ["1"]}), ("a x b",))


def test_race_is_acted_on_where_nothing_is_named_else_the_first_attribute():
    assert chosen_attributes("m", (), ["sex", "race"]) == ("race",)
    assert chosen_attributes("m", (), ["sex", "age_group"]) == ("sex",)
    assert chosen_attributes("m", (), []) == ()
    assert chosen_attributes("m", ("sex",), ["sex", "race"]) == ("sex",)
    with pytest.raises(InputError, match=r"m.attributes=\['sx'\]: 'sx' is not an attribute of this cohort: \['sex'\]"):
        chosen_attributes("m", ("sx",), ["sex"])


def test_of_several_wanted_attributes_a_common_one_that_is_not_there_is_left_out_but_not_all_and_no_mistake():
    assert chosen_attributes("m", ("race", "sex", "age_group"), ["sex", "age_group"]) == ("sex", "age_group")
    for wanted, said in ((("race",), "'race'"), (("race", "insurance"), "'race'"), (("sex", "rase"), "'rase'")):
        with pytest.raises(InputError, match=f"{said} is not an attribute of this cohort"):
            chosen_attributes("m", wanted, ["sex", "age_group"])


def test_an_attribute_of_two_groups_can_be_one_number_with_unknown_in_the_middle():
    table = pd.DataFrame({"sex": ["F", "M", "unknown", "X"], "race": ["B", "A", "A", "B"]})
    coded = DemographicInputs({"sex": ("F", "M"), "race": ("A", "B"), "insurance": ("P",)}, "binary")
    assert coded.n_columns == 3 and coded.encode(table).dtype == np.float32
    np.testing.assert_array_equal(coded.encode(table), [[0, 1, 0.5], [1, 0, 0.5], [0.5, 0, 0.5], [0.5, 1, 0.5]])
    with pytest.raises(InputError, match="coding=binary takes attributes of two groups; race has 3: A, B, C"):
        DemographicInputs({"race": ("A", "B", "C")}, "binary")
    with pytest.raises(InputError, match="coding of demographics 'bits'"):
        DemographicInputs({}, "bits")


def test_demographics_are_one_column_per_group_and_zeros_where_unknown_new_or_not_recorded():
    inputs = DemographicInputs.of(TABLE, ("race", "sex"))
    assert inputs.groups == {"race": ("A", "B"), "sex": ("F", "M")} and inputs.n_columns == 4
    assert inputs.encode(TABLE).tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]]
    assert inputs.encode(pd.DataFrame({"race": ["new", "B"]})).tolist() == [[0, 0, 0, 0], [0, 1, 0, 0]]
