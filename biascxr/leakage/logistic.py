"""`logistic`: multinomial logistic regression on standardised vectors."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.leakage.base import Probe


class Logistic(Probe):
    """Logistic regression with a ridge penalty (scikit-learn's `C`), by L-BFGS."""

    name: ClassVar[str] = "logistic"
    title: ClassVar[str] = "Logistic regression"
    inverse_penalty: ClassVar[float] = 0.01  # C: with a thousand columns and few patients a weak penalty overfits

    def fit_predict(self, train: np.ndarray, codes: np.ndarray, test: np.ndarray, *, seed: int) -> np.ndarray:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=self.inverse_penalty, max_iter=500).fit(train, codes)
        return model.predict_proba(test)
