"""A file of predictions -> a frame: text stays text, and no digit of a number is lost."""

from __future__ import annotations

import zlib
from pathlib import Path

import pandas as pd

from biascxr.audit.read_columns import VALUES, check_columns
from biascxr.containers import EXACT_DIGITS
from biascxr.errors import InputError

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def read_table(path: Path) -> pd.DataFrame:
    """Returns the file's cells; in a CSV all but labels, scores and decisions are text.

    Raises:
        InputError: it is no file, has another ending, or cannot be read.
    """
    expected = f"expected a table of predictions ({', '.join(SUFFIXES)})"
    if path.is_dir():
        raise InputError(f"{path.name} is a folder; {expected}.")
    if not path.exists():
        raise InputError(f"{path}: no such file; {expected}.")
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"{path.name} has an unknown ending; {expected}.")
    try:
        return pd.read_parquet(path) if path.name.lower().endswith(".parquet") else _read_csv(path)
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, ValueError) as error:  # pandas and Arrow raise ValueErrors of their own
        raise InputError(f"{path.name} cannot be read ({error}); {expected}.") from error


def _read_csv(path: Path) -> pd.DataFrame:
    options = {"encoding": "utf-8-sig", "compression": "gzip" if path.name.lower().endswith(".gz") else None}
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, **options)
    columns = [text.strip() or f"column {i + 1}" for i, text in enumerate(header.iloc[0])]
    check_columns(columns)
    numbers = [c for c in columns if c.startswith(VALUES)]
    frame = pd.read_csv(
        path,
        header=0,
        names=columns,
        dtype={c: str for c in columns if c not in numbers},
        keep_default_na=False,  # text stays what it is: a group may be called "None"
        na_values={c: ["", "nan", "NaN", "NA"] for c in numbers},
        low_memory=False,
        **EXACT_DIGITS,
        **options,
    )
    if not isinstance(frame.index, pd.RangeIndex):  # pandas would shift the columns by one
        raise InputError(f"{path.name}: its rows have more cells than its header, which has {len(columns)}.")
    return frame
