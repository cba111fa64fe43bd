"""`label_group_balance`: every group weighs the same among a label's positives, and the same among its negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.mitigation.sampling.label_weighting import LabelWeighting, LabelWeightingSettings
from biascxr.mitigation.sampling.raking import MASKED, LabelTables, Raked, rake


@dataclass(frozen=True)
class LabelGroupBalanceSettings(LabelWeightingSettings):
    """Settings of `label_group_balance`.

    Attributes:
        attributes: see LabelWeightingSettings.
        min_cell: see LabelWeightingSettings.
        max_weight: most that a row may weigh, where the average is 1; equal weights of a rare label in a rare group would make
            a few rows weigh hundreds.
    """

    max_weight: float = 20.0


class LabelGroupBalance(LabelWeighting):
    """Balances the cells of group x label by weights.

    One label: each of the 2 G cells (group, label) has the same total weight; within a cell all rows weigh the same. This is
    reweighting of groups "(y, a)" as in Idrissi et al. (2022, RWG), exact as long as no row has to weigh more than
    `max_weight`.

    Many labels: cells of equal weight for every label at once do not exist in general (if half of the weight is "No
    Finding", no finding can be positive on half). What is done instead, in two steps:

    1. Start: the average over labels of the one-label weights. It is what one draws by choosing a label, a group and a value
       at random and then a row of that cell: class-aware sampling (Shen, Lin and Huang, ECCV 2016), within groups. Approximate:
       rare labels become more frequent, up to a half, but none exactly a half.
    2. Raking (`raking.py`) from there until, for every label, all groups have the same positive rate, the one that step 1 came
       to on average, and all groups the same total weight. Exact where it is feasible: among a label's positives every group
       then weighs the same, and so among its negatives.

    Where rows would weigh more than `max_weight`, what is cut off them lowers their group's total, so that equal rates come
    first and equal totals second (`raking.py`); the notes say what share of the weight a group has.

    Masked labels leave the table of their label: rates are of the rows that have the label, and a group's weight in the table
    follows the share of its rows that have it. A group with fewer than `min_cell` rows of a value is left out of that label's
    table. Rows with an unknown attribute, and those of groups under `min_cell` rows, weigh 1. Weights have mean 1.

    When it helps: worst groups by (label, group) under a short cut: in four benchmarks as good as methods that need far more
    tuning (Idrissi et al.). When it harms: few rows carry most of the weight (the notes say how many rows of equal weight they
    are worth), long training learns them by heart, and probabilities are no longer calibrated to any prevalence: calibrate
    them (`platt`).

    Reference: Idrissi, Arjovsky, Pezeshki and Lopez-Paz, "Simple data balancing achieves competitive worst-group-accuracy",
    CLeaR 2022, PMLR 177.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.45), annotation (+0.52), acquisition (+0.35) and selection (+0.60); no effect under presentation.
    """

    name: ClassVar[str] = "label_group_balance"
    Settings: ClassVar[type] = LabelGroupBalanceSettings

    def _raked(self, tables: LabelTables) -> Raked:
        start = class_aware_weights(tables)
        return rake(tables, start, rates=tables.rates(start), max_weight=self.settings.max_weight)


def class_aware_weights(tables: LabelTables) -> np.ndarray:
    """Mean over labels of the weights that give all groups one total, and in each a label's positives that of its negatives.

    Args:
        tables: of the rows.

    Returns:
        `[p]` weights of the patterns, of mean 1 over the rows. Masked rows of a label, and rows of groups that do not take part
        in its table, share evenly.
    """
    totals = np.full(len(tables.group_sizes), tables.group_sizes.mean())
    per_row = (totals / tables.group_sizes)[:, None]  # [G, 1]
    of_label = []
    for codes, counts, known, takes_part in zip(
        tables.codes, tables.counts, tables.known_share, tables.takes_part, strict=True
    ):
        half = (totals * known / 2)[:, None] / np.maximum(counts[:, :MASKED], 1)
        balanced = np.c_[half, per_row]  # [G, 3], as the codes count
        of_label.append(np.where(takes_part[:, None], balanced, per_row).ravel()[codes])
    return np.mean(of_label, axis=0)
