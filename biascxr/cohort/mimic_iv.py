"""MIMIC-IV beside MIMIC-CXR: recorded sex, age at the study, recorded race, insurance of the nearest admission."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.age_groups import MAX_AGE
from biascxr.cohort.base import Source, patients_by_reason, read_groups, read_sex, require_columns, why_not_recorded
from biascxr.cohort.conflicts import settle_records
from biascxr.cohort.mimic_race import race_notes, sort_races
from biascxr.cohort.tables import find_files, read_header, read_table
from biascxr.containers import UNKNOWN
from biascxr.errors import InputError

# Folders of PhysioNet's downloads that hold the tables. Only these are looked into above the images' own folder: whatever
# else lies there (a home folder, a server's root) is none of our business, and may be large.
MIMIC_IV_FOLDER = re.compile(r"mimic[-_ ]?iv.*|hosp|core|ed", re.IGNORECASE)
N_FOLDERS_ABOVE = 3
OLDEST_AGE, OVER_OLDEST = 89, 91


@dataclass(frozen=True)
class MimicIvFiles:
    """Where MIMIC-IV's tables are; None for those that were not found."""

    patients: Path | None
    admissions: Path | None
    edstays: Path | None

    def found(self) -> list[Path]:
        """Returns the tables that are there."""
        return [path for path in (self.patients, self.admissions, self.edstays) if path is not None]


@dataclass
class Recorded:
    """What MIMIC-IV says of each image's patient; grows as its tables are read.

    Attributes:
        columns: `[n]` each: `sex`, `age`, `race`, `insurance`, those that the tables at hand give.
        conflicting, unknown, notes: as in `ParsedTable`.
    """

    columns: dict[str, pd.Series] = field(default_factory=dict)
    conflicting: dict[str, frozenset[str]] = field(default_factory=dict)
    unknown: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_mimic_iv(source: Source) -> MimicIvFiles:
    """Finds the tables: among `--companions`, beside the metadata, in MIMIC-IV's folders beside or above it.

    Raises:
        InputError: several files fit.
    """
    here = source.main.absolute().parent
    beside = [folder for above in here.parents[:N_FOLDERS_ABOVE] for folder in sorted(above.glob("*"))]
    tiers = (source.config.companions, [here], [folder for folder in beside if MIMIC_IV_FOLDER.fullmatch(folder.name)])

    def find(name: str) -> Path | None:
        for places in tiers:
            found = list({file.resolve(): file for file in find_files(places, (f"{name}.csv", f"{name}.csv.gz"))}.values())
            if len(found) > 1:
                raise InputError(
                    f"Several files could be MIMIC-IV's {name}: {', '.join(map(str, found[:4]))}. "
                    "Name the one to use: --companions FILE."
                )
            if found:
                return found[0]
        return None

    return MimicIvFiles(find("patients"), find("admissions"), find("edstays"))


def read_mimic_iv(files: MimicIvFiles, metadata: pd.DataFrame, conflict_policy: str) -> Recorded:
    """Reads what the tables say about the patients of some images.

    Args:
        files: the tables there are.
        metadata: one row per image: `subject_id, StudyDate, StudyTime`, text as in MIMIC-CXR's metadata.
        conflict_policy: see `CohortConfig.conflict_policy`; records count in the order of `admittime`.

    Raises:
        InputError: a table cannot be read, lacks columns, or holds what it should not; the file is named.
    """
    recorded = Recorded()
    patient_id = metadata["subject_id"].astype(object)  # pandas looks these up three times faster than Arrow's texts
    if not files.found():
        return recorded
    moment = study_moments(metadata["StudyDate"], metadata["StudyTime"])
    if files.patients is not None:
        _add_patients(recorded, files.patients, patient_id, moment)
    admissions = None
    if files.admissions is not None:
        admissions = _read_stays(files.admissions, patient_id, ("admittime", "dischtime"), ("insurance",))
        _add_insurance(recorded, admissions, patient_id, moment)
    _add_race(recorded, admissions, files.edstays, patient_id, conflict_policy)
    return recorded


def study_moments(date: pd.Series, time: pd.Series) -> pd.Series:
    """Returns when studies were made, from `YYYYMMDD` and `HHMMSS.fff` (leading zeros may be lost): `[n] datetime64[ms]`.

    A blank or impossible time counts as noon, a blank date as unknown (NaT).

    Raises:
        InputError: a date is none, or a time is no number.
    """
    text = date.str.strip().str.replace(r"\.0$", "", regex=True)
    day = pd.to_datetime(text.mask(text == ""), format="%Y%m%d", errors="coerce").astype("datetime64[ms]")
    wrong = (text != "") & (day.isna() | (text.str.len() != 8))
    if wrong.any():
        raise InputError(
            f"Column StudyDate of the metadata holds {date[wrong].iloc[0]!r} ({int(wrong.sum()):,} such cells); "
            "expected YYYYMMDD."
        )
    number = _numbers(time, "the metadata")
    hour, minute, second = number // 10000, number // 100 % 100, number % 100
    is_time = (number >= 0) & (hour < 24) & (minute < 60) & (second < 60)
    seconds = (hour * 3600 + minute * 60 + second).where(is_time, 12 * 3600)
    return day + pd.to_timedelta((seconds * 1000).round().astype(np.int64), unit="ms").astype("timedelta64[ms]")


def age_at_study(anchor_age: pd.Series, anchor_year: pd.Series, study_year: pd.Series) -> pd.Series:
    """Returns `anchor_age + (study_year - anchor_year)`, in years.

    MIMIC-IV hides ages over 89 (an `anchor_age` of 91 means "over 89"), so every age over 89 becomes 91. Impossible ages
    (below 0, over 120) stay as computed, so that they are counted and not disguised.
    """
    age = anchor_age + (study_year - anchor_year)
    return age.mask((age > OLDEST_AGE) & (age <= MAX_AGE), float(OVER_OLDEST))


def _add_patients(recorded: Recorded, path: Path, patient_id: pd.Series, moment: pd.Series) -> None:
    frame = _of_patients(path, ("subject_id", "gender", "anchor_age", "anchor_year"), patient_id)
    if frame.empty:
        raise InputError(f"{path}: none of the {patient_id.nunique():,} patients of the metadata is in it; is it MIMIC-IV's?")
    n_again = int(frame["subject_id"].duplicated().sum())
    if n_again:
        raise InputError(f"{path}: {n_again:,} rows repeat a subject_id; expected one row per patient.")
    frame = frame.set_index("subject_id")
    anchor_age, anchor_year = (_numbers(frame[c], path) for c in ("anchor_age", "anchor_year"))
    recorded.columns["sex"] = patient_id.map(read_sex(frame["gender"])).fillna(UNKNOWN)
    recorded.columns["age"] = age_at_study(patient_id.map(anchor_age), patient_id.map(anchor_year), moment.dt.year)

    is_there = patient_id.isin(frame.index)
    said = patient_id.map(frame["gender"].str.strip()).fillna("")
    why_no_sex = why_not_recorded(said).where(is_there, f"not in {path.name}")
    _count_unknown(recorded, "sex", patient_id, why_no_sex.where(recorded.columns["sex"] == UNKNOWN, ""))
    why_no_age = pd.Series("no anchor_age, anchor_year or StudyDate", index=patient_id.index)
    why_no_age = why_no_age.where(is_there, f"not in {path.name}")
    _count_unknown(recorded, "age_group", patient_id, why_no_age.where(recorded.columns["age"].isna(), ""))


def _read_stays(path: Path, patient_id: pd.Series, times: tuple[str, ...], others: tuple[str, ...] = ()) -> pd.DataFrame:
    """Reads one row per stay of these patients, in the order of time; `race` is version 1's `ethnicity` where it has that."""
    header = read_header(path)
    race = next((name for name in ("race", "ethnicity") if name in header), "race")
    frame = _of_patients(path, ("subject_id", *times, *others, race), patient_id).rename(columns={race: "race"})
    for name in times:
        text = frame[name].str.strip()
        frame[name] = pd.to_datetime(text.mask(text == ""), format="ISO8601", errors="coerce").astype("datetime64[ms]")
        may_be_blank = name != times[0]
        wrong = frame[name].isna() & ~((text == "") & may_be_blank)
        if wrong.any():
            raise InputError(
                f"{path}: column {name} holds {text[wrong].iloc[0]!r} ({int(wrong.sum()):,} such cells); "
                "expected YYYY-MM-DD HH:MM:SS."
            )
    return frame.sort_values(times[0], kind="stable").reset_index(drop=True)


def _add_insurance(recorded: Recorded, admissions: pd.DataFrame, patient_id: pd.Series, moment: pd.Series) -> None:
    nearest = nearest_admissions(patient_id, moment, admissions)
    said = pd.Series(np.append(admissions["insurance"].to_numpy(object), "")[nearest], index=patient_id.index)
    recorded.columns["insurance"] = read_groups(said)
    why = why_not_recorded(said).mask(nearest < 0, "no admission").mask(moment.isna(), "no StudyDate")
    _count_unknown(recorded, "insurance", patient_id, why.where(recorded.columns["insurance"] == UNKNOWN, ""))


def nearest_admissions(patient_id: pd.Series, moment: pd.Series, admissions: pd.DataFrame) -> np.ndarray:
    """Finds the admission nearest in time to each study of the same patient.

    The distance is 0 from `admittime` to `dischtime`, and outside it the time to the nearer of the two (a blank `dischtime`,
    or one before `admittime`, counts as `admittime`). Among equals the one that stands first is taken.

    Args:
        patient_id: `[n]`.
        moment: `[n] datetime64[ms]`, NaT where unknown.
        admissions: `subject_id, admittime, dischtime`.

    Returns:
        `[n] int64` row numbers of admissions; -1 where there is none, or no moment.
    """
    codes, patients = pd.factorize(patient_id)
    start = admissions["admittime"].to_numpy("datetime64[ms]").astype(np.int64)
    end = np.maximum(start, admissions["dischtime"].fillna(admissions["admittime"]).to_numpy("datetime64[ms]").astype(np.int64))
    stays = pd.DataFrame({"patient": patients.get_indexer(admissions["subject_id"]), "start": start, "end": end})
    stays["stay"] = np.arange(len(stays))
    images = pd.DataFrame({"patient": codes, "t": moment.to_numpy("datetime64[ms]").astype(np.int64)})
    studies = images[moment.notna().to_numpy()].drop_duplicates()  # a study's images share its time

    pairs = studies.merge(stays, on="patient")
    t = pairs["t"].to_numpy()
    pairs["distance"] = np.maximum(0, np.maximum(pairs["start"].to_numpy() - t, t - pairs["end"].to_numpy()))
    best = pairs.sort_values(["distance", "stay"]).drop_duplicates(["patient", "t"])
    found = images.merge(best[["patient", "t", "stay"]], on=["patient", "t"], how="left")["stay"]
    return found.fillna(-1).to_numpy(np.int64)


def _add_race(
    recorded: Recorded, admissions: pd.DataFrame | None, edstays: Path | None, patient_id: pd.Series, conflict_policy: str
) -> None:
    """Emergency stays speak only for patients of whom no admission says anything."""
    records = pd.DataFrame({"subject_id": [], "race": []}, dtype=object)
    asked = []
    if admissions is not None:
        records, asked = admissions[["subject_id", "race"]], ["admission"]
    if edstays is not None and "race" not in (header := read_header(edstays)) and "intime" in header:
        recorded.notes.append(f"{edstays.name} has no column race (MIMIC-IV-ED before version 2): it is not used.")
    elif edstays is not None:
        speaking = records["subject_id"][sort_races(records["race"]).group != UNKNOWN]
        stays = _read_stays(edstays, patient_id, ("intime",))
        stays = stays[~stays["subject_id"].isin(speaking)]
        helped = stays["subject_id"][sort_races(stays["race"]).group != UNKNOWN].nunique()
        recorded.notes.append(f"{helped:,} patients have their race from an emergency stay, since no admission says any.")
        records, asked = pd.concat([records, stays[["subject_id", "race"]]], ignore_index=True), [*asked, "emergency stay"]
    if not asked:
        return
    races = sort_races(records["race"])
    settled = settle_records(records["subject_id"], races.group, conflict_policy)
    recorded.columns["race"] = settled.of(patient_id)
    recorded.conflicting["race"] = settled.conflicting
    recorded.notes += race_notes(records["subject_id"], races)

    reasons = races.reason.groupby(records["subject_id"]).first()  # of a patient without any known record: the earliest
    why = patient_id.map(reasons).fillna(f"no {' and no '.join(asked)}")
    why = why.mask(patient_id.isin(settled.conflicting), "recorded with several values")
    _count_unknown(recorded, "race", patient_id, why.where(recorded.columns["race"] == UNKNOWN, ""))


def _of_patients(path: Path, columns: tuple[str, ...], patient_id: pd.Series) -> pd.DataFrame:
    """Reads some columns of a table, and of its rows those of these patients."""
    header = read_header(path)
    if header:  # none: what is wrong with the file is said by reading it
        require_columns(pd.DataFrame(columns=header), columns, "MIMIC-IV", path)
    frame = read_table(path, columns=columns)
    frame["subject_id"] = frame["subject_id"].str.strip().astype(object)
    return frame[frame["subject_id"].isin(patient_id.unique())].reset_index(drop=True)


def _numbers(text: pd.Series, path: Path | str) -> pd.Series:
    """Returns numbers, NaN where blank; raises InputError for anything else."""
    stripped = text.str.strip()
    number = pd.to_numeric(stripped.mask(stripped == ""), errors="coerce").astype(np.float64)
    wrong = (stripped != "") & ~np.isfinite(number)
    if wrong.any():
        raise InputError(
            f"Column {text.name} of {path} holds {text[wrong].iloc[0]!r} ({int(wrong.sum()):,} such cells); expected a number."
        )
    return number


def _count_unknown(recorded: Recorded, attribute: str, patient_id: pd.Series, why: pd.Series) -> None:
    if (why != "").any():
        recorded.unknown[attribute] = patients_by_reason(patient_id, why)
