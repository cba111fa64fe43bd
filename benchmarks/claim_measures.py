"""BiasCXR's measures, named as there, the claims of all papers, and what a measured interval says of a claim."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from remedy_verdicts import CONFIDENCE, NOWHERE, Estimate, Pairs, mean_estimate, share_estimate

from biascxr.metrics import auprc, auroc_replicates, rate_replicates, t_interval

RELATIVE, CHANGE, NOT_LOWER = "relative change", "change", "not lower"
MIN_FILMS, MIN_POSITIVES = 100, 10


@dataclass(frozen=True)
class Claim:
    """One published number.

    Attributes:
        measure: key of what `measures` returns.
        what: in words.
        kind: of the number: a relative change, a change, or a change that is not below the number.
        claimed: the number or its range, fractions.
    """

    measure: str
    what: str
    kind: str
    claimed: tuple[float, float]


# BiasCXR's report (github.com/aahmadnejad/BiasCXR), against the network trained on the data as they are. A spread is
# max - min over groups, its own "disparity", and the standard deviation over groups, as the report does not say which.
CLAIMS = (
    Claim("accuracy max-min, race", "spread of accuracy over race", RELATIVE, (-0.67, -0.67)),
    Claim("accuracy sd, race", "spread of accuracy over race", RELATIVE, (-0.67, -0.67)),
    Claim("accuracy max-min, age_group", "spread of accuracy over age", RELATIVE, (-0.43, -0.43)),
    Claim("accuracy sd, age_group", "spread of accuracy over age", RELATIVE, (-0.43, -0.43)),
    Claim("error rates max-min, race", "spread of error rates (mean of FPR's and FNR's)", RELATIVE, (-0.58, -0.58)),
    Claim("error rates max-min, sex", "spread of error rates (mean of FPR's and FNR's)", RELATIVE, (-0.58, -0.58)),
    Claim("error rates max-min, age_group", "spread of error rates (mean of FPR's and FNR's)", RELATIVE, (-0.58, -0.58)),
    Claim("AUROC", "test AUROC, .79 -> .77", CHANGE, (-0.02, -0.02)),
    Claim("FPR", "FPR +2.3 points", CHANGE, (0.023, 0.023)),
    Claim("FNR", "FNR +1.7 points", CHANGE, (0.017, 0.017)),
    Claim("average precision of minorities, race", "average precision of minority groups", RELATIVE, (0.14, 0.22)),
    Claim("average precision of minorities, age_group", "average precision of minority groups", RELATIVE, (0.14, 0.22)),
    Claim("Gini, race", "Gini coefficient of race, .48 -> .12", RELATIVE, (-0.75, -0.75)),
    Claim("entropy, age_group", "entropy of age", RELATIVE, (0.37, 0.37)),
)
# FairREAD (arXiv 2412.16373): what its thresholds do, from its ablation of them, ΔEO .377 at 0.5, .176 by Youden, .155 by
# G-mean, .129 by min-gap; and that the utility is kept.
THRESHOLDS_CLAIM = Claim("delta_eo", "ΔEO .377 -> .129 by each group's min-gap", RELATIVE, (0.129 / 0.377 - 1,) * 2)
ORDER_CLAIMS = {
    ("group_min_gap", "group_gmean"): Claim("delta_eo", "ΔEO: G-mean above min-gap", CHANGE, (0.026, 0.026)),
    ("group_gmean", "group_youden"): Claim("delta_eo", "ΔEO: Youden above G-mean", CHANGE, (0.021, 0.021)),
    ("group_youden", "threshold_0.5"): Claim("delta_eo", "ΔEO: 0.5 above Youden", CHANGE, (0.201, 0.201)),
}
UTILITY_CLAIM = Claim("auroc", "AUROC not lower by more than .01", NOT_LOWER, (-0.01, -0.01))
# The causal paper: "improvement at no cost". It falls, by whatever share.
SPREAD_CLAIM = Claim("bnsp_sd", "SD of the group-dependent AUC falls", RELATIVE, (-1.0, 0.0))


def measures(
    labels: np.ndarray,
    scores: np.ndarray,
    decisions: np.ndarray,
    groups: dict[str, np.ndarray],
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Every measure of a set of predictions, under many weightings at once. Images count, as in BiasCXR.

    Args:
        labels: `[n, L]` in {0, 1}.
        scores: `[n, L]`.
        decisions: `[n, L]` in {0, 1}.
        groups: `[n]` texts for each attribute; `"unknown"` is left out.
        weights: `[R, n]`; ones for the data as they are.

    Returns:
        `[R]` each; means are over findings, without those that are undefined. Minorities are the groups below the median
        size; of these, those with `MIN_FILMS` films, and of their findings those with `MIN_POSITIVES`: average precision on
        three positives is noise.
    """
    found = {f"{rate}": _mean_rate(rate, labels, decisions, weights) for rate in ("FPR", "FNR")}
    aurocs = [auroc_replicates(y, s, weights) for y, s in zip(labels.T, scores.T, strict=True)]
    found["AUROC"] = _mean_of_defined(np.stack(aurocs, axis=1))
    for attribute, codes in groups.items():
        names, sizes = np.unique(codes[codes != "unknown"], return_counts=True)
        rates = {
            rate: np.stack([_mean_rate(rate, labels[codes == g], decisions[codes == g], weights[:, codes == g]) for g in names])
            for rate in ("accuracy", "FPR", "FNR")
        }
        found[f"accuracy max-min, {attribute}"] = np.ptp(rates["accuracy"], axis=0)
        found[f"accuracy sd, {attribute}"] = rates["accuracy"].std(axis=0)
        found[f"error rates max-min, {attribute}"] = (np.ptp(rates["FPR"], axis=0) + np.ptp(rates["FNR"], axis=0)) / 2
        if len(names) > 2:
            minorities = names[(sizes < np.median(sizes)) & (sizes >= MIN_FILMS)]
            own = [_mean_precision(labels[codes == g], scores[codes == g], weights[:, codes == g]) for g in minorities]
            if own:
                found[f"average precision of minorities, {attribute}"] = np.mean(own, axis=0)
    return found


def _mean_rate(rate: str, labels: np.ndarray, decisions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _mean_of_defined(rate_replicates(rate, labels, decisions, weights))


def _mean_precision(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    enough = np.nansum(labels, axis=0) >= MIN_POSITIVES
    pairs = list(zip(labels.T[enough], scores.T[enough], strict=True))
    values = [[auprc(y, s, w) for y, s in pairs] for w in weights]
    return _mean_of_defined(np.array(values).reshape(len(weights), len(pairs)))


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over findings `[R, L] -> [R]` of those that are defined; NaN where none is."""
    n = (~np.isnan(values)).sum(axis=1)
    return np.divide(np.nansum(values, axis=1), n, out=np.full(len(values), np.nan), where=n > 0)


def over_worlds(claim: Claim, before: np.ndarray, after: np.ndarray) -> Estimate:
    """Estimate from one value of each of several worlds, whose patients are others: Student's interval, or Fieller's.

    Args:
        claim: says what kind of number.
        before: `[k]`, the original model or data.
        after: `[k]`, the balanced one.
    """
    if claim.kind != RELATIVE:
        return mean_estimate(after - before, np.zeros(len(after)))
    return share_estimate(Pairs(after - before, before, np.zeros((len(after), 3))))


def over_patients(claim: Claim, before: np.ndarray, after: np.ndarray, of_seeds: float) -> Estimate:
    """Estimate from resamples of the patients of one data set.

    Args:
        claim: says what kind of number.
        before: `[R + 1]`, the original model; the first is the data as they are, then resamples.
        after: `[R + 1]`, the balanced one, on the same resamples.
        of_seeds: variance of the mean over seeds (initial weights, draws), which patients do not hold.
    """
    values = after - before
    if claim.kind == RELATIVE:
        if not before[0] > 2 * np.nanstd(before[1:]):  # a share of something that may be 0 is noise over noise
            return NOWHERE
        values = values / before
    # Normal, with the two variances added: percentiles of the patients alone would leave the seeds out.
    error = np.sqrt(np.nanvar(values[1:], ddof=1) + of_seeds)
    low, high = t_interval(values[0], error, CONFIDENCE, df=np.inf)
    return Estimate(float(values[0]), float(low), float(high))


def verdict(claim: Claim, measured: Estimate) -> str:
    """What an interval says of a claim."""
    if np.isnan(measured.low):
        return "cannot be told: what it is a share of is not off zero"
    low, high = claim.claimed
    if claim.kind == NOT_LOWER:
        if measured.low >= low:
            return "as claimed"
        return "the other way round" if measured.high < low else "not enough evidence"
    holds = measured.low <= high and low <= measured.high
    sign = np.sign(low)
    if measured.low <= 0 <= measured.high:
        return "not enough evidence" if holds else "not seen"
    if np.sign(measured.value) != sign:
        return "the other way round"
    if holds:
        return "as claimed"
    return "same direction, " + ("less" if abs(measured.value) < abs(low) else "more")


def claim_row(data: str, claim: Claim, compared: str, before: float, after: float, estimate: Estimate) -> dict:
    """Returns a line of the table: a claim beside what was measured of it."""
    return {
        "data": data, "claim": claim.what, "measure": claim.measure, "compared": compared, "kind": claim.kind,
        "claimed_low": claim.claimed[0], "claimed_high": claim.claimed[1], "before": before, "after": after,
        "measured": estimate.value, "low": estimate.low, "high": estimate.high, "verdict": verdict(claim, estimate),
    }  # fmt: skip
