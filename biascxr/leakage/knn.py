"""`knn`: the nearest neighbours, as in the MIMIC Racial Fairness notebook (there k = 5)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.leakage.base import Probe
from biascxr.leakage.nearest import nearest_neighbours


class Knn(Probe):
    """k-nearest neighbours, Euclidean, exact: a probability is the group's share of the neighbours' weight."""

    name: ClassVar[str] = "knn"
    title: ClassVar[str] = "KNN"
    grid: ClassVar[tuple[int, ...]] = (5, 15, 50)

    def words(self, setting: int) -> str:
        return f"k = {setting}"

    def _scores(self, train, weights, parts, grid, *, validation, seed):
        n_groups = train.codes.max() + 1
        most = min(max(grid), len(train))
        found = [nearest_neighbours(train.vectors, part, most) for part in parts]  # one search serves every k
        for k in grid:
            scores = []
            for neighbours in found:
                own = neighbours[:, :k]  # [m, k]
                shares = np.stack([np.sum(weights[own] * (train.codes[own] == g), axis=1) for g in range(n_groups)], axis=1)
                scores.append(shares / shares.sum(axis=1, keepdims=True))
            yield scores
