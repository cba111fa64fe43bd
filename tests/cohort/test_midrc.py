"""MIDRC: a small table with known answers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.cohort import build_cohort, find_layout
from biascxr.cohort.midrc import RACES
from biascxr.cohort.race import RACE_GROUPS
from biascxr.config import CohortConfig
from biascxr.errors import InputError

ROWS = pd.DataFrame(
    {
        "Age": ["61", "45", "", "130"],
        "Sex": ["Male", "Female", "Unknown", "Female"],
        "Race": ["Black or African American", "White", "Not Reported", "Native Hawaiian or other Pacific Islander"],
        "label": ["Yes", "No", "no", ""],
        "Path": ["p1", "p1/", "p2/c.png", ""],
        "filename": ["a.png", "b.png", "c.png", "d.png"],
    }
)


def read(folder, frame, name="midrc.csv"):
    frame.to_csv(folder / name, index=False)
    layout, source = find_layout(folder / name, None, CohortConfig())
    assert layout.name == "midrc"
    return layout.parse(source)


def test_known_answers(tmp_path):
    parsed = read(tmp_path, ROWS)
    assert parsed.table["path"].tolist() == ["p1/a.png", "p1/b.png", "p2/c.png", "d.png"]
    assert parsed.table["image_id"].tolist() == ["p1/a", "p1/b", "p2/c", "d"]
    assert parsed.table["sex"].tolist() == ["M", "F", "unknown", "F"]
    assert parsed.table["race"].tolist() == [
        "BLACK/AFRICAN AMERICAN",
        "WHITE",
        "unknown",
        "NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER",
    ]
    assert parsed.table["age"].fillna(-1).tolist() == [61, 45, -1, 130]
    assert parsed.labels["COVID"].fillna(-9).tolist() == [1, 0, 0, -9]
    assert parsed.unknown == {"race": {"recorded as unknown": 1}}
    assert parsed.images_root == tmp_path


def test_without_a_patient_column_each_image_is_a_patient_and_that_is_said(tmp_path):
    parsed = read(tmp_path, ROWS)
    assert parsed.table["patient_id"].is_unique
    assert any("every image counts as a patient of its own" in note for note in parsed.notes)


@pytest.mark.parametrize("column", ["submitter_id", "case_ids", "Patient ID", "subject_id"])
def test_a_patient_column_is_found_by_its_usual_names(tmp_path, column):
    parsed = read(tmp_path, ROWS.assign(**{column: ["x", "x", "y", "z"], "study_uid": ["1", "2", "3", "4"]}))
    assert parsed.table["patient_id"].tolist() == ["x", "x", "y", "z"]
    assert parsed.table["study_id"].tolist() == ["1", "2", "3", "4"]
    assert not any("patient of its own" in note for note in parsed.notes)


def test_the_header_may_be_written_in_any_case(tmp_path):
    plain = read(tmp_path, ROWS)
    other = read(tmp_path, ROWS.rename(columns=str.upper))
    pd.testing.assert_frame_equal(plain.table, other.table)
    pd.testing.assert_frame_equal(plain.labels, other.labels)


def test_two_columns_for_one_thing_are_not_chosen_between(tmp_path):
    with pytest.raises(InputError, match="several columns that could be Path"):
        read(tmp_path, ROWS.assign(path=ROWS["Path"]))


def test_a_race_that_no_rule_foresees_is_other_and_counted(tmp_path):
    parsed = read(tmp_path, ROWS.assign(Race=["Martian", "White", "Martian", "White"]))
    assert parsed.table["race"].tolist() == ["OTHER", "WHITE", "OTHER", "WHITE"]
    assert any("2 patients have a record of race 'MARTIAN'" in note for note in parsed.notes)


def test_another_label_is_named(tmp_path):
    with pytest.raises(InputError, match=r"Label column 'label' holds 'maybe' \(1 such cells\); expected Yes or No"):
        read(tmp_path, ROWS.assign(label=["Yes", "No", "maybe", ""]))


def test_an_age_in_words_is_named(tmp_path):
    with pytest.raises(InputError, match="Column 'Age' holds 'old' in data row 2"):
        read(tmp_path, ROWS.assign(Age=["1", "old", "3", "4"]))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.from_regex(r"([a-c]{1,2}/){0,3}[a-c]{0,2}", fullmatch=True), st.from_regex(r"[xyz]{1,3}\.png", fullmatch=True)
        ),
        min_size=1,
    )
)
def test_a_path_ends_in_the_file_s_name_exactly_once(rows):
    from biascxr.cohort.midrc import _paths

    folders, names = (pd.Series(column) for column in zip(*rows, strict=True))
    joined = _paths(folders, names)
    assert joined.tolist() == [f"{f.rstrip('/')}/{n}" if f else n for f, n in rows]
    assert _paths(joined, names).tolist() == joined.tolist()


def test_every_race_of_the_form_has_a_group():
    assert set(RACES.values()) <= set(RACE_GROUPS)
    for text in ("American Indian or Alaska Native", "Asian", "Black or African American", "Other", "White"):
        assert text.upper() in RACES
    assert "Native Hawaiian or other Pacific Islander".upper() in RACES


def test_becomes_a_cohort(tmp_path):
    rng = np.random.default_rng(0)
    n = 80
    frame = pd.DataFrame(
        {
            "Age": rng.integers(20, 90, n).astype(str),
            "Sex": rng.choice(["Male", "Female"], n),
            "Race": rng.choice(["White", "Asian"], n),
            "label": rng.choice(["Yes", "No"], n),
            "Path": "files",
            "filename": [f"{i}.png" for i in range(n)],
        }
    )
    frame.to_csv(tmp_path / "midrc.csv", index=False)
    cohort = build_cohort(tmp_path, None, CohortConfig(), seed=0)
    assert cohort.label_names == ("COVID",)
    assert {a.name for a in cohort.attributes} == {"sex", "race", "age_group"}
