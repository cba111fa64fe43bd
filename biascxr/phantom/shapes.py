"""Findings that are a changed shape: a wide heart, a wide mediastinum, a raised diaphragm, broken ribs."""

from __future__ import annotations

import dataclasses

import numpy as np

from biascxr.phantom.anatomy import LEFT, RIGHT, Anatomy, RibBreak
from biascxr.phantom.canvas import Canvas


def enlarge_heart(anatomy: Anatomy, effect: float, rng: np.random.Generator) -> Anatomy:
    """Cardiomegaly: the heart takes well over half of the chest's width."""
    return dataclasses.replace(
        anatomy,
        heart_half_width=anatomy.heart_half_width * (1.0 + effect * rng.uniform(0.45, 0.60)),
        heart_half_height=anatomy.heart_half_height * (1.0 + 0.20 * effect),
    )


def widen_mediastinum(anatomy: Anatomy, effect: float, rng: np.random.Generator) -> Anatomy:
    """Enlarged Cardiomediastinum: a wide upper mediastinum and a large aortic knob."""
    return dataclasses.replace(
        anatomy,
        mediastinum_half_width=anatomy.mediastinum_half_width * (1.0 + effect * rng.uniform(0.9, 1.2)),
        aortic_knob=anatomy.aortic_knob * (1.0 + 0.7 * effect),
    )


def raise_diaphragm(anatomy: Anatomy, effect: float, rng: np.random.Generator) -> Anatomy:
    """Atelectasis, its volume loss: the diaphragm stands higher on the collapsed side."""
    rise = effect * rng.uniform(0.04, 0.07)
    if rng.random() < 0.5:
        return dataclasses.replace(anatomy, dome_right_y=anatomy.dome_right_y - rise)
    return dataclasses.replace(anatomy, dome_left_y=anatomy.dome_left_y - rise)


def fracture_ribs(anatomy: Anatomy, effect: float, rng: np.random.Generator) -> Anatomy:
    """Fracture: three to six neighbouring ribs broken on one side, the outer ends displaced with a gap."""
    side = RIGHT if rng.random() < 0.5 else LEFT
    n_broken = int(rng.integers(3, 7))
    first = int(rng.integers(1, 9 - n_broken))
    at = rng.uniform(0.45, 0.75)
    breaks = tuple(
        RibBreak(
            side=side,
            rib=first + i,
            at=float(np.clip(at + rng.normal(0, 0.04), 0.2, 0.9)),
            step=effect * rng.uniform(0.018, 0.030) * (1 if rng.random() < 0.7 else -1),
            gap=effect * rng.uniform(0.02, 0.05),
        )
        for i in range(n_broken)
    )
    return dataclasses.replace(anatomy, breaks=breaks)


def show_fracture(canvas: Canvas, effect: float, rng: np.random.Generator) -> None:
    """Fracture, its ends: bright overlapping margins and callus at each break."""
    for rib_break in canvas.anatomy.breaks:
        path = canvas.anatomy.rib(rib_break.side, rib_break.rib)
        x, y = path[round(rib_break.at * (len(path) - 1))]
        slant = rng.uniform(-0.012, 0.012)
        edge = canvas.lines([np.array([[x - slant, y - 0.013], [x + slant, y + 0.014 + rib_break.step]])], 0.004)
        canvas.whiten(canvas.blur(edge, 0.0015) * effect, 0.85)
        callus = canvas.disc(x, y + rib_break.step / 2, 0.019, softness=0.018)
        canvas.density += 0.22 * effect * callus
