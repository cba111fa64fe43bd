"""Reference labels: the truth for some images or studies, from a table of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.cohort.base import normalise_column, read_labels
from biascxr.cohort.tables import read_table
from biascxr.errors import InputError

KEYS = {"image_id": ("image_id", "dicom_id", "Image Index"), "study_id": ("study_id",)}


def read_reference_labels(path: Path, table: pd.DataFrame, label_names: list[str]) -> pd.DataFrame:
    """Reads reference labels for the rows of a table.

    Args:
        path: CSV with `image_id` (or `dicom_id`, `Image Index`) or `study_id`, and columns named as findings; 1, 0, and
            blank or -1 where even the reference does not know.
        table: rows with `image_id` and `study_id`.
        label_names: the findings.

    Returns:
        `[n]` rows, the columns that the file has among the findings, in {0, 1, NaN}; NaN for rows it does not hold.

    Raises:
        InputError: no key column, no finding, a key twice, or no row in common.
    """
    frame = read_table(path)
    key = next(((own, column) for own, names in KEYS.items() for column in names if column in frame), None)
    if key is None:
        raise InputError(f"--reference_labels {path} needs a column image_id, dicom_id or study_id. Found: {', '.join(frame)}.")
    own, column = key
    by_name = {normalise_column(c): c for c in frame}
    found = {name: by_name[normalise_column(name)] for name in label_names if normalise_column(name) in by_name}
    if not found:
        raise InputError(f"--reference_labels {path} has no column named as one of the findings: {', '.join(label_names)}.")
    labels = read_labels(frame, found.values()).replace(-1.0, np.nan)
    labels.columns = list(found)
    labels.index = frame[column].str.strip().str.replace(r"\.(png|jpe?g|dcm)$", "", regex=True)
    if labels.index.has_duplicates:
        again = labels.index[labels.index.duplicated()]
        raise InputError(f"--reference_labels {path} holds {len(again):,} {column} values twice.", examples=again[:3])
    aligned = labels.reindex(table[own]).set_axis(table.index)
    if not labels.index.isin(table[own]).any():
        raise InputError(f"--reference_labels {path}: none of its {len(labels):,} {column} values is in the table.")
    return aligned
