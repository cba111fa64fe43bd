"""`isotonic`, `group_isotonic`: the non-decreasing function that is nearest to the labels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.mitigation.decision.base import Calibrator, GroupSettings
from biascxr.mitigation.decision.logit_calibrator import DRAWN, NOT_CALIBRATED


class Isotonic(Calibrator):
    """Isotonic regression, one function for everyone: non-decreasing, least squares, by scikit-learn.

    Zadrozny and Elkan (KDD 2002). The table holds its knots, several rows per finding: scores and their probabilities, with
    straight lines between them, and the first and the last one's probability outside.

    When it helps: the reliability curve has a shape that no line in logits has, and there are many positives. When it harms:
    under a thousand rows or so it overfits where `platt` does not (Niculescu-Mizil and Caruana, ICML 2005); it ties scores in
    blocks, so that AUROC may change a little, and gives 0 and 1 exactly at the ends.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    prevalence (-0.51), acquisition (-2.75) and selection (-0.63); unclear under presentation and annotation; costs 0.012 of its
    loss where there is no bias.
    """

    name: ClassVar[str] = "isotonic"

    def _fit_rows(self, y_true: np.ndarray, score: np.ndarray, support: int, overall: list[dict] | None) -> list[dict]:
        if overall is not None and (support == 0 or np.isnan(overall[0]["score"])):
            note = DRAWN.format(0) if support == 0 else NOT_CALIBRATED
            return [row | {"note": note} for row in overall]
        if support == 0:
            return [{"score": float("nan"), "probability": float("nan"), "note": NOT_CALIBRATED}]
        known = ~np.isnan(y_true)
        knots, values = fit_isotonic(y_true[known], score[known])
        note = ""
        if overall is not None:
            share = self._own_share(support)
            note = DRAWN.format(share)
            # Probabilities, not logits, are averaged: those of 0 and 1 are infinite. Two functions of straight pieces add up to
            # one whose knots are theirs together.
            all_knots, all_values = (np.array([row[name] for row in overall]) for name in ("score", "probability"))
            both = np.union1d(knots, all_knots) if share < 1 else knots
            values = share * np.interp(both, knots, values) + (1 - share) * np.interp(both, all_knots, all_values)
            knots = both
        return [{"score": float(s), "probability": float(p), "note": note} for s, p in zip(knots, values, strict=True)]

    def _apply_rows(self, rows: pd.DataFrame, score: np.ndarray) -> np.ndarray:
        knots = rows["score"].to_numpy(np.float64)
        return score if np.isnan(knots[0]) else np.interp(score, knots, rows["probability"].to_numpy(np.float64))


class GroupIsotonic(Isotonic):
    """Isotonic regression for each group, drawn towards everyone's where patients are few.

    When it helps: as `group_platt`, with many positives in every group. When it harms: as `isotonic`, with only a group's own
    rows to learn from.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    prevalence (-0.62), presentation (-0.47), annotation (-0.31), acquisition (-2.91) and selection (-0.65); costs 0.012 of its
    loss where there is no bias.
    """

    name: ClassVar[str] = "group_isotonic"
    Settings: ClassVar[type] = GroupSettings
    is_per_group: ClassVar[bool] = True


def fit_isotonic(y_true: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns knots `[k]`, rising, and their probabilities `[k]`, float64, of labels `[n]` in {0, 1} and scores `[n]`."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score.astype(np.float64), y_true.astype(np.float64))
    return fitted.X_thresholds_, fitted.y_thresholds_
