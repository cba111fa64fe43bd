"""The tables of one audit: metrics per group with intervals, differences from everyone else, gaps per attribute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from biascxr.audit.cells import CALIBRATION_ERRORS, MACRO, MICRO, Cells, spread
from biascxr.audit.groups import ALL, OVERALL, Groups
from biascxr.audit.underdiagnosis import DERIVED_NO_FINDING, NO_FINDING
from biascxr.config import AuditConfig
from biascxr.containers import Attribute
from biascxr.metrics.base import METRICS
from biascxr.metrics.fairness import noise_corrected_spread
from biascxr.metrics.gaps import expected_noise_gap, group_noise, max_t_gap_interval, noise_corrected_gap
from biascxr.metrics.intervals import logit_t_interval, mover_difference, t_interval, wilson_interval

# A label enters a macro comparison only if every compared group has so many patients of the class that a metric rests on.
MIN_CLASS_PATIENTS = 5
INTERVALS = {
    "rate": "Wilson at effective n, cluster-robust",
    "auroc": "logit t, clustered DeLong",
    "mean": "t, cluster-robust",
    "logit": "logit t, patients resampled",
    "t": "t, patients resampled",
    "calibration": "t below the debiased, above the raw value, patients resampled",
}
EQUALIZED_ODDS = "equalized_odds"
KNOWN_AS = {
    "selection_rate": "demographic parity difference", "TPR": "equal opportunity difference (EOpp1)",
    "TNR": "equal opportunity difference (EOpp0)", "PPV": "predictive parity difference", "AUROC": "AUC gap",
    "ECE": "calibration gap", EQUALIZED_ODDS: "equalized odds difference",
}  # fmt: skip
MACRO_INTERVAL = "normal, patients resampled"
# Metrics that may leave [0, 1]; a symmetric interval of any other is cut there.
UNBOUNDED = ("log_loss", "calibration_in_the_large", "calibration_slope")


def compared_groups(cells: Cells, groups: Groups, attribute: Attribute, metric: str, config: AuditConfig) -> tuple[str, ...]:
    """Returns the groups that are large enough for their gap to be measured.

    A group takes part if it has `min_patients` patients, and enough patients of the needed class for at least half of the
    labels that can be measured on everyone. Otherwise one tiny group would leave no label on which all can be compared.
    """
    enough = cells.class_patients(metric)[: cells.n_findings] >= MIN_CLASS_PATIENTS
    needed = max(1.0, enough[:, groups.index(OVERALL, ALL)].sum() / 2)
    columns = {g: groups.index(attribute.name, g) for g in attribute.groups}
    return tuple(
        g for g, c in columns.items()
        if cells.counts.n_patients[:, c].max() >= config.min_patients and enough[:, c].sum() >= needed
    )  # fmt: skip


def measurable_labels(cells: Cells, metric: str, columns: list[int]) -> np.ndarray:
    """Returns `[L] bool`: labels on which the metric is defined, on enough patients, in every one of these groups."""
    defined = ~np.isnan(cells.estimate(metric)[:, columns]).any(axis=1)
    return defined & (cells.class_patients(metric)[:, columns].min(axis=1) >= MIN_CLASS_PATIENTS)


def macro_labels(cells: Cells, metric: str, columns: list[int]) -> np.ndarray:
    """Returns `[findings] bool`: the measurable ones among those that averages are over."""
    return measurable_labels(cells, metric, columns)[: cells.n_findings]


def macro_values(cells: Cells, metric: str, labels: np.ndarray, columns: list[int]) -> np.ndarray:
    """Returns `[len(columns), R + 1]`: the mean over these labels; a label undefined in a resample is left out of it."""
    chosen = cells.values[metric][: cells.n_findings][labels][:, columns]
    defined = ~np.isnan(chosen)
    n = defined.sum(axis=0)
    return np.divide(np.where(defined, chosen, 0).sum(axis=0), n, out=np.full(n.shape, np.nan), where=n > 0)


def macro_bounds(values: np.ndarray, metric: str, confidence: float, *, df: float = np.inf):
    """Interval of means over labels `[k, R + 1]`, the estimate in front: normal, cut at the metric's range.

    Means over labels are near normal, while their percentile intervals lean to one side when rare labels drop out of
    resamples.
    """
    low, high = t_interval(values[:, 0], spread(values[:, 1:]), confidence, df=df)
    return (low, high) if metric in UNBOUNDED else (np.clip(low, 0, 1), np.clip(high, 0, 1))


def cell_bounds(cells: Cells, metric: str, confidence: float, where=slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """Returns the intervals of the cells `[L, C]` (or of `where` in them), in the form that serves the metric."""
    form = METRICS[metric].interval
    value, error = cells.estimate(metric)[where], cells.standard_error(metric)[where]
    df = cells.class_patients(metric)[where] - 1
    if form == "rate":
        return wilson_interval(value, error, cells.counts.effective[metric][where], confidence, df=df)
    if form in ("auroc", "logit"):
        return logit_t_interval(value, error, confidence, df=df)
    if form == "calibration":
        (low, _), (_, high) = (
            t_interval(cells.estimate(m)[where], cells.standard_error(m)[where], confidence, df=df) for m in CALIBRATION_ERRORS
        )
    else:
        low, high = t_interval(value, error, confidence, df=df)
    return (low, high) if metric in UNBOUNDED else (np.clip(low, 0, 1), np.clip(high, 0, 1))


def correlations(cells: Cells, metric: str, label: int, columns: list[int]) -> np.ndarray:
    """Returns `[k, k]`, correlations of the groups' estimates over the resamples: patients may be in several age groups."""
    replicates = cells.values[metric][label, columns, 1:]
    return correlation_of(replicates)


def correlation_of(replicates: np.ndarray) -> np.ndarray:
    """Returns `[k, k]` from `[k, R]`; 0 beside the diagonal where a group does not vary."""
    defined = ~np.isnan(replicates).any(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        matrix = np.corrcoef(replicates[:, defined]) if defined.sum() > 2 else np.eye(len(replicates))
    matrix = np.nan_to_num(np.atleast_2d(matrix))
    np.fill_diagonal(matrix, 1.0)
    return matrix


def metrics_table(
    cells: Cells, groups: Groups, label_names: tuple[str, ...], metrics: tuple[str, ...], config: AuditConfig
) -> pd.DataFrame:
    """One row per label (and macro, micro), attribute, group and metric.

    Returns:
        Columns `label, attribute, group, metric, value, low, high, difference, difference_low, difference_high, n,
        n_positive, n_patients, n_class_patients, n_effective, n_labels, is_small, interval`. `difference` is the group
        minus everyone else whose group is known.
    """
    rows = (*label_names, MICRO)[: len(cells.counts.n)]
    own = np.arange(groups.n_own)
    others = own + groups.n_own
    names = np.array([name[:2] for name in groups.names[: groups.n_own]], object)
    parts = []
    for metric in metrics:
        form = METRICS[metric].interval
        value, (low, high) = cells.estimate(metric), cell_bounds(cells, metric, config.confidence)
        related = _own_other_correlations(cells, groups, metric)
        a, b = ((m[:, own], m[:, others]) for m in (low, high))
        d_low, d_high = mover_difference((value[:, own], a[0], b[0]), (value[:, others], a[1], b[1]), correlation=related)
        if form in ("t", "mean") and metric in UNBOUNDED:  # symmetric anyway
            error = spread(cells.values[metric][:, own, 1:] - cells.values[metric][:, others, 1:])
            df = np.minimum(*(cells.class_patients(metric)[:, c] - 1 for c in (own, others)))
            d_low, d_high = t_interval(value[:, own] - value[:, others], error, config.confidence, df=df)
        n_class = cells.class_patients(metric)[:, own]
        block = {
            "label": np.repeat(np.array(rows, object), len(own)),
            "attribute": np.tile(names[:, 0], len(rows)),
            "group": np.tile(names[:, 1], len(rows)),
            "metric": metric,
            "value": value[:, own], "low": low[:, own], "high": high[:, own],
            "difference": value[:, own] - value[:, others], "difference_low": d_low, "difference_high": d_high,
            "n": cells.counts.n[:, own], "n_positive": cells.counts.n_positive[:, own],
            "n_patients": cells.counts.n_patients[:, own], "n_class_patients": n_class,
            "n_effective": cells.counts.n_effective[:, own], "n_labels": 1,
            "is_small": n_class < config.min_patients, "interval": INTERVALS[form],
        }  # fmt: skip
        parts.append(pd.DataFrame({k: v.ravel() if isinstance(v, np.ndarray) else v for k, v in block.items()}))
        parts.append(pd.DataFrame(_macro_rows(cells, groups, metric, config)))
    table = pd.concat(parts, ignore_index=True)
    # Label by label, macro and micro last, metrics of a group side by side.
    rank = {name: i for i, name in enumerate((*label_names, MACRO, MICRO))}
    order = pd.DataFrame({
        "label": table["label"].map(rank),
        "column": [groups.index(a, g) for a, g in zip(table["attribute"], table["group"], strict=True)],
    })  # fmt: skip
    return table.loc[order.sort_values(["label", "column"], kind="stable").index].reset_index(drop=True)


def _own_other_correlations(cells: Cells, groups: Groups, metric: str) -> np.ndarray:
    """Returns `[L, own]`: 0 where an attribute is constant for a patient, so that a group and the others share no one."""
    related = np.zeros((cells.values[metric].shape[0], groups.n_own))
    for attribute in groups.attributes:
        if attribute.constant:
            continue
        for group in attribute.groups:
            column = groups.index(attribute.name, group)
            for label in range(len(related)):
                related[label, column] = correlations(cells, metric, label, [column, column + groups.n_own])[0, 1]
    return related


def _macro_rows(cells: Cells, groups: Groups, metric: str, config: AuditConfig) -> list[dict]:
    rows = []
    counts = cells.counts
    for own in range(groups.n_own):
        attribute, group, _ = groups.names[own]
        columns = [own] if attribute == OVERALL or METRICS[metric].of_group else [own, own + groups.n_own]
        labels = macro_labels(cells, metric, columns)
        found = np.flatnonzero(labels)
        row = {
            "label": MACRO, "attribute": attribute, "group": group, "metric": metric,
            "n_labels": len(found), "interval": MACRO_INTERVAL,
            "n": int(counts.n[: cells.n_findings, own].max()), "n_positive": int(counts.n_positive[found, own].sum()),
            "n_patients": int(counts.n_patients[: cells.n_findings, own].max()),
            "n_class_patients": int(cells.class_patients(metric)[found, own].sum()),
            "n_effective": float(counts.n_effective[: cells.n_findings, own].max()),
        }  # fmt: skip
        row["is_small"] = row["n_patients"] < config.min_patients
        values = macro_values(cells, metric, labels, columns)
        low, high = macro_bounds(values, metric, config.confidence)
        row |= {"value": values[0, 0], "low": low[0], "high": high[0]}
        row |= dict.fromkeys(("difference", "difference_low", "difference_high"), np.nan)
        if len(columns) == 2:
            difference = values[0] - values[1]
            row["difference"] = difference[0]
            row["difference_low"], row["difference_high"] = t_interval(
                difference[0], spread(difference[1:]), config.confidence, df=np.inf
            )
        rows.append(row)
    return rows


def gaps_table(
    cells: Cells, groups: Groups, label_names: tuple[str, ...], metrics: tuple[str, ...], config: AuditConfig, *, seed: int
) -> pd.DataFrame:
    """One max-min gap per label (and macro, micro), attribute and metric, over the groups that are large enough.

    Returns:
        Columns `label, attribute, metric, known_as, n_labels, gap, low, high, noise_gap, corrected_gap, ratio, spread,
        corrected_spread, lowest_group, highest_group, n_groups, interval`. `known_as` is the field's name of the gap;
        `noise_gap` is what noise alone would give if the metric were equal; `ratio` is the lowest value over the highest;
        `spread` is the standard deviation over groups.
    """
    rows = []
    labels = (*label_names, MICRO)[: len(cells.counts.n)]
    for attribute in groups.attributes:
        rates: dict[str, dict[str, tuple]] = {}
        n_macro: dict[str, int] = {}
        for metric in metrics:
            names = compared_groups(cells, groups, attribute, metric, config)
            columns = [groups.index(attribute.name, g) for g in names]
            for label, label_name in enumerate(labels):
                common = {"label": label_name, "attribute": attribute.name, "metric": metric, "n_labels": 1}
                is_enough = len(columns) > 1 and (cells.class_patients(metric)[label, columns] >= MIN_CLASS_PATIENTS).all()
                values = cells.values[metric][label, columns] if is_enough else None
                errors = cells.standard_error(metric)[label, columns]

                def bounds(confidence, at=(label, columns), metric=metric):
                    return cell_bounds(cells, metric, confidence, where=at)

                rows.append(common | _gap_row(names, values, bounds, errors, config, seed, is_independent=attribute.constant))
                rates.setdefault(label_name, {})[metric] = (names, values, bounds, errors)
            chosen = macro_labels(cells, metric, columns) if columns else np.zeros(cells.n_findings, bool)
            values = macro_values(cells, metric, chosen, columns) if len(columns) > 1 and chosen.any() else None

            def bounds(confidence, values=values, metric=metric):
                return macro_bounds(values, metric, confidence)

            errors = None if values is None else spread(values[:, 1:])
            common = {"label": MACRO, "attribute": attribute.name, "metric": metric, "n_labels": int(chosen.sum())}
            rows.append(common | _gap_row(names, values, bounds, errors, config, seed, is_independent=attribute.constant))
            rates.setdefault(MACRO, {})[metric] = (names, values, bounds, errors)
            n_macro[metric] = int(chosen.sum())
        if {"TPR", "FPR"} <= set(metrics):
            counted = {MACRO: min(n_macro["TPR"], n_macro["FPR"])}
            for label_name, parts in rates.items():
                row = _equalized_odds_row(parts["TPR"], parts["FPR"], config, seed, is_independent=attribute.constant)
                common = {"label": label_name, "attribute": attribute.name, "metric": EQUALIZED_ODDS}
                rows.append(common | {"n_labels": counted.get(label_name, 1)} | row)
    empty = _gap_row((), None, None, None, config, seed, is_independent=True)
    table = pd.DataFrame(rows, columns=["label", "attribute", "metric", "n_labels", *empty])
    table.insert(3, "known_as", table["metric"].map(KNOWN_AS).fillna(""))
    is_underdiagnosis = (table["metric"] == "FPR") & table["label"].isin([NO_FINDING, DERIVED_NO_FINDING])
    table["known_as"] = table["known_as"].mask(is_underdiagnosis, "underdiagnosis gap")
    return table


def _gap_row(
    names: tuple[str, ...],
    values: np.ndarray | None,
    bounds: Callable | None,
    errors: np.ndarray | None,
    config: AuditConfig,
    seed: int,
    *,
    is_independent: bool,
) -> dict:
    """The gap of values `[k, R + 1]`; all NaN where it cannot be measured."""
    numbers = ("gap", "low", "high", "noise_gap", "corrected_gap", "ratio", "spread", "corrected_spread")
    row = {
        **dict.fromkeys(numbers, np.nan), "lowest_group": "", "highest_group": "", "n_groups": len(names),
        "interval": "max-T MOVER",
    }  # fmt: skip
    if values is None or np.isnan(values[:, 0]).any() or np.isnan(errors).any():
        return row
    estimate = values[:, 0]
    correlation = None if is_independent else correlation_of(values[:, 1:])
    row["gap"] = float(np.ptp(estimate))
    row["low"], row["high"] = max_t_gap_interval(
        estimate, bounds, errors, config.confidence, seed=seed, correlation=correlation
    )
    row["noise_gap"] = expected_noise_gap(errors, seed=seed, correlation=correlation)
    row["corrected_gap"] = noise_corrected_gap(row["gap"], row["noise_gap"])
    row["ratio"] = float(estimate.min() / estimate.max()) if estimate.min() >= 0 and estimate.max() > 0 else np.nan
    row["spread"], row["corrected_spread"] = float(estimate.std()), noise_corrected_spread(estimate, errors)
    row["lowest_group"], row["highest_group"] = names[int(estimate.argmin())], names[int(estimate.argmax())]
    return row


def _equalized_odds_row(tpr: tuple, fpr: tuple, config: AuditConfig, seed: int, *, is_independent: bool) -> dict:
    """The larger of the gaps of TPR and FPR, each at half the error for its lower end."""
    narrow = replace(config, confidence=(1 + config.confidence) / 2)
    sides = [_gap_row(*side, config, seed + i, is_independent=is_independent) for i, side in enumerate((tpr, fpr))]
    strict = [_gap_row(*side, narrow, seed + i, is_independent=is_independent) for i, side in enumerate((tpr, fpr))]
    if any(np.isnan(side["gap"]) for side in sides):
        return sides[0] | {"gap": np.nan, "low": np.nan, "high": np.nan, "noise_gap": np.nan, "corrected_gap": np.nan}
    larger = max(sides, key=lambda side: side["gap"])
    draws = [
        np.ptp(group_noise(side[3], seed + i, correlation=None if is_independent else correlation_of(side[1][:, 1:])), axis=1)
        for i, side in enumerate((tpr, fpr))
    ]
    noise = float(np.maximum(*draws).mean())
    return larger | {
        "low": max(side["low"] for side in strict), "high": max(side["high"] for side in sides), "noise_gap": noise,
        "corrected_gap": noise_corrected_gap(larger["gap"], noise), "ratio": np.nan, "spread": np.nan,
        "corrected_spread": np.nan,
        "interval": "max-T MOVER, the larger of TPR and FPR",
    }  # fmt: skip
