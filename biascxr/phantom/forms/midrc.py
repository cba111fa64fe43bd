"""MIDRC as the Causal Fairness paper used it: one table, one finding."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.phantom.draw import Phantom
from biascxr.phantom.forms.base import UNKNOWN, ExpectedCohort, Form
from biascxr.phantom.forms.table_files import write_csv
from biascxr.phantom.labels import LABELS

RACE_WORDS = {
    "WHITE": "White",
    "BLACK/AFRICAN AMERICAN": "Black or African American",
    "ASIAN": "Asian",
    "HISPANIC/LATINO": "Other",
    "": "",
}
# Groups as every layout names them; Hispanic is no race there.
RACE_GROUPS = {"HISPANIC/LATINO": "OTHER", "": UNKNOWN}


class Midrc(Form):
    """COVID stands for the phantom's pneumonia."""

    name: ClassVar[str] = "midrc"
    layout: ClassVar[str] = "midrc"

    def film_path(self, phantom: Phantom, index: int) -> str:
        return f"{_folder(phantom, index)}/{phantom.population.dicom_id[index]}.jpg"

    def image_ids(self, phantom: Phantom) -> np.ndarray:
        """The path: names of files alone may repeat."""
        return np.array([self.film_path(phantom, index).removesuffix(".jpg") for index in range(len(phantom))])

    def write_tables(self, phantom: Phantom, folder: Path) -> Path:
        population = phantom.population
        columns = {
            "Age": population.age,
            "Sex": np.where(population.sex == "F", "Female", "Male"),
            "Race": [RACE_WORDS[race] for race in population.race],
            "label": np.where(population.recorded[:, LABELS.index("Pneumonia")], "Yes", "No"),
            "Path": [_folder(phantom, index) for index in range(len(phantom))],
            "filename": [f"{dicom}.jpg" for dicom in population.dicom_id],
            # The data commons' words; without them every film would count as a patient.
            "case_ids": population.subject_id,
            "study_uid": population.study_id,
        }
        return write_csv(folder / "MIDRC.csv", columns)

    def expected(self, phantom: Phantom) -> ExpectedCohort:
        population = phantom.population
        table = pd.DataFrame(
            {
                "image_id": self.image_ids(phantom),
                "study_id": population.study_id.astype(str),
                "patient_id": population.subject_id.astype(str),
                "path": [self.film_path(phantom, index) for index in range(len(phantom))],
                "view": "",
                "age": population.age.astype(np.float64),
                "sex": population.sex,
                "race": [RACE_GROUPS.get(race, race) for race in population.race],
            }
        )
        labels = pd.DataFrame({"COVID": population.recorded[:, LABELS.index("Pneumonia")].astype(np.float64)})
        return ExpectedCohort(table, labels, images_root=".")


def _folder(phantom: Phantom, index: int) -> str:
    return f"images/{phantom.population.subject_id[index]}/{phantom.population.study_id[index]}"
