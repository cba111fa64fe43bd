"""CheXpert as Stanford gives it: `train.csv`, `valid.csv`, and the patients' race in a workbook of its own."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.phantom.draw import Phantom
from biascxr.phantom.forms.base import UNKNOWN, ExpectedCohort, Form, label_cells, reported_labels
from biascxr.phantom.forms.chexpert_people import People, Record, film_names, plan_people, settled
from biascxr.phantom.forms.table_files import write_csv, write_xlsx

FOLDER = "CheXpert-v1.0-small"
DEMO = "CHEXPERT DEMO.xlsx"
CHEXPERT_LABELS = (
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


class Chexpert(Form):
    """The small release. The tree has no test part and no calibration part: the phantom's test patients are its `valid`."""

    name: ClassVar[str] = "chexpert"
    layout: ClassVar[str] = "chexpert"

    def film_path(self, phantom: Phantom, index: int) -> str:
        part = split_words(phantom.population.split[index])
        return f"{FOLDER}/{part}/{film_names(phantom, index)[2]}.jpg"

    def image_ids(self, phantom: Phantom) -> np.ndarray:
        return plan_people(phantom).image

    def write_tables(self, phantom: Phantom, folder: Path) -> Path:
        population, people = phantom.population, plan_people(phantom)
        sex = np.where(population.sex == "F", "Female", "Male").astype(object)
        # As in the real table, one row does not know; the demographics do.
        has_record = np.array([len(records) > 0 for records in people.records])[people.of_film]
        sex[np.flatnonzero(has_record)[:1]] = "Unknown"
        columns = {
            "Path": [self.film_path(phantom, index) for index in range(len(phantom))],
            "Sex": sex,
            "Age": population.age,
            "Frontal/Lateral": np.full(len(phantom), "Frontal"),
            "AP/PA": population.view,
        }
        cells = label_cells(reported_labels(phantom, CHEXPERT_LABELS).to_numpy())
        columns |= dict(zip(CHEXPERT_LABELS, cells.T, strict=True))
        split = split_words(population.split)
        for part in ("valid", "train"):
            path = folder / FOLDER / f"{part}.csv"
            write_csv(path, {name: np.asarray(column)[split == part] for name, column in columns.items()})
        _write_demo(phantom, people, folder / FOLDER / DEMO)
        return path

    def expected(self, phantom: Phantom) -> ExpectedCohort:
        people = plan_people(phantom)
        table, conflicting = common_columns(phantom, people, [list(records) for records in people.records])
        labels = reported_labels(phantom, CHEXPERT_LABELS)
        table["path"] = [self.film_path(phantom, index).removeprefix(f"{FOLDER}/") for index in range(len(phantom))]
        return ExpectedCohort(table, labels, images_root=FOLDER, conflicting=conflicting)


def common_columns(
    phantom: Phantom, people: People, records: list[list[Record]]
) -> tuple[pd.DataFrame, dict[str, frozenset[str]]]:
    """Returns what CheXpert and CheXpert Plus have in common, everything but `path` and insurance, and who conflicts.

    Args:
        phantom: what is written.
        people: how its patients are called.
        records: per patient, the records that are written.
    """
    population = phantom.population
    table = {
        "image_id": people.image,
        "study_id": people.study,
        "patient_id": people.patient,
        "view": population.view,
        "age": population.age.astype(np.float64),
        "sex": population.sex,
        # The public release ends with `valid`, which is what everyone judges on: without a test part it is read as one.
        "split": np.where(population.split == "test", "test", "train"),
    }
    conflicting = {}
    for name in ("race", "ethnicity"):
        said = np.array([settled([getattr(record, name) for record in own]) for own in records], dtype=object)
        conflicting[name] = frozenset(people.patient[people.first][said == ""])
        table[name] = np.where(said == "", UNKNOWN, said)[people.of_film]
    return pd.DataFrame(table), conflicting


def split_words(split: np.ndarray) -> np.ndarray:
    """Returns the tree's words, `train` or `valid`, for the phantom's."""
    return np.where(split == "test", "valid", "train")


def _write_demo(phantom: Phantom, people: People, path: Path) -> None:
    """One row per record; the second sheet holds something else."""
    population = phantom.population
    rows = [
        (
            str(people.patient[film]),
            "Female" if population.sex[film] == "F" else "Male",
            int(population.age[film]),
            record.race_text or None,
            record.ethnicity_text or None,
        )
        for film, records in zip(people.first, people.records, strict=True)
        for record in records
    ]
    header = ("PATIENT", "GENDER", "AGE_AT_CXR", "PRIMARY_RACE", "ETHNICITY")
    write_xlsx(path, {"Sheet1": [header, *rows], "Sheet2": [("rows", len(rows))]})
