"""Audit stage: predictions of several recipes on the same patients -> tidy tables."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from biascxr.audit.cells import find_groups, measure_cells
from biascxr.audit.compare import comparison_table
from biascxr.audit.tables import gaps_table, metrics_table
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.errors import InputError, unknown_name
from biascxr.metrics import patient_weights

logger = logging.getLogger("biascxr")

TABLES = ("metrics", "gaps", "comparisons")


@dataclass(frozen=True)
class AuditResult:
    """Tidy tables, one row per recipe, label, attribute, group and metric.

    Attributes:
        metrics: value, interval, signed difference from everyone else (see `tables.metrics_table`).
        gaps: max-min gap per attribute, with interval and the gap expected from noise (see `tables.gaps_table`).
        comparisons: each recipe against the first one, paired (see `compare.comparison_table`).
    """

    metrics: pd.DataFrame
    gaps: pd.DataFrame
    comparisons: pd.DataFrame

    def save(self, folder: Path) -> None:
        """Writes one CSV per table."""
        for name in TABLES:
            getattr(self, name).to_csv(folder / f"{name}.csv", index=False)

    @classmethod
    def load(cls, folder: Path) -> AuditResult:
        """Reads what `save` wrote."""
        text = {"label": str, "group": str, "attribute": str, "lowest_group": str, "highest_group": str}
        frames = {name: pd.read_csv(folder / f"{name}.csv", dtype=text) for name in TABLES}
        return cls(**frames)


def choose_attributes(available: tuple[Attribute, ...], wanted: tuple[str, ...]) -> tuple[Attribute, ...]:
    """Restricts the attributes to those asked for.

    Raises:
        InputError: one that the cohort does not have, or has with one known group only.
    """
    by_name = {a.name: a for a in available}
    for name in wanted:
        if name not in by_name:
            raise unknown_name("attribute in --attributes (the cohort has no two known groups of it)", name, by_name)
    return tuple(by_name[name] for name in wanted) if wanted else available


def audit(predictions: list[Predictions], config: AuditConfig, *, seed: int) -> AuditResult:
    """Audits sets of predictions on the same images; the first one is the baseline of the comparisons.

    Args:
        predictions: one per recipe, test rows only, with decisions.
        config: attributes, replicates, level, smallest group.
        seed: seed of the resamples, which all recipes share.

    Raises:
        InputError: no rows, no decisions, or the recipes are not about the same images in the same order, with the same
            labels.
    """
    if not predictions:
        raise InputError("There are no predictions to audit.")
    first = predictions[0]
    if len(first.table) == 0:
        raise InputError("There is no row to audit.")
    for other in predictions[1:]:
        if not first.table["image_id"].equals(other.table["image_id"]):
            raise InputError("Predictions of different images, or in another order, cannot be compared.")
        if first.label_names != other.label_names or not np.array_equal(first.y_true, other.y_true, equal_nan=True):
            raise InputError("Predictions with different findings or labels (y_true) cannot be compared.")
    for current in predictions:
        if current.decisions is None:
            raise InputError(
                f"The predictions of {current.table['recipe'].iloc[0]!r} have no decisions, which TPR and FPR are counted "
                "from: give decision_<label> columns in {0, 1}."
            )
    attributes = choose_attributes(first.attributes, config.attributes)
    groups = find_groups(first, attributes)
    weights = patient_weights(first.table["patient_id"].to_numpy(object).astype(str), config.n_replicates, seed=seed)
    collected: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    baseline = None
    for current in tqdm(predictions, desc="audit", unit="recipe"):
        name = str(current.table["recipe"].iloc[0])
        cells = measure_cells(current, groups, weights)
        made = {
            "metrics": metrics_table(current, cells, groups, attributes, config),
            "gaps": gaps_table(current, cells, groups, attributes, config, seed=seed),
        }
        if baseline is None:
            baseline = cells
        else:
            made["comparisons"] = comparison_table(baseline, cells, groups, attributes, current.label_names, config)
        for key, table in made.items():
            table.insert(0, "recipe", name)
            collected[key].append(table)
    columns = ["recipe", "label", "attribute", "group", "metric", "before", "after", "change", "low", "high", "verdict"]
    tables = {
        key: pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*columns, "interval"])
        for key, parts in collected.items()
    }
    _log_undefined(tables["metrics"])
    return AuditResult(**tables)


def _log_undefined(metrics: pd.DataFrame) -> None:
    n = int(np.isnan(metrics["value"]).sum())
    if n:
        logger.info("audit: %d of %d cells are undefined (one class only) and stay NaN", n, len(metrics))
