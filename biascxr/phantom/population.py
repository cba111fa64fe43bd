"""Who is in the cohort: patients, studies, films, and what is true of each."""

from __future__ import annotations

import dataclasses
import statistics

import numpy as np

from biascxr.phantom.labels import FINDINGS, LABELS, with_no_finding

# Neutral groups 0 to 3 by share of patients; which recorded race each stands for is drawn per seed.
GROUP_SHARES = (0.39, 0.30, 0.19, 0.12)
RACES = ("WHITE", "BLACK/AFRICAN AMERICAN", "HISPANIC/LATINO", "ASIAN")
AGE_RANGE = (18, 90)  # years
# Share of a latent trait that belongs to the patient rather than to the study: findings come back.
PATIENT_SHARE = 0.6


@dataclasses.dataclass(frozen=True)
class Disease:
    """How often a finding is true and what it goes with.

    Args:
        prevalence: share of films on which it is true.
        fluid: loading on the latent trait of heart failure.
        airspace: loading on the latent trait of infection.
        injury: loading on the latent trait of trauma and intensive care.
        age: loading on age; negative for what the young come with.
    """

    prevalence: float
    fluid: float = 0.0
    airspace: float = 0.0
    injury: float = 0.0
    age: float = 0.0


DISEASES: dict[str, Disease] = {
    "Atelectasis": Disease(0.22, fluid=0.25, injury=0.25, age=0.15),
    "Cardiomegaly": Disease(0.22, fluid=0.5, age=0.25),
    "Consolidation": Disease(0.14, airspace=0.5),
    "Edema": Disease(0.18, fluid=0.6, age=0.15),
    "Enlarged Cardiomediastinum": Disease(0.14, fluid=0.3, age=0.2),
    "Fracture": Disease(0.14, injury=0.45, age=0.1),
    "Lung Lesion": Disease(0.14, age=0.25),
    "Lung Opacity": Disease(0.22, airspace=0.45, fluid=0.2),
    "Pleural Effusion": Disease(0.25, fluid=0.5, age=0.15),
    "Pleural Other": Disease(0.12, age=0.25),
    "Pneumonia": Disease(0.16, airspace=0.55),
    "Pneumothorax": Disease(0.14, injury=0.5, age=-0.2),
    "Support Devices": Disease(0.32, fluid=0.25, injury=0.45),
}


@dataclasses.dataclass(frozen=True)
class Population:
    """One row per film; every array has length n, the number of films.

    Args:
        patient: `[n] int64`, index of the patient, 0 to n_patients - 1.
        subject_id: `[n] int64`, 8 digits starting with 1.
        study_id: `[n] int64`, 8 digits starting with 5.
        dicom_id: `[n] str`, five groups of 8 hexadecimal digits.
        view: `[n] str`, AP or PA.
        sex: `[n] str`, M or F, constant for a patient.
        group: `[n] int64`, the neutral group, constant for a patient.
        race: `[n] str`, recorded race, empty where missing, constant for a patient.
        age: `[n] int64`, years at the study.
        insurance: `[n] str`.
        body_size: `[n] float64`, standard deviations from the mean, constant for a patient.
        labels: `[n, 14] bool`, what is true.
        severity: `[n, 14] float32`, 0 where not true, else 0.55 (mild) to 1 (severe); No Finding's column is 0.
        visibility: `[n, 14] float32`, how plainly each finding is drawn: 1 as it is, 0 not at all.
        recorded: `[n, 14] bool`, what the annotator saw; a report turns it into 1, 0, -1 or blank.
    """

    patient: np.ndarray
    subject_id: np.ndarray
    study_id: np.ndarray
    dicom_id: np.ndarray
    view: np.ndarray
    sex: np.ndarray
    group: np.ndarray
    race: np.ndarray
    age: np.ndarray
    insurance: np.ndarray
    body_size: np.ndarray
    labels: np.ndarray
    severity: np.ndarray
    visibility: np.ndarray
    recorded: np.ndarray

    def __len__(self) -> int:
        return len(self.patient)

    def image_path(self, index: int) -> str:
        """Path of a film in MIMIC-CXR's folder form, relative to the data set's root."""
        subject = str(self.subject_id[index])
        return f"files/p{subject[:2]}/p{subject}/s{self.study_id[index]}/{self.dicom_id[index]}.jpg"


def assign_races(rng: np.random.Generator) -> tuple[str, ...]:
    """Draws which recorded race each neutral group stands for: no race is disadvantaged by design."""
    return tuple(RACES[i] for i in rng.permutation(len(RACES)))


def draw_population(
    n_patients: int, rng: np.random.Generator, *, race_of_group: tuple[str, ...], missing_race_share: float
) -> Population:
    """Draws a fair cohort: groups differ in size only, and every finding is drawn and recorded as it is.

    Args:
        n_patients: number of patients.
        rng: source of all randomness.
        race_of_group: recorded race of each neutral group.
        missing_race_share: share of patients whose recorded race is blank.

    Returns:
        A `Population` with `visibility` 1 and `recorded` equal to `labels`.
    """
    group = rng.choice(len(GROUP_SHARES), size=n_patients, p=GROUP_SHARES)
    is_missing = rng.random(n_patients) < missing_race_share
    race = np.where(is_missing, "", np.array(race_of_group)[group])
    sex = np.where(rng.random(n_patients) < 0.53, "M", "F")
    first_age = np.clip(np.round(rng.normal(58, 18, n_patients)), *AGE_RANGE).astype(np.int64)
    insurance = _draw_insurance(first_age, rng)
    body_size = np.clip(rng.normal(0, 1, n_patients), -2, 2.5)
    # Most patients come once, a few many times.
    n_studies = np.minimum(1 + rng.geometric(0.68, n_patients) - 1 + (rng.random(n_patients) < 0.02) * 4, 9)

    study_patient = np.repeat(np.arange(n_patients), n_studies)
    n_films = 1 + (rng.random(len(study_patient)) < 0.08)  # a repeated exposure
    study = np.repeat(np.arange(len(study_patient)), n_films)
    patient = study_patient[study]

    visit = np.arange(len(study_patient)) - np.repeat(np.cumsum(n_studies) - n_studies, n_studies)
    years_later = np.floor(visit * rng.exponential(0.5, n_patients)[study_patient]).astype(np.int64)
    study_age = np.minimum(first_age[study_patient] + years_later, AGE_RANGE[1])

    labels, severity = _draw_labels(study_patient, study_age, rng)
    # The sicker, the more often at the bedside.
    portable_chance = 0.25 + 0.12 * labels.sum(axis=1)
    view = np.where(rng.random(len(study_patient)) < np.minimum(portable_chance, 0.9), "AP", "PA")

    return Population(
        patient=patient,
        subject_id=(10_000_000 + rng.choice(9_999_999, n_patients, replace=False))[patient],
        study_id=(50_000_000 + rng.choice(9_999_999, len(study_patient), replace=False))[study],
        dicom_id=_draw_dicom_ids(len(study), rng),
        view=view[study],
        sex=sex[patient],
        group=group[patient],
        race=race[patient],
        age=study_age[study],
        insurance=insurance[patient],
        body_size=body_size[patient],
        labels=labels[study],
        severity=severity[study],
        visibility=np.ones((len(study), len(LABELS)), dtype=np.float32),
        recorded=labels[study].copy(),
    )


def _draw_labels(study_patient: np.ndarray, study_age: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels from latent traits with unit variance, cut where the standard normal leaves the prevalence above."""
    n_patients, n_studies = study_patient[-1] + 1, len(study_patient)

    def trait() -> np.ndarray:
        of_patient = rng.normal(size=n_patients)[study_patient]
        return np.sqrt(PATIENT_SHARE) * of_patient + np.sqrt(1 - PATIENT_SHARE) * rng.normal(size=n_studies)

    fluid, airspace, injury = trait(), trait(), trait()
    age = (study_age - 58) / 18
    labels = np.zeros((n_studies, len(LABELS)), dtype=bool)
    severity = np.zeros((n_studies, len(LABELS)), dtype=np.float32)
    for name in FINDINGS:
        disease, column = DISEASES[name], LABELS.index(name)
        own = 1.0 - disease.fluid**2 - disease.airspace**2 - disease.injury**2 - disease.age**2
        liability = disease.fluid * fluid + disease.airspace * airspace + disease.injury * injury + disease.age * age
        excess = liability + np.sqrt(own) * trait() - statistics.NormalDist().inv_cdf(1 - disease.prevalence)
        labels[:, column] = excess > 0
        severity[:, column] = np.where(excess > 0, 0.55 + 0.45 * np.minimum(excess, 1.0), 0.0)
    return with_no_finding(labels), severity


def _draw_insurance(age: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Medicare begins at 65; some of the younger qualify through disability."""
    draw = rng.random(len(age))
    older = np.where(draw < 0.75, "Medicare", np.where(draw < 0.80, "Medicaid", "Other"))
    younger = np.where(draw < 0.12, "Medicare", np.where(draw < 0.40, "Medicaid", "Other"))
    return np.where(age >= 65, older, younger)


def _draw_dicom_ids(n: int, rng: np.random.Generator) -> np.ndarray:
    parts = rng.integers(0, 2**32, size=(n, 5), dtype=np.uint64)
    return np.array(["-".join(f"{part:08x}" for part in row) for row in parts.tolist()])
