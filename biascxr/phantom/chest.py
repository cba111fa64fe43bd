"""Draws a chest without findings from its geometry.

As in a real film, what lies in the beam's way adds up (muscle, lung, heart, bone), and the film answers with a curve that
levels off: a rib is plain over lung and faint over the heart.
"""

from __future__ import annotations

import numpy as np

from biascxr.phantom.anatomy import LEFT, RIGHT, Anatomy
from biascxr.phantom.canvas import Canvas, ramp, smooth_profile
from biascxr.phantom.mediastinum import airways, great_vessels, heart_and_vessels
from biascxr.phantom.skeleton import bones, spine
from biascxr.phantom.vessels import lung_markings

# Attenuation along the beam. The density on film is 1 - exp(-attenuation): 0.28 in lung, 0.67 in muscle, 0.90 below.
AIR, LUNG, MUSCLE, ABDOMEN = 0.015, 0.25, 1.10, 2.3


def draw_chest(anatomy: Anatomy, size: int, rng: np.random.Generator) -> Canvas:
    """Draws soft tissue, lungs, heart, spine and bones.

    Args:
        anatomy: the geometry.
        size: side of the film in pixels.
        rng: the exposure's generator; draws vessels, gas and textures.

    Returns:
        A `Canvas` without findings; its vessels are still apart in `markings`.
    """
    grid = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x, y = grid[None, :], grid[:, None]
    offset = np.abs(x - np.float32(anatomy.center_x))
    wall = anatomy.chest_wall(grid).astype(np.float32)[:, None]
    lung = {side: _lung_mask(anatomy, side, x, y, offset, wall) for side in (RIGHT, LEFT)}
    canvas = Canvas(anatomy, np.full((size, size), AIR, np.float32), lung, np.zeros((size, size), np.float32), x, y)

    body = _body(canvas, offset, rng)
    attenuation = body * MUSCLE
    # Seen through the lung's edge is more of the chest wall, and the shoulders lie before the tops.
    aerated = LUNG + 0.05 * anatomy.fat / 0.06 + 0.22 * ramp(offset - wall + 0.015, 0.06) + 0.16 * ramp(0.17 - y, 0.12)
    attenuation += canvas.both_lungs * (aerated + 0.18 * (y - 0.45) - attenuation)
    attenuation += _abdomen(canvas, offset, rng) * np.minimum(body, 1.0)
    attenuation += _breasts(canvas)
    # Slow unevenness: muscle, skin folds, scatter.
    attenuation += 0.22 * (canvas.cloud(rng, 0.25) - 0.5) * np.minimum(body, 1.0)
    attenuation += (bones(canvas, offset, wall, rng) + spine(canvas, offset)) * np.minimum(body, 1.0)
    heart, middle = heart_and_vessels(canvas)
    attenuation += middle + great_vessels(canvas) - airways(canvas)
    canvas.density = 1.0 - np.exp(-np.maximum(attenuation, np.float32(AIR)))
    # What lies before or behind the heart does not show: findings are drawn on the lung that is seen.
    canvas.lung = {side: mask * (1.0 - 0.9 * heart) for side, mask in lung.items()}
    canvas.markings = lung_markings(canvas, rng) * canvas.both_lungs
    return canvas


def _lung_mask(anatomy: Anatomy, side: int, x: np.ndarray, y: np.ndarray, offset: np.ndarray, wall: np.ndarray) -> np.ndarray:
    inner = anatomy.lung_inner(y[:, 0]).astype(np.float32)[:, None]
    floor = anatomy.diaphragm(x[0], side).astype(np.float32)[None, :]
    mask = ramp(wall - offset, 0.014) * ramp(offset - inner, 0.02) * ramp(floor - y, 0.010)
    return mask * ramp(y - np.float32(anatomy.apex_y), 0.03) * ((x - anatomy.center_x) * side > 0)


def _body(canvas: Canvas, offset: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Thickness of neck, shoulders, trunk and arms: 0 outside, about 1 within, thinning towards the skin."""
    anatomy, y = canvas.anatomy, canvas.y
    apex, torso = anatomy.apex_y, anatomy.half_width + anatomy.fat
    neck = 0.125 + 0.25 * anatomy.fat
    shoulder = apex + rng.uniform(-0.03, 0.03)
    # Breasts widen the outline of the lower chest.
    bust = torso + 0.030 * anatomy.breast
    heights = [0.0, shoulder - 0.045, shoulder, shoulder + 0.035, shoulder + 0.09, 0.34, 0.44, 0.56, 0.68, 0.80, 1.0]
    widths = [neck, neck + 0.015, neck + 0.10, 0.40, 0.58, 0.58, torso + 0.035, torso, bust, torso - 0.005, torso + 0.01]
    outline = smooth_profile(y[:, 0], heights, widths)[:, None]
    trunk = np.sqrt(ramp(outline - offset - 0.035, 0.09))
    if anatomy.arms == 0.0:
        return trunk
    # The arm hangs beside the chest, more apart the lower.
    gap = torso + 0.05 - 0.04 * anatomy.arms + np.float32(0.05) * np.maximum(y - 0.4, 0.0)
    arm = np.sqrt(ramp(offset - gap, 0.06)) * ramp(y - np.float32(shoulder + 0.06), 0.08)
    return np.maximum(trunk, 0.9 * arm)


def _abdomen(canvas: Canvas, offset: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What lies below the diaphragm, denser with depth, and the gas in stomach and bowel."""
    anatomy, x, y = canvas.anatomy, canvas.x, canvas.y
    below = np.zeros_like(canvas.density)
    for side in (RIGHT, LEFT):
        depth = y - anatomy.diaphragm(x[0], side).astype(np.float32)[None, :]
        half = (x - anatomy.center_x) * side > 0
        below += half * ramp(depth, 0.010) * (0.62 + 0.38 * ramp(depth - 0.06, 0.14))
    below *= ramp(anatomy.half_width - offset + 0.01, 0.16)
    dome = anatomy.dome_left_y
    where = anatomy.center_x + rng.uniform(0.10, 0.20)
    bubble = canvas.disc(where, dome + rng.uniform(0.05, 0.08), rng.uniform(0.03, 0.075), softness=0.03, squeeze=0.55)
    bowel = ramp(canvas.cloud(rng, 0.055) - np.float32(rng.uniform(0.68, 0.95)), 0.25)
    bowel *= canvas.disc(anatomy.center_x + 0.20, dome + 0.17, 0.13, softness=0.10, squeeze=0.8)
    gas = np.maximum(bubble * rng.uniform(0.0, 0.8), 0.6 * bowel)
    return (ABDOMEN - MUSCLE) * below * (1.0 - gas) - 0.35 * gas * below


def _breasts(canvas: Canvas) -> np.ndarray | float:
    """Breast shadows lie over the lower lungs; their lower fold is plain, their upper edge is not seen."""
    anatomy = canvas.anatomy
    if anatomy.breast == 0.0:
        return 0.0
    shadow = np.zeros_like(canvas.density)
    radius = 0.13 + 0.035 * anatomy.breast
    for side in (RIGHT, LEFT):
        x, y = anatomy.center_x + side * anatomy.half_width * 0.70, 0.52 + 0.06 * anatomy.breast
        fold = canvas.disc(x, y, radius, softness=0.025, squeeze=1.05)
        shadow = np.maximum(shadow, fold * ramp(canvas.y - y + 0.02, 0.26))
    return (0.16 + 0.26 * anatomy.breast) * shadow
