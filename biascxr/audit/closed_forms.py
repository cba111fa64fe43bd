"""Standard errors in closed form, patients as the unit, and the counts behind every cell.

Rates and means are ratios of sums over patients, so their variance is that of the patients' residuals; the AUROC's is
Obuchowski's (Biometrics 1997) clustered form of DeLong's. The same formulas as `biascxr.metrics.delong` gives for one set
of rows, here for all groups of a grouping and for everyone else of each group at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.audit.adjust import Adjustment
from biascxr.audit.groups import Grouping, Groups
from biascxr.containers import Predictions
from biascxr.metrics.sorted_pass import SortedLabel, tie_blocks

# What a difference of sums leaves of them by rounding, where it should be 0.
DUST = 1e-13
# Numerator and denominator of each ratio, from the columns of `_GroupingSums`.
RATIOS = {
    "TPR": (("tp",), ("dp",)),
    "FNR": (("tp",), ("dp",)),  # one minus the TPR: the same error
    "FPR": (("fp",), ("dn",)),
    "TNR": (("fp",), ("dn",)),
    "PPV": (("tp",), ("tp", "fp")),
    "NPV": (("tn",), ("tn", "fn")),
    "selection_rate": (("tp", "fp"), ("dp", "dn")),
    "accuracy": (("tp", "tn"), ("dp", "dn")),
    "Brier": (("squared",), ("known",)),
    "log_loss": (("logged",), ("known",)),
}


@dataclass(frozen=True)
class ClosedForms:
    """What needs no resampling, per label and column of `Groups`.

    Attributes:
        errors: per metric `[L, C]`, standard errors; for metrics that have a closed form.
        effective: per ratio `[L, C]`, images in its denominator (Kish's effective number where rows have weights).
        patients: per ratio `[L, C]`, patients with an image in its denominator.
        n: `[L, C]` images with a known label.
        n_positive: `[L, C]` of them labelled positive.
        n_effective: `[L, C]` Kish's effective number of the images.
        n_patients: `[L, C]` patients with a known label; these three leave out rows of weight 0, which say nothing.
        n_positive_patients: `[L, C]` patients with an image labelled positive.
        n_negative_patients: `[L, C]` patients with an image labelled negative.
    """

    errors: dict[str, np.ndarray]
    effective: dict[str, np.ndarray]
    patients: dict[str, np.ndarray]
    n: np.ndarray
    n_positive: np.ndarray
    n_effective: np.ndarray
    n_patients: np.ndarray
    n_positive_patients: np.ndarray
    n_negative_patients: np.ndarray


@dataclass(frozen=True)
class _Slots:
    """Patients within groups: a patient who changes groups has a slot in each.

    Attributes:
        of_row: `[n]`, -1 where the group is unknown.
        group: `[S]`.
        patient: `[S]`.
    """

    of_row: np.ndarray
    group: np.ndarray
    patient: np.ndarray


def _find_slots(grouping: Grouping, patient: np.ndarray) -> _Slots:
    known = grouping.codes >= 0
    key = patient[known].astype(np.int64) * len(grouping.attribute.groups) + grouping.codes[known]
    found, at = np.unique(key, return_inverse=True)
    of_row = np.full(len(patient), -1, np.int64)
    of_row[known] = at
    return _Slots(of_row, found % len(grouping.attribute.groups), found // len(grouping.attribute.groups))


def closed_forms(
    rows: list[SortedLabel],
    predictions: Predictions,
    groups: Groups,
    metrics: Iterable[str],
    *,
    weight: np.ndarray | None = None,
    adjustment: Adjustment | None = None,
) -> ClosedForms:
    """Computes standard errors and counts; the weights of an adjustment are taken as fixed.

    Args:
        rows: the sorted rows of each label.
        predictions: the rows to audit.
        groups: their groups.
        metrics: names; those without a closed form are passed over.
        weight: `[n]` weight of each row.
        adjustment: reweights the groups of each attribute.
    """
    shape = (len(rows), len(groups.names))
    ratios = [m for m in metrics if m in RATIOS]
    errors = {m: np.full(shape, np.nan) for m in (*ratios, "AUROC") if m in metrics}
    effective = {m: np.zeros(shape) for m in ratios}
    patients = {m: np.zeros(shape, int) for m in ratios}
    names = ("n", "n_positive", "n_effective", "n_patients", "n_positive_patients", "n_negative_patients")
    counts = {name: np.zeros(shape, float if name == "n_effective" else int) for name in names}
    patient, _ = pd.factorize(predictions.table["patient_id"].astype(str))
    slots = [_find_slots(g, patient) for g in groups.groupings]

    def measure(label: int) -> None:
        own_rows = rows[label]
        for at, (grouping, own_slots) in enumerate(zip(groups.groupings, slots, strict=True)):
            k = len(grouping.attribute.groups)
            first = groups.index(grouping.attribute.name, grouping.attribute.groups[0])
            columns = np.r_[first : first + k, groups.n_own + first : groups.n_own + first + k]
            w = np.ones(len(patient)) if weight is None else weight
            if adjustment is not None and at > 0:
                w = w * adjustment.fixed(label, at)
            cell = _GroupingSums(own_rows, own_slots, patient, w[own_rows.row], k)
            for name, values in cell.counts().items():
                counts[name][label, columns] = values
            for metric in ratios:
                error, n_effective, n_patients = cell.ratio(*RATIOS[metric])
                errors[metric][label, columns] = error
                effective[metric][label, columns] = n_effective
                patients[metric][label, columns] = n_patients
            if "AUROC" in errors:
                errors["AUROC"][label, columns] = cell.auroc_errors()

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(measure, range(shape[0])))
    return ClosedForms(errors, effective, patients, **counts)


class _GroupingSums:
    """Sums over the patients of each group of one grouping, for one label."""

    def __init__(self, rows: SortedLabel, slots: _Slots, patient: np.ndarray, weight: np.ndarray, n_groups: int) -> None:
        at = slots.of_row[rows.row]
        known = at >= 0
        self.k, self.n_slots, self.n_patients = n_groups, len(slots.group), int(patient.max(initial=-1)) + 1
        self.group, self.slot_patient = slots.group, slots.patient
        self.slot, self.weight, self.positive = at[known], weight[known], rows.positive[known]
        self.patient = patient[rows.row][known]
        self.code = slots.group[self.slot]
        self.is_start = np.r_[True, np.diff(tie_blocks(rows.tie_end)[known]) != 0] if known.any() else np.zeros(0, bool)
        flag, is_decided = rows.flag[known], rows.flag[known] >= 0
        hit, positive = flag == 1, self.positive
        self.columns = {
            "tp": hit & positive, "fp": hit & ~positive, "fn": (flag == 0) & positive, "tn": (flag == 0) & ~positive,
            "dp": is_decided & positive, "dn": is_decided & ~positive, "known": np.ones(len(flag), bool),
            "squared": rows.residual[known] ** 2, "logged": rows.log_loss[known],
        }  # fmt: skip
        self._cache: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def _sums(self, name: str, power: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Returns a column's weighted sums per slot `[S]` and per patient `[P]`."""
        key = f"{name}{power}"
        if key not in self._cache:
            value = self.columns[name] * self.weight**power
            self._cache[key] = (
                np.bincount(self.slot, value, self.n_slots),
                np.bincount(self.patient, value, self.n_patients),
            )
        return self._cache[key]

    def _both(self, of_slot: np.ndarray, total: float) -> np.ndarray:
        """Returns `[2 k]`: the sum over each group's slots, and over everyone else's where `total` is the sum of all."""
        own = np.bincount(self.group, of_slot, self.k)
        return np.r_[own, total - own]

    def _patients_with(self, slot_sums: np.ndarray, patient_sums: np.ndarray) -> np.ndarray:
        """Returns `[2 k] int`: patients of each group, and of everyone else, in whom a sum is above 0."""
        rest = patient_sums[self.slot_patient] - slot_sums
        own = np.bincount(self.group, slot_sums > 0, self.k)
        change = np.bincount(self.group, (rest > 1e-9).astype(float) - (patient_sums[self.slot_patient] > 0), self.k)
        return np.r_[own, (patient_sums > 0).sum() + change].astype(int)

    def counts(self) -> dict[str, np.ndarray]:
        """Returns the counts of `ClosedForms`, each `[2 k]`."""
        ones, positive, counts = np.ones(len(self.slot)), self.positive.astype(float), self.weight > 0

        def both(value: np.ndarray) -> np.ndarray:
            return self._both(np.bincount(self.slot, value, self.n_slots), value.sum())

        def patients(value: np.ndarray) -> np.ndarray:
            return self._patients_with(
                np.bincount(self.slot, value, self.n_slots), np.bincount(self.patient, value, self.n_patients)
            )

        return {
            "n": both(ones),
            "n_positive": both(positive),
            "n_effective": _kish(both(self.weight), both(self.weight**2)),
            "n_patients": patients(counts * ones),
            "n_positive_patients": patients(counts * positive),
            "n_negative_patients": patients(counts * (1 - positive)),
        }

    def ratio(self, upper: tuple[str, ...], lower: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the standard error of a ratio of sums, the effective images and the patients below it, each `[2 k]`."""
        a, a_patient = (sum(parts) for parts in zip(*map(self._sums, upper), strict=True))
        b, b_patient = (sum(parts) for parts in zip(*map(self._sums, lower), strict=True))
        squares = sum(self._sums(name, 2)[0] for name in lower)
        whole = self._both(b, b_patient.sum())
        n_patients = self._patients_with(b, b_patient)
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = self._both(a, a_patient.sum()) / whole
            own = np.bincount(self.group, (a - rate[: self.k][self.group] * b) ** 2, self.k)
            # Everyone else: all patients' residuals at their rate, with those of the group's slots taken out of them.
            rest_rate = rate[self.k :]
            everyone = (
                (a_patient**2).sum() - 2 * rest_rate * (a_patient * b_patient).sum() + rest_rate**2 * (b_patient**2).sum()
            )
            r = rest_rate[self.group]
            all_a, all_b = a_patient[self.slot_patient], b_patient[self.slot_patient]
            change = ((all_a - a) - r * (all_b - b)) ** 2 - (all_a - r * all_b) ** 2
            others = everyone + np.bincount(self.group, change, self.k)
            scale = (a_patient**2).sum() + rest_rate**2 * (b_patient**2).sum()
            variance = np.r_[own, np.where(others > DUST * scale, others, 0.0)]
            error = np.sqrt(variance * n_patients / (n_patients - 1)) / whole
        is_defined = (n_patients > 1) & (whole > 1e-9)
        return np.where(is_defined, error, np.nan), _kish(whole, self._both(squares, squares.sum())), n_patients

    def auroc_errors(self) -> np.ndarray:
        """Returns `[2 k]`, the standard errors of the AUROC (Obuchowski 1997)."""
        w, positive, code = self.weight, self.positive, self.code
        errors = np.full(2 * self.k, np.nan)
        first = np.flatnonzero(self.is_start)
        block = np.cumsum(self.is_start) - 1
        edge = np.r_[first, len(w)]

        def above(value: np.ndarray) -> np.ndarray:
            running = np.r_[0.0, np.cumsum(value)][edge]
            return ((running[1:] + running[:-1]) / 2)[block]

        w_positive, w_negative = w * positive, w * ~positive
        all_above = (above(w_positive), above(w_negative))
        for g in range(self.k):
            own = code == g
            group_above = (above(w_positive * own), above(w_negative * own))
            errors[g] = self._obuchowski(own, *group_above)
            if self.k > 1:
                errors[self.k + g] = self._obuchowski(~own, *(a - b for a, b in zip(all_above, group_above, strict=True)))
        return errors

    def _obuchowski(self, chosen: np.ndarray, positives_above: np.ndarray, negatives_above: np.ndarray) -> float:
        chosen = chosen & (self.weight > 0)  # a row that an adjustment drops is no patient of the group
        is_positive, is_negative = chosen & self.positive, chosen & ~self.positive
        w, patient = self.weight, self.patient
        m, n = w[is_positive].sum(), w[is_negative].sum()
        if m <= 0 or n <= 0:
            return np.nan
        x = 1 - negatives_above[is_positive] / n
        y = positives_above[is_negative] / m
        value = (w[is_positive] * x).sum() / m
        of_positives = np.bincount(patient[is_positive], w[is_positive] * (x - value), self.n_patients)
        of_negatives = np.bincount(patient[is_negative], w[is_negative] * (y - value), self.n_patients)
        has_positive = np.bincount(patient[is_positive], minlength=self.n_patients) > 0
        has_negative = np.bincount(patient[is_negative], minlength=self.n_patients) > 0
        i10, i01, i = has_positive.sum(), has_negative.sum(), (has_positive | has_negative).sum()
        if min(i10, i01) < 2:
            return np.nan
        variance = (
            i10 / (i10 - 1) * (of_positives**2).sum() / m**2
            + i01 / (i01 - 1) * (of_negatives**2).sum() / n**2
            + 2 * i / (i - 1) * (of_positives * of_negatives).sum() / (m * n)
        )
        return float(np.sqrt(max(variance, 0.0)))


def _kish(total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    # np.bincount of no rows is of whole numbers, so the type is said here.
    return np.divide(total**2, squares, out=np.zeros(total.shape), where=squares > 1e-12)
