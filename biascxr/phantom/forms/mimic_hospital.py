"""What MIMIC-IV holds of a phantom's patients: stays, insurance and race records that a layout must join rightly.

First everything is planned, then written; what a layout must find is read off the plan.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from biascxr.phantom.draw import Phantom
from biascxr.phantom.forms.base import UNKNOWN, number_within, record_draw, uniform

INSURANCES = ("Medicare", "Medicaid", "Other")
OLDEST_AGE, OVER_OLDEST = 89, 91  # MIMIC-IV writes every age over 89 as 91
# Shares of patients.
NEVER_ADMITTED, ADMITTED_LATER = 0.10, 0.08
CONFLICTING_RACE, SILENT_ADMISSIONS = 0.02, 0.03
SILENT_RECORD = 0.12  # of the admissions of a patient whose race other admissions say
HOUR = np.timedelta64(3600, "s")
DAY = 24 * HOUR


@dataclass(frozen=True)
class Stay:
    """An admission.

    Attributes:
        patient: row of the plan's patients.
        start, end: `datetime64[s]`.
        insurance: as recorded.
        race: group that the record says, `""` where it says nothing.
    """

    patient: int
    start: np.datetime64
    end: np.datetime64
    insurance: str
    race: str


@dataclass(frozen=True)
class Hospital:
    """The plan. Arrays of length m have a row per patient, of length n a row per film.

    Attributes:
        version: of MIMIC-IV, 1 or 2.
        first: `[m] int64`, a film of each patient.
        patient: `[n] int64`, row of each film's patient.
        anchor_age, anchor_year: `[m] int64`, as MIMIC-IV writes them.
        moment: `[n] datetime64[ms]`, when the study was made.
        stays: admissions, by patient, not always in the order of time.
        emergency: `[m] str`, race that an emergency stay says: `""` where it says nothing, None where there is no stay.
    """

    version: int
    first: np.ndarray
    patient: np.ndarray
    anchor_age: np.ndarray
    anchor_year: np.ndarray
    moment: np.ndarray
    stays: tuple[Stay, ...]
    emergency: tuple[str | None, ...]

    def recorded_races(self) -> list[set[str]]:
        """Returns the groups recorded of each patient; emergency stays speak where no admission does, from version 2 on."""
        said = [set() for _ in self.first]
        for stay in self.stays:
            said[stay.patient] |= {stay.race} - {""}
        if self.version == 1:  # MIMIC-IV-ED had no race then
            return said
        return [races or {emergency} - {"", None} for races, emergency in zip(said, self.emergency, strict=True)]

    def insurances(self, insurance: np.ndarray) -> np.ndarray:
        """Returns what is known of each film's insurance: unknown without any admission.

        Args:
            insurance: `[n] str`, the population's; the admission nearest to a study carries it.
        """
        is_admitted = np.isin(np.arange(len(self.first)), [stay.patient for stay in self.stays])
        return np.where(is_admitted[self.patient], insurance, UNKNOWN)


def plan_hospital(phantom: Phantom, *, version: int) -> Hospital:
    """Plans patients, studies, admissions and emergency stays.

    Args:
        phantom: whose ages, insurance and race the plan agrees with.
        version: of MIMIC-IV, 1 or 2.
    """
    population = phantom.population
    numbers, first, patient = np.unique(population.patient, return_index=True, return_inverse=True)
    draws = {
        purpose: uniform(phantom, purpose, numbers)
        for purpose in ("admitted", "race records", "second insurance", "before", "late in the year", "emergency", "silence")
    }
    anchor_age, anchor_year, year = _years(phantom, numbers, first, patient)
    moment, stay_of_film = _study_moments(phantom, year)

    race = population.race[first]
    # A patient of whom nothing is known may have no admission at all, and no emergency stay either.
    silence = np.where(race == "", draws["silence"], 0.0)
    is_absent = silence > 0.75
    is_admitted = (draws["admitted"] >= NEVER_ADMITTED) & ~is_absent
    is_silent = (draws["race records"] >= CONFLICTING_RACE) & (draws["race records"] < CONFLICTING_RACE + SILENT_ADMISSIONS)
    conflicts = (draws["race records"] < CONFLICTING_RACE) & (race != "") & is_admitted
    comes_later = (draws["admitted"] < NEVER_ADMITTED + ADMITTED_LATER) & ~conflicts

    stays: list[Stay] = []
    ends = np.append(first[1:], len(population))
    for row in np.flatnonzero(is_admitted):
        films = slice(first[row], ends[row])  # a patient's films stand together
        said = "" if is_silent[row] else str(race[row])
        one = {name: float(values[row]) for name, values in draws.items()}
        own, other = str(population.insurance[first[row]]), _other(INSURANCES, population.insurance[first[row]], one)
        if comes_later[row]:
            mine = _one_admission_later(int(row), moment[films], own, said, other)
        else:
            mine = _admissions_of_studies(int(row), moment[films], stay_of_film[films], own, said, one)
            mine += _admissions_without_studies(int(row), moment[films], other, said, one, is_certain=bool(conflicts[row]))
        if conflicts[row]:
            groups = tuple(dict.fromkeys((*phantom.race_of_group, str(race[row]))))
            mine[-1] = dataclasses.replace(mine[-1], race=_other(groups, race[row], one))
        stays += _with_silent_records(mine, phantom, int(numbers[row]))
    has_emergency = (draws["emergency"] < 0.4) | ~is_admitted | (is_silent & (race != ""))
    emergency = tuple(str(r) if e and not a else None for r, e, a in zip(race, has_emergency, is_absent, strict=True))
    return Hospital(version, first, patient, anchor_age, anchor_year, moment, tuple(stays), emergency)


def _years(phantom: Phantom, numbers: np.ndarray, first: np.ndarray, patient: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns anchor_age and anchor_year `[m]`, and the year of each film's study `[n]`: age minus anchor_age later."""
    age = phantom.population.age
    first_age = age[first]  # a patient's films are in the order of time
    shift = (uniform(phantom, "anchor", numbers) * 6).astype(np.int64) - 2
    anchor_year = 2110 + (uniform(phantom, "anchor year", numbers) * 91).astype(np.int64)
    # Whoever is over 89 at the anchor is 91 there; the years then count from the anchor itself.
    is_over = (first_age > OLDEST_AGE) & (shift <= 0)
    true_age = np.where(is_over, first_age, np.clip(first_age - shift, 18, OLDEST_AGE))
    anchor_age = np.where(is_over, OVER_OLDEST, true_age)
    return anchor_age, anchor_year, anchor_year[patient] + age - true_age[patient]


def _study_moments(phantom: Phantom, year: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns when each film's study was made, and which films belong to one stay in hospital: one stay a year.

    A stay begins in the first 250 days; a year of 200 studies, one every seven hours, takes 59 days more. From day 330 on
    a year is free for admissions without a study.
    """
    population = phantom.population
    stay = np.cumsum(np.diff(population.patient * 10_000 + year, prepend=-1) != 0) - 1
    opens = np.unique(stay, return_index=True)[1]
    start = (250 * uniform(phantom, "start of stay", population.study[opens]))[stay]
    _, study = np.unique(population.study, return_inverse=True)
    films_before = np.unique(study, return_index=True)[1]
    nth = number_within(stay[films_before])[study]
    hours = 24 * start + 7 * nth + 6 * uniform(phantom, "time of study", population.study)
    january = (year - 1970).astype("datetime64[Y]").astype("datetime64[ms]")
    return january + (hours * 3_600_000).astype(np.int64).astype("timedelta64[ms]"), stay


def _admissions_of_studies(
    row: int, moment: np.ndarray, stay: np.ndarray, insurance: str, race: str, one: dict[str, float]
) -> list[Stay]:
    """One admission per stay. Every third patient is admitted hours after the first film: that one is nearest, not within."""
    mine = []
    for number in np.unique(stay):
        own = moment[stay == number].astype("datetime64[s]")
        start = own[0] + 3 * HOUR if one["admitted"] > 0.7 else own[0] - 5 * HOUR
        mine.append(Stay(row, start, max(own[-1], start) + 2 * DAY, insurance, race))
    return mine


def _admissions_without_studies(
    row: int, moment: np.ndarray, insurance: str, race: str, one: dict[str, float], *, is_certain: bool
) -> list[Stay]:
    """Admissions under another insurance, the year before the first study or weeks after the last one of that year."""
    january = moment[0].astype("datetime64[Y]")
    starts = [(january - 1).astype("datetime64[s]") + 100 * DAY] if one["before"] < 0.4 or is_certain else []
    starts += [january.astype("datetime64[s]") + 345 * DAY] if one["late in the year"] < 0.3 else []
    return [Stay(row, start, start + 4 * DAY, insurance, race) for start in starts]


def _one_admission_later(row: int, moment: np.ndarray, insurance: str, race: str, other: str) -> list[Stay]:
    """One admission weeks after the last study, and one under another insurance thirty years before the first."""
    last, early = moment[-1].astype("datetime64[s]") + 40 * DAY, moment[0].astype("datetime64[s]") - 30 * 365 * DAY
    return [Stay(row, last, last + 3 * DAY, insurance, race), Stay(row, early, early + 3 * DAY, other, race)]


def _other(options: tuple[str, ...], taken: str, one: dict[str, float]) -> str:
    others = [option for option in options if option != taken]
    return others[int(one["second insurance"] * len(others))]


def _with_silent_records(stays: list[Stay], phantom: Phantom, number: int) -> list[Stay]:
    """Leaves some of a patient's records without a race: never the first, and never one that conflicts with it."""
    return [
        dataclasses.replace(stay, race="")
        if nth and stay.race == stays[0].race and record_draw(phantom, "silent record", number, nth) < SILENT_RECORD
        else stay
        for nth, stay in enumerate(stays)
    ]
