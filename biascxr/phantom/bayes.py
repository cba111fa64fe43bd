"""How the rows of the vector phantom come about, and from that the best score that anyone can give.

Part of a gap between groups cannot be removed by anyone: where a group's findings are fainter or rarer, its error is larger
for the best of all classifiers too. What can be asked of a model is its excess over that.

Reference: Chen, Johansson and Sontag, Why is my classifier discriminatory? (NeurIPS 2018).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from biascxr.phantom.mechanisms import Effect

# Kinds of patient: the well, two kinds of ill whose findings are others, and the very ill.
CLASS_SHARES = (0.45, 0.22, 0.18, 0.15)
# Log odds of a label in each class, for labels of even and of odd number.
CLASS_LOG_ODDS = ((-3.6, -3.6), (-1.0, -2.6), (-2.6, -1.0), (0.0, 0.0))
LABEL_SPREAD = 0.6  # log odds by which labels differ in frequency, up and down
# Shift of a label's coordinate in standard deviations (d'), from the hardest label to the plainest: AUROC 0.80 to 0.95.
EFFECT_RANGE = (1.2, 2.4)
MARKER_SHIFT = 4.0  # in standard deviations: a marker is as good as always seen
ROWS_PER_CHUNK = 32_768


@dataclasses.dataclass(frozen=True)
class RowLaw:
    """The law of one row: hidden class c, labels y given c, coordinates x given y, and whether the row enters the data.

    Labels are independent given the class. The coordinate of label l is N(effects[l] * y_l, 1), that of the marker
    N(MARKER_SHIFT * m, 1), where the marker m depends on one label alone; every other coordinate has nothing to do with y.

    Args:
        class_shares: `[C] float64`, P(c).
        rates: `[C, L] float64`, P(y_l = 1 | c).
        effects: `[L] float64`, in standard deviations of the noise.
        marked_label: the label that the marker goes with.
        marker_chances: P(m = 1) without and with the marked label.
        sick_left_out: chance s, for each label it has, that a row does not enter the data: with k it enters with (1 - s)^k.
    """

    class_shares: np.ndarray
    rates: np.ndarray
    effects: np.ndarray
    marked_label: int
    marker_chances: tuple[float, float] = (0.0, 0.0)
    sick_left_out: float = 0.0

    def prevalence(self) -> np.ndarray:
        """Returns `[L] float64`, P(y_l = 1) among the rows that enter.

        That is `sum_c P(c) Z_c (1 - s) p_cl / (1 - s p_cl) / sum_c P(c) Z_c`, where a row of class c enters with chance
        `Z_c = prod_l (1 - s p_cl)`. 0 where nobody with a label enters.
        """
        stays = 1.0 - self.sick_left_out * self.rates
        entered = self.class_shares * np.prod(stays, axis=1)
        return (entered / entered.sum()) @ ((1.0 - self.sick_left_out) * self.rates / stays)


def fair_law(n_labels: int, *, marked_label: int) -> RowLaw:
    """Returns the law of every group where no bias is planted. It does not depend on the seed.

    Args:
        n_labels: L.
        marked_label: the label that a marker would go with.
    """
    label = np.arange(n_labels)
    # cos(2.4 l) spreads frequencies over the labels without order, so that rare labels are not all hard or all plain.
    log_odds = np.array(CLASS_LOG_ODDS)[:, label % 2] + LABEL_SPREAD * np.cos(2.4 * label)
    return RowLaw(np.array(CLASS_SHARES), 1.0 / (1.0 + np.exp(-log_odds)), np.linspace(*EFFECT_RANGE, n_labels), marked_label)


def biased_law(fair: RowLaw, effect: Effect, *, is_learned_from: bool) -> RowLaw:
    """Returns the law of the disadvantaged group's rows.

    `overlooked` changes what is recorded, not what is true, and `left_out` takes patients whatever they have: neither
    changes P(y | x).

    Args:
        fair: the law without bias.
        effect: what is done to the group.
        is_learned_from: train, validation and calibration, or else test, where nobody is left out and the marker is as
            frequent as in the others but goes with nothing.
    """
    learned_from = dataclasses.replace(
        fair,
        rates=fair.rates * (1.0 - effect.absent),
        effects=fair.effects * (1.0 - effect.fade),
        marker_chances=(0.0, effect.marked),
        sick_left_out=effect.sick_left_out,
    )
    if is_learned_from:
        return learned_from
    by_chance = effect.marked * float(learned_from.prevalence()[fair.marked_label])
    return dataclasses.replace(learned_from, marker_chances=(by_chance, by_chance), sick_left_out=0.0)


def bayes_scores(signal: np.ndarray, marker: np.ndarray, law: RowLaw) -> np.ndarray:
    """Returns P(y_l = 1 | vector, group, the row entered), exactly, under the law by which the row came about.

    With the likelihood ratios `R_l = f(x | y_l = 1) / f(x | y_l = 0) = exp(e_l x_l - e_l^2 / 2)`, the marked label's times
    that of the marker, and p_cl the rates, labels are independent given c, so the sum over all label vectors factorises:

        Z_c = prod_l (1 - p_cl + p_cl R_l)        sum over y of P(y | c) R(y)
        r_cl = p_cl R_l / (1 - p_cl + p_cl R_l)   the share of it with y_l = 1

    A row with k labels enters with chance (1 - s)^k, a factor 1 - s for each, which joins R_l. So

        P(y_l = 1 | x, entered) = sum_c P(c) Z_c r_cl / sum_c P(c) Z_c

    Args:
        signal: `[n, L]`, the labels' coordinates, unmixed.
        marker: `[n]`, the marker's coordinate.
        law: the law of these rows.

    Returns:
        `[n, L] float64`, probabilities.
    """
    scores = np.empty((len(signal), len(law.effects)))
    for start in range(0, len(signal), ROWS_PER_CHUNK):
        rows = slice(start, start + ROWS_PER_CHUNK)
        scores[rows] = _scores_of_chunk(signal[rows].astype(np.float64), marker[rows].astype(np.float64), law)
    return scores


def _scores_of_chunk(signal: np.ndarray, marker: np.ndarray, law: RowLaw) -> np.ndarray:
    ratio = (1.0 - law.sick_left_out) * np.exp(signal * law.effects - law.effects**2 / 2.0)  # [n, L]
    without, with_label = law.marker_chances
    if with_label != without:
        seen = np.exp(MARKER_SHIFT * marker - MARKER_SHIFT**2 / 2.0)
        ratio[:, law.marked_label] *= (1.0 - with_label + with_label * seen) / (1.0 - without + without * seen)

    factors = [1.0 + rates * (ratio - 1.0) for rates in law.rates]  # C times [n, L]: 1 - p + p R
    shares = np.log(law.class_shares)
    log_mass = np.stack([share + np.log(factor).sum(axis=1) for share, factor in zip(shares, factors, strict=True)])
    # Fourteen plain findings multiply to more than a float holds; the largest term becomes 1.
    mass = np.exp(log_mass - log_mass.max(axis=0))  # [C, n]
    scores = np.zeros_like(ratio)
    for weight, rates, factor in zip(mass / mass.sum(axis=0), law.rates, factors, strict=True):
        scores += weight[:, None] * (rates * ratio / factor)
    return np.minimum(scores, 1.0)  # a sum of shares may round to a hair above 1
