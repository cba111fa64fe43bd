"""Splits: train, validation, calibration, test; disjoint by patient, stratified as far as patients allow."""

from __future__ import annotations

import numpy as np
import pandas as pd

from biascxr.config import SPLITS
from biascxr.errors import InputError

MIN_TEST_PATIENTS = 1000  # an official test part below this is too small to compare groups
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validate": "validation",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "calibration": "calibration",
    "test": "test",
}


def chosen_source(table: pd.DataFrame, source: str) -> tuple[str, list[str]]:
    """Returns where the split comes from, `"table"` or `"random"`, and a note where auto does not take the table's.

    Args:
        table: rows with `patient_id`, and `split` where the table brings one.
        source: `"auto"`, `"table"` or `"random"` (see `CohortConfig.split_source`).

    Raises:
        InputError: the table's split is asked for, and it has none.
    """
    has_split = "split" in table and (table["split"] != "").any()
    if source == "table" and not has_split:
        raise InputError("split_source is 'table', but the data set brings no split (no filled column or file).")
    if source != "auto":
        return source, []
    if not has_split:
        return "random", []
    n_test = table.loc[table["split"] == "test", "patient_id"].nunique()
    if n_test >= MIN_TEST_PATIENTS:
        return "table", []
    return "random", [
        f"The table's own split was not used: its test part has {n_test} patients, and comparing groups takes "
        f"about {MIN_TEST_PATIENTS:,} (--split_source table uses it all the same)."
    ]


def split_cohort(
    table: pd.DataFrame,
    labels: np.ndarray,
    *,
    source: str,
    attributes: tuple[str, ...],
    fractions: tuple[float, ...],
    seed: int,
) -> tuple[np.ndarray, list[str]]:
    """Gives every row its split.

    Args:
        table: rows with `patient_id`, attributes, and `split` where the table brings one.
        labels: `[n, L]` in {0, 1, NaN}.
        source: `"table"` or `"random"`, see `chosen_source`.
        attributes: columns that the draw is stratified by, beside the rarest finding and the number of images.
        fractions: shares of patients in `SPLITS` order.
        seed: seed of the draw.

    Returns:
        `[n] object` of split names, and notes.

    Raises:
        InputError: the table's split is asked for and cannot be used (no column, unknown value, a patient on two sides).
    """
    notes: list[str] = []
    if source != "table":
        patients = draw_patients(table, labels, attributes, fractions, seed)
        notes.append("Splits were drawn by patient, stratified by rarest finding, attributes and number of images.")
    else:
        patients, more = _from_table(table, labels, attributes, fractions, seed)
        notes += more
    assigned = table["patient_id"].map(patients).to_numpy(object)
    counts = pd.Series(assigned).value_counts()
    empty = [s for s in SPLITS if s not in counts]
    if empty:
        raise InputError(
            f"The splits {', '.join(empty)} are empty: {table['patient_id'].nunique()} patients are too few for the "
            f"shares {fractions}, or the table's split column leaves them out."
        )
    return assigned, notes


def draw_patients(
    table: pd.DataFrame, labels: np.ndarray, attributes: tuple[str, ...], fractions: tuple[float, ...], seed: int
) -> pd.Series:
    """Draws a split per patient.

    Patients are put in the order of (rarest positive finding, attributes, number of images), at random within ties, and
    dealt out so that after every patient each split is as near its share as whole patients allow. Any run of similar
    patients is therefore divided in the wanted proportions.

    Returns:
        Split names, indexed by patient_id.
    """
    rng = np.random.default_rng(seed)
    rarity = np.argsort(np.argsort(np.nansum(labels == 1, axis=0)))  # 0 is the rarest finding
    rarest = np.where(labels == 1, rarity, labels.shape[1]).min(axis=1)
    keys = {"rarest": ("rarest", "min")}
    frame = table[["patient_id"]].assign(rarest=rarest)
    for name in attributes:
        frame[name] = table[name].to_numpy()
        keys[name] = (name, "first")
    patients = frame.groupby("patient_id", sort=True).agg(**keys)
    patients["size"] = np.minimum(4, np.log2(frame.groupby("patient_id", sort=True).size())).astype(int)
    patients["draw"] = rng.random(len(patients))
    patients = patients.sort_values(list(patients.columns))

    # Start from a random debt, so that the first patients of the order do not always fall into train.
    shares = np.asarray(fractions)
    debt = rng.dirichlet(np.ones(len(shares))) * 0.5
    splits = np.empty(len(patients), object)
    for i in range(len(patients)):
        debt += shares
        chosen = int(np.argmax(debt))
        debt[chosen] -= 1.0
        splits[i] = SPLITS[chosen]
    return pd.Series(splits, index=patients.index)


def _from_table(
    table: pd.DataFrame, labels: np.ndarray, attributes: tuple[str, ...], fractions: tuple[float, ...], seed: int
) -> tuple[pd.Series, list[str]]:
    given = table["split"].map(SPLIT_NAMES)
    if given.isna().any():
        wrong = table["split"][given.isna()].iloc[0]
        raise InputError(f"Column 'split' holds {wrong!r}; expected one of {', '.join(sorted(SPLIT_NAMES))}.")
    per_patient = given.groupby(table["patient_id"]).nunique()
    if (per_patient > 1).any():
        raise InputError(
            f"{int((per_patient > 1).sum())} patients are in more than one part of the table's split, so the test part "
            "would not be independent. Use --split_source random, or mend the table."
        )
    patients = given.groupby(table["patient_id"]).first()
    notes = ["The table's own split was used."]
    n_test = int((patients == "test").sum())
    if n_test < MIN_TEST_PATIENTS:
        notes.append(f"Warning: {n_test} test patients give little power to compare groups.")
    missing = [s for s in ("validation", "calibration") if s not in set(patients)]
    if missing:
        train_patients = patients.index[patients == "train"]
        of_train = table["patient_id"].isin(train_patients).to_numpy()
        wanted = {s: f for s, f in zip(SPLITS, fractions, strict=True) if s in ("train", *missing)}
        total = sum(wanted.values())
        shares = tuple(wanted.get(s, 0.0) / total for s in SPLITS)
        redrawn = draw_patients(table[of_train], labels[of_train], attributes, shares, seed)
        patients.loc[redrawn.index] = redrawn
        notes.append(f"The table has no {' or '.join(missing)} part: drawn by patient from its train part.")
    return patients, notes
