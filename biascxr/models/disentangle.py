"""FairREAD's networks and what they minimise: attributes are taken out of the features, then re-fused by `Refusion`."""

from __future__ import annotations

import keras
from keras import ops

from biascxr.models.feature_maps import pool, pooled, vector_input
from biascxr.models.gradient_reversal import GradientReversal
from biascxr.models.losses import masked_binary_crossentropy
from biascxr.models.mlp import FINDINGS, features_of
from biascxr.models.orthogonal import OrthogonalProjection
from biascxr.models.refusion import Bottleneck, Refusion
from biascxr.models.trainer import HeadTrainer, weighted_mean


def build_trunk(n_inputs: int, *, hidden: tuple[int, ...], dropout: float, feature_map: tuple[int, ...] = ()) -> keras.Model:
    """Builds hidden ReLU layers, each followed by dropout: what all heads of a method share.

    Dense acts on the last axis: on a map the same layers are 1x1 convolutions.

    Args:
        n_inputs: d, length of the vector.
        hidden: units of each layer, at least one.
        dropout: share of units dropped in training, in [0, 1).
        feature_map: (height, width, channels) of the map that a vector holds; empty where it is a vector.

    Returns:
        A functional model, `[n, d]` -> features `[n, h]`, or `[n, height, width, h]`.
    """
    vector, x = vector_input(n_inputs, feature_map)
    for index, units in enumerate(hidden):
        x = keras.layers.Dense(units, activation="relu", name=f"hidden_{index}")(x)
        x = keras.layers.Dropout(dropout, name=f"dropout_{index}")(x)
    return keras.Model(vector, x, name="trunk")


def build_plain(trunk: keras.Model, n_labels: int) -> keras.Model:
    """Builds trunk -> mean over the map -> L sigmoid; on vectors it is `build_mlp`'s."""
    return keras.Model(trunk.input, _findings(pooled(trunk.output), n_labels), name="mlp")


def build_projected(trunk: keras.Model, n_outputs: int, *, projection: int) -> keras.Model:
    """Builds trunk -> mean over the map -> Dense -> norm 1, which is z -> L sigmoid.

    z is what `features_of` gives. It is a linear probe of the trunk: penalties on z constrain what this probe shows, and the
    trunk as far as it must change for that.

    Args:
        trunk: see `build_trunk`; weights are shared.
        n_outputs: L, number of findings, or of attribute columns.
        projection: length of z.
    """
    # Biases off 0: where no unit of the trunk is on, z would be 0, whose norm has a gradient of a million millions.
    away = keras.initializers.RandomUniform(-0.05, 0.05)
    z = keras.layers.Dense(projection, bias_initializer=away, name="projection")(pooled(trunk.output))
    z = keras.layers.UnitNormalization(name="unit_norm")(z)
    return keras.Model(trunk.input, _findings(z, n_outputs), name="projected")


def build_refused(trunk: keras.Model, n_attributes: int, n_labels: int, *, refusion: Refusion) -> keras.Model:
    """Builds trunk -> `Refusion` with attributes -> mean over the map -> dropout -> L sigmoid.

    Args:
        trunk: see `build_trunk`; weights are shared.
        n_attributes: k, columns of the attributes.
        n_labels: L, number of findings.
        refusion: a new layer; its dropout is that of the last layer too.

    Returns:
        A functional model, `{"vector": [n, d], "demographics": [n, k]}` -> `[n, L]` probabilities.
    """
    demographics = keras.Input((n_attributes,), name="demographics")
    x = pooled(refusion(trunk.output, demographics))
    x = keras.layers.Dropout(refusion.dropout, name="dropout_refused")(x)
    return keras.Model({"vector": trunk.input, "demographics": demographics}, _findings(x, n_labels), name="refused")


def _findings(x, n_labels: int):
    return keras.layers.Dense(n_labels, activation="sigmoid", name=FINDINGS)(x)


def attribute_targets(encoded, widths: tuple[int, ...]):
    """Returns recorded attributes as labels, NaN where an attribute is unknown, so that losses leave it out.

    Args:
        encoded: `[n, k]`, attributes as inputs: 0/1 columns, all 0 for an unknown attribute; or one column, 0.5 if unknown.
        widths: columns of each attribute, k together; 1 is an attribute of two groups in one column.

    Returns:
        `[n, k]` in {0, 1, NaN}.
    """
    parts, start = [], 0
    for width in widths:
        own = encoded[:, start : start + width]
        is_known = ops.not_equal(own, 0.5) if width == 1 else ops.any(own > 0, axis=1, keepdims=True)
        parts.append(ops.where(is_known, own, ops.full_like(own, float("nan"))))
        start += width
    return ops.concatenate(parts, axis=1)


class AttributeAdversary(keras.layers.Layer):
    """Reads all attributes from features, `[n, h]` or `[n, height, width, h]` -> `[n, k]` probabilities; its gradient goes back
    reversed: gradient reversal -> `Bottleneck` -> mean over the map -> k sigmoid.

    It is a layer so that its mean loss of the epoch is among TensorBoard's scalars, see `Adversary`.

    Args:
        widths: columns of each attribute, see `attribute_targets`.
        strength: alpha, what the gradient with respect to the features is multiplied by, negated.
        reduction: of the bottleneck.
    """

    def __init__(self, widths: tuple[int, ...], strength: float, reduction: int) -> None:
        super().__init__(name="adversary")
        self.widths = widths
        self.reversal = GradientReversal(strength, name="reversal")
        self.bottleneck = Bottleneck(reduction)
        self.dense = keras.layers.Dense(sum(widths), activation="sigmoid")
        self.mean_loss = keras.metrics.Mean(name="adversary_loss")

    def build(self, input_shape) -> None:
        self.reversal.build(input_shape)
        self.bottleneck.build(input_shape)
        self.dense.build((None, input_shape[-1]))

    def call(self, features, training=None):
        return self.dense(pool(self.bottleneck(self.reversal(features), training=training)))

    def loss(self, scores, encoded, sample_weight):
        """Returns the mean over rows of the masked binary cross-entropy over columns, a scalar, from scores `[n, k]`."""
        targets = attribute_targets(encoded, self.widths)
        losses = ops.mean(masked_binary_crossentropy(targets, scores), axis=-1)
        self.mean_loss.update_state(losses, sample_weight=sample_weight)
        return weighted_mean(losses, sample_weight)


class DisentanglingTrainer(HeadTrainer):
    """Minimises the head's loss, that z shows what a sensitive model sees, and, for the trunk, that an adversary errs.

    `BCE(y, head(x)) + penalty(z, z_A) + BCE(attributes, adversary(reversal(trunk(x))))`; either of the last two may be left
    out. The batch's `demographics` are the attributes, also where the head does not take them.

    The published code hands `loss - alpha x adversary's BCE` to one optimizer that holds the adversary's weights too, so that
    the adversary is taught to fail, which hides nothing. Here it learns to read (its plain gradient), and the trunk gets that
    gradient times `-alpha`.

    Args:
        head: of `build_projected` where there is a projection, else also of `build_refused`.
        trunk: the head's, whose features the adversary reads.
        adversary: optional.
        projection: optional, knows the sensitive space; `sensitive` comes with it.
        sensitive: vectors `[n, d]` -> z_A `[n, k]`; it is frozen here.
    """

    def __init__(
        self, head: keras.Model, trunk: keras.Model, *, adversary: AttributeAdversary | None = None,
        projection: OrthogonalProjection | None = None, sensitive: keras.Model | None = None,
    ) -> None:  # fmt: skip
        super().__init__(head)
        self.adversary, self.projection, self.sensitive = adversary, projection, sensitive
        if sensitive is not None:
            sensitive.trainable = False
        outputs = {"scores": head.output, "features": trunk.output, "z": features_of(head).output}
        self.outputs_of = keras.Model(head.input, outputs, name="scores_features_and_z")

    def call(self, x, training=None):
        """Returns `scores [b, L]`, the trunk's `features`, `z`, and where they are used `z_sensitive` and `attributes`."""
        outputs = self.outputs_of(self.head_inputs(x), training=training)
        if self.projection is not None:
            outputs["z_sensitive"] = self.sensitive(x["vector"], training=False)
        if self.adversary is not None:
            outputs["attributes"] = self.adversary(outputs["features"], training=training)
        return outputs

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the sum of the losses, a scalar; a space that moves does so here."""
        loss = weighted_mean(self.row_losses(y, y_pred["scores"]), sample_weight)
        if self.projection is not None:
            z_sensitive = y_pred["z_sensitive"]
            if training and self.projection.moving:
                self.projection.follow(z_sensitive, sample_weight)
            loss = loss + self.projection.penalty(y_pred["z"], z_sensitive, y, sample_weight)
        if self.adversary is not None:
            loss = loss + self.adversary.loss(y_pred["attributes"], x["demographics"], sample_weight)
        return loss
