"""Tables and folders on disk: read as text, found by name, refused with a reason."""

from __future__ import annotations

import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from biascxr.errors import InputError

# Image folders: hundreds of thousands of entries, and never a table among them.
IMAGE_FOLDERS = re.compile(r"images.*|train|valid|test|p1\d*|s5\d*|patient\d+", re.IGNORECASE)
# What pandas raises for files that are no CSV, or are packed in a way that they do not stand up to (ValueError: its
# parser's errors, wrong encodings, an archive of several files; ImportError: a packer whose library is not installed).
UNREADABLE = (ValueError, EOFError, OSError, ImportError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)
MAX_DEPTH = 5  # physionet.org/files/mimiciv/2.2/hosp/patients.csv.gz
MAX_ENTRIES = 20_000  # a folder of something else is not searched for ever


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Reads a CSV (plain or gzip) with every cell as text.

    Args:
        path: the file.
        columns: only these, where a table is large; those that it lacks are not there in the answer.

    Raises:
        InputError: the file is missing, empty, not a CSV, or has rows longer than its header.
    """
    wanted = {} if columns is None else {"usecols": lambda name: name in columns}
    options = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    try:
        names = pd.read_csv(path, header=None, nrows=1, **options).iloc[0] if Path(path).is_file() else pd.Series()
        frame = pd.read_csv(path, **options, **wanted)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read as a CSV table: {error}") from error
    again = names[names.duplicated() & (names != "")]
    if len(again):  # pandas would call the second one Edema.1, and nobody would read it
        raise InputError(f"{path} has the column {again.iloc[0]!r} twice; give every column a name of its own.")
    if frame.empty:
        raise InputError(f"{path} has a header and no rows.")
    if not isinstance(frame.index, pd.RangeIndex):  # pandas then takes the first cells as row names and shifts the rest
        raise InputError(
            f"{path}: its rows have more cells than its header has names "
            f"({frame.index.nlevels + frame.shape[1]} against {frame.shape[1]}); give every column a name."
        )
    short = _short_rows(path)
    if short:
        raise InputError(
            f"{path}: {len(short):,} rows have fewer cells than the header, the first in data row {short[0]:,}. Was the file "
            "cut off?"
        )
    return frame


def _short_rows(path: Path) -> list[int]:
    """Returns the data rows, from 1, with fewer cells than the header. pandas fills them with blanks, and says nothing."""
    if path.suffix.lower() not in ("", ".csv", ".txt", ".gz", ".bz2", ".zst"):
        return []  # packed in a way that Arrow does not open
    short = []

    def look(row: csv.InvalidRow) -> str:
        if row.actual_columns < row.expected_columns:
            short.append(row.number - 1)
        return "skip"

    reader = csv.open_csv(
        pa.input_stream(str(path)),
        csv.ReadOptions(use_threads=False, autogenerate_column_names=True),  # one thread, so that rows have their numbers
        csv.ParseOptions(newlines_in_values=True, invalid_row_handler=look),
        csv.ConvertOptions(include_columns=["f0"], column_types={"f0": pa.binary()}, check_utf8=False),
    )
    for _ in reader:
        pass
    return short


def read_header(path: Path) -> list[str]:
    """Returns the column names of a CSV, or none where the file is not one."""
    try:
        return list(pd.read_csv(path, dtype=str, nrows=0, encoding="utf-8-sig").columns)
    except UNREADABLE:
        return []


def find_files(places: Iterable[Path], patterns: Iterable[str]) -> list[Path]:
    """Finds files by name in folders and the folders below them, but not among images.

    Args:
        places: folders to look into, or files to match themselves.
        patterns: names with `*`, compared without regard to case.

    Returns:
        The files, each once, those higher up first.
    """
    expression = re.compile("|".join(re.escape(p).replace(r"\*", ".*") for p in patterns), re.IGNORECASE)
    found: dict[Path, None] = {}
    for place in map(Path, places):
        level, n_seen = [place], 0
        for _ in range(MAX_DEPTH + 1):
            below = []
            for entry in level:
                if entry.is_file():
                    if expression.fullmatch(entry.name):
                        found[entry] = None
                elif entry == place or not IMAGE_FOLDERS.fullmatch(entry.name):
                    below += entries_of(entry)
            n_seen += len(below)
            # In a folder of very many entries the files are looked at, and its folders are not looked into.
            level = below if n_seen <= MAX_ENTRIES else [entry for entry in below if expression.fullmatch(entry.name)]
    return list(found)


def entries_of(folder: Path) -> list[Path]:
    """Returns what a folder holds, in order; nothing where it cannot be listed."""
    try:
        return sorted(folder.iterdir())
    except OSError:  # not a folder, or not ours to read
        return []
