"""Augmented views: turned, moved and lit, after standardising."""

from __future__ import annotations

import numpy as np
import pytest

from biascxr.records.image import Alteration, augment, prepare, standardise


@pytest.fixture
def image() -> np.ndarray:
    made = np.full((64, 64), 100, np.uint8)
    made[10:20, 40:50] = 220
    return made


def centre_of(image: np.ndarray) -> np.ndarray:
    y, x = np.nonzero(image > 180)
    return np.array([x.mean(), y.mean()])


def test_no_change_is_the_image_itself(image):
    assert augment(image, Alteration()) is image
    np.testing.assert_array_equal(
        prepare(image, Alteration(), size=32, equalize=True), standardise(image, size=32, equalize=True)
    )


def test_a_shift_moves_right_and_down_by_shares_of_the_side(image):
    moved = centre_of(augment(image, Alteration(shift_x=0.125, shift_y=0.0625))) - centre_of(image)
    np.testing.assert_allclose(moved, [8, 4], atol=0.5)


def test_a_rotation_turns_counter_clockwise_about_the_centre(image):
    turned = centre_of(augment(image, Alteration(rotation=90)))
    x, y = centre_of(image) - 31.5
    np.testing.assert_allclose(turned - 31.5, [y, -x], atol=0.5)
    full = augment(image, Alteration(rotation=360)).astype(int)
    assert np.abs(full - image).max() <= 1


def test_what_comes_in_from_outside_is_no_black_corner(image):
    assert augment(image, Alteration(rotation=15, shift_x=0.03)).min() >= 100


def test_contrast_is_about_the_mean_and_brightness_adds_a_share_of_the_range():
    grey = np.array([[100, 120], [140, 160]], np.uint8)
    np.testing.assert_array_equal(augment(grey, Alteration(contrast=0.5)), [[115, 125], [135, 145]])
    np.testing.assert_array_equal(augment(grey, Alteration(brightness=0.1)), [[126, 146], [166, 186]])
    np.testing.assert_array_equal(augment(grey, Alteration(brightness=0.9)), np.full((2, 2), 255))


def test_intensity_survives_histogram_equalization():
    """Done before it, a change of intensity would be undone by it: equalization only knows the order of the grey levels."""
    image = np.random.default_rng(0).integers(0, 200, (64, 64)).astype(np.uint8)
    plain, lit = (prepare(image, a, size=32, equalize=True) for a in (Alteration(), Alteration(brightness=0.1)))
    assert 20 < lit.astype(int).mean() - plain.astype(int).mean() < 27
