"""From the losses of all worlds to shares with intervals, and from these to help, no effect or harm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from remedy_measures import ALL, BAYES, LOSSES, MARKED, UNBIASED
from remedy_methods import ERM, Expectations, Method
from remedy_worlds import NOTHING

from biascxr.metrics import t_interval
from biascxr.metrics.intervals import student_t

CONFIDENCE = 0.95
SMALLEST_SHARE = 0.10  # a tenth of the excess: less is neither help nor harm
NEAR_ZERO = 0.25  # an interval within a quarter of the excess on both sides says "no effect"
MARGIN = 0.01  # loss that a method may cost where nothing is planted
BOTH = "both"
NO_EXCESS, UNCLEAR, ANYWAY = "no excess", "unclear", "gains anyway"


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; all NaN where it is not defined."""

    value: float
    low: float
    high: float


NOWHERE = Estimate(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Pairs:
    """Gain and excess of each seed.

    Attributes:
        gain: `[k]`, loss of `erm` less that of the method.
        excess: `[k]`, loss of `erm` less that of `erm` on unbiased films.
        within: `[k, 3]`, variances of the two and their covariance over samples of patients, within the seed's world.
    """

    gain: np.ndarray
    excess: np.ndarray
    within: np.ndarray

    def spreads(self) -> list[tuple[float, float, float]]:
        """Two answers to how uncertain the means are: variance of mean gain, of mean excess, and their covariance.

        The first from how much seeds differ. Each seed has worlds, patients and initial weights of its own, so that this holds
        all there is; but from five seeds it may come out too small by chance. The second, from patients alone, is less than
        there is, and known well: the first may not be below it.
        """
        k = len(self.gain)
        own = tuple(self.within.mean(axis=0) / k)
        if k < 2:
            return [own]
        between = np.cov(self.gain, self.excess) / k
        return [(between[0, 0], between[1, 1], between[0, 1]), own]

    @property
    def df(self) -> int:
        """Degrees of freedom: seeds less one."""
        return len(self.gain) - 1


def mean_estimate(values: np.ndarray, within: np.ndarray) -> Estimate:
    """Mean over seeds with Student's interval, the standard error at least what patients alone give.

    Args:
        values: `[k]`, one for each seed.
        within: `[k]`, variance of each over samples of patients.
    """
    k = len(values)
    if k < 2:
        return Estimate(float(values.mean()), float("nan"), float("nan"))
    error = np.sqrt(max(values.var(ddof=1), within.mean()) / k)
    low, high = t_interval(values.mean(), error, CONFIDENCE, df=k - 1)
    return Estimate(float(values.mean()), float(low), float(high))


def share_estimate(pairs: Pairs) -> Estimate:
    """Share of the excess that is closed, mean gain over mean excess, with Fieller's interval.

    All shares s are kept for which `mean gain - s x mean excess` is not off zero: `(g - s e)^2 <= t^2 (v_gg - 2 s v_ge + s^2
    v_ee)`. Bounded where the excess is off zero; elsewhere there is nothing to close, and the share is undefined. Of the two
    answers to how uncertain the means are (`Pairs.spreads`) the wider ends count.

    Reference: Fieller, Journal of the Royal Statistical Society B 1954.
    """
    if pairs.df < 1:
        return NOWHERE
    g, e = pairs.gain.mean(), pairs.excess.mean()
    t = float(student_t((1 + CONFIDENCE) / 2, np.array(pairs.df)))
    ends = []
    for v_gg, v_ee, v_ge in pairs.spreads():
        a, b, c = e**2 - t**2 * v_ee, g * e - t**2 * v_ge, g**2 - t**2 * v_gg
        if e <= 0 or a <= 0:
            return NOWHERE
        root = np.sqrt(max(0.0, b**2 - a * c))
        ends += [(b - root) / a, (b + root) / a]
    return Estimate(float(g / e), float(min(ends)), float(max(ends)))


def verdict(share: Estimate, beyond: Estimate) -> str:
    """What is seen under a mechanism.

    Args:
        share: of the excess that is closed.
        beyond: what it gains here beyond what it gains where nothing is planted, as a loss.
    """
    if np.isnan(share.value):
        return NO_EXCESS
    if share.low > 0 and share.value >= SMALLEST_SHARE:
        return "help" if beyond.low > 0 else ANYWAY
    if share.high < 0 and share.value <= -SMALLEST_SHARE:
        return "harm"
    return "no_effect" if share.low > -NEAR_ZERO and share.high < NEAR_ZERO else UNCLEAR


def control_verdict(cost: Estimate) -> str:
    """What is seen where nothing is planted, from the loss above that of `erm`."""
    if np.isnan(cost.low):
        return UNCLEAR
    if cost.value > MARGIN and cost.low > 0:
        return "harm"
    if cost.high <= MARGIN:
        return ANYWAY if cost.value < -MARGIN and cost.high < 0 else "no_effect"
    return UNCLEAR


def agreement(expected: str, seen: str) -> str:
    """agrees, disagrees, open (unclear) or empty (no excess). A method that gains anyway is no remedy of this bias."""
    if seen in (NO_EXCESS, UNCLEAR):
        return "" if seen == NO_EXCESS else "open"
    return "agrees" if expected == ("no_effect" if seen == ANYWAY else seen) else "disagrees"


def summarise(found: pd.DataFrame, methods: list[Method], expectations: Expectations) -> pd.DataFrame:
    """Returns a row for each mechanism, family (and both) and method.

    Args:
        found: rows of `remedy_measures.measure`, of all worlds.
        methods: those measured.
        expectations: what theory says.
    """
    rows = []
    for mechanism in found["mechanism"].drop_duplicates():
        findings = MARKED if mechanism == "acquisition" else ALL
        own = found[(found["mechanism"] == mechanism) & (found["findings"] == findings)]
        plain = found[(found["mechanism"] == NOTHING) & (found["findings"] == findings)]
        families = list(own["family"].drop_duplicates())
        for family in [BOTH, *families] if len(families) > 1 else families:
            chosen = families if family == BOTH else [family]
            here, there = (_by_method(part[part["family"].isin(chosen)]) for part in (own, plain))
            for method in methods:
                row = {"mechanism": mechanism, "family": family, "findings": findings, "method": method.name}
                row |= {"slot": method.slot, "judged_on": method.judged_on}
                expected = expectations.verdicts[method.name, mechanism][0]
                rows.append(row | _row(method, here, there, expected, is_control=mechanism == NOTHING))
    return pd.DataFrame(rows)


def _by_method(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {name: own.set_index(["family", "seed"]).sort_index() for name, own in found.groupby("method")}


def _row(
    method: Method, here: dict[str, pd.DataFrame], there: dict[str, pd.DataFrame], expected: str, *, is_control: bool
) -> dict:
    """One line of the table.

    Args:
        method: whose.
        here: by method, its rows under the mechanism, one for each family and seed.
        there: likewise, where nothing is planted.
        expected: what theory says.
        is_control: whether this is where nothing is planted.
    """
    of, erm, loss = here[method.name], here[ERM.name], method.judged_on
    cost = mean_estimate(*_over_seeds(of[loss] - erm[loss], of[f"var_gain_{loss}"]))
    share, beyond, excesses = NOWHERE, NOWHERE, dict.fromkeys(LOSSES, float("nan"))
    if is_control:
        seen = control_verdict(cost)
    else:
        unbiased = here[UNBIASED]
        pairs = _pairs(of, erm, unbiased, loss)
        share, beyond = share_estimate(pairs), _beyond(method, here, there)
        seen = verdict(share, beyond)
        for k in LOSSES:
            estimate = mean_estimate(*_over_seeds(erm[k] - unbiased[k], of[f"var_excess_{k}"]))
            excesses[k] = estimate.value if estimate.low > 0 else float("nan")
    row = {"expected": expected, "seen": seen, "outcome": agreement(expected, seen)}
    for name, estimate in (("share", share), ("beyond", beyond), ("loss_change", cost)):
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    row["excess"] = excesses[loss]
    row |= {f"{k}_share": float((erm[k] - of[k]).mean()) / excesses[k] for k in LOSSES}
    row["others_loss_change"] = float((of[f"others_{loss}"] - erm[f"others_{loss}"]).mean())
    for k in ("auroc", "citl", "ece", "leak_scores", "leak_vectors"):
        row |= {k: float(of[k].mean()), f"{k}_change": float((of[k] - erm[k]).mean())}
    return row | {"seeds": of.index.get_level_values("seed").nunique(), "seconds": float(of["seconds"].mean())}


def _over_seeds(values: pd.Series, within: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Means over the families of a seed, whose patients are the same; their variance is at most the mean of both."""
    return values.groupby("seed").mean().to_numpy(), within.groupby("seed").mean().to_numpy()


def _pairs(of: pd.DataFrame, erm: pd.DataFrame, unbiased: pd.DataFrame, loss: str) -> Pairs:
    gain, v_gain = _over_seeds(erm[loss] - of[loss], of[f"var_gain_{loss}"])
    excess, v_excess = _over_seeds(erm[loss] - unbiased[loss], of[f"var_excess_{loss}"])
    _, covariance = _over_seeds(of[loss], of[f"cov_{loss}"])
    return Pairs(gain, excess, np.stack([v_gain, v_excess, covariance], axis=1))


def _beyond(method: Method, here: dict[str, pd.DataFrame], there: dict[str, pd.DataFrame]) -> Estimate:
    """What the method gains under the mechanism beyond what it gains in the same worlds where nothing is planted."""
    loss = method.judged_on
    gains = [by[ERM.name][loss] - by[method.name][loss] for by in (here, there)]
    variances = [by[method.name][f"var_gain_{loss}"] for by in (here, there)]
    return mean_estimate(*_over_seeds(gains[0] - gains[1], variances[0] + variances[1]))


def references(found: pd.DataFrame) -> pd.DataFrame:
    """Returns, for each mechanism, family and loss, that of the group under `erm`, `erm` on unbiased films and Bayes.

    Also whether the group is worse off than everyone else: on the mean of both models, as choosing on one would regress to
    the mean.
    """
    rows = []
    for (mechanism, findings, family), own in found.groupby(["mechanism", "findings", "family"], sort=False):
        by = {name: part.set_index("seed") for name, part in own.groupby("method")}
        models = [by[name] for name in (ERM.name, UNBIASED) if name in by]
        for loss in LOSSES:
            excess = NOWHERE
            if len(models) > 1:
                values = (models[0][loss] - models[1][loss]).to_numpy()
                excess = mean_estimate(values, models[1][f"var_excess_{loss}"].to_numpy())
            group, others = (np.mean([m[column].mean() for m in models]) for column in (loss, f"others_{loss}"))
            rows.append(
                {"mechanism": mechanism, "findings": findings, "family": family, "loss": loss}
                | {"erm": models[0][loss].mean(), "erm on unbiased": models[1][loss].mean() if len(models) > 1 else np.nan}
                | {"excess_low": excess.low, "excess_high": excess.high, "Bayes": by[BAYES][loss].mean()}
                | {"others": others, "group_is_worst": bool(group > others)}
            )
    return pd.DataFrame(rows)
