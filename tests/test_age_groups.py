"""Ages: years or DICOM's form; impossible ones unknown and counted; groups half open and configurable."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biascxr.age_groups import NO_AGE, age_group_names, cut_ages, read_ages
from biascxr.audit.read_cells import NOT_GIVEN
from biascxr.cohort.base import NOT_RECORDED
from biascxr.errors import InputError

SEED_EDGES = (0.0, 20.0, 40.0, 60.0, 80.0)


@pytest.mark.parametrize(
    ("text", "years"),
    [
        *[("0", 0), ("58", 58), ("58.5", 58.5), (" 7 ", 7), ("120", 120), (".5", 0.5), ("58.", 58), ("+5", 5)],
        *[("058Y", 58), ("006M", 0.5), ("52W", 52 / 52.18), ("010D", 10 / 365.25), ("58 y", 58), ("1440M", 120)],
    ],
)
def test_an_age_is_read_in_years(text, years):
    ages, notes = read_ages(pd.Series([text]))
    assert ages[0] == pytest.approx(years)
    assert notes == []


@pytest.mark.parametrize("text", ["414", "414Y", "121", "-1"])
def test_an_impossible_age_is_unknown_and_counted(text):
    ages, notes = read_ages(pd.Series(["50", text, text]))
    assert ages[0] == 50
    assert ages[1:].isna().all()
    assert notes == ["2 impossible ages (below 0 or above 120) became unknown."]


@pytest.mark.parametrize("text", ["", " ", "unknown", "NaN", None, "Unable to obtain"])
def test_a_blank_age_is_unknown_and_no_finding(text):
    ages, notes = read_ages(pd.Series([text, "40"]))
    assert math.isnan(ages[0])
    assert notes == []


def test_what_is_blank_elsewhere_in_a_table_is_no_age():
    assert {*NOT_RECORDED, *(text.upper() for text in NOT_GIVEN)} <= set(NO_AGE)


@pytest.mark.parametrize("text", ["old", "58X", "5 8", "058YY", "1e2", ".", "Y", "--5", "inf"])
def test_what_is_no_age_is_an_error_with_its_row(text):
    with pytest.raises(InputError, match=r"in data row 2 \(2 such cells\); expected ages in years") as error:
        read_ages(pd.Series(["58", text, "", text], name="Patient Age"))
    assert f"Column 'Patient Age' holds {text!r}" in str(error.value)
    assert "058Y" in str(error.value)


@given(st.lists(st.none() | st.integers(-5, 500) | st.floats(-5, 500).map(lambda x: round(x, 2)), min_size=1, max_size=30))
def test_numbers_and_their_texts_are_the_same_ages(cells):
    index = pd.RangeIndex(7, 7 + len(cells))
    numbers, notes = read_ages(pd.Series(cells, dtype=float, index=index))
    texts, notes_on_texts = read_ages(pd.Series([None if c is None else f"{c:.2f}" for c in cells], dtype=object, index=index))
    pd.testing.assert_series_equal(texts, numbers)
    assert notes == notes_on_texts
    np.testing.assert_array_equal(numbers, [c if c is not None and 0 <= c <= 120 else np.nan for c in cells])


@pytest.mark.parametrize("dtype", ["Int64", "float32", "int8", "category", "str", object])
def test_ages_are_read_from_any_type_of_column(dtype):
    ages, _ = read_ages(pd.Series([58, 3, 58]).astype(dtype))
    assert ages.tolist() == [58, 3, 58]
    assert ages.dtype == (np.float32 if dtype == "float32" else np.float64)


@given(st.integers(0, 999), st.sampled_from([("Y", 1), ("M", 1 / 12), ("W", 7 / 365.25), ("D", 1 / 365.25)]))
def test_a_dicom_age_is_its_number_times_its_unit(number, unit):
    letter, years = unit
    ages, notes = read_ages(pd.Series([f"{number:03d}{letter}"]))
    expected = number * years
    assert bool(notes) == (expected > 120)
    assert math.isnan(ages[0]) if notes else ages[0] == pytest.approx(expected, rel=1e-4)


def test_the_seeds_groups():
    assert age_group_names(SEED_EDGES) == ["0-20", "20-40", "40-60", "60-80", "80+"]
    ages = pd.Series([0, 19.99, 20, 39, 40, 60, 79.9, 80, 115, math.nan])
    groups = ["0-20", "0-20", "20-40", "20-40", "40-60", "60-80", "60-80", "80+", "80+", "unknown"]
    assert cut_ages(ages, SEED_EDGES).tolist() == groups


def test_below_the_first_edge_the_group_is_unknown():
    assert cut_ages(pd.Series([17.0, 18.0]), (18, 65)).tolist() == ["unknown", "18-65"]


@given(
    ages=st.lists(st.floats(0, 120), min_size=1, max_size=30),
    edges=st.lists(st.integers(0, 110), min_size=1, max_size=6, unique=True).map(sorted),
)
def test_groups_agree_with_pandas_cut(ages, edges):
    edges = tuple(float(e) for e in edges)
    oracle = pd.cut(pd.Series(ages), [*edges, np.inf], right=False, labels=age_group_names(edges)).astype(object)
    assert cut_ages(pd.Series(ages), edges).tolist() == oracle.where(oracle.notna(), "unknown").tolist()
