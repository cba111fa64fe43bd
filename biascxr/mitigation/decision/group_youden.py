"""`group_youden`: Youden's threshold for each group of one attribute, as FairREAD's decision step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.containers import UNKNOWN
from biascxr.errors import InputError
from biascxr.metrics import youden_threshold
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.decision.base import DecisionRule, row_for_all


@dataclass(frozen=True)
class GroupYoudenSettings:
    """Settings of `group_youden`.

    Attributes:
        attribute: whose groups get thresholds of their own; empty: race if the cohort has it, else its first attribute.
        min_positive: a group with fewer positives or negatives in calibration shares the threshold for all.
    """

    attribute: str = ""
    min_positive: int = 10


class GroupYouden(DecisionRule):
    """A threshold per label and group where calibration has enough positives, otherwise the one for all.

    Without an attribute that has two known groups it is the same as `youden`, and the thresholds' notes say so.

    Follows FairREAD's subgroup thresholds (Gao et al., arXiv 2412.16373). Differs: fitted on the calibration split, not
    on training scores, and for one attribute's groups, not their crossings, which have too few positives here.
    """

    name: ClassVar[str] = "group_youden"
    Settings: ClassVar[type] = GroupYoudenSettings

    def _attribute(self, available: list[str]) -> str | None:
        wanted = self.settings.attribute
        if wanted and wanted not in available:
            raise InputError(f"group_youden.attribute={wanted!r} is not an attribute of this cohort: {available}.")
        if not available:
            return None
        return wanted or ("race" if "race" in available else available[0])

    def _fit_label(self, calibration: SplitData, index: int, score: np.ndarray) -> list[dict]:
        y_true = calibration.labels[:, index]
        name = self._attribute(list(calibration.attributes))
        overall = youden_threshold(y_true, score)
        if name is None:
            # A default recipe must not end a run on a cohort without groups: it is `youden` there, and says so.
            return [row_for_all(overall, y_true, "no attribute has two known groups: one threshold for all")]
        rows = [row_for_all(overall, y_true)]
        for group in sorted(set(calibration.attributes[name]) - {UNKNOWN}):
            in_group = (calibration.attributes[name] == group).to_numpy()
            n_positive, n_negative = int((y_true[in_group] == 1).sum()), int((y_true[in_group] == 0).sum())
            is_enough = min(n_positive, n_negative) >= self.settings.min_positive
            rows.append(
                {
                    "attribute": name,
                    "group": group,
                    "threshold": youden_threshold(y_true[in_group], score[in_group]) if is_enough else overall,
                    "n_positive": n_positive,
                    "note": "" if is_enough else f"under {self.settings.min_positive} of a class: threshold for all",
                }
            )
        return rows
