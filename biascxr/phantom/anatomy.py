"""The shape of one chest: where lungs, heart, ribs and diaphragm lie. Geometry only; `film.py` draws it.

Lengths are fractions of the film's side; x grows to the right of the picture (the patient's left), y downwards.
"""

from __future__ import annotations

import dataclasses

import numpy as np

RIGHT, LEFT = -1, 1  # the patient's right lung is on the left of the picture
N_RIBS = 11
DOME_OFFSET = 0.19  # distance of a diaphragm dome's top from the midline
HILUM_OFFSET = 0.085


@dataclasses.dataclass(frozen=True)
class RibBreak:
    """A broken rib: which, where along it (0 spine to 1 chest wall), and the step between the ends."""

    side: int
    rib: int
    at: float
    step: float
    gap: float


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """One chest as one exposure shows it.

    Args:
        center_x: midline.
        half_width: half the inner width of the rib cage.
        apex_y: top of the lungs.
        dome_right_y, dome_left_y: tops of the diaphragm.
        heart_half_width, heart_half_height: half axes of the heart.
        mediastinum_half_width: half the width of the upper mediastinum.
        fat: thickness of soft tissue beside the ribs.
        breast: size of the breast shadows, 0 for none.
        scapula: how far the shoulder blades lie over the lungs: 0 turned away (PA), 1 over them (AP).
        arms: how near the arms hang to the chest: 0 off the film (PA), 1 beside it (AP).
        rib_sag: how far a rib falls from spine to chest wall.
        aortic_knob: radius of the aortic knob, growing with age.
        bone: attenuation of bone, falling with age.
        roundness: how soon the chest wall widens below the lungs' tops: small for a barrel, large for a bell.
        breaks: broken ribs.
    """

    center_x: float
    half_width: float
    apex_y: float
    dome_right_y: float
    dome_left_y: float
    heart_half_width: float
    heart_half_height: float
    mediastinum_half_width: float
    fat: float
    breast: float
    scapula: float
    arms: float
    rib_sag: float
    aortic_knob: float
    bone: float
    roundness: float
    breaks: tuple[RibBreak, ...] = ()

    def dome_y(self, side: int) -> float:
        return self.dome_right_y if side == RIGHT else self.dome_left_y

    def chest_wall(self, y: np.ndarray | float) -> np.ndarray:
        """Distance of the inner chest wall from the midline at height y."""
        t = np.clip((np.asarray(y) - self.apex_y) / (0.95 - self.apex_y), 0.0, 1.0)
        return 0.13 + (self.half_width - 0.13) * (1.0 - (1.0 - t) ** 3) ** self.roundness

    def lung_inner(self, y: np.ndarray | float) -> np.ndarray:
        """Distance of the lung's medial edge from the midline at height y."""
        t = np.clip((np.asarray(y) - self.apex_y) / 0.12, 0.0, 1.0)
        return 0.05 + 0.075 * (1.0 - t) ** 2

    def diaphragm(self, x: np.ndarray | float, side: int) -> np.ndarray:
        """Height of the diaphragm at x: a dome that falls steeply into the costophrenic angle."""
        out = (np.abs(np.asarray(x) - self.center_x) - DOME_OFFSET) / (self.half_width - DOME_OFFSET)
        return self.dome_y(side) + np.where(out > 0, 0.13, 0.03) * np.abs(out) ** 2.2

    @property
    def heart_x(self) -> float:
        return self.center_x + 0.30 * self.heart_half_width

    @property
    def heart_y(self) -> float:
        return self.dome_left_y - 0.62 * self.heart_half_height

    def rib(self, side: int, index: int) -> np.ndarray:
        """Points along a posterior rib, `[24, 2]` (x, y), from spine to chest wall."""
        along = np.linspace(0.0, 1.0, 24)
        y_spine = self.apex_y - 0.01 + 0.078 * index
        arch = 0.026 * np.sin(np.pi * np.minimum(along * 1.4, 1.0))
        # The first ribs turn in a small half circle, the lower ones fall further.
        y = y_spine - arch + self.rib_sag * (0.70 + 0.05 * index) * along**2.2
        x = 0.03 + (self.chest_wall(y) + 0.005 - 0.03) * along ** (0.85)
        return np.stack([self.center_x + side * x, y], axis=1)

    def front_rib(self, side: int, index: int) -> np.ndarray:
        """Points along an anterior rib, `[12, 2]` (x, y), from chest wall towards the sternum."""
        along = np.linspace(0.0, 1.0, 12)
        start = self.rib(side, index)[-1]
        x = start[0] - side * min(0.17 + 0.012 * index, 0.24) * np.sin(0.5 * np.pi * along) ** 1.3
        return np.stack([x, start[1] + 0.15 * along**0.9], axis=1)


def draw_anatomy(rng: np.random.Generator, *, sex: str, age: int, body_size: float) -> Anatomy:
    """Draws a patient's chest, as an upright PA film in full inspiration would show it.

    Args:
        rng: the patient's generator, so that all films of a patient show one chest.
        sex: M or F.
        age: years at the first film.
        body_size: standard deviations from the mean.
    """
    is_male = sex == "M"
    half_width = (0.372 if is_male else 0.350) + 0.010 * body_size + rng.normal(0, 0.012)
    dome = 0.755 + rng.normal(0, 0.024) - 0.014 * max(body_size, 0.0)
    elderly = max(age - 50, 0) / 40
    return Anatomy(
        center_x=0.5,
        half_width=half_width,
        apex_y=0.105 + rng.normal(0, 0.014),
        dome_right_y=dome,
        dome_left_y=dome + 0.022 + rng.normal(0, 0.006),
        heart_half_width=half_width * (0.445 + 0.03 * elderly + rng.normal(0, 0.014)),
        heart_half_height=0.165 + rng.normal(0, 0.008),
        mediastinum_half_width=0.058 + 0.008 * elderly + rng.normal(0, 0.004),
        fat=0.045 + 0.018 * (body_size + 2) / 2,
        breast=0.0 if is_male else float(np.clip(0.55 + 0.25 * body_size + rng.normal(0, 0.2), 0.1, 1.2)),
        scapula=0.0,
        arms=0.0,
        rib_sag=0.120 + rng.normal(0, 0.018),
        aortic_knob=0.026 + 0.016 * elderly + rng.normal(0, 0.003),
        bone=0.34 * (1.0 - 0.30 * elderly),
        roundness=float(np.clip(0.55 + rng.normal(0, 0.06), 0.42, 0.70)),
    )


def as_exposed(anatomy: Anatomy, rng: np.random.Generator, *, view: str) -> Anatomy:
    """The same chest in one exposure: AP films magnify the heart, show a shallower breath and the shoulder blades."""
    is_ap = view == "AP"
    breath = rng.normal(0, 0.010) - (0.040 if is_ap else 0.0)
    return dataclasses.replace(
        anatomy,
        center_x=0.5 + rng.normal(0, 0.016),
        dome_right_y=anatomy.dome_right_y + breath,
        dome_left_y=anatomy.dome_left_y + breath,
        heart_half_width=anatomy.heart_half_width * (1.10 if is_ap else 1.0) + rng.normal(0, 0.004),
        mediastinum_half_width=anatomy.mediastinum_half_width * (1.12 if is_ap else 1.0),
        scapula=1.0 if is_ap else float(rng.uniform(0, 0.25)),
        arms=float(rng.uniform(0.5, 1.0)) if is_ap else 0.0,
    )
