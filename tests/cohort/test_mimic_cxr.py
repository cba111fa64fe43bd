"""MIMIC-CXR with MIMIC-IV: small trees written by hand, in the shapes that PhysioNet gives them."""

import gzip
import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.cohort.base import Source
from biascxr.cohort.mimic_cxr import MimicCxr
from biascxr.cohort.mimic_iv import age_at_study, nearest_admissions, study_moments
from biascxr.config import CohortConfig
from biascxr.errors import InputError

LAYOUT = MimicCxr()
A, B, C, D, E = "10000001", "11000002", "12000003", "13000004", "14000005"

# image: subject, study, description, view, date, time
METADATA = [
    ("aa", A, "50000001", "CHEST (PORTABLE AP)", "AP", "21800610", "75901.5"),
    ("ab", A, "50000001", "CHEST (PORTABLE AP)", "LATERAL", "21800610", "75901.5"),
    ("ac", A, "50000002", "CHEST (PA AND LAT)", "PA", "21830101", "0.0"),
    ("ba", B, "50000003", "", "pa", "21500102", "213014.531"),
    ("ca", C, "50000004", "chest (portable ap)", "", "21200505", ""),
    ("da", D, "50000005", "CHEST (PA AND LAT)", "AP", "21900505", "120000"),
    ("ea", E, "50000006", "CHEST (PA AND LAT)", "PA", "21900505", "120000"),
]
PATIENTS = [(A, "F", 60, 2180), (B, "M", 88, 2148), (C, "F", 91, 2119), (D, "M", 30, 2185), ("19999999", "M", 50, 2150)]
# subject, hadm, admitted, discharged, insurance, race
ADMISSIONS = [
    (A, 3, "2183-02-01 10:00:00", "2183-02-03 10:00:00", "Medicare", "WHITE - RUSSIAN"),
    (A, 1, "2180-06-10 07:00:00", "2180-06-12 00:00:00", "Medicaid", "WHITE"),
    (B, 4, "2150-01-01 00:00:00", "2150-01-01 12:00:00", "Other", "WHITE"),
    (B, 5, "2151-01-01 00:00:00", "2151-01-02 12:00:00", "Medicare", "ASIAN - CHINESE"),
    (B, 6, "2152-01-01 00:00:00", "2152-01-02 12:00:00", "Medicare", "ASIAN"),
    (C, 7, "2120-05-05 00:00:00", "", "", "PATIENT DECLINED TO ANSWER"),
    ("19999999", 8, "2150-01-01 00:00:00", "2150-01-01 12:00:00", "Other", "MARTIAN"),
]
STAYS = [
    (A, 1, "2180-01-01 00:00:00", "BLACK/AFRICAN"),
    (C, 2, "2120-01-02 00:00:00", "BLACK/CAPE VERDEAN"),
    (D, 3, "2190-01-01 00:00:00", "UNABLE TO OBTAIN"),
]


def write(path, frame, *, dress="plain"):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = frame.to_csv(index=False, lineterminator="\r\n" if dress == "windows" else "\n").encode()
    if dress == "windows":
        text = b"\xef\xbb\xbf" + text
    if dress == "gz":
        text, path = gzip.compress(text), path.with_name(path.name + ".gz")
    path.write_bytes(text)
    return path


def metadata(rows=METADATA):
    names = [
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "StudyDate",
        "StudyTime",
    ]
    return pd.DataFrame(rows, columns=names).assign(Rows=3056, Columns=2544)


def study_labels(**columns):
    frame = metadata()[["subject_id", "study_id"]].drop_duplicates().reset_index(drop=True)
    frame = frame.assign(**dict.fromkeys(LAYOUT.label_names, ""))
    frame["Edema"] = ["1.0", "0.0", "-1.0", "", "1.0", "0.0"]
    frame["No Finding"] = ["", "1.0", "", "", "", ""]
    return frame.assign(**columns)


def patients():
    return pd.DataFrame(PATIENTS, columns=["subject_id", "gender", "anchor_age", "anchor_year"]).assign(dod="")


def admissions(race="race"):
    return pd.DataFrame(ADMISSIONS, columns=["subject_id", "hadm_id", "admittime", "dischtime", "insurance", race])


def edstays():
    return pd.DataFrame(STAYS, columns=["subject_id", "stay_id", "intime", "race"]).assign(outtime="")


@pytest.fixture
def tree(tmp_path):
    """Function `(**tables, folders) -> the metadata's folder`; a table given as None is left out."""

    def make(*, cxr="mimic-cxr-jpg/2.1.0", iv="mimiciv/2.2/hosp", ed="mimic-iv-ed/2.2/ed", dress="plain", **tables):
        split = metadata()[["dicom_id", "study_id", "subject_id"]].assign(split=[*["train"] * 3, *["test"] * 3, "validate"])
        official = {
            f"{cxr}/mimic-cxr-2.0.0-metadata.csv": ("metadata", metadata()),
            f"{cxr}/mimic-cxr-2.0.0-chexpert.csv": ("chexpert", study_labels()),
            f"{cxr}/mimic-cxr-2.0.0-negbio.csv": ("negbio", study_labels(Edema="0")),
            f"{cxr}/mimic-cxr-2.0.0-split.csv": ("split", split),
            f"{cxr}/mimic-cxr-2.1.0-test-set-labeled.csv": ("reference", None),
            f"{iv}/patients.csv": ("patients", patients()),
            f"{iv}/admissions.csv": ("admissions", admissions()),
            f"{ed}/edstays.csv": ("edstays", None),
        }
        for name, (key, frame) in official.items():
            frame = tables.pop(key, frame)
            if frame is not None:
                write(tmp_path / name, frame, dress=dress)
        assert not tables
        return tmp_path / cxr

    return make


def parse(folder, *, images_root=None, **config):
    config = CohortConfig(**config)
    source = Source(LAYOUT.locate(folder, config), images_root, config)
    return LAYOUT.parse(source)


def column(parsed, name):
    return dict(zip(parsed.table["image_id"], parsed.table[name], strict=True))


def notes(parsed, *words):
    return [note for note in parsed.notes if all(word in note for word in words)]


class TestFiles:
    def test_ids_views_paths_labels_and_split(self, tree):
        parsed = parse(tree())
        table = parsed.table
        assert table["image_id"].tolist() == ["aa", "ab", "ac", "ba", "ca", "da", "ea"]
        assert table["path"][3] == "files/p11/p11000002/s50000003/ba.jpg"
        assert table["view"].tolist() == ["AP", "LATERAL", "PA", "PA", "", "AP", "PA"]
        assert table["split"].tolist() == ["train"] * 3 + ["test"] * 3 + ["validate"]
        np.testing.assert_array_equal(parsed.labels["Edema"], [1, 1, 0, -1, np.nan, 1, 0])
        assert list(parsed.labels) == list(LAYOUT.label_names)
        assert parsed.excluded == {}

    @pytest.mark.parametrize("iv", ["mimiciv/2.2/hosp", "mimic-iv-1.0/core", "mimiciv/2.2", "hosp", "mimic-cxr-jpg/2.1.0"])
    @pytest.mark.parametrize("dress", ["plain", "gz", "windows"])
    def test_the_same_tables_anywhere_and_in_any_dress_are_the_same_cohort(self, tree, tmp_path, iv, dress):
        folder = tree(iv=iv, dress=dress, admissions=admissions("ethnicity" if "core" in iv else "race"), edstays=edstays())
        one = parse(folder)
        for path in [p for p in folder.iterdir() if p.suffix in (".csv", ".gz") and "mimic-cxr" in p.name]:
            pd.testing.assert_frame_equal(parse(path).table, one.table)
        pd.testing.assert_frame_equal(parse(tmp_path).table, one.table)
        assert column(one, "race") == EXPECTED_RACE_WITH_ED
        assert column(one, "sex")["ba"] == "M"

    def test_far_tables_are_given_as_companions(self, tree, tmp_path):
        folder = tree(iv="far/away/from/here/hosp")
        assert "sex" not in parse(folder).table
        by_folder = parse(folder, companions=(tmp_path / "far",))
        by_file = parse(folder, companions=tuple((tmp_path / "far").rglob("*.csv")))
        assert "sex" in by_file.table
        pd.testing.assert_frame_equal(by_folder.table, by_file.table)

    def test_two_versions_of_mimic_iv_are_not_chosen_between(self, tree, tmp_path):
        folder = tree()
        write(tmp_path / "mimiciv/1.0/core/patients.csv", patients())
        with pytest.raises(
            InputError, match=r"Several files could be MIMIC-IV's patients: .*Name the one to use: --companions"
        ):
            parse(folder)

    def test_without_mimic_iv_it_works_and_says_which_files_to_give(self, tree):
        parsed = parse(tree(patients=None, admissions=None))
        assert not {"sex", "race", "insurance"} & set(parsed.table)
        assert parsed.table["age"].isna().all()
        assert notes(parsed, "no sex and age", "--companions", "patients.csv.gz")
        assert notes(parsed, "no race and insurance", "--companions", "admissions.csv.gz")

    def test_the_fingerprint_rests_on_every_table_and_on_the_images(self, tree):
        folder = tree(edstays=edstays(), reference=pd.DataFrame({"study_id": ["50000001"], "Edema": ["1"]}))
        source = Source(LAYOUT.locate(folder, CohortConfig()), None, CohortConfig())
        before = LAYOUT.fingerprint(source)
        assert len(LAYOUT.files(source)) == 7
        (folder / "files/p10/p10000001/s50000001").mkdir(parents=True)
        (folder / "files/p10/p10000001/s50000001/aa.dcm").write_bytes(b"")
        assert LAYOUT.fingerprint(source) != before

    def test_a_table_with_paths_of_its_own_is_not_taken_for_the_official_one(self):
        assert LAYOUT.matches(metadata().columns)
        assert not LAYOUT.matches([*metadata().columns, "path"])


class TestLabels:
    def test_the_labeler_is_chosen(self, tree):
        assert (parse(tree(), labeler="negbio").labels["Edema"] == 0).all()

    def test_a_study_without_labels_is_counted_and_left_out(self, tree):
        parsed = parse(tree(chexpert=study_labels()[1:]))
        assert parsed.excluded == {"study without chexpert labels": 2}
        assert parsed.table["image_id"].tolist() == ["ac", "ba", "ca", "da", "ea"]
        assert len(parsed.labels) == 5

    def test_both_ids_must_agree(self, tree):
        other = study_labels()
        other.loc[0, "subject_id"] = B
        parsed = parse(tree(chexpert=other))
        assert parsed.excluded == {"study without chexpert labels": 2}
        assert notes(parsed, "1 studies of mimic-cxr-2.0.0-chexpert.csv have no image")

    def test_without_the_labels_the_message_names_the_file(self, tree):
        with pytest.raises(InputError, match=r"mimic-cxr-2\.0\.0-chexpert\.csv\.gz is not beside .*--labeler"):
            parse(tree(chexpert=None))

    def test_an_image_without_a_part_of_the_split_is_said(self, tree):
        split = metadata()[["dicom_id", "study_id", "subject_id"]].assign(split="train")[2:]
        parsed = parse(tree(split=split))
        assert parsed.table["split"].tolist() == ["", "", *["train"] * 5]
        assert notes(parsed, "2 images are in no part of the official split")
        assert "split" not in parse(tree(cxr="mimic-cxr-jpg/2.0.0", split=None)).table

    def test_radiologists_labels_are_joined_on_the_study(self, tree):
        reference = pd.DataFrame(
            {"study_id": ["50000001", "50000004", "59999999"], "Airspace Opacity": ["1", "-1", "0"], "Edema": ["0", "1.0", ""]}
        )
        found = parse(tree(reference=reference)).reference_labels
        nan = np.nan
        np.testing.assert_array_equal(found["Lung Opacity"], [1, 1, nan, nan, nan, nan, nan])
        np.testing.assert_array_equal(found["Edema"], [0, 0, nan, nan, 1, nan, nan])
        assert set(found) == {"Lung Opacity", "Edema"}


EXPECTED_RACE = {
    "aa": "WHITE",
    "ab": "WHITE",
    "ac": "WHITE",
    "ba": "unknown",
    "ca": "unknown",
    "da": "unknown",
    "ea": "unknown",
}
EXPECTED_RACE_WITH_ED = EXPECTED_RACE | {"ca": "BLACK/AFRICAN AMERICAN"}


class TestMimicIv:
    def test_sex_and_age(self, tree):
        parsed = parse(tree())
        assert column(parsed, "sex") == dict(aa="F", ab="F", ac="F", ba="M", ca="F", da="M", ea="unknown")
        ages = column(parsed, "age")
        # B is 88 in 2148, so 90 in 2150; C is over 89 in 2119
        assert [ages[i] for i in ("aa", "ac", "ba", "ca", "da")] == [60, 63, 91, 91, 35]
        assert np.isnan(ages["ea"])
        assert parsed.unknown["sex"] == parsed.unknown["age_group"] == {"not in patients.csv": 1}

    @pytest.mark.parametrize(
        ("policy", "race_of_b"), [("unknown", "unknown"), ("drop", "unknown"), ("majority", "ASIAN"), ("first", "WHITE")]
    )
    def test_conflicting_race_is_settled_by_the_policy_in_order_of_admission(self, tree, policy, race_of_b):
        shuffled = admissions().sample(frac=1, random_state=3)
        parsed = parse(tree(admissions=shuffled), conflict_policy=policy)
        assert column(parsed, "race") == EXPECTED_RACE | {"ba": race_of_b}
        assert parsed.conflicting["race"] == {B}  # A's WHITE and WHITE - RUSSIAN are one group

    def test_unknown_race_is_counted_by_reason_and_adds_up(self, tree):
        parsed = parse(tree())
        assert parsed.unknown["race"] == {"no admission": 2, "recorded with several values": 1, "declined to answer": 1}
        for name, reasons in parsed.unknown.items():
            if name != "age_group":
                assert sum(reasons.values()) == parsed.table["patient_id"][parsed.table[name] == "unknown"].nunique()

    def test_emergency_stays_speak_only_where_admissions_do_not(self, tree):
        parsed = parse(tree(edstays=edstays()))
        assert column(parsed, "race") == EXPECTED_RACE_WITH_ED
        assert parsed.conflicting["race"] == {B}
        assert parsed.unknown["race"]["unable to obtain"] == 1
        assert parsed.unknown["race"]["no admission and no emergency stay"] == 1
        assert notes(parsed, "1 patients have their race from an emergency stay")

    def test_emergency_stays_of_a_version_without_race_are_not_used(self, tree):
        parsed = parse(tree(edstays=edstays().drop(columns="race")))
        assert column(parsed, "race") == EXPECTED_RACE
        assert notes(parsed, "edstays.csv has no column race")

    def test_other_patients_leave_no_trace(self, tree):
        assert not notes(parse(tree()), "MARTIAN")

    def test_insurance_is_of_the_nearest_admission(self, tree):
        parsed = parse(tree())
        insurance = column(parsed, "insurance")
        # ac: 2183-01-01 is a month before A's second stay and years after the first
        expected = dict(aa="Medicaid", ab="Medicaid", ac="Medicare", ba="Other", ca="unknown", da="unknown", ea="unknown")
        assert insurance == expected
        assert parsed.unknown["insurance"] == {"no admission": 2, "blank": 1}

    def test_a_study_without_a_date_has_neither_age_nor_insurance(self, tree):
        parsed = parse(tree(metadata=metadata().assign(StudyDate=["21800610", "21800610", "", *["21500102"] * 4])))
        assert np.isnan(column(parsed, "age")["ac"])
        assert column(parsed, "insurance")["ac"] == "unknown"
        assert parsed.unknown["insurance"]["no StudyDate"] == 1
        assert parsed.unknown["age_group"]["no anchor_age, anchor_year or StudyDate"] == 1

    def test_portable_is_read_from_the_description(self, tree):
        parsed = parse(tree())
        assert list(column(parsed, "portable").values()) == ["portable"] * 2 + [
            "fixed",
            "unknown",
            "portable",
            "fixed",
            "fixed",
        ]
        assert parsed.unknown["portable"] == {"no procedure description": 1}


@given(st.integers(18, 91), st.integers(2100, 2200), st.integers(-120, 80))
def test_age_is_the_anchor_and_the_years_since(anchor_age, anchor_year, years):
    (age,) = age_at_study(*(pd.Series([float(v)]) for v in (anchor_age, anchor_year, anchor_year + years)))
    plain = anchor_age + years
    assert age == (91 if 89 < plain <= 120 else plain)


def test_moments_of_studies():
    dates = pd.Series(["21800506", "21800506.0", "21800506", "", "21991231"])
    times = pd.Series(["75901.531", "213014", "", "1", "996099"])
    expected = ["2180-05-06 07:59:01.531", "2180-05-06 21:30:14", "2180-05-06 12:00", None, "2199-12-31 12:00"]
    assert study_moments(dates, times).tolist() == [pd.NaT if e is None else pd.Timestamp(e) for e in expected]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_the_nearest_admission_is_that_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 30), rng.integers(1, 12)
    origin = pd.Timestamp("2150-01-01")
    patient = pd.Series(rng.choice(["a", "b", "c"], n), dtype=object)
    moment = pd.Series(origin + pd.to_timedelta(rng.integers(0, 30, n), unit="D")).astype("datetime64[ms]")
    moment[rng.random(n) < 0.1] = pd.NaT
    admitted = pd.Series(origin + pd.to_timedelta(rng.integers(0, 30, m), unit="D"))
    discharged = (admitted + pd.to_timedelta(rng.integers(-2, 5, m), unit="D")).mask(rng.random(m) < 0.2)
    stays = pd.DataFrame({"subject_id": rng.choice(["a", "b", "d"], m), "admittime": admitted, "dischtime": discharged})

    def brute(who, when):
        best, nearest = -1, None
        for row in stays.itertuples():
            if row.subject_id != who or when is pd.NaT:
                continue
            end = row.admittime if pd.isna(row.dischtime) else max(row.admittime, row.dischtime)
            inside = row.admittime <= when <= end
            distance = pd.Timedelta(0) if inside else min(abs(when - row.admittime), abs(when - end))
            if nearest is None or distance < nearest:
                best, nearest = row.Index, distance
        return best

    expected = [brute(who, when) for who, when in zip(patient, moment, strict=True)]
    assert nearest_admissions(patient, moment, stays).tolist() == expected


class TestImages:
    def put(self, root, ending, folder="files/"):
        """Writes a file for each image of the metadata and the list of their checksums."""
        lines = [f"{'0' * 64}  LICENSE.txt"]
        for name, subject, study, *_ in METADATA:
            path = root / f"{folder}p{subject[:2]}/p{subject}/s{study}/{name}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
            lines.append(f"{hashlib.sha256(name.encode()).hexdigest()}  {path.relative_to(root).as_posix()}")
        (root / "SHA256SUMS.txt").write_text("\n".join(lines) + "\n")
        return root

    @pytest.mark.parametrize("ending", [".jpg", ".dcm", ".tfrecord"])
    def test_the_kind_of_file_is_looked_up(self, tree, tmp_path, ending):
        root = self.put(tmp_path / "elsewhere", ending)
        for named in (root, root / "files"):
            parsed = parse(tree(), images_root=named)
            assert all((parsed.images_root / path).is_file() for path in parsed.table["path"])
        assert parse(tree(), images_root=root, image_files="jpg").table["path"].str.endswith(".jpg").all()
        assert not notes(parsed, "No image was found")

    def test_no_image_at_all_is_said(self, tree):
        assert notes(parse(tree()), "No image was found below", "--images_root")

    @pytest.mark.parametrize("below", ["", "files"])
    def test_whole_files_agree_with_their_checksums(self, tree, tmp_path, below):
        root = self.put(tmp_path / "vectors", ".tfrecord")
        parsed = parse(tree(), images_root=root / below, verify_checksums=True)
        assert notes(parsed, "6 files agree with SHA256SUMS.txt")  # the lateral film is not used
        assert notes(parse(tree(), images_root=root, verify_checksums=True, frontal_only=False), "7 files agree")

    def test_the_list_may_mark_its_files_as_binary(self, tree, tmp_path):
        root = self.put(tmp_path / "vectors", ".tfrecord")
        marked = (root / "SHA256SUMS.txt").read_text().replace("  ", " *")
        (root / "SHA256SUMS.txt").write_text(marked)
        assert notes(parse(tree(), images_root=root, verify_checksums=True), "6 files agree")

    def test_a_film_of_unknown_view_that_the_vectors_lack_is_said(self, tree, tmp_path):
        root = self.put(tmp_path / "vectors", ".tfrecord")
        next(root.rglob("ca.tfrecord")).unlink()
        lines = (root / "SHA256SUMS.txt").read_text().splitlines()
        (root / "SHA256SUMS.txt").write_text("\n".join(line for line in lines if "ca.tfrecord" not in line))
        parsed = parse(tree(), images_root=root, verify_checksums=True)
        assert notes(parsed, "5 files agree", "1 of unknown view are neither there nor on the list")

    def test_what_differs_is_missing_or_not_listed_is_named(self, tree, tmp_path):
        root = self.put(tmp_path / "vectors", ".tfrecord")
        files = {path.stem: path for path in root.rglob("*.tfrecord")}
        files["aa"].write_bytes(b"other")
        files["ba"].unlink()
        lines = (root / "SHA256SUMS.txt").read_text().splitlines()
        (root / "SHA256SUMS.txt").write_text("\n".join(line for line in lines if "da.tfrecord" not in line))
        with pytest.raises(InputError) as error:
            parse(tree(), images_root=root, verify_checksums=True)
        message = str(error.value)
        assert "of 6 files" in message
        for words, name in (("not on the list", "da"), ("missing on disk", "ba"), ("different from the list", "aa")):
            assert f"1 {words}" in message
            path = files[name].relative_to(root).as_posix()
            assert path not in message  # it holds identifiers, and the message goes into the log
            assert f"{words}: {path}" in error.value.examples
        parse(tree(), images_root=root)  # not asked for: not looked at

    def test_without_a_list_nothing_is_verified_silently(self, tree):
        with pytest.raises(InputError, match=r"--verify_checksums: no SHA256SUMS\.txt"):
            parse(tree(), verify_checksums=True)


def without(frame, name):
    return frame.drop(columns=name)


@pytest.mark.parametrize(
    ("table", "frame", "message"),
    [
        ("metadata", without(metadata(), "StudyDate"), r"missing: StudyDate"),
        ("metadata", metadata().assign(StudyDate="2180-05-06"), r"holds '2180-05-06' \(7 such cells\); expected YYYYMMDD"),
        ("metadata", metadata().assign(StudyTime="noon"), r"StudyTime of the metadata holds 'noon'"),
        ("chexpert", without(study_labels(), "Edema"), r"mimic-cxr-2\.0\.0-chexpert\.csv; missing: Edema"),
        ("chexpert", study_labels(Edema="yes"), r"chexpert\.csv: Label column 'Edema' holds 'yes' \(6 such cells\)"),
        ("chexpert", pd.concat([study_labels()] * 2), r"chexpert\.csv: 6 rows repeat a subject_id and study_id"),
        ("chexpert", study_labels(study_id="1")[:1], r"chexpert\.csv: none of its 1 studies"),
        ("split", without(metadata(), "study_id").assign(split="train"), r"split\.csv; missing: study_id"),
        ("split", metadata().assign(split="train", subject_id=B), r"split\.csv: 6 images belong to another subject_id"),
        ("patients", without(patients(), "anchor_age"), r"patients\.csv; missing: anchor_age"),
        ("patients", patients().rename(columns=str.upper), r"patients\.csv; missing: subject_id, gender, anchor_age"),
        ("patients", patients().assign(anchor_age="old"), r"anchor_age of .*patients\.csv holds 'old' \(4 such cells\)"),
        ("patients", pd.concat([patients()] * 2), r"patients\.csv: 4 rows repeat a subject_id"),
        ("patients", patients()[-1:], r"patients\.csv: none of the 5 patients"),
        ("admissions", without(admissions(), "race"), r"admissions\.csv; missing: race"),
        ("admissions", without(admissions(), "insurance"), r"admissions\.csv; missing: insurance"),
        ("admissions", admissions().assign(admittime="May"), r"admissions\.csv: column admittime holds 'May'"),
        ("edstays", without(edstays(), "intime"), r"edstays\.csv; missing: intime"),
        ("reference", pd.DataFrame({"study_id": ["1"], "Odema": ["1"]}), r"labeled\.csv has no column named as a finding"),
    ],
)
def test_a_malformed_table_is_named_with_what_is_wrong(tree, table, frame, message):
    with pytest.raises(InputError, match=message):
        parse(tree(**{table: frame}))


@pytest.mark.parametrize("name", ["metadata", "chexpert", "split", "patients", "admissions", "edstays"])
@pytest.mark.parametrize("harm", ["empty", "cut"])
def test_an_empty_or_truncated_file_is_named(tree, tmp_path, name, harm):
    folder = tree(dress="gz", edstays=edstays())
    (path,) = tmp_path.rglob(f"*{name}.csv.gz")
    data = path.read_bytes()
    path.write_bytes(b"" if harm == "empty" else data[: len(data) // 2])
    with pytest.raises(InputError, match=rf"{name}\.csv\.gz cannot be read as a CSV table"):
        parse(folder)
