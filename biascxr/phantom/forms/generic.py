"""The BiasCXR form: one table, one row per film."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.phantom.draw import Phantom
from biascxr.phantom.forms.base import UNKNOWN, ExpectedCohort, Form, label_cells, reported_labels
from biascxr.phantom.forms.table_files import write_csv
from biascxr.phantom.labels import LABELS


class Generic(Form):
    """`meta.csv`, and the films in MIMIC-CXR's folders."""

    name: ClassVar[str] = "generic"
    layout: ClassVar[str] = "generic"

    def film_path(self, phantom: Phantom, index: int) -> str:
        return phantom.population.image_path(index)

    def write_tables(self, phantom: Phantom, folder: Path) -> Path:
        population = phantom.population
        columns = {
            "subject_id": population.subject_id,
            "study_id": population.study_id,
            "dicom_id": population.dicom_id,
            "path": [self.film_path(phantom, index) for index in range(len(phantom))],
            "ViewPosition": population.view,
            "gender": population.sex,
            "race": population.race,
            "age": population.age,
            "insurance": population.insurance,
            "split": population.split,
        }
        return write_csv(folder / "meta.csv", columns | dict(zip(LABELS, label_cells(phantom.reported).T, strict=True)))

    def expected(self, phantom: Phantom) -> ExpectedCohort:
        population = phantom.population
        table = pd.DataFrame(
            {
                "image_id": population.dicom_id,
                "study_id": population.study_id.astype(str),
                "patient_id": population.subject_id.astype(str),
                "path": [self.film_path(phantom, index) for index in range(len(phantom))],
                "view": population.view,
                "age": population.age.astype(np.float64),
                "sex": population.sex,
                "race": np.where(population.race == "", UNKNOWN, population.race),
                "insurance": population.insurance,
                "split": population.split,
            }
        )
        return ExpectedCohort(table, reported_labels(phantom), images_root=".")
