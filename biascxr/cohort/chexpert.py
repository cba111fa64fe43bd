"""CheXpert: `train.csv`, `valid.csv` and `CHEXPERT DEMO.xlsx`, or CheXpert Plus's table, as downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import pandas as pd

from biascxr.age_groups import parse_ages
from biascxr.cohort.base import (
    Layout,
    ParsedTable,
    Source,
    patients_by_reason,
    read_groups,
    read_labels,
    read_sex,
    require_columns,
    why_not_recorded,
)
from biascxr.cohort.chexpert_demographics import Recorded, find_demographics, read_demographics, recorded_sex, sort_records
from biascxr.cohort.chexpert_files import (
    FILM,
    PLUS_LABELS,
    PLUS_PATH,
    find_images,
    image_folders,
    image_roots,
    is_plus,
    path_parts,
    plus_label_files,
    read_label_file,
    tables_beside,
)
from biascxr.cohort.tables import find_files, read_header, read_table
from biascxr.config import CohortConfig
from biascxr.containers import UNKNOWN
from biascxr.errors import InputError

# CheXpert Plus's columns under CheXpert's names.
PLUS = {PLUS_PATH: "Path", "sex": "Sex", "age": "Age", "frontal_lateral": "Frontal/Lateral", "ap_pa": "AP/PA"}
NO_DEMOGRAPHICS = (
    "No recorded race or ethnicity: they lie in CHEXPERT DEMO.xlsx, which was not found beside the tables or one folder above; "
    "give it with --companions FILE."
)


class Chexpert(Layout):
    """One row per image, labels of its report; recorded race and ethnicity from another file."""

    name: ClassVar[str] = "chexpert"
    required: ClassVar[tuple[str, ...]] = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
    main_files: ClassVar[tuple[str, ...]] = ("train.csv", "valid.csv", "df_chexpert_plus*.csv")
    other_files: ClassVar[tuple[str, ...]] = ("CHEXPERT DEMO*.xlsx", "test.csv")
    label_names: ClassVar[tuple[str, ...]] = (
        "No Finding",
        "Enlarged Cardiomediastinum",
        "Cardiomegaly",
        "Lung Opacity",
        "Lung Lesion",
        "Edema",
        "Consolidation",
        "Pneumonia",
        "Atelectasis",
        "Pneumothorax",
        "Pleural Effusion",
        "Pleural Other",
        "Fracture",
        "Support Devices",
    )
    attributes: dict[str, bool] = {  # noqa: RUF012, an instance may have its own
        "sex": True,
        "race": True,
        "ethnicity": True,
        "age_group": False,
        "insurance": False,
    }
    card: ClassVar[str] = """\
Source: Stanford, CheXpert v1.0 (full size or -small; 224,316 images, 65,240 patients) or CheXpert Plus (240401).
Access: Stanford AIMI, research use agreement; no redistribution.
Columns: train.csv, valid.csv, test.csv: Path, Sex, Age, Frontal/Lateral, AP/PA, 14 labels. CHEXPERT DEMO.xlsx: PATIENT,
  PRIMARY_RACE, ETHNICITY. Plus: path_to_image, sex, age, race, ethnicity, insurance_type, frontal_lateral, ap_pa, split; its
  labels lie in files of their own (chexbert_labels/report_fixed.json), or are taken from train.csv and valid.csv by path.
Labels: 1, 0, -1 (uncertain), blank; train: software that reads reports (CheXpert; Plus: CheXbert); valid, test: radiologists.
No Finding: 1 or blank in train, never 0, so its blanks are 0 under every blank policy.
Sex: Male or Female as recorded; Unknown (one row) is unknown, or what CHEXPERT DEMO.xlsx says.
Age: years at the film; 90 means 90 and over; 0 stands where no age was recorded (the patients are adults): unknown.
Race, ethnicity: as recorded by the hospital in PRIMARY_RACE and ETHNICITY, sorted by printed rules; hispanic_policy keeps
  ethnicity apart (separate) or makes Hispanic patients a race group (combined). Insurance: Plus only.
Views: Frontal (AP, PA; a few LL, RL), Lateral. The valid part (200 patients, too few to compare groups) is the
  test part where there is no test.csv.
Known biases: one academic centre; AP films are of patients too ill to stand, so view and finding are confounded;
  race is unknown for many patients, and not at random; underdiagnosis has been reported (Seyyed-Kalantari et al. 2021).
Citation: Irvin et al., CheXpert, AAAI 2019; Plus: Chambon et al. 2024; race: Gichoya et al., Lancet Digital Health 2022.
"""

    def matches(self, columns: Iterable[str]) -> bool:
        """Either form: CheXpert's tables or Plus's."""
        columns = set(columns)
        return super().matches(columns) or set(PLUS) <= columns

    def locate(self, path: Path, config: CohortConfig) -> Path | None:
        """As other layouts; `train.csv`, `valid.csv` and `test.csv` of one folder are one data set."""
        if path.is_file():
            header = read_header(path)
            if self.matches(header):
                return next(table for table in tables_beside(path) if self.matches(read_header(table)))
            is_foreign = path.suffix.lower() == ".csv" and "Path" not in header  # many a data set has a test.csv
            if is_foreign or not find_files([path], self.other_files):
                return None
            path = path.parent
        found = [file for file in find_files([path], self.main_files) if self.matches(read_header(file))]
        if found and not set(found) <= set(tables_beside(found[0])):
            raise InputError(
                f"{path} holds several tables of layout {self.name!r}: {', '.join(map(str, found[:4]))}. Name one."
            )
        return next((table for table in tables_beside(found[0]) if table in found), None) if found else None

    def files(self, source: Source) -> list[Path]:
        """Returns the tables, the demographics, and the files that Plus's labels are taken from."""
        if is_plus(source.main):
            return [source.main, *plus_label_files(source)]
        demographics = find_demographics(source)
        return [*tables_beside(source.main), *([demographics] if demographics is not None else [])]

    def fingerprint(self, source: Source) -> dict:
        """Images are looked for on disk, so the folders that may hold them are part of what the cohort rests on."""
        return super().fingerprint(source) | {"image_folders": image_folders(source)}

    def parse(self, source: Source) -> ParsedTable:
        """As other layouts; of Plus's table only the columns that are needed are read, since it holds the reports' texts."""
        if not is_plus(source.main):
            return super().parse(source)
        wanted = [*PLUS, "race", "ethnicity", "insurance_type", "split", *self.label_names]
        frame = read_table(source.main, columns=wanted)
        require_columns(frame, [*PLUS, "race", "ethnicity"], "CheXpert Plus", source.main)
        return self._parse(frame.rename(columns=PLUS), source)

    def _parse(self, frame: pd.DataFrame, source: Source) -> ParsedTable:
        if not is_plus(source.main):
            frame = self._joined(frame, source.main)
        parts = path_parts(frame["Path"], source.main)
        paths, root = find_images(frame["Path"].str.strip(), parts, image_roots(source))
        table = pd.DataFrame(
            {
                "image_id": parts["patient"] + "/" + parts["study"] + "/" + parts["film"],
                "study_id": parts["patient"] + "/" + parts["study"],
                "patient_id": parts["patient"],
                "path": paths,
                "view": _views(frame, parts["film"]),
                "age": parse_ages(frame["Age"]),
                "sex": read_sex(frame["Sex"]),
                "split": (frame["split"].str.strip() if "split" in frame else parts["split"]).str.lower(),
            }
        )
        split_notes = []
        if not (table["split"] == "test").any():
            # The public release ends with valid: radiologists' labels of 200 patients, the part everyone judges on.
            table["split"] = table["split"].replace("valid", "test")
            split_notes = ["There is no test part; valid, the part that radiologists labelled, stands as one."]
        is_zero = table["age"] == 0
        table["age"] = table["age"].mask(is_zero)
        if source.config.hispanic_policy == "combined":
            self.attributes = {name: constant for name, constant in self.attributes.items() if name != "ethnicity"}
        recorded = self._recorded(table, frame, source)
        table = table.assign(**recorded.columns)
        why_no_age = is_zero.map({True: "recorded as 0", False: "blank"}).where(table["age"].isna(), "")
        unknown = {
            "sex": patients_by_reason(table["patient_id"], why_not_recorded(frame["Sex"]).where(table["sex"] == UNKNOWN, "")),
            "age_group": patients_by_reason(table["patient_id"], why_no_age),
            **recorded.unknown,
        }
        labels, label_notes = self._labels(frame, parts, source)
        zeros = [f"{int(is_zero.sum()):,} images with age 0 (where none was recorded): age unknown."] if is_zero.any() else []
        return ParsedTable(
            table,
            labels,
            root,
            conflicting=recorded.conflicting,
            unknown={name: counts for name, counts in unknown.items() if counts},
            notes=(*split_notes, *zeros, *recorded.notes, *label_notes),
        )

    def _joined(self, frame: pd.DataFrame, main: Path) -> pd.DataFrame:
        """Puts the tables of one folder below one another. `test.csv` as it is handed out has a path and labels only."""
        tables = {path: frame if path == main else read_table(path) for path in tables_beside(main)}
        whole = {path: table for path, table in tables.items() if path.name.lower() != "test.csv"}
        # A label that one of the tables lacks would be blank there, and a blank is a negative.
        labels = [name for name in self.label_names if any(name in table for table in whole.values())]
        for path, table in tables.items():
            require_columns(table, (*self.required, *labels) if path in whole else ("Path",), "CheXpert", path)
        wanted = (*self.required, *self.label_names)
        frames = [table[[name for name in wanted if name in table]] for table in tables.values()]
        return pd.concat(frames, ignore_index=True).fillna("")

    def _recorded(self, table: pd.DataFrame, frame: pd.DataFrame, source: Source) -> Recorded:
        patient_id = table["patient_id"]
        policies = {"hispanic_policy": source.config.hispanic_policy, "conflict_policy": source.config.conflict_policy}
        if is_plus(source.main):
            records = frame[["race", "ethnicity"]].assign(patient=patient_id)
            recorded = sort_records(patient_id, records, **policies, where=source.main.name)
            if "insurance_type" in frame:
                insurance = read_groups(frame["insurance_type"])
                recorded.columns["insurance"] = insurance
                why = why_not_recorded(frame["insurance_type"]).where(insurance == UNKNOWN, "")
                recorded.unknown["insurance"] = patients_by_reason(patient_id, why)
            return recorded
        path = find_demographics(source)
        if path is None:
            return Recorded(notes=[NO_DEMOGRAPHICS])
        records = read_demographics(path)
        if not records["patient"].isin(set(patient_id)).any():
            raise InputError(f"{path}: none of the {patient_id.nunique():,} patients of the tables is in it; is it CheXpert's?")
        recorded = sort_records(patient_id, records, **policies, where=path.name)
        from_there = recorded_sex(patient_id, records, source.config.conflict_policy)
        helped = (table["sex"] == UNKNOWN) & (from_there != UNKNOWN)
        if helped.any():
            recorded.columns["sex"] = table["sex"].mask(helped, from_there)
            recorded.notes.append(
                f"{patient_id[helped].nunique():,} patients whose sex the tables do not say have it from {path.name}."
            )
        return recorded

    def _labels(self, frame: pd.DataFrame, parts: pd.DataFrame, source: Source) -> tuple[pd.DataFrame, list[str]]:
        present = [name for name in self.label_names if name in frame]
        if present:
            return read_labels(frame, present), []
        if not is_plus(source.main):
            raise InputError(f"{source.main.name} holds none of the labels: {', '.join(self.label_names)}.")
        files = plus_label_files(source)
        if not files:
            raise InputError(
                f"{source.main.name} holds no labels. CheXpert Plus's lie in chexbert_labels/{PLUS_LABELS}, or in CheXpert's "
                "own train.csv and valid.csv: put these beside the table, or name them with --companions FILE."
            )
        found = pd.concat([read_label_file(file, self.label_names) for file in files], ignore_index=True).fillna("")
        found = found.drop_duplicates(FILM).set_index(FILM)
        films = pd.MultiIndex.from_frame(parts[FILM])
        has_labels = films.isin(found.index)
        names = ", ".join(file.name for file in files)
        if not has_labels.any():
            raise InputError(f"None of the {len(films):,} films of {source.main.name} is in {names}.")
        notes = [f"Labels were joined by path from {names}."]
        if not has_labels.all():
            notes.append(f"{int((~has_labels).sum()):,} images are not in {names}: their labels are blank.")
        texts = found.reindex(films, fill_value="").set_axis(frame.index)
        return read_labels(texts, [name for name in self.label_names if name in texts]), notes


def _views(frame: pd.DataFrame, film: pd.Series) -> pd.Series:
    """Returns AP, PA, LL, RL, LATERAL, or `""`; where a table does not say it (`test.csv`), the film's name does."""
    position = frame["AP/PA"].str.strip().str.upper()
    kind = frame["Frontal/Lateral"].str.strip().str.lower()
    is_lateral = (kind == "lateral") | ((kind == "") & film.str.contains("lateral", case=False))
    return position.mask(is_lateral & ~position.isin(("LL", "RL")), "LATERAL")
