"""`reweigh`: Kamiran and Calders' weights, under which labels are independent of the group."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.mitigation.sampling.label_weighting import LabelWeighting
from biascxr.mitigation.sampling.raking import LabelTables, Raked, rake


class Reweigh(LabelWeighting):
    """Weighs rows so that no label depends on the group, while each group and each label keeps the weight it has.

    One label: a row of group a labelled y weighs `P(a) P(y) / P(a, y)`, what its cell would hold if label and group were
    independent over what it holds: exactly Kamiran and Calders' reweighing, for any number of groups.

    Many labels: theirs is for one. Here one set of row weights makes *every* label independent of the group (the weighted
    covariance of label and group is 0), keeps each group's total and each label's rate, and is as near to equal weights as
    that allows (Kullback-Leibler); it is found by raking, one label's table after the other. Independence is of each label by
    itself, not of the labels jointly. Where a cell is empty no weights can do it, and where it is smaller than `min_cell` they
    would be noise: that group is left out of that label's table, and the others get their common rate. Weights are limited to
    `max_weight` (generous: it stops a single row from outweighing a group); the notes say what that leaves undone.

    Masked labels leave the table of their label, and the weight of a group's masked rows is kept. Rows with an unknown
    attribute weigh 1. Weights have mean 1.

    When it helps: where a label was recorded more or less often in one group than is true, or where the head reads the group
    as a short cut to the label. When it harms: where the label really is more frequent in one group, scores are then
    calibrated to a prevalence that no group has; and a large weight on few rows makes the fit noisy (see the number of rows of
    equal weight in the notes).

    Reference: Kamiran and Calders, "Data preprocessing techniques for classification without discrimination", Knowledge and
    Information Systems 33, 2012. Raking: see `raking.py`.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.48), annotation (+0.53) and selection (+0.61); no effect under presentation and acquisition.
    """

    name: ClassVar[str] = "reweigh"

    def _raked(self, tables: LabelTables) -> Raked:
        even = np.ones(len(tables.rows_of_pattern))
        return rake(tables, even, rates=tables.rates(even), max_weight=self.settings.max_weight)
