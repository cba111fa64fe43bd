"""Anybody's table of predictions -> `Predictions`: what cannot be used is named, what is left out is counted.

Messages hold columns, counts and row numbers, never an identifier: they reach logs and reports.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from biascxr.audit.by_study import by_study
from biascxr.audit.read_attributes import (
    attribute_names,
    attribute_values,
    constant_attributes,
    find_attributes,
    kept_names,
    note_unknown,
)
from biascxr.audit.read_columns import first_of_each_image, identifiers, label_names, name_columns
from biascxr.audit.read_table import read_table
from biascxr.audit.read_values import (
    Rows,
    decisions_of,
    mask_missing_scores,
    scores_of,
    split_by_recipe,
    two_class_labels,
    with_a_score,
    zero_one,
)
from biascxr.containers import Predictions
from biascxr.errors import InputError, unknown_name


@dataclass(frozen=True)
class PredictionFile:
    """A table of predictions, read.

    Attributes:
        predictions: one per recipe, in the file's order; where a recipe has several seeds or folds, one per
            `"recipe (seed 1, fold 0)"`, so that each holds an image once.
        notes: what was derived, left out or repaired, with counts.
        warnings: findings about the data that a reader should look into, with counts.
    """

    predictions: dict[str, Predictions]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def read_predictions(
    path: Path,
    *,
    attributes: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
    age_bins: tuple[float, ...] = (0, 20, 40, 60, 80),
    unit: Literal["image", "study"] = "image",
    duplicates: Literal["error", "first"] = "error",
    keep: tuple[str, ...] = (),
) -> PredictionFile:
    """Reads a file of predictions from any framework.

    Args:
        path: a .csv, .csv.gz or .parquet file; its columns are those of `parse_predictions`.
        attributes: see `parse_predictions`, also for the others.
        labels: only these findings.
        age_bins: lower edges of the age groups, years.
        unit: what a row of the result is.
        duplicates: what a repeated image is.
        keep: further columns of the table.

    Returns:
        The predictions; without a `recipe` column they are named after the file.

    Raises:
        InputError: the file cannot be read, or its content cannot be used (see `parse_predictions`).
    """
    path = Path(path)
    frame = read_table(path)
    name = re.sub(r"\.(csv|csv\.gz|parquet)$", "", path.name, flags=re.IGNORECASE)
    try:
        return parse_predictions(
            frame,
            name=name,
            attributes=attributes,
            labels=labels,
            age_bins=age_bins,
            unit=unit,
            duplicates=duplicates,
            keep=keep,
        )
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error


def parse_predictions(
    frame: pd.DataFrame,
    *,
    name: str = "predictions",
    attributes: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
    age_bins: tuple[float, ...] = (0, 20, 40, 60, 80),
    unit: Literal["image", "study"] = "image",
    duplicates: Literal["error", "first"] = "error",
    keep: tuple[str, ...] = (),
) -> PredictionFile:
    """Checks a table of predictions and brings it into the audit's form; rows keep their order.

    Args:
        frame: `patient_id`, per finding `true_<label>` in {0, 1, blank} and `prob_<label>` in [0, 1]; optional `image_id`,
            `study_id`, `decision_<label>` in {0, 1, blank}, `split`, `recipe`, `seed`, `fold`, and attributes.
        name: name of the recipe where there is no such column.
        attributes: columns to compare groups by; `age_group` is cut from `age` where only that is there. Default: those of
            `DEFAULT_ATTRIBUTES` that the table has.
        labels: only these findings; default: all.
        age_bins: lower edges of the age groups, years; the last group is open.
        unit: `"study"` takes the mean score and the highest label of a study's images; decisions are dropped.
        duplicates: `"error"`, or `"first"` to keep the first row of each image.
        keep: columns that stay in the table as text without being attributes, for instance to adjust for: `"view"`,
            `"portable"`, `"age_group"` (cut from `age` as above); `"label"` is the finding itself and is ignored.

    Raises:
        InputError: a column is missing or holds what it must not; the column, the count and a row are named.
    """
    for argument, value, known in (("unit", unit, ("image", "study")), ("duplicates", duplicates, ("error", "first"))):
        if value not in known:
            raise unknown_name(argument, value, known)
    notes: list[str] = []
    warnings: list[str] = []
    frame = name_columns(frame, notes)
    names = label_names(list(frame), labels, notes)
    chosen = attribute_names(list(frame), attributes, notes)
    kept = kept_names(list(frame), keep)
    described = tuple(dict.fromkeys((*chosen, *kept)))
    table = identifiers(frame, name, unit, notes)
    first = first_of_each_image(frame, table, duplicates, notes)
    if len(first) < len(frame):
        frame, table = frame.iloc[first].reset_index(drop=True), table.iloc[first].reset_index(drop=True)
    for column in described:
        table[column] = attribute_values(frame, column, age_bins, notes)
    y_true = np.column_stack([zero_one(frame[f"true_{label}"]) for label in names])
    rows = Rows(table, y_true, scores_of(frame, names), decisions_of(frame, names, unit, notes))
    rows = with_a_score(rows, notes)
    constant = constant_attributes(rows.table, chosen, notes, warnings)
    if unit == "study":
        rows = by_study(rows, described, notes)
    rows = mask_missing_scores(rows, names, notes)
    used = two_class_labels(rows, names, notes)
    found = find_attributes(rows.table, constant, attributes, notes)
    note_unknown(rows.table, tuple(dict.fromkeys((*(a.name for a in found), *kept))), notes)
    predictions = split_by_recipe(rows, names, used, found, kept)
    return PredictionFile(predictions, tuple(dict.fromkeys(notes)), tuple(warnings))
