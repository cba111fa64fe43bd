"""The tables of one audit: metrics per group with intervals, differences from everyone else, gaps per attribute."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from biascxr.audit.cells import ALL, MACRO, METRICS, OVERALL, Cells, Groups
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.metrics import (
    expected_noise_gap,
    logit_t_interval,
    max_t_gap_interval,
    mover_difference,
    noise_corrected_gap,
    wilson_interval,
)

# A label enters a macro comparison only if every compared group has so many patients of the class that a metric rests on.
MIN_CLASS_PATIENTS = 5
INTERVALS = {"AUROC": "logit t, patients resampled", "rate": "Wilson at effective n, patients resampled"}


def compared_groups(cells: Cells, groups: Groups, attribute: Attribute, metric: str, config: AuditConfig) -> tuple[str, ...]:
    """Returns the groups that are large enough for their gap to be measured.

    A group takes part if it has `min_patients` patients, and enough patients of the needed class for at least half of the
    labels that can be measured on everyone. Otherwise one tiny group would leave no label on which all can be compared.
    """
    enough = cells.class_patients(metric) >= MIN_CLASS_PATIENTS
    needed = max(1.0, enough[:, groups.index(OVERALL, ALL)].sum() / 2)
    columns = {g: groups.index(attribute.name, g) for g in attribute.groups}
    return tuple(
        g for g, c in columns.items()
        if cells.n_patients[:, c].max() >= config.min_patients and enough[:, c].sum() >= needed
    )  # fmt: skip


def macro_labels(cells: Cells, metric: str, columns: list[int]) -> np.ndarray:
    """Returns `[L] bool`: labels on which the metric is defined, on enough patients, in every one of these groups."""
    defined = ~np.isnan(cells.values[metric][0][:, columns]).any(axis=1)
    return defined & (cells.class_patients(metric)[:, columns].min(axis=1) >= MIN_CLASS_PATIENTS)


def macro_values(cells: Cells, metric: str, labels: np.ndarray, columns: list[int]) -> np.ndarray:
    """Returns `[R + 1, len(columns)]`: the mean over these labels; a label undefined in a resample is left out of it."""
    chosen = cells.values[metric][:, labels][:, :, columns]
    defined = ~np.isnan(chosen)
    n = defined.sum(axis=1)
    return np.divide(np.where(defined, chosen, 0).sum(axis=1), n, out=np.full(n.shape, np.nan), where=n > 0)


def cell_bounds(cells: Cells, metric: str, label: int, column: int) -> Callable[[float], tuple[float, float]]:
    """Returns a function from a confidence level to the interval of one cell."""
    value = cells.values[metric][0, label, column]
    error = _spread(cells.values[metric][1:, label, column])
    df = int(cells.class_patients(metric)[label, column]) - 1
    if metric == "AUROC":
        return lambda confidence: logit_t_interval(value, error, confidence, df=df)
    n = cells.n_positive[label, column]
    n = n if metric in ("TPR", "FNR") else cells.n[label, column] - n
    return lambda confidence: wilson_interval(value, error, n, confidence, df=df)


def _spread(replicates: np.ndarray) -> float:
    defined = replicates[~np.isnan(replicates)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else float("nan")


def metrics_table(
    predictions: Predictions, cells: Cells, groups: Groups, attributes: tuple[Attribute, ...], config: AuditConfig
) -> pd.DataFrame:
    """One row per label (and macro), attribute, group and metric.

    Returns:
        Columns `label, attribute, group, metric, value, low, high, difference, difference_low, difference_high, n,
        n_positive, n_patients, n_class_patients, n_labels, is_small, interval`. `difference` is the group minus everyone
        else whose group is known.
    """
    rows = []
    for attribute, group in [(OVERALL, ALL), *((a.name, g) for a in attributes for g in a.groups)]:
        own = groups.index(attribute, group)
        others = None if attribute == OVERALL else groups.index(attribute, group, others=True)
        for metric in METRICS:
            for label, name in enumerate(predictions.label_names):
                rows.append({
                    "label": name, "attribute": attribute, "group": group, "metric": metric, "n_labels": 1,
                    **_cell_row(cells, metric, label, own, others, config),
                })  # fmt: skip
    for name, members in [(OVERALL, (ALL,)), *((a.name, a.groups) for a in attributes)]:
        rows += _macro_rows(cells, groups, name, members, config)
    return pd.DataFrame(rows)


def _cell_row(cells: Cells, metric: str, label: int, own: int, others: int | None, config: AuditConfig) -> dict:
    value = cells.values[metric][0, label, own]
    low, high = cell_bounds(cells, metric, label, own)(config.confidence)
    row = {
        "value": value,
        "low": low,
        "high": high,
        "difference": np.nan,
        "difference_low": np.nan,
        "difference_high": np.nan,
    }
    if others is not None:
        reference = cells.values[metric][0, label, others]
        bounds = cell_bounds(cells, metric, label, others)(config.confidence)
        row["difference"] = value - reference
        row["difference_low"], row["difference_high"] = mover_difference((value, low, high), (reference, *bounds))
    n_class = int(cells.class_patients(metric)[label, own])
    return row | {
        "n": int(cells.n[label, own]),
        "n_positive": int(cells.n_positive[label, own]),
        "n_patients": int(cells.n_patients[label, own]),
        "n_class_patients": n_class,
        "is_small": n_class < config.min_patients,
        "interval": INTERVALS["AUROC" if metric == "AUROC" else "rate"],
    }


def _macro_rows(cells: Cells, groups: Groups, attribute: str, members: tuple[str, ...], config: AuditConfig) -> list[dict]:
    rows = []
    for group in members:
        own = groups.index(attribute, group)
        columns = [own] if attribute == OVERALL else [own, groups.index(attribute, group, others=True)]
        for metric in METRICS:
            labels = macro_labels(cells, metric, columns)
            row = {
                "label": MACRO, "attribute": attribute, "group": group, "metric": metric,
                "n_labels": int(labels.sum()), "interval": "normal, patients resampled",
                "n": int(cells.n[:, own].max()), "n_positive": int(cells.n_positive[labels, own].sum()),
                "n_patients": int(cells.n_patients[:, own].max()),
                "n_class_patients": int(cells.class_patients(metric)[labels, own].sum()),
            }  # fmt: skip
            row["is_small"] = row["n_patients"] < config.min_patients
            values = macro_values(cells, metric, labels, columns)
            row["value"] = values[0, 0]
            row["low"], row["high"] = np.clip(normal_interval(values[:, 0], config.confidence), 0, 1)
            row["difference"] = row["difference_low"] = row["difference_high"] = np.nan
            if len(columns) == 2:
                difference = values[:, 0] - values[:, 1]
                row["difference"] = difference[0]
                row["difference_low"], row["difference_high"] = normal_interval(difference, config.confidence)
            rows.append(row)
    return rows


def gaps_table(
    predictions: Predictions,
    cells: Cells,
    groups: Groups,
    attributes: tuple[Attribute, ...],
    config: AuditConfig,
    *,
    seed: int,
) -> pd.DataFrame:
    """One max-min gap per label (and macro), attribute and metric, over the groups that are large enough.

    Returns:
        Columns `label, attribute, metric, gap, low, high, noise_gap, corrected_gap, lowest_group, highest_group,
        n_groups, n_labels, interval`. `noise_gap` is what noise alone would give if the metric were equal.
    """
    rows = []
    for attribute in attributes:
        for metric in METRICS:
            names = compared_groups(cells, groups, attribute, metric, config)
            columns = [groups.index(attribute.name, g) for g in names]
            for label, label_name in enumerate(predictions.label_names):
                bounds = [cell_bounds(cells, metric, label, c) for c in columns]
                values = cells.values[metric][:, label][:, columns]
                is_enough = len(columns) > 1 and (cells.class_patients(metric)[label, columns] >= MIN_CLASS_PATIENTS).all()
                common = {"label": label_name, "attribute": attribute.name, "metric": metric, "n_labels": 1}
                rows.append(common | _gap_row(names, values if is_enough else None, bounds, config, seed))
            labels = macro_labels(cells, metric, columns) if columns else np.zeros(len(predictions.label_names), bool)
            is_enough = len(columns) > 1 and labels.any()
            values = macro_values(cells, metric, labels, columns) if is_enough else None
            bounds = [partial(normal_interval, values[:, i]) for i in range(len(columns))] if is_enough else []
            common = {"label": MACRO, "attribute": attribute.name, "metric": metric, "n_labels": int(labels.sum())}
            rows.append(common | _gap_row(names, values, bounds, config, seed))
    columns = ["label", "attribute", "metric", "n_labels", *_gap_row((), None, [], config, seed)]
    return pd.DataFrame(rows, columns=columns)  # without attributes: no row, the same columns


def normal_interval(values: np.ndarray, confidence: float, df: float = np.inf) -> tuple[float, float]:
    """Returns estimate -+ quantile x standard error over the resamples, from `[R + 1]` with the estimate in front.

    Means over labels and paired differences are near normal, while their percentile intervals lean to one side when rare
    labels drop out of resamples. The quantile is Student's t for finite `df`.
    """
    reach = stats.t.ppf((1 + confidence) / 2, df) * _spread(values[1:]) if df >= 1 else np.nan
    return float(values[0] - reach), float(values[0] + reach)


def _gap_row(names: tuple[str, ...], values: np.ndarray | None, bounds: list, config: AuditConfig, seed: int) -> dict:
    """The gap of values `[R + 1, k]`; all NaN where it cannot be measured."""
    row = {
        "gap": np.nan, "low": np.nan, "high": np.nan, "noise_gap": np.nan, "corrected_gap": np.nan,
        "lowest_group": "", "highest_group": "", "n_groups": len(names), "interval": "max-T MOVER, patients resampled",
    }  # fmt: skip
    if values is None or np.isnan(values[0]).any():
        return row
    errors = np.array([_spread(values[1:, i]) for i in range(len(names))])

    def all_bounds(confidence: float) -> tuple[np.ndarray, np.ndarray]:
        pairs = np.array([b(confidence) for b in bounds])
        return pairs[:, 0], pairs[:, 1]

    row["gap"] = float(np.ptp(values[0]))
    row["low"], row["high"] = max_t_gap_interval(values[0], all_bounds, errors, config.confidence, seed=seed)
    row["noise_gap"] = expected_noise_gap(errors, seed=seed)
    row["corrected_gap"] = noise_corrected_gap(row["gap"], row["noise_gap"])
    row["lowest_group"], row["highest_group"] = names[int(values[0].argmin())], names[int(values[0].argmax())]
    return row
