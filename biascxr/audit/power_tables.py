"""Tables of power: which difference of each group from everyone else could be seen, from a table or from group sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.audit.power import MIN_PATIENTS, ClassSize, check_settings, detectable_auroc, detectable_rate
from biascxr.containers import UNKNOWN
from biascxr.errors import InputError, unknown_name

POWER_METRICS = ("TPR", "FPR", "AUROC")
# What everyone else is taken to reach: a table made before training knows no better.
RATES: dict[str, float] = {"TPR": 0.80, "FPR": 0.20, "AUROC": 0.80}
FEW_PATIENTS = 10


def power_table(
    cohort_table: pd.DataFrame,
    *,
    attributes: Sequence[str],
    metrics: Sequence[str] = POWER_METRICS,
    rates: Mapping[str, float] = RATES,
    icc: float = 0.5,
    power: float = 0.8,
    alpha: float = 0.05,
    n_tests: int | None = None,
) -> pd.DataFrame:
    """Which difference of each group from everyone else could be seen, from a table of patients and labels alone.

    Args:
        cohort_table: one row per image that would be judged: `patient_id`, the attributes, `true_<label>` in {0, 1, NaN}.
        attributes: columns whose known groups are compared.
        metrics: among `POWER_METRICS`.
        rates: what everyone else is taken to reach, per metric; a metric that is left out keeps its value in `RATES`. The
            group is taken to do worse: a lower TPR or AUROC, a higher FPR.
        icc: correlation between two images of a patient, in [0, 1].
        power: chance of seeing the difference.
        alpha: level, two-sided.
        n_tests: how many tests the adjusted columns stand for; None: labels x attributes.

    Returns:
        One row per label, attribute and group: `label, attribute, group, n_patients, n_positive_patients,
        n_negative_patients, images_per_patient, design_effect_positive, design_effect_negative`, then
        `detectable_<metric>` and, at `n_tests`, `detectable_<metric>_adjusted`; `n_tests, note`. Counts are of the group,
        images with a known label. NaN where a side has under two patients of the class, or no difference is large enough.

    Raises:
        InputError: a column is missing, labels other than 0, 1 and NaN, or a setting out of range.
    """
    labels = [c.removeprefix("true_") for c in cohort_table if c.startswith("true_")]
    if not labels:
        raise InputError("The table needs a true_<label> column per finding, with 0, 1 or empty; it has none.")
    for name in ("patient_id", *attributes):
        if name not in cohort_table:
            raise unknown_name("column of the cohort's table", name, cohort_table.columns)
    n_tests = max(1, len(labels) * len(attributes)) if n_tests is None else n_tests
    plan = _Plan(tuple(metrics), {**RATES, **rates}, icc, power, alpha, n_tests)
    patient, _ = pd.factorize(cohort_table["patient_id"].to_numpy(object).astype(str))
    rows = []
    for label in labels:
        y = cohort_table[f"true_{label}"].to_numpy(np.float64)
        if not np.isin(y[~np.isnan(y)], (0, 1)).all():
            raise InputError(
                f"true_{label} must hold 0, 1 or nothing; got {sorted(set(y[~np.isnan(y)].tolist()) - {0.0, 1.0})}."
            )
        for attribute in attributes:
            values = cohort_table[attribute].fillna(UNKNOWN).to_numpy(object).astype(str)
            for group in sorted(set(values) - {UNKNOWN}):
                own, others = values == group, (values != group) & (values != UNKNOWN)
                sizes = [[ClassSize.count(patient[side & (y == c)]) for c in (1, 0)] for side in (own, others)]
                known = patient[own & ~np.isnan(y)]
                n_patients = len(np.unique(known))
                in_both = len(np.intersect1d(known, patient[others & ~np.isnan(y)]))
                row = plan.row(*sizes, note=f"{in_both} patients are on both sides, taken as independent" if in_both else "")
                images = len(known) / n_patients if n_patients else np.nan
                head = {"label": label, "attribute": attribute, "group": group, "n_patients": n_patients}
                rows.append(head | plan.counts(*sizes[0]) | {"images_per_patient": images} | row)
    columns = ["label", "attribute", "group", "n_patients", "n_positive_patients", "n_negative_patients"]
    return pd.DataFrame(rows, columns=[*columns, "images_per_patient", *plan.columns()])


def power_from_sizes(
    sizes: Mapping[str, int],
    prevalence: Mapping[str, float] | float,
    *,
    metrics: Sequence[str] = POWER_METRICS,
    rates: Mapping[str, float] = RATES,
    images_per_patient: float = 1.0,
    icc: float = 0.5,
    power: float = 0.8,
    alpha: float = 0.05,
    n_tests: int = 1,
) -> pd.DataFrame:
    """Which difference of each group from everyone else could be seen, from group sizes alone.

    Args:
        sizes: patients per group.
        prevalence: share of patients labelled positive, one for all or per group, in [0, 1]; the others are negative.
        metrics: among `POWER_METRICS`.
        rates: as in `power_table`.
        images_per_patient: the same for all, all of one class within a patient.
        icc: correlation between two images of a patient, in [0, 1].
        power: chance of seeing the difference.
        alpha: level, two-sided.
        n_tests: how many tests the adjusted columns stand for.

    Returns:
        One row per group: the columns of `power_table` without `label` and `attribute`. Positive patients are rounded.

    Raises:
        InputError: fewer than two groups, a negative size, a prevalence missing or out of range, a setting out of range.
    """
    if len(sizes) < 2:
        raise InputError(f"sizes must name at least two groups to compare; got {list(sizes)}.")
    plan = _Plan(tuple(metrics), {**RATES, **rates}, icc, power, alpha, n_tests, images_per_patient)
    shares = dict(prevalence) if isinstance(prevalence, Mapping) else dict.fromkeys(sizes, prevalence)
    counts = {}
    for group, n in sizes.items():
        if group not in shares:
            raise unknown_name("group in prevalence (sizes has it)", group, shares)
        if not 0 <= shares[group] <= 1 or n < 0:
            raise InputError(
                f"Group {group!r} needs a size of at least 0 and a prevalence in [0, 1]; got {n} and {shares[group]}."
            )
        n_positive = round(n * shares[group])
        counts[group] = np.array([n_positive, n - n_positive])
    everyone = sum(counts.values())
    rows = []
    for group, count in counts.items():
        own, others = ([ClassSize.even(n, images_per_patient) for n in side] for side in (count, everyone - count))
        head = {"group": group, "n_patients": int(count.sum())} | plan.counts(*own)
        rows.append(head | {"images_per_patient": images_per_patient} | plan.row(own, others))
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Plan:
    """What is to be detected, checked once, and how a row of either table is filled."""

    metrics: tuple[str, ...]
    rates: Mapping[str, float]
    icc: float
    power: float
    alpha: float
    n_tests: int
    images_per_patient: float = 1.0

    def __post_init__(self) -> None:
        for name in (*self.metrics, *self.rates):
            if name not in POWER_METRICS:
                raise unknown_name("metric of a power table", name, POWER_METRICS)
        check_settings(
            power=self.power, alpha=self.alpha, n_tests=self.n_tests, icc=self.icc,
            images_per_patient=self.images_per_patient,
            **{f"rates[{name!r}]": rate for name, rate in self.rates.items()},
        )  # fmt: skip

    def columns(self) -> list[str]:
        """Returns the names of the columns that `row` fills."""
        detectable = [f"detectable_{metric}{end}" for metric in self.metrics for end in ("", "_adjusted")]
        return ["design_effect_positive", "design_effect_negative", *detectable, "n_tests", "note"]

    def counts(self, positive: ClassSize, negative: ClassSize) -> dict:
        """Returns the patients of each class."""
        return {"n_positive_patients": int(positive.n_patients), "n_negative_patients": int(negative.n_patients)}

    def row(self, own: Sequence[ClassSize], others: Sequence[ClassSize], *, note: str = "") -> dict:
        """Returns the design effects, what is detectable, and why something is not.

        Args:
            own: positives and negatives of the group.
            others: positives and negatives of everyone else.
            note: what else is to be said of this row.
        """
        row: dict = {}
        notes = [note] if note else []
        for name, size in zip(("positive", "negative"), own, strict=True):
            row[f"design_effect_{name}"] = size.design_effect(self.icc)
        for metric in self.metrics:
            for end, n_tests in (("", 1), ("_adjusted", self.n_tests)):
                row[f"detectable_{metric}{end}"] = self._detectable(metric, own, others, n_tests)
            if any(size.n_patients < MIN_PATIENTS for side in (own, others) for size in self._classes(metric, side)):
                notes.append(f"{metric}: under {MIN_PATIENTS} patients of the class on a side")
            elif np.isnan(row[f"detectable_{metric}_adjusted"]):
                adjusted = "" if np.isnan(row[f"detectable_{metric}"]) else " once adjusted"
                notes.append(f"{metric}: too few patients to detect any difference{adjusted}")
            elif any(size.n_patients < FEW_PATIENTS for side in (own, others) for size in self._classes(metric, side)):
                notes.append(f"{metric}: under {FEW_PATIENTS} patients of the class on a side, read as an order of magnitude")
        return row | {"n_tests": self.n_tests, "note": "; ".join(notes)}

    def _classes(self, metric: str, side: Sequence[ClassSize]) -> Sequence[ClassSize]:
        return {"TPR": side[:1], "FPR": side[1:], "AUROC": side}[metric]

    def _detectable(self, metric: str, own: Sequence[ClassSize], others: Sequence[ClassSize], n_tests: int) -> float:
        test = {"icc": self.icc, "power": self.power, "alpha": self.alpha, "n_tests": n_tests}
        rate = self.rates[metric]
        if metric == "AUROC":
            return detectable_auroc(own, others, rate, **test)
        # A higher FPR is a lower TNR.
        a, b = self._classes(metric, own)[0], self._classes(metric, others)[0]
        return detectable_rate(a, b, 1 - rate if metric == "FPR" else rate, **test)
