"""`youden`, `group_youden`: per label (and group), the threshold that maximises TPR - FPR."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.metrics import youden_threshold
from biascxr.mitigation.decision.base import GroupSettings, ThresholdRule


class Youden(ThresholdRule):
    """Youden's index J = TPR - FPR, its maximum over thresholds, one for everyone (Youden, Cancer 1950).

    When it helps: a missed finding and a false alarm cost alike per patient with and without it. When it harms: the maximum is
    flat, so with few positives the threshold hangs on chance.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    presentation (-0.38); no effect under annotation; unclear under prevalence, acquisition and selection.
    """

    name: ClassVar[str] = "youden"

    def threshold(self, y_true: np.ndarray, score: np.ndarray) -> float:
        """The threshold that maximises TPR - FPR."""
        return youden_threshold(y_true, score)


class GroupYouden(Youden):
    """Youden's index for each group, drawn towards everyone's threshold where patients are few.

    Follows FairREAD's subgroup thresholds (Gao et al., arXiv 2412.16373). Differs: fitted on the calibration split, not on
    training scores; shrunk; by default for one attribute's groups, not the crossings of three, which have few positives.
    `attributes=[race, sex, age_group]` gives their crossings.

    When it helps: scores of groups lie at different heights, so that one threshold is another operating point in each. When it
    harms: it makes neither TPR nor FPR equal; in FairREAD's ablation its equalized odds difference is .176, that of
    `group_min_gap` .129, that of 0.5 .377.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.38) and annotation (+0.34); harms under presentation (-1.13) and acquisition (-0.33); unclear under
    selection.
    """

    name: ClassVar[str] = "group_youden"
    Settings: ClassVar[type] = GroupSettings
    is_per_group: ClassVar[bool] = True
