"""Several records of one patient: silence never contradicts, and each policy does what it says."""

from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biascxr.cohort.conflicts import settle_records

RECORDS = [("1", "A"), ("1", "B"), ("1", "B"), ("2", "A"), ("2", "unknown"), ("3", "unknown"), ("4", "B"), ("4", "A")]


def settle(records, policy):
    return settle_records(pd.Series([p for p, _ in records]), pd.Series([v for _, v in records]), policy)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("unknown", {"1": "unknown", "2": "A", "3": "unknown", "4": "unknown"}),
        ("drop", {"1": "unknown", "2": "A", "3": "unknown", "4": "unknown"}),
        ("majority", {"1": "B", "2": "A", "3": "unknown", "4": "unknown"}),
        ("first", {"1": "A", "2": "A", "3": "unknown", "4": "B"}),
    ],
)
def test_what_each_policy_makes_of_it(policy, expected):
    settled = settle(RECORDS, policy)
    assert settled.values.to_dict() == expected
    assert settled.conflicting == {"1", "4"}


def test_rows_get_their_patients_value_and_strangers_are_unknown():
    assert settle(RECORDS, "first").of(pd.Series(["4", "9", "1"])).tolist() == ["B", "unknown", "A"]


def test_no_records_at_all():
    settled = settle([], "majority")
    assert len(settled.values) == 0 and settled.conflicting == frozenset()
    assert settled.of(pd.Series(["1"])).tolist() == ["unknown"]


@given(
    records=st.lists(st.tuples(st.sampled_from("123"), st.sampled_from(["A", "B", "C", "unknown"])), max_size=25),
    policy=st.sampled_from(["unknown", "drop", "majority", "first"]),
)
def test_agrees_with_a_plain_loop(records, policy):
    settled = settle(records, policy)
    for patient in {p for p, _ in records}:
        said = [v for p, v in records if p == patient and v != "unknown"]
        counts = Counter(said).most_common()
        assert (patient in settled.conflicting) == (len(counts) > 1)
        if not said:
            expected = "unknown"
        elif len(counts) == 1 or policy == "first":
            expected = said[0]
        elif policy == "majority":
            expected = counts[0][0] if counts[0][1] > counts[1][1] else "unknown"
        else:
            expected = "unknown"
        assert settled.values[patient] == expected
