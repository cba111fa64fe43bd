"""Two representations kept apart: what one shows shall not lie in the space of the other, nor be correlated with it."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

TINY = 1e-12


def subspace_basis(z: np.ndarray, energy: float = 0.99) -> np.ndarray:
    """Returns an orthonormal basis of the space in which a representation lives.

    Its vectors are the first r left singular vectors of `z^T`; r is the smallest number of them whose squared singular values
    hold the share `energy` of all. Rows are not centred, as in the paper: the mean is a direction too.

    Args:
        z: `[n, k]`.
        energy: share in (0, 1].

    Returns:
        U, `[k, r] float64`; r is 0 where z is zero or has no rows.

    Raises:
        ValueError: another energy.

    Reference: Deng et al., On fairness of medical image classification with multiple sensitive attributes via learning
    orthogonal representations, IPMI 2023, section 2.2.
    """
    _check_energy(energy)
    _, values, rows = np.linalg.svd(np.asarray(z, np.float64), full_matrices=False)
    held = np.cumsum(values**2)
    if len(held) == 0 or held[-1] == 0:
        return np.zeros((z.shape[1], 0))
    # The last of a sum may miss 1 by a rounding: an energy of 1 then asks for what is there.
    rank = min(int(np.searchsorted(held / held[-1], energy * (1 - TINY))) + 1, len(held))
    return rows[:rank].T


def column_penalty(z, basis, margin: float = 0.0, *, labels=None, weights=None):
    """What a representation shows within a space: `max(0, ||z U||_F^2 - margin) / n`.

    With labels it is taken within the rows of y = 0 and of y = 1 of each finding, each with its own n, and averaged over those
    classes that occur. As all classes share the basis, this differs from the plain form in what a row weighs: a rare class
    counts as much as a common one.

    Args:
        z: `[n, k]`.
        basis: U, `[k, r]`, orthonormal columns, or zero columns, which add nothing.
        margin: what is let pass, in units of the squared norm summed over rows, at least 0.
        labels: `[n, L]` in {0, 1, NaN}; a masked label is of neither class. None: the plain form.
        weights: `[n]`, at least 0; n is then their sum, and a row of weight 0 is not there. None: 1 each.

    Returns:
        A scalar; 0 where no row is left.

    Reference: Deng et al., IPMI 2023, column space orthogonality.
    """
    counted = class_weights(z, labels, weights)  # [n, C]
    shown = ops.sum(ops.square(ops.matmul(z, basis)), axis=1)  # [n]
    inside = ops.matmul(ops.expand_dims(shown, 0), counted)[0]  # [C]
    n = ops.sum(counted, axis=0)
    return _mean_of_classes(ops.maximum(inside - margin, 0.0) / ops.maximum(n, TINY), n)


def row_penalty(z, z_sensitive, margin: float = 0.0, *, labels=None, weights=None):
    """What two representations have in common over the rows: `max(0, ||z^T z_A||_F^2 - margin) / (k k_A)`, both centred.

    It is 0 where every column of one is uncorrelated with every column of the other. With labels it is taken within the rows of
    y = 0 and of y = 1 of each finding, centred there, and averaged over those classes that occur: what the labels alone make
    common is then no fault.

    Args:
        z: `[n, k]`.
        z_sensitive: `[n, k_A]`.
        margin: what is let pass, in units of the squared norm, at least 0. The norm grows with the square of the rows.
        labels: `[n, L]` in {0, 1, NaN}; a masked label is of neither class. None: the plain form.
        weights: `[n]`, at least 0; a row of weight 0 is not there. None: 1 each.

    Returns:
        A scalar; 0 where no row is left.

    Reference: Deng et al., IPMI 2023, row space orthogonality.
    """
    counted = ops.transpose(class_weights(z, labels, weights))  # [C, n]
    n = ops.sum(counted, axis=1)
    mean = ops.matmul(counted, z) / ops.expand_dims(ops.maximum(n, TINY), 1)  # [C, k]
    centred = ops.expand_dims(counted, 2) * (ops.expand_dims(z, 0) - ops.expand_dims(mean, 1))  # [C, n, k]
    # Each class of `centred` sums to 0 over the rows, so that centring the other side too would change nothing.
    common = ops.matmul(ops.transpose(centred, (0, 2, 1)), ops.expand_dims(z_sensitive, 0))  # [C, k, k_A]
    norms = ops.sum(ops.square(common), axis=(1, 2))
    return _mean_of_classes(ops.maximum(norms - margin, 0.0) / (z.shape[1] * z_sensitive.shape[1]), n)


def class_weights(z, labels, weights):
    """Returns what each row weighs in each class, `[n, C]`: a class of all rows, or C = 2L, y = 0 and y = 1 of each finding."""
    weights = ops.ones_like(z[:, 0]) if weights is None else ops.cast(ops.reshape(weights, (-1,)), z.dtype)
    if labels is None:
        return ops.expand_dims(weights, 1)
    # NaN equals neither 0 nor 1.
    is_of = ops.concatenate([ops.equal(labels, 0), ops.equal(labels, 1)], axis=1)
    return ops.cast(is_of, z.dtype) * ops.expand_dims(weights, 1)


def _mean_of_classes(values, n):
    """Returns the mean of `values [C]` over the classes that have rows."""
    occurs = ops.cast(n > 0, values.dtype)
    return ops.sum(values * occurs) / ops.maximum(ops.sum(occurs), 1.0)


def _check_energy(energy: float) -> None:
    if not 0 < energy <= 1:
        raise ValueError(f"energy must lie in (0, 1]; got {energy}.")


@keras.saving.register_keras_serializable(package="biascxr")
class OrthogonalProjection(keras.layers.Layer):
    """Holds the space of a sensitive representation, and keeps a target representation out of it.

    `column_weight x column_penalty + row_weight x row_penalty` is added to the loss while a model trains (`add_loss`; a model
    that overrides `compute_loss` adds `penalty(...)` itself). The target passes unchanged, or, `hard`, without its part in the
    space: `z - z U U^T`, also at prediction.

    The space is fixed by `adapt`, or it moves: in training, a running second moment `M <- momentum M + (1 - momentum) z_A^T z_A
    / n` is kept, and *every* step takes the basis from its eigenvectors anew (k = 128: a few milliseconds). M starts as 0, or
    as what `adapt` saw; a basis depends on no scale, so that the start needs no correction.

    ```python
    apart = OrthogonalProjection(energy=0.99)
    apart.adapt(z_sensitive_of_all_training_rows)
    target = apart(target, sensitive=z_sensitive)
    ```

    Follows Deng et al. 2023 and FairREAD (Gao et al. 2024, arXiv 2412.16373). Differs: one basis serves all classes of the
    conditional form, as a rare finding has too few rows for a basis of its own; the penalties of all findings are averaged.

    When it helps: the target shows the attributes along few directions that it does not need. When it harms: where the finding
    itself lies in the sensitive space, the target loses it. The column penalty compares coordinates: where two networks end in
    layers of their own, nothing ties their axes together, and the target can turn its axes and hide nothing; the row penalty
    depends on no axes, but sees only what is linear.

    Args:
        energy: share of the squared singular values that the space holds, in (0, 1].
        column_weight: of the penalty on what the target shows in the space, at least 0.
        row_weight: of the penalty on what both have in common over the rows, at least 0.
        margin: what either lets pass, at least 0.
        conditional: penalties within each label value; `call` then needs labels in training.
        moving: the space follows the sensitive representation in training.
        momentum: of the running second moment, in [0, 1).
        hard: take the space out of the target.

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self, energy: float = 0.99, column_weight: float = 1.0, row_weight: float = 1.0, margin: float = 0.0,
        conditional: bool = False, moving: bool = False, momentum: float = 0.9, hard: bool = False, **kwargs,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        _check_energy(energy)
        if not min(column_weight, row_weight, margin) >= 0:
            raise ValueError(f"column_weight, row_weight, margin must be at least 0; got {column_weight, row_weight, margin}.")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1); got {momentum}.")
        self.energy, self.column_weight, self.row_weight, self.margin = energy, column_weight, row_weight, margin
        self.conditional, self.moving, self.momentum, self.hard = conditional, moving, momentum, hard

    def build(self, target_shape, sensitive_shape=None, labels_shape=None, weights_shape=None) -> None:
        k = target_shape[-1]
        # Always [k, k], columns beyond the rank being 0, as the rank may change while shapes may not.
        self.basis = self.add_weight(shape=(k, k), initializer="zeros", trainable=False, name="basis")
        self.moment = None
        if self.moving:
            self.moment = self.add_weight(shape=(k, k), initializer="zeros", trainable=False, name="moment")

    def adapt(self, z_sensitive: np.ndarray) -> None:
        """Sets the space from the sensitive representation of many rows, `[n, k]`; k is the length of the target too.

        Raises:
            ValueError: another length than the target's.
        """
        if not self.built:
            self.build((None, z_sensitive.shape[1]))
        k = self.basis.shape[0]
        if z_sensitive.shape[1] != k:
            raise ValueError(f"adapt needs z_sensitive of [n, {k}], as long as the target; got {list(z_sensitive.shape)}.")
        basis = subspace_basis(z_sensitive, self.energy)
        self.basis.assign(np.pad(basis, ((0, 0), (0, k - basis.shape[1]))).astype(np.float32))
        if self.moment is not None:
            z = np.asarray(z_sensitive, np.float64)
            self.moment.assign((z.T @ z / max(len(z), 1)).astype(np.float32))

    def follow(self, z_sensitive, weights=None) -> None:
        """Moves the second moment by a batch `[n, k]`, and the basis with it."""
        weights = class_weights(z_sensitive, None, weights)  # [n, 1]
        batch = ops.matmul(ops.transpose(weights * z_sensitive), z_sensitive) / ops.maximum(ops.sum(weights), TINY)
        moment = self.momentum * self.moment + (1 - self.momentum) * ops.stop_gradient(batch)
        self.moment.assign(moment)
        values, vectors = ops.eigh(moment)  # rising
        values, vectors = ops.maximum(ops.flip(values), 0.0), ops.flip(vectors, axis=1)
        total = ops.sum(values)
        # A direction is needed as long as those before it do not hold the energy; one that holds nothing never is.
        before = ops.cumsum(values) - values
        needed = ops.logical_and(before < self.energy * total, values > 1e-7 * total)
        self.basis.assign(vectors * ops.cast(needed, vectors.dtype))

    def call(self, target, sensitive=None, labels=None, weights=None, training=None):
        """Returns the target `[n, k]`, and in training adds the penalties to the loss.

        Args:
            target: `[n, k]`.
            sensitive: `[n, k]`; without it there is no row penalty, and the space does not move.
            labels: `[n, L]` in {0, 1, NaN}, for the conditional form.
            weights: `[n]`.
            training: whether the model trains.
        """
        if training and self.moving and sensitive is not None:
            self.follow(sensitive, weights)
        if self.hard:
            target = target - ops.matmul(self.project(target), ops.transpose(self.basis))
        if training:
            self.add_loss(self.penalty(target, sensitive, labels, weights))
        return target

    def penalty(self, target, sensitive=None, labels=None, weights=None):
        """Returns the weighted sum of both penalties, a scalar; arguments as in `call`.

        Raises:
            ValueError: a conditional layer that was handed no labels.
        """
        if self.conditional and labels is None:
            raise ValueError("OrthogonalProjection(conditional=True) needs labels in training; got None.")
        chosen = {"labels": labels if self.conditional else None, "weights": weights}
        loss = self.column_weight * column_penalty(target, self.basis, self.margin, **chosen)
        if sensitive is not None:
            loss = loss + self.row_weight * row_penalty(target, sensitive, self.margin, **chosen)
        return loss

    def project(self, target):
        """Returns what the target shows in the space, `target U`: `[n, k]`, columns beyond the rank being 0."""
        return ops.matmul(target, self.basis)

    def compute_output_shape(self, target_shape, sensitive_shape=None, labels_shape=None, weights_shape=None):
        return target_shape

    def get_config(self) -> dict:
        names = ("energy", "column_weight", "row_weight", "margin", "conditional", "moving", "momentum", "hard")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
