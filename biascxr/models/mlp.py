"""The classifier head: a multi-layer perceptron on a vector."""

from __future__ import annotations

import keras


def build_mlp(n_inputs: int, n_labels: int, *, hidden: tuple[int, ...], dropout: float) -> keras.Model:
    """Builds d -> hidden ReLU layers, each followed by dropout -> L sigmoid.

    Args:
        n_inputs: d, length of the vector.
        n_labels: L, number of findings.
        hidden: units of each hidden layer.
        dropout: share of units dropped in training, in [0, 1).

    Returns:
        A functional model, `[n, d] float32` -> `[n, L] float32` probabilities.
    """
    inputs = keras.Input((n_inputs,), name="vector")
    x = inputs
    for index, units in enumerate(hidden):
        x = keras.layers.Dense(units, activation="relu", name=f"hidden_{index}")(x)
        x = keras.layers.Dropout(dropout, name=f"dropout_{index}")(x)
    outputs = keras.layers.Dense(n_labels, activation="sigmoid", name="findings")(x)
    return keras.Model(inputs, outputs, name="mlp")
