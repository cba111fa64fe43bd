"""What is known of a row without its image: age, sex, view, portable, labels, as columns that a probe can read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN, Attribute, Cohort

NAMED = ("sex", "view", "portable")
AGE, MADE_OF_AGE = "age", ("age", "age_group")
MIN_ROWS = 20  # values that fewer rows have share a column
_OTHER = "other"


@dataclass(frozen=True)
class Covariates:
    """Columns of covariates.

    Attributes:
        vectors: `[n, c] float32`; every column varies. `c` is 0 where nothing is known or nothing varies.
        names: `[c]`, for people.
        facts: `[c]`, the recorded fact that a column is of: `"age"`, `"sex"`, `"view"`, `"portable"`, a finding, or whether
            one of these is known.
    """

    vectors: np.ndarray
    names: tuple[str, ...]
    facts: tuple[str, ...]

    def of_fact(self, fact: str) -> np.ndarray:
        """Returns the columns of one recorded fact, `[n, 1 or more]`."""
        return self.vectors[:, [own == fact for own in self.facts]]


def covariate_vectors(cohort: Cohort, attribute: Attribute) -> Covariates:
    """Makes the columns for a probe of an attribute: how well is it read from these alone?

    Age (standardised) comes with its square, so that a straight line is not all that is tried; sex, view and portable as
    one column per value but the most frequent; findings as they are. What is not known is the mean in its column and 1 in a
    column that says so; as a value of sex, view or portable it is one of the values. The attribute itself is left out, and
    age where age groups are read.

    Args:
        cohort: the rows.
        attribute: what is read.

    Returns:
        Columns that hold no group of the attribute.
    """
    made: list[tuple[str, str, np.ndarray]] = []  # fact, name, column
    if attribute.name not in MADE_OF_AGE:
        years = cohort.table[AGE].to_numpy(np.float64, na_value=np.nan)
        if not np.isnan(years).all():
            age = (years - np.nanmean(years)) / (np.nanstd(years) or 1.0)
            made += _flagged(AGE, age)
            made.append((AGE, "age squared", np.where(np.isnan(age), np.nanmean(age**2), age**2)))
    for name in NAMED:
        if name != attribute.name and name in cohort.table:
            made += _one_hot(name, cohort.table[name])
    for finding, values in zip(cohort.label_names, cohort.labels.T.astype(np.float64), strict=True):
        if not np.isnan(values).all():
            made += _flagged(finding, values)
    made = [column for column in made if np.ptp(column[2]) > 0]
    facts, names, values = zip(*made, strict=True) if made else ((), (), ())
    vectors = np.stack(values, axis=1) if made else np.zeros((len(cohort), 0))
    return Covariates(vectors.astype(np.float32), names, facts)


def _flagged(name: str, values: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    is_missing = np.isnan(values)
    made = [(name, name, np.where(is_missing, np.nanmean(values), values))]
    if is_missing.any():
        made.append((f"whether {name} is known", f"{name} not known", is_missing.astype(np.float64)))
    return made


def _one_hot(name: str, column: pd.Series) -> list[tuple[str, str, np.ndarray]]:
    text = column.astype(str).where(column.notna(), UNKNOWN).str.strip()
    text = text.mask(text == "", UNKNOWN)
    counts = text.value_counts()
    text = text.mask(text.isin(counts.index[counts < MIN_ROWS]), _OTHER)
    values = sorted(text.unique(), key=lambda value: (-(text == value).sum(), value))
    return [(name, f"{name} {value}", (text == value).to_numpy(np.float64)) for value in values[1:]]
