"""`linear_svm`: a linear support vector machine per group against the rest, as in the MIMIC Racial Fairness notebook."""

from __future__ import annotations

import logging
import warnings
from typing import ClassVar

import numpy as np

from biascxr.leakage.base import Probe

logger = logging.getLogger("biascxr")

MAX_STEPS = 200


class LinearSvm(Probe):
    """Scikit-learn's `LinearSVC` (squared hinge, ridge penalty `C`), one-vs-rest; the score is the signed distance, not scaled.

    Liblinear holds the vectors in float64 with an index each: four times their memory, and minutes from 100,000 rows on.
    """

    name: ClassVar[str] = "linear_svm"
    title: ClassVar[str] = "Linear SVM"
    grid: ClassVar[tuple[float, ...]] = (0.001, 0.0001, 0.01)

    def words(self, setting: float) -> str:
        return f"C = {setting:g}"

    def _scores(self, train, weights, parts, grid, *, validation, seed):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        is_tall = len(train) > train.vectors.shape[1]
        for inverse_penalty in grid:
            # The primal (Newton) is exact and needs few steps; the dual is for fewer rows than columns.
            n_steps = MAX_STEPS if is_tall else 50 * MAX_STEPS
            model = LinearSVC(C=inverse_penalty, dual=not is_tall, max_iter=n_steps, random_state=seed)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)
                model.fit(train.vectors, train.codes, sample_weight=weights)
            for warning in caught:
                if issubclass(warning.category, ConvergenceWarning):
                    logger.warning("linear_svm probe, C = %g: not converged; its AUROC is of the last step.", inverse_penalty)
                else:
                    warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            decisions = [model.decision_function(part) for part in parts]
            yield [np.stack([-own, own], axis=1) if own.ndim == 1 else own for own in decisions]
