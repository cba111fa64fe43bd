"""MIMIC-CXR-JPG 2.1.0 with MIMIC-IV beside it, as PhysioNet's downloads lie on disk."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.phantom.draw import Phantom
from biascxr.phantom.forms.base import UNKNOWN, ExpectedCohort, Form, label_cells, reported_labels, uniform
from biascxr.phantom.forms.mimic_hospital import OLDEST_AGE, OVER_OLDEST, Hospital, plan_hospital
from biascxr.phantom.forms.mimic_iv import write_mimic_iv
from biascxr.phantom.forms.table_files import write_csv
from biascxr.phantom.labels import LABELS

FOLDER = "mimic-cxr-jpg/2.1.0"
METADATA = "mimic-cxr-2.0.0-metadata.csv.gz"
# The tree has no calibration part.
SPLIT_WORDS = {"train": "train", "validation": "validate", "calibration": "train", "test": "test"}
NO_DESCRIPTION = 0.03  # share of studies
NEGBIO_DIFFERS = 0.05  # of the negative cells, which NegBio leaves blank


class Mimic(Form):
    """Metadata, labels per study by two programs, split, radiologists' labels of the test studies, and MIMIC-IV 2.2."""

    name: ClassVar[str] = "mimic"
    layout: ClassVar[str] = "mimic_cxr"
    version: ClassVar[int] = 2  # of MIMIC-IV

    def film_path(self, phantom: Phantom, index: int) -> str:
        return f"{FOLDER}/{phantom.population.image_path(index)}"

    def write_tables(self, phantom: Phantom, folder: Path) -> Path:
        hospital = plan_hospital(phantom, version=self.version)
        write_mimic_iv(phantom, hospital, folder)
        return write_mimic_cxr(phantom, hospital, folder / FOLDER)

    def expected(self, phantom: Phantom) -> ExpectedCohort:
        paths = [phantom.population.image_path(index) for index in range(len(phantom))]
        return expected_mimic(phantom, plan_hospital(phantom, version=self.version), paths, images_root=FOLDER)


class MimicV1(Mimic):
    """The same films with MIMIC-IV 1.0: `core/`, `ethnicity`, and emergency stays without race."""

    name: ClassVar[str] = "mimic_v1"
    version: ClassVar[int] = 1


def write_mimic_cxr(phantom: Phantom, hospital: Hospital, folder: Path) -> Path:
    """Writes MIMIC-CXR-JPG's own five tables.

    Args:
        phantom: what to write.
        hospital: when the studies were made.
        folder: the data set's own.

    Returns:
        Path of the metadata.
    """
    population = phantom.population
    ids = {name: getattr(population, name) for name in ("subject_id", "study_id", "dicom_id")}
    _write_study_labels(phantom, folder)
    split = [SPLIT_WORDS[word] for word in population.split]
    order = ("dicom_id", "study_id", "subject_id")
    write_csv(folder / "mimic-cxr-2.0.0-split.csv.gz", {name: ids[name] for name in order} | {"split": split})

    day = hospital.moment.astype("datetime64[D]")
    view, description = population.view, _descriptions(phantom)
    columns = {
        "dicom_id": population.dicom_id,
        "subject_id": population.subject_id,
        "study_id": population.study_id,
        "PerformedProcedureStepDescription": description,
        "ViewPosition": view,
        "Rows": [phantom.config.image_size] * len(phantom),
        "Columns": [phantom.config.image_size] * len(phantom),
        "StudyDate": [str(date).replace("-", "") for date in day],
        "StudyTime": [_clock(int(past)) for past in (hospital.moment - day).astype(np.int64)],
        "ProcedureCodeSequence_CodeMeaning": description,
        "ViewCodeSequence_CodeMeaning": np.where(view == "AP", "antero-posterior", "postero-anterior"),
        "PatientOrientationCodeSequence_CodeMeaning": np.where(view == "AP", "", "Erect"),
    }
    return write_csv(folder / METADATA, columns)


def expected_mimic(phantom: Phantom, hospital: Hospital, paths: list[str], *, images_root: str) -> ExpectedCohort:
    """Returns what must be read from MIMIC-CXR's tables with this hospital beside them.

    Args:
        phantom: what was written.
        hospital: what its records say.
        paths: of the films or vectors, relative to `images_root`.
        images_root: relative to the tree's folder.
    """
    population = phantom.population
    recorded = hospital.recorded_races()
    race = np.array([next(iter(races)) if len(races) == 1 else UNKNOWN for races in recorded], dtype=object)
    subject = population.subject_id.astype(str)
    portable = {"CHEST (PORTABLE AP)": "portable", "CHEST (PA AND LAT)": "fixed", "": UNKNOWN}
    table = pd.DataFrame(
        {
            "image_id": population.dicom_id,
            "study_id": population.study_id.astype(str),
            "patient_id": subject,
            "path": paths,
            "view": population.view,
            "age": np.where(population.age > OLDEST_AGE, OVER_OLDEST, population.age).astype(np.float64),
            "sex": population.sex,
            "race": race[hospital.patient],
            "insurance": hospital.insurances(population.insurance),
            "portable": [portable[text] for text in _descriptions(phantom)],
            "split": [SPLIT_WORDS[word] for word in population.split],
        }
    )
    conflicting = {subject[film] for film, races in zip(hospital.first, recorded, strict=True) if len(races) > 1}
    is_test = population.split == "test"
    truth = pd.DataFrame(np.where(is_test[:, None], population.labels.astype(np.float64), np.nan), columns=list(LABELS))
    return ExpectedCohort(
        table,
        reported_labels(phantom),
        images_root=images_root,
        reference_labels=truth if is_test.any() else None,
        conflicting={"race": frozenset(conflicting)},
    )


def _write_study_labels(phantom: Phantom, folder: Path) -> None:
    """Writes CheXpert's and NegBio's labels, and of the test studies the truth, as radiologists would have found it."""
    population = phantom.population
    first = np.unique(population.study, return_index=True)[1]
    ids = {"subject_id": population.subject_id[first], "study_id": population.study_id[first]}
    reported = phantom.reported[first]
    # Another program reads the same reports: where this one finds a negation, that one may find nothing said.
    missed = uniform(phantom, "negbio", population.study[first, None] * len(LABELS) + np.arange(len(LABELS)))
    other = np.where((reported == 0) & (missed < NEGBIO_DIFFERS), np.nan, reported)
    for program, labels in (("chexpert", reported), ("negbio", other)):
        cells = dict(zip(LABELS, label_cells(labels).T, strict=True))
        write_csv(folder / f"mimic-cxr-2.0.0-{program}.csv.gz", ids | cells)

    first = first[population.split[first] == "test"]
    truth = dict(zip(LABELS, label_cells(population.labels[first].astype(np.float64)).T, strict=True))
    airspace = {"Airspace Opacity": truth.pop("Lung Opacity")}  # the radiologists' word
    write_csv(folder / "mimic-cxr-2.1.0-test-set-labeled.csv", {"study_id": population.study_id[first]} | airspace | truth)


def _descriptions(phantom: Phantom) -> np.ndarray:
    population = phantom.population
    said = np.where(population.view == "AP", "CHEST (PORTABLE AP)", "CHEST (PA AND LAT)")
    return np.where(uniform(phantom, "description", population.study) < NO_DESCRIPTION, "", said)


def _clock(milliseconds: int) -> str:
    """Writes a time of day as the metadata does: HHMMSS.fff as a number, without its leading zeros."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600 * 10000 + seconds // 60 % 60 * 100 + seconds % 60}.{rest:03d}"
