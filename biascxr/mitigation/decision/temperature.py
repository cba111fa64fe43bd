"""`temperature`, `group_temperature`: logits divided by one number."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import optimize, special

from biascxr.mitigation.decision.base import GroupSettings
from biascxr.mitigation.decision.logit_calibrator import LogitCalibrator

COLDEST, HOTTEST = 0.01, 100.0
AT_THE_END = f"no temperature between {COLDEST:g} and {HOTTEST:g} is best: the nearest of them"


class Temperature(LogitCalibrator):
    """Temperature scaling, `sigmoid(logit(s) / T)` with one T per finding: least negative log-likelihood.

    Guo et al. (ICML 2017, section 4.2). Differs: findings are not exclusive, so each has a temperature of its own in place of
    one for a softmax. The table holds `slope` = 1 / T, in which the loss is convex, and `intercept` = 0; T lies in [0.01, 100].

    When it helps: scores are too sure or not sure enough on both sides of one half; the ranking stays, and so does every
    decision at 0.5. When it harms: it cannot move the mean of the scores, so a model that is too high or too low everywhere,
    as after resampling, stays so, or is made milder in vain; `platt` moves both.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    selection (+0.16); gains, with bias or without, under annotation (+0.12); no effect under acquisition; unclear under
    prevalence and presentation.
    """

    name: ClassVar[str] = "temperature"

    def fit_line(self, y_true: np.ndarray, logit: np.ndarray) -> tuple[float, float, str]:
        """The best 1 / T, and 0."""

        def gradient(slope: float) -> float:
            return float(np.mean((special.expit(slope * logit) - y_true) * logit))

        # The loss is convex in the slope: its gradient rises, and where it is 0 is the minimum.
        if gradient(1 / HOTTEST) >= 0:
            return 1 / HOTTEST, 0.0, AT_THE_END
        if gradient(1 / COLDEST) <= 0:
            return 1 / COLDEST, 0.0, AT_THE_END
        return float(optimize.brentq(gradient, 1 / HOTTEST, 1 / COLDEST, xtol=1e-12)), 0.0, ""


class GroupTemperature(Temperature):
    """Temperature scaling for each group, drawn towards everyone's (in 1 / T) where patients are few.

    When it helps: scores are sure of themselves to a different degree in each group, as where one is rare in training.
    When it harms: as `temperature`, where a group's scores are too high or too low on the whole; and the order of patients of
    different groups changes.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    acquisition (-0.25); no effect under annotation and selection; unclear under prevalence and presentation.
    """

    name: ClassVar[str] = "group_temperature"
    Settings: ClassVar[type] = GroupSettings
    is_per_group: ClassVar[bool] = True
