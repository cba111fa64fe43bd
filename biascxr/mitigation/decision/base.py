"""Decision slot: how a score becomes a probability and a yes or no. Fitted on the calibration split."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.containers import EXACT_DIGITS
from biascxr.errors import InputError
from biascxr.metrics import decide
from biascxr.metrics.thresholds import shrink_threshold
from biascxr.mitigation.base import Member, SplitData
from biascxr.mitigation.cells import CROSSED, Cells, chosen_attributes

ALL_GROUPS = "all"
ONE_CLASS = "one class only in calibration: no threshold, no decision"
TEXT_COLUMNS = ("label", "attribute", "group", "note")
NO_GROUPS = "no attribute has two known groups: one fit for all"


@dataclass(frozen=True)
class GroupSettings:
    """Settings of a method that is fitted for each group.

    Attributes:
        attributes: whose groups (of their crossing) get fits of their own; empty: race where the cohort has it, else its
            first attribute.
        shrinkage: rows of the rarer class at which a group's own fit and the one for all count alike; with fewer the fit for
            all counts more. 0 takes each group's own fit as it is.
    """

    attributes: tuple[str, ...] = ()
    shrinkage: float = 25.0

    def __post_init__(self) -> None:
        if not self.shrinkage >= 0:
            raise InputError(f"shrinkage must be at least 0; got {self.shrinkage}.")


class DecisionMember(Member):
    """A method fitted on calibration scores, finding by finding, and put to any scores.

    What was fitted is `table`: one row (or more) per label and group, with columns `label, attribute, group, n_positive,
    note` and the method's own. Group `"all"` serves everyone without a fit of their own: unknown groups and new ones.

    Attributes:
        is_per_group: whether groups get fits of their own; its outcome then depends on what was recorded about the patient.
    """

    is_per_group: ClassVar[bool] = False
    table: pd.DataFrame

    def fit(self, calibration: SplitData, scores: np.ndarray) -> DecisionMember:
        """Fits the method.

        Args:
            calibration: labels and attributes of the calibration split.
            scores: `[n, L]` probabilities of those rows.

        Returns:
            Itself.

        Raises:
            ValueError: handed the test split, or scores of another shape.
        """
        calibration.refuse_test(self.name)
        if scores.shape != calibration.labels.shape:
            raise ValueError(f"{self.name} needs scores {calibration.labels.shape}; got {scores.shape}.")
        cells = self._cells(calibration.attributes)
        codes = cells.codes(calibration.attributes)
        rows = []
        for index, label in enumerate(calibration.label_names):
            fitted = self._fit_label(calibration.labels[:, index], scores[:, index], cells, codes)
            rows += [{"label": label, **row} for row in fitted]
        self.table = pd.DataFrame(rows)
        return self

    def save(self, path: Path) -> None:
        """Writes the table as CSV, every digit kept."""
        self.table.to_csv(path, index=False)

    def load(self, path: Path) -> DecisionMember:
        """Reads what `save` wrote; returns itself."""
        numbers = [c for c in pd.read_csv(path, nrows=0) if c not in TEXT_COLUMNS]
        blank = {c: [""] for c in numbers}  # a group may be called NA; only a blank number is undefined
        text = dict.fromkeys(TEXT_COLUMNS, str)
        self.table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=blank, **EXACT_DIGITS)
        return self

    def _cells(self, attributes: pd.DataFrame) -> Cells:
        if not self.is_per_group:
            return Cells((), ())
        return Cells.of(attributes, chosen_attributes(self.name, self.settings.attributes, list(attributes)))

    def _fit_label(self, y_true: np.ndarray, score: np.ndarray, cells: Cells, codes: np.ndarray) -> list[dict]:
        """Returns one finding's rows of the table, without their label; those of group `"all"` first."""
        overall = self._fit_rows(y_true, score, None)
        note = NO_GROUPS if self.is_per_group and len(cells) == 0 else ""
        rows = [described(row, "", ALL_GROUPS, y_true, note) for row in overall]
        for code, group in enumerate(cells.names):
            own = codes == code
            fitted = self._fit_rows(y_true[own], score[own], overall)
            rows += [described(row, cells.title, group, y_true[own]) for row in fitted]
        return rows

    def _each_label(
        self, scores: np.ndarray, attributes: pd.DataFrame, label_names: tuple[str, ...], apply: Callable
    ) -> np.ndarray:
        """Puts `apply(rows of the table, score) -> [n]` to each finding, a group's own rows where it has some."""
        out = np.empty(scores.shape, np.float32)
        groups = self.table.loc[self.table["group"] != ALL_GROUPS, ["attribute", "group"]].drop_duplicates()
        cells = Cells(tuple(groups["attribute"].iloc[0].split(CROSSED)), tuple(groups["group"])) if len(groups) else None
        codes = np.full(len(scores), -1) if cells is None else cells.codes(attributes)
        for index, label in enumerate(label_names):
            table = self.table[self.table["label"] == label]
            out[:, index] = apply(table[table["group"] == ALL_GROUPS], scores[:, index])
            for code, group in enumerate(groups["group"]):
                own = codes == code
                if own.any():
                    out[own, index] = apply(table[table["group"] == group], scores[own, index])
        return out

    @abstractmethod
    def _fit_rows(self, y_true: np.ndarray, score: np.ndarray, overall: list[dict] | None) -> list[dict]:
        """Fits one finding on the rows of one group.

        Args:
            y_true: `[n]` in {0, 1, NaN}.
            score: `[n]`.
            overall: what was fitted on everyone, to draw a group's own fit towards; None: these are everyone.

        Returns:
            The method's own columns (and optionally `note`), one dict per row of the table.
        """


class Calibrator(DecisionMember):
    """Turns scores into probabilities that mean what they say."""

    def calibrate(self, scores: np.ndarray, attributes: pd.DataFrame, label_names: tuple[str, ...]) -> np.ndarray:
        """Returns calibrated probabilities.

        Args:
            scores: `[n, L]`.
            attributes: `[n]` rows; a group without a fit of its own, unknown included, gets the one for all.
            label_names: the L findings.

        Returns:
            `[n, L] float32` in [0, 1]; a finding that could not be calibrated keeps its scores.
        """
        return np.clip(self._each_label(scores, attributes, label_names, self._apply_rows), 0.0, 1.0)

    @abstractmethod
    def _apply_rows(self, rows: pd.DataFrame, score: np.ndarray) -> np.ndarray:
        """Returns the probabilities `[n]` of scores `[n]`, from the rows of the table of one finding and group."""


class DecisionRule(DecisionMember):
    """Turns scores into decisions."""

    def decide(self, scores: np.ndarray, attributes: pd.DataFrame, label_names: tuple[str, ...]) -> np.ndarray:
        """Turns scores into decisions.

        Args:
            scores: `[n, L]`.
            attributes: `[n]` rows; a group without a threshold of its own, unknown included, gets the one for all.
            label_names: the L findings.

        Returns:
            `[n, L] float32` in {0, 1}, NaN where no threshold could be fitted.
        """
        return self._each_label(scores, attributes, label_names, self._decide_rows)

    @abstractmethod
    def _decide_rows(self, rows: pd.DataFrame, score: np.ndarray) -> np.ndarray:
        """Returns the decisions `[n]` on scores `[n]`, from the rows of the table of one finding and group."""


class ThresholdRule(DecisionRule):
    """A rule of `metrics/thresholds.py`: a score at or above the threshold is flagged."""

    def threshold(self, y_true: np.ndarray, score: np.ndarray) -> float:
        """The rule: the threshold of these rows, NaN where it is not defined."""
        raise NotImplementedError

    def _fit_rows(self, y_true: np.ndarray, score: np.ndarray, overall: list[dict] | None) -> list[dict]:
        own = self.threshold(y_true, score)
        if overall is None:
            return [{"threshold": own, "note": ONE_CLASS if np.isnan(own) else ""}]
        everyone, n = overall[0]["threshold"], rarer_class(y_true)
        if np.isnan(everyone):  # undefined for a whole finding, or for none of its rows
            return [{"threshold": everyone, "note": ONE_CLASS}]
        drawn = shrink_threshold(own, everyone, n, self.settings.shrinkage)
        share = 0.0 if np.isnan(own) or n == 0 else n / (n + self.settings.shrinkage)
        return [{"threshold": drawn, "note": f"{share:.0%} its own, the rest the threshold for all"}]

    def _decide_rows(self, rows: pd.DataFrame, score: np.ndarray) -> np.ndarray:
        return decide(score, rows["threshold"].iloc[0])


def described(row: dict, attribute: str, group: str, y_true: np.ndarray, note: str = "") -> dict:
    """Returns a row of the table: whose it is, how many positives stand behind it, then the method's own columns."""
    own = {name: value for name, value in row.items() if name != "note"}
    notes = "; ".join(n for n in (row.get("note", ""), note) if n)
    n_positive = int((y_true == 1).sum())
    return {"attribute": attribute, "group": group, "n_positive": n_positive, **own, "note": notes}


def rarer_class(y_true: np.ndarray) -> int:
    """Number of positives or of negatives, whichever is smaller."""
    return int(min((y_true == 1).sum(), (y_true == 0).sum()))
