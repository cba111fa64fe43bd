"""Resampling patients: the unit is the patient, so all images of a patient come and go together."""

from __future__ import annotations

import numpy as np


def patient_weights(patient_id: np.ndarray, n_replicates: int, *, seed: int) -> np.ndarray:
    """Bootstrap weights of images when patients are drawn with replacement.

    Args:
        patient_id: `[n]`, any type.
        n_replicates: R.
        seed: seed of the draw.

    Returns:
        `[R, n] float32`: how often each image's patient was drawn.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993; the cluster form, Field and Welsh 2007.
    """
    _, codes = np.unique(np.asarray(patient_id), return_inverse=True)
    n_patients = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    weights = np.empty((n_replicates, len(codes)), np.float32)
    for r in range(n_replicates):
        drawn = np.bincount(rng.integers(0, n_patients, n_patients), minlength=n_patients)
        weights[r] = drawn[codes]
    return weights
