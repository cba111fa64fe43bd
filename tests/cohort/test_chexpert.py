"""CheXpert and CheXpert Plus: small trees written by hand, in the shapes that Stanford gives them."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.cohort import build_cohort, find_layout
from biascxr.cohort.base import NOT_RECORDED
from biascxr.cohort.chexpert import Chexpert
from biascxr.cohort.chexpert_demographics import ethnicity_of, race_of
from biascxr.cohort.race import RACE_GROUPS
from biascxr.config import CohortConfig
from biascxr.errors import InputError

COLUMNS = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Cardiomegaly", "Edema"]
SMALL = "CheXpert-v1.0-small/"
TRAIN = [
    (SMALL + "train/patient00001/study1/view1_frontal.jpg", "Female", "68", "Frontal", "AP", "1.0", "", ""),
    (SMALL + "train/patient00002/study2/view1_frontal.jpg", "Female", "87", "Frontal", "PA", "", "-1.0", "1.0"),
    (SMALL + "train/patient00002/study2/view2_lateral.jpg", "Female", "87", "Lateral", "", "", "-1.0", "1.0"),
    (SMALL + "train/patient00003/study1/view1_frontal.jpg", "Male", "90", "Frontal", "LL", "", "0.0", ""),
    (SMALL + "train/patient00004/study1/view1_frontal.jpg", "Unknown", "0", "Frontal", "RL", "", "1.0", ""),
    (SMALL + "train/patient00005/study1/view1_frontal.jpg", "Male", "20", "Frontal", "AP", "", "", "0.0"),
]
VALID = [(SMALL + "valid/patient64541/study1/view1_frontal.jpg", "Male", "73", "Frontal", "AP", "0.0", "1.0", "0.0")]
DEMO = [
    ("patient00001", "Female", "68", "White, non-Hispanic", "Non-Hispanic/Non-Latino"),
    ("patient00002", "Female", "87", "Other, Hispanic", "Unknown"),
    ("patient00003", "Male", "90", "Patient Refused", ""),
    ("patient00004", "Male", "60", "White", "Hispanic/Latino"),
    ("patient00005", "Male", "20", "Asian", "Not Hispanic"),
    ("patient00005", "Male", "20", "Black or African American", "Not Hispanic"),
    ("patient99999", "Male", "20", "Martian", ""),
]
# Every text of the two columns that is known of, and what is to become of it.
RACES = {
    "White": ("WHITE", "unknown"),
    "White or Caucasian": ("WHITE", "unknown"),
    "White, non-Hispanic": ("WHITE", "non-Hispanic/Latino"),
    "White, Hispanic": ("WHITE", "Hispanic/Latino"),
    "Black or African American": ("BLACK/AFRICAN AMERICAN", "unknown"),
    "Black, non-Hispanic": ("BLACK/AFRICAN AMERICAN", "non-Hispanic/Latino"),
    "Black, Hispanic": ("BLACK/AFRICAN AMERICAN", "Hispanic/Latino"),
    "Asian": ("ASIAN", "unknown"),
    "Asian, non-Hispanic": ("ASIAN", "non-Hispanic/Latino"),
    "Asian, Hispanic": ("ASIAN", "Hispanic/Latino"),
    "Asian - Historical Conv": ("ASIAN", "unknown"),
    "Native Hawaiian or Other Pacific Islander": ("NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER", "unknown"),
    "Pacific Islander, non-Hispanic": ("NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER", "non-Hispanic/Latino"),
    "Pacific Islander, Hispanic": ("NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER", "Hispanic/Latino"),
    "American Indian or Alaska Native": ("AMERICAN INDIAN/ALASKA NATIVE", "unknown"),
    "Native American, Hispanic": ("AMERICAN INDIAN/ALASKA NATIVE", "Hispanic/Latino"),
    "Native American, non-Hispanic": ("AMERICAN INDIAN/ALASKA NATIVE", "non-Hispanic/Latino"),
    "Other": ("OTHER", "unknown"),
    "Other, Hispanic": ("OTHER", "Hispanic/Latino"),
    "Other, non-Hispanic": ("OTHER", "non-Hispanic/Latino"),
    "Unknown": ("unknown", "unknown"),
    "Race and Ethnicity Unknown": ("unknown", "unknown"),
    "Patient Refused": ("unknown", "unknown"),
    "": ("unknown", "unknown"),
    "Hispanic - Historical Conv": ("unknown", "Hispanic/Latino"),
}
ETHNICITIES = {
    "Hispanic/Latino": "Hispanic/Latino",
    "Hispanic": "Hispanic/Latino",
    "Non-Hispanic/Non-Latino": "non-Hispanic/Latino",
    "Not Hispanic": "non-Hispanic/Latino",
    "Unknown": "unknown",
    "Patient Refused": "unknown",
    "": "unknown",
}


def frame(rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def demo(rows=DEMO):
    return pd.DataFrame(rows, columns=["PATIENT", "GENDER", "AGE_AT_CXR", "PRIMARY_RACE", "ETHNICITY"])


@pytest.fixture
def tree(tmp_path):
    """Function `(demo=..., train=..., valid=...) -> Path`: the folder above `CheXpert-v1.0-small`."""

    def write(*, demographics=None, train=None, valid=None):
        folder = tmp_path / SMALL
        folder.mkdir(exist_ok=True)
        (frame(TRAIN) if train is None else train).to_csv(folder / "train.csv", index=False)
        (frame(VALID) if valid is None else valid).to_csv(folder / "valid.csv", index=False)
        if demographics is not None:
            demographics.to_excel(tmp_path / "CHEXPERT DEMO.xlsx", index=False)
        return tmp_path

    return write


def parse(path, images_root=None, **settings):
    layout, source = find_layout(path, images_root, CohortConfig(**settings))
    assert layout.name == "chexpert"
    return layout.parse(source)


class TestTables:
    def test_known_answers(self, tree):
        parsed = parse(tree(demographics=demo()))
        table = parsed.table
        assert table["image_id"].tolist()[:2] == ["patient00001/study1/view1_frontal", "patient00002/study2/view1_frontal"]
        assert table["study_id"].tolist()[1:3] == ["patient00002/study2"] * 2
        assert table["view"].tolist() == ["AP", "PA", "LATERAL", "LL", "RL", "AP", "AP"]
        assert table["split"].tolist() == ["train"] * 6 + ["test"]
        assert table["age"].fillna(-1).tolist() == [68, 87, 87, 90, -1, 20, 73]
        assert table["sex"].tolist() == ["F", "F", "F", "M", "M", "M", "M"]
        assert table["race"].tolist() == ["WHITE", "OTHER", "OTHER", "unknown", "WHITE", "unknown", "unknown"]
        not_hispanic, hispanic = "non-Hispanic/Latino", "Hispanic/Latino"
        assert table["ethnicity"].tolist() == [not_hispanic, hispanic, hispanic, "unknown", hispanic, not_hispanic, "unknown"]
        assert parsed.labels["Cardiomegaly"].fillna(-9).tolist() == [-9, -1, -1, 0, 1, -9, 1]
        assert list(parsed.labels) == ["No Finding", "Cardiomegaly", "Edema"]
        assert parsed.conflicting == {"race": frozenset({"patient00005"}), "ethnicity": frozenset()}
        assert parsed.unknown["race"] == {
            "declined to answer": 1,
            "recorded with several values": 1,
            "no row in CHEXPERT DEMO.xlsx": 1,
        }
        assert parsed.unknown["ethnicity"] == {"blank": 1, "no row in CHEXPERT DEMO.xlsx": 1}
        assert parsed.unknown["age_group"] == {"recorded as 0": 1}
        assert "sex" not in parsed.unknown  # the one that the tables do not say is in the demographics
        assert any("1 images with age 0" in note for note in parsed.notes)
        assert any("1 patients whose sex the tables do not say have it from CHEXPERT DEMO.xlsx" in n for n in parsed.notes)

    def test_the_folder_and_any_of_its_files_are_the_same_data_set(self, tree):
        folder = tree(demographics=demo())
        places = [folder, folder / SMALL, folder / SMALL / "train.csv", folder / SMALL / "valid.csv"]
        places.append(folder / "CHEXPERT DEMO.xlsx")
        tables = [parse(place).table for place in places]
        for table in tables[1:]:
            pd.testing.assert_frame_equal(table, tables[0])

    def test_test_csv_has_paths_and_labels_only(self, tree):
        folder = tree()
        test = pd.DataFrame(
            {"Path": ["test/patient64741/study1/view1_frontal.jpg", "test/patient64741/study1/view2_lateral.jpg"], "Edema": "1"}
        )
        test.to_csv(folder / SMALL / "test.csv", index=False)
        parsed = parse(folder)
        assert parsed.table["split"].tolist()[-3:] == ["valid", "test", "test"]
        assert parsed.table["view"].tolist()[-2:] == ["", "LATERAL"]
        assert parsed.table["sex"].tolist()[-2:] == ["unknown", "unknown"]
        assert parsed.table["age"].isna().tolist()[-2:] == [True, True]
        assert parsed.labels["Edema"].tolist()[-1] == 1
        assert parsed.labels["Cardiomegaly"].isna().tolist()[-1]

    def test_a_test_csv_of_another_data_set_is_left_alone(self, tree, biascxr_table):
        path = tree() / SMALL / "test.csv"
        biascxr_table(3).to_csv(path, index=False)
        assert find_layout(path, None, CohortConfig())[0].name == "generic"

    def test_a_table_of_another_name_stands_alone(self, tree):
        folder = tree()
        frame(TRAIN[:2]).to_csv(folder / SMALL / "train_cheXbert.csv", index=False)
        assert len(parse(folder / SMALL / "train_cheXbert.csv").table) == 2
        assert len(parse(folder).table) == 7

    def test_without_the_demographics_it_works_and_says_what_to_give(self, tree):
        parsed = parse(tree())
        assert not {"race", "ethnicity"} & set(parsed.table)
        assert any("CHEXPERT DEMO.xlsx, which was not found" in n and "--companions" in n for n in parsed.notes)
        assert parsed.unknown["sex"] == {"recorded as unknown": 1}

    def test_two_data_sets_in_a_folder_are_not_chosen_between(self, tree):
        folder = tree()
        (folder / "full").mkdir()
        frame(TRAIN).to_csv(folder / "full" / "train.csv", index=False)
        with pytest.raises(InputError, match="holds several tables of layout 'chexpert'"):
            find_layout(folder, None, CohortConfig())

    @pytest.mark.parametrize("which", ["train", "valid"])
    def test_a_label_that_only_one_of_the_tables_has_is_an_error(self, tree, which):
        """Blank in the other one, it would be a negative there, and nobody would know."""
        tables = {"train": frame(TRAIN), "valid": frame(VALID)}
        tables[which] = tables[which].rename(columns={"Edema": "edema "})
        with pytest.raises(InputError, match=rf"CheXpert needs the columns .* in {which}\.csv; missing: Edema"):
            parse(tree(**tables))

    @pytest.mark.parametrize("path", ["patient00001/study1/view1_frontal.jpg", "x.png", "", "train/patient1/view1.jpg"])
    def test_a_path_of_another_form_is_named(self, tree, path):
        train = frame(TRAIN)
        train.loc[2, "Path"] = path
        with pytest.raises(InputError, match=r"1 paths are not of CheXpert's form; expected"):
            parse(tree(train=train))

    @pytest.mark.parametrize(
        ("column", "value", "message"),
        [("Age", "old", "Column 'Age' holds 'old'"), ("Edema", "yes", "Label column 'Edema' holds 'yes'")],
    )
    def test_a_cell_of_the_wrong_kind_is_named(self, tree, column, value, message):
        train = frame(TRAIN)
        train.loc[1, column] = value
        with pytest.raises(InputError, match=message):
            parse(tree(train=train))

    def test_a_column_that_one_of_the_tables_lacks_is_named_with_the_table(self, tree):
        with pytest.raises(InputError, match=r"in valid\.csv; missing: Sex\. Found: Path, Gender"):
            parse(tree(valid=frame(VALID).rename(columns={"Sex": "Gender"})))

    def test_a_table_without_labels_is_named(self, tree):
        bare = [frame(rows)[COLUMNS[:5]] for rows in (TRAIN, VALID)]
        with pytest.raises(InputError, match=r"train\.csv holds none of the labels"):
            parse(tree(train=bare[0], valid=bare[1]))

    @pytest.mark.parametrize("dress", ["bom", "crlf"])
    def test_the_same_table_in_another_dress_is_the_same_table(self, tree, dress):
        folder = tree()
        plain = parse(folder).table
        data = (folder / SMALL / "train.csv").read_bytes()
        data = b"\xef\xbb\xbf" + data if dress == "bom" else data.replace(b"\n", b"\r\n")
        (folder / SMALL / "train.csv").write_bytes(data)
        pd.testing.assert_frame_equal(parse(folder).table, plain)

    @pytest.mark.parametrize("data", [b"", b"Path\n", gzip.compress(b"Path")[:-4]], ids=["empty", "no rows", "not a table"])
    def test_a_broken_table_beside_the_main_one_is_named(self, tree, data):
        folder = tree()
        (folder / SMALL / "valid.csv").write_bytes(data)
        with pytest.raises(InputError, match=r"valid\.csv"):
            parse(folder)


class TestDemographics:
    def test_every_known_text_has_its_answer(self):
        assert {text: (race_of(text)[0], ethnicity_of(text)[0]) for text in RACES} == RACES
        assert {text: ethnicity_of(text)[0] for text in ETHNICITIES} == ETHNICITIES

    @settings(max_examples=200, deadline=None)
    @given(st.one_of(st.text(max_size=30), st.sampled_from([*RACES, *NOT_RECORDED]).map(lambda t: f" {t.swapcase()}  ")))
    def test_every_text_has_a_group_or_a_reason(self, text):
        race, why = race_of(text)
        assert (race in RACE_GROUPS and why in ("", "unforeseen")) or (race == "unknown" and why not in ("", "unforeseen"))
        ethnicity, why = ethnicity_of(text)
        assert (ethnicity == "unknown") == (why != "")

    @pytest.mark.parametrize("text", RACES)
    def test_case_and_blanks_do_not_matter(self, text):
        assert race_of(f"  {text.upper().replace(' ', '  ')} ") == race_of(text)

    def test_combined_makes_hispanic_patients_a_group_and_leaves_no_ethnicity(self, tree):
        folder = tree(demographics=demo())
        layout, source = find_layout(folder, None, CohortConfig(hispanic_policy="combined"))
        parsed = layout.parse(source)
        hispanic = "HISPANIC/LATINO"
        assert parsed.table["race"].tolist() == ["WHITE", hispanic, hispanic, "unknown", hispanic, "unknown", "unknown"]
        assert "ethnicity" not in parsed.table
        assert "ethnicity" not in layout.attributes
        assert "ethnicity" in Chexpert.attributes

    @pytest.mark.parametrize(("policy", "word"), [("separate", "attribute of its own"), ("combined", "whatever their race")])
    def test_the_policy_is_printed(self, tree, policy, word):
        notes = " ".join(parse(tree(demographics=demo()), hispanic_policy=policy).notes)
        assert word in notes
        assert f"hispanic_policy {policy}" in notes
        assert "ASIAN from ASIAN" in notes

    @pytest.mark.parametrize(("policy", "race"), [("first", "ASIAN"), ("unknown", "unknown"), ("majority", "unknown")])
    def test_several_records_of_a_patient_are_settled(self, tree, policy, race):
        parsed = parse(tree(demographics=demo()), conflict_policy=policy)
        assert parsed.table.set_index("patient_id")["race"]["patient00005"] == race
        assert parsed.conflicting["race"] == {"patient00005"}

    def test_a_text_that_no_rule_foresees_is_other_and_counted(self, tree):
        rows = [("patient00001", "Female", "68", "Martian", ""), ("patient00002", "Female", "87", "martian ", "")]
        parsed = parse(tree(demographics=demo(rows)))
        assert parsed.table["race"].tolist()[:2] == ["OTHER", "OTHER"]
        assert any("2 patients have a record of race 'MARTIAN'" in note for note in parsed.notes)

    def test_a_race_text_against_the_ethnicity_column_is_counted(self, tree):
        rows = [("patient00001", "Female", "68", "White, non-Hispanic", "Hispanic/Latino")]
        parsed = parse(tree(demographics=demo(rows)))
        assert parsed.table["ethnicity"][0] == "Hispanic/Latino"
        assert any("1 patients' race text and ethnicity contradict" in note for note in parsed.notes)

    def test_a_sheet_is_found_among_others(self, tree):
        folder = tree()
        with pd.ExcelWriter(folder / "CHEXPERT DEMO.xlsx") as book:
            pd.DataFrame({"Column": ["PATIENT"], "Meaning": ["who"]}).to_excel(book, sheet_name="ReadMe", index=False)
            demo().to_excel(book, sheet_name="Data", index=False)
            pd.DataFrame().to_excel(book, sheet_name="Empty", index=False)
        assert parse(folder).table["race"][0] == "WHITE"

    def test_two_such_sheets_are_not_chosen_between(self, tree):
        folder = tree()
        with pd.ExcelWriter(folder / "CHEXPERT DEMO.xlsx") as book:
            demo().to_excel(book, sheet_name="One", index=False)
            demo().to_excel(book, sheet_name="Two", index=False)
        with pytest.raises(InputError, match="several sheets with the columns PATIENT and PRIMARY_RACE: One, Two"):
            parse(folder)

    def test_a_workbook_without_the_columns_says_what_it_has(self, tree):
        folder = tree(demographics=demo().rename(columns={"PRIMARY_RACE": "RACE"}))
        with pytest.raises(
            InputError, match=r"no sheet with the columns PATIENT and PRIMARY_RACE\. Found Sheet1: PATIENT, GENDER"
        ):
            parse(folder)

    @pytest.mark.parametrize("data", [b"", b"PATIENT,PRIMARY_RACE\n", b"PK\x03\x04broken"], ids=["empty", "csv", "broken zip"])
    def test_what_is_no_workbook_is_named(self, tree, data):
        folder = tree()
        (folder / "CHEXPERT DEMO.xlsx").write_bytes(data)
        with pytest.raises(InputError, match=r"CHEXPERT DEMO\.xlsx cannot be read as an Excel workbook"):
            parse(folder)

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
    def test_a_truncated_workbook_is_named(self, tree, share):
        path = tree(demographics=demo()) / "CHEXPERT DEMO.xlsx"
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match="cannot be read as an Excel workbook"):
            parse(path.parent)

    def test_another_zip_is_named(self, tree):
        import zipfile

        folder = tree()
        with zipfile.ZipFile(folder / "CHEXPERT DEMO.xlsx", "w") as archive:
            archive.writestr("hello.txt", "hello")
        with pytest.raises(InputError, match="cannot be read as an Excel workbook"):
            parse(folder)

    def test_a_header_alone_and_other_patients_are_named(self, tree):
        with pytest.raises(InputError, match=r"has the columns of CHEXPERT DEMO\.xlsx and no rows"):
            parse(tree(demographics=demo([])))
        with pytest.raises(InputError, match="none of the 6 patients of the tables is in it"):
            parse(tree(demographics=demo(DEMO[-1:])))

    def test_companions_come_before_what_lies_beside(self, tree, tmp_path_factory):
        folder = tree(demographics=demo())
        other = tmp_path_factory.mktemp("other")
        demo([("patient00001", "Female", "68", "Asian", "")]).to_excel(other / "recorded.xlsx", index=False)
        assert parse(folder, companions=(other / "recorded.xlsx",)).table["race"][0] == "ASIAN"

    def test_the_same_as_csv_and_changes_the_fingerprint(self, tree):
        folder = tree()
        layout, source = find_layout(folder, None, CohortConfig())
        before = layout.fingerprint(source)
        demo().to_csv(folder / "CHEXPERT DEMO.csv", index=False)
        assert layout.fingerprint(source) != before
        assert layout.parse(source).table["race"][0] == "WHITE"


class TestImages:
    def touch(self, root, paths):
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(b"")

    def all_there(self, parsed):
        return all((parsed.images_root / path).is_file() for path in parsed.table["path"])

    @pytest.mark.parametrize("root", [None, "", SMALL])
    def test_are_found_from_above_and_from_within(self, tree, root):
        folder = tree()
        self.touch(folder, frame(TRAIN + VALID)["Path"])
        assert self.all_there(parse(folder, None if root is None else folder / root))

    def test_are_found_where_the_user_has_them(self, tree, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("disk")
        self.touch(elsewhere, frame(TRAIN + VALID)["Path"].str.removeprefix(SMALL))
        parsed = parse(tree(), elsewhere)
        assert parsed.images_root == elsewhere
        assert self.all_there(parsed)

    def test_are_found_in_the_full_size_s_archives(self, tmp_path):
        """Four archives, each unpacked to a folder of its own; the first has the tables, whose paths name none of them."""
        one, two, three = (
            tmp_path / f"CheXpert-v1.0 batch {name}" for name in ("1 (validate & csv)", "2 (train 1)", "3 (train 2)")
        )
        one.mkdir()
        for name, rows in (("train", TRAIN), ("valid", VALID)):
            table = frame(rows)
            table["Path"] = table["Path"].str.replace(SMALL, "CheXpert-v1.0/")
            table.to_csv(one / f"{name}.csv", index=False)
        paths = frame(TRAIN)["Path"].str.removeprefix(SMALL + "train/")
        self.touch(two, paths[:3])
        self.touch(three, paths[3:])
        self.touch(one, frame(VALID)["Path"].str.removeprefix(SMALL))
        for place in (one / "train.csv", tmp_path):
            parsed = parse(place)
            assert parsed.images_root == tmp_path
            assert self.all_there(parsed)
        layout, source = find_layout(tmp_path, None, CohortConfig())
        before = layout.fingerprint(source)
        (tmp_path / "CheXpert-v1.0 batch 4 (train 3)").mkdir()
        assert layout.fingerprint(source) != before

    def test_that_are_nowhere_keep_the_recorded_path(self, tree):
        parsed = parse(tree())
        assert parsed.table["path"].tolist() == frame(TRAIN + VALID)["Path"].tolist()


class TestPlus:
    def table(self, **columns):
        rows = frame(TRAIN + VALID)
        base = {
            "path_to_image": rows["Path"].str.removeprefix(SMALL),
            "path_to_dcm": "x",
            "frontal_lateral": rows["Frontal/Lateral"],
            "ap_pa": rows["AP/PA"],
            "deid_patient_id": rows["Path"].str.extract("(patient[0-9]+)")[0],
            "report": "a, long\ntext",
            "age": rows["Age"],
            "sex": rows["Sex"],
            "race": ["White, non-Hispanic", "Asian", "Asian", "Unknown", "Other", "Black or African American", ""],
            "ethnicity": ["", "Not Hispanic", "Not Hispanic", "Patient Refused", "Hispanic", "", ""],
            "insurance_type": ["Medicare", "Medicaid", "Private Insurance", "Unknown", "Medicare", "", "Medicare"],
            "split": rows["Path"].str.extract("(train|valid)")[0],
        }
        return pd.DataFrame(base | columns)

    def write(self, folder, **columns):
        self.table(**columns).to_csv(folder / "df_chexpert_plus_240401.csv", index=False)
        return folder / "df_chexpert_plus_240401.csv"

    def labels(self, folder, rows=(*TRAIN, *VALID), name="report_fixed.json"):
        (folder / "chexbert_labels").mkdir(exist_ok=True)
        lines = [
            json.dumps(
                {"path_to_image": r[0].removeprefix(SMALL)}
                | {n: None if v == "" else float(v) for n, v in zip(COLUMNS[5:], r[5:], strict=True)}
            )
            for r in rows
        ]
        (folder / "chexbert_labels" / name).write_text("\n".join(lines))
        return folder / "chexbert_labels" / name

    def test_reads_the_same_cohort_as_the_tables_it_extends(self, tmp_path, tree, tmp_path_factory):
        plus = tmp_path_factory.mktemp("plus")
        self.write(plus)
        self.labels(plus)
        parsed, plain = parse(plus), parse(tree())
        same = ["image_id", "study_id", "patient_id", "view", "age", "sex", "split"]
        pd.testing.assert_frame_equal(parsed.table[same], plain.table[same])
        pd.testing.assert_frame_equal(parsed.labels, plain.labels)
        assert parsed.table["race"].tolist() == [
            "WHITE",
            "ASIAN",
            "ASIAN",
            "unknown",
            "OTHER",
            "BLACK/AFRICAN AMERICAN",
            "unknown",
        ]
        assert parsed.table["insurance"].tolist()[2:6] == ["Private Insurance", "unknown", "Medicare", "unknown"]
        assert parsed.unknown["insurance"] == {"blank": 1, "recorded as unknown": 1}
        assert parsed.unknown["race"] == {"blank": 1, "recorded as unknown": 1}

    def test_labels_of_chexpert_s_tables_are_joined_by_path(self, tree, tmp_path_factory):
        plus = tmp_path_factory.mktemp("plus")
        path = self.write(plus)
        parsed = parse(path, companions=(tree(valid=frame(VALID)) / SMALL,))
        assert parsed.labels["Edema"].fillna(-9).tolist() == [-9, 1, 1, -9, -9, 0, 0]
        assert any("Labels were joined by path from train.csv, valid.csv" in note for note in parsed.notes)

    def test_films_without_labels_are_blank_and_counted(self, tmp_path):
        self.labels(tmp_path, TRAIN[:2])
        parsed = parse(self.write(tmp_path))
        assert parsed.labels.iloc[2:].isna().all(axis=None)
        assert any("5 images are not in report_fixed.json" in note for note in parsed.notes)

    def test_labels_in_the_table_itself_are_taken(self, tmp_path):
        path = self.write(tmp_path, Edema=["1", "0", "0", "-1", "", "1", "0"])
        assert parse(path).labels["Edema"].fillna(-9).tolist() == [1, 0, 0, -1, -9, 1, 0]

    def test_without_labels_it_says_where_they_are(self, tmp_path):
        with pytest.raises(InputError, match=r"holds no labels.*chexbert_labels/report_fixed\.json.*train\.csv.*--companions"):
            parse(self.write(tmp_path))

    def test_several_label_files_are_not_chosen_between(self, tmp_path):
        path = self.write(tmp_path)
        self.labels(tmp_path)
        impression = self.labels(tmp_path, name="impression_fixed.json")
        with pytest.raises(InputError, match="Several files could hold CheXpert Plus's labels"):
            parse(path, companions=(tmp_path / "chexbert_labels",))
        assert any("from impression_fixed.json" in note for note in parse(path, companions=(impression,)).notes)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "cannot be read as one JSON object a line"),
            ("", "it holds nothing"),
            ("[1, 2]", "it holds something else"),
            ('{"Edema": 1}', "missing: path_to_image"),
            ('{"path_to_image": "train/patient00001/study1/view1_frontal.jpg"}', "holds none of CheXpert's labels"),
            ('{"path_to_image": "elsewhere", "Edema": 1}', "paths are not of CheXpert's form"),
            ('{"path_to_image": "train/patient7/study1/v.jpg", "Edema": 1}', "None of the 7 films"),
            (
                '{"path_to_image": "train/patient00001/study1/view1_frontal.jpg", "Edema": {"a": 1}}',
                "Label column 'Edema' holds",
            ),
        ],
    )
    def test_a_broken_label_file_is_named(self, tmp_path, text, message):
        path = self.write(tmp_path)
        self.labels(tmp_path).write_text(text)
        with pytest.raises(InputError, match=message):
            parse(path)

    def test_a_missing_column_is_named(self, tmp_path):
        path = tmp_path / "df_chexpert_plus_240401.csv"
        self.table().drop(columns="race").to_csv(path, index=False)
        with pytest.raises(InputError, match=r"CheXpert Plus needs the columns .*missing: race"):
            parse(path)

    def test_png_images_are_found_under_their_own_ending(self, tmp_path):
        path = self.write(tmp_path)
        self.labels(tmp_path)
        for image in self.table()["path_to_image"].str.replace(".jpg", ".png"):
            (tmp_path / "PNG" / "PNG" / image).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "PNG" / "PNG" / image).write_bytes(b"")
        parsed = parse(path)
        assert all((parsed.images_root / p).is_file() for p in parsed.table["path"])


def test_becomes_a_cohort(tree):
    rng = np.random.default_rng(0)
    n = 120
    patients = [f"patient{i:05d}" for i in range(n)]
    train = pd.DataFrame(
        {
            "Path": [f"{SMALL}train/{p}/study1/view1_frontal.jpg" for p in patients],
            "Sex": rng.choice(["Male", "Female"], n),
            "Age": rng.integers(20, 91, n).astype(str),
            "Frontal/Lateral": "Frontal",
            "AP/PA": "AP",
            "No Finding": rng.choice(["1.0", ""], n),
            "Cardiomegaly": rng.choice(["1.0", "0.0"], n),
            "Edema": rng.choice(["1.0", "0.0", "-1.0", ""], n),
        }
    )
    recorded = pd.DataFrame(
        {
            "PATIENT": patients,
            "PRIMARY_RACE": rng.choice(["White", "Asian, Hispanic", "Unknown"], n),
            "ETHNICITY": "Not Hispanic",
        }
    )
    recorded.loc[:40, "ETHNICITY"] = "Hispanic/Latino"
    cohort = build_cohort(tree(train=train, valid=frame(VALID), demographics=recorded), None, CohortConfig(), seed=0)
    assert {a.name for a in cohort.attributes} == {"sex", "race", "ethnicity", "age_group"}
    assert not np.isnan(cohort.labels[:, cohort.label_names.index("No Finding")]).any()
    assert "hispanic_policy separate" in " ".join(cohort.accounting["notes"])
