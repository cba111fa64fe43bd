"""The bones of a chest, as attenuation along the beam."""

from __future__ import annotations

import cv2
import numpy as np

from biascxr.phantom.anatomy import LEFT, N_RIBS, RIGHT, Anatomy
from biascxr.phantom.canvas import Canvas, ramp


def bones(canvas: Canvas, offset: np.ndarray, wall: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ribs with bright margins, collar bones, shoulder blades and the heads of the arms' bones.

    Args:
        canvas: for its geometry.
        offset: `[size, size] float32`, distance from the midline.
        wall: `[size, 1] float32`, that of the chest wall.
        rng: draws how the shoulders are held.

    Returns:
        `[size, size] float32`.
    """
    anatomy, bone = canvas.anatomy, canvas.anatomy.bone
    back = [piece for side in (RIGHT, LEFT) for index in range(N_RIBS) for piece in _rib_pieces(anatomy, side, index)]
    front = [anatomy.front_rib(side, index) for side in (RIGHT, LEFT) for index in range(N_RIBS - 3)]
    ribs = bone * (canvas.lines(back, 0.027) - 0.5 * canvas.lines(back, 0.017))
    ribs += 0.20 * bone * (canvas.lines(front, 0.031) - 0.4 * canvas.lines(front, 0.021))
    # At the chest's edge the beam runs along the rib.
    ribs *= 0.75 + 0.6 * ramp(offset - wall + 0.05, 0.16)
    collar = _collar_bones(canvas, rng)
    return canvas.blur(ribs + 1.7 * bone * collar, 0.0028) + _shoulders(canvas, rng)


def spine(canvas: Canvas, offset: np.ndarray) -> np.ndarray:
    """Vertebrae with the dark gaps of their discs, `[size, size] float32`; what lies before them hides most."""
    y = canvas.y
    gap = np.maximum(np.sin(y * np.float32(2 * np.pi / 0.056)) - 0.35, 0.0)
    column = ramp(0.036 - offset, 0.014) * (0.32 - 0.20 * gap)
    # The roots of the arches, a pair of rings on each vertebra, and the row of spinous processes.
    roots = ramp(0.008 - np.abs(offset - 0.021), 0.006) * np.maximum(-np.sin(y * np.float32(2 * np.pi / 0.056)) - 0.4, 0.0)
    return column + 0.25 * roots + 0.12 * ramp(0.006 - offset, 0.006) * gap


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


def _collar_bones(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    anatomy = canvas.anatomy
    tilt, rise = rng.normal(0, 0.010), rng.uniform(0.02, 0.075)
    along = np.linspace(0, 1, 14)
    paths = []
    for side in (RIGHT, LEFT):
        top = anatomy.apex_y + 0.065 + side * tilt
        # An S: forward at the breastbone, back at the shoulder, rising outwards.
        height = top + 0.022 * np.sin(2 * np.pi * along**0.9) - rise * along
        paths.append(np.stack([anatomy.center_x + side * (0.033 + 0.37 * along), height], axis=1))
    ends = [path[:3] for path in paths]
    return np.maximum(canvas.lines(paths, 0.026) - 0.45 * canvas.lines(paths, 0.015), 0.8 * canvas.lines(ends, 0.034))


def _shoulders(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Shoulder blades with a denser outer edge, and the arm bones where the film shows them."""
    anatomy = canvas.anatomy
    drop = rng.uniform(-0.02, 0.03)
    blades, edges, arms = [], [], []
    for side in (RIGHT, LEFT):
        edge = anatomy.half_width + 0.07 - 0.12 * anatomy.scapula
        top = anatomy.apex_y + 0.05 + drop
        corners = [[edge, top + 0.02], [edge + 0.01, top + 0.14], [edge + 0.06, top + 0.30], [edge + 0.14, top + 0.10]]
        corners.append([edge + 0.10, top])
        blade = np.array(corners) * [side, 1.0] + [anatomy.center_x, 0.0]
        blades.append(np.round(blade * canvas.size).astype(np.int32))
        edges += [blade[:3], blade[2:4]]
        head = np.array([anatomy.center_x + side * (edge + 0.19), top + 0.07])
        reach = [side * 0.02, 0.6] if anatomy.arms > 0.0 else [side * 0.3, 0.10]
        arms.append(np.array([head, head + reach]))
    mask = np.zeros((canvas.size, canvas.size), np.uint8)
    cv2.fillPoly(mask, blades, 255)
    bone = anatomy.bone * (0.35 * (mask.astype(np.float32) / np.float32(255)) + 0.45 * canvas.lines(edges, 0.010))
    bone += anatomy.bone * (canvas.lines(arms, 0.060) - 0.3 * canvas.lines(arms, 0.044))
    return canvas.blur(bone, 0.005)
