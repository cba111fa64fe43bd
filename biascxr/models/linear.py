"""Logistic regression as a trainer: binary cross-entropy and an L2 penalty on the last layer's weights."""

from __future__ import annotations

import keras
from keras import ops

from biascxr.models.mlp import FINDINGS
from biascxr.models.trainer import HeadTrainer


class PenalisedTrainer(HeadTrainer):
    """Adds `l2 / (2 L) x (sum of the squared weights of the last layer)` to the loss; the intercepts are not penalised.

    The divisor L is that of `row_losses`: each finding then has its own penalised regression. A term of the loss and not
    Adam's decoupled weight decay, whose resting point is not the minimum of any penalised likelihood.

    Args:
        head: a functional model, see `build_mlp`.
        l2: strength of the penalty for one finding, beside its mean loss per row.
    """

    def __init__(self, head: keras.Model, *, l2: float) -> None:
        super().__init__(head)
        self.l2 = l2

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the weighted mean of the rows' losses and the penalty, a scalar."""
        kernel = self.head.get_layer(FINDINGS).kernel
        penalty = self.l2 / (2 * kernel.shape[1]) * ops.sum(ops.square(kernel))
        return super().compute_loss(x, y, y_pred, sample_weight, training) + penalty
