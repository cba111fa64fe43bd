"""What the leakage stage hands on: tidy tables, one row per value; written as CSV, one file each."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd

CONTROLS = ("none", "shuffled", "covariates", "reweighted")  # and within_<what>, for every stratum there is
FACT = "fact:"  # then a recorded fact: a control that reads it alone
VERDICTS = ("not detected", "encoded, no dependence found", "encoded, predictions depend on it", "inconclusive")
COLUMNS = {
    "readings": (
        "representation", "attribute", "probe", "control", "group", "auroc", "low", "high", "p_value", "n", "n_group",
        "n_patients", "n_group_patients", "setting", "validation_auroc",
    ),
    "roc": ("representation", "attribute", "probe", "group", "fpr", "tpr", "n", "n_group_patients"),
    "confusion": ("representation", "attribute", "probe", "group", "read_as", "share", "n", "n_patients"),
    "dependence": (
        "recipe", "attribute", "evidence", "measure", "label", "group", "value", "low", "high", "control_low", "control_high",
        "p_value", "margin", "n",
    ),
    "verdicts": (
        "recipe", "attribute", "verdict", "probe", "auroc", "low", "high", "p_value", "margin", "evidence", "reason",
    ),
    "curves": (
        "attribute", "probe", "kind", "amount", "unit", "block", "auroc", "low", "high", "n_train_patients",
    ),
    "modes": ("kind", "by", "group", "mode", "explained", "ks", "p_value", "p_adjusted", "n", "n_patients"),
    "panels": ("method", "kind", "by", "group", "x", "y", "width_x", "width_y", "n_patients"),
}  # fmt: skip
TEXT = {
    "representation", "attribute", "probe", "control", "group", "setting", "read_as", "recipe", "evidence", "measure", "label",
    "verdict", "reason", "kind", "unit", "block", "by", "method",
}  # fmt: skip


@dataclass(frozen=True)
class LeakageResult:
    """Tables of the leakage stage; a part that was not asked for has no rows. Intervals: the patient is the unit.

    Attributes:
        readings: AUROC of every probe, attribute and group, and of its controls (column `control`).
        roc: ROC curves on a fixed grid.
        confusion: what rows of each recorded group were read as.
        dependence: evidence that predictions depend on the attribute, or do not.
        verdicts: one per recipe and attribute, with its reason in a sentence.
        curves: AUROC against training patients, components, blocks of the encoder, or what was done to the films.
        modes: Kolmogorov-Smirnov tests on the leading principal components.
        panels: counts of patients on a grid over two components.
    """

    readings: pd.DataFrame
    roc: pd.DataFrame
    confusion: pd.DataFrame
    dependence: pd.DataFrame
    verdicts: pd.DataFrame
    curves: pd.DataFrame
    modes: pd.DataFrame
    panels: pd.DataFrame

    def __post_init__(self) -> None:
        for name, columns in COLUMNS.items():
            missing = [c for c in columns if c not in getattr(self, name)]
            if missing:
                raise ValueError(f"LeakageResult.{name} needs the columns {', '.join(missing)}.")

    @classmethod
    def of(cls, **rows: list[dict]) -> LeakageResult:
        """Makes the tables from lists of rows; tables without rows have their columns."""
        return cls(**{name: pd.DataFrame(rows.get(name, []), columns=list(COLUMNS[name])) for name in COLUMNS})

    def with_dependence(self, table: pd.DataFrame) -> LeakageResult:
        """Returns the result with these rows of `dependence.csv`."""
        return replace(self, dependence=table)

    def save(self, folder: Path) -> None:
        """Writes one CSV a table."""
        for field in fields(self):
            getattr(self, field.name).to_csv(folder / f"{field.name}.csv", index=False)

    @classmethod
    def load(cls, folder: Path) -> LeakageResult:
        """Reads what `save` wrote; a group may be called "NA"."""
        tables = {}
        for name, columns in COLUMNS.items():
            numbers = {c: [""] for c in columns if c not in TEXT}
            text = {c: str for c in columns if c in TEXT}
            tables[name] = pd.read_csv(folder / f"{name}.csv", dtype=text, keep_default_na=False, na_values=numbers)
        return cls(**tables)
