"""Anybody's table of X-rays -> `Cohort`, for vectors that come without a data set's official table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.audit.read_attributes import (
    attribute_names,
    attribute_values,
    constant_attributes,
    find_attributes,
    note_unknown,
)
from biascxr.audit.read_columns import first_of_each_image, identifiers, name_columns
from biascxr.audit.read_table import read_table
from biascxr.audit.read_values import scores_of, zero_one
from biascxr.cohort import build_cohort, find_layout
from biascxr.cohort.split import SPLIT_NAMES
from biascxr.config import SPLITS, CohortConfig
from biascxr.containers import Attribute, Cohort, Predictions
from biascxr.errors import InputError, unknown_name
from biascxr.leakage.build import attributes_to_read

COVARIATES = ("view", "sex", "age_group", "portable")
TRUE, PROB = "true_", "prob_"


@dataclass(frozen=True)
class StandaloneTable:
    """A table, read.

    Attributes:
        cohort: one row per image; where the table says nothing of splits every row is a test row, and folds are needed.
        attributes: what is asked to be read, among the cohort's columns.
        predictions: a classifier's scores of test rows, where the table has them.
        has_split: whether train and test rows are told apart.
        notes: what was derived or left out, with counts.
    """

    cohort: Cohort
    attributes: tuple[Attribute, ...]
    predictions: Predictions | None
    has_split: bool
    notes: tuple[str, ...]


def read_standalone(
    path: Path, *, attributes: tuple[str, ...] = (), labels: tuple[str, ...] = (), age_bins: tuple[float, ...], seed: int
) -> StandaloneTable:
    """Reads a data set's official table, or any table with `image_id`, `patient_id` and attributes.

    Args:
        path: an official table (see `biascxr.cohort`), whose own split or a random one by patients is then used; or a .csv,
            .csv.gz or .parquet with `image_id`, `patient_id` (or their usual names), attributes, and what there is of `age` in
            years, `view`, `portable`, `study_id`, `split` and, per finding, `true_<label>` and `prob_<label>`.
        attributes: columns to read from the vectors; default: sex, race, age_group and what else is usual.
        labels: of an official table, the findings to use; of another, columns in {0, 1, blank} that are findings though their
            names do not begin with `true_`.
        age_bins: lower edges of age groups, years.
        seed: of the split of an official table that has none.

    Raises:
        InputError: the table cannot be read, or a column is missing or holds what it must not.
    """
    path = Path(path)
    config = CohortConfig(age_bins=age_bins, labels=labels)
    try:
        find_layout(path, None, config)
    except InputError:
        return _plain(path, attributes, labels, age_bins)
    cohort = build_cohort(path, None, config, seed=seed)
    return StandaloneTable(cohort, attributes_to_read(cohort, attributes), None, True, tuple(cohort.accounting["notes"]))


def _plain(path: Path, attributes: tuple[str, ...], labels: tuple[str, ...], age_bins: tuple[float, ...]) -> StandaloneTable:
    notes: list[str] = []
    frame = name_columns(read_table(path), notes)
    if "image_id" not in frame:
        raise InputError(
            f"{path.name} has no column image_id (or dicom_id, ImageID, Image Index), without which a row cannot be told which "
            f"vector is its own. Found: {', '.join(list(frame)[:20])}."
        )
    for name in labels:
        if name not in frame:
            raise unknown_name("label", name, list(frame))
    frame = frame.rename(columns={name: f"{TRUE}{name}" for name in labels})
    names = tuple(c.removeprefix(TRUE) for c in frame if c.startswith(TRUE))
    scored = bool(names) and all(f"{PROB}{name}" in frame for name in names)
    chosen = attribute_names(list(frame), attributes, notes)
    if not chosen:
        raise InputError(f"Name the attributes to read with --attributes; found: {', '.join(list(frame)[:20])}.")
    described = [name for name in COVARIATES if name in frame or (name == "age_group" and "age" in frame)]
    if "age" in chosen:
        raise InputError("age is a number, not groups: name age_group, which is cut from it at --age_bins.")
    table = identifiers(frame, path.name, "image", notes)
    first = first_of_each_image(frame, table, "error", notes)
    frame, table = frame.iloc[first].reset_index(drop=True), table.iloc[first].reset_index(drop=True)
    for name in dict.fromkeys((*chosen, *described)):
        table[name] = attribute_values(frame, name, age_bins, notes)
    known = table["split"].map(lambda text: SPLIT_NAMES.get(text, text))
    has_split = "split" in frame and (known == "train").any()
    table["split"] = _checked_splits(known, table["patient_id"]) if has_split else "test"
    table["age"] = pd.to_numeric(frame["age"], errors="coerce").to_numpy(float) if "age" in frame else np.nan
    table["path"] = ""
    if "view" not in table:
        table["view"] = ""
    constant = constant_attributes(table, chosen, notes, notes)
    others = constant_attributes(table, tuple(n for n in described if n not in chosen), [], [])
    found = find_attributes(table, constant, attributes, notes)
    further = find_attributes(table, others, (), [])
    note_unknown(table, tuple(a.name for a in found), notes)
    y = np.column_stack([zero_one(frame[f"{TRUE}{n}"]) for n in names]) if names else np.zeros((len(table), 0), np.float32)
    own = tuple(a for a in (*found, *further) if a.name != "view" or a in found)
    cohort = Cohort(
        table.drop(columns=["recipe", "seed", "fold"]), y.astype(np.float32), names, own, "table", "vector", path.parent,
        {"notes": notes, "rows_in_table": len(frame), "excluded": {}},
    )  # fmt: skip
    predictions = None
    if scored:
        scores = scores_of(frame, names)
        usable = np.flatnonzero(~np.isnan(scores).any(axis=1) & (table["split"] == "test").to_numpy())
        predictions = Predictions(table, y, np.nan_to_num(scores), names, own).rows(usable)
    asked = tuple(a for name in attributes for a in found if a.name == name) if attributes else found
    return StandaloneTable(cohort, asked, predictions, has_split, tuple(dict.fromkeys(notes)))


def _checked_splits(known: pd.Series, patients: pd.Series) -> pd.Series:
    unknown = sorted(set(known) - set(SPLITS))
    if unknown:
        raise InputError(
            f"Column 'split' holds {', '.join(map(repr, unknown))} in {int(known.isin(unknown).sum()):,} rows; expected "
            f"{', '.join(SPLITS)}. Leave these rows out, or the column: then folds of the patients are used."
        )
    n_straddling = int((known.groupby(patients).nunique() > 1).sum())
    if n_straddling:
        raise InputError(
            f"Column 'split' puts {n_straddling:,} patients into more than one split: a probe that recognises a patient would "
            "seem to read the attribute. Divide by patient, or leave the column out: then folds of the patients are used."
        )
    return known
