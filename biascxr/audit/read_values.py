"""Labels, scores and decisions of aligned rows: checked, and left out where a score or a class is missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.audit.read_cells import numbers_of, row_of
from biascxr.containers import PREDICTION_COLUMNS, Attribute, Predictions
from biascxr.errors import InputError


@dataclass(frozen=True)
class Rows:
    """Aligned rows; `scores` may hold NaN here."""

    table: pd.DataFrame
    y_true: np.ndarray
    scores: np.ndarray
    decisions: np.ndarray | None

    def take(self, rows: np.ndarray) -> Rows:
        decisions = None if self.decisions is None else self.decisions[rows]
        return Rows(self.table.iloc[rows].reset_index(drop=True), self.y_true[rows], self.scores[rows], decisions)


def zero_one(column: pd.Series) -> np.ndarray:
    """Returns `[n] float32` in {0, 1, NaN}."""
    values = numbers_of(column, words=("false", "true"))
    wrong = ~((values == 0) | (values == 1) | np.isnan(values))
    if wrong.any():
        uncertain = values == -1
        if column.name.startswith("true_") and uncertain.any():
            raise InputError(
                f"Column {column.name!r} holds -1 (uncertain) in {uncertain.sum():,} rows (first: {row_of(uncertain)}). "
                "Choose a policy first: make them 0, 1, or blank (left out)."
            )
        raise InputError(
            f"Column {column.name!r} holds {values[wrong][0]:g} in {row_of(wrong)} ({wrong.sum():,} such cells); "
            "expected 0, 1 or blank."
        )
    return values.astype(np.float32)


def scores_of(frame: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """Returns `[n, L]` probabilities or NaN; float32 only where the table holds no finer ones."""
    scores = np.column_stack([numbers_of(frame[f"prob_{n}"]) for n in names])
    outside = (scores < 0) | (scores > 1)
    if not outside.any():
        return scores
    columns = np.flatnonzero(outside.any(axis=0))
    seen = scores[:, columns[0]]
    low, high = np.nanmin(seen), np.nanmax(seen)
    if low > -1e-5 and high < 1 + 1e-5:
        advice = "They are off by rounding: clip them to [0, 1]."
    elif low >= 0 and 10 < high <= 100:
        advice = "They look like percent: divide by 100."
    else:
        advice = "They look like logits: apply the sigmoid first, 1 / (1 + exp(-x))."
    others = ", ".join(f"prob_{names[i]}" for i in columns[1:])
    raise InputError(
        f"Column 'prob_{names[columns[0]]}' holds {outside[:, columns[0]].sum():,} scores outside [0, 1] "
        f"(range seen: {low:.8g} to {high:.8g}). {advice}" + (f" The same in: {others}." if others else "")
    )


def decisions_of(frame: pd.DataFrame, names: tuple[str, ...], unit: str, notes: list[str]) -> np.ndarray | None:
    """Returns `[n, L] float32` in {0, 1, NaN}, or None where the table has no decisions or studies are the unit."""
    lacking = [n for n in names if f"decision_{n}" not in frame]
    if len(lacking) == len(names):
        return None
    if unit == "study":
        notes.append("decision_<label> columns are left out: a study is decided on its own score.")
        return None
    if lacking:
        notes.append(f"No decisions for: {', '.join(lacking)}.")
    blank = np.full(len(frame), np.nan, np.float32)
    return np.column_stack([blank if n in lacking else zero_one(frame[f"decision_{n}"]) for n in names])


def with_a_score(rows: Rows, notes: list[str]) -> Rows:
    """Leaves out the rows without any score."""
    has_score = ~np.isnan(rows.scores).all(axis=1)
    if has_score.all():
        return rows
    lost = set(rows.table["recipe"]) - set(rows.table["recipe"][has_score])
    if lost:
        raise InputError(f"No row has a score for any label in: {', '.join(sorted(lost))}.")
    notes.append(f"{(~has_score).sum():,} of {len(has_score):,} rows have no score for any label and are left out.")
    return rows.take(np.flatnonzero(has_score))


def mask_missing_scores(rows: Rows, names: tuple[str, ...], notes: list[str]) -> Rows:
    """Makes label and decision NaN where the score is missing, so that the row is left out for that finding only."""
    missing = np.isnan(rows.scores)
    if not missing.any():
        return rows
    counts = ", ".join(f"{n} {k:,}" for n, k in zip(names, missing.sum(axis=0), strict=True) if k)
    notes.append(f"Scores are missing for some labels; those rows are left out there: {counts}.")
    decisions = None if rows.decisions is None else np.where(missing, np.float32(np.nan), rows.decisions)
    # A container's scores are never NaN. The 0.5 enters no number: label and decision are NaN, and every metric, threshold
    # and replicate leaves out rows whose label is NaN.
    scores = np.where(missing, rows.scores.dtype.type(0.5), rows.scores)
    return Rows(rows.table, np.where(missing, np.float32(np.nan), rows.y_true), scores, decisions)


def two_class_labels(rows: Rows, names: tuple[str, ...], notes: list[str]) -> np.ndarray:
    """Returns the numbers of the labels with both classes in every recipe."""
    recipes = rows.table["recipe"].to_numpy(object)
    has = {c: pd.DataFrame(rows.y_true == c).groupby(recipes).any().to_numpy().all(axis=0) for c in (0, 1)}
    lacking = [
        f"{name} (no {' and no '.join(word for c, word in ((1, 'positive'), (0, 'negative')) if not has[c][i])})"
        for i, name in enumerate(names)
        if not (has[0][i] and has[1][i])
    ]
    used = np.flatnonzero(has[0] & has[1])
    if len(used) == 0:
        raise InputError(f"No finding has rows of both classes: {', '.join(lacking)}.")
    if lacking:
        where = " in one recipe at least" if len(set(recipes)) > 1 else ""
        notes.append(f"Left out, for want of a class{where}: {', '.join(lacking)}.")
    return used


def split_by_recipe(
    rows: Rows, names: tuple[str, ...], used: np.ndarray, attributes: tuple[Attribute, ...], kept: tuple[str, ...]
) -> dict[str, Predictions]:
    """Returns one `Predictions` per recipe, in the order of appearance; `names[used]` are its findings."""
    columns = list(dict.fromkeys((*PREDICTION_COLUMNS, *(a.name for a in attributes), *kept)))
    codes, recipes = pd.factorize(rows.table["recipe"])
    predictions = {}
    for code, recipe in enumerate(recipes):
        part = rows if len(recipes) == 1 else rows.take(np.flatnonzero(codes == code))
        predictions[str(recipe)] = Predictions(
            table=part.table[columns],
            y_true=part.y_true[:, used],
            scores=part.scores[:, used],
            label_names=tuple(names[i] for i in used),
            attributes=attributes,
            decisions=None if part.decisions is None else part.decisions[:, used],
        )
    return predictions
