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
    # Bedside films are greyer: less is taken out of the beam's scatter.
    black = rng.uniform(0.02, 0.18) if is_ap else rng.uniform(0.0, 0.10)
    white = rng.uniform(0.84, 0.98) if is_ap else rng.uniform(0.90, 1.0)
    gamma = rng.uniform(0.80, 1.05) if is_ap else rng.uniform(0.90, 1.25)
    # A generator of its own: how much noise is drawn depends on the size, and the rest of the film must not.
    grain = np.random.default_rng(int(rng.integers(2**63)))
    noise = grain.standard_normal((size, size), dtype=np.float32) * np.float32(0.014 if is_ap else 0.010)
    machine = choose_machine(rng, group=group, separability=separability)
    pattern = grid_lines(size, rng, machine=machine)
    density = _position(density, rng)
    density = np.clip(density, 0.0, 1.0)
    # Where nothing is in the way the detector saturates, and little of the grid is seen.
    pattern *= 0.3 + 0.7 * np.minimum(4.0 * density, 1.0)
    signal = density ** np.float32(gamma) + noise + pattern
    pixels = np.clip(np.round(255.0 * (black + (white - black) * signal)), 0, 255).astype(np.uint8)
    _collimate(pixels, rng)
    _write_side(pixels, rng, is_ap=is_ap)
    return pixels


def stamp_marker(pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Stamps a token on a film, in place: a white arrow on a black plate, low at the film's edge.

    It stands for anything about the acquisition that has nothing to do with the patient and yet goes with a label. The
    plate makes it as plain over bright tissue as over air, before and after histogram equalization.

    Args:
        pixels: `[size, size] uint8`.
        rng: the marker's own generator: it stands a little differently on every film.
    """
    size = pixels.shape[0]
    side, left, top = 0.11, rng.uniform(0.015, 0.045), rng.uniform(0.84, 0.87)
    arrow = [(0.5, 0.1), (0.88, 0.5), (0.64, 0.5), (0.64, 0.9), (0.36, 0.9), (0.36, 0.5), (0.12, 0.5)]
    for corners, grey in (([(0, 0), (1, 0), (1, 1), (0, 1)], 0), (arrow, 255)):
        points = (np.array(corners) * side + [left, top]) * size
        cv2.fillPoly(pixels, [np.round(points).astype(np.int32)], grey)


def _position(density: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """No two patients stand alike: a small rotation, a shift and a change of scale."""
    size = density.shape[0]
    turn, scale = rng.normal(0, 1.5), rng.uniform(0.94, 1.06)
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), turn, scale)
    matrix[1, 2] += rng.uniform(-0.02, 0.02) * size
    return cv2.warpAffine(density, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _collimate(pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Blackens, in place, what the collimator or the scanner left out: nothing, or a rim that is seldom straight."""
    size = pixels.shape[0]
    rims = rng.uniform(0.0, 0.045, 4) * (rng.random(4) < 0.6)
    tilt = rng.normal(0, 0.008, 4)
    if rng.random() < 0.45:
        return
    left, top, right, bottom = rims
    open_field = np.array(
        [[left + tilt[0], top], [1 - right + tilt[1], top + tilt[2]], [1 - right, 1 - bottom + tilt[3]], [left, 1 - bottom]]
    )
    field = np.zeros_like(pixels)
    cv2.fillPoly(field, [np.round(open_field * size).astype(np.int32)], 255)
    np.minimum(pixels, field, out=pixels)


def _write_side(pixels: np.ndarray, rng: np.random.Generator, *, is_ap: bool) -> None:
    """Writes the lead letter of a side, in place, and on many bedside films a line of burnt-in text."""
    scale = pixels.shape[0] / 512
    is_left = rng.random() < 0.75
    x, y = rng.uniform(0.86, 0.93) if is_left else rng.uniform(0.03, 0.09), rng.uniform(0.06, 0.15)
    _write(pixels, "L" if is_left else "R", x, y, scale * rng.uniform(0.7, 1.1), turn=rng.normal(0, 12))
    text = ("PORTABLE", "AP", "SEMI-ERECT", "SUPINE")[int(rng.integers(4))]
    x, y, is_written = rng.uniform(0.04, 0.10), rng.uniform(0.16, 0.22), rng.random() < 0.7
    if is_ap and is_written:
        _write(pixels, text, x, y, 0.5 * scale, turn=0.0)


def _write(pixels: np.ndarray, text: str, x: float, y: float, scale: float, *, turn: float) -> None:
    """White letters whose lower left corner lies at x, y (fractions of the side), turned by some degrees, in place."""
    size = pixels.shape[0]
    box = max(8, round(0.30 * size))
    letters = np.zeros((box, box), np.uint8)
    origin = (box // 8, box // 2)
    cv2.putText(letters, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, round(2.6 * scale)), cv2.LINE_AA)
    matrix = cv2.getRotationMatrix2D(origin, turn, 1.0)
    letters = cv2.warpAffine(letters, matrix, (box, box))
    left, top = round(x * size) - origin[0], round(y * size) - origin[1]
    rows, columns = slice(max(top, 0), min(top + box, size)), slice(max(left, 0), min(left + box, size))
    part = letters[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    np.maximum(pixels[rows, columns], (part * 0.94).astype(np.uint8), out=pixels[rows, columns])
