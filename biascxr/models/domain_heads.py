"""One classifier for each domain on shared features; together they are a head that needs no domain."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from biascxr.models.losses import masked_binary_crossentropy
from biascxr.models.mlp import FINDINGS, build_mlp, features_of
from biascxr.models.trainer import HeadTrainer, weighted_mean

BY_DOMAIN = "findings_by_domain"


def build_domain_mlp(
    n_inputs: int,
    n_labels: int,
    n_domains: int,
    *,
    hidden: tuple[int, ...],
    dropout: float,
    averages_logits: bool,
    n_demographics: int = 0,
) -> keras.Model:
    """Builds the network of `build_mlp` with one last layer for each domain, whose answers are averaged.

    It holds plain Keras layers only: the last layers are one dense layer of D L units, `findings`, whose outputs are put as
    `[D, L]` and averaged over the domains, before the sigmoid or behind it.

    Args:
        n_inputs: d, length of the vector.
        n_labels: L, number of findings.
        n_domains: D.
        hidden: units of each hidden layer.
        dropout: share of units dropped in training.
        averages_logits: whether logits are averaged, or else probabilities.
        n_demographics: see `build_mlp`.

    Returns:
        A functional model with the inputs and outputs of `build_mlp`: no domain is asked for.
    """
    trunk = features_of(build_mlp(n_inputs, n_labels, hidden=hidden, dropout=dropout, n_demographics=n_demographics))
    logits = keras.layers.Dense(n_domains * n_labels, name=FINDINGS)(trunk.output)
    by_domain = keras.layers.Reshape((n_domains, n_labels), name=BY_DOMAIN)(logits)
    sigmoid, average = keras.layers.Activation("sigmoid"), keras.layers.GlobalAveragePooling1D(name="mean_of_domains")
    outputs = sigmoid(average(by_domain)) if averages_logits else average(sigmoid(by_domain))
    return keras.Model(trunk.input, outputs, name="domain_mlp")


class DomainTrainer(HeadTrainer):
    """A row teaches its own domain's classifier; a row of no domain teaches the average that is used at inference.

    Args:
        head: see `build_domain_mlp`.
        domains: `[D] int`, the group code of each domain; rows of other groups, and of unknown group, are of no domain.
    """

    def __init__(self, head: keras.Model, domains: np.ndarray) -> None:
        super().__init__(head)
        by_domain = head.get_layer(BY_DOMAIN).output
        self.averaged_and_each = keras.Model(head.input, [head.output, by_domain], name="averaged_and_each")
        self.domains = np.asarray(domains, np.int32)

    def call(self, x, training=None):
        """Returns the averaged probabilities `[b, L]` and each domain's logits `[b, D, L]`."""
        return self.averaged_and_each(self.head_inputs(x), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the weighted mean of the rows' cross-entropies under the classifier that each is to teach."""
        averaged, logits = y_pred
        own = ops.equal(ops.expand_dims(ops.cast(x["group"], "int32"), 1), ops.expand_dims(self.domains, 0))  # [b, D]
        chosen = ops.sum(logits * ops.expand_dims(ops.cast(own, logits.dtype), 2), axis=1)  # [b, L]
        # A sigmoid first and the loss on probabilities, as in `erm`, so that with one domain both are the same.
        scores = ops.where(ops.expand_dims(ops.any(own, axis=1), 1), ops.sigmoid(chosen), averaged)
        return weighted_mean(ops.mean(masked_binary_crossentropy(y, scores), axis=-1), sample_weight)
