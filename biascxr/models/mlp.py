"""The classifier head: a multi-layer perceptron on a vector."""

from __future__ import annotations

import keras
import numpy as np

FINDINGS = "findings"  # name of the last layer, from which the others are told apart


def build_mlp(n_inputs: int, n_labels: int, *, hidden: tuple[int, ...], dropout: float, n_demographics: int = 0) -> keras.Model:
    """Builds d -> hidden ReLU layers, each followed by dropout -> L sigmoid.

    Args:
        n_inputs: d, length of the vector.
        n_labels: L, number of findings.
        hidden: units of each hidden layer; none gives logistic regression.
        dropout: share of units dropped in training, in [0, 1).
        n_demographics: k, length of a second input that is joined to the vector; 0 for none.

    Returns:
        A functional model, `[n, d] float32` -> `[n, L] float32` probabilities; with demographics its input is a dict
        `{"vector": [n, d], "demographics": [n, k]}`.
    """
    vector = keras.Input((n_inputs,), name="vector")
    inputs, x = vector, vector
    if n_demographics:
        demographics = keras.Input((n_demographics,), name="demographics")
        inputs = {"vector": vector, "demographics": demographics}
        x = keras.layers.Concatenate(name="joined")([vector, demographics])
    for index, units in enumerate(hidden):
        x = keras.layers.Dense(units, activation="relu", name=f"hidden_{index}")(x)
        x = keras.layers.Dropout(dropout, name=f"dropout_{index}")(x)
    outputs = keras.layers.Dense(n_labels, activation="sigmoid", name=FINDINGS)(x)
    return keras.Model(inputs, outputs, name="mlp")


def features_of(head: keras.Model) -> keras.Model:
    """Returns the part of a head below its last layer, sharing its weights: the same inputs -> `[n, h]`."""
    return keras.Model(head.input, head.get_layer(FINDINGS).input, name="features")


def chain_affine(maps: list[tuple[np.ndarray, np.ndarray, np.ndarray]], head: keras.Model) -> keras.Model:
    """Puts affine maps before a head, as frozen layers: one model that takes vectors as the encoder gives them.

    The first map's centre is taken off before anything is multiplied: as `x A + b` in float32, columns far from the origin
    would lose their digits.

    Args:
        maps: `(centre [d], matrix [d, d'], offset [d'])` each, `x -> (x - centre) matrix + offset`, in order; their product is
            one layer.
        head: see `build_mlp`.

    Returns:
        A functional model of plain Keras layers and the head, with the head's outputs and, but for the length of the vector,
        its inputs.
    """
    if not maps:
        return head
    centre, matrix, offset = maps[0]
    for own, later, shift in maps[1:]:
        matrix, offset = matrix @ later, (offset - own) @ later + shift
    rounded = centre.astype(np.float32)
    offset = offset + (rounded - centre) @ matrix  # what the centre loses as float32
    vector = keras.Input((matrix.shape[0],), name="vector")
    centred = keras.layers.Normalization(mean=rounded, variance=np.ones(len(centre)), name="centre")(vector)
    layer = keras.layers.Dense(matrix.shape[1], trainable=False, name="representation")
    transformed = layer(centred)
    layer.set_weights([matrix.astype(np.float32), offset.astype(np.float32)])
    if not isinstance(head.input, dict):
        return keras.Model(vector, head(transformed), name="classifier")
    demographics = keras.Input(head.input["demographics"].shape[1:], name="demographics")
    inputs = {"vector": vector, "demographics": demographics}
    return keras.Model(inputs, head(inputs | {"vector": transformed}), name="classifier")
