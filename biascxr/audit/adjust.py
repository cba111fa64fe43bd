"""Like with like: groups reweighted to a common standard of age, view, prevalence, ..., by overlap weights.

A group that is imaged more often at the bedside looks worse served although nobody of it is treated worse than others in
the same situation. Rows get weights, none is copied: copies would be resampled as if they were new patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from biascxr.audit.groups import CROSSING, Groups
from biascxr.containers import UNKNOWN, Predictions
from biascxr.errors import InputError, unknown_name
from biascxr.metrics.resampling import Resamples
from biascxr.metrics.sorted_pass import LANES

LABEL = "label"


@dataclass(frozen=True)
class Adjustment:
    """Overlap weights of every group, per label and attribute.

    With e_gs the share of stratum s that is of group g, a row of (g, s) weighs `h_s / e_gs`, h_s = 1 / sum_k (1 / e_ks):
    every group then has the strata in the proportions of h, which favour strata where all groups are. A stratum that lacks
    a group drops out for all. Scaled so that a group's weights sum to its size.

    Attributes:
        predictions: the rows.
        groups: their groups.
        resamples: patient resamples; the weights are estimated again in each.
        names: what is adjusted for: columns of the table, and `"label"`, the finding itself.
        weight: `[n]` weight of each row before; default 1.
        min_patients: a group with fewer patients takes no part: the others would be compared on its few strata alone.

    References: Li and Li, Annals of Applied Statistics 2019 (generalised overlap weights, here with the propensity of a
    saturated model, the shares themselves); in place of the resampled test set of Glocker et al., EBioMedicine 2023.
    """

    predictions: Predictions
    groups: Groups
    resamples: Resamples
    names: tuple[str, ...]
    weight: np.ndarray | None = None
    min_patients: int = 25

    def __post_init__(self) -> None:
        if not self.names:
            raise InputError("adjust needs at least one name, for instance age_group or view.")
        for name in self.names:
            if name != LABEL and name not in self.predictions.table:
                raise unknown_name("column to adjust for", name, [*map(str, self.predictions.table.columns), LABEL])
            if name != LABEL and self.predictions.table[name].nunique() > 50:
                raise InputError(
                    f"adjust: {name} has {self.predictions.table[name].nunique()} values, too many to compare within each. "
                    "Cut it into groups first (age: use age_group)."
                )

    def adjusts(self, at: int) -> tuple[str, ...]:
        """Returns what the groups of a grouping are adjusted for: not for what defines them."""
        parts = self.groups.groupings[at].attribute.name.split(CROSSING)
        return tuple(name for name in self.names if name not in parts)

    def strata(self, label: int, at: int) -> np.ndarray:
        """Returns `[n] int`, the stratum of each row; -1 where a value, the group or the label is unknown."""
        y = self.predictions.y_true[:, label]
        is_known = ~np.isnan(y) & (self.groups.groupings[at].codes >= 0)
        strata = np.zeros(len(y), np.int64)
        for name in self.adjusts(at):
            if name == LABEL:
                codes, n = np.nan_to_num(y).astype(np.int64), 2
            else:
                values = self.predictions.table[name]
                text = values.astype(str).where(values.notna(), UNKNOWN)
                codes, levels = pd.factorize(text.mask(text.str.strip() == "", UNKNOWN))
                n = len(levels)
                is_known &= codes != levels.get_indexer([UNKNOWN])[0] if UNKNOWN in levels else True
            strata = strata * n + codes
        return np.where(is_known, strata, -1)

    def factors(self, label: int, at: int) -> dict:
        """Returns the `cell` and `factor` of `sorted_pass`: `[n]` and `[blocks, cells, LANES]`, per resample."""
        if not self.adjusts(at):
            return {}
        cell, n_groups = self._cells(label, at)
        inside = cell >= 0
        own = np.ones(len(cell)) if self.weight is None else self.weight
        n_cells = int(cell.max(initial=-1)) + 1
        row, patient = cell[inside], self.resamples.patient[inside]
        by_patient = sparse.csr_matrix((own[inside], (row, patient)), (n_cells, self.resamples.n_patients))
        factor = np.zeros((len(self.resamples.lanes), n_cells + 1, LANES))  # the last cell: left out, weight 0
        for block, drawn in enumerate(self.resamples.lanes):
            factor[block, :n_cells] = _overlap(by_patient @ drawn.astype(np.float64), n_groups)
        return {"cell": np.where(inside, cell, n_cells), "factor": factor}

    def fixed(self, label: int, at: int) -> np.ndarray:
        """Returns `[n]`, the weights on the data as they are, on top of `weight`; 0 where a row drops out."""
        if not self.adjusts(at):
            return np.ones(len(self.predictions.table))
        cell, n_groups = self._cells(label, at)
        own = np.ones(len(cell)) if self.weight is None else self.weight
        inside = cell >= 0
        n = np.bincount(cell[inside], own[inside], int(cell.max(initial=-1)) + 1)
        return np.where(inside, np.r_[_overlap(n[:, None], n_groups)[:, 0], 0.0][cell], 0.0)

    def dropped(self, label: int, at: int) -> dict[int, float]:
        """Returns per column of a group the share of its rows that weigh nothing: no counterpart in some other group."""
        fixed = self.fixed(label, at)
        grouping = self.groups.groupings[at]
        known = ~np.isnan(self.predictions.y_true[:, label])
        shares = {}
        for code, group in enumerate(grouping.attribute.groups):
            own = known & (grouping.codes == code)
            shares[self.groups.index(grouping.attribute.name, group)] = float((fixed[own] == 0).mean()) if own.any() else np.nan
        return shares

    def compared(self, at: int) -> np.ndarray:
        """Returns the codes of the groups of a grouping that are large enough to be reweighted."""
        codes = self.groups.groupings[at].codes
        pairs = np.unique(np.stack([codes, self.resamples.patient])[:, codes >= 0], axis=1)
        n_patients = np.bincount(pairs[0], minlength=len(self.groups.groupings[at].attribute.groups))
        return np.flatnonzero(n_patients >= self.min_patients)

    def _cells(self, label: int, at: int) -> tuple[np.ndarray, int]:
        """Returns `[n]` the cell `stratum * k + group` of each row, -1 where there is none, and the k groups compared."""
        strata = self.strata(label, at)
        compared = self.compared(at)
        place = np.full(len(self.groups.groupings[at].attribute.groups) + 1, -1)
        place[compared] = np.arange(len(compared))
        group = place[self.groups.groupings[at].codes]
        inside = (strata >= 0) & (group >= 0) & (len(compared) > 1)  # one group alone has nothing to be like
        present = np.unique(strata[inside])
        return np.where(inside, np.searchsorted(present, strata) * len(compared) + group, -1), len(compared)


def _overlap(n: np.ndarray, n_groups: int) -> np.ndarray:
    """Turns the weight in each cell `[strata * k (cut at the last row's), R]` into the factor of its rows."""
    n_groups = max(n_groups, 1)
    missing = -len(n) % n_groups
    cells = np.concatenate([n, np.zeros((missing, n.shape[1]))]).reshape(-1, n_groups, n.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        share = cells / cells.sum(axis=1, keepdims=True)
        h = 1 / (1 / share).sum(axis=1, keepdims=True)  # 0 where a group is missing
        target = np.nan_to_num(h) * cells.sum(axis=1, keepdims=True)
        factor = np.where(cells > 0, target / cells, 0.0)
        scale = cells.sum(axis=0) / target.sum(axis=0)
        factor = np.where(np.isfinite(scale)[None], factor * scale[None], 0.0)
    return factor.reshape(-1, n.shape[1])[: len(n)]
