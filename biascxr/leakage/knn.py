"""`knn`: the five nearest neighbours, as in the MIMIC Racial Fairness notebook."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.leakage.base import Probe


class Knn(Probe):
    """k-nearest neighbours, Euclidean, exact: a probability is the share of neighbours in the group."""

    name: ClassVar[str] = "knn"
    title: ClassVar[str] = "KNN (k = 5)"
    n_neighbors: ClassVar[int] = 5

    def fit_predict(self, train: np.ndarray, codes: np.ndarray, test: np.ndarray, *, seed: int) -> np.ndarray:
        from sklearn.neighbors import KNeighborsClassifier

        k = min(self.n_neighbors, len(train))
        return KNeighborsClassifier(k, algorithm="brute").fit(train, codes).predict_proba(test)
