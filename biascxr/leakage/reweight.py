"""Rows weighted so that groups are alike in age, sex, view, portable and labels: what is still read then is not these."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from biascxr.containers import Attribute, Cohort
from biascxr.leakage.covariates import covariate_vectors
from biascxr.leakage.readout import group_codes
from biascxr.metrics import effective_n

# Below these a reweighted group says too little (STATISTICS.md, "Like with like"; the audit's limits).
MIN_EFFECTIVE, MIN_EFFECTIVE_SHARE = 30, 0.2
MIN_PATIENTS = 25
# Standard deviations by which a weighted mean may stay away (Rubin 2001 calls more than .25 not alike).
MAX_IMBALANCE = 0.25
# Nearly unpenalised: a real penalty would shrink propensities and make groups without overlap look as if they had some.
INVERSE_PENALTY = 100.0


@dataclass(frozen=True)
class BalancingWeights:
    """Overlap weights of rows.

    Attributes:
        weight: `[m] float64`; a group's sum to its number of rows. 0 in rows of groups that take no part, NaN throughout where
            fewer than two groups are left: nothing can be compared.
        n_effective: per group that takes part, Kish's effective number of rows.
        largest_imbalance: largest difference between a group's weighted mean of a covariate and the others', in standard
            deviations of the covariate; NaN without.
        note: which groups take no part and why, in words; "" where all do.
    """

    weight: np.ndarray
    n_effective: dict[str, float] = field(default_factory=dict)
    largest_imbalance: float = float("nan")
    note: str = ""


def balancing_weights(cohort: Cohort, attribute: Attribute, rows: np.ndarray) -> BalancingWeights:
    """Weights rows of every group to a common distribution of the covariates.

    With e_g(x) the propensity of group g given the covariates x, from a multinomial logistic regression on these rows, a
    row of group g weighs

        h(x) / e_g(x),   h(x) = 1 / sum_k 1 / e_k(x)

    which leads every group to the density h(x) f(x): where all groups are found. No weight exceeds 1 before scaling, so no
    trimming is needed. A group takes no part with fewer than 25 patients, with an effective number of rows below 30 or
    below a fifth of its rows, or where a weighted mean still differs from the others' by a quarter of a standard deviation;
    the weakest such group leaves first and the weights are made anew, because one group that resembles no other draws all
    others to its few rows.

    Intervals take the weights as fixed, with standard errors over patients (which held best in simulation).

    Args:
        cohort: all rows.
        attribute: what is read.
        rows: `[m] int64`, row numbers, as of a readout.

    Returns:
        The weights. All 1 in groups that take part where the cohort has no covariates.

    Reference: Li and Li, Annals of Applied Statistics 2019, generalised overlap weights; Li, Morgan and Zaslavsky, JASA 2018.
    """
    covariates = covariate_vectors(cohort, attribute).vectors[rows].astype(np.float64)
    codes = group_codes(cohort, attribute)[rows]
    patients = cohort.table["patient_id"].to_numpy(object)[rows].astype(str)
    n_patients = [len(np.unique(patients[codes == g])) for g in range(len(attribute.groups))]
    present = [g for g in range(len(attribute.groups)) if n_patients[g]]
    compared = [g for g in present if n_patients[g] >= MIN_PATIENTS]
    left = [f"{attribute.groups[g]} (under {MIN_PATIENTS} patients)" for g in present if g not in compared]
    while len(compared) > 1:
        weight = _overlap_weights(covariates, codes, compared)
        effective = {g: effective_n(weight[codes == g]) for g in compared}
        share = {g: effective[g] / (codes == g).sum() for g in compared}
        imbalance = _imbalance(covariates, codes, compared, weight)
        thin = [g for g in compared if effective[g] < MIN_EFFECTIVE or share[g] < MIN_EFFECTIVE_SHARE]
        unlike = [g for g in compared if imbalance[g] > MAX_IMBALANCE]
        if not thin and not unlike:
            named = {attribute.groups[g]: value for g, value in effective.items()}
            return BalancingWeights(weight, named, max(imbalance.values()), _note(left))
        if thin:
            weakest = min(thin, key=lambda g: share[g])
            why = (
                f"effective n {effective[weakest]:.0f} of {(codes == weakest).sum():,} rows; under {MIN_EFFECTIVE} or "
                f"{MIN_EFFECTIVE_SHARE:.0%}"
            )
        else:
            weakest = max(unlike, key=lambda g: imbalance[g])
            why = f"still {imbalance[weakest]:.2f} standard deviations from the others"
        compared.remove(weakest)
        left.append(f"{attribute.groups[weakest]} ({why})")
    left += [f"{attribute.groups[g]} (nothing left to compare with)" for g in compared]
    return BalancingWeights(np.full(len(rows), np.nan), note=_note(left))


def _note(left: list[str]) -> str:
    return f"not reweighted: {', '.join(left)}" if left else ""


def _overlap_weights(covariates: np.ndarray, codes: np.ndarray, compared: list[int]) -> np.ndarray:
    """Returns `[m]`, 0 outside the compared groups."""
    weight = np.zeros(len(codes))
    inside = np.isin(codes, compared)
    place = np.searchsorted(compared, codes[inside])  # [i], a group's number among the compared ones
    propensity = _propensity(covariates[inside], place)
    own = propensity[np.arange(len(place)), place]
    with np.errstate(divide="ignore", over="ignore"):
        made = 1 / ((1 / propensity).sum(axis=1) * own)
    made[~np.isfinite(made)] = 0.0  # a propensity of exactly 0: nobody else is there
    totals = np.bincount(place, made)
    weight[inside] = made * np.divide(np.bincount(place), totals, out=np.zeros(len(totals)), where=totals > 0)[place]
    return weight


def _propensity(covariates: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Returns `[i, k]`, the probability of each group given the covariates; its share where nothing varies."""
    deviation = covariates.std(axis=0)
    varies = deviation > 1e-6
    if not varies.any():
        return np.tile(np.bincount(place) / len(place), (len(place), 1))
    from sklearn.linear_model import LogisticRegression

    scaled = (covariates[:, varies] - covariates[:, varies].mean(axis=0)) / deviation[varies]
    return LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(scaled, place).predict_proba(scaled)


def _imbalance(covariates: np.ndarray, codes: np.ndarray, compared: list[int], weight: np.ndarray) -> dict[int, float]:
    """Returns per group the largest difference of its weighted means from the mean of the other groups', in deviations."""
    deviation = covariates[np.isin(codes, compared)].std(axis=0)
    varies = deviation > 1e-6
    weighted = {g: weight * (codes == g) for g in compared}
    means = {g: w @ covariates[:, varies] / max(w.sum(), 1e-300) / deviation[varies] for g, w in weighted.items()}
    found = {}
    for g in compared:
        others = np.mean([means[other] for other in compared if other != g], axis=0)
        found[g] = float(np.abs(means[g] - others).max(initial=0.0))
    return found
