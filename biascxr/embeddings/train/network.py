"""The networks that are trained here: convolutions -> global maximum `vector` -> dropout -> what is told from it."""

from __future__ import annotations

import itertools

import keras
import numpy as np

SMALL_CHANNELS = (16, 32, 64, 128, 256)


def build_network(
    architecture: str, *, image_size: int, n_classes: int, target: str, dropout: float, norm_momentum: float, seed: int
) -> keras.Model:
    """Builds a network with first weights that the seed alone decides.

    DenseNet121 and 201 are Keras's, as in the MIMIC Racial Fairness code (Dnet_disease, Dnet_race: no weights, one channel,
    max pooling, dropout). `small` has five blocks, each a 3 x 3 convolution of stride 2, batch normalisation and ReLU, with
    16, 32, 64, 128 and 256 channels: 0.4 million parameters and a vector of 256.

    Args:
        architecture: densenet121, densenet201 or small.
        image_size: height and width, in pixels, 32 at least.
        n_classes: C.
        target: name of the last layer; `findings` ends in a sigmoid per class, every other in a softmax.
        dropout: share of the vector that is dropped in training.
        norm_momentum: of batch normalisation's moving averages.
        seed: of first weights.

    Returns:
        A functional model of plain Keras layers, not nested: `[n, size, size, 1] float32` in [0, 1] -> `[n, C]`
        probabilities; its layer `vector` gives `[n, d]`.

    Reference: Huang et al., Densely Connected Convolutional Networks, CVPR 2017.
    """
    image, maps = (_small if architecture == "small" else _densenet)(architecture, (image_size, image_size, 1))
    vector = keras.layers.GlobalMaxPooling2D(name="vector")(maps)
    dropped = keras.layers.Dropout(dropout, seed=seed, name="dropout")(vector)
    activation = "sigmoid" if target == "findings" else "softmax"
    # float32 also where the layers below are not: probabilities near 0 and 1 need the digits.
    told = keras.layers.Dense(n_classes, activation=activation, dtype="float32", name=target)(dropped)
    model = keras.Model(image, told, name=architecture)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = norm_momentum
    _draw_weights(model, seed)
    return model


def _densenet(architecture: str, shape: tuple[int, int, int]):
    kind = {"densenet121": keras.applications.DenseNet121, "densenet201": keras.applications.DenseNet201}[architecture]
    base = kind(include_top=False, weights=None, input_shape=shape, pooling=None)
    numbers = itertools.count(1)

    def named(layer: keras.Layer) -> keras.Layer:
        """A copy; where Keras left the name to a counter of the process, with one of its own, so that files can be equal."""
        given = {"name": f"padding{next(numbers)}"} if isinstance(layer, keras.layers.ZeroPadding2D) else {}
        return type(layer).from_config(layer.get_config() | given)

    copy = keras.models.clone_model(base, input_tensors=keras.Input(shape, name="image"), clone_function=named)
    return copy.input, copy.output


def _small(architecture: str, shape: tuple[int, int, int]):
    x = image = keras.Input(shape, name="image")
    for number, channels in enumerate(SMALL_CHANNELS, start=1):
        convolution = keras.layers.Conv2D(
            channels, 3, strides=2, padding="same", use_bias=False, name=f"block{number}_convolution"
        )
        x = keras.layers.BatchNormalization(name=f"block{number}_normalisation")(convolution(x))
        x = keras.layers.ReLU(name=f"block{number}_relu")(x)
    return image, x


def _draw_weights(model: keras.Model, seed: int) -> None:
    """Draws convolutions from He's normal distribution and the last layer from Glorot's, in the layers' order.

    Keras's own draws would follow the process's global seed, and with it whatever was drawn before.
    """
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            shape = layer.kernel.shape
            fan_in = np.prod(shape[:-1])
            fan = fan_in if isinstance(layer, keras.layers.Conv2D) else (fan_in + shape[-1]) / 2
            variance = (2 if isinstance(layer, keras.layers.Conv2D) else 1) / fan
            layer.kernel.assign(rng.normal(0, np.sqrt(variance), shape).astype(np.float32))
