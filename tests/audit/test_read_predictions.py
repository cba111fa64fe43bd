"""Anybody's table is read as it is: digits, order and identifiers kept; each fault named or counted, no patient named."""

import gzip
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from biascxr.audit import audit, parse_predictions, read_predictions
from biascxr.config import AuditConfig
from biascxr.containers import EXACT_DIGITS
from biascxr.errors import InputError
from biascxr.metrics import auroc


def table(n: int = 12, **columns) -> pd.DataFrame:
    """Two images a patient, two findings; keyword columns replace or add, None leaves one out."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)],
            "patient_id": [f"secret{i // 2}" for i in range(n)],
            "sex": [("F", "M")[i // 2 % 2] for i in range(n)],
            "true_A": [i % 2 for i in range(n)],
            "true_B": [i // 3 % 2 for i in range(n)],
            "prob_A": rng.random(n),
            "prob_B": rng.random(n),
        }
    )
    for name, values in columns.items():
        frame = frame.drop(columns=name) if values is None else frame.assign(**{name: values})
    return frame


def one(read):
    """Returns the only predictions of a file."""
    (predictions,) = read.predictions.values()
    return predictions


def with_cell(column: str, row: int, value) -> pd.DataFrame:
    frame = table()
    frame[column] = frame[column].astype(object)
    frame.loc[row, column] = value
    return frame


def fault(frame: pd.DataFrame, **options) -> str:
    """Returns the error's message, having checked that it names no patient."""
    with pytest.raises(InputError) as error:
        parse_predictions(frame, **options)
    assert "secret" not in str(error.value)
    return str(error.value)


@pytest.fixture
def write(tmp_path):
    """Function `(frame, name) -> Path`."""

    def to_disk(frame, name="preds.csv"):
        path = tmp_path / name
        frame.to_parquet(path, index=False) if name.endswith("parquet") else frame.to_csv(path, index=False)
        return path

    return to_disk


class TestTheRealTable:
    @pytest.fixture(scope="class")
    def path(self, nih_folder):
        return nih_folder / "chexnet_predictions.csv.gz"

    @pytest.fixture(scope="class")
    def read(self, path):
        return read_predictions(path, attributes=("sex", "age_group"))

    def test_everything_is_used(self, read):
        predictions = read.predictions["chexnet_predictions"]
        assert len(predictions.table) == 22_433
        assert predictions.table["patient_id"].nunique() == 6_187
        assert len(predictions.label_names) == 14
        assert [(a.name, a.groups, a.constant) for a in predictions.attributes] == [
            ("sex", ("F", "M"), True),
            ("age_group", ("0-20", "20-40", "40-60", "60-80", "80+"), False),
        ]

    def test_crossing_an_age_boundary_is_counted_and_no_warning(self, read):
        assert "age_group changes within 209 patients: it is taken as varying in time." in read.notes
        assert read.warnings == ()

    def test_aurocs_are_those_of_scikit_learn_on_the_files_own_digits(self, read, path):
        frame = pd.read_csv(path, **EXACT_DIGITS)
        predictions = one(read)
        for index, name in enumerate(predictions.label_names):
            np.testing.assert_array_equal(predictions.scores[:, index], frame[f"prob_{name}"])
            expected = roc_auc_score(frame[f"true_{name}"], frame[f"prob_{name}"])
            assert auroc(predictions.y_true[:, index], predictions.scores[:, index]) == pytest.approx(expected, abs=1e-9)

    def test_groups_are_those_of_the_table(self, read, path):
        frame = pd.read_csv(path)
        assert one(read).table["sex"].tolist() == frame["sex"].tolist()
        expected = pd.cut(frame["age"], [0, 20, 40, 60, 80, 121], right=False).cat.codes
        names = np.array(["0-20", "20-40", "40-60", "60-80", "80+"])
        assert one(read).table["age_group"].tolist() == names[expected].tolist()


class TestFiles:
    @pytest.mark.parametrize("name", ["my.model.csv", "my.model.csv.gz", "my.model.CSV", "my.model.parquet"])
    def test_is_read_by_its_ending_and_gives_its_name(self, write, name):
        read = read_predictions(write(table(), name))
        assert list(read.predictions) == ["my.model"]
        assert set(one(read).table["recipe"]) == {"my.model"}
        np.testing.assert_array_equal(one(read).scores, table()[["prob_A", "prob_B"]])

    @pytest.mark.parametrize(("ending", "dtype"), [("csv", float), ("parquet", float), ("parquet", np.float32)])
    def test_what_predictions_save_is_read_again(self, random_predictions, tmp_path, ending, dtype):
        made = random_predictions()
        made = replace(made, scores=made.scores.astype(dtype))
        made.save(tmp_path / f"p.{ending}")
        read = read_predictions(tmp_path / f"p.{ending}", attributes=("sex", "race"))
        again = one(read)
        assert again.label_names == made.label_names
        assert again.attributes == made.attributes
        assert again.scores.dtype == made.scores.dtype
        for block in ("y_true", "scores", "decisions"):
            np.testing.assert_array_equal(getattr(again, block), getattr(made, block))
        pd.testing.assert_frame_equal(again.table, made.table, check_dtype=False)

    def test_no_digit_of_a_score_is_lost(self, write):
        scores = np.random.default_rng(0).random(4000) ** 8  # pandas before 3.1 is off by a bit in some, left alone
        frame = pd.DataFrame({"patient_id": range(4000), "true_A": [0, 1] * 2000, "prob_A": scores})
        np.testing.assert_array_equal(one(read_predictions(write(frame))).scores[:, 0], scores)

    @pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
    def test_identifiers_are_text(self, write, name):
        frame = table(patient_id=[f"{i // 2:03d}" for i in range(12)], image_id=range(12))
        got = one(read_predictions(write(frame, name))).table
        assert got["patient_id"].tolist() == frame["patient_id"].tolist()
        assert got["image_id"].tolist() == [str(i) for i in range(12)]

    def test_whole_identifiers_kept_as_floats_have_no_point(self):
        assert one(parse_predictions(table(patient_id=[float(i // 2) for i in range(12)]))).table["patient_id"][2] == "1"

    def test_an_index_in_parquet_is_a_column(self, tmp_path):
        table().set_index("image_id").to_parquet(tmp_path / "p.parquet")
        assert one(read_predictions(tmp_path / "p.parquet")).table["image_id"].tolist() == table()["image_id"].tolist()

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("p.csv", b"", r"p\.csv cannot be read .*expected a table of predictions"),
            ("p.csv.gz", b"no gzip", r"p\.csv\.gz cannot be read"),
            ("p.csv.gz", gzip.compress(b"patient_id\n" * 1000, mtime=0)[:-12], r"p\.csv\.gz cannot be read"),
            ("p.csv", b"\x89PNG\r\n\x1a\n\xff\xfe", r"p\.csv cannot be read"),
            ("p.parquet", b"no parquet", r"p\.parquet cannot be read"),
            ("p.xlsx", b"PK", r"p\.xlsx has an unknown ending; .*\.csv, \.csv\.gz, \.parquet"),
            ("p.csv", b"patient_id,true_A,prob_A\n", r"p\.csv: The table has a header but no row"),
            ("p.csv", b"patient_id,true_A,prob_A\nx,1,1,0.5\n", "more cells than its header, which has 3"),
            ("p.csv", b"patient_id;true_A;prob_A\n1;1;0.5\n", r"p\.csv: There is no column patient_id"),
            ("p.csv", b"patient_id,prob_A,true_A,prob_A\nx,1,1,0.5\n", "Columns occur twice: prob_A"),
        ],
    )
    def test_what_is_no_table_is_named(self, tmp_path, name, content, message):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_predictions(tmp_path / name)

    def test_a_missing_file_and_a_folder_are_named(self, tmp_path):
        with pytest.raises(InputError, match=r"gone\.csv: no such file; expected a table"):
            read_predictions(tmp_path / "gone.csv")
        (tmp_path / "folder.csv").mkdir()
        with pytest.raises(InputError, match=r"folder\.csv is a folder; expected a table"):
            read_predictions(tmp_path / "folder.csv")

    def test_a_group_called_none_is_a_group(self, write):
        read = read_predictions(write(table(insurance=["None", "Medicare"] * 6)), attributes=("insurance",))
        assert one(read).attributes[0].groups == ("Medicare", "None")


class TestColumns:
    @pytest.mark.parametrize("alias", ["subject_id", "PatientID", "Patient ID"])
    def test_a_patient_may_be_called_otherwise(self, alias):
        read = parse_predictions(table().rename(columns={"patient_id": alias, "image_id": "dicom_id"}))
        assert one(read).table["patient_id"].tolist() == table()["patient_id"].tolist()
        assert f"Column '{alias}' is read as patient_id." in read.notes
        assert "Column 'dicom_id' is read as image_id." in read.notes

    def test_two_names_for_the_patient_are_an_error(self):
        frame = table(patient_id=None, subject_id="1", PatientID="1")
        assert "Both 'subject_id' and 'PatientID' may be patient_id" in fault(frame)

    def test_without_a_patient_close_columns_are_named(self):
        message = fault(table().rename(columns={"patient_id": "patient_number"}))
        assert "no column patient_id" in message
        assert "Close: patient_number." in message

    @pytest.mark.parametrize("blank", ["", None, "nan"])
    @pytest.mark.parametrize("column", ["patient_id", "image_id"])
    def test_a_blank_identifier_is_an_error(self, column, blank):
        assert f"Column '{column}' is blank in 1 rows (first: data row 4)" in fault(with_cell(column, 3, blank))

    def test_rows_without_image_id_are_numbered(self):
        read = parse_predictions(table(image_id=None))
        assert one(read).table["image_id"].tolist() == [str(i) for i in range(12)]
        assert any("No image_id: rows are numbered" in note for note in read.notes)

    def test_without_a_study_an_image_is_one(self):
        got = one(parse_predictions(table())).table
        assert got["study_id"].equals(got["image_id"].rename("study_id"))
        assert "unit='study' needs a column study_id" in fault(table(), unit="study")

    def test_a_blank_study_is_an_image_unless_studies_are_the_unit(self):
        frame = table(study_id=["", *(["s"] * 11)])
        read = parse_predictions(frame)
        assert one(read).table["study_id"][0] == "i0"
        assert "study_id is blank in 1 rows: each is a study of its own." in read.notes
        assert "Column 'study_id' is blank in 1 rows" in fault(frame, unit="study")

    def test_every_row_is_a_test_row_unless_it_says_otherwise(self):
        assert set(one(parse_predictions(table())).table["split"]) == {"test"}
        read = parse_predictions(table(split=["Test", " calibration", ""] * 4))
        assert one(read).table["split"].tolist() == ["test", "calibration", "unknown"] * 4
        assert "split is blank in 4 rows: they are in split 'unknown'." in read.notes

    def test_an_unknown_choice_is_named(self):
        assert "Unknown unit 'patient'" in fault(table(), unit="patient")
        assert "Unknown duplicates 'last'" in fault(table(), duplicates="last")


class TestLabels:
    def test_a_score_without_labels_is_a_note(self):
        read = parse_predictions(table(prob_C=0.5, decision_D=1))
        assert one(read).label_names == ("A", "B")
        assert "Not used, for want of a true_<label>: prob_C, decision_D." in read.notes

    def test_labels_without_a_score_are_an_error_unless_left_out(self):
        frame = table(true_C=[0, 1] * 6)
        assert "lacking: prob_C" in fault(frame)
        assert one(parse_predictions(frame, labels=("B",))).label_names == ("B",)
        assert "lacking: prob_C" in fault(frame, labels=("C",))
        assert "Unknown label 'a'" in fault(frame, labels=("a",))
        assert "no true_<label> column" in fault(table(true_A=None, true_B=None))

    @pytest.mark.parametrize("values", [[True, False] * 6, ["True", "false"] * 6, ["1", "0"] * 6, [1.0, 0.0] * 6])
    def test_yes_and_no_may_be_words_or_numbers(self, values):
        assert one(parse_predictions(table(true_A=values))).y_true[:, 0].tolist() == [1, 0] * 6

    @pytest.mark.parametrize("blank", ["", "NaN", None, "null"])
    def test_a_blank_label_is_nan(self, blank):
        y = one(parse_predictions(with_cell("true_A", 4, blank))).y_true
        assert np.isnan(y[4, 0])
        assert np.isnan(y).sum() == 1

    def test_an_uncertain_label_asks_for_a_policy(self):
        message = fault(with_cell("true_A", 4, -1))
        assert "'true_A' holds -1 (uncertain) in 1 rows (first: data row 5)" in message
        assert "policy" in message

    @pytest.mark.parametrize(("column", "value"), [("true_A", 0.5), ("true_A", 2), ("decision_A", -1), ("true_A", np.inf)])
    def test_another_label_or_decision_is_an_error(self, column, value):
        frame = table(decision_A=1.0)
        frame[column] = frame[column].astype(float)
        frame.loc[6, column] = value
        message = fault(frame)
        assert f"'{column}' holds {value:g} in data row 7 (1 such cells); expected 0, 1 or blank" in message

    def test_a_finding_with_one_class_is_left_out_and_said(self):
        frame = table(true_C=1, prob_C=0.5, true_D=[0] * 11 + [np.nan], prob_D=0.5)
        read = parse_predictions(frame)
        assert one(read).label_names == ("A", "B")
        assert "Left out, for want of a class: C (no negative), D (no positive)." in read.notes
        assert "No finding has rows of both classes: C (no negative)" in fault(frame, labels=("C",))

    def test_a_finding_is_the_same_in_every_recipe_or_left_out(self):
        frame = pd.concat([table(recipe="a", true_C=[0, 1] * 6, prob_C=0.5), table(recipe="b", true_C=0, prob_C=0.5)])
        read = parse_predictions(frame)
        assert {p.label_names for p in read.predictions.values()} == {("A", "B")}
        assert "Left out, for want of a class in one recipe at least: C (no positive)." in read.notes

    def test_decisions_are_read_and_missing_ones_are_nan(self):
        assert one(parse_predictions(table())).decisions is None
        read = parse_predictions(table(decision_A=[0, 1, np.nan] * 4))
        np.testing.assert_array_equal(one(read).decisions[:, 0], [0, 1, np.nan] * 4)
        assert np.isnan(one(read).decisions[:, 1]).all()
        assert "No decisions for: B." in read.notes


class TestScores:
    @pytest.mark.parametrize(
        ("scores", "seen", "advice"),
        [
            (np.linspace(-5, 7, 12), "9 scores outside [0, 1] (range seen: -5 to 7)", "apply the sigmoid first"),
            (np.linspace(0, 99, 12), "11 scores outside [0, 1] (range seen: 0 to 99)", "divide by 100"),
            ([1 + 1e-7, *[0.5] * 11], "1 scores outside [0, 1] (range seen: 0.5 to 1.0000001)", "clip"),
            ([np.inf, *[0.5] * 11], "1 scores outside [0, 1] (range seen: 0.5 to inf)", "sigmoid"),
        ],
    )
    def test_outside_probabilities_are_an_error(self, scores, seen, advice):
        scores = np.asarray(scores)
        if scores[0] == -5:
            seen = seen.replace("9", str(((scores < 0) | (scores > 1)).sum()))
        message = fault(table(prob_B=scores))
        assert f"'prob_B' holds {seen}" in message
        assert advice in message

    @pytest.mark.parametrize("text", ["high", "0,5", "0.5.1", "True"])
    def test_text_is_an_error(self, text, write):
        frame = with_cell("prob_A", 2, text)
        message = f"'prob_A' holds {text!r} in data row 3 (1 such cells); expected numbers"
        assert message in fault(frame)
        with pytest.raises(InputError, match=r"^preds\.csv: Column 'prob_A' holds"):
            read_predictions(write(frame))

    def test_an_image_without_any_score_is_left_out_and_counted(self):
        frame = table()
        frame.loc[[2, 7], ["prob_A", "prob_B"]] = np.nan
        read = parse_predictions(frame)
        assert one(read).table["image_id"].tolist() == [f"i{i}" for i in range(12) if i not in (2, 7)]
        assert "2 of 12 rows have no score for any label and are left out." in read.notes
        assert "No row has a score for any label" in fault(table(prob_A=np.nan, prob_B=""))

    def test_a_missing_score_leaves_the_row_out_for_its_label_only(self):
        frame = table(decision_A=1.0, decision_B=0.0)
        frame.loc[[1, 2], "prob_B"] = np.nan
        read = parse_predictions(frame)
        got = one(read)
        assert len(got.table) == 12
        assert np.isnan(got.y_true[[1, 2], 1]).all() and np.isnan(got.decisions[[1, 2], 1]).all()
        assert np.isnan(got.y_true).sum() == np.isnan(got.decisions).sum() == 2
        assert "Scores are missing for some labels; those rows are left out there: B 2." in read.notes
        known = frame["prob_B"].notna()
        expected = roc_auc_score(frame["true_B"][known], frame["prob_B"][known])
        assert auroc(got.y_true[:, 1], got.scores[:, 1]) == pytest.approx(expected, abs=1e-12)

    def test_scores_keep_the_tables_precision(self):
        frame = table()
        assert one(parse_predictions(frame)).scores.dtype == np.float64
        small = frame.astype({"prob_A": np.float32, "prob_B": np.float32})
        assert one(parse_predictions(small)).scores.dtype == np.float32


class TestRepeatedRows:
    def repeated(self):
        frame = table()
        again = frame.iloc[[3, 3, 5]].assign(prob_A=[frame["prob_A"][3], 0.123, frame["prob_A"][5]])
        return pd.concat([frame, again])

    def test_are_an_error_that_says_what_to_do(self):
        message = fault(self.repeated())
        assert "3 rows repeat an image_id" in message
        assert "first: data row 13" in message
        assert 'duplicates="first"' in message

    def test_or_the_first_is_kept_and_the_others_are_counted(self):
        read = parse_predictions(self.repeated(), duplicates="first")
        assert one(read).table["image_id"].tolist() == table()["image_id"].tolist()
        np.testing.assert_array_equal(one(read).scores[:, 0], table()["prob_A"])
        assert "3 rows repeat an image and are left out; for 1 images the repeats differ." in read.notes

    def test_an_image_has_one_patient(self):
        frame = table(image_id=["same", "i1", "same", *(f"i{i}" for i in range(3, 12))])
        for duplicates in ("error", "first"):
            assert "1 images (image_id) belong to more than one patient" in fault(frame, duplicates=duplicates)

    def test_a_patient_in_two_splits_is_a_warning(self):
        read = parse_predictions(table(split=["test"] * 5 + ["calibration"] * 7))
        assert [w for w in read.warnings if "1 patients are in more than one split" in w]
        assert parse_predictions(table(split=["test"] * 4 + ["calibration"] * 8)).warnings == ()


class TestRecipes:
    def test_each_recipe_is_one_set_in_the_files_order(self):
        frame = pd.concat([table(recipe="late"), table(recipe="early", prob_A=0.25)])
        read = parse_predictions(frame)
        assert list(read.predictions) == ["late", "early"]
        assert (read.predictions["early"].scores[:, 0] == 0.25).all()
        assert read.predictions["early"].table["image_id"].equals(read.predictions["late"].table["image_id"])

    def test_interleaved_recipes_keep_their_rows(self):
        frame = pd.concat([table(recipe="a"), table(recipe="b", prob_A=0.25)]).iloc[np.arange(24).reshape(2, 12).T.ravel()]
        read = parse_predictions(frame)
        np.testing.assert_array_equal(read.predictions["a"].scores[:, 0], table()["prob_A"])

    def test_seeds_and_folds_are_told_apart_where_there_are_several(self):
        frame = pd.concat(
            [
                table(recipe="erm", seed=1, fold=0),
                table(recipe="erm", seed="2", fold=0),
                table(recipe="other", seed=1, fold=0),
            ]
        )
        read = parse_predictions(frame)
        assert list(read.predictions) == ["erm (seed 1)", "erm (seed 2)", "other"]
        first = read.predictions["erm (seed 2)"].table
        assert set(first["recipe"]) == {"erm (seed 2)"}
        assert set(first["seed"]) == {2}
        both = pd.concat([table(seed=s, fold=f) for s in (0, 1) for f in (0, 1)])
        assert list(parse_predictions(both, name="m").predictions)[-1] == "m (seed 1, fold 1)"

    def test_a_blank_recipe_and_one_without_scores_are_errors(self):
        assert "Column 'recipe' is blank in 1 rows" in fault(table(recipe=["", *["a"] * 11]))
        frame = pd.concat([table(recipe="a"), table(recipe="b", prob_A=np.nan, prob_B=np.nan)])
        assert "No row has a score for any label in: b" in fault(frame)


class TestAttributes:
    def test_those_of_a_usual_name_are_found(self):
        read = parse_predictions(table(race=["A", "B"] * 6, hospital=["X", "Y"] * 6, ethnicity="one", age=[30, 70] * 6))
        assert [a.name for a in one(read).attributes] == ["sex", "race", "age_group"]
        assert "ethnicity has fewer than two known groups (one): it is left out." in read.notes
        assert "age_group is cut from age: 0-20, 20-40, 40-60, 60-80, 80+ years." in read.notes

    def test_a_table_without_any_says_so(self):
        read = parse_predictions(table(sex=None))
        assert one(read).attributes == ()
        assert any("no groups are compared" in note for note in read.notes)

    def test_an_unknown_one_is_an_error_with_the_nearest(self):
        assert "Unknown attribute 'gender_'. Did you mean 'gender'?" in fault(table(gender="F"), attributes=("gender_",))
        assert "Unknown attribute 'patient_id'" in fault(table(), attributes=("patient_id",))
        assert "fewer than two known groups (one)" in fault(table(race="one"), attributes=("race",))

    def test_not_recorded_is_unknown_and_counted(self):
        read = parse_predictions(table(sex=[" F ", "M", "", None, "unknown", "Unknown", *["F", "M"] * 3]))
        assert one(read).attributes[0].groups == ("F", "M")
        assert one(read).table["sex"].tolist() == ["F", "M", *["unknown"] * 4, *["F", "M"] * 3]
        assert "sex is unknown in 4 rows." in read.notes

    @pytest.mark.parametrize(
        ("name", "values", "groups"),
        [
            ("ward", ["10", "9", "100"], ("9", "10", "100")),
            ("ward", [10, 9, np.nan], ("9", "10")),
            ("ward", ["b", "a", "10"], ("10", "a", "b")),
            ("age_group", ["80+", "18-40", "<18"], ("<18", "18-40", "80+")),
            ("age_group", ["5-10", "10-20", "100+"], ("5-10", "10-20", "100+")),
            ("portable", [True, False, True], ("False", "True")),
        ],
    )
    def test_groups_stand_in_their_order(self, name, values, groups):
        assert one(parse_predictions(table(**{name: values * 4}), attributes=(name,))).attributes[0].groups == groups

    def test_impossible_ages_are_unknown_and_counted(self):
        read = parse_predictions(table(age=[-1, 121, 414, "", *[30, 70] * 4]))
        assert "3 impossible ages (below 0 or above 120) became unknown." in read.notes
        assert one(read).table["age_group"].tolist() == ["unknown"] * 4 + ["20-40", "60-80"] * 4
        assert "'age' holds 'old' in data row 1" in fault(table(age=["old"] * 12))

    @pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
    def test_dicom_ages_are_the_same_ages(self, write, name):
        years = [5, 19, 20, 58, 79, 80] * 2
        expected = one(parse_predictions(table(age=years), attributes=("age_group", "age"))).table
        frame = table(age=[f"{y:03d}Y" for y in years])
        got = one(read_predictions(write(frame, name), attributes=("age_group", "age"))).table
        assert got["age_group"].tolist() == ["0-20", "0-20", "20-40", "40-60", "60-80", "80+"] * 2
        for column in ("age", "age_group"):
            assert got[column].tolist() == expected[column].tolist()

    def test_dicom_months_are_years_and_what_is_no_age_is_named(self):
        frame = table(age=["239M", "240M", "414Y", None, *["030Y", "070Y"] * 4])
        read = parse_predictions(frame)
        assert one(read).table["age_group"].tolist()[:4] == ["0-20", "20-40", "unknown", "unknown"]
        assert "1 impossible ages (below 0 or above 120) became unknown." in read.notes
        assert "'age' holds '058X' in data row 3 (2 such cells); expected ages in years (58) or DICOM's form" in fault(
            table(age=["30", "", "058X", "058X", *["70"] * 8])
        )

    def test_ages_are_cut_where_asked(self):
        read = parse_predictions(table(age=[17, 18, 65] * 4), age_bins=(18, 65))
        assert one(read).table["age_group"].tolist() == ["unknown", "18-65", "65+"] * 4
        assert any("4 rows below 18 are unknown" in note for note in read.notes)
        assert "age_bins must be rising" in fault(table(age=30), age_bins=(65, 18))

    def test_a_changing_sex_is_a_warning(self):
        read = parse_predictions(table(sex=["F", "M", "F", "unknown", "F", "M", "M", "M", "F", "F", "F", "F"]))
        assert read.warnings == ("Recorded sex changes within 2 patients; their rows are kept as recorded.",)
        assert one(read).attributes[0].constant
        assert one(read).table["sex"].tolist()[:2] == ["F", "M"]

    def test_what_changes_by_nature_is_no_warning(self):
        read = parse_predictions(table(view=["AP", "PA"] * 6, ward=["1", "2"] * 6, home=["N"] * 6 + ["S"] * 6))
        assert read.warnings == ()
        frame = table(view=["AP"] * 6 + ["PA"] * 6, ward=["1", "2"] * 6, home=["N"] * 6 + ["S"] * 6)
        read = parse_predictions(frame, attributes=("view", "ward", "home"))
        assert {a.name: a.constant for a in one(read).attributes} == {"view": False, "ward": False, "home": True}
        assert "ward changes within 6 patients: it is taken as varying in time." in read.notes
        assert read.warnings == ()


class TestNotTold:
    def test_stays_a_group_and_is_counted(self):
        race = ["WHITE", "BLACK", "UNABLE TO OBTAIN", "Declined", "DECLINED", "UNKNOWN/NOT SPECIFIED"]
        race += ["PATIENT DECLINED TO ANSWER", "PATIENT DECLINED TO ANSWER BY PHONE", "", *["WHITE"] * 3]
        read = parse_predictions(table(race=race))
        assert one(read).attributes[1].groups == tuple(sorted(set(race) - {""}))
        assert one(read).table["race"].tolist() == [r or "unknown" for r in race]
        assert (
            "race has 5 rows recorded as DECLINED, Declined, PATIENT DECLINED TO ANSWER, UNABLE TO OBTAIN, "
            "UNKNOWN/NOT SPECIFIED: they stay groups of their own."
        ) in read.notes
        assert "race is unknown in 1 rows." in read.notes

    def test_unknown_in_capitals_is_unknown(self):
        read = parse_predictions(table(race=["UNKNOWN", "WHITE", "BLACK"] * 4))
        assert one(read).attributes[1].groups == ("BLACK", "WHITE")
        assert "race is unknown in 4 rows." in read.notes
        assert not any("recorded as" in note for note in read.notes)

    def test_the_counted_rows_are_those_of_the_result(self):
        frame = table(race=["DECLINED", "WHITE"] * 6, study_id=[f"s{i // 2}" for i in range(12)], true_A=[0, 0, 1, 1] * 3)
        frame.loc[[0, 1], ["prob_A", "prob_B"]] = np.nan
        note = "race has {} rows recorded as DECLINED: they stay groups of their own."
        assert note.format(5) in parse_predictions(frame).notes
        frame["race"] = ["DECLINED"] * 6 + ["WHITE"] * 6
        read = parse_predictions(frame, unit="study")
        assert (one(read).table["race"] == "DECLINED").sum() == 2
        assert note.format(2) in read.notes


class TestKeptColumns:
    def frame(self, **columns):
        return table(view=["AP", " PA", ""] * 4, portable=[True, False] * 6, age=[30, 70, np.nan] * 4, **columns)

    def test_stay_as_text_and_are_no_attributes(self):
        read = parse_predictions(self.frame(), attributes=("sex",), keep=("view", "portable", "age_group", "label"))
        assert [a.name for a in one(read).attributes] == ["sex"]
        got = one(read).table
        assert list(got)[-4:] == ["sex", "view", "portable", "age_group"]
        assert got["view"].tolist() == ["AP", "PA", "unknown"] * 4
        assert got["portable"].tolist() == ["True", "False"] * 6
        assert got["age_group"].tolist() == ["20-40", "60-80", "unknown"] * 4
        assert "view is unknown in 4 rows." in read.notes
        assert "age_group is cut from age: 0-20, 20-40, 40-60, 60-80, 80+ years." in read.notes

    @pytest.mark.parametrize("name", ["p.csv", "p.csv.gz", "p.parquet"])
    def test_come_from_a_file_in_the_same_way(self, write, name):
        options = {"attributes": ("sex",), "keep": ("view", "portable", "age_group"), "age_bins": (0, 50)}
        read = read_predictions(write(self.frame(), name), **options)
        expected = parse_predictions(self.frame(), name="p", **options)
        pd.testing.assert_frame_equal(one(read).table, one(expected).table)
        assert set(one(read).table["age_group"]) == {"0-50", "50+", "unknown"}

    def test_change_nothing_else(self):
        bare = parse_predictions(self.frame(), attributes=("sex",))
        read = parse_predictions(self.frame(), attributes=("sex",), keep=("view",))
        pd.testing.assert_frame_equal(one(read).table.drop(columns="view"), one(bare).table)
        np.testing.assert_array_equal(one(read).y_true, one(bare).y_true)
        assert set(read.notes) - set(bare.notes) == {"view is unknown in 4 rows."}
        assert "view" not in one(bare).table

    def test_an_attribute_is_kept_once(self):
        read = parse_predictions(self.frame(), attributes=("sex", "age_group"), keep=("age_group", "sex", "view", "view"))
        assert list(one(read).table)[-3:] == ["sex", "age_group", "view"]
        assert [a.name for a in one(read).attributes] == ["sex", "age_group"]

    def test_one_value_is_enough(self):
        read = parse_predictions(table(ethnicity="one"), keep=("ethnicity",))
        assert [a.name for a in one(read).attributes] == ["sex"]
        assert set(one(read).table["ethnicity"]) == {"one"}

    def test_what_the_table_has_anyway_and_the_label_are_ignored(self):
        bare = parse_predictions(table())
        read = parse_predictions(table(), keep=("label", "split", "patient_id"))
        pd.testing.assert_frame_equal(one(read).table, one(bare).table)
        assert "label" not in one(parse_predictions(table(label="x"), keep=("label",))).table

    def test_an_unknown_one_is_an_error_with_the_nearest(self):
        assert "Unknown column to keep or adjust for 'veiw'. Did you mean 'view'? Known: age, age_group" in fault(
            self.frame(), keep=("veiw",)
        )
        assert "Unknown column to keep or adjust for 'age_group'" in fault(table(), keep=("age_group",))
        assert "Unknown column to keep or adjust for 'prob_A'" in fault(table(), keep=("prob_A",))

    def test_a_change_within_a_patient_is_no_warning(self):
        read = parse_predictions(table(race=["A", "B"] * 6), attributes=("sex",), keep=("race",))
        assert read.warnings == ()

    def test_follow_their_rows(self):
        frame = table(
            view=[f"v{i}" for i in range(12)], recipe=["a", "b"] * 6, true_A=[0, 0, 1, 1] * 3, true_B=[0, 0, 1, 1] * 3
        )
        frame = pd.concat([frame, frame.iloc[[4]].assign(view="again")])
        frame.loc[frame["image_id"] == "i2", ["prob_A", "prob_B"]] = np.nan
        read = parse_predictions(frame, keep=("view",), duplicates="first")
        for recipe, numbers in (("a", [0, 4, 6, 8, 10]), ("b", [1, 3, 5, 7, 9, 11])):
            assert read.predictions[recipe].table["image_id"].tolist() == [f"i{i}" for i in numbers]
            assert read.predictions[recipe].table["view"].tolist() == [f"v{i}" for i in numbers]

    def test_a_study_has_its_first_known_value(self):
        frame = table(view=["", "AP", "PA", "AP"] + ["PA"] * 8, study_id=[f"s{i // 2}" for i in range(12)])
        frame = frame.assign(true_A=[0, 0, 1, 1] * 3, true_B=[1, 1, 0, 0] * 3)
        read = parse_predictions(frame, keep=("view",), unit="study")
        assert one(read).table["view"].tolist() == ["AP", *["PA"] * 5]
        assert "view differs within 1 studies: the first known value is taken." in read.notes

    def test_can_be_adjusted_for(self):
        n = 600
        rng = np.random.default_rng(0)
        frame = table(n, view=rng.choice(["AP", "PA"], n), age=rng.choice([30, 70], n))
        config = AuditConfig(adjust=("view", "age_group", "label"), metrics=("AUROC",), n_replicates=50, n_permutations=0)
        predictions = parse_predictions(frame, attributes=("sex",), keep=config.adjust).predictions
        adjusted = audit(predictions, config).adjusted
        assert set(adjusted["group"]) == {"F", "M"}
        assert set(adjusted["adjusted_for"]) == {"view, age_group, label"}


class TestStudies:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000))
    def test_agree_with_a_loop_over_studies(self, seed):
        rng = np.random.default_rng(seed)
        n = 30
        study = rng.integers(0, 12, n)
        frame = table(n, study_id=[f"s{s}" for s in study], patient_id=[f"secret{s // 2}" for s in study])
        frame["sex"] = rng.choice(["F", "M", "unknown"], n)
        frame["true_A"] = rng.choice([0, 1, np.nan], n)
        frame["prob_B"] = np.where(rng.random(n) < 0.3, np.nan, frame["prob_B"])
        frame.loc[:1, ["true_A", "true_B", "sex"]] = [[0, 0, "F"], [1, 1, "M"]]
        frame.loc[:1, "study_id"], frame.loc[:1, "prob_B"] = ["first", "second"], 0.5
        frame.loc[:1, "patient_id"] = ["secret x", "secret y"]
        got = one(parse_predictions(frame, unit="study"))
        ids = list(dict.fromkeys(frame["study_id"]))
        assert got.table["image_id"].tolist() == ids
        assert len(got.label_names) == 2
        for row, name in enumerate(ids):
            part = frame[frame["study_id"] == name]
            known = [s for s in part["sex"] if s != "unknown"]
            assert got.table["sex"][row] == (known[0] if known else "unknown")
            for index, label in enumerate("AB"):
                scores = part[f"prob_{label}"].dropna()
                expected = max(part[f"true_{label}"].dropna(), default=np.nan) if len(scores) else np.nan
                np.testing.assert_equal(got.y_true[row, index], np.float32(expected))
                if len(scores):
                    assert got.scores[row, index] == pytest.approx(np.mean(scores), abs=1e-12)

    def test_differing_labels_and_groups_are_counted_and_decisions_dropped(self):
        frame = table(study_id=[f"s{i // 2}" for i in range(12)], true_A=[0, 0, 1, 1, 0, 1, 0, 1, 0, 0, 1, np.nan])
        frame = frame.assign(true_B=[0] * 6 + [1] * 6, decision_A=1, sex=["F", "M"] + ["F"] * 5 + ["M"] * 5)
        read = parse_predictions(frame, unit="study")
        assert one(read).decisions is None
        assert one(read).y_true[:, 0].tolist() == [0, 1, 1, 1, 0, 1]
        notes = " ".join(read.notes)
        assert "decision_<label> columns are left out" in notes
        assert "Labels differ between the images of 2 studies" in notes
        assert "sex differs within 2 studies" in notes
        assert "12 images became 6 studies" in notes

    def test_studies_numbered_within_patients_stay_apart(self):
        read = parse_predictions(table(study_id=["study1"] * 12, true_A=[0, 0, 1, 1] * 3), unit="study")
        assert len(one(read).table) == 6
        assert one(read).table["image_id"].is_unique
        assert "study_id is not unique over patients: a study is known by patient_id and study_id together." in read.notes

    def test_no_message_names_a_patient(self):
        frame = table(study_id=["study1"] * 12, sex=["F", "M"] * 6, split=["test", "calibration"] * 6, age=[-5, 40] * 6)
        read = parse_predictions(frame, unit="study")
        assert read.warnings
        assert "secret" not in " ".join((*read.notes, *read.warnings))


@pytest.mark.slow
def test_a_million_rows_are_read_in_seconds(tmp_path):
    import time

    n = 1_000_000
    rng = np.random.default_rng(0)
    patient = rng.integers(0, n // 4, n)
    columns = {f"true_L{k}": rng.integers(0, 2, n) for k in range(14)} | {f"prob_L{k}": rng.random(n) for k in range(14)}
    frame = pd.DataFrame({"image_id": np.arange(n), "patient_id": patient, "sex": np.array(["F", "M"])[patient % 2], **columns})
    frame.to_parquet(tmp_path / "p.parquet")
    start = time.perf_counter()
    assert len(one(read_predictions(tmp_path / "p.parquet")).table) == n
    assert time.perf_counter() - start < 60  # 4 s on two quiet cores; a loop over rows takes minutes
