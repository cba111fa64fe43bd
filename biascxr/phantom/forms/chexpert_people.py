"""How CheXpert writes who a patient is: numbers, and race and ethnicity recorded apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from biascxr.phantom.draw import Phantom
from biascxr.phantom.forms.base import UNKNOWN, uniform

HISPANIC, NOT_HISPANIC = "Hispanic/Latino", "non-Hispanic/Latino"
# Shares of patients.
CONFLICTING, REPEATED = 0.03, 0.08


@dataclass(frozen=True)
class Record:
    """What one record of a patient says.

    Attributes:
        race_text, ethnicity_text: as written.
        race, ethnicity: the groups that the texts mean, or `"unknown"`.
    """

    race_text: str
    ethnicity_text: str
    race: str
    ethnicity: str


def _records(race: str, ethnicity: str, *texts: tuple[str, str]) -> tuple[Record, ...]:
    return tuple(Record(race_text, ethnicity_text, race, ethnicity) for race_text, ethnicity_text in texts)


# The phantom's group -> how it is written. Hispanic is an ethnicity here and no race; where ETHNICITY says nothing, the
# race text may.
RECORDS: dict[str, tuple[Record, ...]] = {
    "WHITE": (
        *_records("WHITE", NOT_HISPANIC, ("White", "Non-Hispanic/Non-Latino"), ("White, non-Hispanic", "Not Hispanic")),
        *_records("WHITE", NOT_HISPANIC, ("White or Caucasian", "Not Hispanic"), ("White, non-Hispanic", "Unknown")),
        *_records("WHITE", UNKNOWN, ("White", "Unknown")),
    ),
    "BLACK/AFRICAN AMERICAN": (
        *_records("BLACK/AFRICAN AMERICAN", NOT_HISPANIC, ("Black or African American", "Non-Hispanic/Non-Latino")),
        *_records("BLACK/AFRICAN AMERICAN", NOT_HISPANIC, ("Black, non-Hispanic", "Not Hispanic")),
        *_records("BLACK/AFRICAN AMERICAN", UNKNOWN, ("Black or African American", "Patient Refused")),
    ),
    "ASIAN": (
        *_records("ASIAN", NOT_HISPANIC, ("Asian", "Non-Hispanic/Non-Latino"), ("Asian, non-Hispanic", "Not Hispanic")),
        *_records("ASIAN", NOT_HISPANIC, ("Asian - Historical Conv", "Non-Hispanic/Non-Latino")),
    ),
    "HISPANIC/LATINO": (
        *_records("OTHER", HISPANIC, ("Other, Hispanic", "Hispanic/Latino"), ("Other, Hispanic", "Hispanic")),
        *_records("OTHER", HISPANIC, ("Other", "Hispanic/Latino"), ("Other, Hispanic", "")),
    ),
    "": (
        *_records(UNKNOWN, UNKNOWN, ("Unknown", "Unknown"), ("Patient Refused", "Patient Refused"), ("", "")),
        *_records(UNKNOWN, UNKNOWN, ("Race and Ethnicity Unknown", "")),
    ),
}


@dataclass(frozen=True)
class People:
    """Arrays of length n have a row per film; `first` and `records` have one per patient.

    Attributes:
        first: `int64`, the first film of each patient.
        of_film: `[n] int64`, row of each film's patient.
        patient: `[n] str`, such as `patient00001`.
        study: `[n] str`, such as `patient00001/study1`, numbered within the patient.
        image: `[n] str`, such as `patient00001/study1/view1_frontal`, numbered within the study.
        records: each patient's records; none where the demographics do not hold the patient.
    """

    first: np.ndarray
    of_film: np.ndarray
    patient: np.ndarray
    study: np.ndarray
    image: np.ndarray
    records: tuple[tuple[Record, ...], ...]


def plan_people(phantom: Phantom) -> People:
    """Numbers patients, studies and films, and chooses how each patient's race and ethnicity are recorded."""
    population = phantom.population
    numbers, first, of_film = np.unique(population.patient, return_index=True, return_inverse=True)
    names = [film_names(phantom, index) for index in range(len(phantom))]
    patient, study, image = (np.array(column) for column in zip(*names, strict=True))
    draws = zip(*(uniform(phantom, f"chexpert {what}", numbers) for what in ("text", "records", "absent")), strict=True)
    records = [_records_of(race, *draw) for race, draw in zip(population.race[first], draws, strict=True)]
    return People(first, of_film, patient, study, image, tuple(records))


def film_names(phantom: Phantom, index: int) -> tuple[str, str, str]:
    """Returns `patient00001`, `patient00001/study1` and `patient00001/study1/view1_frontal` of a film, numbered from 1."""
    patient, study = phantom.population.patient, phantom.population.study
    # Films of a patient, and of a study, stand together.
    first_of_patient, first_of_study = np.searchsorted(patient, patient[index]), np.searchsorted(study, study[index])
    nth_study = len(np.unique(study[first_of_patient : index + 1]))
    who = f"patient{patient[index] + 1:05d}"
    return who, f"{who}/study{nth_study}", f"{who}/study{nth_study}/view{index - first_of_study + 1}_frontal"


def _records_of(race: str, text: float, kind: float, absent: float) -> tuple[Record, ...]:
    """Most patients have one record, some several that agree, a few two that do not, a few unknown ones none."""
    if race == "" and absent < 0.25:
        return ()
    record = RECORDS[race][int(text * len(RECORDS[race]))]
    if kind < CONFLICTING and race != "":
        others = [group for group in RECORDS if group not in (race, "")]
        other = others[int(text * len(others))]
        return record, RECORDS[other][0]
    if kind < REPEATED:
        return record, RECORDS[race][0]
    return (record,)


def settled(values: list[str]) -> str:
    """Returns what several records of one patient say together: `"unknown"` for nothing, `""` for several things."""
    known = set(values) - {UNKNOWN}
    return UNKNOWN if not known else next(iter(known)) if len(known) == 1 else ""
