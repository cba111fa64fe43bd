"""`focal`: the loss looks away from what is already easy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.training.base import NetworkMethod, NetworkSettings


@dataclass(frozen=True)
class FocalSettings(NetworkSettings):
    """Settings of `focal`, beside the network's.

    Attributes:
        gamma: focusing parameter, at least 0; 0 is `erm`. The paper's is 2.
        alpha: weight of positive labels, negatives have 1 - alpha; 0 weighs neither. The paper's, with gamma 2, is 0.25.
    """

    gamma: float = 2.0
    alpha: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma >= 0:
            raise InputError(f"gamma must be at least 0; got {self.gamma}.")
        if not 0 <= self.alpha < 1:
            raise InputError(f"alpha must be in (0, 1), or 0 to weigh neither class; got {self.alpha}.")


class Focal(NetworkMethod):
    """`-alpha_t (1 - p_t)^gamma log p_t` for each known label: rows that are nearly right count little.

    Follows Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equations 4 and 5. Differs: divided by rows and
    labels, as `erm`, not by the number of positives, and alpha is off by default (theirs goes with anchors of which nearly all
    are background). Groups, known or not, play no part. Early stopping looks at plain cross-entropy.

    When it helps: findings so rare that easy negatives make up most of the loss. When it harms: it is no proper scoring rule
    (Charoenphakdee et al., CVPR 2021), so probabilities are drawn towards one half and need calibration before they are read
    as such; and weight goes to whatever is hard, which may be a wrong label.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): no effect under
    prevalence, presentation, annotation, acquisition and selection.
    """

    name: ClassVar[str] = "focal"
    Settings: ClassVar[type] = FocalSettings

    def _trainer(self, head: object, train: SplitData, weights: np.ndarray, cells: Cells) -> object:
        from biascxr.models.focal import FocalTrainer

        return FocalTrainer(head, gamma=self.settings.gamma, alpha=self.settings.alpha)
