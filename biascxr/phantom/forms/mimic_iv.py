"""Writes the plan of a hospital as MIMIC-IV's and MIMIC-IV-ED's tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from biascxr.phantom.draw import Phantom
from biascxr.phantom.forms.base import pick, record_draw, uniform
from biascxr.phantom.forms.mimic_hospital import DAY, HOUR, Hospital, Stay
from biascxr.phantom.forms.mimic_races import race_text
from biascxr.phantom.forms.table_files import write_csv

FOLDERS = {1: ("mimiciv/1.0/core", "mimic-iv-ed/1.0/ed"), 2: ("mimiciv/2.2/hosp", "mimic-iv-ed/2.2/ed")}
NO_FILM_SHARE = 0.1  # patients of the hospital who never had a film, beside those who had
LAST_SUBJECT = 19_999_999
FIRST_ADMISSION, FIRST_EMERGENCY_STAY = 20_000_000, 30_000_000


def write_mimic_iv(phantom: Phantom, hospital: Hospital, folder: Path) -> None:
    """Writes `patients`, `admissions` and `edstays` (.csv.gz) into the folders of the hospital's version."""
    core, emergency = FOLDERS[hospital.version]
    strangers = _strangers(phantom, int(np.ceil(NO_FILM_SHARE * len(hospital.first))))
    _write_patients(phantom, hospital, strangers, folder / core / "patients.csv.gz")
    _write_admissions(phantom, hospital, strangers, folder / core / "admissions.csv.gz")
    _write_emergency(phantom, hospital, folder / emergency / "edstays.csv.gz")


def _strangers(phantom: Phantom, n: int) -> list[int]:
    taken = set(phantom.population.subject_id.tolist())
    return [subject for subject in range(LAST_SUBJECT, LAST_SUBJECT - n - len(taken), -1) if subject not in taken][:n]


def _write_patients(phantom: Phantom, hospital: Hospital, strangers: list[int], path: Path) -> None:
    population, first, n = phantom.population, hospital.first, len(strangers)
    group = pick(("2008 - 2010", "2011 - 2013", "2014 - 2016"), uniform(phantom, "year group", population.patient[first]))
    last = hospital.moment[np.append(first[1:], len(population)) - 1]
    dies = uniform(phantom, "death", population.patient[first]) < 0.15
    dead = [_day(moment + 300 * DAY) if d and hospital.version > 1 else "" for moment, d in zip(last, dies, strict=True)]
    columns = {
        "subject_id": [*population.subject_id[first], *strangers],
        "gender": [*population.sex[first], *["F"] * n],
        "anchor_age": [*hospital.anchor_age, *[52] * n],
        "anchor_year": [*hospital.anchor_year, *[2150] * n],
        "anchor_year_group": [*group, *["2008 - 2010"] * n],
        "dod": [*dead, *[""] * n],
    }
    write_csv(path, columns)


def _write_admissions(phantom: Phantom, hospital: Hospital, strangers: list[int], path: Path) -> None:
    population, version = phantom.population, hospital.version
    rows = [
        _admission(stay, int(population.subject_id[hospital.first[stay.patient]]), version, draw)
        for stay, draw in zip(hospital.stays, _record_draws(phantom, hospital), strict=True)
    ]
    start = np.datetime64("2150-03-04T05:06:00", "s")
    # What they say of race must not be taken for anyone else's.
    rows += [_admission(Stay(-1, start, start + DAY, "Other", "ASIAN"), subject, version, 0.5) for subject in strangers]
    if not rows:
        return
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    numbers = [FIRST_ADMISSION + row for row in range(len(rows))]
    ordered = {"subject_id": columns.pop("subject_id"), "hadm_id": numbers} | columns
    write_csv(path, ordered)


def _record_draws(phantom: Phantom, hospital: Hospital) -> list[float]:
    """Returns a draw per admission: which of several texts of one group it has."""
    draws, n_before = [], {}
    for stay in hospital.stays:
        nth = n_before[stay.patient] = n_before.get(stay.patient, -1) + 1
        number = int(phantom.population.patient[hospital.first[stay.patient]])
        draws.append(record_draw(phantom, "race text", number, nth))
    return draws


def _admission(stay: Stay, subject: int, version: int, draw: float) -> dict[str, object]:
    """Returns the cells of one admission in the order of the official columns, without its number."""
    cells: dict[str, object] = {
        "subject_id": subject,
        "admittime": _time(stay.start),
        "dischtime": _time(stay.end),
        "deathtime": "",
        "admission_type": ("EW EMER.", "URGENT", "OBSERVATION ADMIT", "ELECTIVE")[int(draw * 4)],
    }
    if version > 1:
        cells["admit_provider_id"] = f"P{int(draw * 0xFFFFF):05X}"
    cells |= {
        "admission_location": ("EMERGENCY ROOM", "PHYSICIAN REFERRAL", "TRANSFER FROM HOSPITAL")[int(draw * 3)],
        "discharge_location": ("HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "")[int(draw * 4)],
        "insurance": stay.insurance,
        "language": "ENGLISH" if draw < 0.8 else "?",
        "marital_status": ("MARRIED", "SINGLE", "WIDOWED", "DIVORCED", "")[int(draw * 5)],
        "race" if version > 1 else "ethnicity": race_text(stay.race, draw, version=version),
        "edregtime": _time(stay.start - 6 * HOUR) if draw < 0.4 else "",
        "edouttime": _time(stay.start - HOUR) if draw < 0.4 else "",
        "hospital_expire_flag": 0,
    }
    return cells


def _write_emergency(phantom: Phantom, hospital: Hospital, path: Path) -> None:
    population = phantom.population
    rows = [row for row, race in enumerate(hospital.emergency) if race is not None]
    films = hospital.first[rows]
    came = [hospital.moment[film].astype("datetime64[s]") - 9 * HOUR for film in films]
    columns = {
        "subject_id": population.subject_id[films],
        "hadm_id": [""] * len(rows),
        "stay_id": [FIRST_EMERGENCY_STAY + row for row in rows],
        "intime": [_time(moment) for moment in came],
        "outtime": [_time(moment + 7 * HOUR) for moment in came],
    }
    if hospital.version > 1:  # MIMIC-IV-ED 1.0 has neither of these
        draws = uniform(phantom, "emergency race text", population.patient[films]) if rows else []
        columns |= {
            "gender": population.sex[films],
            "race": [
                race_text(hospital.emergency[row], draw, version=hospital.version)
                for row, draw in zip(rows, draws, strict=True)
            ],
            "arrival_transport": pick(("WALK IN", "AMBULANCE", "UNKNOWN"), np.asarray(draws)),
            "disposition": ["ADMITTED" if draw < 0.5 else "HOME" for draw in draws],
        }
    write_csv(path, columns)


def _time(moment: np.datetime64) -> str:
    return str(moment.astype("datetime64[s]")).replace("T", " ")


def _day(moment: np.datetime64) -> str:
    return str(moment.astype("datetime64[D]"))
