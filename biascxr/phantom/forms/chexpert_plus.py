"""CheXpert Plus: one table of films with reports and demographics, the labels beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.phantom.draw import Phantom
from biascxr.phantom.forms.base import UNKNOWN, ExpectedCohort, Form, number_within, reported_labels
from biascxr.phantom.forms.chexpert import CHEXPERT_LABELS, common_columns, split_words
from biascxr.phantom.forms.chexpert_people import People, Record, film_names, plan_people
from biascxr.phantom.forms.table_files import write_csv

TABLE = "df_chexpert_plus_240401.csv"
LABELS_FOLDER = "chexbert_labels"
IMAGES_FOLDER = "PNG"
# What the labels were read from: the whole report, its findings, its impression.
LABEL_FILES = ("report_fixed.json", "findings_fixed.json", "impression_fixed.json")
SECTIONS = (
    "narrative", "clinical_history", "history", "comparison", "technique", "procedure_comments", "findings", "impression",
    "end_of_impression", "summary", "accession_number",
)  # fmt: skip
INSURANCE_WORDS = {"Medicare": "Medicare", "Medicaid": "Medicaid", "Other": "Private Insurance"}


class ChexpertPlus(Form):
    """The table, CheXbert's labels as lines of JSON, and PNG films whose names in the table end in .jpg."""

    name: ClassVar[str] = "chexpert_plus"
    layout: ClassVar[str] = "chexpert"
    film_format: ClassVar[str | None] = "png"

    def film_path(self, phantom: Phantom, index: int) -> str:
        return f"{IMAGES_FOLDER}/{_name(phantom, index)}.png"

    def image_ids(self, phantom: Phantom) -> np.ndarray:
        return plan_people(phantom).image

    def write_tables(self, phantom: Phantom, folder: Path) -> Path:
        population, people, n = phantom.population, plan_people(phantom), len(phantom)
        records = _film_records(phantom, people)
        paths = [f"{_name(phantom, index)}.jpg" for index in range(n)]
        columns = {
            "path_to_image": paths,
            "path_to_dcm": [path.removesuffix(".jpg") + ".dcm" for path in paths],
            "frontal_lateral": ["Frontal"] * n,
            "ap_pa": population.view,
            "deid_patient_id": people.patient,
            "patient_report_date_order": [study.partition("/study")[2] for study in people.study],
            "report": [f"NARRATIVE:\nRADIOGRAPH OF THE CHEST, {view}." for view in population.view],
            **{f"section_{name}": [""] * n for name in SECTIONS},
            "age": [f"{age:.1f}" for age in population.age],
            "sex": np.where(population.sex == "F", "Female", "Male"),
            "race": [record.race_text for record in records],
            "ethnicity": [record.ethnicity_text for record in records],
            "interpreter_needed": ["No"] * n,
            "insurance_type": [INSURANCE_WORDS[word] for word in population.insurance],
            "recent_bmi": [f"{26 + 4 * size:.1f}" for size in population.body_size],
            "deceased": ["No"] * n,
            "split": split_words(population.split),
        }
        _write_labels(phantom, paths, folder / LABELS_FOLDER)
        return write_csv(folder / TABLE, columns)

    def expected(self, phantom: Phantom) -> ExpectedCohort:
        people = plan_people(phantom)
        records: list[list[Record]] = [[] for _ in people.first]
        for patient, record in zip(people.of_film, _film_records(phantom, people), strict=True):
            records[patient].append(record)
        table, conflicting = common_columns(phantom, people, records)
        table["path"] = [self.film_path(phantom, index) for index in range(len(phantom))]
        table["insurance"] = [INSURANCE_WORDS[word] for word in phantom.population.insurance]
        labels = reported_labels(phantom, CHEXPERT_LABELS)
        return ExpectedCohort(table, labels, images_root=".", conflicting=conflicting)


def _film_records(phantom: Phantom, people: People) -> list[Record]:
    """Returns what stands beside each film: its patient's records in turn."""
    nothing = Record("", "", UNKNOWN, UNKNOWN)
    nth = number_within(phantom.population.patient)
    own = [people.records[patient] or (nothing,) for patient in people.of_film]
    return [records[k % len(records)] for records, k in zip(own, nth, strict=True)]


def _name(phantom: Phantom, index: int) -> str:
    return f"{split_words(phantom.population.split[index])}/{film_names(phantom, index)[2]}"


def _write_labels(phantom: Phantom, paths: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    labels = reported_labels(phantom, CHEXPERT_LABELS).to_numpy()
    lines = []
    for path, row in zip(paths, labels.tolist(), strict=True):
        cells = {name: None if np.isnan(value) else value for name, value in zip(CHEXPERT_LABELS, row, strict=True)}
        lines.append(json.dumps({"path_to_image": path} | cells) + "\n")
    for name in LABEL_FILES:
        (folder / name).write_text("".join(lines), encoding="utf-8")
