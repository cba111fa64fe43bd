"""Calibration in the large and calibration slope of every cell, with one-step resamples.

A logistic fit in each of a thousand resamples of each cell would take hours. One Newton step from the estimate, with the
resample's own gradient and curvature, is as accurate as the bootstrap itself (Davidson and MacKinnon, International
Economic Review 1999), and both are sums over patients.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import special

from biascxr.audit.adjust import Adjustment
from biascxr.audit.groups import Groups
from biascxr.metrics.calibration import SMALLEST_PROBABILITY, calibration_in_the_large, calibration_slope
from biascxr.metrics.resampling import Resamples
from biascxr.metrics.sorted_pass import SortedLabel

CALIBRATION_FITS = ("calibration_in_the_large", "calibration_slope")


def calibration_replicates(
    rows: list[SortedLabel],
    groups: Groups,
    resamples: Resamples,
    *,
    weight: np.ndarray | None = None,
    adjustment: Adjustment | None = None,
) -> dict[str, np.ndarray]:
    """Fits both in every cell; the weights of an adjustment are taken as fixed.

    Args:
        rows: the sorted rows of each label.
        groups: the groups.
        resamples: how often each patient is drawn.
        weight: `[n]` weight of each row.
        adjustment: reweights the groups of each attribute.

    Returns:
        Per metric `[L, C, R + 1]`, NaN where it is undefined.
    """
    shape = (len(rows), len(groups.names), resamples.n_replicates + 1)
    values = {m: np.full(shape, np.nan) for m in CALIBRATION_FITS}
    at_of = {g.attribute.name: i for i, g in enumerate(groups.groupings)}

    def fit(job: tuple[int, int]) -> None:
        label, column = job
        at = at_of[groups.names[column][0]]
        own = rows[label]
        w = np.ones(len(resamples.patient)) if weight is None else weight
        if adjustment is not None and at > 0:
            w = w * adjustment.fixed(label, at)
        chosen = (groups.mask(column) & (w > 0))[own.row]
        row, y = own.row[chosen], own.positive[chosen].astype(np.float64)
        patients, patient = np.unique(resamples.patient[row], return_inverse=True)
        fits = _fits(y, own.score[chosen], w[row], patient, len(patients))
        for name, (estimate, sums) in fits.items():
            drawn = [block[patients].T.astype(np.float64) @ sums for block in resamples.lanes]
            values[name][label, column] = estimate + _newton_step(np.concatenate(drawn)[: shape[2]])
            values[name][label, column, 0] = estimate

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(fit, [(label, column) for label in range(shape[0]) for column in range(shape[1])]))
    return values


def _fits(y, score, w, patient, n_patients) -> dict[str, tuple[float, np.ndarray]]:
    """Returns both estimates with their gradient and curvature per patient, `[P, 2]` and `[P, 5]`."""
    x = special.logit(np.clip(score, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))

    def per_patient(columns) -> np.ndarray:
        return np.stack([np.bincount(patient, c, n_patients) for c in columns], axis=1)

    intercept, slope = calibration_in_the_large(y, score, w), calibration_slope(y, score, w)
    if np.isnan(intercept):
        return {}
    risk = special.expit(intercept + x)
    fits = {"calibration_in_the_large": (intercept, per_patient([w * (y - risk), w * risk * (1 - risk)]))}
    if np.isnan(slope):
        return fits
    # With the slope known, its intercept is the calibration in the large of the scores stretched by it.
    risk = special.expit(slope * x)
    risk = special.expit(calibration_in_the_large(y, risk, w) + slope * x)
    h = w * risk * (1 - risk)
    fits["calibration_slope"] = (slope, per_patient([w * (y - risk), w * (y - risk) * x, h, h * x, h * x * x]))
    return fits


def _newton_step(sums: np.ndarray) -> np.ndarray:
    """Returns the step `[R + 1]` of the fitted coefficient from its gradient and curvature in each resample."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if sums.shape[1] == 2:
            step = sums[:, 0] / sums[:, 1]
        else:
            g0, g1, h00, h01, h11 = sums.T
            step = (h00 * g1 - h01 * g0) / (h00 * h11 - h01**2)
    return np.where(np.isfinite(step), step, np.nan)
