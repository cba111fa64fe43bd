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
from biascxr.errors import InputError, unknown_name
from biascxr.metrics import decide
from biascxr.metrics.thresholds import shrink_threshold
from biascxr.mitigation.base import Member, SplitData
from biascxr.mitigation.cells import Cells, chosen_attributes

ALL_GROUPS = "all"
ONE_CLASS = "one class only where it is fitted: no threshold, no decision"
TEXT_COLUMNS = ("label", "attribute", "group", "note")
FITTED_ON = ("calibration", "train")
NO_GROUPS = "no attribute has two known groups: one fit for all"


@dataclass(frozen=True)
class GroupSettings:
    """Settings of a method that is fitted for each group.

    Attributes:
        attributes: whose groups (of their crossing) get fits of their own; empty: race where the cohort has it, else its
            first attribute.
        shrinkage: patients of the group's rarer class (`group_fixed_fpr`: patients with a negative, on which it rests) at
            which its own fit and the one for all count alike; with fewer the fit for all counts more. 0 takes each group's
            own fit as it is. Patients, not rows: the images of one patient say much the same.
        fitted_on: `calibration`, or `train`, to reproduce FairREAD's code: a head is too sure of the films that it has learned
            from, so thresholds fitted there are off elsewhere.
    """

    attributes: tuple[str, ...] = ()
    shrinkage: float = 25.0
    fitted_on: str = "calibration"

    def __post_init__(self) -> None:
        if not 0 <= self.shrinkage < np.inf:
            raise InputError(f"shrinkage must be at least 0 and finite; got {self.shrinkage}.")
        if self.fitted_on not in FITTED_ON:
            raise unknown_name("split in fitted_on", self.fitted_on, FITTED_ON)


class DecisionMember(Member):
    """A method fitted on calibration scores, finding by finding, and put to any scores.

    What was fitted is `table`: one row (or more) per label and group, with columns `label, attribute, group, n_positive,
    note` and the method's own. The rows without an attribute serve everyone without a fit of their own: unknown groups and new
    ones. Their group is called `"all"`; a cohort's group of that name has an attribute, and is told apart by it.

    Attributes:
        is_per_group: whether groups get fits of their own; its outcome then depends on what was recorded about the patient.
    """

    is_per_group: ClassVar[bool] = False
    table: pd.DataFrame

    @property
    def fitted_on(self) -> str:
        """The split that it is to be fitted on."""
        return getattr(self.settings, "fitted_on", FITTED_ON[0])

    def fit(self, calibration: SplitData, scores: np.ndarray) -> DecisionMember:
        """Fits the method.

        Args:
            calibration: labels and attributes of the calibration split, or of the training split where `fitted_on` says so.
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
        patient = pd.factorize(calibration.patient_id)[0]
        rows = []
        for index, label in enumerate(calibration.label_names):
            fitted = self._fit_label(calibration.labels[:, index], scores[:, index], patient, cells, codes)
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

    @property
    def fitted_cells(self) -> Cells:
        """The groups that have a fit of their own; none, of no attribute, where everyone shares one."""
        own = self.table.loc[self.table["attribute"] != "", ["attribute", "group"]].drop_duplicates()
        return Cells.named(own["attribute"].iloc[0], tuple(own["group"])) if len(own) else Cells((), ())

    def _fit_label(
        self, y_true: np.ndarray, score: np.ndarray, patient: np.ndarray, cells: Cells, codes: np.ndarray
    ) -> list[dict]:
        """Returns one finding's rows of the table, without their label; those for all first.

        Args:
            y_true: `[n]` in {0, 1, NaN}.
            score: `[n]`.
            patient: `[n] int64`, whose row it is.
            cells: the groups.
            codes: `[n] int64`, each row's group in `cells`, -1 unknown.
        """
        overall = self._fit_rows(y_true, score, self._support(y_true, patient), None)
        rows = described(overall, "", ALL_GROUPS, y_true, NO_GROUPS if self.is_per_group and len(cells) == 0 else "")
        for code, group in enumerate(cells.names):
            own = codes == code
            fitted = self._fit_rows(y_true[own], score[own], self._support(y_true[own], patient[own]), overall)
            rows += described(fitted, cells.title, group, y_true[own])
        return rows

    def _support(self, y_true: np.ndarray, patient: np.ndarray) -> int:
        """Number of patients that a fit on these rows rests on: those of the rarer class."""
        return min(n_patients(patient[y_true == 1]), n_patients(patient[y_true == 0]))

    def _own_share(self, support: int) -> float:
        """Weight of a group's own fit against the one for all, `support / (support + shrinkage)`; 0 without support."""
        return support / (support + self.settings.shrinkage) if support else 0.0

    def _each_label(
        self, scores: np.ndarray, attributes: pd.DataFrame, label_names: tuple[str, ...], apply: Callable
    ) -> np.ndarray:
        """Puts `apply(numbers in rows of the table, score) -> [n]` to each finding, with a group's own rows if it has some.

        Returns:
            `[n, L] float64`.
        """
        cells = self.fitted_cells
        has_all = all(name in attributes for name in cells.attributes)  # another cohort may not have recorded one
        codes = cells.codes(attributes) if len(cells) and has_all else np.full(len(scores), -1)
        # Rows of one group side by side, findings one after another: slices, where picking rows would cost most of the time.
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes + 1, minlength=len(cells) + 1))
        whose = [("", ALL_GROUPS), *((cells.title, name) for name in cells.names)]
        fitted = self.table.groupby(["label", "attribute", "group"], sort=False).indices
        numbers = self.table[[c for c in self.table if c not in TEXT_COLUMNS]]
        by_finding = np.ascontiguousarray(scores[order].T)
        outcome = np.empty(by_finding.shape)
        for index, label in enumerate(label_names):
            for group, start, end in zip(whose, [0, *ends], ends, strict=False):
                if start < end:
                    outcome[index, start:end] = apply(numbers.iloc[fitted[label, *group]], by_finding[index, start:end])
        out = np.empty(scores.shape)
        out[order] = outcome.T
        return out

    @abstractmethod
    def _fit_rows(self, y_true: np.ndarray, score: np.ndarray, support: int, overall: list[dict] | None) -> list[dict]:
        """Fits one finding on the rows of one group.

        Args:
            y_true: `[n]` in {0, 1, NaN}.
            score: `[n]`.
            support: patients that the fit rests on.
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
        calibrated = self._each_label(scores, attributes, label_names, self._apply_rows)
        return np.clip(calibrated, 0.0, 1.0).astype(np.float32)

    @abstractmethod
    def _apply_rows(self, rows: pd.DataFrame, score: np.ndarray) -> np.ndarray:
        """Returns the probabilities `[n]` of scores `[n]`, from the table's numbers of one finding and group."""


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
        return self.flag_probability(scores, attributes, label_names).astype(np.float32)

    def flag_probability(self, scores: np.ndarray, attributes: pd.DataFrame, label_names: tuple[str, ...]) -> np.ndarray:
        """Returns how likely each row is flagged, `[n, L] float64`: 0, 1 or NaN, the decision itself, unless the rule draws.

        Arguments as in `decide`.
        """
        return self._each_label(scores, attributes, label_names, self._flag_rows)

    @abstractmethod
    def _flag_rows(self, rows: pd.DataFrame, score: np.ndarray) -> np.ndarray:
        """Returns the probabilities `[n]` of flagging scores `[n]`, from the table's numbers of one finding and group."""


class ThresholdRule(DecisionRule):
    """A rule of `metrics/thresholds.py`: a score at or above the threshold is flagged."""

    def threshold(self, y_true: np.ndarray, score: np.ndarray) -> float:
        """The rule: the threshold of these rows, NaN where it is not defined."""
        raise NotImplementedError

    def _fit_rows(self, y_true: np.ndarray, score: np.ndarray, support: int, overall: list[dict] | None) -> list[dict]:
        own = self.threshold(y_true, score)
        if overall is None:
            return [{"threshold": own, "note": ONE_CLASS if np.isnan(own) else ""}]
        everyone = overall[0]["threshold"]
        if np.isnan(everyone):  # undefined for a whole finding, or for none of its rows
            return [{"threshold": everyone, "note": ONE_CLASS}]
        drawn = shrink_threshold(own, everyone, support, self.settings.shrinkage)
        share = 0.0 if np.isnan(own) else self._own_share(support)
        return [{"threshold": drawn, "note": f"{share:.0%} its own, the rest the threshold for all"}]

    def _flag_rows(self, rows: pd.DataFrame, score: np.ndarray) -> np.ndarray:
        return decide(score, rows["threshold"].iloc[0])


def described(fitted: list[dict], attribute: str, group: str, y_true: np.ndarray, note: str = "") -> list[dict]:
    """Returns rows of the table: whose they are, how many positives stand behind them, then the method's own columns."""
    whose = {"attribute": attribute, "group": group, "n_positive": int((y_true == 1).sum())}
    return [whose | row | {"note": "; ".join(n for n in (row.get("note", ""), note) if n)} for row in fitted]


def n_patients(patient: np.ndarray) -> int:
    """Number of different patients among the codes `[n] int64` of their rows."""
    return len(np.unique(patient))
