"""The BiasCXR form: one row per image, one path per row, the CheXpert labels beside it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pandas as pd

from biascxr.age_groups import read_ages
from biascxr.cohort.base import (
    Layout,
    ParsedTable,
    normalise_column,
    read_groups,
    read_labels,
    read_sex,
)
from biascxr.errors import InputError

CHEXPERT_LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)


class Generic(Layout):
    """`subject_id, study_id, dicom_id, path`, and what there is of `split, gender, race, age, insurance, ViewPosition`."""

    name: ClassVar[str] = "generic"
    required: ClassVar[tuple[str, ...]] = ("subject_id", "study_id", "dicom_id", "path")
    label_names: ClassVar[tuple[str, ...]] = CHEXPERT_LABELS
    card: ClassVar[str] = """\
Source: a table made by the user, in the form that the BiasCXR code reads (github.com/aahmadnejad/BiasCXR).
Columns: subject_id, study_id, dicom_id, path; optional split, gender or sex, race, age or anchor_age, insurance,
  ViewPosition or view; any of the 14 CheXpert labels.
path: .jpg/.jpeg/.png (images) or .npy/.tfrecord (one precomputed vector per file, CXR Foundation's form).
Labels: 1, 0, -1 (uncertain), blank; made by software that reads reports (CheXpert or NegBio), not by a person.
No Finding: 1 or blank in the official tables, never 0, so its blanks are 0 under every blank policy.
Race, sex: as recorded in the hospital's administration; self-report and staff entry are not told apart.
Views: rows whose view is not AP or PA are left out by default; rows without a view are kept.
Citation: cite the data set that the table was made from (MIMIC-CXR-JPG: Johnson et al. 2019; CheXpert: Irvin et al. 2019).
"""

    optional: ClassVar[dict[str, tuple[str, ...]]] = {
        "sex": ("gender", "sex"),
        "race": ("race",),
        "age": ("age", "anchor_age"),
        "insurance": ("insurance",),
        "view": ("ViewPosition", "view", "view_position"),
        "split": ("split",),
    }

    def _parse(self, frame: pd.DataFrame, images_root: Path) -> ParsedTable:
        found = {normalise_column(c): c for c in frame}
        column = {
            key: next((found[normalise_column(n)] for n in names if normalise_column(n) in found), None)
            for key, names in self.optional.items()
        }
        table = pd.DataFrame(
            {
                "image_id": frame["dicom_id"].str.strip(),
                "study_id": frame["study_id"].str.strip(),
                "patient_id": frame["subject_id"].str.strip(),
                "path": frame["path"].str.strip(),
                "view": frame[column["view"]].str.strip().str.upper() if column["view"] else "",
            }
        )
        notes: list[str] = []
        table["age"] = float("nan")
        if column["age"]:
            table["age"], notes = read_ages(frame[column["age"]])
        if column["sex"]:
            table["sex"] = read_sex(frame[column["sex"]])
        for name in ("race", "insurance"):
            if column[name]:
                table[name] = read_groups(frame[column[name]])
        if column["split"]:
            table["split"] = frame[column["split"]].str.strip().str.lower()

        present = {name: found[normalise_column(name)] for name in self.label_names if normalise_column(name) in found}
        if not present:
            raise InputError(
                f"No label column found. Expected some of: {', '.join(self.label_names)}. "
                f"Found: {', '.join(map(str, frame.columns))}."
            )
        labels = read_labels(frame, present.values())
        labels.columns = list(present)
        if "No Finding" in labels:
            labels["No Finding"] = labels["No Finding"].fillna(0.0)  # blank means "not said", and 0 is never written
        return ParsedTable(table, labels, tuple(notes))
