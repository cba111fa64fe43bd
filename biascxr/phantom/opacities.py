"""Findings in the lung: haze, airspace filling, bands and nodules. Each whitens the lung in its own texture."""

from __future__ import annotations

import numpy as np

from biascxr.phantom.anatomy import HILUM_OFFSET, LEFT, RIGHT
from biascxr.phantom.canvas import Canvas, ramp


def _any_side(rng: np.random.Generator) -> int:
    return RIGHT if rng.random() < 0.5 else LEFT


def _place(canvas: Canvas, side: int, rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    """A point in the middle of one lung, between two heights."""
    y = rng.uniform(low, high)
    inner, wall = float(canvas.anatomy.lung_inner(y)), float(canvas.anatomy.chest_wall(y))
    offset = inner + (wall - inner) * rng.uniform(0.35, 0.70)
    return canvas.anatomy.center_x + side * offset, y


def edema(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    """Edema: bilateral perihilar haze (a bat's wings) and short horizontal Kerley lines at the outer bases."""
    anatomy = canvas.anatomy
    haze = np.zeros_like(canvas.density)
    kerley = []
    for side in (RIGHT, LEFT):
        x = anatomy.center_x + side * (HILUM_OFFSET + 0.05)
        haze = np.maximum(haze, canvas.disc(x, 0.46, 0.13, softness=0.20, squeeze=1.5))
        for y in np.arange(0.50, anatomy.dome_y(side) + 0.05, 0.019) + rng.uniform(0, 0.010):
            wall = anatomy.center_x + side * (float(anatomy.chest_wall(y)) - 0.006)
            length = rng.uniform(0.015, 0.050)
            kerley.append(np.array([[wall, y], [wall - side * length, y + rng.normal(0, 0.003)]]))
    wool = 0.65 + 0.7 * (canvas.cloud(rng, 0.045) - 0.5)
    canvas.whiten(np.clip(haze * wool, 0, 1) * canvas.both_lungs * effect, 0.72)
    lines = canvas.blur(canvas.lines(kerley, 0.004), 0.0018)
    canvas.density += 0.24 * effect * lines * canvas.both_lungs


def lung_opacity(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    """Lung Opacity: a large ill-defined veil over one lung zone, through which vessels stay visible."""
    side = _any_side(rng)
    x, y = _place(canvas, side, rng, 0.30, 0.62)
    veil = canvas.disc(x, y, rng.uniform(0.11, 0.15), softness=0.12, squeeze=rng.uniform(1.0, 1.4))
    canvas.whiten(veil * canvas.lung[side] * (0.9 * effect), 0.58)


def consolidation(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    """Consolidation: a lobe turned white with one sharp edge (the fissure) and dark air bronchograms inside."""
    side = _any_side(rng)
    is_upper = rng.random() < 0.4
    fissure = rng.uniform(0.40, 0.46) if is_upper else rng.uniform(0.50, 0.56)
    slope = np.float32(side * rng.uniform(-0.15, 0.25))
    line = np.float32(fissure) + slope * (canvas.x - np.float32(canvas.anatomy.center_x + side * 0.15))
    beyond = (line - canvas.y) if is_upper else (canvas.y - line)
    lobe = ramp(beyond, 0.012) * ramp(np.float32(0.20) - beyond, 0.10) * canvas.lung[side]
    x, y = canvas.anatomy.center_x + side * HILUM_OFFSET, 0.42
    airways = []
    middle = fissure + (-0.10 if is_upper else 0.10)
    for spread in np.linspace(-0.07, 0.07, 4):
        end = np.array([x + side * rng.uniform(0.14, 0.20), middle + spread])
        start = np.array([x, y + 0.4 * spread])
        airways.append(np.linspace(start, end, 6) + rng.normal(0, 0.003, (6, 2)))
    air = canvas.blur(canvas.lines(airways, 0.006), 0.003)
    grain = 0.85 + 0.3 * (canvas.cloud(rng, 0.03) - 0.5)
    canvas.whiten(np.clip(lobe * grain, 0.0, 1.0) * (effect * (1.0 - 0.8 * air)), 0.76)


def pneumonia(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    """Pneumonia: several patchy, mottled clusters, mostly in the lower zones of one lung or both."""
    patches = np.zeros_like(canvas.density)
    main = _any_side(rng)
    for number in range(int(rng.integers(3, 6))):
        side = main if number < 2 or rng.random() < 0.6 else -main
        x, y = _place(canvas, side, rng, 0.36, 0.68)
        patches = np.maximum(patches, canvas.disc(x, y, rng.uniform(0.05, 0.08), softness=0.08))
    mottle = 0.25 + 0.75 * ramp(canvas.cloud(rng, 0.018) - np.float32(0.48), 0.55)
    canvas.whiten(patches * mottle * canvas.both_lungs * effect, 0.76)


def atelectasis(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    """Atelectasis: bright plate-like bands above the diaphragm."""
    bands = []
    sides = (RIGHT, LEFT) if rng.random() < 0.5 else (_any_side(rng),)
    for side in sides:
        for number in range(int(rng.integers(2, 5))):
            y = canvas.anatomy.dome_y(side) - 0.035 - 0.042 * number + rng.normal(0, 0.006)
            start = canvas.anatomy.center_x + side * rng.uniform(0.08, 0.13)
            length, tilt = rng.uniform(0.13, 0.20), rng.uniform(-0.03, 0.02)
            along, sag = np.linspace(0.0, 1.0, 9), rng.uniform(-0.012, 0.012)
            height = y + tilt * along + sag * np.sin(np.pi * along)
            bands.append(np.stack([start + side * length * along, height], axis=1))
    # Thickest in the middle, thin and soft at both ends.
    plate = 0.5 * canvas.lines(bands, 0.008) + 0.5 * canvas.lines([band[2:7] for band in bands], 0.015)
    canvas.whiten(canvas.blur(plate, 0.0035) * canvas.both_lungs * effect, 0.80)


def lung_lesion(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    """Lung Lesion: a few round nodules or masses with clear, slightly lobed margins."""
    lobes = canvas.cloud(rng, 0.02) - np.float32(0.5)
    for _ in range(int(rng.integers(2, 6))):
        side = _any_side(rng)
        x, y = _place(canvas, side, rng, 0.20, 0.66)
        radius, squeeze = rng.uniform(0.018, 0.044), rng.uniform(0.85, 1.15)
        distance = np.sqrt((canvas.x - np.float32(x)) ** 2 + ((canvas.y - np.float32(y)) / np.float32(squeeze)) ** 2)
        nodule = ramp(np.float32(radius) * (1.0 + 0.4 * lobes) - distance, 0.014)
        canvas.whiten(nodule * canvas.lung[side] * effect, 0.80)
