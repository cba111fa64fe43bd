"""Five planted cases for the question of leakage: vectors with a head of which it is known what it uses.

case = draw_case("encoded_unused", n_patients=6000, seed=0)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from biascxr.config import SPLITS
from biascxr.errors import InputError, unknown_name

N_LABELS, N_DIMENSIONS = 3, 12
GROUP_SHARE = 0.4  # of patients in group 1
SHIFT = 1.5  # how far a finding moves its coordinate, in deviations
PREVALENCE = np.array([0.30, 0.20, 0.15])
UNEQUAL = np.array([[0.30, 0.20, 0.15], [0.50, 0.35, 0.30]])  # of the two groups
ATTRIBUTE_SHIFT = 1.5  # between the groups, in deviations: AUROC .86 for the best reader
PRODUCT_SIZE, PRODUCT_SPREAD = 1.5, 0.5  # of |u| and |v| where the attribute is the sign of u v
USE = 0.8  # of a logit's deviation given the label, per deviation of the attribute's coordinate
SHARES_UP_TO = (0.5, 0.55, 0.6)  # train, validation, calibration; the rest is test
IMAGE_STOP, MAX_IMAGES = 0.45, 6  # images per patient: geometric, cut off; 2.2 on average
PATIENT_SHARE = 0.4  # of a coordinate's variance that a patient's images have in common
FIRST_ATTRIBUTE, SECOND_ATTRIBUTE = N_LABELS, N_LABELS + 1  # coordinates


@dataclass(frozen=True)
class Truth:
    """What is known of a case.

    Attributes:
        is_encoded: the vectors tell the groups apart beyond what the labels say of them.
        is_linear: a linear probe can read it.
        is_used: the score depends on the attribute given the label.
        verdict: what `biascxr.leakage.verdicts.verdict` ought to say.
    """

    is_encoded: bool
    is_linear: bool
    is_used: bool
    verdict: str


UNUSED, USED = "encoded, no dependence found", "encoded, predictions depend on it"
CASES = {
    "absent": Truth(False, False, False, "not detected"),
    "encoded_unused": Truth(True, True, False, UNUSED),
    "encoded_used": Truth(True, True, True, USED),
    "unequal_prevalence": Truth(True, True, False, UNUSED),
    "used_nonlinearly": Truth(True, False, True, USED),
}


@dataclass(frozen=True)
class LeakageCase:
    """Rows of one case, several images a patient.

    Attributes:
        vectors: `[n, d] float32`, a rotation of the coordinates.
        codes: `[n] int64`, group 0 or 1, constant for a patient.
        labels: `[n, L] float32`, 0 or 1.
        patient_id: `[n] int64`.
        split: `[n] str`, constant for a patient.
        scores: `[n, L] float64`, probabilities: the sigmoid of `hidden kernel + bias`.
        hidden: `[n, h] float32`, what the planted head's last layer takes.
        kernel: `[h, L]`.
        bias: `[L]`.
        truth: what is known.
    """

    vectors: np.ndarray
    codes: np.ndarray
    labels: np.ndarray
    patient_id: np.ndarray
    split: np.ndarray
    scores: np.ndarray
    hidden: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    truth: Truth

    def rows(self, split: str) -> np.ndarray:
        """Returns the row numbers of a split."""
        return np.flatnonzero(self.split == split)


def draw_case(name: str, *, n_patients: int, seed: int) -> LeakageCase:
    """Draws a case.

    Coordinates before the rotation: one a finding, `SHIFT y + noise`; two for the attribute; the rest noise. Noise is
    normal with unit variance, a share of it common to a patient's images. Given the label a finding's coordinate says nothing
    of the group, also where prevalence differs.

    The head is planted, not trained: with unequal prevalence a trained head *would* use the attribute, as prior knowledge
    of the finding. Rotated back, vectors go through a ReLU layer that holds every coordinate's positive and negative part;
    its last layer takes the finding's coordinate with the Bayes weight `SHIFT` and, where the attribute is used, `USE` times
    that of the attribute. Where the attribute is the sign of u v, the layer also holds the parts of u + v and u - v, since
    `|u + v| - |u - v| = 2 sign(u v) min(|u|, |v|)`: not linear in the vector, linear in the layer.

    Args:
        name: a key of `CASES`.
        n_patients: patients of all splits, 40 or more; 1 to 6 images each, 2.2 on average.
        seed: the same seed gives the same case.

    Raises:
        InputError: an unknown name, or too few patients.
    """
    if name not in CASES:
        raise unknown_name("leakage case", name, CASES)
    if n_patients < 40:
        raise InputError(f"n_patients must be 40 or more, so that every split has both groups; got {n_patients}.")
    truth, rng = CASES[name], np.random.default_rng([seed, *name.encode()])
    patient = np.repeat(np.arange(n_patients), np.minimum(rng.geometric(IMAGE_STOP, n_patients), MAX_IMAGES))
    group = (rng.random(n_patients) < GROUP_SHARE).astype(np.int64)
    split = np.searchsorted(SHARES_UP_TO, (rng.permutation(n_patients) + 0.5) / n_patients)
    prevalence = UNEQUAL[group] if name == "unequal_prevalence" else np.tile(PREVALENCE, (n_patients, 1))
    labels = (rng.random((n_patients, N_LABELS)) < prevalence)[patient]
    # A fifth of the images show another state than the patient's: labels vary within patients.
    redrawn = rng.random(labels.shape) < 0.2
    labels = np.where(redrawn, rng.random(labels.shape) < prevalence[patient], labels)

    noise = np.sqrt(PATIENT_SHARE) * rng.normal(size=(n_patients, N_DIMENSIONS))[patient]
    coordinates = noise + np.sqrt(1 - PATIENT_SHARE) * rng.normal(size=noise.shape)
    coordinates[:, :N_LABELS] += SHIFT * labels
    sign = 2 * group[patient] - 1
    if truth.is_linear:
        coordinates[:, FIRST_ATTRIBUTE] += ATTRIBUTE_SHIFT * (group[patient] - GROUP_SHARE)
    elif truth.is_encoded:
        size = np.abs(PRODUCT_SIZE + PRODUCT_SPREAD * coordinates[:, [FIRST_ATTRIBUTE, SECOND_ATTRIBUTE]])
        first = rng.choice([-1, 1], len(patient))
        coordinates[:, FIRST_ATTRIBUTE], coordinates[:, SECOND_ATTRIBUTE] = first * size[:, 0], first * sign * size[:, 1]

    rotation = np.linalg.qr(rng.normal(size=(N_DIMENSIONS, N_DIMENSIONS)))[0]
    vectors = (coordinates @ rotation).astype(np.float32)
    hidden = _hidden(vectors @ rotation.T)
    kernel, bias = _planted_head(truth)
    return LeakageCase(
        vectors, group[patient], labels.astype(np.float32), patient, np.array(SPLITS)[split[patient]],
        special.expit(hidden.astype(np.float64) @ kernel + bias), hidden, kernel, bias, truth,
    )  # fmt: skip


def _hidden(coordinates: np.ndarray) -> np.ndarray:
    """Returns the ReLU layer, `[n, 2 d + 4] float32`: parts of every coordinate, of u + v and of u - v."""
    u, v = coordinates[:, FIRST_ATTRIBUTE], coordinates[:, SECOND_ATTRIBUTE]
    parts = np.column_stack([coordinates, -coordinates, u + v, -u - v, u - v, v - u])
    return np.maximum(parts, 0).astype(np.float32)


def _planted_head(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias. Bayes for a normal coordinate: `logit = SHIFT z - SHIFT^2 / 2 + logit(prevalence)`."""
    kernel = np.zeros((2 * N_DIMENSIONS + 4, N_LABELS))
    kernel[np.arange(N_LABELS), np.arange(N_LABELS)] = SHIFT
    kernel[N_DIMENSIONS + np.arange(N_LABELS), np.arange(N_LABELS)] = -SHIFT
    if truth.is_used and truth.is_linear:
        kernel[FIRST_ATTRIBUTE], kernel[N_DIMENSIONS + FIRST_ATTRIBUTE] = USE * SHIFT, -USE * SHIFT
    elif truth.is_used:
        # |u + v| - |u - v| is about 2 PRODUCT_SIZE either way: divided by that it is about -1 or +1.
        kernel[2 * N_DIMENSIONS :] = USE * SHIFT / (2 * PRODUCT_SIZE) * np.array([1, 1, -1, -1])[:, None]
    return kernel, special.logit(PREVALENCE) - SHIFT**2 / 2
