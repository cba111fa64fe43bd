"""Losses that leave masked labels out."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="biascxr")
class MaskedBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy over the labels that are known; NaN labels add nothing.

    `-sum_l m_l (y_l log p_l + (1 - y_l) log(1 - p_l)) / L` with `m_l = 0` where `y_l` is NaN. The divisor is L, not the
    number of known labels, so that every known label of every row counts the same. NaN is replaced before the logarithm:
    multiplying a NaN loss by 0 would leave NaN in the gradient.
    """

    def call(self, y_true, y_pred):
        """Returns `[n]`, one loss per row, from labels and probabilities `[n, L]`."""
        known = ops.logical_not(ops.isnan(y_true))
        filled = ops.where(known, y_true, ops.zeros_like(y_true))
        per_label = ops.binary_crossentropy(filled, y_pred)
        return ops.mean(ops.where(known, per_label, ops.zeros_like(per_label)), axis=-1)
