"""Losses that leave masked labels out."""

from __future__ import annotations

import keras
from keras import ops


def masked_binary_crossentropy(y_true, y_pred):
    """Binary cross-entropy of every label, 0 where the label is NaN.

    NaN is replaced before the logarithm: multiplying a NaN loss by 0 would leave NaN in the gradient.

    Args:
        y_true: `[n, L]` in {0, 1, NaN}, or soft labels in [0, 1].
        y_pred: `[n, L]` probabilities.

    Returns:
        `[n, L]`.
    """
    known = is_known(y_true)
    filled = ops.where(known, y_true, ops.zeros_like(y_true))
    return ops.where(known, ops.binary_crossentropy(filled, y_pred), ops.zeros_like(y_pred))


def is_known(y_true):
    """Returns where a label is not masked: `[n, L] bool`."""
    return ops.logical_not(ops.isnan(y_true))


@keras.saving.register_keras_serializable(package="biascxr")
class MaskedBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy over the labels that are known; NaN labels add nothing.

    `-sum_l m_l (y_l log p_l + (1 - y_l) log(1 - p_l)) / L` with `m_l = 0` where `y_l` is NaN. The divisor is L, not the
    number of known labels, so that every known label of every row counts the same.
    """

    def call(self, y_true, y_pred):
        """Returns `[n]`, one loss per row, from labels and probabilities `[n, L]`."""
        return ops.mean(masked_binary_crossentropy(y_true, y_pred), axis=-1)
