"""What `remedies.py` measures of scores and decisions on test films. A patient counts once, whatever the number of films."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from biascxr.leakage import ProbeRows, find_probe
from biascxr.metrics import auroc, calibration_in_the_large, debiased_calibration_error

INVERSE_PENALTY = 0.01  # of the leakage probe, the same for all methods
SMALLEST_PROBABILITY = 1e-7
STREAM_PROBE = 91


@dataclass(frozen=True)
class Loss:
    """A mean loss over patients, and how each of them moves it.

    Attributes:
        value: the loss.
        influence: `[P]`, of mean 0; the variance of `value` is that of its mean. Patients in rising order, so that two losses
            on the same films can be paired.
    """

    value: float
    influence: np.ndarray


def log_losses(labels: np.ndarray, scores: np.ndarray, patient: np.ndarray) -> Loss:
    """Mean log loss over findings, films of a patient, patients.

    Args:
        labels: `[n, L]` in {0, 1}.
        scores: `[n, L]` probabilities.
        patient: `[n]`.
    """
    p = np.clip(scores, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY).astype(np.float64)
    of_film = -np.where(labels == 1, np.log(p), np.log1p(-p)).mean(axis=1)
    of_patient = _patient_sums(of_film, patient) / _patient_sums(np.ones(len(patient)), patient)
    return Loss(float(of_patient.mean()), of_patient - of_patient.mean())


def balanced_errors(labels: np.ndarray, flagged: np.ndarray, patient: np.ndarray) -> Loss:
    """Mean over findings of the balanced error rate `1 - (TPR + TNR) / 2`, films weighted so that patients count alike.

    A rate is a ratio of sums over patients, `sum h_p / sum a_p`; patient p moves it by `(h_p - rate a_p) / mean a`.

    Args:
        labels: `[n, L]` in {0, 1}.
        flagged: `[n, L]`, the chance of being flagged; NaN counts as not flagged, as a user would take it.
        patient: `[n]`.
    """
    weight = 1.0 / _films_of(patient)
    flagged = np.nan_to_num(flagged.astype(np.float64))
    rates, influences = [], []
    for y, flag in zip(labels.T, flagged.T, strict=True):
        for among, wrong in ((y == 1, 1 - flag), (y == 0, flag)):
            base = _patient_sums(weight * among, patient)
            if base.sum() == 0:
                continue
            rate = _patient_sums(weight * among * wrong, patient).sum() / base.sum()
            rates.append(rate)
            influences.append((_patient_sums(weight * among * (wrong - rate), patient)) / base.mean())
    if not rates:
        return Loss(float("nan"), np.full(len(np.unique(patient)), np.nan))
    return Loss(float(np.mean(rates)), np.mean(influences, axis=0))


def paired_covariance(first: Loss, second: Loss) -> float:
    """Covariance of two losses' values over samples of patients."""
    n = len(first.influence)
    return float(first.influence @ second.influence / (n * max(1, n - 1)))


def difference(first: Loss, second: Loss) -> Loss:
    """Returns first - second, patient by patient."""
    return Loss(first.value - second.value, first.influence - second.influence)


def macro_auroc(labels: np.ndarray, scores: np.ndarray, patient: np.ndarray) -> float:
    """Mean AUROC over the findings that have one."""
    weight = 1.0 / _films_of(patient)
    return float(np.nanmean([auroc(y, s, weight) for y, s in zip(labels.T, scores.T, strict=True)]))


def calibration(labels: np.ndarray, scores: np.ndarray, patient: np.ndarray) -> tuple[float, float]:
    """Means over findings of calibration-in-the-large (logits; above 0: scores are too low) and of the debiased ECE."""
    weight = 1.0 / _films_of(patient)
    pairs = [(y, np.clip(s.astype(np.float64), 0, 1)) for y, s in zip(labels.T, scores.T, strict=True)]
    large = [calibration_in_the_large(y, s, weight) for y, s in pairs]
    return float(np.nanmean(large)), float(np.mean([debiased_calibration_error(y, s, weight) for y, s in pairs]))


def leakage(features: np.ndarray, in_group: np.ndarray, patient: np.ndarray, *, seed: int) -> float:
    """AUROC with which a logistic probe, fitted on half of the test patients, reads the group from the films of the others.

    Args:
        features: `[n, k]`.
        in_group: `[n] bool`.
        patient: `[n]`.
        seed: which half.
    """
    patients = np.unique(patient)
    rng = np.random.default_rng([seed, STREAM_PROBE])
    fitted = np.isin(patient, rng.permutation(patients)[: len(patients) // 2])
    mean, scale = features[fitted].mean(axis=0), features[fitted].std(axis=0)
    standard = ((features - mean) / np.where(scale > 0, scale, 1)).astype(np.float32)
    if len(np.unique(in_group[fitted])) < 2:
        return float("nan")
    rows = ProbeRows(standard[fitted], in_group[fitted].astype(np.int64), patient[fitted])
    reading = find_probe("logistic").read(rows, [standard[~fitted]], n_groups=2, grid=(INVERSE_PENALTY,), seed=seed)
    return auroc(in_group[~fitted].astype(np.float64), reading.scores[0][:, 1], 1.0 / _films_of(patient[~fitted]))


def logits(scores: np.ndarray) -> np.ndarray:
    """Log odds of probabilities `[n, L]`."""
    return special.logit(np.clip(scores.astype(np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))


def _films_of(patient: np.ndarray) -> np.ndarray:
    """For each film, how many its patient has."""
    _, of, counts = np.unique(patient, return_inverse=True, return_counts=True)
    return counts[of]


def _patient_sums(values: np.ndarray, patient: np.ndarray) -> np.ndarray:
    _, of = np.unique(patient, return_inverse=True)
    return np.bincount(of, weights=values)
