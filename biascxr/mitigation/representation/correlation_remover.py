"""`correlation_remover`: what recorded attributes predict of each column is subtracted, at prediction too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.representation.base import Representation
from biascxr.mitigation.representation.concept import NO_GROUPS, Concept, ConceptSettings
from biascxr.mitigation.vector_table import weighted_cross_covariance, weighted_mean


@dataclass(frozen=True)
class CorrelationRemoverSettings(ConceptSettings):
    """Settings of `correlation_remover`, with those of `ConceptSettings`.

    Attributes:
        alpha: share of the correlation to remove, in [0, 1]: 1 removes it, 0 leaves vectors as they are.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise InputError(f"alpha must lie in [0, 1]; got {self.alpha}.")


class CorrelationRemover(Representation):
    """Fairlearn's CorrelationRemover: each column less its least-squares prediction from the groups' one-hots.

    Formula: x - alpha (s - mean s) B, with B minimising the sum of w |x - c - (s - mean s) B|^2. For one attribute: x less
    the mean of its group, plus the mean of all of known group.

    Reference: fairlearn's `preprocessing.CorrelationRemover`, with which it agrees at equal weights and no unknown group. It
    is computed here, because fairlearn takes no weights and needs the whole matrix in memory, and because its releases up
    to 0.13 (no longer 0.15) centre all sensitive columns by one number, the mean of all their entries: of one attribute's
    one-hots they then leave the groups' means apart. Here every column is centred by its own mean.

    **Its predictions depend on the recorded attribute**: the same image gets another score if another group is recorded.
    Such use may be disparate treatment and needs clinical and legal review. A row of unknown group, or of a group that
    training did not have, is the mean row: nothing is subtracted from it (of several attributes: for the unknown one).

    Guaranteed, at alpha 1, on the weighted training rows of known group: zero covariance of every column with every group.
    Not guaranteed: independence; and on other rows group means agree up to sampling error only.

    When it helps: as `leace`, where a difference in means is a nuisance and attributes are recorded reliably; no other
    change that leaves zero covariance moves the training vectors less (Belrose, "Least-Squares Concept Erasure with Oracle
    Concept Labels", 2023). When it harms: where prevalence differs between groups, the difference in means is also disease;
    a wrongly recorded attribute moves a vector the wrong way; and a nonlinear head may read the group from what was
    subtracted (the same note warns of it).

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.82), presentation (+0.30), annotation (+0.71), acquisition (+0.48) and selection (+0.78).
    """

    name: ClassVar[str] = "correlation_remover"
    Settings: ClassVar[type] = CorrelationRemoverSettings
    uses_attributes: ClassVar[bool] = True

    def _fit(self, train: SplitData, weights: np.ndarray) -> dict[str, np.ndarray]:
        concept = Concept.of(self.name, self.settings, train.attributes, weights)
        if len(concept) == 0:
            self.notes = (f"{self.name}: {NO_GROUPS}",)
            return {"subtracted": np.zeros((0, train.vectors.shape[1])), **concept.to_arrays()}
        columns, mean = concept.encode(train.attributes), weighted_mean(train.vectors, weights)
        cross = weighted_cross_covariance(train.vectors, columns, weights, mean)
        within = (columns * weights[:, None]).T @ columns / weights.sum()
        # Columns of one attribute sum to 0: the pseudo-inverse takes the shortest of the solutions, as fairlearn does.
        coefficients = np.linalg.pinv(within, rcond=1e-10, hermitian=True) @ cross.T
        self.notes = (f"{self.name}: means made equal over the groups of {concept.title}; predictions use these attributes",)
        return {"subtracted": self.settings.alpha * coefficients, **concept.to_arrays()}

    def _transform(self, vectors: np.ndarray, attributes: pd.DataFrame | None) -> np.ndarray:
        concept = Concept.from_arrays(self.state)
        return vectors - concept.encode(attributes) @ self.state["subtracted"]
