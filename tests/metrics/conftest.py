"""Small random labels and scores, with ties and masked labels, for the tests of the metrics."""

from __future__ import annotations

import numpy as np
import pytest


def random_labels_and_scores(seed: int, n: int = 200, *, levels: int = 20, masked: float = 0.0):
    """Returns `[n]` labels in {0, 1, NaN} and `[n]` scores on `levels` values, so that many are tied."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(np.float64)
    score = np.round(np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0, 1) * levels) / levels
    y[rng.random(n) < masked] = np.nan
    return y, score


@pytest.fixture(scope="session")
def labels_and_scores():
    """The function `random_labels_and_scores`."""
    return random_labels_and_scores
