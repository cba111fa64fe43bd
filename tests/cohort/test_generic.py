"""The BiasCXR form: columns by either name, labels as recorded, nothing invented."""

import pandas as pd
import pytest

from biascxr.cohort import load_layout
from biascxr.cohort.base import Source
from biascxr.cohort.generic import CHEXPERT_LABELS
from biascxr.config import CohortConfig
from biascxr.errors import InputError


@pytest.fixture
def parse(write_table):
    def run(frame, **settings):
        return load_layout("generic").parse(Source(write_table(frame), None, CohortConfig(**settings)))

    return run


def test_columns_are_known_by_either_name(parse, biascxr_table):
    frame = biascxr_table(8)
    other = frame.rename(columns={"gender": "Sex", "age": "anchor_age", "ViewPosition": "view", "No Finding": "no_finding"})
    one, two = parse(frame), parse(other)
    pd.testing.assert_frame_equal(one.table, two.table)
    pd.testing.assert_frame_equal(one.labels, two.labels)


def test_labels_are_as_recorded(parse, biascxr_table):
    labels = parse(biascxr_table(4, Edema=["1", "0.0", "-1.0", " "], **{"No Finding": ["1.0", "", "", "1"]})).labels
    assert labels["Edema"].tolist()[:3] == [1, 0, -1]
    assert pd.isna(labels["Edema"][3])
    assert labels["No Finding"].fillna(-9).tolist() == [1, -9, -9, 1]


def test_labels_keep_the_data_sets_order(parse, biascxr_table):
    frame = biascxr_table(4)
    assert list(parse(frame[frame.columns[::-1]]).labels) == ["Cardiomegaly", "Edema", "No Finding"]


@pytest.mark.parametrize("value", ["2", "yes", "0.5", "nan?"])
def test_a_label_that_is_no_label_is_named_with_its_column(parse, biascxr_table, value):
    with pytest.raises(InputError, match=r"Label column 'Edema' holds .* \(2 such cells\); expected 1, 0, -1") as error:
        parse(biascxr_table(4, Edema=["1", value, value, ""]))
    assert repr(value) in str(error.value)


def test_a_table_without_labels_says_which_are_known(parse, biascxr_table):
    with pytest.raises(InputError, match="No label column found") as error:
        parse(biascxr_table(4).drop(columns=["Cardiomegaly", "Edema", "No Finding"]))
    assert all(name in str(error.value) for name in (*CHEXPERT_LABELS, "subject_id", "insurance"))


def test_what_is_not_recorded_is_unknown(parse, biascxr_table):
    values = ["WHITE", " white ", "UNABLE TO OBTAIN", "Patient Declined to Answer", "", "Unknown"]
    table = parse(biascxr_table(6, race=values, gender=["M", "female", "O", "", "F", "male"])).table
    assert table["race"].tolist() == ["WHITE", "white", "unknown", "unknown", "unknown", "unknown"]
    assert table["sex"].tolist() == ["M", "F", "unknown", "unknown", "F", "M"]


def test_attributes_that_the_table_lacks_are_not_invented(parse, biascxr_table):
    table = parse(biascxr_table(4, race=None, insurance=None, age=None, ViewPosition=None)).table
    assert not {"race", "insurance", "split"} & set(table)
    assert table["age"].isna().all()
    assert (table["view"] == "").all()


def test_impossible_ages_are_left_for_the_contract_to_count(parse, biascxr_table):
    assert parse(biascxr_table(3, age=["058Y", "414", "-1"])).table["age"].tolist() == [58, 414, -1]


def test_paths_start_from_the_table_or_from_the_folder_that_was_named(biascxr_table, write_table, tmp_path):
    path = write_table(biascxr_table(2))
    layout = load_layout("generic")
    assert layout.parse(Source(path, None, CohortConfig())).images_root == path.parent
    assert layout.parse(Source(path, tmp_path / "x", CohortConfig())).images_root == tmp_path / "x"
