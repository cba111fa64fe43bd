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
# A patient has k or more images, k from 2 to the most, with chance COMES_AGAIN * k ** -TAIL.
COMES_AGAIN, TAIL, MOST_IMAGES = 0.5, 1.3, 200
SECOND_FILM_SHARE = 0.15  # of films after the first: a repeated exposure in the study of the film before
LONGEST_FOLLOW_UP = 20.0  # years
# One hand of cards per ten patients: the splits' shares of patients are 60/10/10/20.
SPLIT_OF_TEN = ("train",) * 6 + ("validation", "calibration") + ("test",) * 2


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
        film: `[n] int64`, number of the film in the cohort as drawn; it keeps it when others leave.
        study: `[n] int64`, number of the study, likewise; films of one study share age, view, findings and report.
        patient: `[n] int64`, number of the patient, likewise.
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
        split: `[n] str`, train, validation, calibration or test, constant for a patient.
        marker: `[n] bool`, whether the film carries a marker that has nothing to do with the patient.
    """

    film: np.ndarray
    study: np.ndarray
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
    split: np.ndarray
    marker: np.ndarray

    def __len__(self) -> int:
        return len(self.patient)

    def rows(self, chosen: np.ndarray) -> Population:
        """Returns some of the films.

        Args:
            chosen: `[n] bool`, or row numbers in the order wanted.
        """
        return Population(**{field.name: getattr(self, field.name)[chosen] for field in dataclasses.fields(self)})

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
    n_images = images_per_patient(n_patients, rng)
    split = _deal_splits(group, n_images, rng)

    patient = np.repeat(np.arange(n_patients), n_images)
    study = _gather_studies(patient, rng)
    study_patient = patient[np.unique(study, return_index=True)[1]]
    study_age = np.minimum(first_age[study_patient] + _draw_years_later(study_patient, rng), AGE_RANGE[1])

    labels, severity = _draw_labels(study_patient, study_age, rng)
    # The sicker, the more often at the bedside.
    portable_chance = 0.25 + 0.12 * labels.sum(axis=1)
    view = np.where(rng.random(len(study_patient)) < np.minimum(portable_chance, 0.9), "AP", "PA")

    return Population(
        film=np.arange(len(study)),
        study=study,
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
        split=split[patient],
        marker=np.zeros(len(study), dtype=bool),
    )


def images_per_patient(n_patients: int, rng: np.random.Generator) -> np.ndarray:
    """Returns how many images each patient has: most have one, a few have most of the images.

    A Pareto tail cut at 200. The counts are the distribution's own quantiles and only who has which is drawn: with a tail
    this long, drawn counts would make one seed's cohort half as large again as another's. The mean is about 2.1; a tenth
    of the patients hold half of the images, as in NIH ChestX-ray14.

    Args:
        n_patients: number of patients.
        rng: decides who has how many.

    Returns:
        `[n_patients] int64`, 1 to 200.
    """
    share_with_more = (np.arange(n_patients) + 0.5) / n_patients
    counts = np.floor((share_with_more / COMES_AGAIN) ** (-1.0 / TAIL))
    return rng.permutation(np.clip(counts, 1, MOST_IMAGES).astype(np.int64))


def _deal_splits(group: np.ndarray, n_images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gives every patient a split. Patients of one group with alike many images share a hand: no split gets all of them."""
    n_hands = -(-len(group) // len(SPLIT_OF_TEN))
    cards = rng.permuted(np.tile(SPLIT_OF_TEN, (n_hands, 1)), axis=1).ravel()[: len(group)]
    split = np.empty_like(cards)
    split[np.lexsort((rng.random(len(group)), n_images, group))] = cards
    return split


def _gather_studies(patient: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the study of each film: its own, or now and then that of the patient's film before; two films at most."""
    is_second = rng.random(len(patient)) < SECOND_FILM_SHARE
    is_second &= np.diff(patient, prepend=-1) == 0
    # A third film of a study opens a new one.
    is_second[1:] &= ~is_second[:-1]
    return np.cumsum(~is_second) - 1


def _draw_years_later(study_patient: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whole years since the patient's first study, studies evenly spread; who comes more often is followed for longer."""
    n_studies = np.bincount(study_patient)
    follow_up = np.minimum(rng.exponential(0.6 * np.sqrt(n_studies - 1.0)), LONGEST_FOLLOW_UP)
    visit = np.arange(len(study_patient)) - np.repeat(np.cumsum(n_studies) - n_studies, n_studies)
    return np.floor(follow_up[study_patient] * visit / np.maximum(n_studies - 1, 1)[study_patient]).astype(np.int64)


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
