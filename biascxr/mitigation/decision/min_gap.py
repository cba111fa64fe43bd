"""`min_gap`, `group_min_gap`: per label (and group), the threshold at which TPR and TNR are nearest to each other."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.metrics.thresholds import minimum_gap_threshold
from biascxr.mitigation.decision.base import GroupSettings, ThresholdRule


class MinGap(ThresholdRule):
    """The threshold that minimises |TPR - TNR|: the ROC curve's point of equal errors, one for everyone.

    When it helps: misses and false alarms should be as frequent as each other, each in its class. When it harms: where the
    scores separate badly it flags about half of everyone.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    presentation (-0.78); gains, with bias or without, under prevalence (+0.24); unclear under annotation, acquisition and
    selection.
    """

    name: ClassVar[str] = "min_gap"

    def threshold(self, y_true: np.ndarray, score: np.ndarray) -> float:
        """The threshold that minimises |TPR - TNR|."""
        return minimum_gap_threshold(y_true, score)


class GroupMinGap(MinGap):
    """Equal errors in each group, drawn towards everyone's threshold where patients are few: FairREAD's choice.

    Follows FairREAD (Gao et al., arXiv 2412.16373), where `attributes=[race, sex, age_group]`: every cell of the crossing has
    a threshold of its own. Differs: fitted on the calibration split, not on training scores (`fitted_on=train` does that, to
    reproduce it); shrunk; one attribute's groups by default, because crossings have few positives.

    When it helps: ROC curves of the groups are alike and only lie at other scores: then TPR and FPR become equal together
    (equalized odds; .129 in FairREAD's ablation against .377 at 0.5). When it harms: where the curves differ, the rates differ
    by as much as the curves' points of equal errors do, and the group with the worse curve is flagged more often.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.53) and annotation (+0.35); harms under presentation (-1.18); gains, with bias or without, under selection
    (+0.41); no effect under acquisition.
    """

    name: ClassVar[str] = "group_min_gap"
    Settings: ClassVar[type] = GroupSettings
    is_per_group: ClassVar[bool] = True
