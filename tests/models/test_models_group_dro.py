"""GroupDRO's weights follow the worst cell; no gradient flows through them, and only training moves them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from biascxr.models import build_mlp
from biascxr.models.fit import compilation
from biascxr.models.group_dro import GroupDroTrainer, cell_sizes, label_cells

N, LABELS, GROUPS = 60, 2, 3
UNKNOWN_ROWS = slice(0, 5)


@pytest.fixture
def batch():
    """Probabilities that stay as they are, labels (one masked in ten) and groups (five rows unknown)."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (N, LABELS)).astype(np.float32)
    y[rng.random(y.shape) < 0.1] = np.nan
    group = (np.arange(N) % GROUPS).astype(np.int32)
    group[UNKNOWN_ROWS] = -1
    return {"group": group}, y, rng.uniform(0.05, 0.95, (N, LABELS)).astype(np.float32)


def trainer_of(y, group, *, step_size=0.1, adjustment=0.0, is_by_label=True, weights=None, n_groups=GROUPS) -> GroupDroTrainer:
    weights = np.ones(len(y)) if weights is None else weights
    sizes = cell_sizes(y, group, weights, n_groups, is_by_label=is_by_label)
    head = build_mlp(4, y.shape[1], hidden=(), dropout=0.0)
    return GroupDroTrainer(head, sizes, step_size=step_size, adjustment=adjustment, is_by_label=is_by_label)


def cell_means(y, p, group, weights=None) -> np.ndarray:
    """Mean loss of each cell, `[L, 2 G]`, written out."""
    weights = np.ones(len(y)) if weights is None else weights
    losses = -np.where(y == 1, np.log(p), np.log(1 - p))
    return np.array(
        [
            [np.average(losses[own, label], weights=weights[own]) for g in range(GROUPS) for value in (0, 1)
             for own in [(group == g) & (y[:, label] == value)]]
            for label in range(LABELS)
        ]
    )  # fmt: skip


def weights_of(trainer) -> np.ndarray:
    return ops.convert_to_numpy(trainer.q)


def test_under_fixed_losses_the_weights_are_the_softmax_of_step_size_times_their_sum(batch):
    x, y, p = batch
    trainer = trainer_of(y, x["group"])
    for _ in range(7):
        trainer.compute_loss(x=x, y=y, y_pred=p)
    raised = np.exp(0.1 * 7 * cell_means(y, p, x["group"]))
    np.testing.assert_allclose(weights_of(trainer), raised / raised.sum(axis=1, keepdims=True), rtol=1e-4)


def test_weights_sum_to_one_for_each_label_and_the_worst_cell_ends_with_nearly_all(batch):
    x, y, p = batch
    trainer = trainer_of(y, x["group"], step_size=5.0)
    losses = cell_means(y, p, x["group"])
    for _ in range(40):
        trainer.compute_loss(x=x, y=y, y_pred=p)
        np.testing.assert_allclose(weights_of(trainer).sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(weights_of(trainer).argmax(axis=1), losses.argmax(axis=1))
    assert (weights_of(trainer).max(axis=1) > 0.95).all()


def test_the_loss_is_the_weighted_sum_of_the_cells_under_the_new_weights(batch):
    x, y, p = batch
    trainer = trainer_of(y, x["group"], step_size=1.0)
    loss = float(trainer.compute_loss(x=x, y=y, y_pred=p))
    assert loss == pytest.approx((weights_of(trainer) * cell_means(y, p, x["group"])).sum(axis=1).mean(), rel=1e-5)


def test_evaluation_does_not_move_the_weights(batch):
    x, y, p = batch
    trainer = trainer_of(y, x["group"])
    before = weights_of(trainer)
    trainer.compute_loss(x=x, y=y, y_pred=p, training=False)
    np.testing.assert_array_equal(weights_of(trainer), before)


def test_cells_that_a_batch_lacks_keep_their_weight(batch):
    x, y, p = batch
    trainer = trainer_of(y, x["group"])
    trainer.compute_loss(x=x, y=y, y_pred=p)
    before = weights_of(trainer)
    here = x["group"] != 2
    trainer.compute_loss(x={"group": x["group"][here]}, y=y[here], y_pred=p[here])
    np.testing.assert_array_equal(weights_of(trainer)[:, 4:], before[:, 4:])
    assert (weights_of(trainer)[:, :4] != before[:, :4]).any()
    np.testing.assert_allclose(weights_of(trainer).sum(axis=1), 1, rtol=1e-5)


def test_a_batch_of_unknown_groups_alone_has_no_loss_and_moves_nothing(batch):
    x, y, p = batch
    trainer = trainer_of(y, x["group"])
    before = weights_of(trainer)
    assert float(trainer.compute_loss(x={"group": np.full(N, -1, np.int32)}, y=y, y_pred=p)) == 0
    np.testing.assert_array_equal(weights_of(trainer), before)


def test_unknown_groups_and_masked_labels_change_nothing(batch):
    x, y, p = batch
    moved = p.copy()
    moved[UNKNOWN_ROWS] = 0.999
    moved[np.isnan(y)] = 0.001
    first, other = (float(trainer_of(y, x["group"]).compute_loss(x=x, y=y, y_pred=scores)) for scores in (p, moved))
    assert first == other and np.isfinite(first)


def test_a_cell_without_a_training_row_has_no_weight_and_gets_none(batch):
    x, y, p = batch
    y = np.where((x["group"] == 1)[:, None], np.minimum(y, 0), y)  # group 1 has no positives
    trainer = trainer_of(y, x["group"])
    np.testing.assert_allclose(weights_of(trainer), np.tile([0.2, 0.2, 0.2, 0, 0.2, 0.2], (2, 1)))
    trainer.compute_loss(x=x, y=y, y_pred=p)
    assert (weights_of(trainer)[:, 3] == 0).all()
    np.testing.assert_allclose(weights_of(trainer).sum(axis=1), 1, rtol=1e-5)


def test_a_finding_that_is_masked_throughout_adds_nothing(batch):
    x, y, p = batch
    y[:, 1] = np.nan
    trainer = trainer_of(y, x["group"])
    loss = float(trainer.compute_loss(x=x, y=y, y_pred=p))
    assert np.isfinite(loss) and (weights_of(trainer)[1] == 0).all()
    alone = trainer_of(y[:, :1], x["group"])
    assert 2 * loss == pytest.approx(float(alone.compute_loss(x=x, y=y[:, :1], y_pred=p[:, :1])), rel=1e-6)


def test_a_row_of_twice_the_weight_is_as_two_rows(batch):
    x, y, p = batch
    weights = np.where(np.arange(N) % 4 == 0, 2, 1).astype(np.float32)
    copies = np.repeat(np.arange(N), weights.astype(int))
    weighted = trainer_of(y, x["group"], weights=weights, adjustment=1.0)
    copied = trainer_of(y[copies], x["group"][copies], adjustment=1.0)
    loss = float(weighted.compute_loss(x=x, y=y, y_pred=p, sample_weight=weights))
    assert loss == pytest.approx(
        float(copied.compute_loss(x={"group": x["group"][copies]}, y=y[copies], y_pred=p[copies])), rel=1e-5
    )
    np.testing.assert_allclose(weights_of(weighted), weights_of(copied), rtol=1e-5)
    assert loss != float(trainer_of(y, x["group"], adjustment=1.0).compute_loss(x=x, y=y, y_pred=p))


def test_with_equal_losses_the_adjustment_gives_the_small_cell_more():
    group = np.repeat([0, 1], [90, 10]).astype(np.int32)
    y = np.tile([0.0, 1.0], 50).astype(np.float32)[:, None]
    trainer = trainer_of(y, group, adjustment=2.0, step_size=1.0, n_groups=2)
    trainer.compute_loss(x={"group": group}, y=y, y_pred=np.full((100, 1), 0.5, np.float32))
    raised = np.exp(2 / np.sqrt([45, 45, 5, 5]))
    np.testing.assert_allclose(weights_of(trainer)[0], raised / raised.sum(), rtol=1e-5)


def test_groups_alone_have_the_mean_loss_of_their_known_labels(batch):
    x, y, p = batch
    trainer = trainer_of(y, x["group"], is_by_label=False)
    losses, _ = trainer.cell_losses(x["group"], y, p)
    known = -np.where(y == 1, np.log(p), np.log(1 - p)) + 0 * y
    np.testing.assert_allclose(
        ops.convert_to_numpy(losses)[0], [np.nanmean(known[x["group"] == g]) for g in range(GROUPS)], rtol=1e-5
    )
    assert weights_of(trainer).shape == (1, GROUPS)


def test_no_gradient_flows_through_the_weights():
    """One step of plain descent, rate 1, is the gradient of `sum q loss` with `q` held: the closed form of a logistic head."""
    rng = np.random.default_rng(1)
    vectors, group = rng.normal(size=(40, 4)).astype(np.float32), np.repeat([0, 1], 20).astype(np.int32)
    y = rng.integers(0, 2, (40, 1)).astype(np.float32)
    trainer = trainer_of(y, group, step_size=3.0, n_groups=2)
    kernel = rng.normal(size=(4, 1)).astype(np.float32)
    trainer.head.set_weights([kernel, np.zeros(1, np.float32)])
    trainer.compile(optimizer=keras.optimizers.SGD(1.0), **compilation())
    trainer.train_on_batch({"vector": vectors, "group": group}, y)

    p = 1 / (1 + np.exp(-vectors @ kernel))
    cells = label_cells(y, group)[:, 0]
    members = cells == np.arange(4)[:, None]  # [4, n]
    means = np.array([-np.log(np.where(y == 1, p, 1 - p))[own].mean() for own in members])
    q = np.exp(3 * means) / np.exp(3 * means).sum()
    row_weights = (q[:, None] * members / members.sum(axis=1, keepdims=True)).sum(axis=0)
    gradient = vectors.T @ (row_weights[:, None] * (p - y))
    np.testing.assert_allclose(kernel - ops.convert_to_numpy(trainer.head.get_weights()[0]), gradient, rtol=1e-3, atol=1e-5)


def test_cells_are_numbered_by_group_and_value():
    labels = np.array([[0, 1], [1, np.nan], [1, 0]], np.float32)
    np.testing.assert_array_equal(label_cells(labels, np.array([0, 2, -1])), [[0, 1], [5, -1], [-1, -1]])
    sizes = cell_sizes(labels, np.array([0, 2, -1]), np.array([1.0, 2.0, 4.0]), 3, is_by_label=True)
    np.testing.assert_array_equal(sizes, [[1, 0, 0, 0, 0, 2], [0, 1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(
        cell_sizes(labels, np.array([0, 2, -1]), np.array([1.0, 2.0, 4.0]), 3, is_by_label=False), [[1, 0, 2]]
    )
