"""Resampling patients: the unit is the patient, so all images of a patient come and go together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.metrics.sorted_pass import in_lanes


@dataclass(frozen=True)
class Resamples:
    """How often each patient is drawn in each resample.

    Attributes:
        patient: `[n] int32`, the patient of each row, 0..P-1.
        lanes: `[blocks, P, LANES] uint8`; the first weighting is the data as they are (all 1), then the resamples.
        n_replicates: R.
    """

    patient: np.ndarray
    lanes: np.ndarray
    n_replicates: int

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return self.lanes.shape[1]

    def weights(self) -> np.ndarray:
        """Returns `[R + 1, n] float32`, the weight of each row: for checks on small sets."""
        blocks, n_patients, lanes = self.lanes.shape
        drawn = self.lanes.transpose(1, 0, 2).reshape(n_patients, blocks * lanes)[:, : self.n_replicates + 1]
        return drawn[self.patient].T.astype(np.float32)


def resample_patients(patient_id: np.ndarray, n_replicates: int, *, seed: int) -> Resamples:
    """Draws patients with replacement, as many as there are.

    Args:
        patient_id: `[n]`, any type.
        n_replicates: R.
        seed: seed of the draw. The draw follows the identifiers as text, not the order of the rows.

    Raises:
        ValueError: an identifier is missing.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993; the cluster form, Field and Welsh 2007.
    """
    identifiers = pd.Series(np.asarray(patient_id))
    if identifiers.isna().any():
        raise ValueError(f"patient_id must name the patient of every row; it is missing in {identifiers.isna().sum()} rows.")
    patient, _ = pd.factorize(identifiers.astype(str), sort=True)
    n_patients = int(patient.max(initial=-1)) + 1
    rng = np.random.default_rng(seed)
    drawn = np.ones((n_replicates + 1, n_patients), np.uint8)
    for r in range(1, n_replicates + 1):
        # No patient is drawn 256 times: with P patients that has a chance below 1e-500.
        drawn[r] = np.bincount(rng.integers(0, n_patients, n_patients), minlength=n_patients)
    return Resamples(patient.astype(np.int32), in_lanes(drawn.T), n_replicates)


def patient_weights(patient_id: np.ndarray, n_replicates: int, *, seed: int) -> np.ndarray:
    """Returns `[R, n] float32`, the resamples of `resample_patients` as weights of rows."""
    return resample_patients(patient_id, n_replicates, seed=seed).weights()[1:]
