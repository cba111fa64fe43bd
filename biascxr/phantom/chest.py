"""Draws a chest without findings from its geometry."""

from __future__ import annotations

import cv2
import numpy as np

from biascxr.phantom.anatomy import HILUM_OFFSET, LEFT, N_RIBS, RIGHT, Anatomy
from biascxr.phantom.canvas import Canvas, ramp

AIR, LUNG, TISSUE, ABDOMEN = 0.02, 0.20, 0.56, 0.84


def draw_chest(anatomy: Anatomy, size: int, rng: np.random.Generator) -> Canvas:
    """Draws soft tissue, lungs, heart, spine and bones.

    Args:
        anatomy: the geometry.
        size: side of the film in pixels.
        rng: the exposure's generator; draws vessels and textures.

    Returns:
        A `Canvas` without findings; its vessels are still apart in `markings`.
    """
    grid = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x, y = grid[None, :], grid[:, None]
    offset = np.abs(x - np.float32(anatomy.center_x))
    lung = {side: _lung_mask(anatomy, side, x, y, offset) for side in (RIGHT, LEFT)}
    canvas = Canvas(anatomy, np.full((size, size), AIR, np.float32), lung, np.zeros((size, size), np.float32), x, y)

    _soft_tissue(canvas, offset, rng)
    both = canvas.both_lungs
    canvas.density += both * (LUNG + 0.10 * (y - 0.45) - canvas.density)
    _breasts(canvas)
    # Slow unevenness: muscle, skin folds, scatter.
    canvas.density += 0.10 * (canvas.cloud(rng, 0.3) - 0.5) * ramp(canvas.density - 0.10, 0.1)
    _bones(canvas, rng)
    heart = _mediastinum(canvas, offset)
    # What lies before or behind the heart does not show: findings are drawn on the lung that is seen.
    canvas.lung = {side: mask * (1.0 - 0.9 * heart) for side, mask in lung.items()}
    both = canvas.both_lungs
    canvas.markings = _vessels(canvas, rng) * both
    return canvas


def _lung_mask(anatomy: Anatomy, side: int, x: np.ndarray, y: np.ndarray, offset: np.ndarray) -> np.ndarray:
    wall = anatomy.chest_wall(y[:, 0]).astype(np.float32)[:, None]
    inner = anatomy.lung_inner(y[:, 0]).astype(np.float32)[:, None]
    floor = anatomy.diaphragm(x[0], side).astype(np.float32)[None, :]
    mask = ramp(wall - offset, 0.012) * ramp(offset - inner, 0.02) * ramp(floor - y, 0.012)
    return mask * ramp(y - np.float32(anatomy.apex_y), 0.02) * ((x - anatomy.center_x) * side > 0)


def _soft_tissue(canvas: Canvas, offset: np.ndarray, rng: np.random.Generator) -> None:
    """The body's outline, the abdomen below the diaphragm, and a stomach bubble."""
    anatomy, x, y = canvas.anatomy, canvas.x, canvas.y
    torso = anatomy.half_width + anatomy.fat
    outline = np.interp(y[:, 0], [0.0, 0.05, 0.12, 0.20, 0.36, 0.55, 1.0], [0.14, 0.17, 0.40, 0.55, 0.50, torso + 0.02, torso])
    body = ramp(outline.astype(np.float32)[:, None] - offset, 0.02)
    # Muscle fades towards the skin.
    canvas.density += body * (TISSUE - AIR - 0.16 * ramp(offset - torso, 0.10)) * (0.92 + 0.16 * y)
    for side in (RIGHT, LEFT):
        half = (x - anatomy.center_x) * side > 0
        below = ramp(y - anatomy.diaphragm(x[0], side).astype(np.float32)[None, :], 0.012) * half
        below = below * ramp(anatomy.half_width - offset + 0.02, 0.04)
        canvas.whiten(below * body, ABDOMEN)
    if rng.random() < 0.6:
        bubble_y = anatomy.dome_left_y + rng.uniform(0.045, 0.07)
        bubble = canvas.disc(
            anatomy.center_x + rng.uniform(0.13, 0.2), bubble_y, rng.uniform(0.035, 0.055), softness=0.04, squeeze=0.5
        )
        canvas.density -= bubble * rng.uniform(0.15, 0.32)


def _breasts(canvas: Canvas) -> None:
    """Breast shadows lie over the lower lungs, with a soft lower fold."""
    anatomy = canvas.anatomy
    if anatomy.breast == 0.0:
        return
    for side in (RIGHT, LEFT):
        x, y = anatomy.center_x + side * anatomy.half_width * 0.60, 0.62 + 0.05 * anatomy.breast
        shadow = canvas.disc(x, y, 0.12 + 0.05 * anatomy.breast, softness=0.09)
        canvas.density += 0.10 * anatomy.breast * shadow * ramp(canvas.y - y + 0.06, 0.25)


def _bones(canvas: Canvas, rng: np.random.Generator) -> None:
    """Ribs with bright margins, clavicles, shoulder blades."""
    anatomy, bone = canvas.anatomy, canvas.anatomy.bone
    back = [piece for side in (RIGHT, LEFT) for index in range(N_RIBS) for piece in _rib_pieces(anatomy, side, index)]
    front = [anatomy.front_rib(side, index) for side in (RIGHT, LEFT) for index in range(1, N_RIBS - 2)]
    outer, core = canvas.lines(back, 0.026), canvas.lines(back, 0.014)
    ribs = bone * (outer - 0.45 * core)
    ribs += 0.4 * bone * (canvas.lines(front, 0.026) - 0.3 * canvas.lines(front, 0.014))
    tilt = rng.normal(0, 0.015)
    clavicles = []
    for side in (RIGHT, LEFT):
        top = anatomy.apex_y + 0.045 + side * tilt
        along = np.linspace(0, 1, 12)
        height = top + 0.02 * np.sin(2 * np.pi * along) - 0.055 * along
        clavicles.append(np.stack([anatomy.center_x + side * (0.035 + 0.36 * along), height], axis=1))
    collar = canvas.lines(clavicles, 0.034) - 0.4 * canvas.lines(clavicles, 0.020)
    canvas.density += canvas.blur(ribs + 1.1 * bone * collar, 0.0028)
    blades = []
    for side in (RIGHT, LEFT):
        edge = anatomy.center_x + side * (anatomy.half_width + 0.10 - 0.15 * anatomy.scapula)
        blade = [[edge, 0.20], [edge + side * 0.02, 0.30], [edge + side * 0.07, 0.44], [edge + side * 0.22, 0.22]]
        blades.append(np.round(np.array(blade) * canvas.size).astype(np.int32))
    blade_mask = np.zeros((canvas.size, canvas.size), np.uint8)
    cv2.fillPoly(blade_mask, blades, 255)
    canvas.density += canvas.blur(blade_mask.astype(np.float32) * (0.07 / 255), 0.006)


def _rib_pieces(anatomy: Anatomy, side: int, index: int) -> list[np.ndarray]:
    """A rib in one piece, or in two where it is broken: the outer is displaced, with a gap between the ends."""
    path = anatomy.rib(side, index)
    for rib_break in anatomy.breaks:
        if (rib_break.side, rib_break.rib) == (side, index):
            along = np.linspace(0.0, 1.0, len(path))
            fine = np.linspace(0.0, 1.0, 96)
            dense = np.stack([np.interp(fine, along, path[:, 0]), np.interp(fine, along, path[:, 1])], axis=1)
            inner = dense[fine <= rib_break.at - rib_break.gap / 2]
            outer = dense[fine >= rib_break.at + rib_break.gap / 2] + [0.0, rib_break.step]
            return [inner, outer]
    return [path]


def _mediastinum(canvas: Canvas, offset: np.ndarray) -> np.ndarray:
    """Draws heart, great vessels, spine and windpipe; returns the mask of heart and vessels, in [0, 1]."""
    anatomy, x, y = canvas.anatomy, canvas.x, canvas.y
    cx = anatomy.center_x
    squeeze = anatomy.heart_half_height / anatomy.heart_half_width
    heart = canvas.disc(anatomy.heart_x, anatomy.heart_y, anatomy.heart_half_width, softness=0.02, squeeze=squeeze)
    # The apex points down and out; the upper left border slopes to the aortic knob.
    apex_x = anatomy.heart_x + 0.42 * anatomy.heart_half_width
    heart = np.maximum(heart, canvas.disc(apex_x, anatomy.heart_y + 0.045, anatomy.heart_half_width * 0.60, softness=0.02))
    # The upper left border: the pulmonary trunk between heart and aortic knob.
    trunk_x = cx + 0.6 * anatomy.mediastinum_half_width + 0.012
    heart = np.maximum(heart, canvas.disc(trunk_x, 0.43, 0.058, softness=0.03, squeeze=1.6))
    above = ramp(anatomy.diaphragm(x[0], LEFT).astype(np.float32)[None, :] + 0.01 - y, 0.02)
    width = np.interp(
        y[:, 0],
        [0.0, anatomy.apex_y, 0.24, 0.40, anatomy.heart_y],
        [0.05, 0.85 * anatomy.mediastinum_half_width, anatomy.mediastinum_half_width, 0.07, 0.09],
    ).astype(np.float32)[:, None]
    knob_x = cx + anatomy.mediastinum_half_width - 0.35 * anatomy.aortic_knob
    knob = canvas.disc(knob_x, 0.275, anatomy.aortic_knob + 0.014, softness=0.018, squeeze=1.25)
    vessels = np.maximum(ramp(width - offset, 0.024), knob)
    canvas.whiten(vessels, 0.68)
    canvas.whiten(canvas.blur(heart * above, 0.004), 0.73)
    spine = ramp(0.034 - offset, 0.012)
    vertebra = 0.5 + 0.5 * np.sin(y * np.float32(2 * np.pi / 0.052))
    canvas.density += spine * (0.07 + 0.07 * vertebra)
    trachea = ramp(0.017 - np.abs(x - cx), 0.012) * ramp(0.35 - y, 0.04)
    canvas.density -= 0.17 * trachea
    return np.maximum(heart, vessels)


def _vessels(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Branching vessels that leave the hila and thin out."""
    anatomy = canvas.anatomy
    thick, middle, thin = [], [], []
    for side in (RIGHT, LEFT):
        hilum = np.array([anatomy.center_x + side * HILUM_OFFSET, 0.42])
        for angle in np.linspace(-1.25, 1.35, 13) + rng.normal(0, 0.08, 13):
            length = rng.uniform(0.17, 0.30)
            bend = rng.normal(0, 0.25)
            along = np.linspace(0, 1, 9)
            turn = angle + bend * along
            step = np.stack([side * np.cos(turn), np.sin(turn)], axis=1) * (length / 8)
            path = hilum + np.cumsum(step, axis=0)
            thick.append(path[:3])
            middle.append(path[2:6])
            thin.append(path[5:])
            fork = path[4]
            for spread in (-0.5, 0.5):
                end = fork + 0.11 * np.array([side * np.cos(angle + spread), np.sin(angle + spread)])
                thin.append(np.stack([fork, (fork + end) / 2 + rng.normal(0, 0.004, 2), end]))
    vessels = 0.17 * canvas.lines(thick, 0.011) + 0.11 * canvas.lines(middle, 0.007) + 0.07 * canvas.lines(thin, 0.004)
    for side in (RIGHT, LEFT):
        vessels += 0.10 * canvas.disc(anatomy.center_x + side * HILUM_OFFSET, 0.43, 0.045, softness=0.05, squeeze=1.5)
    return canvas.blur(vessels, 0.003) + 0.05 * (canvas.cloud(rng, 0.02) - 0.5)
