"""Layouts: found by header; what is missing is named with what was found."""

import pandas as pd
import pytest

from biascxr.cohort import LAYOUTS, find_layout
from biascxr.cohort.build import load_layout
from biascxr.cohort.generic import CHEXPERT_LABELS
from biascxr.errors import InputError

HEADERS = {
    "nih": ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position"],
    "generic": ["race", "subject_id", "study_id", "dicom_id", "path", "Edema"],
}


def test_every_layout_has_a_header_here():
    assert set(HEADERS) == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
class TestEveryLayout:
    def test_is_found_by_its_header_alone(self, name):
        assert find_layout(pd.DataFrame(columns=HEADERS[name])).name == name

    def test_names_the_missing_columns_and_those_found(self, name):
        layout = load_layout(name)
        for lacking in layout.required:
            found = [c for c in HEADERS[name] if c != lacking]
            with pytest.raises(InputError) as error:
                layout.parse(pd.DataFrame(columns=found), None)
            message = str(error.value)
            assert f"missing: {lacking}." in message
            assert f"Found: {', '.join(found)}." in message

    def test_carries_a_card(self, name):
        card = load_layout(name).card
        for topic in ("Source:", "Columns:", "Labels:", "Views:", "Citation:", "Race"):
            assert topic in card

    def test_findings_are_fourteen_and_distinct(self, name):
        assert len(set(load_layout(name).label_names)) == 14


def test_a_table_of_no_known_form_names_what_each_form_lacks():
    with pytest.raises(InputError) as error:
        find_layout(pd.DataFrame(columns=["subject_id", "study_id", "path", "Edema"]))
    assert "nih lacks Image Index, Finding Labels" in str(error.value)
    assert "generic lacks dicom_id" in str(error.value)
    assert "Found: subject_id, study_id, path, Edema." in str(error.value)


def test_a_forced_layout_is_not_guessed():
    assert find_layout(pd.DataFrame(columns=HEADERS["generic"]), "nih").name == "nih"


class TestGeneric:
    def parse(self, frame):
        return load_layout("generic").parse(frame, None)

    def test_columns_are_known_by_either_name(self, biascxr_table):
        frame = biascxr_table(8)
        other = frame.rename(columns={"gender": "Sex", "age": "anchor_age", "ViewPosition": "view", "No Finding": "no_finding"})
        one, two = self.parse(frame), self.parse(other)
        pd.testing.assert_frame_equal(one.table, two.table)
        pd.testing.assert_frame_equal(one.labels, two.labels)

    def test_labels_are_as_recorded(self, biascxr_table):
        frame = biascxr_table(4, Edema=["1", "0.0", "-1.0", " "], **{"No Finding": ["1.0", "", "", "1"]})
        labels = self.parse(frame).labels
        assert labels["Edema"].tolist()[:3] == [1, 0, -1]
        assert pd.isna(labels["Edema"][3])
        assert labels["No Finding"].tolist() == [1, 0, 0, 1]

    def test_labels_keep_the_data_sets_order(self, biascxr_table):
        frame = biascxr_table(4)
        assert list(self.parse(frame[frame.columns[::-1]]).labels) == ["Cardiomegaly", "Edema", "No Finding"]

    @pytest.mark.parametrize("value", ["2", "yes", "0.5", "nan?"])
    def test_a_label_that_is_no_label_is_named_with_its_column(self, biascxr_table, value):
        frame = biascxr_table(4, Edema=["1", value, value, ""])
        with pytest.raises(InputError, match=r"Label column 'Edema' holds .* \(2 such cells\); expected 1, 0, -1") as error:
            self.parse(frame)
        assert repr(value) in str(error.value)

    def test_a_table_without_labels_says_which_are_known(self, biascxr_table):
        frame = biascxr_table(4).drop(columns=["Cardiomegaly", "Edema", "No Finding"])
        with pytest.raises(InputError, match="No label column found") as error:
            self.parse(frame)
        assert all(name in str(error.value) for name in (*CHEXPERT_LABELS, "subject_id", "insurance"))

    def test_what_is_not_recorded_is_unknown(self, biascxr_table):
        values = ["WHITE", " white ", "UNABLE TO OBTAIN", "Patient Declined to Answer", "", "Unknown"]
        table = self.parse(biascxr_table(6, race=values, gender=["M", "female", "O", "", "F", "male"])).table
        assert table["race"].tolist() == ["WHITE", "white", "unknown", "unknown", "unknown", "unknown"]
        assert table["sex"].tolist() == ["M", "F", "unknown", "unknown", "F", "M"]

    def test_attributes_that_the_table_lacks_are_not_invented(self, biascxr_table):
        table = self.parse(biascxr_table(4, race=None, insurance=None, age=None, ViewPosition=None)).table
        assert not {"race", "insurance", "split"} & set(table)
        assert table["age"].isna().all()
        assert (table["view"] == "").all()


class TestNih:
    def frame(self, **columns):
        base = {
            "Image Index": ["00000001_000.png", "00000001_001.png", "00000002_000.png"],
            "Finding Labels": ["No Finding", "Edema|Pleural_Thickening", "Hernia"],
            "Follow-up #": ["0", "1", "0"],
            "Patient ID": ["1", "1", "2"],
            "Patient Age": ["058Y", "59", "414"],
            "Patient Gender": ["F", "F", "M"],
            "View Position": ["PA", "AP", "AP"],
        }
        return pd.DataFrame(base | columns)

    def test_findings_are_split_and_never_blank(self, tmp_path):
        labels = load_layout("nih").parse(self.frame(), tmp_path).labels
        assert labels.sum(axis=1).tolist() == [0, 2, 1]
        assert labels.loc[1, ["Edema", "Pleural_Thickening"]].tolist() == [1, 1]
        assert not labels.isna().to_numpy().any()

    def test_an_unknown_finding_is_named(self, tmp_path):
        with pytest.raises(InputError, match="Finding Labels holds 'Oedema', which is none of: Atelectasis"):
            load_layout("nih").parse(self.frame(**{"Finding Labels": ["Edema", "Oedema", "Hernia"]}), tmp_path)

    def test_race_is_not_in_the_table(self, tmp_path):
        assert "race" not in load_layout("nih").parse(self.frame(), tmp_path).table

    @pytest.mark.parametrize("place", ["", "images", "images_001/images"])
    def test_images_are_found_where_the_archives_unpack_to(self, tmp_path, place):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for name in self.frame()["Image Index"]:
            (tmp_path / place / name).write_bytes(b"")
        paths = load_layout("nih").parse(self.frame(), tmp_path).table["path"]
        assert all((tmp_path / path).is_file() for path in paths)

    def test_the_sample_is_found_from_the_folder_above_its_images(self, nih_folder):
        frame = pd.read_csv(nih_folder / "Data_Entry_subset.csv", dtype=str, keep_default_na=False)
        paths = load_layout("nih").parse(frame, nih_folder).table["path"]
        assert all((nih_folder / path).is_file() for path in paths)
