"""One film: a chest, its findings, and the machine that took it, as grey values."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from biascxr.phantom.acquisition import expose, stamp_marker
from biascxr.phantom.anatomy import as_exposed, draw_anatomy
from biascxr.phantom.chest import draw_chest
from biascxr.phantom.findings import PAINTERS, RESHAPERS

# What a generator is for; together with the seed and an index it makes that generator's own stream, so that one
# finding more, or a fainter one, changes nothing else on the film.
STREAM_PATIENT, STREAM_EXPOSURE, STREAM_FINDING, STREAM_MACHINE, STREAM_MARKER = 11, 12, 13, 14, 15


@dataclasses.dataclass(frozen=True)
class FilmSpec:
    """All that is needed to draw one film.

    Args:
        seed: the cohort's seed.
        index: the film's number in the cohort.
        patient: the patient's number in the cohort.
        sex: M or F.
        age: years.
        body_size: standard deviations from the mean.
        view: AP or PA.
        group: the neutral group, which has a machine of its own.
        separability: chance that the film is taken on it, in [0, 1].
        effects: finding -> severity times visibility, in [0, 1]; 0 draws nothing.
        image_size: side in pixels.
        marker: whether the film carries a token that has nothing to do with the patient.
    """

    seed: int
    index: int
    patient: int
    sex: str
    age: int
    body_size: float
    view: str
    group: int
    separability: float
    effects: dict[str, float]
    image_size: int
    marker: bool = False


def draw_film(spec: FilmSpec) -> np.ndarray:
    """Draws a film.

    Args:
        spec: what to draw.

    Returns:
        `[image_size, image_size] uint8` grey values, bone white, with the natural spread of a film.
    """
    present = {name: effect for name, effect in spec.effects.items() if effect > 0.0}

    def finding_rng(name: str) -> np.random.Generator:
        # The order of the tables may change; the bytes of a finding's name do not.
        return np.random.default_rng([spec.seed, STREAM_FINDING, spec.index, *name.encode()])

    exposure_rng = np.random.default_rng([spec.seed, STREAM_EXPOSURE, spec.index])
    anatomy = draw_anatomy(
        np.random.default_rng([spec.seed, STREAM_PATIENT, spec.patient]),
        sex=spec.sex,
        age=spec.age,
        body_size=spec.body_size,
    )
    anatomy = as_exposed(anatomy, exposure_rng, view=spec.view)
    for name, reshape in RESHAPERS.items():
        if name in present:
            anatomy = reshape(anatomy, present[name], finding_rng(name))
    canvas = draw_chest(anatomy, spec.image_size, exposure_rng)
    for name, paint in PAINTERS.items():
        if name in present:
            paint(canvas, present[name], finding_rng(name))
    density = canvas.density + canvas.markings * (1.0 - 0.7 * np.clip(canvas.density, 0.0, 1.0))
    machine_rng = np.random.default_rng([spec.seed, STREAM_MACHINE, spec.index])
    pixels = expose(density, machine_rng, view=spec.view, group=spec.group, separability=spec.separability)
    if spec.marker:
        stamp_marker(pixels, np.random.default_rng([spec.seed, STREAM_MARKER, spec.index]))
    return pixels


def encode_film(pixels: np.ndarray) -> bytes:
    """JPEG bytes of a film, `[size, size] uint8`."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
