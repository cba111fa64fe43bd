"""`cluster_downsample`: k-means within over-represented cells; each cluster keeps its share of representatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.sampling.base import BALANCED_ATTRIBUTES, Sample, Sampler, plain_sample
from biascxr.mitigation.vector_table import mean_and_scale


@dataclass(frozen=True)
class ClusterDownsampleSettings:
    """Settings of `cluster_downsample`.

    Attributes:
        attributes: attributes whose crossing makes the cells; those the cohort lacks are left out.
        n_clusters: clusters per over-represented cell, at most the number of rows kept there.
        min_cell: cells with fewer rows do not take part in the median.
    """

    attributes: tuple[str, ...] = BALANCED_ATTRIBUTES
    n_clusters: int = 8
    min_cell: int = 10

    def __post_init__(self) -> None:
        if self.n_clusters < 1 or self.min_cell < 1:
            raise InputError(f"n_clusters and min_cell must be at least 1; got {self.n_clusters} and {self.min_cell}.")


class ClusterDownsample(Sampler):
    """Cuts cells above the median size down to it, keeping the variety of their vectors.

    In each such cell k-means groups the vectors (columns standardised over the training split); every cluster keeps the
    rows nearest to its centre, in proportion to its size (largest remainders). Smaller cells keep all their rows once.

    Follows the BiasCXR report's "clustering-based" reduction; its code does not contain it, so the number of clusters,
    the proportional shares and the scaling are ours.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    prevalence (-0.13), presentation (-0.12) and selection (-0.33); no effect under annotation; unclear under acquisition.
    """

    name: ClassVar[str] = "cluster_downsample"
    Settings: ClassVar[type] = ClusterDownsampleSettings

    def _sample(self, train: SplitData, rng: np.random.Generator) -> Sample:
        from sklearn.cluster import MiniBatchKMeans

        cells = Cells.of(train.attributes, self.settings.attributes)
        codes, names = cells.codes(train.attributes), cells.names
        sizes = np.bincount(codes[codes >= 0], minlength=len(names))
        counted = sizes[sizes >= self.settings.min_cell]
        if len(counted) < 2:
            return plain_sample(np.arange(len(train)), ("fewer than two cells: nothing to balance",))
        target = int(np.median(counted))
        scale = mean_and_scale(train.vectors, np.ones(len(train)))[1].astype(np.float32)
        chosen = [np.flatnonzero(codes < 0)]
        n_cut = 0
        for cell in range(len(names)):
            rows = np.flatnonzero(codes == cell)
            if len(rows) <= target:
                chosen.append(rows)
                continue
            n_cut += 1
            points = train.vectors[rows] * scale
            k = min(self.settings.n_clusters, target)
            model = MiniBatchKMeans(k, random_state=int(rng.integers(2**31)), n_init=1).fit(points)
            distance = np.linalg.norm(points - model.cluster_centers_[model.labels_], axis=1)
            for cluster, n in enumerate(shares(np.bincount(model.labels_, minlength=k), target)):
                members = np.flatnonzero(model.labels_ == cluster)
                chosen.append(rows[members[np.argsort(distance[members], kind="stable")[:n]]])
        notes = (f"target: {target} rows a cell; {n_cut} of {len(names)} cells cut down to it by clusters",)
        return plain_sample(np.concatenate(chosen), notes)


def shares(sizes: np.ndarray, total: int) -> np.ndarray:
    """Divides `total` in proportion to sizes by largest remainders: `[k] int64`, summing to total, none above its size."""
    exact = sizes * (total / sizes.sum())
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - whole), kind="stable")
    whole[order[: total - whole.sum()]] += 1
    return whole
