"""`linear` is a logistic regression: no hidden layer to set, and scikit-learn's scores when it has run its course."""

from __future__ import annotations

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from biascxr.errors import InputError
from biascxr.mitigation import parse_recipes
from biascxr.mitigation.training.linear import Linear, LinearSettings
from biascxr.models.batches import Deal, stream_batches
from biascxr.models.fit import compilation

L2 = 0.05


def test_there_is_no_hidden_layer_and_none_can_be_set(split_of):
    head = Linear(LinearSettings(max_epochs=1)).fit(split_of(), np.ones(60, np.float32), split_of("validation"), seed=0)
    assert head.model.count_params() == 16 * 3 + 3
    with pytest.raises(InputError, match="Unknown setting of linear 'hidden'"):
        parse_recipes("linear(hidden=[8])")


def problem(split_of, n: int, d: int = 4):
    """Two findings with masked labels on standard normal columns, weights, and scikit-learn's regressions."""
    made = split_of(n=n, d=d, n_labels=3)
    vectors = np.random.default_rng(1).normal(size=(n, d)).astype(np.float32)
    noise = np.asarray(made.vectors)[:, 1:3]
    y = np.where(np.isnan(made.labels[:, :2]), np.nan, vectors[:, :2] + noise > 0.5).astype(np.float32)
    train = dataclasses.replace(made, vectors=vectors, labels=y, label_names=("a", "b"))
    weights = np.random.default_rng(0).choice([0.5, 1.0, 2.0], n).astype(np.float32)
    fitted = []
    for label in y.T:
        own = ~np.isnan(label)
        model = LogisticRegression(C=1 / (L2 * weights.sum()), tol=1e-10, max_iter=1000)
        fitted.append(model.fit(vectors[own].astype(float), label[own], sample_weight=weights[own]))
    return train, weights, fitted


@pytest.mark.parametrize("batch_size", [512, 64])
def test_over_a_pass_the_slopes_at_scikit_learns_solution_sum_to_zero(split_of, batch_size):
    """Exact, also where the last batch is filled up and rows have weights."""
    train, weights, fitted = problem(split_of, 100)
    member = Linear(LinearSettings(l2=L2, batch_size=batch_size))
    cells = member._cells(train)
    head = member._build_head(train, cells, None)
    trainer = member._trainer(head, train, weights, cells)
    trainer.compile(optimizer=keras.optimizers.SGD(1.0), **compilation())
    start = [np.concatenate([m.coef_ for m in fitted]).T, np.concatenate([m.intercept_ for m in fitted])]
    deal, moved = Deal.of(len(train), batch_size), 0
    batches = stream_batches(member._rows(train, weights, cells, None), deal, seed=0)
    for x, y, w in itertools.islice(batches, deal.n_steps):
        head.set_weights(start)
        trainer.train_on_batch(x, y, sample_weight=w)
        moved = moved + np.concatenate([(a - b).ravel() for a, b in zip(start, head.get_weights(), strict=True)])
    np.testing.assert_allclose(moved, 0, atol=1e-5)


def test_trained_its_scores_are_scikit_learns_to_two_hundredths(split_of):
    train, weights, fitted = problem(split_of, 960)
    expected = np.stack([m.predict_proba(np.asarray(train.vectors))[:, 1] for m in fitted], axis=1)
    # The solution's own probabilities as validation labels: their cross-entropy is lowest at the solution, so that early
    # stopping does not prefer another point on the way.
    validation = dataclasses.replace(train, split="validation", labels=expected.astype(np.float32))
    settings = LinearSettings(l2=L2, learning_rate=0.01, max_epochs=12, batch_size=30)
    scores = Linear(settings).fit(train, weights, validation, seed=0).predict(train.vectors)
    np.testing.assert_allclose(scores, expected, atol=0.02)
    assert np.abs(expected - expected.mean(axis=0)).mean() > 0.1


@pytest.mark.parametrize(("name", "value"), [("l2", -1.0), ("patience", 0), ("criterion", "accuracy")])
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(InputError, match=f"{name}.* must be"):
        LinearSettings(**{name: value})
