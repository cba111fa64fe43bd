"""Augmentation while an encoder is trained: what `biascxr.records.image.augment` does, in TensorFlow, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

STREAM = 61  # keeps these draws apart from others of the same seed


@dataclass(frozen=True)
class Limits:
    """How far a training image is changed at most.

    Attributes:
        rotation: degrees, either way.
        shift: share of the side, along both axes.
        contrast: change of contrast: the factor lies in 1 - this to 1 + this.
        brightness: share of the grey range added or taken away.
    """

    rotation: float
    shift: float
    contrast: float
    brightness: float


def draw_changes(limits: Limits, seed: int, epoch: int, row):
    """Draws one image's changes: a function of seed, epoch and row alone, whatever was drawn before.

    Args:
        limits: the largest changes.
        seed: of the training.
        epoch: from 0.
        row: scalar integer, the image's place in the table.

    Returns:
        `[5] float32`: rotation, shift_x, shift_y, contrast, brightness, as `Alteration` names them; each uniform.
    """
    fold_in = tf.random.experimental.stateless_fold_in
    own = fold_in(fold_in(tf.constant([seed, STREAM], tf.int64), epoch), row)
    drawn = tf.random.stateless_uniform([5], own, -1.0, 1.0)
    width = [limits.rotation, limits.shift, limits.shift, limits.contrast, limits.brightness]
    return drawn * width + [0.0, 0.0, 0.0, 1.0, 0.0]


def augment_tensor(image, changes):
    """Turns, moves and lights an image, as `biascxr.records.image.augment` does.

    The same geometry, the same reflection of what comes in from outside (without the edge pixel repeated) and the same
    rounding to whole grey levels; OpenCV's bilinear weights are multiples of 1/32, these are exact.

    Args:
        image: `[size, size] float32`, 0 to 255.
        changes: `[5] float32`, see `draw_changes`.

    Returns:
        `[size, size] float32`, whole numbers from 0 to 255.
    """
    rotation, shift_x, shift_y, contrast, brightness = tf.unstack(changes)
    size = tf.shape(image)[0]
    side = tf.cast(size, tf.float32)
    centre = (side - 1) / 2
    down, right = tf.meshgrid(tf.range(side), tf.range(side), indexing="ij")
    # Where each pixel of the result comes from: moved back, then turned back about the centre.
    x, y = right - centre - shift_x * side, down - centre - shift_y * side
    angle = rotation * (3.141592653589793 / 180)
    sine, cosine = tf.sin(angle), tf.cos(angle)
    turned = _bilinear(image, cosine * x - sine * y + centre, sine * x + cosine * y + centre, size)
    turned = tf.round(turned)
    mean = tf.reduce_mean(turned)
    return tf.clip_by_value(tf.round((turned - mean) * contrast + mean + 255 * brightness), 0.0, 255.0)


def _bilinear(image, x, y, size):
    """Reads `image` at columns x and rows y, both `[size, size] float32` and anywhere on the plane."""
    left, top = tf.floor(x), tf.floor(y)
    to_right, to_bottom = x - left, y - top
    left, top = tf.cast(left, tf.int32), tf.cast(top, tf.int32)

    def at(row, column):
        return tf.gather(tf.reshape(image, [-1]), _reflect(row, size) * size + _reflect(column, size))

    upper = at(top, left) * (1 - to_right) + at(top, left + 1) * to_right
    lower = at(top + 1, left) * (1 - to_right) + at(top + 1, left + 1) * to_right
    return upper * (1 - to_bottom) + lower * to_bottom


def _reflect(index, size):
    """Folds an index into 0 to size - 1, reflected at the middle of the edge pixels: -1 is 1, size is size - 2."""
    period = 2 * (size - 1)
    folded = tf.math.floormod(index, period)
    return tf.minimum(folded, period - folded)
