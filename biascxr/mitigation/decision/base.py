"""Decision slot: how a score becomes a probability and a yes or no. Fitted on the calibration split."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.errors import InputError
from biascxr.metrics import decide
from biascxr.mitigation.base import Member, SplitData

ALL_GROUPS = "all"


@dataclass(frozen=True)
class Thresholds:
    """Fitted thresholds, one row per label and group.

    Attributes:
        table: columns `label, attribute, group, threshold, n_positive, note`; group `"all"` serves everyone without a
            threshold of their own. NaN where none could be fitted.
    """

    table: pd.DataFrame


class DecisionRule(Member):
    """A rule fitted on calibration scores and applied to any scores."""

    def fit(self, calibration: SplitData, scores: np.ndarray) -> DecisionRule:
        """Fits the rule.

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
        rows = []
        for index, label in enumerate(calibration.label_names):
            rows += [{"label": label, **row} for row in self._fit_label(calibration, index, scores[:, index])]
        self.thresholds = Thresholds(pd.DataFrame(rows))
        return self

    def decide(self, scores: np.ndarray, attributes: pd.DataFrame, label_names: tuple[str, ...]) -> np.ndarray:
        """Turns scores into decisions.

        Args:
            scores: `[n, L]`.
            attributes: `[n]` rows; a group without a threshold of its own, unknown included, gets the one for all.
            label_names: the L findings.

        Returns:
            `[n, L] float32` in {0, 1}, NaN where no threshold could be fitted.
        """
        decisions = np.empty(scores.shape, np.float32)
        for index, label in enumerate(label_names):
            table = self.thresholds.table[self.thresholds.table["label"] == label]
            threshold = np.full(len(scores), table.loc[table["group"] == ALL_GROUPS, "threshold"].iloc[0])
            own = table[table["group"] != ALL_GROUPS]
            for row in own.itertuples():
                threshold[(attributes[row.attribute] == row.group).to_numpy()] = row.threshold
            decisions[:, index] = decide(scores[:, index], threshold)
        return decisions

    @abstractmethod
    def _fit_label(self, calibration: SplitData, index: int, score: np.ndarray) -> list[dict]:
        """Returns the rows `attribute, group, threshold, n_positive, note` of one label; one has group `"all"`."""


def row_for_all(threshold: float, y_true: np.ndarray, note: str = "") -> dict:
    """Returns the row that serves everyone."""
    if np.isnan(threshold):
        note = "one class only in calibration: no threshold, no decision"
    return {
        "attribute": "",
        "group": ALL_GROUPS,
        "threshold": threshold,
        "n_positive": int((y_true == 1).sum()),
        "note": note,
    }


def check_share(name: str, value: float) -> None:
    """Raises InputError unless a setting lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise InputError(f"{name} must lie in [0, 1]; got {value}.")
