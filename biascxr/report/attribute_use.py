"""Recipes whose prediction uses what was recorded about the patient: how many decisions hang on it."""

from __future__ import annotations

import pandas as pd

from biascxr.report.inputs import ReportInputs
from biascxr.report.privacy import MIN_CELL

PARTS = {"scores": "through the score", "thresholds": "through the threshold", "all": "both"}


def attribute_use(inputs: ReportInputs) -> list[dict]:
    """Returns per recipe that uses attributes, attribute and value, the mean flip rate over findings.

    Rows about fewer than ten patients are hidden.
    """
    rows = []
    for recipe, table in inputs.flips.items():
        macro = table[table["label"] == "macro"]
        for (attribute, value), own in macro.groupby(["attribute", "value"], sort=False):
            parts = own.set_index("part")
            if parts["n_patients"].max() < MIN_CELL or pd.isna(parts.loc["all", "flip_rate"]):
                continue
            whole = parts.loc["all"]
            rows.append(
                {
                    "recipe": recipe,
                    "attribute": attribute,
                    "value": value,
                    "rates": {part: f"{parts.loc[part, 'flip_rate']:.1%}" for part in PARTS},
                    "to_positive": f"{whole['to_positive']:.1%}",
                    "to_negative": f"{whole['to_negative']:.1%}",
                }
            )
    return rows
