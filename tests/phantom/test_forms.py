"""A phantom written as an official tree is, for the layout that reads such trees, the cohort that wrote it."""

import csv
import gzip
import hashlib
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from biascxr.cohort import build_cohort, find_layout, load_layout
from biascxr.config import CohortConfig
from biascxr.embeddings import read_vector
from biascxr.phantom import FORMS, LABELS, PhantomConfig, draw_phantom, make_phantom
from biascxr.phantom.forms import find_form
from biascxr.phantom.forms.base import number_within, uniform
from biascxr.phantom.forms.chexpert_people import plan_people
from biascxr.phantom.forms.cxr_foundation import vectors

# Annotation bias, so that what is recorded and what is true differ.
SETTINGS = {"n_patients": 300, "seed": 3, "image_size": 64, "mechanism": "annotation", "strength": 0.5}
ALPHABETICAL = sorted(LABELS)
CHEXPERT_ORDER = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,"
    "Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
ADMISSIONS = (
    "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,{}admission_location,discharge_location,insurance,language,"
    "marital_status,{},edregtime,edouttime,hospital_expire_flag"
)
PATIENTS = "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod"
MIMIC_HEADERS = {
    "mimic-cxr-jpg/2.1.0/mimic-cxr-2.0.0-metadata.csv.gz": "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,"
    "ViewPosition,Rows,Columns,StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
    "PatientOrientationCodeSequence_CodeMeaning",
    "mimic-cxr-jpg/2.1.0/mimic-cxr-2.0.0-chexpert.csv.gz": ",".join(["subject_id", "study_id", *ALPHABETICAL]),
    "mimic-cxr-jpg/2.1.0/mimic-cxr-2.0.0-negbio.csv.gz": ",".join(["subject_id", "study_id", *ALPHABETICAL]),
    "mimic-cxr-jpg/2.1.0/mimic-cxr-2.0.0-split.csv.gz": "dicom_id,study_id,subject_id,split",
    "mimic-cxr-jpg/2.1.0/mimic-cxr-2.1.0-test-set-labeled.csv": "study_id,Airspace Opacity,"
    + ",".join(name for name in ALPHABETICAL if name != "Lung Opacity"),
}
MIMIC_2_HEADERS = MIMIC_HEADERS | {
    "mimiciv/2.2/hosp/patients.csv.gz": PATIENTS,
    "mimiciv/2.2/hosp/admissions.csv.gz": ADMISSIONS.format("admit_provider_id,", "race"),
    "mimic-iv-ed/2.2/ed/edstays.csv.gz": "subject_id,hadm_id,stay_id,intime,outtime,gender,race,arrival_transport,disposition",
}
HEADERS = {
    "generic": {
        "meta.csv": "subject_id,study_id,dicom_id,path,ViewPosition,gender,race,age,insurance,split," + ",".join(ALPHABETICAL)
    },
    "mimic": MIMIC_2_HEADERS,
    "cxr_foundation": MIMIC_2_HEADERS,
    "mimic_v1": MIMIC_HEADERS
    | {
        "mimiciv/1.0/core/patients.csv.gz": PATIENTS,
        "mimiciv/1.0/core/admissions.csv.gz": ADMISSIONS.format("", "ethnicity"),
        "mimic-iv-ed/1.0/ed/edstays.csv.gz": "subject_id,hadm_id,stay_id,intime,outtime",
    },
    "chexpert": {
        f"CheXpert-v1.0-small/{part}.csv": "Path,Sex,Age,Frontal/Lateral,AP/PA," + CHEXPERT_ORDER for part in ("train", "valid")
    },
    "chexpert_plus": {
        "df_chexpert_plus_240401.csv": "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,"
        "patient_report_date_order,report,section_narrative,section_clinical_history,section_history,section_comparison,"
        "section_technique,section_procedure_comments,section_findings,section_impression,section_end_of_impression,"
        "section_summary,section_accession_number,age,sex,race,ethnicity,interpreter_needed,insurance_type,recent_bmi,deceased,"
        "split"
    },
    "nih": {
        "Data_Entry_2017_v2020.csv": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    },
    "midrc": {"MIDRC.csv": "Age,Sex,Race,label,Path,filename,case_ids,study_uid"},
}
MIMIC_FORMS = ("mimic", "mimic_v1", "cxr_foundation")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


class Tree:
    """A written form: films are two by two pixels, which no table knows."""

    def __init__(self, name: str, folder: Path) -> None:
        config = PhantomConfig(**SETTINGS, form=name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("biascxr.phantom.write.draw_film", lambda spec: np.zeros((2, 2), np.uint8))
            self.main = make_phantom(config, folder, n_workers=1)
        self.folder, self.form, self.phantom = folder, find_form(name), draw_phantom(config)
        self.expected = self.form.expected(self.phantom)

    def parse(self, **config):
        config = CohortConfig(**config)
        layout, source = find_layout(self.main, self.form.images_root(self.folder), config)
        assert layout.name == self.form.layout
        return layout.parse(source)

    def read(self, pattern: str) -> pd.DataFrame:
        (path,) = self.folder.rglob(pattern)
        return read(path)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    trees = {}

    def make(name: str) -> Tree:
        if name not in trees:
            trees[name] = Tree(name, tmp_path_factory.mktemp("forms") / name)
        return trees[name]

    return make


def in_order(frame: pd.DataFrame, image_id: pd.Series, wanted: pd.Series) -> pd.DataFrame:
    assert sorted(image_id) == sorted(wanted)
    return frame.set_axis(pd.Index(image_id, name=None)).loc[list(wanted)].reset_index(drop=True)


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Every column, whatever texts are stored as."""
    assert sorted(found) == sorted(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name].to_numpy(object), expected[name].to_numpy(object), err_msg=name)


@pytest.mark.parametrize("name", FORMS)
class TestEveryForm:
    def test_its_layout_reads_the_cohort_that_wrote_it_field_by_field(self, tree, name):
        tree = tree(name)
        parsed, expected = tree.parse(), tree.expected
        wanted = expected.table["image_id"]
        assert_same(in_order(parsed.table, parsed.table["image_id"], wanted), expected.table)
        labels = in_order(parsed.labels, parsed.table["image_id"], wanted)
        pd.testing.assert_frame_equal(labels, expected.labels, check_dtype=False)
        assert (parsed.reference_labels is None) == (expected.reference_labels is None)
        if expected.reference_labels is not None:
            found = in_order(parsed.reference_labels, parsed.table["image_id"], wanted)
            pd.testing.assert_frame_equal(found, expected.reference_labels, check_dtype=False)
        assert parsed.images_root.resolve() == (tree.folder / expected.images_root).resolve()
        assert {k: v for k, v in parsed.conflicting.items() if v} == {k: v for k, v in expected.conflicting.items() if v}
        assert parsed.excluded == {}
        for attribute, reasons in parsed.unknown.items():
            if attribute in expected.table:
                assert sum(reasons.values()) == expected.unknown(attribute)

    def test_the_cohort_stage_makes_the_same_of_it(self, tree, name):
        tree = tree(name)
        cohort = build_cohort(tree.main, tree.form.images_root(tree.folder), CohortConfig(), seed=0)
        expected = tree.expected
        assert cohort.layout == tree.form.layout
        assert cohort.content == ("image" if tree.form.film_format else "vector")
        assert cohort.accounting["excluded"] == {}
        wanted, image_id = expected.table["image_id"], cohort.table["image_id"]
        table = in_order(cohort.table, image_id, wanted)
        attributes = [a.name for a in cohort.attributes if a.name != "age_group"]
        assert set(attributes) == set(expected.table) - {"image_id", "study_id", "patient_id", "path", "view", "age", "split"}
        columns = ["study_id", "patient_id", "path", "view", "age", *attributes]
        assert_same(table[columns], expected.table[columns])
        recorded = in_order(pd.DataFrame(cohort.recorded, columns=list(cohort.label_names)), image_id, wanted)
        as_recorded = expected.labels.fillna({"No Finding": 0.0}) if "No Finding" in expected.labels else expected.labels
        pd.testing.assert_frame_equal(recorded, as_recorded[list(cohort.label_names)], check_dtype=False)
        assert set(as_recorded.columns[as_recorded.nunique() > 1]) == set(cohort.label_names)

    def test_what_is_left_out_leaves_the_labels_and_the_truth_of_the_others_with_their_images(self, tree, name):
        """Patients with conflicting records are left out, and the first image: whatever stays keeps its own rows."""
        tree = tree(name)
        parsed = tree.parse(conflict_policy="drop")
        first = parsed.table["image_id"].iloc[0]
        odd = parsed.table.assign(view=parsed.table["view"].mask(parsed.table["image_id"] == first, "LATERAL"))
        layout = type(load_layout(tree.form.layout))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layout, "parse", lambda self, source: replace(parsed, table=odd))
            config = CohortConfig(conflict_policy="drop")
            cohort = build_cohort(tree.main, tree.form.images_root(tree.folder), config, seed=0)
        dropped = frozenset().union(*parsed.conflicting.values())
        expected = tree.expected
        stays = ~expected.table["patient_id"].isin(dropped) & (expected.table["image_id"] != first)
        image_id = expected.table["image_id"][stays]
        assert 0 < len(image_id) < len(expected.table)
        names = list(cohort.label_names)
        for block, truth in ((cohort.recorded, expected.labels), (cohort.reference_labels, expected.reference_labels)):
            if truth is None:
                assert block is None
                continue
            found = in_order(pd.DataFrame(block, columns=names), cohort.table["image_id"], image_id)
            truth = truth.fillna({"No Finding": 0.0}) if block is cohort.recorded and "No Finding" in truth else truth
            pd.testing.assert_frame_equal(found, truth.loc[stays, names].reset_index(drop=True), check_dtype=False)

    def test_every_film_lies_where_its_row_says_and_none_is_left_over(self, tree, name):
        tree = tree(name)
        root = tree.folder / tree.expected.images_root
        paths = {(root / path).relative_to(tree.folder).as_posix() for path in tree.expected.table["path"]}
        assert len(paths) == len(tree.phantom)
        assert {file for file in contents(tree.folder) if file.endswith((".jpg", ".png", ".tfrecord"))} == paths
        assert paths == {tree.form.film_path(tree.phantom, index) for index in range(len(tree.phantom))}
        np.testing.assert_array_equal(tree.form.image_ids(tree.phantom), tree.expected.table["image_id"])

    def test_tables_and_headers_are_the_official_ones(self, tree, name):
        tree = tree(name)
        found = {}
        for file, data in contents(tree.folder).items():
            if file.endswith((".csv", ".csv.gz")) and file != "truth.csv":
                text = (gzip.decompress(data) if file.endswith(".gz") else data).decode()
                found[file] = text.splitlines()[0]
                assert "\r" not in text and text.endswith("\n")
        assert found == HEADERS[name]

    def test_two_writes_are_the_same_bytes_and_none_tells_the_time(self, tree, name, tmp_path):
        tree = tree(name)
        assert tree.form.write_tables(tree.phantom, tmp_path).relative_to(tmp_path) == tree.main.relative_to(tree.folder)
        again = contents(tmp_path)
        assert again == {file: data for file, data in contents(tree.folder).items() if file in again}
        for file, data in again.items():
            if file.endswith(".gz"):
                assert data[4:8] == b"\0\0\0\0"
            if file.endswith(".xlsx"):
                with zipfile.ZipFile(tmp_path / file) as archive:
                    assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
                    assert set(re.findall(rb"\d{4}-\d\d-\d\dT", archive.read("docProps/core.xml"))) == {b"1980-01-01T"}

    def test_another_seed_is_another_tree(self, tree, name):
        tree = tree(name)
        other = tree.form.expected(draw_phantom(PhantomConfig(**SETTINGS | {"seed": 4}, form=name)))
        assert not tree.expected.table.equals(other.table)

    def test_who_stays_keeps_the_same_rows_when_others_leave(self, name):
        form, settings = find_form(name), SETTINGS | {"mechanism": "under_representation"}
        whole, fewer = (draw_phantom(PhantomConfig(**settings | {"strength": s}, form=name)) for s in (0.0, 0.9))
        assert len(fewer) < len(whole)
        before, after = form.expected(whole), form.expected(fewer)
        stays = np.isin(whole.population.film, fewer.population.film)
        assert_same(after.table, before.table[stays].reset_index(drop=True))
        pd.testing.assert_frame_equal(after.labels, before.labels[stays].reset_index(drop=True))


def test_an_unknown_form_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"Unknown phantom form 'mimc'\. Did you mean 'mimic'\? Known: .*cxr_foundation"):
        find_form("mimc")


def test_every_form_carries_its_own_name():
    assert {name: find_form(name).name for name in FORMS} == {name: name for name in FORMS}


@pytest.mark.parametrize("name", MIMIC_FORMS)
class TestMimic:
    def test_ids_have_their_shape(self, tree, name):
        metadata = tree(name).read("*-metadata.csv.gz")
        assert metadata["subject_id"].str.fullmatch(r"1\d{7}").all()
        assert metadata["study_id"].str.fullmatch(r"5\d{7}").all()
        assert metadata["dicom_id"].str.fullmatch(r"([0-9a-f]{8}-){4}[0-9a-f]{8}").all()
        assert metadata["StudyDate"].str.fullmatch(r"2[12]\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])").all()
        assert metadata["StudyTime"].str.fullmatch(r"(\d|1\d|2[0-3])?([0-5]?\d)?[0-5]?\d\.\d{3}").all()
        assert metadata["StudyTime"].str.match(r"\d{1,5}\.").any()  # leading zeros are lost

    def test_labels_are_written_as_floats_or_blanks_and_no_finding_is_never_0(self, tree, name):
        for program in ("chexpert", "negbio"):
            labels = tree(name).read(f"*-{program}.csv.gz")
            assert not labels.duplicated("study_id").any()
            assert set(labels[ALPHABETICAL].to_numpy().ravel()) == {"1.0", "0.0", "-1.0", ""}
            assert set(labels["No Finding"]) == {"1.0", ""}

    def test_the_two_programs_differ_in_some_cells_and_either_is_read(self, tree, name):
        chexpert, negbio = (tree(name).parse(labeler=program).labels for program in ("chexpert", "negbio"))
        differs = (chexpert.fillna(9) != negbio.fillna(9)).to_numpy()
        assert 0 < differs.mean() < 0.05
        assert (chexpert.to_numpy()[differs] == 0).all() and np.isnan(negbio.to_numpy()[differs]).all()

    def test_reference_labels_are_the_truth_of_the_test_studies_and_of_no_other(self, tree, name):
        tree = tree(name)
        population, file = tree.phantom.population, tree.read("*-test-set-labeled.csv").set_index("study_id")
        is_test = population.split == "test"
        assert set(file.index) == set(population.study_id[is_test].astype(str))
        of_film = file.loc[population.study_id[is_test].astype(str)]
        truth = population.labels[is_test]
        for column, label in enumerate(LABELS):
            own = "Airspace Opacity" if label == "Lung Opacity" else label
            np.testing.assert_array_equal(of_film[own] == "1.0", truth[:, column])
        is_biased = (population.recorded != population.labels).any()
        assert is_biased  # so the file is not what the reports say

    def test_ages_follow_from_the_anchor_and_over_89_is_91(self, tree, name):
        tree = tree(name)
        metadata, patients = tree.read("*-metadata.csv.gz"), tree.read("patients.csv.gz").set_index("subject_id").astype(str)
        own = patients.loc[metadata["subject_id"]]
        years = metadata["StudyDate"].str[:4].astype(int).to_numpy() - own["anchor_year"].astype(int).to_numpy()
        age = own["anchor_age"].astype(int).to_numpy() + years
        true = tree.phantom.population.age
        np.testing.assert_array_equal(np.where(age > 89, 91, age), np.where(true > 89, 91, true))
        assert (years > 0).any() and (years < 0).any()
        assert not (patients["anchor_age"].astype(int) == 90).any()
        assert patients["anchor_age"].astype(int).min() >= 18

    def test_the_admission_nearest_in_time_carries_the_insurance_and_the_others_would_mislead(self, tree, name):
        tree = tree(name)
        metadata, admissions = tree.read("*-metadata.csv.gz"), tree.read("admissions.csv.gz")
        start, end = (pd.to_datetime(admissions[c]) for c in ("admittime", "dischtime"))
        assert (start < end).all()
        seconds = metadata["StudyTime"].str.split(".").str[0].str.zfill(6)
        moments = pd.to_datetime(metadata["StudyDate"] + seconds, format="%Y%m%d%H%M%S")
        zero, n_misled, n_within, n_near = pd.Timedelta(0), 0, 0, 0
        for row, (subject, moment) in enumerate(zip(metadata["subject_id"], moments, strict=True)):
            own = (admissions["subject_id"] == subject).to_numpy()
            found = tree.expected.table["insurance"][row]
            if not own.any():
                assert found == "unknown"
                continue
            apart = [max(s - moment, moment - e, zero) for s, e in zip(start[own], end[own], strict=True)]
            insurances = admissions["insurance"][own].to_numpy()
            assert insurances[int(np.argmin(apart))] == found == tree.phantom.population.insurance[row]
            n_misled += len(set(insurances)) > 1
            n_within, n_near = n_within + (min(apart) == zero), n_near + (min(apart) > zero)
        assert min(n_misled, n_within, n_near) > 30

    def test_race_conflicts_finer_texts_and_silence_are_all_there(self, tree, name):
        tree = tree(name)
        population = tree.phantom.population
        column = "ethnicity" if name == "mimic_v1" else "race"
        admissions = tree.read("admissions.csv.gz")
        admissions = admissions[admissions["subject_id"].isin(population.subject_id.astype(str))]
        groups = {"WHITE": "W", "PORTUGUESE": "W", "BLACK": "B", "HISPANIC": "H", "ASIAN": "A"}
        first_word = admissions[column].str.extract(r"^(\w+)")[0].map(groups)
        per_patient = first_word.groupby(admissions["subject_id"]).nunique()
        conflicting = frozenset(per_patient.index[per_patient > 1])
        assert conflicting == tree.expected.conflicting["race"]
        assert 1 <= len(conflicting) <= 0.06 * SETTINGS["n_patients"]
        silent = {"UNKNOWN", "UNABLE TO OBTAIN"} | (set() if name == "mimic_v1" else {"PATIENT DECLINED TO ANSWER"})
        assert set(admissions[column][first_word.isna()]) == silent
        # Some who are silent once speak at another admission: no conflict, and no loss.
        by_patient = first_word.isna().groupby(admissions["subject_id"]).agg(["any", "all"])
        assert (by_patient["any"] & ~by_patient["all"]).any()
        texts = admissions[column].groupby(admissions["subject_id"]).nunique()
        assert (texts[~texts.index.isin(conflicting)] > 1).any() or name == "mimic_v1"
        known = tree.expected.table["race"] != "unknown"
        assert (population.race[known] == tree.expected.table["race"][known]).all()

    def test_some_patients_have_no_admission_and_their_race_from_emergency_stays_alone(self, tree, name):
        tree = tree(name)
        subject = tree.expected.table["patient_id"]
        is_admitted = subject.isin(tree.read("admissions.csv.gz")["subject_id"])
        is_known = tree.expected.table["race"] != "unknown"
        share = subject[~is_admitted].nunique() / subject.nunique()
        assert 0.05 < share < 0.16
        assert (is_known & ~is_admitted).any() == (name != "mimic_v1")
        assert (~is_known & ~is_admitted).any()

    def test_the_hospital_has_patients_without_films(self, tree, name):
        tree = tree(name)
        others = set(tree.read("patients.csv.gz")["subject_id"]) - set(tree.expected.table["patient_id"])
        assert len(others) >= 20
        assert others <= set(tree.read("admissions.csv.gz")["subject_id"])

    def test_portable_is_said_of_most_studies(self, tree, name):
        tree = tree(name)
        portable, view = tree.expected.table["portable"], tree.phantom.population.view
        assert set(portable[view == "AP"]) == {"portable", "unknown"} and set(portable[view == "PA"]) == {"fixed", "unknown"}
        assert 0 < (portable == "unknown").mean() < 0.08


class TestCxrFoundation:
    def test_each_record_is_its_own_films_vector(self, tree):
        tree = tree("cxr_foundation")
        made = vectors(tree.phantom)
        assert made.shape == (len(tree.phantom), 1376) and made.dtype == np.float32
        for index in range(0, len(tree.phantom), 17):
            path = tree.folder / tree.form.film_path(tree.phantom, index)
            assert 5000 < path.stat().st_size < 6000
            vector = read_vector(path, tree.phantom.population.dicom_id[index])
            np.testing.assert_array_equal(vector, made[index])

    def test_the_checksums_are_those_of_the_files_licence_first(self, tree):
        tree = tree("cxr_foundation")
        root = tree.folder / "image-embeddings-mimic-cxr/1.0"
        lines = [line.split(maxsplit=1) for line in (root / "SHA256SUMS.txt").read_text().splitlines()]
        assert lines[0][1] == "LICENSE.txt" and len(lines) == len(tree.phantom) + 1
        assert all(hashlib.sha256((root / name).read_bytes()).hexdigest() == digest for digest, name in lines)
        assert any("agree with SHA256SUMS.txt" in note for note in tree.parse(verify_checksums=True).notes)

    def test_a_finding_can_be_read_and_the_fainter_it_is_the_worse(self):
        areas = {}
        for strength in (0.0, 1.0):
            phantom = draw_phantom(PhantomConfig(n_patients=600, mechanism="presentation", strength=strength))
            population, made = phantom.population, vectors(phantom)
            is_worse_off = population.group == phantom.config.disadvantaged_group
            half = population.patient % 2 == 0
            has = population.labels[:, LABELS.index("Edema")]
            learned = np.linalg.lstsq(made[half & ~is_worse_off], has[half & ~is_worse_off].astype(float), rcond=None)[0]
            areas[strength] = roc_auc_score(has[~half & is_worse_off], (made @ learned)[~half & is_worse_off])
        assert areas[0.0] > 0.9
        assert areas[1.0] < 0.75  # findings that come together still tell of each other; this one is gone


class TestChexpert:
    def test_films_are_numbered_from_1_within_studies_within_patients(self, tree):
        paths = pd.concat([tree("chexpert").read(f"{part}.csv")["Path"] for part in ("train", "valid")])
        form = r"^CheXpert-v1\.0-small/(?:train|valid)/(patient\d{5})/study(\d+)/view(\d+)_frontal\.jpg$"
        parts = paths.str.extract(form)
        assert parts.notna().all().all()
        study, view = parts[1].astype(int), parts[2].astype(int)
        for _, own in study.groupby(parts[0]):
            assert sorted(set(own)) == list(range(1, own.max() + 1))
        for _, own in view.groupby([parts[0], parts[1]]):
            assert sorted(own) == list(range(1, len(own) + 1))

    def test_the_workbook_has_the_official_columns_an_extra_sheet_and_some_blanks(self, tree):
        (path,) = tree("chexpert").folder.rglob("CHEXPERT DEMO.xlsx")
        sheets = pd.read_excel(path, sheet_name=None, dtype=str)
        demographics = sheets["Sheet1"]
        assert list(demographics) == ["PATIENT", "GENDER", "AGE_AT_CXR", "PRIMARY_RACE", "ETHNICITY"]
        assert len(sheets) == 2
        assert demographics["ETHNICITY"].isna().any() and demographics["PATIENT"].duplicated().any()
        assert set(demographics["GENDER"]) == {"Male", "Female"}
        assert demographics["PRIMARY_RACE"].nunique() >= 10

    def test_one_row_does_not_know_the_sex_and_the_workbook_does(self, tree):
        tree = tree("chexpert")
        sex = pd.concat([tree.read("train.csv"), tree.read("valid.csv")])["Sex"]
        assert (sex == "Unknown").sum() == 1
        assert tree.expected.unknown("sex") == 0

    @pytest.mark.parametrize("name", ["chexpert", "chexpert_plus"])
    def test_hispanic_patients_are_told_by_ethnicity_alone(self, tree, name):
        tree = tree(name)
        table, race = tree.expected.table, tree.phantom.population.race
        assert set(table["ethnicity"][race == "HISPANIC/LATINO"]) >= {"Hispanic/Latino"}
        is_settled = ~table["patient_id"].isin(tree.expected.conflicting["race"] | tree.expected.conflicting["ethnicity"])
        np.testing.assert_array_equal((table["race"] == "OTHER")[is_settled], (race == "HISPANIC/LATINO")[is_settled])
        assert len(tree.expected.conflicting["race"]) > 0

    def test_a_few_patients_are_not_in_the_workbook(self, tree):
        phantom = draw_phantom(PhantomConfig(**SETTINGS | {"missing_race_share": 0.2}, form="chexpert"))
        people = plan_people(phantom)
        race = phantom.population.race[people.first]
        assert {race[i] for i, records in enumerate(people.records) if not records} == {""}


class TestNih:
    def test_follow_up_numbers_count_a_patients_films(self, tree):
        table = tree("nih").read("Data_Entry_2017_v2020.csv")
        made = table["Patient ID"].str.zfill(8) + "_" + table["Follow-up #"].str.zfill(3) + ".png"
        assert (made == table["Image Index"]).all() and table["Image Index"].is_unique
        for _, own in table["Follow-up #"].astype(int).groupby(table["Patient ID"]):
            assert sorted(own) == list(range(len(own)))

    def test_findings_are_those_that_the_phantom_has(self, tree):
        tree = tree("nih")
        findings = tree.read("Data_Entry_2017_v2020.csv")["Finding Labels"].str.split("|")
        recorded = tree.phantom.population.recorded
        words = {"Effusion": "Pleural Effusion", "Infiltration": "Lung Opacity", "Mass": "Lung Lesion"}
        words |= {"Pleural_Thickening": "Pleural Other"}
        words |= {w: w for w in ("Atelectasis", "Cardiomegaly", "Pneumonia", "Pneumothorax", "Consolidation", "Edema")}
        for row, listed in enumerate(findings):
            has = {own for own, name in words.items() if recorded[row, LABELS.index(name)]}
            assert set(listed) == (has or {"No Finding"})

    def test_the_two_lists_share_no_patient_and_miss_no_film(self, tree):
        lists = [set((tree("nih").folder / f"{name}.txt").read_text().split()) for name in ("train_val_list", "test_list")]
        assert lists[0] | lists[1] == {f"{image}.png" for image in tree("nih").expected.table["image_id"]}
        assert not {name[:8] for name in lists[0]} & {name[:8] for name in lists[1]}


def test_midrc_has_one_finding_and_only_its_own_words(tree):
    table = tree("midrc").read("MIDRC.csv")
    assert set(table["label"]) == {"Yes", "No"} and set(table["Sex"]) == {"Male", "Female"}
    assert set(table["Race"]) == {"White", "Black or African American", "Asian", "Other", ""}


def test_draws_belong_to_their_patient_and_their_purpose():
    phantom = draw_phantom(PhantomConfig(n_patients=5))
    of = np.array([4, 0, 4, 2])
    draws = uniform(phantom, "one", of)
    assert draws[0] == draws[2] and len(set(draws)) == 3
    np.testing.assert_array_equal(uniform(phantom, "one", of[1:2]), draws[1:2])
    assert not set(draws) & set(uniform(phantom, "other", of))


def test_numbers_count_within_runs():
    assert number_within(np.array([7, 7, 9, 10, 10, 10])).tolist() == [0, 1, 0, 0, 1, 2]


def test_cells_with_commas_are_quoted_as_csv_wants(tree):
    with (tree("chexpert_plus").folder / "df_chexpert_plus_240401.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {27}
    assert any("\n" in cell for row in rows for cell in row)  # reports run over lines, as the real ones do
