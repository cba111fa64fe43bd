"""Which column is what: identifiers under their usual names, findings, sets of predictions, repeated images."""

from __future__ import annotations

import difflib

import numpy as np
import pandas as pd

from biascxr.audit.read_cells import filled, is_blank, n_changing, row_of, text_of
from biascxr.containers import PREDICTION_COLUMNS, UNKNOWN
from biascxr.errors import InputError, unknown_name

# Column names of common tables, compared without case, blanks and underscores.
ALIASES = {
    "patient_id": ("subject_id", "PatientID", "Patient ID"),
    "image_id": ("dicom_id", "ImageID", "Image Index"),
    "study_id": ("StudyID",),
}
VALUES = ("true_", "prob_", "decision_")


def check_columns(columns: list[str]) -> None:
    """Raises where a name occurs twice."""
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise InputError(f"Columns occur twice: {', '.join(twice)}. Each needs a name of its own.")


def _plain(name: str) -> str:
    return name.casefold().replace("_", "").replace(" ", "")


def name_columns(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Returns the frame with the names of identifiers in our form; raises where there is no row or no patient."""
    levels = [level for level in frame.index.names if level is not None and level not in frame]
    if levels:  # an index saved to Parquet holds a column
        frame = frame.reset_index(level=levels)
    frame = frame.set_axis([str(c).strip() for c in frame], axis=1).reset_index(drop=True)
    check_columns(list(frame))
    renamed = {}
    for wanted, aliases in ALIASES.items():
        if wanted in frame:
            continue
        found = [c for c in frame if _plain(c) in {_plain(a) for a in (wanted, *aliases)}]
        if len(found) > 1:
            raise InputError(f"Both {' and '.join(map(repr, found))} may be {wanted}: name one of them {wanted}.")
        if found:
            renamed[found[0]] = wanted
            notes.append(f"Column {found[0]!r} is read as {wanted}.")
    frame = frame.rename(columns=renamed)
    if "patient_id" not in frame:
        near = [c for c in frame if "patient" in c.lower() or "subject" in c.lower()]
        near += [c for c in difflib.get_close_matches("patient_id", list(frame)) if c not in near]
        raise InputError(
            "There is no column patient_id, without which no interval can be right: images of one patient are not "
            f"independent. Accepted too: {', '.join(ALIASES['patient_id'])}. "
            + (f"Close: {', '.join(near)}. " if near else "")
            + f"Found: {', '.join(list(frame)[:20])}{', ...' if frame.shape[1] > 20 else ''}."
        )
    if len(frame) == 0:
        raise InputError("The table has a header but no row.")
    return frame


def label_names(columns: list[str], wanted: tuple[str, ...], notes: list[str]) -> tuple[str, ...]:
    """Returns the findings, those wanted or all; raises where one lacks its labels or scores."""
    true, prob, decided = ([c.removeprefix(v) for c in columns if c.startswith(v)] for v in VALUES)
    if not true:
        raise InputError("There is no true_<label> column; each finding needs true_<label> and prob_<label>.")
    for name in wanted:
        if name not in true and name not in prob:
            raise unknown_name("label", name, set(true) & set(prob))
    names = tuple(dict.fromkeys(wanted or true))
    lacking = [f"true_{n}" for n in names if n not in true] + [f"prob_{n}" for n in names if n not in prob]
    if lacking:
        raise InputError(
            f"Each finding needs true_<label> and prob_<label>; lacking: {', '.join(lacking)}. "
            "To audit the others only, name them as labels."
        )
    unused = [f"prob_{n}" for n in prob if n not in true] + [f"decision_{n}" for n in decided if n not in true]
    if unused:
        notes.append(f"Not used, for want of a true_<label>: {', '.join(unused)}.")
    return names


def identifiers(frame: pd.DataFrame, name: str, unit: str, notes: list[str]) -> pd.DataFrame:
    """Returns `image_id, study_id, patient_id, split, recipe, seed, fold`; `recipe` says which set of predictions."""
    n = len(frame)
    sets = pd.DataFrame({"recipe": filled(frame["recipe"]) if "recipe" in frame else name}, index=frame.index)
    for column in ("seed", "fold"):
        text = filled(frame[column]) if column in frame else np.zeros(n, int)
        numbers = pd.to_numeric(pd.Series(text), errors="coerce")
        is_whole = numbers.notna().all() and (numbers % 1 == 0).all()
        sets[column] = numbers.astype(np.int64) if is_whole else text
    sets["recipe"] = _set_names(sets)
    table = pd.DataFrame({"patient_id": filled(frame["patient_id"])})
    if "image_id" in frame:
        table["image_id"] = filled(frame["image_id"])
    else:
        table["image_id"] = sets.groupby("recipe").cumcount().astype(str)
        notes.append("No image_id: rows are numbered in the file's order, so repeated images cannot be seen.")
    if "study_id" in frame:
        table["study_id"] = filled(frame["study_id"]) if unit == "study" else text_of(frame["study_id"])
        blank = is_blank(table["study_id"])
        if blank.any():
            table["study_id"] = table["study_id"].mask(blank, table["image_id"])
            notes.append(f"study_id is blank in {blank.sum():,} rows: each is a study of its own.")
    elif unit == "study":
        raise InputError("unit='study' needs a column study_id.")
    else:
        table["study_id"] = table["image_id"]
    if "split" in frame:
        split = pd.Series(text_of(frame["split"])).str.lower()
        blank = is_blank(split)
        table["split"] = split.mask(blank, UNKNOWN)
        if blank.any():
            notes.append(f"split is blank in {blank.sum():,} rows: they are in split {UNKNOWN!r}.")
    else:
        table["split"] = "test"
        notes.append("No split column: every row is a test row.")
    return table.join(sets)[list(PREDICTION_COLUMNS)]


def _set_names(sets: pd.DataFrame) -> np.ndarray:
    """Returns each row's recipe, followed by its seed and fold where the recipe has several of them."""
    unique = sets.drop_duplicates()
    several = unique.groupby("recipe", sort=False)[["seed", "fold"]].transform("nunique") > 1
    names = []
    for index, row in unique.iterrows():  # one per set of predictions, not per image
        parts = [f"{c} {row[c]}" for c in ("seed", "fold") if several.at[index, c]]
        names.append(f"{row['recipe']} ({', '.join(parts)})" if parts else row["recipe"])
    return np.array(names, object)[sets.groupby(list(sets), sort=False).ngroup()]


def first_of_each_image(frame: pd.DataFrame, table: pd.DataFrame, duplicates: str, notes: list[str]) -> np.ndarray:
    """Returns the row numbers to keep."""
    patients, images = (pd.factorize(table[c])[0] for c in ("patient_id", "image_id"))
    shared = n_changing(images, patients)
    if shared:
        raise InputError(f"{shared:,} images (image_id) belong to more than one patient (patient_id).")
    keys = pd.DataFrame({"image": images, "recipe": pd.factorize(table["recipe"])[0]})
    repeated = keys.duplicated().to_numpy()
    if not repeated.any():
        return np.arange(len(frame))
    if duplicates == "error":
        raise InputError(
            f"{repeated.sum():,} rows repeat an image_id of the same recipe, seed and fold (first: {row_of(repeated)}). "
            'duplicates="first" keeps the first row of each image; several models in one file need a recipe column.'
        )
    copies = keys.duplicated(keep=False).to_numpy()
    distinct = keys[copies][~frame[copies].duplicated().to_numpy()]
    differing = int((distinct.groupby(list(distinct)).size() > 1).sum())
    notes.append(f"{repeated.sum():,} rows repeat an image and are left out; for {differing:,} images the repeats differ.")
    return np.flatnonzero(~repeated)
