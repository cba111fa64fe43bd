"""What the machine adds to a chest: exposure, noise, a side marker, and the group's pattern.

The pattern stands for anything about *where and how* a film was taken that goes with a group: another hospital,
another detector, another anti-scatter grid. It is arbitrary and has nothing to do with the body.
"""

from __future__ import annotations

import cv2
import numpy as np

# Direction (degrees from horizontal) and period (fraction of the side) of each machine's grid lines.
PATTERNS = ((0.0, 0.0205), (90.0, 0.0205), (45.0, 0.0290), (135.0, 0.0290))
AMPLITUDE = 0.012  # in density


def choose_machine(rng: np.random.Generator, *, group: int, separability: float) -> int:
    """Which of the four machines takes a film: the group's own, with chance `separability`, or else any of the four.

    A probe that sees a group's pattern without error then has a known AUROC for that group against the rest: the
    group's films show it with chance s + (1 - s) / 4, all others with (1 - s) / 4, so AUROC = 1/2 + s / 2. One that
    also weighs the other patterns by the sizes of their groups reaches 0.01 to 0.02 more, and a mechanism that changes
    how films look (presentation) leaves a trace of its own.

    Args:
        rng: two draws are taken whatever the group, so that at 0 groups share every number.
        group: neutral group, an index into `PATTERNS`.
        separability: s, in [0, 1].
    """
    own, other = rng.random(), int(rng.integers(len(PATTERNS)))
    return group if own < separability else other


def grid_lines(size: int, rng: np.random.Generator, *, machine: int) -> np.ndarray:
    """The faint grid lines of a machine.

    Args:
        size: side in pixels.
        rng: draws phase, tilt and plainness, which vary from film to film.
        machine: an index into `PATTERNS`.

    Returns:
        `[size, size] float32`, to be added to the density.
    """
    direction, period = PATTERNS[machine]
    angle = np.deg2rad(direction + rng.normal(0, 2.5))
    phase, amplitude = rng.uniform(0, 2 * np.pi), AMPLITUDE * rng.lognormal(0, 0.25)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    wave = 2 * np.pi / period
    # sin(a + b) from two one-dimensional halves: far cheaper than a sine per pixel.
    across = grid[None, :] * np.float32(np.sin(angle) * wave)
    down = grid[:, None] * np.float32(np.cos(angle) * wave) + np.float32(phase)
    return np.float32(amplitude) * (np.sin(down) * np.cos(across) + np.cos(down) * np.sin(across))


def expose(density: np.ndarray, rng: np.random.Generator, *, view: str, group: int, separability: float) -> np.ndarray:
    """Turns density into the grey values that a detector records.

    Args:
        density: `[size, size] float32`, 0 air to 1 metal.
        rng: the machine's generator.
        view: AP or PA; bedside films are noisier and flatter.
        group: neutral group.
        separability: chance that the film is taken on the group's own machine, in [0, 1].

    Returns:
        `[size, size] uint8`.
    """
    size, is_ap = density.shape[0], view == "AP"
    contrast = rng.uniform(0.86, 1.0) * (0.93 if is_ap else 1.0)
    brightness = rng.uniform(0.0, 0.06)
    noise = rng.standard_normal((size, size), dtype=np.float32) * np.float32(0.014 if is_ap else 0.010)
    machine = choose_machine(rng, group=group, separability=separability)
    pattern = grid_lines(size, rng, machine=machine)
    density = _position(density, rng)
    signal = brightness + contrast * (density + noise + pattern)
    pixels = np.clip(np.round(255.0 * signal), 0, 255).astype(np.uint8)
    scale = size / 512
    corner = (round(0.03 * size), round(0.12 * size))
    text = "AP" if is_ap else "L"
    corner = corner if is_ap else (round(0.92 * size), round(0.10 * size))
    cv2.putText(pixels, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, 235, max(1, round(2 * scale)), cv2.LINE_AA)
    return pixels


def _position(density: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """No two patients stand alike: a small rotation and a change of scale."""
    size = density.shape[0]
    turn, scale = rng.normal(0, 1.5), rng.uniform(0.95, 1.05)
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), turn, scale)
    return cv2.warpAffine(density, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
