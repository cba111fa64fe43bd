"""Early stopping by a criterion of one's own, and not before an epoch that may be chosen."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from biascxr.models import FitSettings, HeadTrainer, Rows, build_mlp, fit_head


def fit(criterion, *, first_epoch: int, max_epochs: int, patience: int):
    rng = np.random.default_rng(0)
    rows = Rows(
        rng.normal(size=(8, 3)).astype(np.float32), rng.integers(0, 2, (8, 1)).astype(np.float32), np.ones(8, np.float32),
        np.full(8, -1, np.int32),
    )  # fmt: skip
    keras.utils.set_random_seed(0)
    head = build_mlp(3, 1, hidden=(), dropout=0.0)
    weights, values = [], iter(criterion)

    def next_value(labels, scores, groups):
        weights.append(head.get_weights())
        return next(values)

    chosen = FitSettings(batch_size=8, max_epochs=max_epochs, patience=patience)
    history = fit_head(
        HeadTrainer(head), rows, rows, label_names=("x",), settings=chosen, seed=0, criterion=next_value,
        first_epoch=first_epoch,
    )  # fmt: skip
    return head, history, weights


def test_early_stopping_goes_back_to_the_best_late_epoch_though_an_early_one_was_better():
    head, history, weights = fit([0.1, 0.2, 0.3, 0.9, 0.5, 0.7, 0.8, 0.9], first_epoch=3, max_epochs=8, patience=2)
    assert history["val_loss"].tolist() == [0.1, 0.2, 0.3, 0.9, 0.5, 0.7, 0.8], "patience counts from the first candidate"
    assert history["is_best"].tolist() == [False] * 4 + [True] + [False] * 2
    for kept, at_best, first in zip(head.get_weights(), weights[4], weights[0], strict=True):
        np.testing.assert_array_equal(kept, at_best)
        assert not np.array_equal(kept, first)


@pytest.mark.parametrize("first_epoch", [3, 9])
def test_where_training_ends_before_it_the_last_epoch_is_the_one(first_epoch):
    head, history, weights = fit([0.1, 0.2, 0.3], first_epoch=first_epoch, max_epochs=3, patience=5)
    assert history["is_best"].tolist() == [False, False, True]
    np.testing.assert_array_equal(head.get_weights()[0], weights[2][0])
