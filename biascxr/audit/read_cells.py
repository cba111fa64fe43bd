"""Cells of a column as text or numbers: which are blank, how many change, and which row a message points to."""

from __future__ import annotations

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN
from biascxr.errors import InputError

NOT_GIVEN = ("", "nan", "na", "n/a", "<na>", "null", UNKNOWN)  # lower case; "None" may be a group of insurance


def text_of(column: pd.Series) -> np.ndarray:
    """Returns `[n]` stripped texts, `""` where missing; whole numbers without a point."""
    if pd.api.types.is_float_dtype(column.dtype) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")  # identifiers become floats where one is missing
    codes, values = pd.factorize(column)
    return np.append(pd.Index(values).astype(str).str.strip().to_numpy(object), "")[codes]


def is_blank(text: np.ndarray | pd.Series) -> np.ndarray:
    """Returns `[n] bool`: nothing was recorded, or a word for that."""
    codes, values = pd.factorize(text)
    return pd.Index(values).str.lower().isin(NOT_GIVEN)[codes]


def filled(column: pd.Series) -> np.ndarray:
    """Returns a column's texts; raises where one is blank."""
    text = text_of(column)
    blank = is_blank(text)
    if blank.any():
        raise InputError(f"Column {column.name!r} is blank in {blank.sum():,} rows (first: {row_of(blank)}).")
    return text


def groups_of(column: pd.Series) -> np.ndarray:
    """Returns a column's texts, `"unknown"` where blank."""
    text = text_of(column)
    return np.where(is_blank(text), UNKNOWN, text)


def numbers_of(column: pd.Series, *, words: tuple[str, ...] = ()) -> np.ndarray:
    """Returns `[n] float64`, or `float32` from such a column; NaN where blank. `words` may stand for 0 and 1."""
    if pd.api.types.is_numeric_dtype(column.dtype):  # booleans too
        is_small = column.dtype in (np.float16, np.float32)
        return column.to_numpy(np.float32 if is_small else np.float64, na_value=np.nan)
    codes, values = pd.factorize(text_of(column))
    low = pd.Index(values).str.lower()
    numbers = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").to_numpy(np.float64).copy()
    for number, word in enumerate(words):
        numbers[low == word] = number
    wrong = (np.isnan(numbers) & ~low.isin((*NOT_GIVEN, "none")))[codes]
    if wrong.any():
        cell = values[codes[np.flatnonzero(wrong)[0]]]
        raise InputError(
            f"Column {column.name!r} holds {cell!r} in {row_of(wrong)} ({wrong.sum():,} such cells); expected numbers."
        )
    return numbers[codes]


def row_of(mask: np.ndarray) -> str:
    """Returns where the mask is first true, in words."""
    return f"data row {np.flatnonzero(mask)[0] + 1:,}"  # row 1 is the first below the header


def n_changing(owners: np.ndarray, values: np.ndarray) -> int:
    """Counts the owners with more than one value; both are `[n]` codes from 0."""
    if len(owners) == 0:
        return 0
    one = np.empty(owners.max() + 1, values.dtype)
    one[owners] = values  # some value of each owner
    return len(np.unique(owners[one[owners] != values]))
