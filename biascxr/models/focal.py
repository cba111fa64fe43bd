"""Focal loss that leaves masked labels out."""

from __future__ import annotations

import keras
from keras import ops

from biascxr.models.losses import is_known, masked_binary_crossentropy
from biascxr.models.trainer import HeadTrainer


def masked_focal_crossentropy(y_true, y_pred, *, gamma: float, alpha: float = 0.0):
    """Focal loss of every label, 0 where the label is NaN: `-alpha_t (1 - p_t)^gamma log p_t`.

    `p_t` is the probability of the class that is labelled, `alpha_t` is alpha for a positive and 1 - alpha for a negative
    label. Probabilities are kept off 0 and 1 before the power, whose slope is infinite there where gamma < 1.

    Args:
        y_true: `[n, L]` in {0, 1, NaN}.
        y_pred: `[n, L]` probabilities.
        gamma: focusing parameter, at least 0; 0 leaves binary cross-entropy.
        alpha: weight of positive labels, in (0, 1); 0 weighs neither class.

    Returns:
        `[n, L]`.

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equations 4 and 5.
    """
    losses = masked_binary_crossentropy(y_true, y_pred)
    is_positive = ops.where(is_known(y_true), y_true, ops.zeros_like(y_true)) > 0.5
    p = ops.clip(y_pred, keras.config.epsilon(), 1 - keras.config.epsilon())
    factor = ops.power(ops.where(is_positive, 1 - p, p), gamma)
    if alpha:
        factor = factor * ops.where(is_positive, alpha, 1 - alpha)
    return factor * losses


class FocalTrainer(HeadTrainer):
    """Minimises the focal loss, a mean over labels and rows as binary cross-entropy is.

    Args:
        head: a functional model, see `build_mlp`.
        gamma: see `masked_focal_crossentropy`.
        alpha: likewise.
    """

    def __init__(self, head: keras.Model, *, gamma: float, alpha: float = 0.0) -> None:
        super().__init__(head)
        self.gamma, self.alpha = gamma, alpha

    def row_losses(self, y, y_pred):
        """Returns `[b]`: a row's focal loss, summed over its known labels and divided by L."""
        return ops.mean(masked_focal_crossentropy(y, y_pred, gamma=self.gamma, alpha=self.alpha), axis=-1)
