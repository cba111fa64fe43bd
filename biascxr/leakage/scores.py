"""What out-of-sample scores say: AUROC per group with patient intervals, ROC curves, confusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from biascxr.leakage import MACRO
from biascxr.leakage.readout import Readout
from biascxr.leakage.stratified import stratified_auroc
from biascxr.metrics import roc_curve_on_grid
from biascxr.metrics.intervals import logit_t_interval

GRID = np.linspace(0, 1, 51)  # false positive rates of the ROC curves
_ROUNDING = 1e-12


@dataclass(frozen=True)
class _Ranking:
    """One group against the others.

    `positive[p]` is the sum over the patient's rows of the group of `w (wins - AUROC x weight of the rest)`, divided by the
    weight of all pairs; `negative` the same over his other rows.
    """

    value: float
    positive: np.ndarray  # [patients]
    negative: np.ndarray  # [patients]
    n_positive_patients: int
    n_negative_patients: int
    n_patients: int
    rows: np.ndarray  # [m] bool: rows that were ranked; where none was, rows that would have been

    @property
    def n_smaller(self) -> int:
        """Patients of the smaller class: the unit of sample size."""
        return min(self.n_positive_patients, self.n_negative_patients)

    @property
    def is_defined(self) -> bool:
        return not np.isnan(self.value)


def one_vs_rest(
    readout: Readout,
    *,
    confidence: float,
    strata: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    control: str = "none",
) -> list[dict]:
    """AUROC of each group against the others, and their mean over groups, with intervals over patients.

    Rows are compared within their fold (other folds were scored by other fits) and within their stratum: over cells c of
    fold and stratum, with W+ and W- the weight of the group's and of the others' rows,

        AUROC = sum_c W+_c W-_c AUROC_c / sum_c W+_c W-_c

    The variance is Obuchowski's, as in `metrics.delong`, about this common AUROC; in one cell it is the same to the digit.
    Weights are taken as fixed. The mean's variance comes from each patient's influence summed over groups, because a row
    that one group loses another one wins. Intervals: logit scale, t with K - 1 degrees of freedom, K the patients of the
    smaller class (for the mean: of the group where they are fewest).

    A group that is read without a mistake has no variance. Its interval is then not [1, 1] but from `(alpha / 2)^(1 / K)`,
    the rule of three's analogue, to 1; among others, such a group adds nothing to the width of the mean's interval, which
    is then somewhat too narrow.

    Over folds the intervals take the folds' fits as given, and leave out that patients who are judged in one fold were learned
    from in the others. Where something can be read this costs little (5 folds, 150 or 600 patients: 95% intervals hold in 93 to
    96% of worlds); where nothing can, they are too narrow (83 to 85%): go by the p-value of `refitted`
    (`benchmarks/leakage_calibration.py`).

    Args:
        readout: the scores.
        confidence: level of the intervals.
        strata: `[m] int`, stratum of each row of the readout; -1 leaves a row out.
        weight: `[m]`, weight of each row, at least 0; NaN throughout where weights were refused: the AUROCs are then NaN.
        control: what the column of that name says.

    Returns:
        A row per group of the attribute, in its order, and `"macro"`: `control, group, auroc, low, high, p_value` (NaN: see
        `shuffles`), `n, n_group, n_patients, n_group_patients` (rows and patients that were compared), `setting`. NaN with
        fewer than two patients in the group or outside it, or without a score. `"macro"` is over the groups that are
        defined; its `n_group` is `n`.

    Raises:
        ValueError: strata or weights do not have a value per row, or a weight is below 0.

    Reference: Obuchowski, Biometrics 1997; Qin and Hotilovac, Statistical Methods in Medical Research 2008.
    """
    weight = np.ones(len(readout)) if weight is None else np.asarray(weight, np.float64)
    cell = cells_of(readout, strata)
    if weight.shape != (len(readout),) or (weight < 0).any():
        raise ValueError(f"weight must be 0 or more in each of the {len(readout)} rows of the readout.")
    patient = patient_numbers(readout.patient_id)
    rankings = [
        _rank(readout.codes == g, readout.scores[:, g], cell, patient, weight) for g in range(len(readout.attribute.groups))
    ]
    rows = []
    for g, (group, ranking) in enumerate(zip(readout.attribute.groups, rankings, strict=True)):
        in_group = ranking.rows & (readout.codes == g)
        rows.append(_row(group, [ranking] if ranking.is_defined else [], confidence, ranking.rows, in_group, patient))
    defined = [r for r in rankings if r.is_defined]
    compared = np.any([r.rows for r in defined or rankings], axis=0)
    rows.append(_row(MACRO, defined, confidence, compared, compared, patient))
    return [{"control": control, **row, "setting": readout.setting} for row in rows]


def cells_of(readout: Readout, strata: np.ndarray | None) -> np.ndarray:
    """Returns `[m] int64`, numbers of the pairs of fold and stratum that occur, from 0; -1 where the stratum is.

    Raises:
        ValueError: strata do not have a value per row.
    """
    strata = np.zeros(len(readout), np.int64) if strata is None else np.asarray(strata)
    if strata.shape != (len(readout),):
        raise ValueError(f"strata must have a value for each of the {len(readout)} rows; their shape is {strata.shape}.")
    pair = readout.fold * (strata.max(initial=0) + 1) + strata
    used = strata >= 0
    cell = np.full(len(readout), -1, np.int64)
    cell[used] = np.unique(pair[used], return_inverse=True)[1]
    return cell


def patient_numbers(patient_id: np.ndarray) -> np.ndarray:
    """Returns `[m] int64`, a number from 0 for each patient."""
    return np.unique(np.asarray(patient_id).astype(str), return_inverse=True)[1]


def _row(group: str, rankings: list[_Ranking], confidence: float, rows: np.ndarray, in_group: np.ndarray, patient) -> dict:
    value = low = high = float("nan")
    if rankings:
        value = float(np.mean([r.value for r in rankings]))
        error = np.sqrt(_variance(rankings))
        if error < _ROUNDING:  # without a mistake: sums may miss 1 by rounding
            value, error = round(value, 10), 0.0
        df = min(r.n_smaller for r in rankings) - 1
        low, high = (float(end) for end in logit_t_interval(value, error, confidence, df=df))
    return {
        "group": group, "auroc": value, "low": low, "high": high, "p_value": float("nan"),
        "n": int(rows.sum()), "n_group": int(in_group.sum()),
        "n_patients": len(np.unique(patient[rows])), "n_group_patients": len(np.unique(patient[in_group])),
    }  # fmt: skip


def _variance(rankings: list[_Ranking]) -> float:
    """Returns the variance of the mean AUROC: `metrics.delong`'s, with the patients' terms summed over groups first."""

    def factor(count: int) -> float:
        return count / (count - 1)

    influence, same_group = 0.0, 0.0
    for r in rankings:
        of_positives, of_negatives = np.sqrt(factor(r.n_positive_patients)), np.sqrt(factor(r.n_negative_patients))
        influence = influence + of_positives * r.positive + of_negatives * r.negative
        # Obuchowski's factor of the crossed terms, of patients with rows inside and outside the group, is another one.
        same_group += 2 * (factor(r.n_patients) - of_positives * of_negatives) * (r.positive @ r.negative)
    return max(float(influence @ influence + same_group), 0.0) / len(rankings) ** 2


def _rank(is_group: np.ndarray, score: np.ndarray, cell: np.ndarray, patient: np.ndarray, weight: np.ndarray) -> _Ranking:
    candidate = (cell >= 0) & ~(weight == 0)  # NaN weights count as rows that were meant to be compared
    known = candidate & ~np.isnan(score) & ~np.isnan(weight)
    n_cells, n_patients = int(cell.max(initial=-1)) + 1, int(patient.max(initial=-1)) + 1
    both = (np.bincount(cell[known & is_group], minlength=n_cells) > 0) & (
        np.bincount(cell[known & ~is_group], minlength=n_cells) > 0
    )
    ranked = np.zeros(len(cell), bool)
    ranked[known] = both[cell[known]]
    up, down = ranked & is_group, ranked & ~is_group
    counts = tuple(len(np.unique(patient[own])) for own in (up, down, ranked))
    if min(counts) < 2:
        undefined = np.full(n_patients, np.nan)
        return _Ranking(float("nan"), undefined, undefined, *counts, ranked if ranked.any() else candidate)
    found = stratified_auroc(
        is_group[ranked], score[ranked], patient_id=patient[ranked], strata=cell[ranked], weight=weight[ranked]
    )
    term = np.zeros(len(cell))
    term[ranked] = found.influence
    positive, negative = (np.bincount(patient[own], term[own], n_patients) for own in (up, down))
    return _Ranking(found.value, positive, negative, *counts, ranked)


def roc_rows(readout: Readout) -> list[dict]:
    """ROC curves per group on a fixed grid; those of several folds are averaged by their number of pairs, as the AUROC is.

    Args:
        readout: the scores.

    Returns:
        `group, fpr, tpr, n, n_group_patients`, 51 rows a group: FPR 0 to 1 by .02. TPR is NaN where the AUROC is.
    """
    patient, cell = patient_numbers(readout.patient_id), cells_of(readout, None)
    rows = []
    for g, group in enumerate(readout.attribute.groups):
        is_group = readout.codes == g
        ranking = _rank(is_group, readout.scores[:, g], cell, patient, np.ones(len(readout)))
        curves, pairs = [], []
        for c in np.unique(cell[ranking.rows]) if ranking.is_defined else []:
            own = ranking.rows & (cell == c)
            curves.append(roc_curve_on_grid(is_group[own].astype(np.float64), readout.scores[own, g], GRID))
            pairs.append(float(is_group[own].sum()) * (~is_group[own]).sum())
        tpr = np.average(curves, axis=0, weights=pairs) if curves else np.full(len(GRID), np.nan)
        common = {
            "n": int(ranking.rows.sum()), "n_group_patients": len(np.unique(patient[ranking.rows & is_group])),
        }  # fmt: skip
        rows += [{"group": group, "fpr": float(f), "tpr": float(t), **common} for f, t in zip(GRID, tpr, strict=True)]
    return rows


def confusion_rows(readout: Readout) -> list[dict]:
    """What rows of each recorded group are read as: the group of the highest score; of equal ones the first.

    Args:
        readout: the scores. Rows without any score are left out.

    Returns:
        `group, read_as, share, n, n_patients`; shares of a group sum to 1, and are NaN where no row is of the group.
    """
    scored = ~np.isnan(readout.scores).all(axis=1)
    read_as = np.full(len(readout), -1)
    read_as[scored] = np.nanargmax(readout.scores[scored], axis=1)
    patient = patient_numbers(readout.patient_id)
    rows = []
    for g, group in enumerate(readout.attribute.groups):
        own = scored & (readout.codes == g)
        n, n_patients = int(own.sum()), len(np.unique(patient[own]))
        for other, name in enumerate(readout.attribute.groups):
            share = float((read_as[own] == other).mean()) if n else float("nan")
            rows.append({"group": group, "read_as": name, "share": share, "n": n, "n_patients": n_patients})
    return rows
