"""Two-step optimisation: a head whose trunk makes a group softmax err, in some epochs to nothing else."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from biascxr.models.feature_maps import pooled, vector_input
from biascxr.models.mlp import FINDINGS, features_of
from biascxr.models.trainer import HeadTrainer, weighted_mean

FLOOR = 1e-3  # of a cross-entropy: a head of this one gives the right group a probability of 0.999


def reciprocal(loss):
    """Returns `1 / loss`, and below `FLOOR` its tangent there, so that value and gradient stay finite and none is 0.

    Args:
        loss: a cross-entropy, at least 0.
    """
    # Chosen, not added up: beside the tangent's slope of a million, float32 would lose that of `1 / loss`.
    return ops.where(loss > FLOOR, 1 / ops.maximum(loss, FLOOR), (2 - loss / FLOOR) / FLOOR)


def build_place_mlp(
    n_inputs: int,
    n_labels: int,
    *,
    hidden: tuple[int, ...],
    dropout: float,
    feature_map: tuple[int, int, int],
    n_demographics: int = 0,
) -> keras.Model:
    """Builds `build_mlp` for maps: its hidden layers act at each place (1x1 convolutions), then comes the mean over places.

    Args:
        n_inputs: d, length of the flattened map.
        n_labels: L, number of findings.
        hidden: units of each hidden layer.
        dropout: share of units dropped in training, in [0, 1).
        feature_map: (height, width, channels), see `vector_input`.
        n_demographics: k, length of a second input that is joined to the channels at every place; 0 for none.

    Returns:
        A functional model with the inputs, outputs and names of layers of `build_mlp`.
    """
    inputs, x = vector_input(n_inputs, feature_map)  # [n, d], [n, h, w, c]
    if n_demographics:
        height, width, _ = feature_map
        demographics = keras.Input((n_demographics,), name="demographics")
        repeated = keras.layers.RepeatVector(height * width, name="repeated")(demographics)  # [n, h w, k]
        at_places = keras.layers.Reshape((height, width, n_demographics), name="at_places")(repeated)
        x = keras.layers.Concatenate(name="joined")([x, at_places])  # [n, h, w, c + k]
        inputs = {"vector": inputs, "demographics": demographics}
    for index, units in enumerate(hidden):
        x = keras.layers.Dense(units, activation="relu", name=f"hidden_{index}")(x)
        x = keras.layers.Dropout(dropout, name=f"dropout_{index}")(x)
    outputs = keras.layers.Dense(n_labels, activation="sigmoid", name=FINDINGS)(pooled(x))
    return keras.Model(inputs, outputs, name="place_mlp")


class GroupHead(keras.layers.Layer):
    """One layer that tells the groups, features `[n, h]` -> logits `[n, K]`, with its mean loss of the epoch.

    Args:
        n_features: h.
        n_groups: K.
    """

    def __init__(self, n_features: int, n_groups: int) -> None:
        super().__init__(name="group_head")
        self.dense = keras.layers.Dense(n_groups)
        self.dense.build((None, n_features))  # here, as it is called in `compute_loss` alone, where nothing can be built
        self.mean_loss = keras.metrics.Mean(name="group_loss")
        self.built = True

    def call(self, features, is_frozen=False):
        """Returns logits; where it is frozen the gradient passes through it to the features and not into its weights."""
        weights = [ops.convert_to_tensor(weight) for weight in (self.dense.kernel, self.dense.bias)]
        kernel, bias = map(ops.stop_gradient, weights) if is_frozen else weights
        return ops.matmul(features, kernel) + bias


class TwoStepTrainer(HeadTrainer):
    """Minimises the findings' loss and the reciprocal of a group head's cross-entropy, or the latter alone.

    With `CE` the group head's mean cross-entropy over the rows of known group, by their weights, and R its `reciprocal`:

    - phase 0, the finding phase: `BCE(labels, head(x)) + finding_phase_weight x R(CE)`;
    - phase 1, the group phase: `group_phase_weight x R(CE)`.

    The trunk, which is the head up to its last layer, so learns features from which the group head errs. In a batch without
    a known group R is left out. `phase` is a weight that is not trained; `Phases` moves it.

    Args:
        head: see `build_mlp`; with at least one hidden layer.
        n_groups: K.
        finding_phase_weight: of R in the finding phase.
        group_phase_weight: of R in the group phase.
        group_head: `reciprocal`: the group head's own weights minimise R as well, as published; it learns to be wrong.
            `adversary`: they minimise `CE` in both phases, and only the trunk minimises R.
    """

    def __init__(
        self, head: keras.Model, *, n_groups: int, finding_phase_weight: float, group_phase_weight: float, group_head: str
    ) -> None:
        super().__init__(head)
        self.n_groups, self.is_adversary = n_groups, group_head == "adversary"
        self.finding_phase_weight, self.group_phase_weight = finding_phase_weight, group_phase_weight
        features = features_of(head)
        self.scores_and_features = keras.Model(head.input, [head.output, features.output], name="scores_and_features")
        self.group_head = GroupHead(features.output.shape[-1], n_groups)
        self.phase = self.add_weight(shape=(), initializer="zeros", trainable=False, name="phase")

    def call(self, x, training=None):
        """Returns the probabilities `[b, L]` and the features `[b, h]`."""
        return self.scores_and_features(self.head_inputs(x), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the loss of a batch in the present phase, a scalar."""
        scores, features = y_pred
        is_of = self.is_group(x["group"])
        counted = ops.sum(is_of, axis=1)
        if sample_weight is not None:
            counted = counted * ops.cast(ops.reshape(sample_weight, (-1,)), counted.dtype)
        losses = self.group_losses(features, is_of, is_frozen=self.is_adversary)
        self.group_head.mean_loss.update_state(losses, sample_weight=counted)
        weight = self.phase * self.group_phase_weight + (1 - self.phase) * self.finding_phase_weight
        total = (1 - self.phase) * weighted_mean(self.row_losses(y, scores), sample_weight)
        total = total + ops.where(ops.any(counted > 0), weight * reciprocal(mean_over_known(losses, counted)), 0.0)
        if self.is_adversary:
            total = total + mean_over_known(self.group_losses(ops.stop_gradient(features), is_of), counted)
        return total

    def group_losses(self, features, is_of, *, is_frozen: bool = False):
        """Returns the group head's cross-entropy of each row, `[b]`, 0 where the group is unknown."""
        return -ops.sum(is_of * ops.log_softmax(self.group_head(features, is_frozen=is_frozen), axis=-1), axis=-1)

    def is_group(self, group):
        """Returns 1 where a row is of a group, `[b, K] float32`; unknown is of none."""
        codes = ops.arange(self.n_groups, dtype="int32")
        own = ops.equal(ops.expand_dims(ops.cast(group, "int32"), 1), ops.expand_dims(codes, 0))
        return ops.cast(own, "float32")


def mean_over_known(losses, counted):
    """Returns the mean of losses by what their rows count, `[b]`, `[b]` -> scalar; 0 where none counts.

    The divisor is what is counted, not b: the reciprocal of a mean that unknown groups had made small would be large.
    """
    total = ops.sum(counted)
    return ops.sum(losses * counted) / ops.where(total > 0, total, ops.ones_like(total))


class Phases(keras.callbacks.Callback):
    """Begins each epoch in its phase, with that phase's learning rate and that phase's own state of Adam.

    The state is exchanged, as if each phase had an optimizer: the published phases are two compiled models. It matters. Adam
    divides a gradient by its mean square of the last thousand steps; with one state, what a weight of 1000 leaves there
    would hold up the findings for thousands of steps.

    Args:
        trainer: whose `phase` is set.
        every: one epoch in so many is a group phase: with 3 the third, the sixth, ...
        learning_rate: of the finding phase.
        group_learning_rate: of the group phase.
    """

    def __init__(self, trainer: TwoStepTrainer, *, every: int, learning_rate: float, group_learning_rate: float) -> None:
        super().__init__()
        self._trainer, self._every = trainer, every
        self._rates = (learning_rate, group_learning_rate)
        self._phase, self._state_of_other = 0, None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        phase, optimizer = int((epoch + 1) % self._every == 0), self.model.optimizer
        if phase != self._phase:
            state = [np.array(ops.convert_to_numpy(variable)) for variable in optimizer.variables]
            # Before its first step all of an Adam's state is 0.
            for variable, value in zip(optimizer.variables, self._state_of_other or map(np.zeros_like, state), strict=True):
                variable.assign(value)
            self._phase, self._state_of_other = phase, state
        optimizer.learning_rate = self._rates[phase]
        self._trainer.phase.assign(float(phase))
