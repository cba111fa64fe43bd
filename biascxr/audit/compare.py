"""Each recipe against `erm`: paired differences on the same patients and the same resamples."""

from __future__ import annotations

import numpy as np
import pandas as pd

from biascxr.audit.cells import ALL, MACRO, OVERALL, Cells, Groups
from biascxr.audit.tables import compared_groups, macro_labels, macro_values, normal_interval
from biascxr.config import AuditConfig
from biascxr.containers import Attribute
from biascxr.metrics import gap_change_interval

GAP = "gap"
COMPARED_METRICS = ("AUROC", "TPR", "FPR")
BETTER, WORSE, OPEN = "better", "worse", "not enough evidence"


def verdict(low: float, high: float, *, lower_is_better: bool) -> str:
    """Reads an interval of a change: better, worse, or not enough evidence when it holds 0 or is undefined."""
    if low > 0:
        return WORSE if lower_is_better else BETTER
    if high < 0:
        return BETTER if lower_is_better else WORSE
    return OPEN


def comparison_table(
    before: Cells,
    after: Cells,
    groups: Groups,
    attributes: tuple[Attribute, ...],
    label_names: tuple[str, ...],
    config: AuditConfig,
) -> pd.DataFrame:
    """Changes from one set of predictions to another on the same patients.

    Args:
        before: cells of the baseline.
        after: cells of the recipe, from the same resamples.
        groups: the groups.
        attributes: the attributes compared.
        label_names: the L findings.
        config: level of the intervals, smallest group compared.

    Returns:
        Columns `label, attribute, group, metric, before, after, change, low, high, verdict, interval`. Group `"gap"` is the
        max-min gap of the attribute. A macro change is over the labels defined in every compared group.
    """
    rows = []
    for metric in COMPARED_METRICS:
        for attribute, names in [
            (OVERALL, (ALL,)),
            *((a.name, compared_groups(before, groups, a, metric, config)) for a in attributes),
        ]:
            columns = [groups.index(attribute, g) for g in names]
            if not columns:
                continue
            chosen = macro_labels(before, metric, columns) & macro_labels(after, metric, columns)
            for label in (*label_names, MACRO):
                if label == MACRO:
                    a, b = (macro_values(cells, metric, chosen, columns) for cells in (before, after))
                    df = np.full(len(columns), np.inf)
                else:
                    index = label_names.index(label)
                    a, b = (cells.values[metric][:, index][:, columns] for cells in (before, after))
                    df = before.class_patients(metric)[index, columns] - 1
                common = {"label": label, "attribute": attribute, "metric": metric}
                rows += [common | _change_row(g, a[:, i], b[:, i], df[i], metric, config) for i, g in enumerate(names)]
                if attribute != OVERALL and len(columns) > 1:
                    # As in the table of gaps: a finding with a handful of patients of the class in a group has no gap.
                    is_enough = chosen.any() if label == MACRO else chosen[index]
                    rows.append(common | _gap_change_row(a, b, config, is_enough=is_enough))
    return pd.DataFrame(rows)


def _change_row(group: str, before: np.ndarray, after: np.ndarray, df: float, metric: str, config: AuditConfig) -> dict:
    low, high = normal_interval(after - before, config.confidence, df)
    return {
        "group": group, "before": before[0], "after": after[0], "change": after[0] - before[0], "low": low, "high": high,
        "verdict": verdict(low, high, lower_is_better=metric == "FPR"), "interval": "t, patients resampled, paired",
    }  # fmt: skip


def _gap_change_row(before: np.ndarray, after: np.ndarray, config: AuditConfig, *, is_enough: bool) -> dict:
    gaps = [float(np.ptp(v[0])) if is_enough and not np.isnan(v[0]).any() else np.nan for v in (before, after)]
    low = high = np.nan
    if not np.isnan(gaps).any():
        low, high = gap_change_interval(before[0], after[0], before[1:], after[1:], config.confidence)
    return {
        "group": GAP, "before": gaps[0], "after": gaps[1], "change": gaps[1] - gaps[0], "low": low, "high": high,
        "verdict": verdict(low, high, lower_is_better=True), "interval": "max-min projection, patients resampled, paired",
    }  # fmt: skip
