"""`pca`: principal components of the training vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.representation.base import AffineRepresentation
from biascxr.mitigation.vector_table import principal_axes, weighted_mean


@dataclass(frozen=True)
class PcaSettings:
    """Settings of `pca`.

    Attributes:
        variance: share of the variance to keep, in (0, 1]: as few components as exceed it.
        n_components: number of components to keep instead; 0 keeps by `variance`.
        whiten: scale every component to variance 1.
    """

    variance: float = 0.95
    n_components: int = 0
    whiten: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.variance <= 1:
            raise InputError(f"variance must lie in (0, 1]; got {self.variance}.")
        if self.n_components < 0:
            raise InputError(f"n_components must be at least 0; got {self.n_components}.")


class Pca(AffineRepresentation):
    """Principal components: the directions of most variance, from the weighted covariance matrix, in float64.

    Formula: S = V diag(l) V'; x -> (x - mean) V_k, with `whiten` divided by sqrt(l_k). The sign of a component is such that
    its largest loading is positive. Reference: scikit-learn's `PCA`, with which it agrees up to sign; differs: weights, and
    the divisor is n. It sees no attribute.

    When it helps: fewer inputs, where training rows are few. When it harms: what is rare (a small group's, a small lesion's)
    has little variance and is dropped first; Samadi et al., "The Price of Fair PCA", NeurIPS 2018, show that components
    can represent one group less faithfully than another.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    selection (+0.17); gains, with bias or without, under presentation (+0.11) and acquisition (+0.22); no effect under
    prevalence and annotation.
    """

    name: ClassVar[str] = "pca"
    Settings: ClassVar[type] = PcaSettings

    def _fit(self, train: SplitData, weights: np.ndarray) -> dict[str, np.ndarray]:
        mean = weighted_mean(train.vectors, weights)
        values, axes = principal_axes(train.vectors, weights, mean)
        if len(values) == 0:
            self.notes = ("pca: the vectors are all the same",)
            return {"mean": mean, "matrix": np.zeros((len(mean), 1))}
        k = min(self.settings.n_components or self._enough(values), len(values))
        loadings = axes[:, :k] * np.sign(axes[np.abs(axes[:, :k]).argmax(axis=0), np.arange(k)])
        self.notes = (f"pca: {k} of {len(mean)} components, {values[:k].sum() / values.sum():.1%} of the variance",)
        return {"mean": mean, "matrix": loadings / np.sqrt(values[:k]) if self.settings.whiten else loadings}

    def _enough(self, values: np.ndarray) -> int:
        """Number of components whose share of the variance exceeds the setting; all where none does."""
        cumulative = np.cumsum(values)
        return int(np.searchsorted(cumulative, self.settings.variance * cumulative[-1], side="right")) + 1
