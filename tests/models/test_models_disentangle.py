"""FairREAD's loss term by term, and which way each part of the network is pushed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from biascxr.models import OrthogonalProjection, Refusion, build_mlp, column_penalty, features_of, row_penalty
from biascxr.models.disentangle import (
    AttributeAdversary,
    DisentanglingTrainer,
    attribute_targets,
    build_plain,
    build_projected,
    build_refused,
    build_trunk,
)

RNG = np.random.default_rng(0)
N, D = 20, 12
NAN = np.nan
WIDTHS = (2, 3)
ENCODED = np.concatenate([np.eye(2)[RNG.integers(2, size=N)], np.eye(3)[RNG.integers(3, size=N)]], axis=1).astype(np.float32)
ENCODED[:4, :2] = 0
ENCODED[2:6, 2:] = 0
X = {"vector": RNG.normal(size=(N, D)).astype(np.float32), "group": np.zeros(N, np.int32), "demographics": ENCODED}
Y = np.where(RNG.random((N, 2)) < 0.2, NAN, RNG.integers(2, size=(N, 2))).astype(np.float32)


def trainer_of(*, alpha=0.5, adversary=True, feature_map=(), **kwargs) -> DisentanglingTrainer:
    keras.utils.set_random_seed(0)
    trunk = build_trunk(D, hidden=(8, 6), dropout=0.0, feature_map=feature_map)
    head = build_projected(trunk, 2, projection=5)
    chosen = AttributeAdversary(WIDTHS, alpha, reduction=2) if adversary else None
    return DisentanglingTrainer(head, trunk, adversary=chosen, **kwargs)


def step(strength: float, feature_map: tuple[int, ...]) -> dict[str, list[np.ndarray]]:
    """How far weights move in one step of plain gradient descent on the adversary's loss alone: all labels are masked."""
    trainer = trainer_of(alpha=1.0, feature_map=feature_map)
    trainer(X)
    trainer.adversary.reversal.strength.assign(strength)
    parts = {"trunk": trainer.outputs_of.get_layer("hidden_0"), "adversary": trainer.adversary.dense}
    start = {name: part.get_weights() for name, part in parts.items()}
    trainer.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
    trainer.train_on_batch(X, np.full_like(Y, NAN))
    return {name: [w - s for w, s in zip(part.get_weights(), start[name], strict=True)] for name, part in parts.items()}


@pytest.mark.parametrize("feature_map", [(), (2, 2, 3)])
def test_the_trunk_gets_the_adversarys_gradient_times_minus_alpha_and_the_adversary_its_own(feature_map):
    plain = step(-1.0, feature_map)  # reversed twice: as if no reversal were there
    assert min(np.abs(moves[0]).max() for moves in plain.values()) > 1e-5
    for alpha in (0.0, 0.5, 2.0):
        moved = step(alpha, feature_map)
        for ours, theirs in zip(moved["trunk"], plain["trunk"], strict=True):
            np.testing.assert_allclose(ours, -alpha * theirs, rtol=1e-3, atol=1e-7)
        for ours, theirs in zip(moved["adversary"], plain["adversary"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-7)


def bce(y, p):
    losses = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return np.where(np.isnan(y), 0, losses).mean(axis=1)


def test_the_loss_is_the_sum_of_its_terms_by_hand():
    weights = RNG.random(N).astype(np.float32)
    sensitive = features_of(build_projected(build_trunk(D, hidden=(4,), dropout=0.0), 5, projection=5))
    z_a = ops.convert_to_numpy(sensitive(X["vector"]))
    projection = OrthogonalProjection(column_weight=2.0, row_weight=3.0, conditional=True)
    projection.adapt(z_a)
    trainer = trainer_of(projection=projection, sensitive=sensitive)
    y_pred = trainer(X, training=False)
    got = trainer.compute_loss(X, Y, y_pred, weights, training=False)
    targets = ENCODED.copy()
    targets[:4, :2], targets[2:6, 2:] = NAN, NAN
    p = {name: ops.convert_to_numpy(value) for name, value in y_pred.items()}
    expected = np.mean(weights * (bce(Y, p["scores"]) + bce(targets, p["attributes"])))
    expected += 2 * float(column_penalty(p["z"], projection.basis, labels=Y, weights=weights))
    expected += 3 * float(row_penalty(p["z"], z_a, labels=Y, weights=weights))
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    norms = np.linalg.norm(p["z"], axis=1)
    np.testing.assert_allclose(norms[norms > 0], 1, rtol=1e-5)  # 0 where no unit of the trunk is on


@pytest.mark.parametrize("moving", [False, True])
def test_the_sensitive_model_stays_as_it_is_and_its_space_moves_only_if_it_shall(moving):
    sensitive = features_of(build_projected(build_trunk(D, hidden=(4,), dropout=0.5), 5, projection=5))
    projection = OrthogonalProjection(moving=moving, energy=0.9)
    projection.adapt(RNG.normal(size=(9, 5)))
    trainer = trainer_of(projection=projection, sensitive=sensitive)
    before, basis = sensitive.get_weights(), ops.convert_to_numpy(projection.basis).copy()
    trainer.compile(optimizer="sgd", jit_compile=False)
    trainer.train_on_batch(X, Y)
    for ours, theirs in zip(sensitive.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert np.array_equal(projection.basis, basis) != moving


def test_attributes_as_labels_are_masked_where_unknown_in_either_coding():
    encoded = np.array([[1, 0, 0.0], [0, 0, 1.0], [0, 1, 0.5]], np.float32)
    expected = [[1, 0, 0], [NAN, NAN, 1], [0, 1, NAN]]
    np.testing.assert_array_equal(attribute_targets(encoded, (2, 1)), np.array(expected, np.float32))


def test_without_anything_to_disentangle_the_head_is_the_plain_one():
    keras.utils.set_random_seed(3)
    ours = build_plain(build_trunk(D, hidden=(8, 6), dropout=0.2), 2)
    keras.utils.set_random_seed(3)
    theirs = build_mlp(D, 2, hidden=(8, 6), dropout=0.2)
    np.testing.assert_array_equal(ours(X["vector"]), theirs(X["vector"]))


@pytest.mark.parametrize("feature_map", [(), (2, 2, 3)])
def test_stages_share_one_trunk_and_a_frozen_one_does_not_learn(feature_map):
    trunk = build_trunk(D, hidden=(8, 6), dropout=0.1, feature_map=feature_map)
    head = build_refused(trunk, 5, 2, refusion=Refusion(units=8, blocks=1))
    assert head({name: X[name] for name in head.input}).shape == (N, 2)
    kernels = {id(layer.kernel) for layer in trunk.layers if layer.name.startswith("hidden")}
    n_all = len(head.trainable_variables)
    assert len(kernels & {id(v) for v in head.variables}) == 2
    trunk.trainable = False
    assert len(head.trainable_variables) == n_all - 4
    assert features_of(head).output.shape == (None, 6)
