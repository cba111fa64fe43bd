"""`gmean`, `group_gmean`: per label (and group), the threshold that maximises the geometric mean of TPR and TNR."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.metrics.thresholds import g_mean_threshold
from biascxr.mitigation.decision.base import GroupSettings, ThresholdRule


class GMean(ThresholdRule):
    """G-mean = sqrt(TPR x TNR), its maximum over thresholds, one for everyone (Kubat and Matwin, ICML 1997).

    When it helps: a finding is rare, and neither rate may be given up for the other: G-mean is 0 where one of them is. When it
    harms: it weighs both rates alike, whatever a missed finding costs.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    presentation (-0.55); unclear under prevalence, annotation, acquisition and selection.
    """

    name: ClassVar[str] = "gmean"

    def threshold(self, y_true: np.ndarray, score: np.ndarray) -> float:
        """The threshold that maximises sqrt(TPR x TNR)."""
        return g_mean_threshold(y_true, score)


class GroupGMean(GMean):
    """The highest G-mean in each group, drawn towards everyone's threshold where patients are few.

    Follows FairREAD's subgroup thresholds (Gao et al., arXiv 2412.16373), where `attributes=[race, sex, age_group]`. Differs:
    fitted on the calibration split, not on training scores; shrunk; one attribute's groups by default.

    When it helps: scores of groups lie at different heights. When it harms: it makes neither rate equal; in FairREAD's ablation
    its equalized odds difference is .155, that of `group_min_gap` .129.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.48) and annotation (+0.37); harms under presentation (-0.97); unclear under acquisition and selection.
    """

    name: ClassVar[str] = "group_gmean"
    Settings: ClassVar[type] = GroupSettings
    is_per_group: ClassVar[bool] = True
