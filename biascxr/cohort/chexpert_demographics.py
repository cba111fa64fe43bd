"""CheXpert's recorded race and ethnicity: `CHEXPERT DEMO.xlsx`, and the rules by which its texts become groups."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from biascxr.cohort.base import NOT_RECORDED, Source, normalise_column, patients_by_reason, read_sex
from biascxr.cohort.conflicts import Settled, settle_records
from biascxr.cohort.race import ASIAN, BLACK, HISPANIC, MULTIPLE, NATIVE_AMERICAN, OTHER, PACIFIC, WHITE
from biascxr.cohort.tables import entries_of, find_files, read_table
from biascxr.containers import UNKNOWN
from biascxr.errors import InputError

IS_HISPANIC, IS_NOT_HISPANIC = "Hispanic/Latino", "non-Hispanic/Latino"
ETHNICITY_FOR_RACE = "an ethnicity stands in place of a race"
# What a race text begins with -> its group, or why it has none. Stanford's texts join ethnicity to race behind a comma
# ("White, non-Hispanic"); that part is read by `ethnicity_of`. "Asian - Historical Conv" is an older coding of Asian.
RACE_RULES: dict[str, tuple[str, str]] = {
    "WHITE": (WHITE, ""),
    "CAUCASIAN": (WHITE, ""),
    "BLACK": (BLACK, ""),
    "AFRICAN AMERICAN": (BLACK, ""),
    "ASIAN": (ASIAN, ""),
    "AMERICAN INDIAN": (NATIVE_AMERICAN, ""),
    "ALASKA NATIVE": (NATIVE_AMERICAN, ""),
    "NATIVE AMERICAN": (NATIVE_AMERICAN, ""),
    "NATIVE HAWAIIAN": (PACIFIC, ""),
    "PACIFIC ISLANDER": (PACIFIC, ""),
    "MULTIPLE": (MULTIPLE, ""),
    "TWO OR MORE": (MULTIPLE, ""),
    "OTHER": (OTHER, ""),
    "HISPANIC": (UNKNOWN, ETHNICITY_FOR_RACE),
    "LATINO": (UNKNOWN, ETHNICITY_FOR_RACE),
    "NON-HISPANIC": (UNKNOWN, ETHNICITY_FOR_RACE),
    "NOT HISPANIC": (UNKNOWN, ETHNICITY_FOR_RACE),
    "UNKNOWN": (UNKNOWN, NOT_RECORDED["UNKNOWN"]),
    "DECLINE": (UNKNOWN, NOT_RECORDED["DECLINED"]),
}
# The sheet's columns under the names they have here, both as `normalise_column` writes them.
SHEET_COLUMNS = {"patient": "patient", "primaryrace": "race", "ethnicity": "ethnicity", "gender": "gender"}
NEEDED = ("patient", "primaryrace")


@dataclass
class Recorded:
    """What was recorded of each image's patient: `columns` `[n]` by attribute; the others as in `ParsedTable`."""

    columns: dict[str, pd.Series] = field(default_factory=dict)
    conflicting: dict[str, frozenset[str]] = field(default_factory=dict)
    unknown: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def race_of(text: str) -> tuple[str, str]:
    """Returns the group of a recorded race and `""`, or `"unknown"` and the reason.

    A text that no rule foresees is `(OTHER, "unforeseen")`.
    """
    text = _plain(text)
    if text in NOT_RECORDED:
        return UNKNOWN, NOT_RECORDED[text]
    for begins_with, answer in RACE_RULES.items():
        if re.match(rf"{re.escape(begins_with)}(?!\w)", text):
            return answer
    return OTHER, "unforeseen"


def ethnicity_of(text: str) -> tuple[str, str]:
    """Returns what a text (of either column) says of Hispanic ethnicity and `""`, or `"unknown"` and the reason."""
    text = _plain(text)
    if text in NOT_RECORDED:
        return UNKNOWN, NOT_RECORDED[text]
    if re.search(r"\b(NON|NOT)\b[ -]*(OF )?(HISPANIC|LATIN)", text):
        return IS_NOT_HISPANIC, ""
    if re.search(r"\b(HISPANIC|LATIN[OAX])\b", text):
        return IS_HISPANIC, ""
    return UNKNOWN, "nothing said of it"


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip().upper())


def find_demographics(source: Source) -> Path | None:
    """Finds `CHEXPERT DEMO.xlsx` (or the same as CSV): among `--companions`, else beside the main table or one folder above.

    Raises:
        InputError: several files fit.
    """
    here = source.main.resolve().parent
    # Files of these two folders alone: what lies elsewhere above is none of our business, and may be large.
    near = [file for folder in (here, here.parent) for file in entries_of(folder) if file.is_file()]
    named = [place for place in source.config.companions if place.is_file()]
    for places, patterns in (
        (named, ("*.xlsx", "*demo*.csv")),
        (source.config.companions, ("*demo*.xlsx", "*demo*.csv")),
        (near, ("chexpert*demo*.xlsx", "chexpert*demo*.csv")),
    ):
        found = find_files(places, patterns)
        if len(found) > 1:
            raise InputError(
                f"Several files could be CHEXPERT DEMO.xlsx: {', '.join(map(str, found[:4]))}. "
                "Name the one to use: --companions FILE."
            )
        if found:
            return found[0]
    return None


def read_demographics(path: Path) -> pd.DataFrame:
    """Reads the recorded demographics: `patient, race, ethnicity, gender`, text; `""` where it has no column for the last two.

    Of a workbook the one sheet is taken that has the columns PATIENT and PRIMARY_RACE.

    Raises:
        InputError: the file is no workbook, no sheet or several have these columns, or there are no rows.
    """
    sheets = {path.name: read_table(path)} if path.suffix.lower() == ".csv" else _read_sheets(path)
    fitting = {name: frame for name, sheet in sheets.items() if (frame := _renamed(sheet)) is not None}
    if not fitting:
        found = "; ".join(f"{name}: {', '.join(map(str, sheet.columns)) or 'nothing'}" for name, sheet in sheets.items())
        raise InputError(f"{path} has no sheet with the columns PATIENT and PRIMARY_RACE. Found {found}.")
    if len(fitting) > 1:
        raise InputError(
            f"{path} has several sheets with the columns PATIENT and PRIMARY_RACE: {', '.join(fitting)}. Keep one of them."
        )
    frame = next(iter(fitting.values()))
    frame = frame[frame["patient"] != ""].reset_index(drop=True)
    if frame.empty:
        raise InputError(f"{path} has the columns of CHEXPERT DEMO.xlsx and no rows.")
    return frame


def _read_sheets(path: Path) -> dict[str, pd.DataFrame]:
    try:
        return pd.read_excel(path, sheet_name=None, dtype=str, engine="openpyxl", na_filter=False)
    except ImportError as error:
        raise InputError(f"Reading {path.name} takes openpyxl: pip install openpyxl.") from error
    # SyntaxError: broken XML; AttributeError: a sheet that is a chart
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, SyntaxError, EOFError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as an Excel workbook (.xlsx): {error}") from error


def _renamed(sheet: pd.DataFrame) -> pd.DataFrame | None:
    columns = {normalise_column(str(column)): column for column in sheet.columns}
    if not set(NEEDED) <= set(columns):
        return None
    blank = pd.Series("", index=sheet.index)
    return pd.DataFrame(
        {to: sheet[columns[name]].astype(str).str.strip() if name in columns else blank for name, to in SHEET_COLUMNS.items()}
    )


def sort_records(
    patient_id: pd.Series, records: pd.DataFrame, *, hispanic_policy: str, conflict_policy: str, where: str
) -> Recorded:
    """Sorts records into race groups and ethnicity, and gives each image those of its patient.

    Args:
        patient_id: `[n]`, the images'.
        records: `patient, race, ethnicity`, the texts as recorded, a patient's records in their order.
        hispanic_policy: `"separate"` or `"combined"`, see `CohortConfig.hispanic_policy`.
        conflict_policy: see `settle_records`.
        where: name of the file that holds the records, for reasons.
    """
    records = records[records["patient"].isin(set(patient_id))]
    race, race_why = _answers(race_of, records["race"])
    ethnicity, ethnicity_why = _answers(ethnicity_of, records["ethnicity"])
    in_race, _ = _answers(ethnicity_of, records["race"])
    contradict = (ethnicity != in_race) & (ethnicity != UNKNOWN) & (in_race != UNKNOWN)
    ethnicity = ethnicity.mask(ethnicity == UNKNOWN, in_race)

    recorded = Recorded(notes=[_policy_in_words(hispanic_policy)])
    if contradict.any():
        n = records["patient"][contradict].nunique()
        recorded.notes.append(f"{n:,} patients' race text and ethnicity contradict each other; the column ETHNICITY counts.")
    unforeseen = records[race_why == "unforeseen"]
    for text, n in unforeseen.groupby(unforeseen["race"].map(_plain))["patient"].nunique().items():
        recorded.notes.append(f"{n:,} patients have a record of race {text!r}, which no rule foresees: counted as {OTHER}.")
    if hispanic_policy == "combined":
        race = race.mask(ethnicity == IS_HISPANIC, HISPANIC)
        columns = {"race": (race, race_why)}
    else:
        columns = {"race": (race, race_why), "ethnicity": (ethnicity, ethnicity_why)}
    for name, (values, why) in columns.items():
        settled = settle_records(records["patient"], values, conflict_policy)
        recorded.columns[name] = settled.of(patient_id)
        recorded.conflicting[name] = settled.conflicting
        reasons = why.groupby(records["patient"]).first()
        recorded.unknown[name] = _count_unknown(patient_id, settled, reasons, f"no row in {where}")
    return recorded


def recorded_sex(patient_id: pd.Series, records: pd.DataFrame, conflict_policy: str) -> pd.Series:
    """Returns the sex that the demographics record of each image's patient, `[n]`."""
    return settle_records(records["patient"], read_sex(records["gender"]), conflict_policy).of(patient_id)


def _answers(rule: Callable[[str], tuple[str, str]], texts: pd.Series) -> tuple[pd.Series, pd.Series]:
    answers = {text: rule(text) for text in texts.unique()}  # some thirty texts among tens of thousands of records
    return tuple(texts.map({text: answer[i] for text, answer in answers.items()}).astype(object) for i in (0, 1))


def _count_unknown(patient_id: pd.Series, settled: Settled, reasons: pd.Series, no_row: str) -> dict[str, int]:
    patients = pd.Series(patient_id.unique())
    patients = patients[(settled.of(patients) == UNKNOWN).to_numpy(bool)]
    why = patients.map(reasons).fillna(no_row).mask(patients.isin(settled.conflicting), "recorded with several values")
    return patients_by_reason(patients, why)


def _policy_in_words(hispanic_policy: str) -> str:
    groups = dict.fromkeys(group for group, why in RACE_RULES.values() if not why)
    covered = "; ".join(f"{g} from {', '.join(t for t, (group, _) in RACE_RULES.items() if group == g)}" for g in groups)
    ethnicity = {
        "separate": "Hispanic ethnicity is an attribute of its own beside race (hispanic_policy separate)",
        "combined": f"Hispanic patients are the group {HISPANIC}, whatever their race (hispanic_policy combined)",
    }[hispanic_policy]
    return (
        f"Race groups by how the recorded text begins: {covered}. Texts that say nothing are unknown, not {OTHER}. "
        f"{ethnicity}; it is read from the column ETHNICITY, and from the race text where that says nothing."
    )
