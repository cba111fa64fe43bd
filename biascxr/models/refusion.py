"""Re-fusion: recorded attributes change what a network makes of its features, by a scale for every channel."""

from __future__ import annotations

import keras
from keras import ops

from biascxr.models.feature_maps import pool

ENCODERS = {"simple": (2,), "deep": (8, 4, 2)}  # units of the attribute encoder's layers, as parts of `units`
# Batch normalisation as where the method was published: its moving averages must settle within few, short epochs.
NORMALISATION = {"momentum": 0.9, "epsilon": 1e-5}


@keras.saving.register_keras_serializable(package="biascxr")
class Bottleneck(keras.layers.Layer):
    """Three convolutions, 1x1 to fewer channels, 3x3, 1x1 back, each without bias and normalised over the batch; then ReLU.

    No input is added to the output. On vectors all three are Dense layers: a 1x1 convolution is one, and a 3x3 convolution at
    a single place has no neighbours, so that only its middle counts.

    Args:
        reduction: by what the channels are divided in between; at least one is left.
    """

    def __init__(self, reduction: int = 8, **kwargs) -> None:
        super().__init__(**kwargs)
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1; got {reduction}.")
        self.reduction = reduction

    def build(self, input_shape) -> None:
        channels = input_shape[-1]
        fewer = max(channels // self.reduction, 1)
        is_map = len(input_shape) == 4
        middle = keras.layers.Conv2D(fewer, 3, padding="same", use_bias=False) if is_map else _dense(fewer)
        # Dense acts on the last axis: on a map it is the 1x1 convolution.
        self.convolutions = [_dense(fewer), middle, _dense(channels)]
        self.normalisations = [keras.layers.BatchNormalization(**NORMALISATION) for _ in self.convolutions]
        shape = tuple(input_shape)
        for convolution, normalisation in zip(self.convolutions, self.normalisations, strict=True):
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
            normalisation.build(shape)

    def call(self, features, training=None):
        """Returns features of the same shape, `[n, c]` or `[n, h, w, c]`."""
        for convolution, normalisation in zip(self.convolutions, self.normalisations, strict=True):
            features = normalisation(convolution(features), training=training)
        return ops.relu(features)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self) -> dict:
        return {**super().get_config(), "reduction": self.reduction}


def _dense(units: int) -> keras.layers.Layer:
    return keras.layers.Dense(units, use_bias=False)


@keras.saving.register_keras_serializable(package="biascxr")
class RescaleBlock(keras.layers.Layer):
    """One block of the cascade: a scale for every channel, from the features and a given mean and std; then a `Bottleneck`.

    `s = ReLU(W_2 dropout(ReLU(W_1 dropout(pool(x))) std + mean))`, `y = bottleneck(x s)`; `normalise` divides the inner ReLU by
    its norm before std and mean come in.

    Args:
        units: length of mean and std.
        dropout: share dropped before either linear layer.
        reduction: of the bottleneck.
        normalise: see above.
    """

    def __init__(self, units: int, dropout: float, reduction: int, normalise: bool, **kwargs) -> None:
        super().__init__(**kwargs)
        self.units, self.dropout, self.reduction, self.normalise = units, dropout, reduction, normalise
        self.bottleneck = Bottleneck(reduction)
        self.down = keras.layers.Dense(units, activation="relu")
        self.drops = [keras.layers.Dropout(dropout), keras.layers.Dropout(dropout)]

    def build(self, features_shape, mean_shape=None, std_shape=None) -> None:
        channels = features_shape[-1]
        self.down.build((None, channels))
        self.up = keras.layers.Dense(channels, activation="relu")
        self.up.build((None, self.units))
        self.bottleneck.build(features_shape)

    def call(self, features, mean, std, training=None):
        """Returns features of the same shape; mean and std are `[n, units]`, or a number for all."""
        inner = self.down(self.drops[0](pool(features), training=training))
        # An epsilon far above the usual one: where no unit is on, the gradient would be as large as its inverse.
        inner = ops.normalize(inner, axis=-1, epsilon=1e-3) if self.normalise else inner
        scale = self.up(self.drops[1](inner * std + mean, training=training))  # [n, c]
        if len(features.shape) == 4:
            scale = ops.expand_dims(scale, (1, 2))
        return self.bottleneck(features * scale, training=training)

    def compute_output_shape(self, features_shape, mean_shape=None, std_shape=None):
        return tuple(features_shape)

    def get_config(self) -> dict:
        names = ("units", "dropout", "reduction", "normalise")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="biascxr")
class Refusion(keras.layers.Layer):
    """Recorded attributes re-enter a network: they say by how much every channel of the features counts.

    Attributes `[n, k]` go through an encoder (`simple`: one layer of units/2; `deep`: units/8, units/4, units/2; each dropout,
    Dense, ReLU) and two linear decoders, each behind dropout, to mean and std, `[n, units]`. A cascade of `blocks`, all with
    the same mean and std, rescales the features (`RescaleBlock`).

    ```python
    refused = Refusion(units=256, blocks=2)(features, attributes)
    ```

    The std begins around 1 and the mean around 0, whatever the attributes, so that a new layer treats all rows alike, those of
    unknown attributes (all 0) too; the encoder's biases begin uniform in `+-1 / sqrt(inputs)`. With biases of 0, whoever's
    attributes are all 0 would get scales of 0: no image would count for them, and no gradient would change that.

    Follows FairREAD (Gao, Hao and Zhou, arXiv 2412.16373, stage 2). Differs on vectors: see `Bottleneck`; the std's biases,
    which there begin around 0. Channels fewer than `reduction` leave one in the bottleneck.

    When it helps: a finding looks different, or is differently common, in groups, and the features were made to hide which
    group it is. When it harms: what it outputs depends on what was recorded; a wrong or missing record changes a prediction.

    Args:
        units: length of mean and std.
        blocks: of the cascade.
        dropout: share dropped before each Dense layer but the bottleneck's, in [0, 1).
        reduction: by what a bottleneck divides the channels.
        encoder: `simple` or `deep`.
        normalise: pooled features of norm 1 before std and mean come in.

    Raises:
        ValueError: an unknown encoder, fewer than 1 of units, blocks or reduction.
    """

    def __init__(
        self, units: int = 256, blocks: int = 2, dropout: float = 0.1, reduction: int = 8, encoder: str = "simple",
        normalise: bool = False, **kwargs,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        if encoder not in ENCODERS:
            raise ValueError(f"encoder must be one of {sorted(ENCODERS)}; got {encoder!r}.")
        if min(units, blocks, reduction) < 1:
            raise ValueError(f"units, blocks and reduction must be at least 1; got {units}, {blocks} and {reduction}.")
        self.units, self.blocks, self.dropout, self.reduction = units, blocks, dropout, reduction
        self.encoder, self.normalise = encoder, normalise
        widths = [max(units // part, 1) for part in ENCODERS[encoder]]
        self.encoding = [keras.layers.Dense(width, activation="relu") for width in widths]
        self.mean, self.std = keras.layers.Dense(units), keras.layers.Dense(units, bias_initializer="ones")
        self.drops = [keras.layers.Dropout(dropout) for _ in range(len(widths) + 2)]
        self.cascade = [RescaleBlock(units, dropout, reduction, normalise) for _ in range(blocks)]

    def build(self, inputs_shape, attributes_shape=None) -> None:
        features_shape, attributes_shape = _both(inputs_shape, attributes_shape)
        shape = (None, attributes_shape[-1])
        for layer in self.encoding:
            # Attributes that are all 0 are a group as any other, or nobody's: with biases of 0 no gradient would reach it.
            bound = shape[-1] ** -0.5
            layer.bias_initializer = keras.initializers.RandomUniform(-bound, bound)
            layer.build(shape)
            shape = (None, layer.units)
        self.mean.build(shape)
        self.std.build(shape)
        for block in self.cascade:
            block.build(features_shape)

    def call(self, inputs, attributes=None, training=None):
        """Returns features of the shape they had.

        Args:
            inputs: features `[n, c]` or `[n, h, w, c]`; or the pair (features, attributes).
            attributes: `[n, k]`, where inputs are features only.
            training: whether dropout acts and batches are normalised by themselves.
        """
        features, attributes = _both(inputs, attributes)
        return self.rescale(features, *self.scales(attributes, training=training), training=training)

    def scales(self, attributes, training=None):
        """Returns mean and std, both `[n, units]`, from attributes `[n, k]`: all that the features learn of them."""
        encoded = attributes
        *drops, mean_drop, std_drop = self.drops
        for drop, layer in zip(drops, self.encoding, strict=True):
            encoded = layer(drop(encoded, training=training))
        return self.mean(mean_drop(encoded, training=training)), self.std(std_drop(encoded, training=training))

    def rescale(self, features, mean, std, training=None):
        """Returns features that went through the cascade; with mean 0 and std 1, what it does without attributes."""
        for block in self.cascade:
            features = block(features, mean=mean, std=std, training=training)
        return features

    def compute_output_shape(self, inputs_shape, attributes_shape=None):
        return tuple(_both(inputs_shape, attributes_shape)[0])

    def get_config(self) -> dict:
        names = ("units", "blocks", "dropout", "reduction", "encoder", "normalise")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _both(inputs, attributes):
    """Returns features and attributes, or their shapes, whether they came as a pair or one by one."""
    if attributes is not None:
        return inputs, attributes
    is_pair = isinstance(inputs, (tuple, list)) and len(inputs) == 2
    if not is_pair or any(part is None or isinstance(part, int) for part in inputs):  # the shape of one input is no pair
        raise ValueError("Refusion takes features and attributes: call it with both, or with the pair of them.")
    return inputs
