"""The BiasCXR form (one row per image, one path per row, the CheXpert labels beside it), or any table by a mapping."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pandas as pd

from biascxr.age_groups import parse_ages
from biascxr.cohort.base import (
    Layout,
    ParsedTable,
    Source,
    normalise_column,
    read_groups,
    read_labels,
    read_sex,
)
from biascxr.cohort.chexpert_labels import CHEXPERT_LABELS
from biascxr.cohort.mapping import BirthYear, LabelList, TableMapping, read_mapping
from biascxr.cohort.tables import read_table
from biascxr.config import CohortConfig
from biascxr.containers import UNKNOWN
from biascxr.errors import InputError


class Generic(Layout):
    """`subject_id, study_id, dicom_id, path`, and what there is of `split, gender, race, age, insurance, ViewPosition`.

    With `--mapping FILE.yaml` any other table: label names and attributes are then the mapping's, and belong to the instance.
    """

    name: ClassVar[str] = "generic"
    required: ClassVar[tuple[str, ...]] = ("subject_id", "study_id", "dicom_id", "path")
    label_names: tuple[str, ...] = CHEXPERT_LABELS
    attributes: dict[str, bool] = {"sex": True, "race": True, "age_group": False, "insurance": False}  # noqa: RUF012
    zero_where_blank: tuple[str, ...] = ("No Finding",)
    card: ClassVar[str] = """\
Source: a table made by the user, in the form that the BiasCXR code reads (github.com/aahmadnejad/BiasCXR), or of any form
  through a mapping of columns (--mapping).
Access: that of the data it was made from.
Columns: subject_id, study_id, dicom_id, path; optional split, gender or sex, race, age or anchor_age, insurance,
  ViewPosition or view; any of the 14 CheXpert labels. With a mapping: those that it names.
path: .jpg/.jpeg/.png/.dcm (images) or .npy/.tfrecord (one precomputed vector per file, CXR Foundation's form).
Labels: 1, 0, -1 (uncertain), blank; made by software that reads reports (CheXpert or NegBio), not by a person.
No Finding: 1 or blank in the official tables, never 0, so its blanks are 0 under every blank policy.
Race, sex: as recorded in the hospital's administration; self-report and staff entry are not told apart.
Sex: M, F, Male, Female; anything else is unknown. Age: years, or DICOM's form (058Y).
Views: rows whose view is not AP or PA are left out by default; rows without a view are kept.
Known biases: those of the data set that the table was made from, and of whoever chose its rows.
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

    def locate(self, path: Path, config: CohortConfig) -> Path | None:
        """With a mapping, whatever table the user named; else as other layouts do."""
        if config.mapping is None:
            return super().locate(path, config)
        if path.is_dir():
            raise InputError(f"--mapping describes one table, and {path} is a folder; name the table: --csv_path FILE.")
        return path

    def files(self, source: Source) -> list[Path]:
        """Returns the table, and the mapping where there is one."""
        return super().files(source) + ([source.config.mapping] if source.config.mapping is not None else [])

    def parse(self, source: Source) -> ParsedTable:
        """As other layouts; with a mapping, label names and attributes of this instance become the mapping's."""
        if source.config.mapping is None:
            return super().parse(source)
        mapping = read_mapping(source.config.mapping, self.attributes)
        frame = read_table(source.main)
        mapping.check_columns(frame)
        parsed = _parse_mapped(mapping, frame, source)
        self.label_names = tuple(parsed.labels)
        declared = {"sex": True, "age_group": False, **mapping.constant}
        is_there = {"sex": "sex" in mapping.cells, "age_group": mapping.age is not None}
        self.attributes = {name: constant for name, constant in declared.items() if is_there.get(name, True)}
        if isinstance(mapping.labels, LabelList):
            self.zero_where_blank = ()  # a list without it says 0; a blank cell says nothing
        return parsed

    def _parse(self, frame: pd.DataFrame, source: Source) -> ParsedTable:
        found: dict[str, str] = {}
        for name in frame:
            first = found.setdefault(normalise_column(name), name)
            if first != name:
                raise InputError(f"Columns {first!r} and {name!r} of {source.main.name} have one name but for case: keep one.")
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
        table["age"] = parse_ages(frame[column["age"]]) if column["age"] else float("nan")
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
        return ParsedTable(table, labels, _images_root(source))


def _parse_mapped(mapping: TableMapping, frame: pd.DataFrame, source: Source) -> ParsedTable:
    def read(key: str, of_text: Callable[[pd.Series], pd.Series] = lambda text: text) -> pd.Series:
        return of_text(mapping.cells[key].read(frame))

    image_id = read("image_id")
    table = pd.DataFrame(
        {
            "image_id": image_id,
            "study_id": read("study_id") if "study_id" in mapping.cells else image_id,
            "patient_id": read("patient_id"),
            "path": read("path"),
            "view": read("view", lambda text: text.str.upper()) if "view" in mapping.cells else "",
        }
    )
    notes = [mapping.sentence()]
    table["age"] = float("nan")
    if isinstance(mapping.age, BirthYear):
        table["age"] = mapping.age.read(frame)
        notes.append("Age is the year of the study less the year of birth, so it may be one year too high.")
    elif mapping.age is not None:
        table["age"] = parse_ages(mapping.age.read(frame).rename(mapping.age.text))
    if "sex" in mapping.cells:
        table["sex"] = read("sex", read_sex)
    for name, cells in mapping.attributes.items():
        table[name] = read_groups(cells.read(frame))
    if "split" in mapping.cells:
        table["split"] = read("split", lambda text: text.str.lower())
    unknown = {name: (table[name] == UNKNOWN) for name in ("sex", *mapping.attributes) if name in table}
    counted = {name: int(table["patient_id"][rows].nunique()) for name, rows in unknown.items() if rows.any()}
    return ParsedTable(
        table,
        mapping.labels.read(frame),
        _images_root(source),
        unknown={name: {"not recorded": n} for name, n in counted.items()},
        notes=tuple(notes),
    )


def _images_root(source: Source) -> Path:
    return source.images_root or source.main.parent
