"""The film in the making: a density map with the tools that findings are drawn with."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from biascxr.phantom.anatomy import LEFT, RIGHT, Anatomy

SUBPIXEL = 4  # bits of a pixel that OpenCV's line drawing resolves


def ramp(distance: np.ndarray, softness: float) -> np.ndarray:
    """A soft step: 0 well outside (negative distance), 1 well inside, over a width of `softness`."""
    return np.clip(distance / np.float32(softness) + np.float32(0.5), 0.0, 1.0)


def smooth_profile(at: np.ndarray, points: list[float], values: list[float]) -> np.ndarray:
    """A smooth curve near the given points, as float32 at each of `at`; both axes in fractions of the side."""
    fine = np.linspace(-0.1, 1.1, 241)
    window = np.hanning(15)
    rough = np.pad(np.interp(fine, points, values), 7, mode="edge")
    return np.interp(at, fine, np.convolve(rough, window / window.sum(), mode="valid")).astype(np.float32)


@dataclasses.dataclass
class Canvas:
    """A film being drawn.

    Args:
        anatomy: the chest on it.
        density: `[size, size] float32`, 0 black (air) to 1 white (metal).
        lung: `{RIGHT: mask, LEFT: mask}`, each `[size, size] float32` in [0, 1].
        markings: `[size, size] float32`, vessels of the lung, added last so that a collapsed lung can lose them.
        x, y: `[1, size]` and `[size, 1] float32`, coordinates as fractions of the side.
    """

    anatomy: Anatomy
    density: np.ndarray
    lung: dict[int, np.ndarray]
    markings: np.ndarray
    x: np.ndarray
    y: np.ndarray

    @property
    def size(self) -> int:
        return self.density.shape[0]

    @property
    def both_lungs(self) -> np.ndarray:
        return np.maximum(self.lung[RIGHT], self.lung[LEFT])

    def thickness(self, fraction: float) -> int:
        """Line thickness in pixels of a fraction of the side, at least 1."""
        return max(1, round(fraction * self.size))

    def whiten(self, mask: np.ndarray, level: float) -> None:
        """Moves the density towards `level` where `mask` (in [0, 1]) says so; never darkens."""
        self.density += mask * np.maximum(np.float32(level) - self.density, 0.0)

    def lines(self, paths: list[np.ndarray], width: float) -> np.ndarray:
        """Draws open paths of points `[k, 2]` (x, y) in fractions, `width` wide; returns a mask in [0, 1]."""
        mask = np.zeros((self.size, self.size), dtype=np.uint8)
        scale = self.size * 2**SUBPIXEL
        points = [np.round(np.asarray(path) * scale).astype(np.int32) for path in paths]
        cv2.polylines(mask, points, False, 255, self.thickness(width), cv2.LINE_AA, SUBPIXEL)
        return mask.astype(np.float32) / np.float32(255.0)

    def disc(self, x: float, y: float, radius: float, *, softness: float, squeeze: float = 1.0) -> np.ndarray:
        """An ellipse with half axes `radius` (across) and `radius * squeeze` (down); returns a mask in [0, 1]."""
        distance = np.sqrt((self.x - np.float32(x)) ** 2 + ((self.y - np.float32(y)) / np.float32(squeeze)) ** 2)
        return ramp(np.float32(radius) - distance, softness)

    def cloud(self, rng: np.random.Generator, grain: float) -> np.ndarray:
        """Smooth random texture in about [0, 1] whose spots are `grain` (a fraction of the side) wide."""
        cells = max(2, round(1.0 / grain))
        coarse = rng.random((cells, cells), dtype=np.float32)
        return cv2.resize(coarse, (self.size, self.size), interpolation=cv2.INTER_CUBIC)

    def blur(self, mask: np.ndarray, width: float) -> np.ndarray:
        """Gaussian blur with a standard deviation of `width` (a fraction of the side)."""
        return cv2.GaussianBlur(mask, (0, 0), max(width * self.size, 0.3))
