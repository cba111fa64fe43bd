"""Vectors or feature maps: what a network on either begins with."""

from __future__ import annotations

import math

import keras
from keras import ops


def vector_input(n_inputs: int, feature_map: tuple[int, ...] = ()) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Returns a network's input `"vector" [n, d]` and what stands in it.

    Args:
        n_inputs: d, length of the vector.
        feature_map: (height, width, channels) of the map that a vector holds row by row, as `map.reshape(n, -1)` leaves it;
            empty where it is a vector.

    Returns:
        The input, and `[n, d]`, or the map `[n, h, w, c]`.

    Raises:
        ValueError: a map of another size than the vector.
    """
    vector = keras.Input((n_inputs,), name="vector")
    if not feature_map:
        return vector, vector
    if len(feature_map) != 3 or math.prod(feature_map) != n_inputs:
        raise ValueError(f"feature_map must be height, width, channels of {n_inputs} numbers together; got {feature_map}.")
    return vector, keras.layers.Reshape(feature_map, name="map")(vector)


def pool(features):
    """Returns the mean over the places of a map, `[n, h, w, c] -> [n, c]`, of tensors; vectors as they are."""
    return ops.mean(features, axis=(1, 2)) if len(features.shape) == 4 else features


def pooled(features: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the same as `pool`, as a layer of a functional model."""
    return keras.layers.GlobalAveragePooling2D(name="pooled")(features) if len(features.shape) == 4 else features
