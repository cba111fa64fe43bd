"""GroupDRO: a loss whose weights follow the worst group."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from biascxr.models.losses import is_known, masked_binary_crossentropy
from biascxr.models.trainer import HeadTrainer


class GroupDroTrainer(HeadTrainer):
    """Minimises `sum_c q_c x (mean loss of cell c)`, while `q` moves towards the cells of the largest loss.

    In each step of training, for the cells c that have rows in the batch, `q_c <- q_c exp(step_size x (loss_c + adjustment /
    sqrt(n_c)))`, normalised; the head's step is then taken with the new `q`, through which no gradient flows. A cell's loss is
    the mean over its rows in the batch by their weights; rows of unknown group and masked labels are in no cell.

    Cells that a batch lacks keep their `q`, and the others share what they had together. The authors' code gives an absent
    group the loss 0 instead, which is below every loss and so takes weight from a group for being rare.

    Args:
        head: a functional model, see `build_mlp`.
        sizes: training rows in each cell, by weight, `[L, 2 G]`: for each label the cells of group g and value y at `2 g + y`.
            With `is_by_label` False `[1, G]`: the groups, each with the mean over its rows' known labels. `q` starts even over
            the cells that have rows; one without never gets any.
        step_size: of `q`.
        adjustment: C of the generalisation adjustment; 0 for none.
        is_by_label: whether each label has cells, and weights, of its own; the loss is then the mean over labels.

    Reference:
        Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020, Algorithm 1 and section 3.3.
    """

    def __init__(
        self, head: keras.Model, sizes: np.ndarray, *, step_size: float, adjustment: float = 0.0, is_by_label: bool = True
    ) -> None:
        super().__init__(head)
        exists = sizes > 0
        self.step_size, self.is_by_label = step_size, is_by_label
        self.n_groups = sizes.shape[1] // 2 if is_by_label else sizes.shape[1]
        self.offsets = np.where(exists, adjustment / np.sqrt(np.where(exists, sizes, 1)), 0).astype(np.float32)
        even = (exists / np.maximum(exists.sum(axis=1, keepdims=True), 1)).astype(np.float32)
        self.q = self.add_weight(shape=even.shape, initializer="zeros", trainable=False, name="q")
        self.q.assign(even)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the loss of a batch, a scalar; while training it moves `q` first."""
        losses, is_present = self.cell_losses(x["group"], y, y_pred, sample_weight)
        if training:
            # Under JAX an assigned variable carries its gradient on; under TensorFlow it does not.
            self.q.assign(self.moved(ops.stop_gradient(losses), is_present))
        return ops.mean(ops.sum(self.q * losses, axis=-1))

    def cell_losses(self, group, y, y_pred, sample_weight=None):
        """Returns each cell's mean loss, 0 where the batch has no row of it, and whether it has: both of the shape of `q`."""
        members = self.membership(group, y)  # [b, L, C]
        if sample_weight is not None:
            members = members * ops.reshape(ops.cast(sample_weight, members.dtype), (-1, 1, 1))
        weighted = members * ops.expand_dims(masked_binary_crossentropy(y, y_pred), -1)
        axes = (0,) if self.is_by_label else (0, 1)
        total, weight = (ops.reshape(ops.sum(part, axis=axes), self.q.shape) for part in (weighted, members))
        is_present = weight > 0
        return total / ops.where(is_present, weight, ops.ones_like(weight)), is_present

    def membership(self, group, y):
        """Returns which cell each label of each row is in, `[b, L, C] float32`: one 1, or none."""
        known = is_known(y)
        own = ops.equal(ops.reshape(group, (-1, 1)), ops.reshape(ops.arange(self.n_groups, dtype=group.dtype), (1, -1)))
        if not self.is_by_label:
            return ops.cast(ops.logical_and(own[:, None, :], known[:, :, None]), "float32")
        value = ops.stack([ops.equal(y, 0), ops.equal(y, 1)], axis=-1)  # [b, L, 2], neither where masked
        crossed = ops.logical_and(own[:, None, :, None], value[:, :, None, :])  # [b, L, G, 2]
        return ops.cast(ops.reshape(crossed, (-1, y.shape[1], 2 * self.n_groups)), "float32")

    def moved(self, losses, is_present):
        """Returns `q` after one step towards the present cells of large loss; all arguments have the shape of `q`."""
        present = ops.cast(is_present, self.q.dtype)
        steps = self.step_size * (losses + self.offsets) * present
        raised = self.q * ops.exp(steps - ops.max(steps, axis=-1, keepdims=True)) * present
        total = ops.sum(raised, axis=-1, keepdims=True)
        share = ops.sum(self.q * present, axis=-1, keepdims=True)
        return self.q * (1 - present) + raised * share / ops.where(total > 0, total, ops.ones_like(total))


def label_cells(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Numbers the cell of each label of each row by group and value: `2 g + y`, -1 where either is not known.

    Args:
        labels: `[n, L]` in {0, 1, NaN}.
        groups: `[n]`, -1 unknown.

    Returns:
        `[n, L] int64`.
    """
    known = ~np.isnan(labels) & (groups >= 0)[:, None]
    return np.where(known, 2 * groups[:, None] + (labels == 1), -1)


def cell_sizes(labels: np.ndarray, groups: np.ndarray, weights: np.ndarray, n_groups: int, *, is_by_label: bool) -> np.ndarray:
    """Returns the rows in each cell, by weight, as `GroupDroTrainer` takes them: `[L, 2 G]`, or `[1, G]` not by label.

    Args:
        labels: `[n, L]` in {0, 1, NaN}.
        groups: `[n]`, -1 unknown.
        weights: `[n]`.
        n_groups: G.
        is_by_label: whether each label has cells of its own.
    """
    if not is_by_label:
        own = (groups >= 0) & ~np.isnan(labels).all(axis=1)
        return np.bincount(groups[own], weights=weights[own], minlength=n_groups)[None]
    codes = label_cells(labels, groups)
    return np.stack([np.bincount(c[c >= 0], weights=weights[c >= 0], minlength=2 * n_groups) for c in codes.T])
