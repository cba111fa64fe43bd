"""MIDRC: a table of radiographs with COVID status, in the form that Causal Fairness used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.age_groups import parse_ages
from biascxr.cohort.base import NOT_RECORDED, Layout, ParsedTable, Source, normalise_column, read_sex, require_columns
from biascxr.cohort.race import ASIAN, BLACK, HISPANIC, MULTIPLE, NATIVE_AMERICAN, OTHER, PACIFIC, WHITE
from biascxr.cohort.tables import read_table
from biascxr.containers import UNKNOWN
from biascxr.errors import InputError

COVID = "COVID"
COVID_TEXTS = {"YES": 1.0, "POSITIVE": 1.0, "1": 1.0, "1.0": 1.0, "NO": 0.0, "NEGATIVE": 0.0, "0": 0.0, "0.0": 0.0, "": np.nan}
RACES = {
    "AMERICAN INDIAN OR ALASKA NATIVE": NATIVE_AMERICAN,
    "ASIAN": ASIAN,
    "BLACK OR AFRICAN AMERICAN": BLACK,
    "HISPANIC OR LATINO": HISPANIC,
    "MORE THAN ONE RACE": MULTIPLE,
    "MULTIPLE": MULTIPLE,
    "NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER": PACIFIC,
    "OTHER": OTHER,
    "WHITE": WHITE,
}
# Columns that name the patient, the study and the view, where a table has them; as `normalise_column` writes them.
PATIENT = ("patientid", "submitterid", "caseids", "casessubmitterid", "subjectid", "caseid")
STUDY = ("studyid", "studyuid", "studyinstanceuid")
VIEW = ("viewposition", "view")


class Midrc(Layout):
    """One row per image, one label; race, sex, age."""

    name: ClassVar[str] = "midrc"
    required: ClassVar[tuple[str, ...]] = ("Age", "Sex", "Race", "label", "Path", "filename")
    main_files: ClassVar[tuple[str, ...]] = ("*midrc*.csv", "*midrc*.csv.gz")
    label_names: ClassVar[tuple[str, ...]] = (COVID,)
    attributes: ClassVar[dict[str, bool]] = {"sex": True, "race": True, "age_group": False}
    zero_where_blank: ClassVar[tuple[str, ...]] = ()
    card: ClassVar[str] = """\
Source: Medical Imaging and Data Resource Center (midrc.org), radiographs of people tested for COVID-19; a table as the
  Causal Fairness code made it from the data commons.
Access: MIDRC data use agreement.
Columns: Age, Sex, Race, label (Yes or No), Path, filename, in any case; optional patient_id, submitter_id, case_ids or
  subject_id, study_id or study_uid, ViewPosition or view.
Labels: COVID, 1 or 0, from a test of the patient near the date of the study, not from the image.
Patients: where no column names them, every image counts as a patient of its own: images of one patient may then lie on both
  sides of a split, and intervals are too narrow.
Sex: Male or Female. Age: years. Race: as recorded, the full names of the US census; Hispanic ethnicity is not in this form.
Views: in most tables not said; all rows are then kept, lateral ones too.
Known biases: who was tested, and where, differs between groups and sites; the label can be read from the site.
Citation: acknowledge MIDRC (NIBIB contracts 75N92020C00008 and 75N92020C00021) as its data use agreement words it.
"""

    def matches(self, columns: Iterable[str]) -> bool:
        """Returns whether a table has these columns, in any case."""
        return {normalise_column(c) for c in self.required} <= {normalise_column(str(c)) for c in columns}

    def parse(self, source: Source) -> ParsedTable:
        """As other layouts; columns are compared without regard to case."""
        frame = read_table(source.main)
        written = {normalise_column(c): c for c in self.required}
        names = [normalise_column(str(c)) for c in frame]
        twice = [c for c in written if names.count(c) > 1]
        if twice:
            raise InputError(f"{source.main.name} has several columns that could be {written[twice[0]]}; keep one of them.")
        frame = frame.rename(
            columns={c: written[normalise_column(str(c))] for c in frame if normalise_column(str(c)) in written}
        )
        require_columns(frame, self.required, f"Layout {self.name!r}", source.main)
        return self._parse(frame, source)

    def _parse(self, frame: pd.DataFrame, source: Source) -> ParsedTable:
        path = _paths(frame["Path"], frame["filename"])
        # The path, since one file name may stand in several folders.
        image_id = path.str.replace(r"\.(png|jpe?g|dcm|npy|tfrecord)$", "", regex=True, case=False)
        patient, study, view = (_column(frame, names) for names in (PATIENT, STUDY, VIEW))
        notes = []
        patient_id = image_id
        if patient is None:
            notes.append(
                "No column names the patient (patient_id, submitter_id, case_ids, subject_id): every image counts as a patient "
                "of its own. A patient's images can then lie on both sides of a split, and intervals are too narrow."
            )
        else:
            patient_id = frame[patient].str.strip()
        table = pd.DataFrame(
            {
                "image_id": image_id,
                "study_id": frame[study].str.strip() if study else image_id,
                "patient_id": patient_id,
                "path": path,
                "view": frame[view].str.strip().str.upper() if view else "",
                "age": parse_ages(frame["Age"]),
                "sex": read_sex(frame["Sex"]),
            }
        )
        table["race"], unknown, race_notes = _races(frame["Race"], patient_id)
        return ParsedTable(
            table,
            _labels(frame["label"]),
            source.images_root or source.main.parent,
            unknown={"race": unknown} if unknown else {},
            notes=(*notes, *race_notes),
        )


def _column(frame: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    found = {normalise_column(str(c)): c for c in frame}
    return next((found[name] for name in names if name in found), None)


def _paths(folder: pd.Series, filename: pd.Series) -> pd.Series:
    """Returns `Path/filename`, or `Path` where it ends in the file's name already; `""` without a file name."""
    folder, filename = (text.str.strip().str.replace("\\", "/").astype(object) for text in (folder, filename))
    folder = folder.where(folder == "/", folder.str.rstrip("/"))
    is_whole = [f == name or f.endswith(f"/{name}") for f, name in zip(folder, filename, strict=True)]
    joined = folder.mask(folder != "", folder + "/") + filename
    return joined.mask(is_whole, folder).mask(filename == "", "")


def _races(recorded: pd.Series, patient_id: pd.Series) -> tuple[pd.Series, dict[str, int], list[str]]:
    text = recorded.str.strip().str.upper().str.replace(r"\s+", " ", regex=True)
    why = text.map({**NOT_RECORDED, "NOT REPORTED": "recorded as unknown"})
    is_unforeseen = why.isna() & ~text.isin(RACES)
    race = text.map(RACES).mask(why.notna(), UNKNOWN).mask(is_unforeseen, OTHER)
    unknown = {str(reason): int(n) for reason, n in patient_id[why.notna()].groupby(why[why.notna()]).nunique().items()}
    unforeseen = patient_id[is_unforeseen].groupby(text[is_unforeseen]).nunique()
    notes = [
        f"{n:,} patients have a record of race {t!r}, which no rule foresees: counted as {OTHER}."
        for t, n in unforeseen.items()
    ]
    return race, unknown, notes


def _labels(column: pd.Series) -> pd.DataFrame:
    text = column.str.strip().str.upper()
    wrong = ~text.isin(COVID_TEXTS)
    if wrong.any():
        raise InputError(
            f"Label column 'label' holds {column[wrong].iloc[0]!r} ({int(wrong.sum())} such cells); "
            "expected Yes or No (COVID), Positive or Negative, 1 or 0, or blank."
        )
    return pd.DataFrame({COVID: text.map(COVID_TEXTS).astype(np.float64)})
