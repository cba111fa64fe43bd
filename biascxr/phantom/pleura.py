"""Findings between lung and chest wall: fluid, air, thickening."""

from __future__ import annotations

import numpy as np

from biascxr.phantom.anatomy import LEFT, RIGHT
from biascxr.phantom.canvas import Canvas, ramp


def pleural_effusion(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    """Pleural Effusion: fluid fills the costophrenic angle and climbs the chest wall in a meniscus."""
    anatomy = canvas.anatomy
    sides = (RIGHT, LEFT) if rng.random() < 0.4 else ((RIGHT,) if rng.random() < 0.5 else (LEFT,))
    for side in sides:
        height = rng.uniform(0.05, 0.16) * (0.6 + 0.4 * effect)
        outward = np.clip(np.abs(canvas.x - np.float32(anatomy.center_x)) / np.float32(anatomy.half_width), 0, 1)
        surface = anatomy.dome_y(side) + 0.02 - height - np.float32(0.13) * outward**6
        fluid = ramp(canvas.y - surface.astype(np.float32), 0.020) * canvas.lung[side]
        canvas.whiten(fluid * effect, 0.84)
        canvas.markings *= 1.0 - effect * fluid


def pneumothorax(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    """Pneumothorax: a black rim without vessels at the edge and top of one lung, bounded by a fine white line."""
    anatomy = canvas.anatomy
    side = RIGHT if rng.random() < 0.5 else LEFT
    rim = rng.uniform(0.055, 0.10)
    apex = anatomy.apex_y + rng.uniform(0.08, 0.14)
    wall = anatomy.chest_wall(canvas.y[:, 0]).astype(np.float32)[:, None]
    # Distance inside the collapsed lung's edge: negative in the air outside it.
    offset = np.abs(canvas.x - np.float32(anatomy.center_x))
    # The rim narrows downwards, where the lung still touches the wall.
    narrowing = np.clip((np.float32(0.80) - canvas.y) / np.float32(0.35), -0.2, 1.0)
    from_wall = wall - np.float32(rim) * narrowing - offset
    from_apex = canvas.y - np.float32(apex)
    # A smooth minimum rounds the corner where the two edges meet.
    inside = 0.5 * (from_wall + from_apex - np.sqrt((from_wall - from_apex) ** 2 + np.float32(0.09**2)))
    inside = inside + np.float32(0.012)
    air = ramp(-inside, 0.006) * canvas.lung[side]
    line = np.clip(1.0 - np.abs(inside) / np.float32(0.0055), 0, 1) * canvas.lung[side]
    canvas.density -= effect * air * np.maximum(canvas.density - 0.05, 0.0) * 0.62
    canvas.markings *= 1.0 - effect * air
    # The lung that is left is a little denser.
    canvas.density += 0.07 * effect * ramp(inside, 0.006) * canvas.lung[side]
    canvas.whiten(line * effect, 0.66)


def pleural_other(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    """Pleural Other: a thick, uneven band of pleura along the chest wall with calcified plaques."""
    anatomy = canvas.anatomy
    sides = (RIGHT, LEFT) if rng.random() < 0.4 else ((RIGHT,) if rng.random() < 0.5 else (LEFT,))
    for side in sides:
        top, bottom = rng.uniform(0.20, 0.30), rng.uniform(0.60, 0.72)
        heights = np.linspace(top, bottom, 30)
        wave = rng.uniform(0.016, 0.030) * (1.0 + 0.35 * np.sin(heights * rng.uniform(60, 90)))
        inset = anatomy.chest_wall(heights) - wave / 2
        band = canvas.lines([np.stack([anatomy.center_x + side * inset, heights], axis=1)], 0.034)
        band = canvas.blur(band, 0.003) * canvas.lung[side]
        canvas.whiten(band * effect, 0.82)
        for _ in range(int(rng.integers(4, 8))):
            y = rng.uniform(top, bottom)
            x = anatomy.center_x + side * (float(anatomy.chest_wall(y)) - rng.uniform(0.03, 0.09))
            dx, dy = rng.uniform(-0.02, 0.02, 2)
            plaque = canvas.lines([np.array([[x, y], [x + dx, y + dy], [x + 1.4 * dx, y - dy]])], 0.007)
            canvas.whiten(canvas.blur(plaque, 0.0025) * canvas.lung[side] * effect, 0.90)
