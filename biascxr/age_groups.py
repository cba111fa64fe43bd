"""Ages in years, as tables write them, and age groups: 0-20, 20-40, ..., 80+."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN
from biascxr.errors import InputError

MAX_AGE = 120.0
# Texts that say "no age", upper case: blanks of CSV and Parquet, and "not recorded" in the official tables.
NO_AGE = ("", "NAN", "NA", "N/A", "<NA>", "NULL", "NONE", "UNKNOWN", "?", "UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER",
          "PATIENT REFUSED", "DECLINED", "NOT SPECIFIED", "RACE AND ETHNICITY UNKNOWN")  # fmt: skip
PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}  # DICOM's units


def read_ages(column: pd.Series) -> tuple[pd.Series, list[str]]:
    """Reads ages in years, also in DICOM's form (`058Y`, `006M`, `010D`).

    Args:
        column: `[n]` numbers or texts.

    Returns:
        `[n] float64` (`float32` from such a column), NaN where blank or impossible (below 0 or above 120), and notes with
        counts.

    Raises:
        InputError: a cell is neither a number nor a DICOM age.
    """
    ages = parse_ages(column)
    impossible = impossible_ages(ages)
    return ages.mask(impossible), impossible_note(impossible)


def impossible_ages(ages: pd.Series) -> pd.Series:
    """Returns which ages are below 0 or above 120 years, `[n] bool`."""
    return (ages < 0) | (ages > MAX_AGE)


def impossible_note(impossible: pd.Series) -> list[str]:
    """Returns the sentence about impossible ages that became unknown, if there are any."""
    if not impossible.any():
        return []
    return [f"{impossible.sum():,} impossible ages (below 0 or above {MAX_AGE:.0f}) became unknown."]


def parse_ages(column: pd.Series) -> pd.Series:
    """Reads ages as they are recorded, impossible ones too; otherwise as `read_ages`."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        is_small = column.dtype in (np.float16, np.float32)
        return pd.Series(column.to_numpy(np.float32 if is_small else np.float64, na_value=np.nan), index=column.index)
    return _read_texts(column)


def _read_texts(column: pd.Series) -> pd.Series:
    codes, cells = pd.factorize(column)  # -1 where missing; a table of millions has a hundred different ages
    text = pd.Series(pd.Index(cells).astype(str), dtype=object).str.strip()
    blank = text.str.upper().isin(NO_AGE)
    parts = text.str.extract(r"^([+-]?(?:\d+\.?\d*|\.\d+))\s*([YMWDymwd]?)$")
    wrong = np.append(~blank & parts[0].isna(), False)[codes]
    if wrong.any():
        first = np.flatnonzero(wrong)[0]
        raise InputError(
            f"Column {column.name!r} holds {text[codes[first]]!r} in data row {first + 1:,} ({wrong.sum():,} such cells); "
            "expected ages in years (58) or DICOM's form (058Y, 006M)."
        )
    years = parts[0].astype(float) / parts[1].str.upper().map(PER_YEAR).fillna(1.0)
    return pd.Series(np.append(years, np.nan)[codes], index=column.index)


def age_group_names(edges: tuple[float, ...]) -> list[str]:
    """Returns the names of the groups with these lower edges, in years: `("0-20", ..., "80+")`."""
    texts = [f"{edge:g}" for edge in edges]
    return [f"{low}-{high}" for low, high in pairwise(texts)] + [f"{texts[-1]}+"]


def cut_ages(ages: pd.Series, edges: tuple[float, ...]) -> pd.Series:
    """Puts ages into groups `[low, high)`.

    Args:
        ages: `[n] float`, years; NaN is unknown.
        edges: lower edges; an age below the first one is unknown.
    """
    index = np.searchsorted(edges, ages.fillna(-1.0), side="right") - 1
    names = np.array([*age_group_names(edges), UNKNOWN], object)
    return pd.Series(names[index], index=ages.index)  # index -1 is the last name: unknown
