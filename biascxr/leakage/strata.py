"""Rows that are alike in one thing, so that a probe's reading can be asked for among them alone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN, Attribute, Cohort
from biascxr.errors import unknown_name

LABEL = "label"
STRATA = (LABEL, "view", "age_group", "sex", "portable")
MIN_ROWS = 20  # a pattern of findings that fewer rows have is not told apart


def strata_there_are(cohort: Cohort, attribute: Attribute) -> tuple[str, ...]:
    """Returns which of `STRATA` the cohort has, with two values or more, and which are not the attribute itself.

    Args:
        cohort: the rows.
        attribute: what is read.
    """
    found = []
    for what in STRATA:
        if what == LABEL:
            has_two_values = any((block == 1).any() and (block == 0).any() for block in cohort.labels.T)
        else:
            has_two_values = what in cohort.table and _codes(cohort.table[what]).max(initial=-1) > 0
        if has_two_values and what != attribute.name:
            found.append(what)
    return tuple(found)


def strata_of(cohort: Cohort, what: str, rows: np.ndarray) -> np.ndarray:
    """Returns the stratum of each row, `[m] int64` from 0; -1 where the value is not known.

    `"label"` is the joint pattern of all findings, as far as rows allow: the rows are parted by the finding that is nearest
    to a half, the parts by the next one, and so on; a part of fewer than 20 rows is not made, it stays with its largest
    sibling. So a frequent finding is the same for all rows of a stratum, and a rare one need not be. A label that is not
    known is a value of its own (a report that is silent about a finding resembles others that are); rows without any known
    label are left out.

    Args:
        cohort: all rows.
        what: one of `STRATA`.
        rows: `[m] int64`, row numbers, as of a readout.

    Raises:
        InputError: an unknown name, or a column that the cohort does not have.
    """
    if what == LABEL:
        return _label_patterns(cohort.labels[rows])
    if what not in STRATA or what not in cohort.table:
        raise unknown_name("stratum", what, [LABEL, *(name for name in STRATA[1:] if name in cohort.table)])
    return _codes(cohort.table[what].iloc[rows])


def _codes(values: pd.Series) -> np.ndarray:
    """Returns a number for each known value, in their order; -1 for blanks and "unknown"."""
    text = values.astype(str).where(values.notna(), UNKNOWN).str.strip()
    return pd.factorize(text.mask(text.isin(["", UNKNOWN])), sort=True)[0].astype(np.int64)


def _label_patterns(labels: np.ndarray) -> np.ndarray:
    is_known = ~np.isnan(labels).all(axis=1)
    level = np.where(np.isnan(labels), 2, labels).astype(np.int64)
    rarer = np.minimum((labels == 1).sum(axis=0), (labels == 0).sum(axis=0))
    parts = [np.flatnonzero(is_known)]
    for finding in np.argsort(-rarer, kind="stable"):
        parts = [part for whole in parts for part in _parted(whole, level[whole, finding])]
    strata = np.full(len(labels), -1, np.int64)
    for number, part in enumerate(parts):
        strata[part] = number
    return strata


def _parted(rows: np.ndarray, level: np.ndarray) -> list[np.ndarray]:
    """Parts rows by level; those of levels that fewer than `MIN_ROWS` have join the most frequent one."""
    counts = np.bincount(level, minlength=3)
    merged = np.where(counts[level] < MIN_ROWS, counts.argmax(), level)
    return [rows[merged == value] for value in np.unique(merged)]
