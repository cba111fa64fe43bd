"""A row teaches its own domain's classifier and the shared features; the head answers with the average."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special

from biascxr.models import HeadTrainer, build_mlp, features_of
from biascxr.models.domain_heads import DomainTrainer, build_domain_mlp
from biascxr.models.mlp import FINDINGS

RATE = 0.1
D, L = 5, 2
CODES = np.array([0, 2, 3])  # group 1 has no classifier of its own


def make(*, averages_logits: bool = True, codes: np.ndarray = CODES) -> DomainTrainer:
    keras.utils.set_random_seed(0)
    head = build_domain_mlp(D, L, len(codes), hidden=(4,), dropout=0.0, averages_logits=averages_logits)
    trainer = DomainTrainer(head, codes)
    trainer.compile(optimizer=keras.optimizers.SGD(RATE), run_eagerly=True)
    return trainer


def batch(group: list[int]) -> tuple[dict, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n = len(group)
    y = rng.integers(0, 2, (n, L)).astype(np.float32)
    return {"vector": rng.normal(size=(n, D)).astype(np.float32), "group": np.array(group, np.int32)}, y, np.ones(n, np.float32)


def moved(trainer: HeadTrainer, x: dict, y: np.ndarray, w: np.ndarray) -> list[np.ndarray]:
    start = trainer.head.get_weights()
    trainer.train_on_batch(x, y, sample_weight=w)
    return [after - before for after, before in zip(trainer.head.get_weights(), start, strict=True)]


@pytest.mark.parametrize("averages_logits", [True, False])
def test_the_head_answers_with_the_average_over_domains(averages_logits):
    head = make(averages_logits=averages_logits).head
    x = batch([0] * 6)[0]["vector"]
    kernel, bias = head.get_layer(FINDINGS).get_weights()
    features = ops.convert_to_numpy(features_of(head)(x))
    logits = (features @ kernel + bias).reshape(6, len(CODES), L)
    expected = special.expit(logits.mean(axis=1)) if averages_logits else special.expit(logits).mean(axis=1)
    np.testing.assert_allclose(head.predict(x, verbose=0), expected, rtol=1e-5)


def test_a_row_teaches_the_classifier_of_its_own_domain_alone():
    step = moved(make(), *batch([2, 2, 2]))  # code 2 is the second domain
    kernel = step[2].reshape(-1, len(CODES), L)
    assert (kernel[:, [0, 2]] == 0).all() and (np.abs(kernel[:, 1]) > 0).any()
    assert (np.abs(step[0]) > 0).any()  # and the shared features


def test_it_teaches_it_what_a_head_of_that_domain_would_learn():
    x, y, w = batch([2, 2, 2])
    trainer = make()
    weights = trainer.head.get_weights()
    alone = HeadTrainer(build_mlp(D, L, hidden=(4,), dropout=0.0))
    alone.compile(optimizer=keras.optimizers.SGD(RATE), run_eagerly=True)
    alone.head.set_weights([*weights[:2], weights[2].reshape(-1, len(CODES), L)[:, 1], weights[3].reshape(-1, L)[1]])
    ours, theirs = moved(trainer, x, y, w), moved(alone, x, y, w)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)
    np.testing.assert_allclose(ours[2].reshape(-1, len(CODES), L)[:, 1], theirs[2], atol=1e-6)


@pytest.mark.parametrize("averages_logits", [True, False])
@pytest.mark.parametrize("code", [-1, 1, 9])
def test_a_row_of_no_domain_teaches_the_average(averages_logits, code):
    x, y, w = batch([code] * 3)
    trainer, plain = make(averages_logits=averages_logits), HeadTrainer(make(averages_logits=averages_logits).head)
    plain.compile(optimizer=keras.optimizers.SGD(RATE), run_eagerly=True)
    for ours, theirs in zip(moved(trainer, x, y, w), moved(plain, x, y, w), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        assert np.abs(ours).max() > 0


def test_masked_labels_teach_nothing():
    x, y, w = batch([0, 2, 3])
    y[:] = np.nan
    assert all((step == 0).all() for step in moved(make(), x, y, w))


def test_it_holds_plain_keras_layers_only():
    assert {type(layer).__module__.split(".")[0] for layer in make().head.layers} == {"keras"}
