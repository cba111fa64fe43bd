"""Layouts: found by header; what is missing is named with what was found."""

import pandas as pd
import pytest

from biascxr.cohort import LAYOUTS, find_layout, load_layout
from biascxr.config import CohortConfig
from biascxr.errors import InputError

HEADERS = {
    "mimic_cxr": [
        "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "StudyDate", "StudyTime",
    ],
    "chexpert": ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Edema"],
    "nih": ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position"],
    "midrc": ["Age", "Sex", "Race", "label", "Path", "filename"],
    "generic": ["race", "subject_id", "study_id", "dicom_id", "path", "Edema"],
}  # fmt: skip


def test_every_layout_has_a_header_here():
    assert set(HEADERS) == set(LAYOUTS)


def test_a_misspelt_layout_gets_the_nearest_one(tmp_path):
    with pytest.raises(InputError, match=r"Unknown layout 'mimic-cxr'\. Did you mean 'mimic_cxr'"):
        find_layout(tmp_path, None, CohortConfig(layout="mimic-cxr"))


def write(folder, columns, name="table.csv"):
    path = folder / name
    pd.DataFrame([[""] * len(columns)], columns=columns).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", LAYOUTS)
class TestEveryLayout:
    def test_is_found_by_its_header_alone(self, name, tmp_path):
        layout, source = find_layout(write(tmp_path, HEADERS[name]), None, CohortConfig())
        assert layout.name == name
        assert source.main == tmp_path / "table.csv"

    def test_names_the_missing_columns_and_those_found(self, name, tmp_path):
        required = load_layout(name).required
        for lacking in required:
            found = [c for c in HEADERS[name] if c != lacking]
            path = write(tmp_path, found)
            layout, source = find_layout(path, None, CohortConfig(layout=name))
            with pytest.raises(InputError) as error:
                layout.parse(source)
            assert f"missing: {lacking}." in str(error.value)
            assert f"Found: {', '.join(found)}." in str(error.value)

    def test_carries_a_card(self, name):
        card = load_layout(name).card
        for topic in (
            "Source:",
            "Access:",
            "Columns:",
            "Labels:",
            "Views:",
            "Known biases:",
            "Citation:",
            "Race",
            "Sex",
            "Age",
        ):
            assert topic in card, topic

    def test_findings_are_distinct(self, name):
        names = load_layout(name).label_names
        assert len(set(names)) == len(names) > 0

    def test_declares_what_is_constant(self, name):
        attributes = load_layout(name).attributes
        assert attributes["sex"] and not attributes["age_group"]


@pytest.mark.parametrize("name", [name for name in LAYOUTS if load_layout(name).main_files])
def test_a_folder_without_the_data_set_says_what_was_looked_for(name, tmp_path):
    with pytest.raises(InputError, match="No data set was recognised in the folder") as error:
        find_layout(tmp_path, None, CohortConfig(layout=name))
    assert load_layout(name).main_files[0] in str(error.value)


def test_a_table_of_no_known_form_names_what_each_form_lacks(tmp_path):
    with pytest.raises(InputError) as error:
        find_layout(write(tmp_path, ["subject_id", "study_id", "path", "Edema"]), None, CohortConfig())
    assert "nih lacks Image Index, Finding Labels" in str(error.value)
    assert "generic lacks dicom_id" in str(error.value)
    assert "Found: subject_id, study_id, path, Edema." in str(error.value)


def test_a_missing_path_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"--csv_path .*nowhere: no such file or folder"):
        find_layout(tmp_path / "nowhere", None, CohortConfig())
    with pytest.raises(InputError, match=r"Looked for mimic_cxr: mimic-cxr-.*nih: Data_Entry_2017"):
        find_layout(tmp_path, None, CohortConfig())


def test_a_forced_layout_is_not_guessed(tmp_path):
    assert find_layout(write(tmp_path, HEADERS["generic"]), None, CohortConfig(layout="nih"))[0].name == "nih"


def test_a_mapping_is_for_the_generic_layout_only(tmp_path):
    with pytest.raises(InputError, match="--mapping says how any other table is read; it does not go with --layout nih"):
        find_layout(write(tmp_path, HEADERS["nih"]), None, CohortConfig(layout="nih", mapping=tmp_path / "m.yaml"))


def test_a_companion_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"--companions .*mimiciv: no such file or folder"):
        find_layout(write(tmp_path, HEADERS["nih"]), None, CohortConfig(companions=(tmp_path / "mimiciv",)))


def test_two_tables_in_a_folder_are_not_chosen_between(tmp_path):
    for name in ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"):
        write(tmp_path, HEADERS["nih"], name)
    with pytest.raises(InputError, match="holds several tables of layout 'nih'"):
        find_layout(tmp_path, None, CohortConfig())


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

    def parse(self, folder, **columns):
        path = folder / "Data_Entry_2017_v2020.csv"
        self.frame(**columns).to_csv(path, index=False)
        layout, source = find_layout(folder, None, CohortConfig())
        return layout.parse(source)

    def test_findings_are_split_and_never_blank(self, tmp_path):
        labels = self.parse(tmp_path).labels
        assert labels.sum(axis=1).tolist() == [0, 2, 1]
        assert labels.loc[1, ["Edema", "Pleural_Thickening"]].tolist() == [1, 1]
        assert not labels.isna().to_numpy().any()

    def test_an_unknown_finding_is_named(self, tmp_path):
        with pytest.raises(InputError, match="Finding Labels holds 'Oedema', which is none of: Atelectasis"):
            self.parse(tmp_path, **{"Finding Labels": ["Edema", "Oedema", "Hernia"]})

    def test_race_is_not_in_the_table(self, tmp_path):
        assert "race" not in self.parse(tmp_path).table

    @pytest.mark.parametrize("place", ["", "images", "images_001/images"])
    def test_images_are_found_where_the_archives_unpack_to(self, tmp_path, place):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for name in self.frame()["Image Index"]:
            (tmp_path / place / name).write_bytes(b"")
        paths = self.parse(tmp_path).table["path"]
        assert all((tmp_path / path).is_file() for path in paths)

    def test_the_sample_is_found_from_the_folder_above_its_images(self, nih_folder):
        layout, source = find_layout(nih_folder / "Data_Entry_subset.csv", None, CohortConfig())
        parsed = layout.parse(source)
        assert all((parsed.images_root / path).is_file() for path in parsed.table["path"])

    def test_impossible_ages_are_left_for_the_contract_to_count(self, tmp_path):
        assert self.parse(tmp_path).table["age"].tolist() == [58, 59, 414]

    def test_the_official_lists_give_the_split(self, tmp_path):
        (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
        (tmp_path / "test_list.txt").write_text("\ufeff00000009_000.png\r\n")
        parsed = self.parse(tmp_path)
        assert parsed.table["split"].tolist() == ["train", "train", ""]
        assert "1 images are in neither list of the official split." in parsed.notes

    def test_one_list_alone_gives_no_split_and_is_said(self, tmp_path):
        (tmp_path / "test_list.txt").write_text("00000001_000.png\n")
        parsed = self.parse(tmp_path)
        assert "split" not in parsed.table
        assert "Of the lists of the official split only test_list.txt was found: it is not used." in parsed.notes

    @pytest.mark.parametrize(
        ("train", "message"),
        [(b"00000002_000.png\n", "1 images are in both lists"), (b"\xff\xfe\x00", "cannot be read as a list")],
    )
    def test_lists_that_contradict_or_are_damaged_are_named(self, tmp_path, train, message):
        (tmp_path / "train_val_list.txt").write_bytes(train)
        (tmp_path / "test_list.txt").write_text("00000002_000.png\n")
        with pytest.raises(InputError, match=message):
            self.parse(tmp_path)

    def test_a_stray_copy_at_the_root_hides_no_image(self, tmp_path):
        (tmp_path / "images_001").mkdir()
        for name in self.frame()["Image Index"]:
            (tmp_path / "images_001" / name).write_bytes(b"")
        (tmp_path / self.frame()["Image Index"][0]).write_bytes(b"")
        assert all((tmp_path / path).is_file() for path in self.parse(tmp_path).table["path"])

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda text: text.replace("Patient Age", "Age"), "missing: Patient Age"),
            (lambda text: "", "cannot be read as a CSV table"),
        ],
    )
    def test_a_damaged_table_in_a_folder_is_named_with_its_fault(self, tmp_path, damage, message):
        self.parse(tmp_path)
        table = tmp_path / "Data_Entry_2017_v2020.csv"
        table.write_text(damage(table.read_text()))
        with pytest.raises(InputError, match=message) as error:
            find_layout(tmp_path, None, CohortConfig())
        assert "Data_Entry_2017_v2020.csv" in str(error.value)

    def test_a_list_given_for_the_table_leads_to_the_table(self, tmp_path):
        self.parse(tmp_path)
        (tmp_path / "test_list.txt").write_text("x")
        assert find_layout(tmp_path / "test_list.txt", None, CohortConfig())[1].main.name == "Data_Entry_2017_v2020.csv"

    def test_images_that_move_change_the_fingerprint(self, tmp_path):
        self.parse(tmp_path)
        layout, source = find_layout(tmp_path, None, CohortConfig())
        before = layout.fingerprint(source)
        assert layout.fingerprint(source) == before
        (tmp_path / "images_001").mkdir()
        assert layout.fingerprint(source) != before
