"""Augmentation in TensorFlow is the one of the records stage, and its draws are functions of (seed, epoch, row)."""

from __future__ import annotations

import numpy as np
import pytest

from biascxr.records.image import Alteration, augment

tf = pytest.importorskip("tensorflow")

from biascxr.embeddings.train.augment import Limits, augment_tensor, draw_changes  # noqa: E402

LIMITS = Limits(15.0, 0.03, 0.15, 0.1)
NAMES = ("rotation", "shift_x", "shift_y", "contrast", "brightness")


def turned(image, **changes):
    change = Alteration(**changes)
    values = tf.constant([getattr(change, name) for name in NAMES], tf.float32)
    return augment_tensor(tf.constant(image, tf.float32), values).numpy(), augment(image, change).astype(np.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {"rotation": 12.0},
        {"rotation": -170.0},
        {"shift_x": 0.25},
        {"shift_y": -0.1},
        {"rotation": 7.0, "shift_x": 0.05, "shift_y": 0.1},
        {"rotation": 7.0, "contrast": 1.15, "brightness": -0.1},
    ],
)
def test_an_image_is_changed_as_opencv_does_in_the_records_stage(make_image, changes):
    image = make_image(3, (64, 64))
    ours, opencv = turned(image, **changes)
    # OpenCV rounds positions to 1/32 of a pixel; a step the other way, or an edge repeated, is several grey levels off.
    assert np.abs(ours - opencv).mean() < 0.5
    assert np.abs(ours - opencv).max() <= 4


@pytest.mark.parametrize("changes", [{"shift_x": 0.25, "shift_y": -0.125}, {"contrast": 0.9, "brightness": 0.05}])
def test_whole_pixels_and_grey_levels_are_moved_exactly(make_image, changes):
    ours, opencv = turned(make_image(3, (64, 64)), **changes)
    np.testing.assert_array_equal(ours, opencv)


def test_no_change_is_the_image_itself(make_image):
    image = make_image(0, (48, 48))
    np.testing.assert_array_equal(turned(image)[0], image)


def test_draws_depend_on_seed_epoch_and_row_alone():
    drawn = {key: tuple(draw_changes(LIMITS, *key).numpy()) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(set(drawn.values())) == 4
    tf.random.set_seed(99)
    tf.random.uniform([3])
    assert tuple(draw_changes(LIMITS, 0, 1, 0).numpy()) == drawn[0, 1, 0]


def test_draws_fill_their_limits_and_stay_within():
    drawn = np.stack([draw_changes(LIMITS, 0, 0, row).numpy() for row in range(300)]) - [0, 0, 0, 1, 0]
    limits = np.array([15.0, 0.03, 0.03, 0.15, 0.1])
    assert (np.abs(drawn) <= limits * 1.00001).all()
    assert (drawn.max(axis=0) > 0.9 * limits).all() and (drawn.min(axis=0) < -0.9 * limits).all()
    assert (np.abs(drawn.mean(axis=0)) < 0.2 * limits).all()
