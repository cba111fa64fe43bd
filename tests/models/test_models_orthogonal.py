"""Penalties against numpy by hand, the space against numpy's SVD, and what training with them does."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from biascxr.models import OrthogonalProjection, column_penalty, row_penalty, subspace_basis

RNG = np.random.default_rng(0)
N, K = 12, 5
Z, Z_A = (RNG.normal(size=(N, K)).astype(np.float32) for _ in range(2))
U = np.linalg.qr(RNG.normal(size=(K, 2)))[0].astype(np.float32)
# The first finding has rows of both values and two masked ones, the second no positive.
LABELS = np.stack([[0, 1, np.nan, 1, 0, 0, 1, np.nan, 1, 1, 0, 1], [0] * 11 + [np.nan]], axis=1).astype(np.float32)
WEIGHTS = np.array([1, 1, 1, 0, 1, 0, 2, 1, 1, 0.5, 1, 1], np.float32)


def column_by_hand(z, weights, margin):
    total = sum(w * np.sum((U.T @ row) ** 2) for w, row in zip(weights, z, strict=True))
    return max(0, total - margin) / weights.sum()


def row_by_hand(z, z_a, weights, margin):
    a, b = (v - np.average(v, axis=0, weights=weights) for v in (z, z_a))
    return max(0, np.linalg.norm(a.T @ (weights[:, None] * b)) ** 2 - margin) / (z.shape[1] * z_a.shape[1])


def within_classes(by_hand, weights):
    """The mean over (finding, value) pairs that occur."""
    masks = [LABELS[:, i] == value for i in range(2) for value in (0, 1)]
    return np.mean([by_hand(mask * weights) for mask in masks if mask.any()])


@pytest.mark.parametrize("margin", [0.0, 3.0, 1e6])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
class TestPenalties:
    def test_they_are_numpys_by_hand(self, margin, weights):
        w = np.ones(N) if weights is None else weights
        np.testing.assert_allclose(column_penalty(Z, U, margin, weights=weights), column_by_hand(Z, w, margin), rtol=1e-5)
        np.testing.assert_allclose(row_penalty(Z, Z_A, margin, weights=weights), row_by_hand(Z, Z_A, w, margin), rtol=1e-5)

    def test_with_labels_they_are_means_over_the_classes_that_occur_without_masked_labels(self, margin, weights):
        w = np.ones(N) if weights is None else weights
        got = column_penalty(Z, U, margin, labels=LABELS, weights=weights)
        np.testing.assert_allclose(got, within_classes(lambda own: column_by_hand(Z, own, margin), w), rtol=1e-5)
        got = row_penalty(Z, Z_A, margin, labels=LABELS, weights=weights)
        np.testing.assert_allclose(got, within_classes(lambda own: row_by_hand(Z, Z_A, own, margin), w), rtol=1e-4)


def test_a_row_of_weight_0_is_not_there():
    kept = np.arange(N) != 3
    weights = kept.astype(np.float32)
    for labels in (None, LABELS):
        own = None if labels is None else labels[kept]
        np.testing.assert_allclose(
            column_penalty(Z, U, labels=labels, weights=weights), column_penalty(Z[kept], U, labels=own), rtol=1e-5
        )
        np.testing.assert_allclose(
            row_penalty(Z, Z_A, labels=labels, weights=weights), row_penalty(Z[kept], Z_A[kept], labels=own), rtol=1e-5
        )


def test_what_the_label_alone_makes_common_is_a_fault_of_the_plain_form_only():
    y = np.tile([0.0, 1.0], 8).astype(np.float32)[:, None]
    noise = np.tile(np.repeat([-1.0, 1.0], 2), 4).astype(np.float32)  # uncorrelated with y and with `other`
    other = np.repeat([-1.0, 1.0], 8).astype(np.float32)
    z, z_a = y + 0.1 * noise[:, None], 3 * y + 0.1 * other[:, None]
    assert float(row_penalty(z, z_a)) > 1
    assert float(row_penalty(z, z_a, labels=y)) < 1e-8


def test_without_a_known_label_or_a_row_they_are_0_and_finite():
    for kwargs in ({"labels": np.full((N, 2), np.nan, np.float32)}, {"weights": np.zeros(N, np.float32)}):
        assert float(column_penalty(Z, U, **kwargs)) == 0 == float(row_penalty(Z, Z_A, **kwargs))


class TestBasis:
    SPREAD = np.random.default_rng(1).normal(size=(40, 6)) * np.array([10, 5, 2, 1, 0.1, 0.01])

    @pytest.mark.parametrize("energy", [0.5, 0.9, 0.99, 0.9999, 1.0])
    def test_it_is_orthonormal_and_the_smallest_that_holds_the_energy(self, energy):
        basis = subspace_basis(self.SPREAD, energy)
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-10)
        shares = [np.sum((self.SPREAD @ basis[:, :r]) ** 2) / np.sum(self.SPREAD**2) for r in range(basis.shape[1] + 1)]
        assert shares[-1] >= energy * (1 - 1e-9) > shares[-2]

    def test_it_is_the_left_singular_vectors_of_the_transpose_up_to_sign(self):
        basis, left = subspace_basis(self.SPREAD, 0.99), np.linalg.svd(self.SPREAD.T)[0]
        np.testing.assert_allclose(np.abs(np.sum(basis * left[:, : basis.shape[1]], axis=0)), 1, atol=1e-10)

    def test_of_nothing_it_is_empty_and_no_other_energy_is_taken(self):
        assert subspace_basis(np.zeros((4, 3))).shape == (3, 0) == subspace_basis(np.zeros((0, 3))).shape
        for energy in (0, 1.5):
            with pytest.raises(ValueError, match=rf"energy must lie in \(0, 1\]; got {energy}"):
                subspace_basis(Z, energy)


class TestLayer:
    # Two directions of the five hold all.
    SENSITIVE = (RNG.normal(size=(60, 2)) @ RNG.normal(size=(2, K))).astype(np.float32)

    def test_its_projection_shows_what_lies_in_the_adapted_space_and_nothing_else(self):
        layer = OrthogonalProjection(energy=1 - 1e-6)
        layer.adapt(self.SENSITIVE)
        basis = ops.convert_to_numpy(layer.basis)
        assert (basis[:, 2:] == 0).all() and np.linalg.matrix_rank(basis) == 2
        shown = np.linalg.norm(layer.project(self.SENSITIVE), axis=1)
        np.testing.assert_allclose(shown, np.linalg.norm(self.SENSITIVE, axis=1), rtol=1e-4)

    def test_hard_removal_is_idempotent_and_leaves_what_is_orthogonal(self):
        layer = OrthogonalProjection(hard=True)
        layer.adapt(self.SENSITIVE)
        once = layer(Z)
        np.testing.assert_allclose(layer.project(once), 0, atol=1e-5)
        np.testing.assert_allclose(layer(once), once, atol=1e-5)
        assert np.abs(once - Z).max() > 0.1

    def test_without_hard_the_target_passes_to_the_last_bit_and_only_training_adds_a_loss(self):
        layer = OrthogonalProjection(column_weight=2.0, row_weight=0.5, margin=0.1, conditional=True)
        layer.adapt(self.SENSITIVE)
        np.testing.assert_array_equal(layer(Z, Z_A, training=False), Z)
        assert layer.losses == []
        np.testing.assert_array_equal(layer(Z, Z_A, LABELS, WEIGHTS, training=True), Z)
        expected = 2 * column_penalty(Z, layer.basis, 0.1, labels=LABELS, weights=WEIGHTS)
        expected = expected + 0.5 * row_penalty(Z, Z_A, 0.1, labels=LABELS, weights=WEIGHTS)
        np.testing.assert_allclose(layer.losses, [expected], rtol=1e-6)

    def test_a_space_that_moves_comes_to_be_the_fixed_one(self):
        fixed, moving = OrthogonalProjection(), OrthogonalProjection(moving=True, momentum=0.5)
        fixed.adapt(self.SENSITIVE)
        moving(Z, sensitive=10 * Z_A, training=True)  # forgotten after the others
        away = np.abs(ops.matmul(moving.basis, ops.transpose(moving.basis)) - fixed.basis @ ops.transpose(fixed.basis)).max()
        for _ in range(30):
            moving(np.ones((60, K), np.float32), sensitive=self.SENSITIVE, training=True)
        projectors = [ops.convert_to_numpy(b @ ops.transpose(b)) for b in (moving.basis, fixed.basis)]
        np.testing.assert_allclose(*projectors, atol=1e-4)
        assert away > 0.1
        kept = ops.convert_to_numpy(moving.basis)
        moving(Z, sensitive=Z_A, training=False)
        np.testing.assert_array_equal(moving.basis, kept)

    @pytest.mark.parametrize("moving", [False, True])
    def test_trained_by_the_column_penalty_alone_z_leaves_the_space(self, moving):
        keras.utils.set_random_seed(0)
        layer = OrthogonalProjection(row_weight=0.0, moving=moving)
        layer.adapt(self.SENSITIVE)
        x = RNG.normal(size=(60, 8)).astype(np.float32)
        vector, sensitive = keras.Input((8,)), keras.Input((K,))
        z = keras.layers.UnitNormalization()(keras.layers.Dense(K)(vector))
        model = keras.Model([vector, sensitive], layer(z, sensitive=sensitive))
        before = np.linalg.norm(layer.project(model([x, self.SENSITIVE], training=False)))
        model.compile(optimizer=keras.optimizers.Adam(0.03), jit_compile=False)
        model.fit([x, self.SENSITIVE], batch_size=60, epochs=200, verbose=0)
        z = ops.convert_to_numpy(model([x, self.SENSITIVE], training=False))
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-4)  # it did not merely shrink
        assert np.linalg.norm(layer.project(z)) < 0.05 * before

    def test_it_comes_back_from_disk_in_safe_mode(self, tmp_path):
        layer = OrthogonalProjection(energy=0.9, hard=True, moving=True, momentum=0.3, name="apart")
        inputs = keras.Input((K,))
        model = keras.Model(inputs, layer(inputs))
        layer.adapt(self.SENSITIVE)
        model.save(tmp_path / "m.keras")
        again = keras.models.load_model(tmp_path / "m.keras", safe_mode=True)
        assert again.get_layer("apart").get_config() == layer.get_config()
        np.testing.assert_array_equal(again(Z), model(Z))
        assert np.abs(model(Z) - Z).max() > 0.1

    def test_what_it_cannot_take_is_named(self):
        for wrong, message in (
            ({"row_weight": -1.0}, r"row_weight, margin must be at least 0; got \(1.0, -1.0, 0.0\)"),
            ({"momentum": 1.0}, r"momentum must lie in \[0, 1\); got 1.0"),
            ({"energy": 0.0}, "energy must lie"),
        ):
            with pytest.raises(ValueError, match=message):
                OrthogonalProjection(**wrong)
        layer = OrthogonalProjection(conditional=True)
        layer.adapt(self.SENSITIVE)
        with pytest.raises(ValueError, match=r"needs z_sensitive of \[n, 5\], as long as the target; got \[4, 3\]"):
            layer.adapt(np.ones((4, 3), np.float32))
        with pytest.raises(ValueError, match="needs labels in training; got None"):
            layer(Z, Z_A, training=True)
