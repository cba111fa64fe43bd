"""What groups are compared by and adjusted for: which columns, their values, and whether a patient keeps one."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from biascxr.age_groups import age_group_names, cut_ages, read_ages
from biascxr.audit.adjust import LABEL
from biascxr.audit.read_cells import groups_of, n_changing
from biascxr.audit.read_columns import VALUES
from biascxr.config import CohortConfig
from biascxr.containers import PREDICTION_COLUMNS, UNKNOWN, Attribute
from biascxr.errors import InputError, unknown_name

DEFAULT_ATTRIBUTES = ("sex", "race", "age_group", "insurance", "ethnicity")
CONSTANT = ("sex", "race", "ethnicity")  # recorded once; a patient with two values is a finding
TIME_VARYING = ("age_group", "age", "view", "portable", "insurance")
# What MIMIC's tables write where race was asked for and not told, upper case. UNKNOWN is not here: in any case it is unknown.
NOT_TOLD = ("UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER", "UNKNOWN/NOT SPECIFIED", "DECLINED")


def attribute_names(columns: list[str], wanted: tuple[str, ...], notes: list[str]) -> tuple[str, ...]:
    """Returns the columns to compare groups by, those wanted or the usual ones that there are."""
    known = _descriptive(columns)
    for name in wanted:
        if name not in known:
            raise unknown_name("attribute", name, known)
    chosen = tuple(dict.fromkeys(wanted)) or tuple(a for a in DEFAULT_ATTRIBUTES if a in known)
    if not chosen:
        notes.append(f"None of {', '.join(DEFAULT_ATTRIBUTES)} is there: no groups are compared.")
    return chosen


def kept_names(columns: list[str], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the wanted columns that the table would not hold anyway; the label, which is no column, is not one of them."""
    wanted = tuple(name for name in dict.fromkeys(wanted) if name != LABEL and name not in PREDICTION_COLUMNS)
    known = _descriptive(columns)
    for name in wanted:
        if name not in known:
            raise unknown_name("column to keep or adjust for", name, known)
    return wanted


def _descriptive(columns: list[str]) -> list[str]:
    """Returns the columns that describe an image or its patient; `age_group` can be cut from `age`."""
    known = [c for c in columns if c not in PREDICTION_COLUMNS and not c.startswith(VALUES)]
    return [*known, "age_group"] if "age" in known and "age_group" not in known else known


def attribute_values(frame: pd.DataFrame, name: str, age_bins: tuple[float, ...], notes: list[str]) -> np.ndarray:
    """Returns `[n]` group names, `"unknown"` where not given."""
    is_cut = name == "age_group" and name not in frame
    if not is_cut and name != "age":
        return groups_of(frame[name])
    ages, impossible = read_ages(frame["age"])
    notes += impossible
    if not is_cut:
        return groups_of(ages)
    CohortConfig(age_bins=age_bins)  # holds the check of the edges
    below = int((ages < age_bins[0]).sum())
    notes.append(
        f"age_group is cut from age: {', '.join(age_group_names(age_bins))} years"
        + (f"; {below:,} rows below {age_bins[0]:g} are unknown." if below else ".")
    )
    return cut_ages(ages, age_bins).to_numpy(object)


def constant_attributes(table: pd.DataFrame, names: tuple[str, ...], notes: list[str], warnings: list[str]) -> dict[str, bool]:
    """Returns which attributes a patient keeps; a change of one that should not change is a warning."""
    patients = pd.factorize(table["patient_id"])[0]
    n = n_changing(patients, pd.factorize(table["split"])[0])
    if n:
        warnings.append(f"{n:,} patients are in more than one split: what is fitted on one split has seen the other.")
    constant = {}
    for name in names:
        values = table[name].to_numpy(object)
        known = values != UNKNOWN
        n = n_changing(patients[known], pd.factorize(values[known])[0])
        constant[name] = name in CONSTANT or (name not in TIME_VARYING and n == 0)
        if n and name in CONSTANT:
            warnings.append(f"Recorded {name} changes within {n:,} patients; their rows are kept as recorded.")
        elif n:
            notes.append(f"{name} changes within {n:,} patients: it is taken as varying in time.")
    return constant


def find_attributes(
    table: pd.DataFrame, constant: dict[str, bool], asked: tuple[str, ...], notes: list[str]
) -> tuple[Attribute, ...]:
    """Returns the attributes with two known groups at least."""
    found = []
    for name in constant:
        counts = table[name].value_counts()
        groups = [g for g in counts.index if g != UNKNOWN]
        if len(groups) < 2:
            problem = f"{name} has fewer than two known groups ({', '.join(groups) or 'none'})"
            if name in asked:
                raise InputError(f"Attribute {problem}: there is nothing to compare.")
            notes.append(f"{problem}: it is left out.")
            continue
        found.append(Attribute(name, _in_order(groups, name), constant[name]))
    return tuple(found)


def note_unknown(table: pd.DataFrame, names: tuple[str, ...], notes: list[str]) -> None:
    """Counts the rows of each column whose value is unknown, and those where it says so in words of its own."""
    for name in names:
        counts = table[name].value_counts()
        if UNKNOWN in counts:
            notes.append(f"{name} is unknown in {counts[UNKNOWN]:,} rows.")
        not_told = sorted(value for value in counts.index if value.upper() in NOT_TOLD)
        if not_told:
            n = counts[not_told].sum()
            notes.append(f"{name} has {n:,} rows recorded as {', '.join(not_told)}: they stay groups of their own.")


def _in_order(groups: list[str], name: str) -> tuple[str, ...]:
    numbers = pd.to_numeric(pd.Series(groups, dtype=object), errors="coerce").to_numpy(float)
    if not np.isnan(numbers).any():
        return tuple(groups[i] for i in np.argsort(numbers, kind="stable"))
    if name != "age_group":
        return tuple(sorted(groups))

    def age(group: str) -> tuple[float, bool, str]:  # "<20", "20-40", ..., "80+"
        digits = re.search(r"\d+(\.\d+)?", group)
        return float(digits[0]) if digits else np.inf, not group.startswith("<"), group

    return tuple(sorted(groups, key=age))
