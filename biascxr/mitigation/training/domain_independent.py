"""`domain_independent`: one classifier for each group on shared features, averaged when the group is not asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError, unknown_name
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.training.base import NetworkMethod, NetworkSettings
from biascxr.mitigation.training.demographics import DemographicInputs

INFERENCES = ("mean_logits", "mean_probability")


@dataclass(frozen=True)
class DomainIndependentSettings(NetworkSettings):
    """Settings of `domain_independent`, beside those of the network.

    Attributes:
        inference: `mean_logits` averages the groups' logits, `mean_probability` their probabilities.
        min_cell: a group with fewer training rows has no classifier of its own: its rows learn as those of unknown group.
    """

    inference: str = "mean_logits"
    min_cell: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inference not in INFERENCES:
            raise unknown_name("inference of domain_independent", self.inference, INFERENCES)
        if self.min_cell < 1:
            raise InputError(f"min_cell must be at least 1; got {self.min_cell}.")


class DomainIndependent(NetworkMethod):
    """Learns one last layer per group, so that no classifier can use the group to guess a label; predicts without the group.

    Training: a row of group g learns by `BCE(y, sigmoid(s_g(f(x))))`, s_g the group's own last layer, f shared. A row of
    unknown group, or of a group with fewer than `min_cell` rows, learns by the answer that is given at inference. Inference:
    `sigmoid(mean_g s_g(f(x)))` or `mean_g sigmoid(s_g(f(x)))`; no attribute is read. The groups are those of `attributes`,
    several being crossed. With fewer than two groups of that size it is `erm`.

    Follows Wang et al., Towards fairness in visual recognition: effective strategies for bias mitigation, CVPR 2020
    (domain-independent training); they sum the domains' outputs, which orders scores as their mean does and gives no
    probability. Differs: each finding has a sigmoid; `min_cell`; rows of unknown group.

    When it helps, when it harms: within a group, the group's marks tell nothing about the label, so none of the classifiers
    needs them: it helps where prevalence differs between groups for reasons that will not hold later. The average then answers
    as if every group were equally likely, so it is not calibrated to a group's own prevalence: calibrate afterwards. Few rows,
    or no positive, in a group make its classifier noise or a flat no, and it counts as much as the others in the average.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.66), presentation (+0.39), annotation (+0.73), acquisition (+0.79) and selection (+0.71).
    """

    name: ClassVar[str] = "domain_independent"
    Settings: ClassVar[type] = DomainIndependentSettings

    def _build_head(self, train: SplitData, cells: Cells, demographics: DemographicInputs | None) -> object:
        from biascxr.models.domain_heads import build_domain_mlp

        codes = cells.codes(train.attributes)
        self._sizes = np.bincount(codes[codes >= 0], minlength=len(cells))
        if len(self._domains) < 2:
            return super()._build_head(train, cells, demographics)
        return build_domain_mlp(
            train.vectors.shape[1],
            train.labels.shape[1],
            len(self._domains),
            hidden=self.settings.hidden,
            dropout=self.settings.dropout,
            averages_logits=self.settings.inference == "mean_logits",
            n_demographics=0 if demographics is None else demographics.n_columns,
        )

    @property
    def _domains(self) -> np.ndarray:
        """The codes of the groups that have a classifier of their own."""
        return np.flatnonzero(self._sizes >= self.settings.min_cell)

    def _trainer(self, head: object, train: SplitData, weights: object, cells: Cells) -> object:
        from biascxr.models.domain_heads import DomainTrainer

        return super()._trainer(head, train, weights, cells) if len(self._domains) < 2 else DomainTrainer(head, self._domains)

    def _notes(self, cells: Cells) -> tuple[str, ...]:
        small = [cells.names[code] for code in np.flatnonzero(self._sizes < self.settings.min_cell)]
        without = (f"groups of fewer than {self.settings.min_cell} training rows: {', '.join(small)}",) if small else ()
        if len(self._domains) < 2:
            return (*without, "fewer than two groups are known and large enough: trained as erm")
        own = ", ".join(cells.names[code] for code in self._domains)
        return (*without, f"a classifier for each of {cells.title}: {own}; predictions are their mean, without the attribute")
