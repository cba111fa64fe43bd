"""scikit-learn's logistic regression rests at the minimum of the penalised loss."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from biascxr.models import build_mlp
from biascxr.models.fit import compilation
from biascxr.models.linear import PenalisedTrainer

N, L2 = 120, 0.03


def moved_by_one_step(l2: float) -> float:
    """Starts at scikit-learn's coefficients; returns how far one step of plain descent, rate 1, goes: the largest slope."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N, 5)).astype(np.float32)
    y = (vectors[:, :3] + rng.normal(size=(N, 3)) > 0.3).astype(np.float32)
    y[rng.random(y.shape) < 0.2] = np.nan
    weights = rng.integers(1, 4, N).astype(np.float32)
    head = build_mlp(5, 3, hidden=(), dropout=0.0)
    fitted = []
    for label in y.T:
        own = ~np.isnan(label)
        model = LogisticRegression(C=1 / (L2 * N), tol=1e-10, max_iter=1000)
        fitted.append(model.fit(vectors[own].astype(float), label[own], sample_weight=weights[own]))
    start = [np.concatenate([m.coef_ for m in fitted]).T, np.concatenate([m.intercept_ for m in fitted])]
    head.set_weights(start)
    trainer = PenalisedTrainer(head, l2=l2)
    trainer.compile(optimizer=keras.optimizers.SGD(1.0), **compilation())
    trainer.train_on_batch({"vector": vectors, "group": np.zeros(N, np.int32)}, y, sample_weight=weights)
    return max(float(np.abs(a - b).max()) for a, b in zip(start, head.get_weights(), strict=True))


def test_scikit_learns_solution_with_c_of_1_over_l2_n_has_no_slope():
    assert moved_by_one_step(L2) < 1e-5


@pytest.mark.parametrize("l2", [0.0, 2 * L2])
def test_under_another_penalty_it_has(l2):
    assert moved_by_one_step(l2) > 1e-3
