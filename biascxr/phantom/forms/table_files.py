"""Tables on disk, the same bytes each time: CSV, plain or gzip, and xlsx."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

DAY_ZERO = (1980, 1, 1, 0, 0, 0)  # the first day that a zip archive can name


def write_csv(path: Path, columns: Mapping[str, Sequence]) -> Path:
    """Writes columns of equal length as CSV, packed where the name ends in `.gz`; folders are made.

    Args:
        path: the file.
        columns: header cell -> cells, written as `str` writes them.

    Returns:
        `path`.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    data = text.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    # A gzip file carries the time it was made at; 0 says none.
    path.write_bytes(gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)
    return path


def write_xlsx(path: Path, sheets: Mapping[str, Iterable[Sequence]]) -> Path:
    """Writes sheets of rows as an Excel workbook without the date on which it was made.

    Args:
        path: the file.
        sheets: name of the sheet -> its rows, the header first.

    Returns:
        `path`.
    """
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    packed = io.BytesIO()
    book.save(packed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(packed) as dated, zipfile.ZipFile(path, "w") as undated:
        for name in dated.namelist():
            data = dated.read(name)
            if name == "docProps/core.xml":
                data = re.sub(rb"\d{4}-\d\d-\d\dT[\d:]+Z", b"1980-01-01T00:00:00Z", data)
            entry = zipfile.ZipInfo(name, DAY_ZERO)
            entry.compress_type = zipfile.ZIP_DEFLATED
            undated.writestr(entry, data)
    return path
