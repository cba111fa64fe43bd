"""Each set of predictions against the first: paired differences on the same patients and the same resamples."""

from __future__ import annotations

import numpy as np
import pandas as pd

from biascxr.audit.cells import MACRO, Cells, spread
from biascxr.audit.groups import ALL, OVERALL, Groups
from biascxr.audit.tables import EQUALIZED_ODDS, compared_groups, macro_values, measurable_labels
from biascxr.audit.verdicts import Changes, levelling
from biascxr.config import AuditConfig
from biascxr.metrics.base import METRICS
from biascxr.metrics.fairness import fate
from biascxr.metrics.gaps import gap_change
from biascxr.metrics.intervals import t_interval, t_p_value

GAP = "gap"
COLUMNS = (
    "label", "attribute", "group", "metric", "before", "after", "change", "low", "high", "p_value", "fate", "levelling",
    "n_patients", "interval",
)  # fmt: skip


def comparison_table(
    before: Cells,
    after: Cells,
    groups: Groups,
    label_names: tuple[str, ...],
    metrics: tuple[str, ...],
    config: AuditConfig,
    *,
    gap_lows: pd.Series | None = None,
) -> pd.DataFrame:
    """Changes from one set of predictions to another on the same patients.

    Args:
        before: cells of the baseline.
        after: cells of the other, from the same resamples.
        groups: the groups.
        label_names: the findings.
        metrics: the metrics compared.
        config: level of the intervals, smallest group compared.
        gap_lows: lower ends of the baseline's gaps by label, attribute and metric: FATE is undefined where a gap is not off 0.

    Returns:
        Columns `label, attribute, group, metric, before, after, change, low, high, p_value, fate, levelling, n_patients,
        interval`. Group `"gap"` is the max-min gap of the attribute; its metric `"equalized_odds"` is the larger of the
        gaps of TPR and FPR. A macro change is over the findings defined in every compared group. `levelling` says, beside a
        gap of AUROC or TPR, who paid for its change (see `verdicts.levelling`).
    """
    rows: list[dict] = []
    kept: dict[tuple[str, str, str], Changes] = {}
    for attribute in (None, *groups.attributes):
        name = OVERALL if attribute is None else attribute.name
        for metric in metrics:
            if METRICS[metric].of_group:
                continue
            names = (ALL,) if attribute is None else compared_groups(before, groups, attribute, metric, config)
            columns = [groups.index(name, g) for g in names]
            if not columns:
                continue
            enough = measurable_labels(before, metric, columns) & measurable_labels(after, metric, columns)
            chosen = enough[: before.n_findings]
            for label in (*label_names, MACRO):
                if label == MACRO:
                    a, b = (macro_values(cells, metric, chosen, columns) for cells in (before, after))
                    df, is_enough = np.full(len(columns), np.inf), bool(chosen.any())
                    of_units = np.flatnonzero(chosen)
                else:
                    at = label_names.index(label)
                    a, b = (cells.values[metric][at, columns] for cells in (before, after))
                    # As in the table of gaps: a finding with a handful of patients of the class in a group has no gap.
                    df, is_enough = before.class_patients(metric)[at, columns] - 1, bool(enough[at])
                    of_units = np.array([at])
                common = {"label": label, "attribute": name, "metric": metric}
                error = spread(b[:, 1:] - a[:, 1:])
                gap_df = np.inf
                if before.runs is not None and len(of_units):
                    error, df = with_run_noise(before, after, metric, of_units, columns, error, df)
                    a, b = (with_noisy_resamples(cells, metric, of_units, columns, v) for cells, v in ((before, a), (after, b)))
                    gap_df = float(np.min(df))
                n_patients = before.counts.n_patients[:, columns].max(axis=0)
                rows += _change_rows(common, names, a, b, error, df, n_patients, config)
                if attribute is not None and len(columns) > 1:
                    if is_enough:
                        kept[label, name, metric] = Changes(names, a, b, df, gap_df)
                    low = np.nan if gap_lows is None else gap_lows.get((label, name, metric), np.nan)
                    rows.append(common | _gap_row(a, b, config, is_enough=is_enough, gap_low=low, df=gap_df))
    rows += _equalized_odds_rows(kept, config)
    overall = {row["label"]: row for row in rows if row["attribute"] == OVERALL and row["metric"] == "AUROC"}
    for row in rows:
        gap_low = row.pop("baseline_gap_low", np.nan)
        if row["label"] in overall:
            whole = overall[row["label"]]
            row["fate"] = fate(whole["before"], whole["after"], row["before"], row["after"], gap_before_low=gap_low)
        key = (row["label"], row["attribute"])
        if row["group"] == GAP and (*key, row["metric"]) in kept and row["metric"] in ("AUROC", "TPR"):
            rates, ranks = kept.get((*key, "FPR")), kept.get((*key, "AUROC"))
            row["levelling"] = levelling(kept[(*key, row["metric"])], row["metric"], fpr=rates, auroc=ranks, config=config)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def with_run_noise(
    before: Cells, after: Cells, metric: str, labels: np.ndarray, columns: list[int], error: np.ndarray, df: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Adds the chance of other training runs to a change's standard error.

    `V = V_patients + V_runs` with `V_runs = factor x variance over units of their changes`, and Welch and Satterthwaite's
    degrees of freedom, `V² / (V_patients² / df + V_runs² / (U - 1))`: a handful of runs has a handful of them, to the extent
    that the chance is theirs.

    Args:
        before: cells that are means over training runs.
        after: likewise, of the same seeds and folds.
        metric: of which metric.
        labels: the labels averaged over.
        columns: the k groups.
        error: `[k]`, standard error over patients.
        df: `[k]`, its degrees of freedom.

    Returns:
        Standard error and degrees of freedom, `[k]` each.
    """
    changes = unit_values(after, metric, labels, columns) - unit_values(before, metric, labels, columns)
    n_units = len(changes)
    of_runs = before.runs.factor * changes.var(axis=0, ddof=1) if n_units > 1 else np.zeros(len(columns))
    of_patients = error**2
    total = of_patients + of_runs
    with np.errstate(invalid="ignore", divide="ignore"):
        joint = total**2 / (of_patients**2 / df + (of_runs**2 / (n_units - 1) if n_units > 1 else 0.0))
    return np.sqrt(total), np.where(total > 0, np.maximum(joint, 1.0), df)


def with_noisy_resamples(cells: Cells, metric: str, labels: np.ndarray, columns: list[int], values: np.ndarray) -> np.ndarray:
    """Returns values `[k, R + 1]` with the noise of other training runs in their resamples."""
    return cells.runs.add_to(values, unit_values(cells, metric, labels, columns))


def unit_values(cells: Cells, metric: str, labels: np.ndarray, columns: list[int]) -> np.ndarray:
    """Returns `[U, k]`: each unit's mean over labels."""
    return cells.runs.units[metric][:, labels][:, :, columns].mean(axis=1)


def _change_rows(common, groups, before, after, error, df, n_patients, config: AuditConfig) -> list[dict]:
    """One row per group, from values `[k, R + 1]` and the standard errors of their changes."""
    change = after[:, 0] - before[:, 0]
    low, high = t_interval(change, error, config.confidence, df=df)
    p = t_p_value(change, error, df=df)
    return [
        common
        | {
            "group": group, "before": before[i, 0], "after": after[i, 0], "change": change[i], "low": low[i],
            "high": high[i], "p_value": p[i], "fate": np.nan, "levelling": "", "n_patients": int(n_patients[i]),
            "interval": "t, patients resampled, paired",
        }
        for i, group in enumerate(groups)
    ]  # fmt: skip


def _gap_row(before, after, config: AuditConfig, *, is_enough: bool, gap_low: float, df: float = np.inf) -> dict:
    gaps = [float(np.ptp(v[:, 0])) if is_enough and not np.isnan(v[:, 0]).any() else np.nan for v in (before, after)]
    row = {
        "group": GAP, "before": gaps[0], "after": gaps[1], "change": gaps[1] - gaps[0], "low": np.nan, "high": np.nan,
        "p_value": np.nan, "fate": np.nan, "levelling": "", "n_patients": 0,
        "interval": "max-min projection, patients resampled, paired",
    }  # fmt: skip
    if not np.isnan(gaps).any():
        found = gap_change(before[:, 0], after[:, 0], before[:, 1:], after[:, 1:], config.confidence, df=df)
        row |= {"low": found.low, "high": found.high, "p_value": found.p_value}
    row["baseline_gap_low"] = gap_low
    return row


def _equalized_odds_rows(kept: dict[tuple[str, str, str], Changes], config: AuditConfig) -> list[dict]:
    """The larger of the gaps of TPR and FPR, and its change: FairREAD's equalized odds difference."""
    rows = []
    for (label, attribute, metric), of_tpr in kept.items():
        of_fpr = kept.get((label, attribute, "FPR"))
        if metric != "TPR" or of_fpr is None:
            continue
        before, after = (
            np.maximum(np.ptp(getattr(of_tpr, side)[:, 0]), np.ptp(getattr(of_fpr, side)[:, 0])) for side in ("before", "after")
        )
        # The larger of two gaps is the largest contrast of either metric: the same projection, over both sets of pairs.
        found = gap_change(
            (of_tpr.before[:, 0], of_fpr.before[:, 0]), (of_tpr.after[:, 0], of_fpr.after[:, 0]),
            (of_tpr.before[:, 1:], of_fpr.before[:, 1:]), (of_tpr.after[:, 1:], of_fpr.after[:, 1:]), config.confidence,
            df=min(of_tpr.gap_df, of_fpr.gap_df),
        )  # fmt: skip
        rows.append({
            "label": label, "attribute": attribute, "group": GAP, "metric": EQUALIZED_ODDS, "before": before, "after": after,
            "change": after - before, "low": found.low, "high": found.high, "p_value": found.p_value, "fate": np.nan,
            "levelling": "", "n_patients": 0, "interval": "max-min projection, patients resampled, paired",
        })  # fmt: skip
    return rows
