"""What lies between the lungs: heart, great vessels and windpipe, as attenuation along the beam."""

from __future__ import annotations

import numpy as np

from biascxr.phantom.anatomy import LEFT, RIGHT
from biascxr.phantom.canvas import Canvas, ramp, smooth_profile


def heart_and_vessels(canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """The shadow of heart and great vessels, between a right and a left border.

    Left, from above: the neck's vessels, the aortic knob, the bay below it, the pulmonary trunk, the left ventricle down to
    the apex. Right: the great vein and the right atrium.

    Returns:
        The mask, and its attenuation, both `[size, size] float32`.
    """
    anatomy, y = canvas.anatomy, canvas.y[:, 0]
    upper, apex = anatomy.mediastinum_half_width, anatomy.apex_y
    heart_y, bottom = anatomy.heart_y, anatomy.dome_left_y + 0.03
    shift = anatomy.heart_x - anatomy.center_x
    to_left, to_right = anatomy.heart_half_width + shift, anatomy.heart_half_width - shift
    knob = upper + 0.45 * anatomy.aortic_knob
    top = heart_y - 1.28 * anatomy.heart_half_height
    lean = np.array([0.0, 0.20, 0.42, 0.66, 0.86, 1.0])  # along the left ventricle's border
    ventricle = 0.066 + (to_left - 0.066) * np.sin(0.5 * np.pi * lean) ** 1.15
    left = smooth_profile(
        y,
        [0.0, apex + 0.05, 0.225, 0.265, 0.30, 0.345, 0.395, *(top + 0.03 + (heart_y + 0.035 - top) * lean), bottom + 0.04],
        [0.05, 0.85 * upper, upper, knob, knob - 0.004, 0.85 * upper, max(0.062, 0.9 * upper), *ventricle, 0.75 * to_left],
    )
    right = smooth_profile(
        y,
        [0.0, apex + 0.05, 0.26, top, top + 0.06, heart_y - 0.02, heart_y + 0.05, bottom + 0.05],
        [
            0.05,
            0.80 * upper,
            0.92 * upper,
            max(0.055, 0.85 * upper),
            0.45 * to_right + 0.035,
            to_right,
            0.96 * to_right,
            0.7 * to_right,
        ],
    )
    signed = canvas.x - np.float32(anatomy.center_x)
    inside = np.minimum(left[:, None] - signed, right[:, None] + signed)
    x = canvas.x[0]
    floor = np.where(x < anatomy.center_x, anatomy.diaphragm(x, RIGHT), anatomy.diaphragm(x, LEFT)).astype(np.float32)
    # Borders blur where vessels slope into the lung, and are sharp along the heart.
    is_heart = ramp(canvas.y - np.float32(top + 0.06), 0.16)
    mask = ramp(inside, 0.015) * is_heart + ramp(inside, 0.026) * (1.0 - is_heart)
    mask *= ramp(floor[None, :] + np.float32(0.008) - canvas.y, 0.03)
    depth = 0.68 + 0.32 * ramp(inside - 0.035, 0.09)
    # The heart is thicker than the vessels above it.
    return mask, mask * depth * (0.85 + 0.60 * is_heart)


def great_vessels(canvas: Canvas) -> np.ndarray:
    """The aortic knob and both hila, denser than what surrounds them."""
    anatomy = canvas.anatomy
    knob_x = anatomy.center_x + anatomy.mediastinum_half_width - 0.45 * anatomy.aortic_knob
    shade = 0.30 * canvas.disc(knob_x, 0.268, anatomy.aortic_knob, softness=0.014, squeeze=1.1)
    for side, height in ((RIGHT, 0.445), (LEFT, 0.415)):
        shade += 0.20 * canvas.disc(anatomy.center_x + side * 0.072, height, 0.034, softness=0.05, squeeze=1.9)
    return shade


def airways(canvas: Canvas) -> np.ndarray:
    """What the air in windpipe and main bronchi takes away, positive."""
    cx = canvas.anatomy.center_x
    fork = 0.335
    pipe = ramp(0.017 - np.abs(canvas.x - np.float32(cx + 0.004)), 0.012) * ramp(np.float32(fork) - canvas.y, 0.03)
    bronchi = [
        np.array([[cx, fork - 0.01], [cx + side * 0.03, fork + 0.035], [cx + side * 0.048, fork + 0.055]])
        for side in (RIGHT, LEFT)
    ]
    return 0.62 * np.maximum(pipe, canvas.blur(0.40 * canvas.lines(bronchi, 0.016), 0.005))
