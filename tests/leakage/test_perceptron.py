"""The perceptron is the notebook's network, learns what a line cannot part, and stops by patients it does not learn from."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from biascxr.leakage import ProbeRows, find_probe, perceptron
from biascxr.leakage.base import macro_auroc


def circle(n: int, seed: int) -> ProbeRows:
    """Group 1 is the outside of a circle: no line parts the groups."""
    vectors = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    return ProbeRows(vectors, ((vectors**2).sum(1) > 1.4).astype(np.int64), np.arange(n).astype(str))


def test_it_reads_what_no_line_can():
    train, validation, test = (circle(n, seed) for seed, n in enumerate((1500, 300, 600)))
    found = {
        name: macro_auroc(
            test.codes, find_probe(name).read(train, [test.vectors], n_groups=2, validation=validation, seed=0).scores[0]
        )
        for name in ("perceptron", "logistic")
    }
    assert found["perceptron"] > 0.9
    assert found["logistic"] < 0.6


def test_the_layers_are_the_notebooks(monkeypatch):
    models = []
    fit = perceptron._fit
    monkeypatch.setattr(perceptron, "_fit", lambda *a: models.append(fit(*a)) or models[-1])
    monkeypatch.setattr(perceptron, "MAX_EPOCHS", 1)
    reading = find_probe("perceptron").read(circle(200, 0), [circle(9, 1).vectors], n_groups=2, seed=0)
    layers = models[0].layers
    assert [type(layer).__name__ for layer in layers] == ["InputLayer", "Dropout", "Dense", "BatchNormalization", "Dense"]
    assert layers[1].rate == 0.5 and layers[2].units == 512
    assert layers[2].activation is keras.activations.relu and layers[4].activation is keras.activations.softmax
    np.testing.assert_allclose(reading.scores[0].sum(1), 1, atol=1e-6)


def test_without_validation_rows_a_tenth_of_the_patients_stops_it_and_none_of_them_is_learned_from(monkeypatch):
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(50), 4)
    train = ProbeRows(rng.normal(size=(200, 3)).astype(np.float32), rng.integers(0, 2, 50)[patient], patient.astype(str))
    seen = []
    fit = perceptron._fit
    monkeypatch.setattr(perceptron, "_fit", lambda *a: seen.append((a[1], a[3])) or fit(*a))
    find_probe("perceptron").read(train, [train.vectors], n_groups=2, seed=0)
    learnt, stopping = seen[0]
    assert len(set(stopping.patient_id)) == 5 and len(stopping) == 20
    assert not set(train.patient_id[learnt]) & set(stopping.patient_id)
    assert len(learnt) == 180


def test_a_group_of_one_patient_is_learned_from_whatever_the_draw():
    codes = np.r_[0, np.ones(29, np.int64)]
    train = ProbeRows(np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32), codes, np.arange(30).astype(str))
    held = [perceptron._held_out(train, seed) for seed in range(40)]
    assert all((codes[~own] == 0).any() for own in held)
    assert {own.sum() for own in held} == {0, 3}


def test_it_stops_when_the_validation_loss_no_longer_falls_and_goes_back_to_its_best(monkeypatch):
    from biascxr.models import fit

    histories, plain = [], fit.fit_head
    monkeypatch.setattr(fit, "fit_head", lambda *a, **k: histories.append(plain(*a, **k)) or histories[-1])
    rng = np.random.default_rng(0)
    noise = ProbeRows(rng.normal(size=(300, 20)).astype(np.float32), rng.integers(0, 2, 300), np.arange(300).astype(str))
    validation = unrelated(noise)
    reading = find_probe("perceptron").read(
        noise, [validation.vectors], n_groups=2, validation=validation, is_balanced=True, seed=0
    )
    losses = histories[0]["val_loss"].to_numpy()
    assert len(losses) < perceptron.MAX_EPOCHS
    assert int(np.argmin(losses)) == len(losses) - 1 - perceptron.PATIENCE
    weights = 150 / np.bincount(noise.codes)[validation.codes]  # groups count alike in what stops, too
    own = -np.log(reading.scores[0][np.arange(300), validation.codes])
    assert np.average(own, weights=weights) == pytest.approx(losses.min(), rel=1e-4)
    assert np.average(own) != pytest.approx(losses.min(), rel=1e-4)


def unrelated(like: ProbeRows) -> ProbeRows:
    """Rows of the same kind whose groups follow from nothing."""
    rng = np.random.default_rng(1)
    return ProbeRows(rng.normal(size=like.vectors.shape).astype(np.float32), rng.integers(0, 2, len(like)), like.patient_id)


@pytest.mark.parametrize("n", [0, 1, 5000])
def test_scores_come_in_the_order_of_the_rows(n):
    vectors = np.random.default_rng(2).normal(size=(n, 2)).astype(np.float32)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "softmax")])
    scores = perceptron._read(model, vectors)
    assert scores.shape == (n, 2)
    if n:
        np.testing.assert_allclose(scores, model.predict(vectors, verbose=0), atol=1e-5)


def test_validation_rows_need_not_have_every_group():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(3), 60)
    train = ProbeRows((rng.normal(size=(180, 3)) + 3 * np.eye(3)[codes]).astype(np.float32), codes, np.arange(180).astype(str))
    rows = codes < 2
    without = ProbeRows(train.vectors[rows], codes[rows], train.patient_id[rows])
    scores = find_probe("perceptron").read(train, [train.vectors], n_groups=3, validation=without, seed=0).scores[0]
    assert scores.shape == (180, 3) and macro_auroc(codes, scores) > 0.9
