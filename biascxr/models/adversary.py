"""Adversaries: a second network that tries to read the group from the head's features, which learn to hide it."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from biascxr.models.gradient_reversal import GradientReversal
from biascxr.models.losses import is_known
from biascxr.models.mlp import features_of
from biascxr.models.trainer import HeadTrainer, weighted_mean

RAMP_STEEPNESS = 10.0  # gamma of Ganin et al., who kept it fixed
MAX_BALANCE = 10.0


@dataclass(frozen=True)
class AdversarySettings:
    """An adversary, and how its strength rises.

    Attributes:
        n_groups: K, number of groups.
        hidden: units of its hidden layers.
        strength: what the reversed gradient is multiplied by once it has risen.
        ramp_epochs: epochs over which it rises.
        steps_per_epoch: batches an epoch.
    """

    n_groups: int
    hidden: tuple[int, ...]
    strength: float
    ramp_epochs: int
    steps_per_epoch: int


def ramp(progress, strength: float):
    """Returns `strength (2 / (1 + exp(-10 p)) - 1)`: 0 at p = 0, nearly all of it from p = 1/2 on.

    Reference: Ganin et al., JMLR 2016, section 5.2.2.
    """
    return strength * (2 / (1 + ops.exp(-RAMP_STEEPNESS * progress)) - 1)


def balance_table(groups: np.ndarray, labels: np.ndarray, weights: np.ndarray, n_groups: int) -> np.ndarray:
    """Returns `1 / (K P(group | label))`, with which all groups weigh the same among the rows of one label value.

    Args:
        groups: `[n]`, -1 unknown, left out.
        labels: `[n, L]` in {0, 1, NaN}.
        weights: `[n]`.
        n_groups: K.

    Returns:
        `[K, L, 2] float32`, by group, label and value, at most 10 so that no single row outweighs a batch; 0 where a cell has
        no row.
    """
    is_group = (groups[:, None] == np.arange(n_groups)) * weights[:, None].astype(np.float64)  # [n, K]
    mass = np.stack([is_group.T @ (labels == value) for value in (0, 1)], axis=-1)  # [K, L, 2]
    even = mass.sum(axis=0) / n_groups
    return np.minimum(np.divide(even, mass, out=np.zeros_like(mass), where=mass > 0), MAX_BALANCE).astype(np.float32)


class Adversary(keras.layers.Layer):
    """A gradient reversal and a network that tells the groups, `[n, h]` -> logits `[n, K]`, with its mean loss of the epoch.

    It is a layer and no model, as Keras shows the metrics of layers, but not of models, within a model that trains.

    Args:
        n_features: h; the gradient with respect to these first inputs is reversed.
        n_conditions: further inputs behind them.
        hidden: units of the hidden layers.
        n_groups: K.
    """

    def __init__(self, n_features: int, n_conditions: int, hidden: tuple[int, ...], n_groups: int) -> None:
        super().__init__(name="adversary")
        self.reversal = GradientReversal(0.0, name="reversal")
        self.dense = [keras.layers.Dense(units, activation="relu") for units in hidden] + [keras.layers.Dense(n_groups)]
        self.mean_loss = keras.metrics.Mean(name="adversary_loss")
        # Built here, as the labels that it may see reach only `compute_loss`, where nothing can be built.
        self.reversal.build((None, n_features))
        for layer, width in zip(self.dense, (n_features + n_conditions, *hidden), strict=True):
            layer.build((None, width))
        self.built = True

    def call(self, features, conditions=()):
        """Returns logits, from features `[n, h]` and further inputs `[n, .]`."""
        x = self.reversal(features)
        x = ops.concatenate([x, *conditions], axis=-1) if conditions else x
        for layer in self.dense:
            x = layer(x)
        return x


class AdversarialTrainer(HeadTrainer):
    """Minimises the head's loss plus an adversary's, whose gradient reaches the head's features reversed.

    `BCE(labels, head(x)) + CE(group, adversary(reversal(features(x))))`, both the mean over all rows of the batch under their
    weights; rows of unknown group add nothing to the second. The adversary minimises its cross-entropy, the features maximise
    `strength` times it. At the optimum of the adversary that is `H(group | features)`, largest where they are independent.

    Args:
        head: see `build_mlp`; with at least one hidden layer.
        settings: the adversary's.
        n_conditions: numbers that the adversary sees beside the features.
    """

    def __init__(self, head: keras.Model, settings: AdversarySettings, *, n_conditions: int = 0) -> None:
        super().__init__(head)
        self.chosen = settings
        features = features_of(head)
        self.scores_and_features = keras.Model(head.input, [head.output, features.output], name="scores_and_features")
        self.adversary = Adversary(features.output.shape[-1], n_conditions, settings.hidden, settings.n_groups)
        self.step = self.add_weight(shape=(), initializer="zeros", trainable=False, name="step")

    def call(self, x, training=None):
        """Returns the probabilities `[b, L]` and the features `[b, h]`."""
        return self.scores_and_features(self.head_inputs(x), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the sum of both losses, a scalar, and moves the strength."""
        scores, features = y_pred
        if training:
            n_steps = self.chosen.ramp_epochs * self.chosen.steps_per_epoch
            progress = ops.minimum(self.step / n_steps, 1.0) if n_steps else 1.0
            self.adversary.reversal.strength.assign(ramp(progress, self.chosen.strength))
            self.step.assign(self.step + 1)
        losses = self.group_losses(features, x["group"], y)
        counted = self.group_weights(x["group"], y)
        if sample_weight is not None:
            counted = counted * ops.cast(ops.reshape(sample_weight, (-1,)), counted.dtype)
        self.adversary.mean_loss.update_state(losses, sample_weight=counted)
        return weighted_mean(self.row_losses(y, scores), sample_weight) + weighted_mean(losses, counted)

    def group_losses(self, features, group, y):
        """Returns the adversary's cross-entropy of each row, `[b]`, 0 where the group is unknown."""
        logits = self.adversary(features, self.conditions(y))
        own = ops.cast(self.is_group(group), logits.dtype)
        return -ops.sum(own * ops.log_softmax(logits, axis=-1), axis=-1)

    def is_group(self, group):
        """Returns where a row is of a group, `[b, K] bool`; unknown is of none."""
        codes = ops.arange(self.chosen.n_groups, dtype="int32")
        return ops.equal(ops.expand_dims(ops.cast(group, "int32"), 1), ops.expand_dims(codes, 0))

    def conditions(self, y):
        """Returns what the adversary sees beside the features."""
        return ()

    def group_weights(self, group, y):
        """Returns what a row weighs in the adversary's loss, `[b]`; 0 where the group is unknown."""
        return ops.cast(ops.any(self.is_group(group), axis=1), "float32")


class ConditionalAdversarialTrainer(AdversarialTrainer):
    """An adversary that sees the labels beside the features: what it can read from the labels already need not be hidden.

    Its optimum is `H(group | features, labels)`, largest where features and group are independent *within* each pattern of
    labels. Masked labels are 0 with an indicator of their own.

    Args:
        head: see `build_mlp`; with at least one hidden layer.
        settings: the adversary's; it needs a hidden layer, or its view of the features would not depend on the labels.
        balance: `[K, L, 2] float32`, see `balance_table`; None weighs rows as they are.
    """

    def __init__(self, head: keras.Model, settings: AdversarySettings, balance: np.ndarray | None) -> None:
        super().__init__(head, settings, n_conditions=2 * head.output.shape[-1])
        self.balance = balance

    def conditions(self, y):
        """Returns the labels, 0 where masked, and where they are known, both `[b, L]`."""
        known = is_known(y)
        return ops.where(known, y, ops.zeros_like(y)), ops.cast(known, y.dtype)

    def group_weights(self, group, y):
        """Returns the mean balance over a row's known labels; 1 where none is known."""
        plain = super().group_weights(group, y)
        if self.balance is None:
            return plain
        own = ops.cast(self.is_group(group), "float32")
        negative, positive = (ops.matmul(own, ops.convert_to_tensor(self.balance[:, :, value])) for value in (0, 1))  # [b, L]
        known = is_known(y)
        labels = ops.where(known, y, ops.zeros_like(y))
        balance = ops.where(known, labels * positive + (1 - labels) * negative, ops.zeros_like(y))
        n_known = ops.sum(ops.cast(known, "float32"), axis=1)
        return plain * ops.where(n_known > 0, ops.sum(balance, axis=1) / ops.maximum(n_known, 1.0), ops.ones_like(n_known))
