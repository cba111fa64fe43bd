"""A layer that turns the gradient around: what follows it learns, what precedes it unlearns."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="biascxr")
class GradientReversal(keras.layers.Layer):
    """Gives its input back unchanged; on the way back it multiplies the gradient by `-strength`.

    `stop_gradient(x) - s (x - stop_gradient(x))`: the bracket is 0, its derivative is 1. It needs no gradient of its own, so
    that it runs on every backend of Keras.

    ```python
    features = keras.layers.Dense(64, activation="relu")(inputs)
    group = keras.layers.Dense(4)(GradientReversal(0.5)(features))
    ```

    Args:
        strength: s, at least 0; 0 stops the gradient. It is a weight that is not trained, so a schedule can move it while a
            model trains: `layer.strength.assign(0.3)`, on a layer that is built. It is saved with the weights.

    Raises:
        ValueError: a negative strength.

    Reference: Ganin et al., Domain-adversarial training of neural networks, JMLR 2016, section 4.2.
    """

    def __init__(self, strength: float = 1.0, **kwargs) -> None:
        super().__init__(**kwargs)
        if not strength >= 0:
            raise ValueError(f"GradientReversal needs a strength of at least 0; got {strength}.")
        self.initial_strength = float(strength)

    def build(self, input_shape) -> None:
        initializer = keras.initializers.Constant(self.initial_strength)
        self.strength = self.add_weight(shape=(), initializer=initializer, trainable=False, name="strength")

    def call(self, inputs):
        """Returns the input, of any shape."""
        constant = ops.stop_gradient(inputs)
        return constant - ops.cast(self.strength, inputs.dtype) * (inputs - constant)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "strength": self.initial_strength}
