"""Ages: years or DICOM's form; impossible ones unknown and counted; groups half open and configurable."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biascxr.cohort.age import age_group_names, cut_ages
from biascxr.cohort.base import read_ages
from biascxr.errors import InputError

SEED_EDGES = (0.0, 20.0, 40.0, 60.0, 80.0)


@pytest.mark.parametrize(
    ("text", "years"),
    [
        *[("0", 0), ("58", 58), ("58.5", 58.5), (" 7 ", 7), ("120", 120)],
        *[("058Y", 58), ("006M", 0.5), ("52W", 52 / 52.18), ("010D", 10 / 365.25)],
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


@pytest.mark.parametrize("text", ["", " ", "unknown", "NaN"])
def test_a_blank_age_is_unknown_and_no_finding(text):
    ages, notes = read_ages(pd.Series([text, "40"]))
    assert math.isnan(ages[0])
    assert notes == []


@pytest.mark.parametrize("text", ["old", "58X", "5 8", "058YY", "1e2"])
def test_what_is_no_age_is_an_error_with_an_example(text):
    with pytest.raises(InputError, match="1 ages cannot be read, for instance") as error:
        read_ages(pd.Series(["58", text]))
    assert repr(text) in str(error.value)
    assert "058Y" in str(error.value)


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
