"""NIH ChestX-ray14: one table with findings joined by `|`, the two lists of the official split, PNG films."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.phantom.draw import Phantom
from biascxr.phantom.forms.base import ExpectedCohort, Form, number_within
from biascxr.phantom.forms.table_files import write_csv
from biascxr.phantom.labels import LABELS

# The phantom's findings under NIH's names, in NIH's order; None where the phantom has nothing of the kind.
FINDINGS: dict[str, str | None] = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Effusion": "Pleural Effusion",
    "Infiltration": "Lung Opacity",
    "Mass": "Lung Lesion",
    "Nodule": None,
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Emphysema": None,
    "Fibrosis": None,
    "Pleural_Thickening": "Pleural Other",
    "Hernia": None,
}
PIXEL_SPACING = 0.143  # millimetres


class Nih(Form):
    """`Data_Entry_2017_v2020.csv`: age and sex, no race, no uncertain and no blank labels."""

    name: ClassVar[str] = "nih"
    layout: ClassVar[str] = "nih"
    film_format: ClassVar[str | None] = "png"

    def film_path(self, phantom: Phantom, index: int) -> str:
        return f"images/{_image_id(phantom, index)}.png"

    def image_ids(self, phantom: Phantom) -> np.ndarray:
        """`{patient:08d}_{follow-up:03d}`."""
        return np.array([_image_id(phantom, index) for index in range(len(phantom))])

    def write_tables(self, phantom: Phantom, folder: Path) -> Path:
        population, size = phantom.population, [phantom.config.image_size] * len(phantom)
        names = [f"{image}.png" for image in self.image_ids(phantom)]
        has = _labels(phantom).to_numpy(bool)
        columns = {
            "Image Index": names,
            "Finding Labels": ["|".join(name for name, is_there in zip(FINDINGS, row, strict=True) if is_there) for row in has],
            "Follow-up #": number_within(population.patient),
            "Patient ID": population.patient + 1,
            "Patient Age": population.age,
            "Patient Gender": population.sex,
            "View Position": population.view,
            # Each of the official header's last two names holds a comma that is not quoted: four cells.
            "OriginalImage[Width": size,
            "Height]": size,
            "OriginalImagePixelSpacing[x": [PIXEL_SPACING] * len(phantom),
            "y]": [PIXEL_SPACING] * len(phantom),
        }
        columns["Finding Labels"] = [text or "No Finding" for text in columns["Finding Labels"]]
        for list_name, is_in in (("test_list", population.split == "test"), ("train_val_list", population.split != "test")):
            chosen = "\n".join(np.array(names)[is_in])
            (folder / f"{list_name}.txt").write_text(chosen, encoding="utf-8")  # the official lists end without a newline
        return write_csv(folder / "Data_Entry_2017_v2020.csv", columns)

    def expected(self, phantom: Phantom) -> ExpectedCohort:
        population, image_id = phantom.population, self.image_ids(phantom)
        table = pd.DataFrame(
            {
                "image_id": image_id,
                "study_id": image_id,
                "patient_id": (population.patient + 1).astype(str),
                "path": [f"images/{image}.png" for image in image_id],
                "view": population.view,
                "age": population.age.astype(np.float64),
                "sex": population.sex,
                "split": np.where(population.split == "test", "test", "train"),
            }
        )
        return ExpectedCohort(table, _labels(phantom), images_root=".")


def _image_id(phantom: Phantom, index: int) -> str:
    patient = phantom.population.patient
    follow_up = index - np.searchsorted(patient, patient[index])  # a patient's films stand together
    return f"{patient[index] + 1:08d}_{follow_up:03d}"


def _labels(phantom: Phantom) -> pd.DataFrame:
    """Returns NIH's findings as the annotator saw them, `[n, 14]` in {0, 1}."""
    recorded, nothing = phantom.population.recorded, np.zeros(len(phantom))
    columns = {own: nothing if name is None else recorded[:, LABELS.index(name)] for own, name in FINDINGS.items()}
    return pd.DataFrame(columns).astype(np.float64)
