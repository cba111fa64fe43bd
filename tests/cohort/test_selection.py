"""Selection: every row is either used or counted under one reason."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biascxr.cohort.selection import content_of, refuse_outside, select_rows
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
        (["a/b.jpg", "c.PNG", "d.jpeg", "e.dcm"], "image"),
        (["a.npy", "b.tfrecord"], "vector"),
    ],
)
def test_images_and_vectors_are_told_by_their_endings(paths, content):
    assert content_of(pd.Series(paths)) == content


def test_other_endings_and_mixtures_are_named():
    with pytest.raises(
        InputError, match=r"files ending in '\.bmp' \(2 rows\); expected images \(\.jpg, .*\.npy, \.npz, \.tfrecord"
    ):
        content_of(pd.Series(["a.bmp", "b.bmp", "c.jpg"]))
    with pytest.raises(InputError, match="mixes images and precomputed vectors"):
        content_of(pd.Series(["a.jpg", "b.npy"]))
    with pytest.raises(InputError, match=r"files ending in ''"):
        content_of(pd.Series(["a"]))


@pytest.mark.parametrize("path", ["a.jpg", "files/p10/a.jpg", "a/../b.jpg", "./a..b.jpg", "/data/images/a.jpg", "..a/b.jpg"])
def test_a_path_inside_the_images_folder_is_fine(path):
    refuse_outside(pd.Series([path]), Path("/data/images"))


@pytest.mark.parametrize(
    "path", ["../a.jpg", "a/../../b.jpg", "/etc/passwd", "/data/images2/a.jpg", "/data/images/../x.jpg", "files/../../../x"]
)
def test_a_path_out_of_the_images_folder_is_refused(path):
    with pytest.raises(InputError, match=r"1 paths lead out of images_root \(/data/images\)\. Give --images_root") as error:
        refuse_outside(pd.Series(["a.jpg", path]), Path("/data/images"))
    assert error.value.examples == (path,) and path not in str(error.value)


def test_everything_is_inside_the_root_of_the_disk():
    refuse_outside(pd.Series(["/data/a.jpg"]), Path("/"))


def test_patients_to_leave_out_are_counted_by_their_reason():
    table = pd.DataFrame({c: list("abc") for c in ("image_id", "study_id", "path")} | {"patient_id": list("112"), "view": "AP"})
    keep, excluded = select_rows(table, frontal_only=True, left_out={"odd": frozenset("1"), "odder": frozenset("12")})
    assert keep.tolist() == [False, False, False]
    assert excluded == {"odd": 2, "odder": 1}
