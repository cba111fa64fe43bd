"""Support devices: tubes, catheters, electrodes and pacemakers, the brightest things on a film."""

from __future__ import annotations

import cv2
import numpy as np

from biascxr.phantom.anatomy import LEFT, RIGHT
from biascxr.phantom.canvas import Canvas

METAL, PLASTIC = 1.0, 0.90


def support_devices(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    """Support Devices: one to three of pacemaker, endotracheal tube, central line, electrodes with their wires."""
    kit = (_pacemaker, _breathing_tube, _central_line, _electrodes)
    for choice in rng.permutation(len(kit))[: int(rng.integers(1, 4))]:
        kit[choice](canvas, effect, rng)


def _pacemaker(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    cx = canvas.anatomy.center_x
    side = LEFT if rng.random() < 0.8 else RIGHT
    x, y = cx + side * rng.uniform(0.22, 0.27), rng.uniform(0.22, 0.29)
    box = np.round(np.array([[x - 0.035, y - 0.028], [x + 0.035, y + 0.028]]) * canvas.size).astype(int)
    mask = np.zeros((canvas.size, canvas.size), np.uint8)
    cv2.rectangle(mask, box[0].tolist(), box[1].tolist(), 255, -1)
    canvas.whiten(canvas.blur(mask.astype(np.float32) / 255, 0.005) * effect, METAL)
    tip = [canvas.anatomy.heart_x + rng.uniform(0.02, 0.08), canvas.anatomy.heart_y + 0.05]
    lead = np.array([[x, y], [x - side * 0.08, y - 0.06], [cx + 0.02, 0.25], [cx - 0.02, 0.42], [cx - 0.01, 0.58], tip])
    canvas.whiten(canvas.lines([_smooth(lead)], 0.007) * effect, METAL)


def _breathing_tube(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    cx, end = canvas.anatomy.center_x, rng.uniform(0.30, 0.36)
    walls = [np.array([[cx + d + rng.normal(0, 0.002), 0.0], [cx + d, end]]) for d in (-0.010, 0.010)]
    canvas.whiten(canvas.lines(walls, 0.005) * effect, PLASTIC)
    feeding = np.array([[cx + 0.012, 0.0], [cx + 0.02, 0.3], [cx + 0.012, 0.6], [cx + 0.09, 0.86]])
    canvas.whiten(canvas.lines([_smooth(feeding)], 0.008) * effect, PLASTIC)


def _central_line(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    cx = canvas.anatomy.center_x
    start_x = cx + RIGHT * rng.uniform(0.16, 0.30)
    path = np.array([[start_x, rng.uniform(0.0, 0.06)], [cx - 0.12, 0.15], [cx - 0.045, 0.24], [cx - 0.04, 0.46]])
    canvas.whiten(canvas.lines([_smooth(path)], 0.008) * effect, PLASTIC)


def _electrodes(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    cx = canvas.anatomy.center_x
    for side, low, high in ((RIGHT, 0.20, 0.30), (LEFT, 0.20, 0.30), (LEFT, 0.55, 0.66)):
        x, y = cx + side * rng.uniform(0.20, 0.30), rng.uniform(low, high)
        canvas.whiten(canvas.disc(x, y, 0.017, softness=0.004) * effect, PLASTIC)
        canvas.whiten(canvas.disc(x, y, 0.007, softness=0.006) * effect, METAL)
        sway = rng.uniform(-0.06, 0.06, 2)
        wire = np.array([[x, y], [x + sway[0], y + 0.2], [cx + side * 0.3 + sway[1], 0.80], [cx + side * 0.2, 1.0]])
        canvas.whiten(canvas.lines([_smooth(wire)], 0.004) * effect, PLASTIC)


def _smooth(path: np.ndarray) -> np.ndarray:
    """A curve through a few points (Catmull-Rom), `[k, 2]` to `[8 (k - 1) + 1, 2]`."""
    points = np.concatenate([2 * path[:1] - path[1:2], path, 2 * path[-1:] - path[-2:-1]])
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(points[:-3], points[1:-2], points[2:-1], points[3:], strict=True):
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate([*pieces, path[-1:]])
