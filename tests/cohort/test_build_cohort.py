"""From a table on disk to a cohort: every row accounted for, every consequence stated."""

import csv
import gzip
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from biascxr.cohort import build_cohort, relabel
from biascxr.cohort.contract import ContractError
from biascxr.config import SPLITS, CohortConfig
from biascxr.containers import Cohort
from biascxr.errors import InputError


def build(path, *, seed=0, images_root=None, **settings):
    return build_cohort(path, images_root, CohortConfig(**settings), seed=seed)


def notes_of(cohort):
    return "\n".join(cohort.accounting["notes"])


class TestTheRealNihTable:
    @pytest.fixture(scope="class")
    def cohort(self, nih_folder):
        return build(nih_folder / "Data_Entry_subset.csv", images_root=nih_folder / "images")

    def test_all_rows_are_there(self, cohort):
        assert cohort.layout == "nih"
        assert cohort.content == "image"
        assert len(cohort) == cohort.accounting["rows_in_table"] == 1049
        assert cohort.table["patient_id"].nunique() == cohort.accounting["n_patients"] == 913
        assert cohort.accounting["excluded"] == {}

    def test_every_path_is_a_file(self, cohort):
        assert all((cohort.images_root / path).is_file() for path in cohort.table["path"])

    def test_labels_are_what_the_table_says(self, cohort, nih_folder):
        lines = (nih_folder / "Data_Entry_subset.csv").read_text().splitlines()[1:]
        said = Counter(finding for line in lines for finding in line.split(",")[1].split("|"))
        assert {n: int(cohort.labels[:, i].sum()) for i, n in enumerate(cohort.label_names)} == {
            n: said[n] for n in cohort.label_names
        }
        first = dict(zip(cohort.label_names, cohort.labels[0], strict=True))
        assert {n for n, v in first.items() if v} == {"Edema", "Effusion", "Infiltration", "Pleural_Thickening", "Pneumonia"}
        assert cohort.table["image_id"][0] == "00000061_012"

    def test_sex_and_age_are_audited_and_race_is_not(self, cohort):
        assert [a.name for a in cohort.attributes] == ["sex", "age_group"]
        assert "No race in this table: it is not audited." in notes_of(cohort)

    def test_patients_never_straddle_and_parts_are_near_their_shares(self, cohort):
        parts = cohort.table.groupby("patient_id")["split"]
        assert parts.nunique().max() == 1
        shares = parts.first().value_counts(normalize=True)[list(SPLITS)].to_numpy()
        np.testing.assert_allclose(shares, (0.6, 0.1, 0.1, 0.2), atol=2 / 913)


def test_the_whole_official_table(nih_folder, tmp_path):
    cohort = build(nih_folder / "Data_Entry_2017_v2020.csv.gz", images_root=tmp_path)
    assert len(cohort) == 112_120
    assert cohort.accounting["n_patients"] == 30_805
    with gzip.open(nih_folder / "Data_Entry_2017_v2020.csv.gz", "rt") as file:
        rows = list(csv.reader(file))[1:]
    said = Counter(finding for row in rows for finding in row[1].split("|"))
    assert dict(zip(cohort.label_names, cohort.labels.sum(0, dtype=float), strict=True)) == {
        name: said[name] for name in cohort.label_names
    }
    assert len(cohort.label_names) == 14
    for column, place in (("sex", 5), ("view", 6)):
        assert cohort.table[column].value_counts().to_dict() == Counter(row[place] for row in rows)
    possible = [int(row[4]) for row in rows if int(row[4]) <= 120]
    assert cohort.table["age"].sum() == sum(possible) and cohort.table["age"].notna().sum() == len(possible)


def test_accounting_adds_up(biascxr_table, write_table):
    frame = biascxr_table(60)
    frame.loc[0:3, "ViewPosition"] = "LATERAL"
    frame.loc[10, "path"] = ""
    frame.loc[20, "ViewPosition"] = ""
    frame = pd.concat([frame, frame.tail(2)])
    account = build(write_table(frame)).accounting
    assert account["rows_in_table"] == 62
    assert account["rows_selected"] == 55
    assert account["excluded"] == {
        "no image, study, patient id or path": 1,
        "image listed before": 2,
        "not a frontal view (AP, PA)": 4,
    }


def test_files_are_looked_for_only_where_that_is_asked_for(biascxr_table, write_table):
    path = write_table(biascxr_table(60))
    assert "missing_files" not in {f["rule"] for f in build(path).accounting["findings"]}
    with pytest.raises(ContractError, match=r"missing_files: None of the 60 files .* is there\. Give --images_root"):
        build_cohort(path, None, CohortConfig(), seed=0, look_at_files=True)


def test_what_is_wrong_with_the_table_is_said_at_once_and_kept_with_the_cohort(biascxr_table, write_table):
    frame = biascxr_table(60, images_per_patient=2)
    frame.loc[0, "age"] = "414"
    frame.loc[2:3, "gender"] = ["M", "F"]
    cohort = build(write_table(frame))
    rules = {f["rule"] for f in cohort.accounting["findings"]}
    assert {"impossible_ages", "constant_attribute_changes"} <= rules
    assert math.isnan(cohort.table["age"][0])
    assert "1 impossible ages (below 0 or above 120) became unknown." in notes_of(cohort)
    frame.loc[1, "path"] = frame.loc[10, "path"]
    frame["split"] = np.where(np.arange(120) % 2, "train", "test")
    with pytest.raises(ContractError) as error:
        build(write_table(frame), split_source="table")
    assert {f.rule for f in error.value.findings if f.is_error} == {"patient_in_two_splits", "duplicate_images"}


@pytest.mark.parametrize(
    ("policy", "sex", "n_rows"), [("unknown", "unknown", 120), ("majority", "F", 120), ("first", "M", 120), ("drop", None, 117)]
)
def test_conflicting_records_are_settled_by_the_policy(biascxr_table, write_table, policy, sex, n_rows):
    frame = biascxr_table(40, images_per_patient=3)
    frame.loc[0:2, "gender"] = ["M", "F", "F"]
    cohort = build(write_table(frame), conflict_policy=policy)
    assert len(cohort) == n_rows
    if sex:
        assert cohort.table["sex"][:3].tolist() == [sex] * 3
    else:
        assert cohort.accounting["excluded"] == {"patient recorded with more than one sex": 3}
    assert any(note.startswith("1 patients are recorded with more than one sex: ") for note in cohort.accounting["notes"])


def test_an_image_without_a_split_does_not_take_its_patient_along(biascxr_table, write_table):
    frame = biascxr_table(60, images_per_patient=2)
    frame["split"] = np.repeat(["train", "validate", "calibration", "test"], 30)
    frame.loc[0, "split"] = ""
    cohort = build(write_table(frame), split_source="table")
    assert cohort.accounting["excluded"] == {"in no part of the data set's split": 1}
    assert cohort.accounting["n_patients"] == 60


def test_patients_are_counted_after_selection(biascxr_table, write_table):
    frame = biascxr_table(60)
    frame.loc[:9, "ViewPosition"] = "LATERAL"
    assert build(write_table(frame)).accounting["n_patients"] == 50


def test_rows_in_no_part_of_the_split_in_use_are_counted_out(biascxr_table, write_table):
    frame = biascxr_table(80, split=["train", "validate", "calibration", "test", ""] * 16)
    cohort = build(write_table(frame), split_source="table")
    assert cohort.accounting["excluded"] == {"in no part of the data set's split": 16}
    assert len(build(write_table(frame), split_source="random")) == 80


def test_reference_labels_of_a_table_of_their_own(biascxr_table, write_table, tmp_path):
    truth = tmp_path / "truth.csv"
    truth.write_text("dicom_id,Edema,Something\nimage_003,1,x\nimage_004,0,x\n")
    cohort = build(write_table(biascxr_table(60)), reference_labels=truth)
    edema = cohort.reference_labels[:, cohort.label_names.index("Edema")]
    assert edema[3:5].tolist() == [1, 0] and np.isnan(np.delete(edema, [3, 4])).all()
    assert build(write_table(biascxr_table(60))).reference_labels is None


def test_labels_as_recorded_stay_beside_those_of_the_policy(biascxr_table, write_table):
    frame = biascxr_table(60)
    cohort = build(write_table(frame), uncertain_policy="ones")
    column = cohort.label_names.index("Edema")
    as_text = frame["Edema"].replace("", None).astype(float).to_numpy(np.float32)
    np.testing.assert_array_equal(cohort.recorded[:, column], as_text)
    np.testing.assert_array_equal(relabel(cohort, uncertain="ones").labels, cohort.labels)


@pytest.mark.parametrize("path", ["../secret.png", "/etc/secret.png"])
def test_a_path_out_of_the_images_folder_is_refused(biascxr_table, write_table, path):
    frame = biascxr_table(60)
    frame.loc[7, "path"] = path
    with pytest.raises(InputError, match="1 paths lead out of images_root"):
        build(write_table(frame))


def test_images_root_defaults_to_the_tables_folder(biascxr_table, write_table):
    path = write_table(biascxr_table())
    assert build(path).images_root == path.parent


def test_no_finding_blanks_are_negative_under_every_blank_policy(biascxr_table, write_table):
    path = write_table(biascxr_table(60))
    for policy in ("zeros", "ignore"):
        cohort = build(path, blank_policy=policy)
        column = cohort.labels[:, cohort.label_names.index("No Finding")]
        assert set(column.tolist()) == {0.0, 1.0}


def test_ignored_labels_are_masked_and_their_share_is_stated_per_group(biascxr_table, write_table):
    frame = biascxr_table(60, Edema=["1", "0", "-1"] * 20, Cardiomegaly=["1", "0", "1"] * 20, **{"No Finding": None})
    frame["gender"] = ["F", "F", "M"] * 20  # every uncertain label is a man's
    cohort = build(write_table(frame), uncertain_policy="ignore")
    shares = {(r["attribute"], r["group"]): r["masked_share"] for r in cohort.accounting["masked_by_group"]}
    assert shares["sex", "F"] == 0
    assert shares["sex", "M"] == 0.5
    assert cohort.accounting["uncertain_policy"] == "ignore"
    edema = next(r for r in cohort.accounting["labels"] if r["label"] == "Edema")
    assert (edema["uncertain"], edema["masked"], edema["positive"], edema["negative"]) == (20, 20, 20, 20)


def test_only_the_wanted_findings(biascxr_table, write_table):
    path = write_table(biascxr_table(60))
    assert build(path, labels=("Cardiomegaly",)).label_names == ("Cardiomegaly",)
    with pytest.raises(InputError, match="Did you mean 'Cardiomegaly'"):
        build(path, labels=("Cardiomegali",))


def test_age_groups_follow_the_bins(biascxr_table, write_table):
    frame = biascxr_table(60)
    cohort = build(write_table(frame), age_bins=(18, 65))
    assert next(a for a in cohort.attributes if a.name == "age_group").groups == ("18-65", "65+")
    assert ((cohort.table["age"] >= 65) == (cohort.table["age_group"] == "65+")).all()


def test_a_patient_recorded_with_two_sexes_is_unknown_everywhere(biascxr_table, write_table):
    frame = biascxr_table(60, images_per_patient=2)
    frame.loc[0:1, "gender"] = ["M", "F"]
    cohort = build(write_table(frame))
    assert cohort.table["sex"][:2].tolist() == ["unknown", "unknown"]
    assert (cohort.table["sex"][2:] != "unknown").all()
    assert "1 patients are recorded with more than one sex: treated as unknown." in notes_of(cohort)


def test_age_may_change_within_a_patient(biascxr_table, write_table):
    frame = biascxr_table(60, images_per_patient=2)
    frame.loc[0:1, "age"] = ["39", "41"]
    cohort = build(write_table(frame))
    assert cohort.table["age_group"][:2].tolist() == ["20-40", "40-60"]
    assert [a.constant for a in cohort.attributes if a.name == "age_group"] == [False]


def test_one_group_only_is_a_stated_consequence(biascxr_table, write_table):
    cohort = build(write_table(biascxr_table(60, race="WHITE", gender="", age="")))
    assert [a.name for a in cohort.attributes] == ["insurance"]
    assert "race: fewer than two known groups (WHITE); not audited." in notes_of(cohort)
    assert "sex: fewer than two known groups (none); not audited." in notes_of(cohort)


def test_one_class_only_is_left_out_or_an_error(biascxr_table, write_table):
    frame = biascxr_table(60, Edema="0")
    cohort = build(write_table(frame))
    assert "Edema" not in cohort.label_names
    assert "Edema: one class only (no positive), left out." in notes_of(cohort)
    with pytest.raises(InputError, match="No label has both positives and negatives"):
        build(write_table(frame), labels=("Edema",))


def test_one_class_in_a_part_is_said(biascxr_table, write_table):
    frame = biascxr_table(60, Edema=["1", *["0"] * 59])
    findings = build(write_table(frame)).accounting["findings"]
    assert any(f["rule"] == "one_class_label" and "Edema" in f["message"] for f in findings)


def test_no_frontal_view_at_all_is_an_error_that_counts(biascxr_table, write_table):
    with pytest.raises(InputError, match=r"No row is left after selection: .*not a frontal view.*40"):
        build(write_table(biascxr_table(40, ViewPosition="LATERAL")))


def test_same_seed_same_cohort(biascxr_table, write_table):
    path = write_table(biascxr_table(60))
    one, two = build(path, seed=1), build(path, seed=1)
    pd.testing.assert_frame_equal(one.table, two.table)
    assert (one.table["split"] != build(path, seed=2).table["split"]).any()


def test_a_saved_cohort_is_the_same_cohort(biascxr_table, write_table, tmp_path):
    frame = biascxr_table(60)
    frame.loc[3, "age"] = ""
    cohort = build(write_table(frame), uncertain_policy="ignore")
    cohort.save(tmp_path)
    again = Cohort.load(tmp_path)
    pd.testing.assert_frame_equal(again.table, cohort.table)
    np.testing.assert_array_equal(again.labels, cohort.labels)
    np.testing.assert_array_equal(again.recorded, cohort.recorded)
    assert again.reference_labels is None
    assert (again.attributes, again.label_names, again.layout, again.content, again.images_root, again.accounting) == (
        cohort.attributes,
        cohort.label_names,
        cohort.layout,
        cohort.content,
        cohort.images_root,
        cohort.accounting,
    )
    assert math.isnan(again.table["age"][3])
