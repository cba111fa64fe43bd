"""What `platt` and `temperature` share: a straight line in the logit of the score."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy import special

from biascxr.mitigation.decision.base import Calibrator

NOT_CALIBRATED = "one class only where it is fitted: scores stay as they are"
DRAWN = "{:.0%} its own, the rest the fit for all"
# Scores of exactly 0 and 1 have no logit and are taken so far from them; float32 scores between keep their order.
SMALLEST_PROBABILITY = 1e-12


class LogitCalibrator(Calibrator):
    """Probability `sigmoid(slope logit(s) + intercept)`, slope at least 0.

    A group's own slope and intercept are drawn towards those of everyone, which draws the logits of its probabilities:
    `w own + (1 - w) all` with `w = n / (n + shrinkage)`, n the patients of its rarer class.
    """

    parameters: ClassVar[tuple[str, ...]] = ("slope", "intercept")

    @abstractmethod
    def fit_line(self, y_true: np.ndarray, logit: np.ndarray) -> tuple[float, float, str]:
        """Fits one finding.

        Args:
            y_true: `[n]` in {0, 1}, both of them there.
            logit: `[n] float64`, of the scores.

        Returns:
            Slope (at least 0), intercept and a note, empty as a rule.
        """

    def _fit_rows(self, y_true: np.ndarray, score: np.ndarray, support: int, overall: list[dict] | None) -> list[dict]:
        if overall is not None and (support == 0 or np.isnan(overall[0]["slope"])):
            return [overall[0] | {"note": DRAWN.format(0) if support == 0 else NOT_CALIBRATED}]
        if support == 0:
            return [{"slope": float("nan"), "intercept": float("nan"), "note": NOT_CALIBRATED}]
        known = ~np.isnan(y_true)
        slope, intercept, note = self.fit_line(y_true[known].astype(np.float64), to_logit(score[known]))
        if overall is not None:
            share = self._own_share(support)
            slope = share * slope + (1 - share) * overall[0]["slope"]
            intercept = share * intercept + (1 - share) * overall[0]["intercept"]
            note = "; ".join(n for n in (DRAWN.format(share), note) if n)
        return [{"slope": slope, "intercept": intercept, "note": note}]

    def _apply_rows(self, rows: pd.DataFrame, score: np.ndarray) -> np.ndarray:
        slope, intercept = rows["slope"].iloc[0], rows["intercept"].iloc[0]
        return score if np.isnan(slope) else special.expit(slope * to_logit(score) + intercept)


def to_logit(score: np.ndarray) -> np.ndarray:
    """Returns log(s / (1 - s)) in float64."""
    return special.logit(np.clip(np.asarray(score, np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))
