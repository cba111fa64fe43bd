"""The contract of a dataset layout: official table in, one common form out."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN
from biascxr.errors import InputError

# (name, constant for a patient): what a cohort can be grouped by. An age group is cut from `age` by the cohort stage.
ATTRIBUTES = {"sex": True, "race": True, "age_group": False, "insurance": False}

# Texts that say "not recorded" in the official tables (MIMIC-IV, CheXpert), upper case.
NOT_RECORDED = frozenset(
    (
        "",
        "NAN",
        "NA",
        "N/A",
        "NONE",
        "UNKNOWN",
        "UNABLE TO OBTAIN",
        "PATIENT DECLINED TO ANSWER",
        "PATIENT REFUSED",
        "?",
    )
)


@dataclass(frozen=True)
class ParsedTable:
    """A table in the common form, before labels are cleaned and rows selected.

    Attributes:
        table: `image_id, study_id, patient_id, path, view` as text, `age` in years (NaN where unknown), the recorded
            attributes the layout has (`sex`, `race`, `insurance`; `"unknown"` where not recorded), and `split` where the
            table brings one.
        labels: one column per finding, float in {1, 0, -1, NaN}, as recorded.
        notes: what the layout had to repair or leave out, in words, with counts.
    """

    table: pd.DataFrame
    labels: pd.DataFrame
    notes: tuple[str, ...] = field(default=())


class Layout(ABC):
    """A known form of table.

    Attributes:
        name: key in `biascxr.cohort.LAYOUTS`.
        required: columns without which the table cannot be of this form; the header is recognised by them.
        label_names: the findings of the data set, in its own order.
        card: source, access terms, label policy, coding of attributes, known biases, citation.
    """

    name: ClassVar[str]
    required: ClassVar[tuple[str, ...]]
    label_names: ClassVar[tuple[str, ...]]
    card: ClassVar[str]

    def matches(self, columns: Iterable[str]) -> bool:
        """Returns whether a table with this header is of this form."""
        return set(self.required) <= set(columns)

    def parse(self, frame: pd.DataFrame, images_root: Path) -> ParsedTable:
        """Brings a table read as text into the common form.

        Args:
            frame: all cells as text, `""` where blank.
            images_root: folder that relative paths start from.

        Raises:
            InputError: columns are missing (they are named, with those found), or a cell cannot be read.
        """
        missing = [c for c in self.required if c not in frame]
        if missing:
            raise InputError(
                f"Layout {self.name!r} needs the columns {', '.join(self.required)}; missing: {', '.join(missing)}. "
                f"Found: {', '.join(map(str, frame.columns))}."
            )
        return self._parse(frame, images_root)

    @abstractmethod
    def _parse(self, frame: pd.DataFrame, images_root: Path) -> ParsedTable:
        """The layout's own reading; required columns are there."""


def read_groups(text: pd.Series) -> pd.Series:
    """Returns recorded values with surrounding blanks removed and every "not recorded" text as `"unknown"`."""
    text = text.str.strip()
    return text.mask(text.str.upper().isin(NOT_RECORDED), UNKNOWN)


def read_sex(text: pd.Series) -> pd.Series:
    """Returns recorded sex as `"M"`, `"F"` or `"unknown"`."""
    first = text.str.strip().str.upper().map({"M": "M", "MALE": "M", "F": "F", "FEMALE": "F"})
    return first.fillna(UNKNOWN)


def read_labels(frame: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Reads label columns: 1, 0, -1 (uncertain), blank.

    Raises:
        InputError: another value; it is named with its column and how often it occurs.
    """
    labels = {}
    for name in names:
        text = frame[name].str.strip()
        values = pd.to_numeric(text.mask(text == ""), errors="coerce")
        wrong = (text != "") & ~values.isin((1.0, 0.0, -1.0))
        if wrong.any():
            raise InputError(
                f"Label column {name!r} holds {text[wrong].iloc[0]!r} ({int(wrong.sum())} such cells); "
                "expected 1, 0, -1 (uncertain) or blank."
            )
        labels[name] = values.to_numpy(np.float64)
    return pd.DataFrame(labels, index=frame.index)


def normalise_column(name: str) -> str:
    """Returns a column name as compared between tables: lower case, letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
