"""The focal loss is Keras's where nothing is masked, cross-entropy at gamma 0, and finite at the edges."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from biascxr.models import HeadTrainer, build_mlp, masked_binary_crossentropy
from biascxr.models.fit import compilation
from biascxr.models.focal import FocalTrainer, masked_focal_crossentropy


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.integers(0, 2, (20, 5)).astype(np.float32), rng.random((20, 5)).astype(np.float32)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.0), (2.0, 0.25), (0.5, 0.7), (0.0, 0.25)])
def test_it_is_keras_binary_focal_crossentropy(batch, gamma, alpha):
    peer = keras.losses.BinaryFocalCrossentropy(gamma=gamma, alpha=alpha, apply_class_balancing=alpha > 0, reduction=None)
    losses = ops.convert_to_numpy(masked_focal_crossentropy(*batch, gamma=gamma, alpha=alpha))
    np.testing.assert_allclose(losses.mean(axis=1), ops.convert_to_numpy(peer(*batch)), rtol=1e-5)


def test_gamma_zero_without_alpha_is_cross_entropy(batch):
    y, p = batch
    y[:, 2] = np.nan
    np.testing.assert_allclose(
        ops.convert_to_numpy(masked_focal_crossentropy(y, p, gamma=0.0)),
        ops.convert_to_numpy(masked_binary_crossentropy(y, p)),
        rtol=1e-6,
    )
    head = build_mlp(3, 5, hidden=(), dropout=0.0)
    focal, plain = (float(t.compute_loss(y=y, y_pred=p)) for t in (FocalTrainer(head, gamma=0.0), HeadTrainer(head)))
    assert focal == pytest.approx(plain, rel=1e-6)


def test_the_easier_a_row_the_less_it_counts():
    y, p = np.ones((3, 1), np.float32), np.array([[0.9], [0.5], [0.1]], np.float32)
    share = ops.convert_to_numpy(masked_focal_crossentropy(y, p, gamma=2.0) / masked_binary_crossentropy(y, p))
    np.testing.assert_allclose(share[:, 0], [0.01, 0.25, 0.81], rtol=1e-4)


def test_masked_labels_add_nothing(batch):
    y, p = batch
    y[:4, 1] = np.nan
    losses = ops.convert_to_numpy(masked_focal_crossentropy(y, p, gamma=2.0))
    assert (losses[:4, 1] == 0).all() and np.isfinite(losses).all() and (losses[4:] > 0).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_scores_of_zero_and_one_leave_the_gradient_finite(gamma):
    """A head so sure of itself that its probabilities round to 0 and 1, right and wrong, and a masked label."""
    head = build_mlp(1, 1, hidden=(), dropout=0.0)
    head.set_weights([np.array([[200.0]], np.float32), np.zeros(1, np.float32)])
    trainer = FocalTrainer(head, gamma=gamma, alpha=0.25)
    trainer.compile(optimizer=keras.optimizers.SGD(1.0), **compilation())
    vectors = np.array([[1.0], [-1.0], [1.0], [-1.0], [1.0]], np.float32)
    y = np.array([[1.0], [0.0], [0.0], [1.0], [np.nan]], np.float32)
    loss = trainer.train_on_batch({"vector": vectors, "group": np.zeros(5, np.int32)}, y)
    assert np.isfinite(float(np.ravel(loss)[0])) and all(np.isfinite(w).all() for w in head.get_weights())
