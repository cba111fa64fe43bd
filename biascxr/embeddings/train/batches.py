"""Records as batches for training, by tf.data: nothing but a buffer of compressed records is held in memory.

What comes in epoch e is a function of (seed, e): a training that goes on in another process sees the same batches.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from biascxr.embeddings.train.augment import Limits, augment_tensor, draw_changes
from biascxr.embeddings.train.data import Part, TrainingData

ORDER = 17  # keeps the order's draws apart from others of the same seed
SHARDS_AT_ONCE = 8  # read in turns, so that neighbours in a shard do not come together


@dataclass(frozen=True)
class Batching:
    """How a part is dealt to batches.

    Attributes:
        batch_size: images a step.
        shuffle_buffer: compressed records out of which the next is drawn.
        seed: of the order and of augmentation.
        limits: of augmentation; None for none.
    """

    batch_size: int
    shuffle_buffer: int
    seed: int
    limits: Limits | None = None

    def n_steps(self, n_images: int) -> int:
        """Returns the full batches of an epoch; what does not fill one is left out, other images in each epoch."""
        return n_images // self.batch_size


def training_batches(data: TrainingData, batching: Batching, *, first_epoch: int, epochs: int) -> tf.data.Dataset:
    """Returns the batches of the train part, epoch after epoch, each in an order of its own.

    Args:
        data: the train part and its images' size and format.
        batching: batch size, buffer, seed, augmentation.
        first_epoch: where to begin, from 0.
        epochs: where to end.

    Returns:
        `([b, size, size, 1] float32 in [0, 1], [b, C] float32)`, `n_steps` of them an epoch.
    """
    part, rows = data.train, _row_table(data.train)
    values = tf.constant(part.values)

    def of_epoch(epoch: int) -> tf.data.Dataset:
        rng = np.random.default_rng([batching.seed, ORDER, epoch])
        files = tf.data.Dataset.from_tensor_slices([str(part.files[i]) for i in rng.permutation(len(part.files))])
        records = files.interleave(
            tf.data.TFRecordDataset, cycle_length=min(SHARDS_AT_ONCE, len(part.files)), num_parallel_calls=tf.data.AUTOTUNE
        )
        # Not reshuffled when read again: Keras may begin to read once before it trains, to build what is not built yet.
        shuffled = records.shuffle(batching.shuffle_buffer, seed=int(rng.integers(2**31)), reshuffle_each_iteration=False)
        images = _of_table(shuffled, rows, len(part))

        def prepare(image, row):
            changes = None if batching.limits is None else draw_changes(batching.limits, batching.seed, epoch, row)
            return _pixels(image, data, changes), tf.gather(values, row)

        return images.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).batch(batching.batch_size, drop_remainder=True)

    # Not by `flat_map`: within it the shuffle's seed would have to be a tensor, which tf.data does not take.
    batches = functools.reduce(tf.data.Dataset.concatenate, [of_epoch(epoch) for epoch in range(first_epoch, epochs)])
    return batches.with_options(_options()).prefetch(2)


def validation_batches(data: TrainingData, batch_size: int) -> tf.data.Dataset:
    """Returns every image of the validation part once: `([b, size, size, 1] float32 in [0, 1], [b] int64 rows of the part)`."""
    part, rows = data.validation, _row_table(data.validation)
    records = _of_table(tf.data.TFRecordDataset([str(f) for f in part.files]), rows, len(part))
    images = records.map(lambda image, row: (_pixels(image, data), row), num_parallel_calls=tf.data.AUTOTUNE)
    return images.batch(batch_size).with_options(_options()).prefetch(2)


def _row_table(part: Part) -> tf.lookup.StaticHashTable:
    """Returns image_id -> row of the part, -1 where the part does not hold it."""
    keys = tf.constant(part.image_id.astype(str))
    pairs = tf.lookup.KeyValueTensorInitializer(keys, tf.range(len(part), dtype=tf.int64))
    return tf.lookup.StaticHashTable(pairs, default_value=-1)


def _of_table(records: tf.data.Dataset, rows: tf.lookup.StaticHashTable, n_images: int) -> tf.data.Dataset:
    """Parses serialized records; keeps those with a row, of which there must be `n_images`: `(image bytes, row)`."""
    form = {"image": tf.io.FixedLenFeature([], tf.string), "image_id": tf.io.FixedLenFeature([], tf.string)}

    def parse(record):
        found = tf.io.parse_single_example(record, form)
        return found["image"], rows.lookup(found["image_id"])

    kept = records.map(parse, num_parallel_calls=tf.data.AUTOTUNE).filter(lambda image, row: row >= 0)
    return kept.apply(tf.data.experimental.assert_cardinality(n_images))


def _pixels(image, data: TrainingData, changes=None):
    """Decodes a stored image as `biascxr.records.decode` does, and brings it to the network's range, as encoders do."""
    if data.image_format == "png":
        grey = tf.io.decode_png(image, channels=1)
    else:
        grey = tf.io.decode_jpeg(image, channels=1, dct_method="INTEGER_ACCURATE")
    grey = tf.cast(tf.ensure_shape(grey, (data.image_size, data.image_size, 1)), tf.float32)
    if changes is not None:
        grey = augment_tensor(grey[..., 0], changes)[..., None]
    return grey / 255.0


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # One machine: each device gets a part of every batch, not files of its own.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
