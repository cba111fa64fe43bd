"""Every metric in every cell (label x group) under every resample of patients, computed once and shared by all tables."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from biascxr.audit.adjust import Adjustment
from biascxr.audit.calibration import CALIBRATION_FITS, calibration_replicates
from biascxr.audit.closed_forms import ClosedForms, closed_forms
from biascxr.audit.groups import Groups
from biascxr.audit.rows import label_rows
from biascxr.audit.underdiagnosis import n_findings
from biascxr.containers import Predictions
from biascxr.metrics.base import METRICS
from biascxr.metrics.resampling import Resamples
from biascxr.metrics.sorted_pass import SUMS, has_compiler, sorted_pass

MACRO, MICRO = "macro", "micro"
CALIBRATION_ERRORS = ("ECE_debiased", "ECE")  # measured together: the interval of either rests on both
# Below this many row visits numpy is done before numba has compiled.
COMPILE_FROM = 30_000_000
# What a difference of sums leaves of them by rounding, where it should be 0.
DUST = 1e-12
_S = {name: i for i, name in enumerate(SUMS)}


@dataclass(frozen=True)
class RunNoise:
    """How the values of one recipe differ between its training runs, where the cells are means over several.

    Attributes:
        units: per metric `[U, L, C]`, the estimate of each of U units of training runs.
        factor: the variance of the mean over runs is this times the variance over units.
        draws: `[U, R]`, what each resample gives the units' deviations: their noise has that variance, and it is the same for
            every recipe.
    """

    units: dict[str, np.ndarray]
    factor: float
    draws: np.ndarray

    def add_to(self, values: np.ndarray, units: np.ndarray) -> np.ndarray:
        """Returns values `[k, R + 1]` whose resamples hold the noise of other training runs too, from units `[U, k]`."""
        noisy = values.copy()
        noisy[:, 1:] += (units - units.mean(axis=0)).T @ self.draws
        return noisy


@dataclass(frozen=True)
class Cells:
    """All metrics of one set of predictions.

    Attributes:
        values: per metric `[L, C, R + 1]` over labels, columns of `Groups` and weightings; the first weighting is the
            estimate, the others are resamples of patients.
        counts: closed forms and counts, per label and column.
        n_findings: the first labels, which averages are over; a derived "No Finding" and all findings pooled (micro) follow.
        runs: where the values are means over training runs, how those differ; else None.
    """

    values: dict[str, np.ndarray]
    counts: ClosedForms
    n_findings: int
    runs: RunNoise | None = None
    _spreads: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def estimate(self, metric: str) -> np.ndarray:
        """Returns `[L, C]`."""
        return self.values[metric][:, :, 0]

    def standard_error(self, metric: str) -> np.ndarray:
        """Returns `[L, C]`: in closed form where there is one, else the spread over the resamples."""
        if metric in self.counts.errors:
            return self.counts.errors[metric]
        if metric not in self._spreads:
            self._spreads[metric] = spread(self.values[metric][:, :, 1:])
        return self._spreads[metric]

    def class_patients(self, metric: str) -> np.ndarray:
        """Returns `[L, C]`: the patients that a metric rests on (of a PPV: those flagged); of two classes the smaller."""
        if metric in self.counts.patients:
            return self.counts.patients[metric]
        among = METRICS[metric].among
        if among == "both":
            return np.minimum(self.counts.n_positive_patients, self.counts.n_negative_patients)
        return {
            "positive": self.counts.n_positive_patients,
            "negative": self.counts.n_negative_patients,
            "known": self.counts.n_patients,
        }[among]


def spread(replicates: np.ndarray) -> np.ndarray:
    """Returns the standard deviation over the last axis, undefined resamples left out; NaN with fewer than two."""
    defined = ~np.isnan(replicates)
    n = defined.sum(axis=-1)
    filled = np.where(defined, replicates, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=-1) / n
        squares = np.where(defined, (replicates - mean[..., None]) ** 2, 0.0).sum(axis=-1)
        return np.where(n > 1, np.sqrt(squares / (n - 1)), np.nan)


def measure_cells(
    predictions: Predictions,
    groups: Groups,
    resamples: Resamples,
    metrics: Iterable[str],
    *,
    weight: np.ndarray | None = None,
    adjustment: Adjustment | None = None,
    with_micro: bool = False,
    is_compiled: bool | None = None,
) -> Cells:
    """Computes metrics in every cell.

    Args:
        predictions: the rows to audit.
        groups: their groups.
        resamples: how often each patient is drawn.
        metrics: names from `METRICS`.
        weight: `[n]` weight of each row, the same for all groups; default 1.
        adjustment: reweights the groups of each attribute to a common standard, again in each resample.
        with_micro: measure all findings pooled too, as one more label at the end (not under an adjustment).
        is_compiled: default: numba if it is there and the work is worth its compilation.
    """
    metrics = tuple(metrics)
    if set(CALIBRATION_ERRORS) & set(metrics):
        metrics = tuple(dict.fromkeys((*metrics, *CALIBRATION_ERRORS)))
    n_labels = len(predictions.label_names) + (with_micro and adjustment is None)
    width = resamples.n_replicates + 1
    if is_compiled is None:
        is_compiled = is_worth_compiling(predictions, groups, resamples)
    values = {m: np.full((n_labels, len(groups.names), width), np.nan) for m in metrics}
    options = {
        "is_compiled": is_compiled,
        "with_precision": "AUPRC" in metrics,
        "with_calibration": bool({"Brier", "log_loss", "ECE", "ECE_debiased"} & set(metrics)),
    }

    def measure(job: tuple[int, int]) -> None:
        label, at = job
        grouping = groups.groupings[at]
        k = len(grouping.attribute.groups)
        fitted = {} if adjustment is None or at == 0 else adjustment.factors(label, at)
        sums = sorted_pass(
            rows[label], grouping.codes, k, resamples.patient, resamples.lanes, weight=weight, **fitted, **options
        )
        first = groups.index(grouping.attribute.name, grouping.attribute.groups[0])
        for metric, (own, others) in metrics_of_sums(sums[:, :, :width], metrics).items():
            values[metric][label, first : first + k] = own
            values[metric][label, groups.n_own + first : groups.n_own + first + k] = others

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        rows = list(pool.map(lambda label: label_rows(predictions, label), range(n_labels)))
        # The largest jobs first, so that no thread is left with one at the end.
        jobs = [(label, at) for label in range(n_labels) for at in range(len(groups.groupings))]
        jobs.sort(key=lambda job: -len(rows[job[0]].row) * (5 + len(groups.groupings[job[1]].attribute.groups)))
        list(pool.map(measure, jobs))
    if set(metrics) & set(CALIBRATION_FITS):
        fitted = calibration_replicates(rows, groups, resamples, weight=weight, adjustment=adjustment)
        values |= {m: v for m, v in fitted.items() if m in metrics}
    counts = closed_forms(rows, predictions, groups, metrics, weight=weight, adjustment=adjustment)
    return Cells(values, counts, n_findings(predictions.label_names))


def is_worth_compiling(predictions: Predictions, groups: Groups, resamples: Resamples, n_sets: int = 1) -> bool:
    """Is numba there, and is the work for so many sets of predictions longer than its compilation (some seconds)?

    It must follow from the input alone: both forms differ in the last digit, and the same audit gives the same bytes.
    """
    visits = len(predictions.table) * len(predictions.label_names) * len(groups.groupings) * (resamples.n_replicates + 1)
    return has_compiler and n_sets * visits >= COMPILE_FROM


def metrics_of_sums(sums: np.ndarray, metrics: Iterable[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Turns the sums of one pass into metrics.

    Args:
        sums: `[len(SUMS), k, R + 1]`.
        metrics: names from `METRICS`; those fitted by regression are left to others.

    Returns:
        Per metric the groups' own values and everyone else's, each `[k, R + 1]`; NaN where undefined.
    """
    # [2, k, R + 1]: the groups, and everyone else. All linear sums of the others follow by subtraction.
    both = np.stack([sums, sums.sum(axis=1, keepdims=True) - sums], axis=1)
    losses = sums[_S["losses"]]
    all_losses = sums[_S["losses_of_group"]].sum(axis=0)
    both[_S["losses"], 1] = all_losses - sums[_S["losses_of_group"]] - sums[_S["losses_to_group"]] + losses
    for name in ("precision", "bin_error", "bin_noise"):
        both[_S[name], 1] = sums[_S[f"{name}_others"]]
    s = {name: both[i] for name, i in _S.items()}
    positive, negative = s["positive"], s["negative"]
    n = positive + negative
    decided = n - s["undecided_positive"] - s["undecided_negative"]
    decided_positive, decided_negative = positive - s["undecided_positive"], negative - s["undecided_negative"]
    hit, false_alarm = s["true_positive"], s["false_positive"]
    flagged, correct = hit + false_alarm, hit + decided_negative - false_alarm
    # A rate of everyone else that should be 0 or 1 is so exactly: 1 - 1e-16 has no standard error to go with it.
    n_rows, n_pairs = n[0].sum(axis=0), positive[0].sum(axis=0) * negative[0].sum(axis=0)  # [R + 1], of all groups
    tpr, fpr = _share(hit, decided_positive, n_rows), _share(false_alarm, decided_negative, n_rows)
    background = np.full_like(losses, np.nan)

    def against_background(name: str, own: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.stack([1 - _share(sums[_S[name]] - losses, own[0] * others[1], n_pairs), background])

    formulas = {
        "AUROC": lambda: 1 - _share(s["losses"], positive * negative, n_pairs),
        "AUPRC": lambda: _share(s["precision"], positive, n_rows),
        "TPR": lambda: tpr,
        "FPR": lambda: fpr,
        "TNR": lambda: 1 - fpr,
        "FNR": lambda: 1 - tpr,
        "PPV": lambda: _share(hit, flagged, n_rows),
        "NPV": lambda: _share(correct - hit, decided - flagged, n_rows),
        "selection_rate": lambda: _share(flagged, decided, n_rows),
        "accuracy": lambda: _share(correct, decided, n_rows),
        "balanced_accuracy": lambda: (tpr + 1 - fpr) / 2,
        "Brier": lambda: _ratio(s["squared_error"], n),
        "log_loss": lambda: _ratio(s["log_loss"], n),
        "ECE": lambda: _ratio(s["bin_error"], n),
        "ECE_debiased": lambda: _ratio(np.maximum(s["bin_error"] - s["bin_noise"], 0), n),
        "BNSP_AUROC": lambda: against_background("losses_of_group", positive, negative),
        "BPSN_AUROC": lambda: against_background("losses_to_group", negative, positive),
    }
    return {m: tuple(formulas[m]()) for m in metrics if m in formulas}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    # Differences of weighted sums leave rounding dust where nothing is: it is no row.
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 1e-9)


def _share(part: np.ndarray, whole: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Returns a ratio in [0, 1]; where it is nearer to an end than differences from `total` can tell, it is that end."""
    share = _ratio(part, whole)
    near = np.minimum(_ratio(DUST * total, whole), 1e-3)
    return np.where(share < near, 0.0, np.where(share > 1 - near, 1.0, share))
