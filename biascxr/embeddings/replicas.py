"""One Keras network on all GPUs of a machine: each batch is divided among them (tf.distribute)."""

from __future__ import annotations

import numpy as np

from biascxr.errors import InputError


class Replicas:
    """A `tf.distribute.MirroredStrategy` over all GPUs, or over the processor's logical devices where there is no GPU.

    The same batch gives the same bytes. On two logical devices of one processor, though, an image's place in the batch was seen
    to move its last digit (7e-8 of a number), which one device was not; on several GPUs nothing of this was measured.

    Args:
        batch: images of a whole batch.

    Attributes:
        number: devices.

    Raises:
        InputError: the batch cannot be divided into equal parts.
    """

    def __init__(self, batch: int) -> None:
        import tensorflow as tf

        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        self._strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
        self.number: int = self._strategy.num_replicas_in_sync
        if batch % self.number:
            nearest = self.number * max(1, round(batch / self.number))
            raise InputError(
                f"--inference_batch must be a multiple of the {self.number} devices of --distribute mirrored, so that each "
                f"gets the same number of images; got {batch}. The nearest is {nearest}; --distribute off takes any."
            )

    def scope(self):
        """Returns the context in which the network must be built: its weights then lie on every device."""
        return self._strategy.scope()

    def predict(self, model, batch: np.ndarray) -> np.ndarray:
        """Runs a network that was built in the scope: the first part of a batch on the first device, and so on.

        Keras's `predict_on_batch` would hand the whole batch to every device and return it as often; its `predict` divides
        it, and takes 0.4 s on two cores to set up each call. Its compiled step takes a batch that is divided already.

        Args:
            model: the network.
            batch: `[n, ...]`, n a multiple of `number`.

        Returns:
            `[n, d]`, in the batch's order.
        """
        import tensorflow as tf

        parts = np.split(batch, self.number)
        divided = self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.convert_to_tensor(parts[context.replica_id_in_sync_group])
        )
        model.make_predict_function()
        return np.asarray(model.predict_function([(divided,)]))
