"""The vessels of the lung: trees that leave the hila, bend, fork and thin out."""

from __future__ import annotations

import numpy as np

from biascxr.phantom.anatomy import HILUM_OFFSET, LEFT, RIGHT
from biascxr.phantom.canvas import Canvas

N_TRUNKS = 11  # per lung
POINTS = 7  # of a stretch of vessel


def lung_markings(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Draws the vessels of both lungs over a faint, fine texture.

    Returns:
        `[size, size] float32`, density to be added where there is lung.
    """
    levels: list[list[np.ndarray]] = [[], [], [], []]
    for side in (RIGHT, LEFT):
        hilum = np.array([canvas.anatomy.center_x + side * HILUM_OFFSET, 0.445 if side == RIGHT else 0.42])
        # More of them run down than up, as blood does in who stands.
        angles = np.linspace(-1.25, 1.5, N_TRUNKS) + rng.normal(0, 0.12, N_TRUNKS)
        starts = hilum + np.stack([-0.012 * side * np.ones(N_TRUNKS), 0.055 * np.sin(angles)], axis=1)
        trunks, ends = _stretches(starts, angles, side, rng.uniform(0.09, 0.14, N_TRUNKS), rng)
        levels[0] += list(trunks)
        for level in (1, 2, 3):
            # Each goes on in one branch and gives off another.
            turn = rng.uniform(0.20, 0.55, len(ends)) * rng.choice([-1.0, 1.0], len(ends))
            forks = np.concatenate([trunks[:, -1], trunks[:, POINTS // 2 + 1]])
            heading = np.concatenate([ends - 0.5 * turn, ends + 1.3 * turn])
            length = rng.uniform(0.045, 0.085, len(forks))
            trunks, ends = _stretches(forks, heading, side, length, rng)
            levels[level] += list(trunks)
    drawn = np.zeros_like(canvas.density)
    for paths, strength, width in zip(levels, (0.15, 0.11, 0.075, 0.045), (0.0105, 0.0070, 0.0045, 0.0030), strict=True):
        drawn = np.maximum(drawn, strength * canvas.lines(paths, width))
    mottle = canvas.cloud(rng, 0.014) + canvas.cloud(rng, 0.035)
    return canvas.blur(drawn, 0.0024) + 0.035 * (mottle - 1.0)


def _stretches(
    starts: np.ndarray, angles: np.ndarray, side: int, lengths: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Bent stretches from `starts`: points `[k, POINTS, 2]` and the heading `[k]` at their ends, 0 outwards, positive down."""
    along = np.linspace(0, 1, POINTS)
    turn = angles[:, None] + rng.normal(0, 0.22, (len(angles), 1)) * along + rng.normal(0, 0.06, (len(angles), POINTS))
    steps = np.stack([side * np.cos(turn), np.sin(turn)], axis=2) * (lengths[:, None, None] / (POINTS - 1))
    steps[:, 0] = 0.0
    return starts[:, None, :] + np.cumsum(steps, axis=1), turn[:, -1]
