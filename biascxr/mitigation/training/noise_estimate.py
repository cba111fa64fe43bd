"""How often are a group's recorded labels wrong, if those of a reference group are right?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.training.noise_rates import NoiseRates

LARGEST_SUM = 0.8  # of the two estimated rates; beyond it a recorded label says next to nothing
SMALLEST_PROBABILITY = 1e-6
LARGEST_CONDITION = 1e12
READER_ROWS = 20_000
READER_C = 0.01  # scikit-learn's inverse penalty, on standardised columns


def estimate_rates(
    reference: SplitData,
    others: SplitData,
    cells: Cells,
    *,
    reference_group: str,
    caution: float,
    min_positive: int,
    seed: int,
) -> NoiseRates:
    """Rates of each group against the reference group, whose own are 0.

    A logistic regression learns each label from one half of the reference group's patients, is calibrated on the other half
    and read in the other groups; then the halves change places. It is not the network: where a score is less sure in another
    group than at home, that looks like wrong labels; on made-up rows without noise a network's scores gave rates two to
    three times as large.

    Args:
        reference: rows of the reference group.
        others: rows of the other groups.
        cells: all groups.
        reference_group: its name.
        caution: see `agreed_rates`.
        min_positive: positives and negatives needed: recorded ones in each half of the reference group, expected ones in a
            group.
        seed: of the halves.
    """
    code, readings = cells.names.index(reference_group), []
    halves = reference.halves(seed=seed)
    for learned, rest in (halves, halves[::-1]):
        reading = Reading(
            labels=np.concatenate([rest.labels, others.labels]),
            scores=read_scores(learned, [rest, others], min_positive, seed=seed),
            groups=np.concatenate([np.full(len(rest), code), cells.codes(others.attributes)]),
            patients=np.concatenate([rest.patient_id, others.patient_id]),
        )
        readings.append(reading.rates(len(cells), reference=code, min_positive=min_positive))
    return agreed_rates(readings, caution)


def fit_rates(recorded: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Rates of wrong labels where the probability of the true label is known, by maximum likelihood.

    `P(recorded = 1) = (1 - a) c + b (1 - c)` is linear in a and b, so the likelihood has one maximum. Where all c are 0 or 1
    it is the share of wrong labels; where c never comes near 1, a is read off the slope.

    Args:
        recorded: `[n]` in {0, 1}.
        clean: `[n]`, c, P(true = 1) of each row.

    Returns:
        `[2]`: a, the false negative rate, and b, the false positive rate, each in [0, 1].
    """
    c = np.asarray(clean, np.float64)
    slopes = noise_slopes(c)

    def loss_and_gradient(rates: np.ndarray) -> tuple[float, np.ndarray]:
        p = recorded_probability(c, rates)
        loss = -np.mean(np.where(recorded == 1, np.log(p), np.log1p(-p)))
        return loss, -slopes.T @ ((recorded - p) / (p * (1 - p))) / len(c)

    options = {"gtol": 1e-9, "ftol": 1e-14, "maxiter": 500}
    start, bounds = np.array([0.05, 0.05]), [(0, 1), (0, 1)]
    return optimize.minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x


def noise_slopes(clean: np.ndarray) -> np.ndarray:
    """Derivative of P(recorded = 1) by (a, b), `[n, 2]`."""
    return np.stack([-clean, 1 - clean], axis=1)


def recorded_probability(clean: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """P(recorded = 1), `[n]`, kept off 0 and 1."""
    return np.clip(clean + noise_slopes(clean) @ rates, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)


def rate_errors(recorded: np.ndarray, clean: np.ndarray, rates: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Standard errors of a group's two rates, patients as the unit (sandwich), for given probabilities of the true label.

    Args:
        recorded: `[n]` in {0, 1}.
        clean: `[n]`, as in `fit_rates`.
        rates: `[2]`, what it returned.
        patients: `[n]`.

    Returns:
        `[2]`; infinite where the rows do not tell one rate from the other.
    """
    p, slopes = recorded_probability(clean, rates), noise_slopes(clean)
    scaled = slopes / (p * (1 - p))[:, None]
    information = slopes.T @ scaled
    if np.linalg.cond(information) > LARGEST_CONDITION:
        return np.full(2, np.inf)
    _, codes = np.unique(patients.astype(str), return_inverse=True)
    of_patient = np.stack([np.bincount(codes, weights=column) for column in (scaled * (recorded - p)[:, None]).T], axis=1)
    bread = np.linalg.inv(information)
    return np.sqrt(np.diag(bread @ (of_patient.T @ of_patient) @ bread))


@dataclass(frozen=True)
class Reading:
    """What scores learned from a part of the reference group say of rows that they have not seen.

    Attributes:
        labels: `[n, L]` recorded labels in {0, 1, NaN}.
        scores: `[n, L]` probabilities; NaN for a label that could not be learned.
        groups: `[n]`, codes; the reference group's rows serve to calibrate.
        patients: `[n]`.
    """

    labels: np.ndarray
    scores: np.ndarray
    groups: np.ndarray
    patients: np.ndarray

    def rates(self, n_groups: int, *, reference: int, min_positive: int) -> tuple[np.ndarray, np.ndarray]:
        """Rates of each group and label against the reference group, and their errors within the group.

        Scores are calibrated on the reference rows (Platt), so that there they are P(recorded = 1 | score); in every other
        group they are then taken for P(true = 1 | score).

        Returns:
            Two arrays `[K, L, 2]`: (a, b) and their standard errors; NaN where there are too few rows, 0 for the reference.
        """
        from biascxr.mitigation.decision.platt import Platt

        shape = (n_groups, self.labels.shape[1], 2)
        rates, errors = np.full(shape, np.nan), np.full(shape, np.nan)
        rates[reference] = errors[reference] = 0
        for label, (recorded, logit) in enumerate(zip(self.labels.T, to_logit(self.scores).T, strict=True)):
            known = ~np.isnan(recorded) & ~np.isnan(logit)
            judged = known & (self.groups == reference)
            if rarer_class(recorded[judged]) < min_positive:
                continue
            slope, intercept, _ = Platt().fit_line(recorded[judged].astype(np.float64), logit[judged])
            for group in set(range(n_groups)) - {reference} if slope > 0 else ():
                rows = known & (self.groups == group)
                clean = special.expit(slope * logit[rows] + intercept)
                if min(clean.sum(), (1 - clean).sum()) >= min_positive:
                    found = rates[group, label] = fit_rates(recorded[rows], clean)
                    errors[group, label] = rate_errors(recorded[rows], clean, found, self.patients[rows])
        return rates, errors


def agreed_rates(readings: list[tuple[np.ndarray, np.ndarray]], caution: float) -> NoiseRates:
    """Puts two readings of the same groups together.

    Args:
        readings: two pairs (rates, errors) `[K, L, 2]`, from scores learned from disjoint patients.
        caution: the mean is lowered by so many standard errors. Their square: the mean squared error within the group, plus
            the variance of the mean as the two disagree, over all groups and labels (half the difference, squared): how well
            the scores carry over to another group is the larger doubt.

    Returns:
        Rates of at least 0, two of them at most 0.8 in sum; 0 where either reading has none.
    """
    (first, errors), (second, other_errors) = readings
    told = np.isfinite(first) & np.isfinite(second) & ((first > 0) | (second > 0))
    half = np.where(told, (first - second) / 2, 0)
    disagreement = (half**2).sum(axis=(0, 1)) / np.maximum(told.sum(axis=(0, 1)), 1)  # [2]
    error = np.sqrt((errors**2 + other_errors**2) / 2 + disagreement)
    lowered = (first + second) / 2 - (caution * error if caution else 0)
    rates = np.where(told, np.maximum(np.nan_to_num(lowered, nan=0.0, neginf=0.0), 0), 0)
    total = rates.sum(axis=-1, keepdims=True)
    return NoiseRates(*np.moveaxis(rates * LARGEST_SUM / np.maximum(total, LARGEST_SUM), -1, 0))


def read_scores(learned: SplitData, parts: list[SplitData], min_positive: int, *, seed: int) -> np.ndarray:
    """Returns probabilities of the parts' rows, one part behind the other, by logistic regression on the learned rows.

    Args:
        learned: at most 20,000 of its rows, chosen at random, are learned from.
        parts: rows to be scored.
        min_positive: a label with fewer positives or negatives is not learned.
        seed: of the choice.

    Returns:
        `[n, L] float64`, NaN for a label that is not learned.
    """
    from sklearn.linear_model import LogisticRegression

    rows = np.sort(np.random.default_rng(seed).permutation(len(learned))[:READER_ROWS])
    x, labels = learned.vectors[rows], learned.labels[rows]
    centre, scale = (x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)) if len(x) else (0, 1)
    weights, intercepts = np.full((x.shape[1], labels.shape[1]), np.nan), np.full(labels.shape[1], np.nan)
    for label, recorded in enumerate(labels.T):
        known = ~np.isnan(recorded)
        if rarer_class(recorded) >= min_positive:
            fitted = LogisticRegression(C=READER_C, max_iter=1000).fit((x[known] - centre) / scale, recorded[known])
            weights[:, label], intercepts[label] = fitted.coef_[0], fitted.intercept_[0]
    chunks = [(vectors - centre) / scale @ weights for part in parts for _, vectors in part.vectors.chunks()]
    return special.expit(np.concatenate(chunks) + intercepts)


def rarer_class(recorded: np.ndarray) -> int:
    """Returns the number of positives or of negatives, whichever is smaller."""
    return int(min((recorded == 1).sum(), (recorded == 0).sum()))


def to_logit(scores: np.ndarray) -> np.ndarray:
    """Returns log(s / (1 - s)) in float64, of scores kept off 0 and 1."""
    return special.logit(np.clip(np.asarray(scores, np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))
