"""`dfr` fits the last layer on balanced calibration rows, and leaves it as `erm` made it where it cannot."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from biascxr.errors import InputError
from biascxr.mitigation.training import Head
from biascxr.mitigation.training.base import NetworkSettings
from biascxr.mitigation.training.dfr import Dfr, DfrSettings, refit, usable_groups
from biascxr.mitigation.training.erm import Erm

SMALL = {"hidden": (6,), "max_epochs": 2, "batch_size": 16}
ONES = np.ones(60, np.float32)


def fitted(split_of, calibration=None, **settings):
    calibration = split_of("calibration", n=300) if calibration is None else calibration
    return Dfr(DfrSettings(**SMALL | {"min_cell": 5, "n_refits": 2} | settings)).fit(
        split_of(), ONES, split_of("validation"), seed=3, calibration=calibration
    )


@pytest.fixture(scope="module")
def erm_weights(split_of):
    head = Erm(NetworkSettings(**SMALL)).fit(split_of(), ONES, split_of("validation"), seed=3)
    return head.model.get_weights()


def test_only_the_last_layer_differs_from_erm_and_a_finding_without_positives_keeps_its_own(split_of, erm_weights):
    head = fitted(split_of)
    weights = head.model.get_weights()
    for own, erm in zip(weights[:-2], erm_weights[:-2], strict=True):
        np.testing.assert_array_equal(own, erm)
    np.testing.assert_array_equal(weights[-2][:, 2], erm_weights[-2][:, 2])
    assert (weights[-2][:, :2] != erm_weights[-2][:, :2]).any(axis=0).all()
    assert head.notes == ("fewer than two groups with enough rows of both values, last layer as in erm: finding 2",)


def test_the_layer_gives_the_mean_logit_of_the_balanced_regressions(split_of):
    """Coefficients on standardised features, folded back: the same scores as scikit-learn's on the features standardised."""
    rng = np.random.default_rng(0)
    features = rng.normal(2, 3, (300, 4)) * [1, 10, 0.1, 0]
    groups, labels = rng.integers(-1, 2, 300), (rng.random(300) < 0.4).astype(float)
    cells = [np.flatnonzero((groups == g) & (labels == y)) for g in (0, 1) for y in (0, 1)]
    used = np.concatenate(cells)
    settings = DfrSettings(penalty="l2", n_refits=3, c=0.5)
    coefficients, intercept = refit(features, labels, groups, [0, 1], settings, np.random.default_rng(7))

    draws, logits = np.random.default_rng(7), []
    standard = (features - features[used].mean(axis=0)) / np.maximum(features[used].std(axis=0), 1e-12)
    for _ in range(3):
        rows = np.concatenate([draws.choice(cell, min(map(len, cells)), replace=False) for cell in cells])
        draws.integers(2**31)
        assert labels[rows].mean() == 0.5 and groups[rows].mean() == 0.5
        logits.append(LogisticRegression(C=0.5, max_iter=1000).fit(standard[rows], labels[rows]).decision_function(standard))
    np.testing.assert_allclose(features @ coefficients + intercept, np.mean(logits, axis=0), rtol=1e-6, atol=1e-8)


def test_a_strong_l1_penalty_leaves_features_out(split_of):
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, 200).astype(float), rng.integers(0, 2, 200)
    features = rng.normal(size=(200, 8))
    features[:, 0] += 2 * labels
    coefficients, _ = refit(features, labels, groups, [0, 1], DfrSettings(c=0.05, n_refits=2), np.random.default_rng(0))
    assert coefficients[0] > 0.1 and (coefficients[1:] == 0).sum() >= 5


def test_a_group_needs_rows_of_both_values_and_unknown_is_no_group():
    groups = np.repeat([-1, 0, 1, 2, 3], 10)
    labels = np.tile([0.0, 1.0], 25)
    labels[20:30] = 0  # group 1 has no positive
    labels[30:39] = np.nan  # group 2 has one row
    assert usable_groups(labels, groups, 5) == ([0, 3], [1, 2])
    assert usable_groups(labels, np.full(50, -1), 5) == ([], [])


def test_a_group_that_stands_aside_is_named(split_of):
    rng = np.random.default_rng(1)
    calibration = split_of("calibration", n=300, race=rng.choice(["A", "B"], 300).tolist())
    labels = calibration.labels.copy()
    is_b = (calibration.attributes["race"] == "B").to_numpy()
    labels[is_b, 1] = 0
    race = np.where(is_b, "B", np.tile(["A", "C"], 150)).astype(object)
    changed = dataclasses.replace(calibration, labels=labels, attributes=calibration.attributes.assign(race=race))
    method = Dfr(DfrSettings(**SMALL, min_cell=5))
    train = split_of(race=["A", "B", "C"] * 20)
    head = method.fit(train, ONES, split_of("validation"), seed=0, calibration=changed)
    assert head.notes[0] == "finding 1: too few rows of B, left out of the refit"


@pytest.mark.parametrize("race", ["unknown", "A", "new"])
def test_without_two_known_groups_it_is_erm_and_every_finding_is_named(split_of, erm_weights, race):
    calibration = split_of("calibration", n=300, race=[race] * 300, sex=["F"] * 300)
    head = fitted(split_of, calibration)
    for own, erm in zip(head.model.get_weights(), erm_weights, strict=True):
        np.testing.assert_array_equal(own, erm)
    assert head.notes[-1].endswith("last layer as in erm: finding 0, finding 1, finding 2")


@pytest.mark.parametrize("settings", [{"hidden": ()}, {"demographics": ("sex",), "penalty": "l2"}])
def test_it_is_deterministic_and_comes_back_as_plain_layers(split_of, settings, tmp_path):
    calibration = split_of("calibration", n=300)
    head, again = (fitted(split_of, calibration, **settings) for _ in range(2))
    scores = head.predict(calibration.vectors, calibration.attributes)
    np.testing.assert_array_equal(scores, again.predict(calibration.vectors, calibration.attributes))
    assert {type(layer).__module__.split(".")[0] for layer in head.model.layers} == {"keras"}
    head.save(tmp_path)
    np.testing.assert_array_equal(
        Head.load(tmp_path, head.demographics).predict(calibration.vectors, calibration.attributes), scores
    )


@pytest.mark.parametrize(("name", "value"), [("c", 0.0), ("penalty", "l3"), ("n_refits", 0), ("min_cell", 0), ("dropout", 1.0)])
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(InputError, match=f"{name}.* (must be|in)"):
        DfrSettings(**{name: value})
