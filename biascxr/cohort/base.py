"""The contract of a dataset layout: official files in, one common form out."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.cohort.tables import find_files, read_header, read_table
from biascxr.config import CohortConfig
from biascxr.containers import UNKNOWN
from biascxr.errors import InputError
from biascxr.run_folder import file_digest

# Texts that say "not recorded" in the official tables (MIMIC-IV, CheXpert), upper case, and the reason they give.
NOT_RECORDED = {
    **dict.fromkeys(("", "NAN", "NA", "N/A", "NONE", "?"), "blank"),
    **dict.fromkeys(("UNKNOWN", "RACE AND ETHNICITY UNKNOWN", "NOT SPECIFIED"), "recorded as unknown"),
    "UNABLE TO OBTAIN": "unable to obtain",
    **dict.fromkeys(("PATIENT DECLINED TO ANSWER", "PATIENT REFUSED", "DECLINED"), "declined to answer"),
}


@dataclass(frozen=True)
class Source:
    """What a layout reads from.

    Attributes:
        main: the data set's main table, as `Layout.locate` found it.
        images_root: folder of the images that the user named, or None.
        config: label, conflict and image policies.
    """

    main: Path
    images_root: Path | None
    config: CohortConfig

    def companion(self, what: str, *patterns: str) -> Path | None:
        """Finds a further file: among `--companions` (files, or folders to look into), else near the main table.

        Args:
            what: what it is, for messages.
            patterns: names it may have, with `*`; matched without regard to case.

        Raises:
            InputError: several files fit.
        """
        for places in (self.config.companions, [self.main.parent]):
            found = list({file.resolve(): file for file in find_files(places, patterns)}.values())
            if len(found) > 1:
                raise InputError(
                    f"Several files could be {what}: {', '.join(map(str, found[:4]))}. Name the one to use: --companions FILE."
                )
            if found:
                return found[0]
        return None


@dataclass(frozen=True)
class ParsedTable:
    """A data set in the common form, before labels are cleaned and rows selected.

    Attributes:
        table: `image_id, study_id, patient_id, path, view` as text, `age` in years as recorded (NaN where unknown; impossible
            ages are still there), the layout's attributes (`"unknown"` where not recorded), and `split` (`""` where not
            said) where the data set brings one.
        labels: one column per finding, float in {1, 0, -1, NaN}, as recorded.
        images_root: folder that relative paths start from.
        reference_labels: columns among those of `labels`, float in {1, 0, NaN}: the truth where it is known.
        conflicting: per constant attribute, the patients recorded with several values. The table holds what
            `conflict_policy` makes of them (`"unknown"` where it is `drop`: the cohort stage leaves these patients out).
        unknown: per attribute, why patients have no value: reason -> number of patients.
        excluded: rows that the layout itself left out, by reason.
        notes: what the layout had to repair, in words, with counts, and the rules it went by.
    """

    table: pd.DataFrame
    labels: pd.DataFrame
    images_root: Path
    reference_labels: pd.DataFrame | None = None
    conflicting: dict[str, frozenset[str]] = field(default_factory=dict)
    unknown: dict[str, dict[str, int]] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Layout(ABC):
    """A known data set, or form of table.

    Attributes:
        name: key in `biascxr.cohort.LAYOUTS`.
        required: columns of the main table; it is recognised by them.
        main_files: names that the main table has after download, with `*`; for a folder given in place of a file.
        other_files: names of further official files; given one of them, the main table is looked for beside it.
        label_names: the findings of the data set, in its own order.
        attributes: what patients can be grouped by, and whether it is constant for a patient. `age_group` is cut by the cohort
            stage.
        zero_where_blank: findings whose blanks mean 0 under every blank policy.
        card: source, access terms, columns, label policy, views, coding of attributes, known biases, citation.
    """

    name: ClassVar[str]
    required: ClassVar[tuple[str, ...]]
    main_files: ClassVar[tuple[str, ...]] = ()
    other_files: ClassVar[tuple[str, ...]] = ()
    label_names: ClassVar[tuple[str, ...]]
    attributes: ClassVar[dict[str, bool]]
    zero_where_blank: ClassVar[tuple[str, ...]] = ("No Finding",)
    card: ClassVar[str]

    def locate(self, path: Path, config: CohortConfig) -> Path | None:
        """Returns the main table for what the user named (a table, a folder, or a file beside the table), or None.

        Args:
            path: what the user named; it exists.
            config: the run's cohort settings, for a layout whose columns are the user's choice.

        Raises:
            InputError: several tables in a folder fit.
        """
        if path.is_file():
            if self.matches(read_header(path)):
                return path
            if not any(_fits(path.name, pattern) for pattern in self.other_files):
                return None
            path = path.parent
        found = [f for f in find_files([path], self.main_files) if self.matches(read_header(f))]
        if len(found) > 1:
            raise InputError(
                f"{path} holds several tables of layout {self.name!r}: {', '.join(map(str, found[:4]))}. Name one."
            )
        return found[0] if found else None

    def matches(self, columns: Iterable[str]) -> bool:
        """Returns whether a table with this header is of this form."""
        return set(self.required) <= set(columns)

    def files(self, source: Source) -> list[Path]:
        """Returns the tables that `parse` reads; they are part of the cohort's fingerprint."""
        return [source.main]

    def fingerprint(self, source: Source) -> dict:
        """Returns what the cohort depends on beside its settings: digests of tables, and what is looked at on disk."""
        return {f"{index} {file.name}": file_digest(file) for index, file in enumerate(self.files(source))}

    def parse(self, source: Source) -> ParsedTable:
        """Brings the data set's tables into the common form.

        Raises:
            InputError: columns are missing (they are named, with those found), or a cell cannot be read.
        """
        frame = read_table(source.main)
        require_columns(frame, self.required, f"Layout {self.name!r}", source.main)
        return self._parse(frame, source)

    @abstractmethod
    def _parse(self, frame: pd.DataFrame, source: Source) -> ParsedTable:
        """The layout's own reading.

        Args:
            frame: the main table, all cells as text, `""` where blank; required columns are there.
            source: where the further tables and the images are, and the policies.
        """


def _fits(name: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name, re.IGNORECASE) is not None


def require_columns(frame: pd.DataFrame, required: Iterable[str], who: str, path: Path) -> None:
    """Raises InputError naming the columns that a table lacks, with those found."""
    required = list(required)
    missing = [c for c in required if c not in frame]
    if missing:
        raise InputError(
            f"{who} needs the columns {', '.join(required)} in {path.name}; missing: {', '.join(missing)}. "
            f"Found: {', '.join(map(str, frame.columns))}."
        )


def read_groups(text: pd.Series) -> pd.Series:
    """Returns recorded values with surrounding blanks removed and every "not recorded" text as `"unknown"`."""
    text = text.str.strip()
    return text.mask(text.str.upper().isin(NOT_RECORDED), UNKNOWN)


def why_not_recorded(text: pd.Series) -> pd.Series:
    """Returns the reason that each text gives for saying nothing; `"another value"` where it is none of `NOT_RECORDED`."""
    return text.str.strip().str.upper().map(NOT_RECORDED).fillna("another value")


def patients_by_reason(patient_id: pd.Series, why: pd.Series) -> dict[str, int]:
    """Counts patients by the reason of their rows, the most frequent first; `""` is a row whose value is known."""
    is_unknown = why != ""
    counts = patient_id[is_unknown].groupby(why[is_unknown]).nunique().sort_values(ascending=False, kind="stable")
    return {str(reason): int(n) for reason, n in counts.items()}


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
