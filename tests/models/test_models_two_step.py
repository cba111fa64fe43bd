"""Both phases by hand, whom each head obeys, and an optimizer's state for each phase."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from biascxr.models import build_mlp, features_of
from biascxr.models.two_step import FLOOR, Phases, TwoStepTrainer, build_place_mlp, reciprocal

D, L, K = 5, 2, 3
RATE = 1e-3


def batch(seed: int = 0, n: int = 12) -> tuple[dict, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, (n, L)).astype(np.float32)
    y[0, 0] = y[3, 1] = np.nan
    group = rng.integers(-1, K, n).astype(np.int32)
    group[:2] = -1, 0
    return {"vector": rng.normal(size=(n, D)).astype(np.float32), "group": group}, y, rng.random(n).astype(np.float32) + 0.5


def make(group_head: str = "reciprocal", *, phase: int = 0, seed: int = 0) -> TwoStepTrainer:
    keras.utils.set_random_seed(seed)
    trainer = TwoStepTrainer(
        build_mlp(D, L, hidden=(4,), dropout=0.0),
        n_groups=K,
        finding_phase_weight=10.0,
        group_phase_weight=1000.0,
        group_head=group_head,
    )
    trainer.phase.assign(float(phase))
    trainer.compile(optimizer=keras.optimizers.SGD(RATE), run_eagerly=True)
    return trainer


def loss_of(trainer: TwoStepTrainer, x: dict, y: np.ndarray, w: np.ndarray) -> float:
    tensors = {name: ops.convert_to_tensor(part) for name, part in x.items()}
    return float(trainer.compute_loss(tensors, ops.convert_to_tensor(y), trainer(tensors), ops.convert_to_tensor(w)))


def group_crossentropy(features: np.ndarray, weights: list[np.ndarray], group: np.ndarray, w: np.ndarray) -> float:
    """The group head's mean cross-entropy over rows of known group, by hand."""
    logits = features.astype(np.float64) @ weights[0] + weights[1]
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    known = group >= 0
    return float(-(w[known] * log_p[known, group[known]]).sum() / w[known].sum())


def group_loss_of(trainer: TwoStepTrainer, x: dict, w: np.ndarray) -> float:
    features = ops.convert_to_numpy(features_of(trainer.head)(x["vector"]))
    return group_crossentropy(features, trainer.group_head.dense.get_weights(), x["group"], w)


@pytest.mark.parametrize("group_head", ["reciprocal", "adversary"])
@pytest.mark.parametrize("phase", [0, 1])
def test_the_loss_of_a_phase_is_what_its_equation_says(group_head, phase):
    x, y, w = batch()
    trainer = make(group_head, phase=phase)
    p = ops.convert_to_numpy(trainer.head(x["vector"])).astype(np.float64)
    findings = (w * np.nansum(-(y * np.log(p) + (1 - y) * np.log(1 - p)), axis=1) / L).mean()
    crossentropy = group_loss_of(trainer, x, w)
    expected = 1000 / crossentropy if phase else findings + 10 / crossentropy
    expected += crossentropy if group_head == "adversary" else 0
    assert loss_of(trainer, x, y, w) == pytest.approx(expected, rel=1e-5)
    assert float(trainer.group_head.mean_loss.result()) == pytest.approx(crossentropy, rel=1e-5)


@pytest.mark.parametrize("group_head", ["reciprocal", "adversary"])
def test_rows_of_unknown_group_add_nothing_to_the_group_term(group_head):
    x, y, w = batch()
    trainer = make(group_head, phase=1)
    expected = loss_of(trainer, x, y, w)
    known = x["group"] >= 0
    assert 0 < known.sum() < len(known)
    only_known = {name: part[known] for name, part in x.items()}
    assert loss_of(trainer, only_known, y[known], w[known]) == pytest.approx(expected, rel=1e-6)


def test_a_batch_without_a_known_group_teaches_its_findings_and_nothing_else():
    x, y, w = batch()
    x["group"][:] = -1
    trainer = make(phase=1)
    assert loss_of(trainer, x, y, w) == 0
    start = trainer.get_weights()
    trainer.train_on_batch(x, y, sample_weight=w)
    for before, after in zip(start, trainer.get_weights(), strict=True):
        np.testing.assert_array_equal(after[()], before[()])
    trainer.phase.assign(0)
    p = ops.convert_to_numpy(trainer.head(x["vector"])).astype(np.float64)
    findings = (w * np.nansum(-(y * np.log(p) + (1 - y) * np.log(1 - p)), axis=1) / L).mean()
    assert loss_of(trainer, x, y, w) == pytest.approx(findings, rel=1e-5)


@pytest.mark.parametrize(("group_head", "is_taught_to_err"), [("reciprocal", True), ("adversary", False)])
def test_the_trunk_raises_the_groups_crossentropy_and_the_group_head_only_as_published(group_head, is_taught_to_err):
    x, y, w = batch()
    trainer = make(group_head, phase=1)
    trunk, dense = features_of(trainer.head), trainer.group_head.dense
    features, weights = ops.convert_to_numpy(trunk(x["vector"])), dense.get_weights()
    before = group_crossentropy(features, weights, x["group"], w)
    trainer.optimizer.learning_rate = 1e-5  # a step so small that its direction is the gradient's, despite the weight of 1000
    trainer.train_on_batch(x, y, sample_weight=w)
    by_trunk = group_crossentropy(ops.convert_to_numpy(trunk(x["vector"])), weights, x["group"], w)
    by_head = group_crossentropy(features, dense.get_weights(), x["group"], w)
    assert by_trunk > before + 1e-5
    assert (by_head > before) == is_taught_to_err and by_head != before


@pytest.mark.parametrize("group_head", ["reciprocal", "adversary"])
def test_the_group_heads_step_is_that_of_the_derivative(group_head):
    x, y, w = batch()
    trainer = make(group_head, phase=1)
    trainer.optimizer.learning_rate = 1.0
    dense, crossentropy = trainer.group_head.dense, group_loss_of(trainer, x, w)
    kernel, bias = dense.get_weights()
    p = np.exp(ops.convert_to_numpy(features_of(trainer.head)(x["vector"])).astype(np.float64) @ kernel + bias)
    p /= p.sum(axis=1, keepdims=True)
    known = x["group"] >= 0
    of_crossentropy = (w[known, None] * (p - np.eye(K)[x["group"]])[known]).sum(axis=0) / w[known].sum()
    trainer.train_on_batch(x, y, sample_weight=w)
    outer = -1000 / crossentropy**2 if group_head == "reciprocal" else 1
    np.testing.assert_allclose(dense.get_weights()[1] - bias, -outer * of_crossentropy, rtol=1e-4, atol=1e-6)


def test_the_group_phase_leaves_the_last_layer_of_the_findings_alone():
    x, y, w = batch()
    moved = {}
    for phase in (0, 1):
        trainer = make(phase=phase)
        layer = trainer.head.get_layer("findings")
        before = layer.get_weights()
        trainer.train_on_batch(x, y, sample_weight=w)
        moved[phase] = max(np.abs(a - b).max() for a, b in zip(layer.get_weights(), before, strict=True))
    assert moved[1] == 0 < moved[0]


def test_the_reciprocal_is_one_over_a_loss_and_stays_finite_at_0():
    losses = np.array([0, FLOOR / 2, FLOOR, 0.5, 7], np.float32)
    values = ops.convert_to_numpy(reciprocal(ops.convert_to_tensor(losses)))
    np.testing.assert_allclose(values[2:], 1 / losses[2:], rtol=1e-6)
    np.testing.assert_allclose(values[:2], [2 / FLOOR, 1.5 / FLOOR], rtol=1e-6)  # the tangent at the floor


class StandIn:
    """What `Phases` needs of a model that trains."""

    def __init__(self, trainer: TwoStepTrainer) -> None:
        self.optimizer = keras.optimizers.Adam(0.5)
        self.optimizer.build(trainer.trainable_variables)


def test_every_third_epoch_is_a_group_phase_with_its_rate_and_each_phase_has_an_adam_of_its_own():
    trainer = make()
    phases = Phases(trainer, every=3, learning_rate=1e-2, group_learning_rate=1e-5)
    model = StandIn(trainer)
    phases.set_model(model)
    found, rates, steps = [], [], []
    ones = [ops.ones(variable.shape) for variable in trainer.trainable_variables]
    for epoch in range(7):
        phases.on_epoch_begin(epoch)
        found.append(float(trainer.phase))
        rates.append(float(model.optimizer.learning_rate))
        model.optimizer.apply([part * (1e3 if found[-1] else 1.0) for part in ones], trainer.trainable_variables)
        steps.append(int(model.optimizer.iterations))
        # The second moment of a constant gradient after t steps is (1 - 0.999^t) of its square, whatever the other phase had.
        second = max(float(ops.max(v)) for v in model.optimizer._velocities)
        assert second == pytest.approx((1 - 0.999 ** steps[-1]) * (1e6 if found[-1] else 1), rel=1e-3)
    assert found == [0, 0, 1, 0, 0, 1, 0]
    np.testing.assert_allclose(rates, [1e-2, 1e-2, 1e-5, 1e-2, 1e-2, 1e-5, 1e-2])
    assert steps == [1, 2, 1, 3, 4, 2, 5]


@pytest.mark.parametrize("n_demographics", [0, 2])
def test_on_maps_the_hidden_layers_are_those_of_the_mlp_at_each_place_and_the_mean_follows(n_demographics):
    keras.utils.set_random_seed(0)
    shape = (2, 3, 4)
    head = build_place_mlp(24, L, hidden=(6, 5), dropout=0.3, feature_map=shape, n_demographics=n_demographics)
    plain = build_mlp(4, L, hidden=(6, 5), dropout=0.3, n_demographics=n_demographics)
    plain.set_weights(head.get_weights())
    rng = np.random.default_rng(0)
    maps, demographics = rng.normal(size=(7, *shape)).astype(np.float32), rng.random((7, n_demographics)).astype(np.float32)

    def inputs(vectors):
        return {"vector": vectors, "demographics": demographics} if n_demographics else vectors

    features = ops.convert_to_numpy(features_of(head)(inputs(maps.reshape(7, -1))))
    places = [ops.convert_to_numpy(features_of(plain)(inputs(maps[:, i, j]))) for i in range(2) for j in range(3)]
    np.testing.assert_allclose(features, np.mean(places, axis=0), rtol=1e-5, atol=1e-6)
