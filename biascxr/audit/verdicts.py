"""What a change means: better, worse or not enough evidence; and, where a gap closed, who paid for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from biascxr.audit.cells import spread
from biascxr.config import AuditConfig

BETTER, WORSE, OPEN = "better", "worse", "not enough evidence"
DOWN_POSSIBLE, DOWN = "levelling down possible", "levelling down"
UP, TRADE, SHIFTED = "levelling up", "trade-off", "shifted"
# A loss (or a gain of the worst-off group) smaller than this is not held against (or in favour of) a change.
MARGIN = 0.05


def verdict(low: float, high: float, *, better: str, p_value: float = 0.0, alpha: float = 0.05) -> str:
    """Reads an interval of a change and its adjusted p-value.

    Args:
        low: lower end.
        high: upper end.
        better: `"higher"`, `"lower"`, or `"neither"`: a selection rate is not better higher or lower.
        p_value: adjusted for the number of comparisons.
        alpha: level.

    Returns:
        Better or worse (higher or lower where neither is better), where the interval does not hold 0 and the p-value is
        below `alpha`; not enough evidence where it does, or is undefined.
    """
    if np.isnan(p_value) or p_value >= alpha or not (low > 0 or high < 0):
        return OPEN
    if better == "neither":
        return "higher" if low > 0 else "lower"
    return BETTER if (low > 0) == (better == "higher") else WORSE


@dataclass(frozen=True)
class Changes:
    """One metric of the groups of one attribute under two models, from the same resamples.

    Attributes:
        groups: the k groups.
        before: `[k, R + 1]`, the estimate in front.
        after: `[k, R + 1]`.
        df: `[k]`, patients of the class less one.
        gap_df: degrees of freedom of a gap's change, finite where it rests on a few training runs.
    """

    groups: tuple[str, ...]
    before: np.ndarray
    after: np.ndarray
    df: np.ndarray
    gap_df: float = float("inf")

    def change(self, contrast: np.ndarray) -> tuple[float, float]:
        """Returns a contrast of the groups' changes `[k]`: its estimate and standard error."""
        values = contrast @ (self.after - self.before)
        return float(values[0]), float(spread(values[1:]))

    def bound(self, contrast: np.ndarray, level: float, side: int) -> float:
        """Returns the one-sided bound of a contrast: upper for `side=1`, lower for `side=-1`."""
        value, error = self.change(contrast)
        return value + side * stats.t.ppf(level, max(1.0, self.df[contrast != 0].min())) * error


def levelling(
    changes: Changes, metric: str, *, fpr: Changes | None = None, auroc: Changes | None = None, config: AuditConfig
) -> str:
    """Who paid for a change of the gap of a metric for which higher is better?

    Best and worst group are those of the average of both models: picked on the baseline alone they regress to the mean, and
    a change that is none looks like levelling down in a tenth of worlds.

    - *levelling down possible*: some other group dropped (one-sided, Bonferroni over the others), by more than the worst-off
      group did (the contrast corrected too), the worst-off group was not shown to gain, and the gap did not widen;
    - *levelling down*: the same, and a gain of the worst-off group of `MARGIN` or more can be excluded;
    - *levelling up*: the worst-off group gains, and no other is shown to drop or measured to lose more than `MARGIN`;
    - *trade-off*: it gains, and some other group does;
    - *shifted*: its TPR rises together with its FPR, and its AUROC was not shown to rise: the threshold moved, no more.

    Args:
        changes: of AUROC or TPR.
        metric: which of them.
        fpr: of the FPR, for the same groups, to tell a shift.
        auroc: of the AUROC, likewise.
        config: level.

    Returns:
        One of the above, or an empty text: none of them could be shown.
    """
    k = len(changes.groups)
    average = (changes.before[:, 0] + changes.after[:, 0]) / 2
    if k < 2 or np.isnan(average).any():
        return ""
    worst = int(average.argmin())
    unit = np.eye(k)
    others = [g for g in range(k) if g != worst]
    level = config.confidence
    strict = 1 - (1 - level) / (k - 1)
    dropped = [g for g in others if changes.bound(unit[g], strict, 1) < 0]
    if changes.bound(unit[worst], level, -1) > 0:
        if metric == "TPR" and _is_shift(changes, worst, fpr, auroc, level):
            return SHIFTED
        loses = [g for g in others if changes.bound(unit[g], strict, 1) < 0 or changes.change(unit[g])[0] < -MARGIN]
        return TRADE if loses else UP
    is_wider = np.ptp(changes.after[:, 0]) > np.ptp(changes.before[:, 0]) + 1e-12
    if not is_wider and any(changes.bound(unit[g] - unit[worst], strict, 1) < 0 for g in dropped):
        return DOWN if changes.bound(unit[worst], level, 1) < MARGIN else DOWN_POSSIBLE
    return ""


def _is_shift(tpr: Changes, worst: int, fpr: Changes | None, auroc: Changes | None, level: float) -> bool:
    """Did the group's FPR rise with its TPR, without its AUROC being shown to rise?"""
    name = tpr.groups[worst]
    if fpr is None or name not in fpr.groups:
        return False
    unit = np.eye(len(fpr.groups))[fpr.groups.index(name)]
    if not fpr.bound(unit, level, -1) > 0:
        return False
    if auroc is None or name not in auroc.groups:
        return True
    unit = np.eye(len(auroc.groups))[auroc.groups.index(name)]
    return not auroc.bound(unit, level, -1) > 0
