"""An AUROC that ranks a row only against rows of its own stratum, with what each row adds to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from biascxr.errors import InputError


@dataclass(frozen=True)
class StratifiedAuroc:
    """How well a score tells a group from the others, within strata.

    Attributes:
        value: in [0, 1]; NaN where no stratum holds both sides.
        variance: of `value`, over patients; NaN with fewer than two patients on either side.
        influence: `[n]`, by how much the value moves when a row's weight grows by its own share; sums to 0.
        n_group_patients: patients with a row of the group that has someone to be ranked against.
        n_other_patients: the same of the others.
    """

    value: float
    variance: float
    influence: np.ndarray
    n_group_patients: int
    n_other_patients: int

    @property
    def standard_error(self) -> float:
        """Square root of the variance."""
        return float(np.sqrt(self.variance))


def stratified_auroc(
    is_group: np.ndarray,
    score: np.ndarray,
    *,
    patient_id: np.ndarray,
    strata: np.ndarray,
    weight: np.ndarray | None = None,
) -> StratifiedAuroc:
    """AUROC of "is of the group" over pairs of rows of one stratum, and its variance when a patient has several rows.

        A = sum_s pairs_s A_s / sum_s pairs_s,   pairs_s = (weight of the group in s) x (weight of the others in s)

    It is the probability that of two rows of one stratum, one of either side, that of the group has the higher score, ties
    counted half. A stratum without one of the sides has no pairs. The variance is Obuchowski's clustered form of DeLong's,
    written with influence values, so that a patient may have rows in several strata and on both sides; with one stratum it
    is that of `biascxr.metrics.delong.clustered_auroc`.

    Args:
        is_group: `[n] bool`.
        score: `[n]`.
        patient_id: `[n]`.
        strata: `[n] int`, number of the row's stratum.
        weight: `[n]`, at least 0; default 1.

    Raises:
        InputError: lengths differ, or a score is NaN.

    Reference: Obuchowski, Biometrics 1997; van Elteren 1960 for ranking within strata (his weights of strata differ:
        pairs / rows, which serve a test; pairs themselves keep the value a probability).
    """
    n = len(score)
    weight = np.ones(n) if weight is None else np.asarray(weight, np.float64)
    for name, values in (("is_group", is_group), ("patient_id", patient_id), ("strata", strata), ("weight", weight)):
        if len(values) != n:
            raise InputError(f"{name} must have one value per score, {n}; got {len(values)}.")
    if np.isnan(score).any():
        raise InputError("score must hold no NaN: a missing score has no rank. Leave these rows out.")
    _, stratum = np.unique(strata, return_inverse=True)
    own = np.where(is_group, weight, 0.0)
    other = weight - own
    of_own, of_other = (np.bincount(stratum, side, minlength=1)[stratum] if n else side for side in (own, other))
    both = (of_own > 0) & (of_other > 0)
    own_below, other_below = _weight_below(score, stratum, np.stack([own, other]))
    total = float((own * of_other).sum())
    value = float((own * other_below).sum() / total) if total > 0 else float("nan")
    in_group = own * (other_below - value * of_other) / total if total > 0 else np.full(n, np.nan)
    in_others = other * (of_own - own_below - value * of_own) / total if total > 0 else np.full(n, np.nan)
    _, patient = np.unique(patient_id, return_inverse=True)
    counts = [len(np.unique(patient[both & (side > 0)])) for side in (own, other)]
    return StratifiedAuroc(
        value, _variance(in_group, in_others, patient, counts, patient[both & (weight > 0)]), in_group + in_others, *counts
    )


def centred_ranks(score: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """Returns each row's share of its stratum that lies below it, ties counted half, less one half: `[n]` in (-.5, .5).

    They sum to 0 in every stratum and do not depend on groups, so that a permutation of groups needs no new ranking.
    """
    below = _weight_below(score, stratum, np.ones((1, len(score))))[0]
    return below / np.bincount(stratum)[stratum] - 0.5


def _weight_below(score: np.ndarray, stratum: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns `[w, n]`: of each weighting `[w, n]`, what lies below a row in its stratum, ties counted half."""
    order = np.lexsort((score, stratum))
    ranked, own = score[order], stratum[order]
    is_first = np.r_[True, own[1:] != own[:-1]]
    is_new = is_first | np.r_[True, ranked[1:] != ranked[:-1]]
    is_first, is_new = is_first[: len(own)], is_new[: len(own)]
    running = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights[:, order], axis=1)], axis=1)
    starts = np.flatnonzero(is_new)
    block, ends = np.cumsum(is_new) - 1, np.r_[starts[1:], len(own)]
    at_stratum = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    below = np.empty_like(weights, np.float64)
    below[:, order] = (running[:, starts[block]] + running[:, ends[block]]) / 2 - running[:, at_stratum]
    return below


def _variance(
    in_group: np.ndarray, in_others: np.ndarray, patient: np.ndarray, counts: list[int], compared: np.ndarray
) -> float:
    if min(counts) < 2:
        return float("nan")
    n_patients = len(np.unique(compared))
    of_group, of_others = (np.bincount(patient, part) for part in (in_group, in_others))
    small_sample = [count / (count - 1) for count in (*counts, n_patients)]
    return float(
        small_sample[0] * of_group @ of_group
        + small_sample[1] * of_others @ of_others
        + 2 * small_sample[2] * of_group @ of_others
    )
