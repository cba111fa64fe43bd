"""Selection: every row is either used or counted under one reason."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biascxr.cohort.selection import content_of, select_rows, settle_conflicts
from biascxr.errors import InputError

NO_ID, TWICE, LATERAL = "no image, study, patient id or path", "image listed before", "not a frontal view (AP, PA)"


def rows(*cells):
    columns = ["image_id", "study_id", "patient_id", "path", "view"]
    return pd.DataFrame(cells, columns=columns)


def test_each_reason_is_counted_once_and_the_rest_is_kept():
    table = rows(
        ("a", "s", "p", "a.jpg", "AP"),
        ("b", "s", "p", "b.jpg", "LATERAL"),
        ("c", "", "p", "c.jpg", "PA"),
        ("a", "s", "p", "a.jpg", "AP"),
        ("d", "s", "p", "", "LL"),  # two reasons: counted under the first
        ("e", "s", "p", "e.jpg", ""),
    )
    keep, excluded = select_rows(table, frontal_only=True)
    assert keep.tolist() == [True, False, False, False, False, True]
    assert excluded == {NO_ID: 2, TWICE: 1, LATERAL: 1}


def test_lateral_views_stay_when_asked_for():
    table = rows(("a", "s", "p", "a.jpg", "LATERAL"), ("b", "s", "p", "b.jpg", "PA"))
    keep, excluded = select_rows(table, frontal_only=False)
    assert keep.all()
    assert excluded == {}


def test_a_row_without_a_path_takes_no_other_rows_place():
    table = rows(("a", "s", "p", "", "AP"), ("a", "s", "p", "a.jpg", "AP"))
    keep, excluded = select_rows(table, frontal_only=True)
    assert keep.tolist() == [False, True]
    assert excluded == {NO_ID: 1}


cell = st.sampled_from(["", "x", "y"])


@given(st.lists(st.tuples(cell, cell, cell, cell, st.sampled_from(["", "AP", "PA", "LL"])), min_size=1, max_size=20))
def test_kept_and_excluded_add_up_to_the_table(cells):
    table = rows(*cells)
    keep, excluded = select_rows(table, frontal_only=True)
    assert keep.sum() + sum(excluded.values()) == len(table)
    assert not table[keep]["image_id"].duplicated().any()
    assert set(table[keep]["view"]) <= {"", "AP", "PA"}


@pytest.mark.parametrize(
    ("paths", "content"),
    [
        (["a/b.jpg", "c.PNG", "d.jpeg"], "image"),
        (["a.npy", "b.tfrecord"], "vector"),
    ],
)
def test_images_and_vectors_are_told_by_their_endings(paths, content):
    assert content_of(pd.Series(paths)) == content


def test_other_endings_and_mixtures_are_named():
    with pytest.raises(InputError, match=r"files ending in '\.dcm' \(2 rows\); expected images \(\.jpg, .*\.npy, \.tfrecord"):
        content_of(pd.Series(["a.dcm", "b.dcm", "c.jpg"]))
    with pytest.raises(InputError, match="mixes images and precomputed vectors"):
        content_of(pd.Series(["a.jpg", "b.npy"]))
    with pytest.raises(InputError, match=r"files ending in ''"):
        content_of(pd.Series(["a"]))


def test_a_patient_recorded_with_two_values_is_unknown_and_counted():
    table = pd.DataFrame(
        {
            "patient_id": ["1", "1", "2", "2", "3", "4", "4"],
            "sex": ["M", "F", "F", "unknown", "unknown", "M", "M"],
        }
    )
    settled, note = settle_conflicts(table, "sex")
    assert settled.tolist() == ["unknown", "unknown", "F", "F", "unknown", "M", "M"]
    assert note == "1 patients are recorded with more than one sex: treated as unknown."


def test_without_conflicts_there_is_no_note():
    table = pd.DataFrame({"patient_id": ["1", "2"], "sex": ["M", "F"]})
    settled, note = settle_conflicts(table, "sex")
    assert settled.tolist() == ["M", "F"]
    assert note is None
