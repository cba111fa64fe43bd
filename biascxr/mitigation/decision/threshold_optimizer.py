"""What `equalized_odds` and `demographic_parity` share: fairlearn's ThresholdOptimizer, kept as numbers in the table."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from biascxr.errors import InputError
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.decision.base import ALL_GROUPS, NO_GROUPS, ONE_CLASS, DecisionRule, described
from biascxr.mitigation.decision.logit_calibrator import to_logit

OBJECTIVES = ("balanced_accuracy_score", "accuracy_score")
COLUMNS = ("p0", "threshold0", "p1", "threshold1", "p_ignore", "constant")
DEGENERATE = "one class only in this group: the solution for all"
ONE_GROUP = "no second group has both classes, so there is nothing to make equal: the solution for all"
# A logit's last digits, which differ between batches and machines by some 1e-6, move a draw by a few thousandths; scores
# that differ by more than a thousandth of a logit are drawn for as good as independently.
CYCLES_PER_LOGIT = 1024


@dataclass(frozen=True)
class ThresholdOptimizerSettings:
    """Settings of `equalized_odds` and `demographic_parity`.

    Attributes:
        attributes: whose groups (of their crossing) are made equal; empty: race where the cohort has it, else its first
            attribute.
        objective: what is as high as the constraint allows, `balanced_accuracy_score` or `accuracy_score`. fairlearn's default
            is the second, which flags hardly anyone where a finding is rare.
        grid_size: values of the constrained rate that are tried, as fractions of 1; fairlearn's default.
        seed: of the draws; another seed flags other rows at the same rates.
    """

    attributes: tuple[str, ...] = ()
    objective: str = OBJECTIVES[0]
    grid_size: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective must be one of {', '.join(OBJECTIVES)}; got {self.objective!r}.")
        if self.grid_size < 1:
            raise InputError(f"grid_size must be at least 1; got {self.grid_size}.")


class ThresholdOptimizerRule(DecisionRule):
    """Two thresholds per group, mixed at random so that a rate is exactly equal over groups on the fitting rows.

    A score s is flagged with probability `p_ignore c + (1 - p_ignore) (p0 [s > t0] + p1 [s > t1])`, Hardt, Price and Srebro
    (NeurIPS 2016, section 4.2), fitted by fairlearn's ThresholdOptimizer (`prefit`, no flipping). The six numbers are columns
    of the table, so that a saved rule needs no fairlearn; a row is flagged where its draw u in [0, 1) lies below that
    probability.

    The draw depends on the row alone: `u = frac(o + 1024 sum_k a_k logit(s_k))` over the scores s_k of all findings, with o in
    [0, 1) and a_k in [1, 2) taken from a hash of seed and finding. So a row gets the same decision again, alone or among
    others, and so do two copies of an image. The scores of all findings enter, since those of one may be tied (isotonic
    calibration ties them in blocks); rows that are tied in all findings share their decisions. The recorded group does not
    enter: a row that is flagged with probability .2 in one group and .3 in another is flagged in both, in the second only, or
    in neither. The formula stands in for a hash of the scores' bytes because their last digit depends on the batch they were
    computed in: it moves a draw a little, where a hash would draw anew.

    No shrinkage: a group's own point drawn towards everyone's would no longer meet the constraint. A group with one class
    only, unknown groups and new ones get the solution of everyone as one group, and stand outside of the constraint.
    """

    Settings: ClassVar[type] = ThresholdOptimizerSettings
    is_per_group: ClassVar[bool] = True
    constraints: ClassVar[str]

    def decide(self, scores: np.ndarray, attributes: pd.DataFrame, label_names: tuple[str, ...]) -> np.ndarray:
        """Turns scores into decisions `[n, L] float32`; arguments as in `DecisionRule.decide`, scores of all findings."""
        probability = self.flag_probability(scores, attributes, label_names)
        flagged = row_draws(scores, label_names, seed=self.settings.seed) < probability
        return np.where(np.isnan(probability), np.nan, flagged).astype(np.float32)

    def _fit_label(
        self, y_true: np.ndarray, score: np.ndarray, patient: np.ndarray, cells: Cells, codes: np.ndarray
    ) -> list[dict]:
        # Everyone is one group first, then those groups together that have both classes.
        overall = self._fit_rows(y_true, score, 0, None)
        rows = described(overall, "", ALL_GROUPS, y_true, "" if len(cells) else NO_GROUPS)
        undefined = overall[0]["note"] == ONE_CLASS
        usable = [] if undefined else [code for code in range(len(cells)) if has_both_classes(y_true[codes == code])]
        own = self._solve(y_true, score, codes, usable) if len(usable) > 1 else {}
        for code, group in enumerate(cells.names):
            note = ONE_CLASS if undefined else ONE_GROUP if code in usable else DEGENERATE
            solution = own.get(code, overall[0] | {"note": note})
            rows += described([solution], cells.title, group, y_true[codes == code])
        return rows

    def _fit_rows(self, y_true: np.ndarray, score: np.ndarray, support: int, overall: list[dict] | None) -> list[dict]:
        if not has_both_classes(y_true):
            return [dict.fromkeys(COLUMNS, float("nan")) | {"note": ONE_CLASS}]
        return [self._solve(y_true, score, np.zeros(len(y_true), np.int64), [0])[0] | {"note": ""}]

    def _solve(self, y_true: np.ndarray, score: np.ndarray, codes: np.ndarray, groups: list[int]) -> dict[int, dict]:
        """Returns fairlearn's solution on the rows of these groups: per group its columns of the table."""
        from fairlearn.postprocessing import ThresholdOptimizer

        counts = ~np.isnan(y_true) & np.isin(codes, groups)
        optimizer = ThresholdOptimizer(
            estimator=ScoreEstimator(),
            constraints=self.constraints,
            objective=self.settings.objective,
            grid_size=self.settings.grid_size,
            prefit=True,
            predict_method="predict_proba",
        )
        optimizer.fit(score[counts, None].astype(np.float64), y_true[counts].astype(int), sensitive_features=codes[counts])
        fitted = optimizer.interpolated_thresholder_.interpolation_dict
        return {code: as_columns(fitted[code]) for code in groups}

    def _flag_rows(self, rows: pd.DataFrame, score: np.ndarray) -> np.ndarray:
        at = rows.iloc[0]
        mixed = at["p0"] * (score > at["threshold0"]) + at["p1"] * (score > at["threshold1"])
        return at["p_ignore"] * at["constant"] + (1 - at["p_ignore"]) * mixed


class ScoreEstimator(BaseEstimator):
    """A fitted classifier whose one input is already the probability."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> ScoreEstimator:
        """Does nothing; scikit-learn asks an estimator to have it."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Returns `[n, 2]`: 1 - score, score."""
        return np.column_stack([1 - X[:, 0], X[:, 0]])


def as_columns(interpolation: dict) -> dict[str, float]:
    """Returns the columns of the table from an entry of fairlearn's `interpolation_dict`."""
    operations = [interpolation["operation0"], interpolation["operation1"]]
    if any(operation.operator != ">" for operation in operations):
        raise ValueError(f"A solution without flipping flags what lies above its thresholds; fairlearn gave {operations}.")
    numbers = (
        interpolation["p0"],
        operations[0].threshold,
        interpolation["p1"],
        operations[1].threshold,
        interpolation.get("p_ignore", 0.0),  # demographic parity ignores no score
        interpolation.get("prediction_constant", 0.0),
    )
    return dict(zip(COLUMNS, map(float, numbers), strict=True))


def row_draws(scores: np.ndarray, label_names: tuple[str, ...], *, seed: int) -> np.ndarray:
    """Returns numbers `[n, L] float64` in [0, 1), uniform over rows, each from its row's scores `[n, L]` alone.

    The formula stands in `ThresholdOptimizerRule`.
    """
    logits = to_logit(scores)
    draws = np.empty(logits.shape)
    for index, label in enumerate(label_names):
        phase = np.full(len(logits), hashed(f"{seed}/{label}"))
        # Column by column: a matrix product adds in an order that depends on the number of rows.
        for column, other in enumerate(label_names):
            phase += CYCLES_PER_LOGIT * (1 + hashed(f"{seed}/{label}/{other}")) * logits[:, column]
        draws[:, index] = phase % 1.0
    return draws


def hashed(text: str) -> float:
    """Returns a number in [0, 1) that is the text's for ever, on every machine and version."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:6], "big") / 2**48


def has_both_classes(y_true: np.ndarray) -> bool:
    """Whether there are positives and negatives among `[n]` in {0, 1, NaN}."""
    return bool((y_true == 1).any() and (y_true == 0).any())
