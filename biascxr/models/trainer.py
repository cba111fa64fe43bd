"""What a training method minimises: a model around a head, whose `compute_loss` is the method."""

from __future__ import annotations

import keras
from keras import ops

from biascxr.models.losses import masked_binary_crossentropy


class HeadTrainer(keras.Model):
    """Wraps a head while it learns; empirical risk minimisation as it stands, other methods override a hook or two.

    A batch is `x = {"vector": [b, d], "group": [b] int32}` (with `"demographics": [b, k]` where the head takes them), labels
    `y [b, L]` in {0, 1, NaN} and weights `[b]`. Group -1 is unknown: a method masks it by equality. State of a method is a
    non-trainable variable that `compute_loss` assigns while training. Only the head is saved.

    Args:
        head: a functional model, see `build_mlp`.
    """

    def __init__(self, head: keras.Model) -> None:
        super().__init__(name="trainer")
        self.head = head
        self.takes_demographics = isinstance(head.input, dict)

    def head_inputs(self, x: dict):
        """Returns what the head takes, from a batch's inputs."""
        return {name: x[name] for name in ("vector", "demographics")} if self.takes_demographics else x["vector"]

    def call(self, x, training=None):
        """Returns what `compute_loss` needs: here the probabilities `[b, L]`."""
        return self.head(self.head_inputs(x), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the loss of a batch, a scalar: the weighted mean of `row_losses`."""
        return weighted_mean(self.row_losses(y, y_pred), sample_weight)

    def row_losses(self, y, y_pred):
        """Returns `[b]`: a row's binary cross-entropy, summed over its known labels and divided by L."""
        return ops.mean(masked_binary_crossentropy(y, y_pred), axis=-1)


def weighted_mean(values, weights):
    """Returns the sum of `values x weights` over the number of rows, as Keras weighs samples: `[b]`, `[b]` -> scalar.

    The divisor is b and not the sum of the weights, so that a row of weight 2 counts twice in whatever batch it falls.
    """
    return ops.mean(values if weights is None else values * ops.cast(ops.reshape(weights, (-1,)), values.dtype))
