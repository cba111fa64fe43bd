"""Like with like: the metrics of groups that were reweighted to a common standard."""

from __future__ import annotations

import numpy as np
import pandas as pd

from biascxr.audit.adjust import Adjustment
from biascxr.audit.cells import measure_cells
from biascxr.audit.groups import OVERALL
from biascxr.audit.tables import metrics_table
from biascxr.config import AuditConfig
from biascxr.containers import Predictions

# Below these the reweighted group says too little to be shown as a number.
MIN_EFFECTIVE, MIN_EFFECTIVE_SHARE = 30, 0.2
TOO_THIN = f"effective n under {MIN_EFFECTIVE} or {MIN_EFFECTIVE_SHARE:.0%} of the rows: not shown"


def adjusted_table(
    predictions: Predictions, adjustment: Adjustment, metrics: tuple[str, ...], config: AuditConfig
) -> pd.DataFrame:
    """Metrics of reweighted groups, beside what the weights cost.

    Intervals take the weights as fixed where there is a closed form (which held best in simulation); resampled ones (macro)
    estimate them again in each resample. A group is not shown where its effective n is below `MIN_EFFECTIVE` or below
    `MIN_EFFECTIVE_SHARE` of its rows: it has too little in common with the others.

    Args:
        predictions: of one recipe.
        adjustment: the weights.
        metrics: the metrics.
        config: level, smallest group.

    Returns:
        The columns of `tables.metrics_table`, `adjusted_for`, `dropped_share` (rows in strata that lack a group) and `note`.
    """
    groups = adjustment.groups
    attributes = [g.attribute.name for at, g in enumerate(groups.groupings) if adjustment.adjusts(at)]
    cells = measure_cells(predictions, groups, adjustment.resamples, metrics, weight=adjustment.weight, adjustment=adjustment)
    table = metrics_table(cells, groups, predictions.label_names, metrics, config)
    table = table[table["attribute"].isin(attributes) & (table["attribute"] != OVERALL)].reset_index(drop=True)
    at_of = {g.attribute.name: i for i, g in enumerate(groups.groupings)}
    table["adjusted_for"] = [", ".join(adjustment.adjusts(at_of[a])) for a in table["attribute"]]
    dropped = {
        (name, label, groups.names[column][1]): share
        for name in attributes if name != OVERALL
        for label in range(len(predictions.label_names))
        for column, share in adjustment.dropped(label, at_of[name]).items()
    }  # fmt: skip
    at_label = {name: i for i, name in enumerate(predictions.label_names)}
    keys = zip(table["attribute"], table["label"].map(at_label), table["group"], strict=True)
    table["dropped_share"] = [dropped.get(key, np.nan) for key in keys]
    is_thin = (table["n_effective"] < MIN_EFFECTIVE) | (table["n_effective"] < MIN_EFFECTIVE_SHARE * table["n"])
    table.loc[is_thin, ["value", "low", "high", "difference", "difference_low", "difference_high"]] = np.nan
    table["note"] = np.where(is_thin, TOO_THIN, "")
    return table
