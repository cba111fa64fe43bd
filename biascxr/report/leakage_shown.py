"""What of the leakage tables may leave the hospital: no value about fewer than ten patients, and none by subtraction."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd

from biascxr.leakage import MACRO
from biascxr.leakage.result import FACT, LeakageResult
from biascxr.report.privacy import MIN_CELL, suppressed_cells

VALUES = ["auroc", "low", "high", "p_value"]


def shareable(result: LeakageResult) -> LeakageResult:
    """Returns the tables without what is about fewer than ten patients; doing it twice changes nothing more.

    Readings keep their rows, with values that are NaN: a table can then say why a cell is empty. Elsewhere the rows go. An
    attribute of which fewer than two groups have ten test patients loses everything: its macro value is the small group's.
    Where one group alone is hidden, its AUROC would follow from the macro value and the others', so the smallest other group
    is hidden too.

    Args:
        result: the tables as the stage left them.

    Returns:
        The tables that charts, words and pages are made from.
    """
    hidden = hidden_groups(result.readings)
    lost = lost_attributes(result.readings)

    def keep(table: pd.DataFrame) -> pd.Series:
        pairs = list(zip(table["attribute"], table["group"], strict=True))
        return pd.Series([pair not in hidden and pair[0] not in lost for pair in pairs], index=table.index, dtype=bool)

    def of_attribute(table: pd.DataFrame) -> pd.DataFrame:
        return table[~table["attribute"].isin(lost)].reset_index(drop=True)

    readings = result.readings.copy()
    is_fact = readings["control"].str.startswith(FACT)
    too_few = ((readings["group"] != MACRO) | is_fact) & (readings["n_group_patients"] < MIN_CELL)
    # Where one fact is all that is recorded, the facts together are that one.
    n_facts = readings["attribute"].map(readings[is_fact].groupby("attribute").size())
    told_by_one = readings["attribute"].isin(readings.loc[is_fact & too_few, "attribute"]) & (n_facts == 1)
    too_few |= told_by_one & (readings["control"] == "covariates")
    readings.loc[~keep(readings) | too_few | (readings["n_patients"] < MIN_CELL), VALUES] = np.nan
    roc = result.roc[keep(result.roc) & (result.roc["n_group_patients"] >= MIN_CELL)]
    confusion = result.confusion[keep(result.confusion) & (result.confusion["n_patients"] >= MIN_CELL)]
    others = result.modes["n"] - result.modes["n_patients"]  # of a finding: those without it
    modes = result.modes[(result.modes["n_patients"] >= MIN_CELL) & (others >= MIN_CELL)]
    panels = result.panels[result.panels["n_patients"] >= MIN_CELL]
    return replace(
        result,
        readings=readings,
        roc=roc.reset_index(drop=True),
        confusion=_without_small_cells(confusion).reset_index(drop=True),
        dependence=result.dependence[keep(result.dependence)].reset_index(drop=True),
        verdicts=_without_small_names(of_attribute(result.verdicts), hidden),
        curves=of_attribute(result.curves),
        modes=modes[_may_stay(modes, hidden, lost)].reset_index(drop=True),
        panels=panels[_may_stay(panels, hidden, lost)].reset_index(drop=True),
    )


def group_sizes(readings: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per attribute and group: test patients of the group and of all, and whether it has an AUROC at all."""
    own = readings[(readings["control"] == "none") & (readings["group"] != MACRO)]
    sizes = own.groupby(["attribute", "group"], sort=False).agg(
        n_group=("n_group_patients", "max"), n=("n_patients", "max"), n_defined=("auroc", "count")
    )
    return sizes.assign(is_defined=sizes["n_defined"] > 0).reset_index()


def hidden_groups(readings: pd.DataFrame) -> set[tuple[str, str]]:
    """Returns the pairs of attribute and group that nothing may be said about."""
    found = set()
    for attribute, own in group_sizes(readings).groupby("attribute", sort=False):
        small = (own["n_group"] < MIN_CELL) | (own["n"] - own["n_group"] < MIN_CELL)
        found |= {(attribute, group) for group in own.loc[small, "group"]}
        # A hidden group that the macro value does not hold cannot be worked out from it.
        if (small & own["is_defined"]).sum() == 1 and (~small).any():
            found.add((attribute, own.loc[own["n_group"].where(~small).idxmin(), "group"]))
    return found


def lost_attributes(readings: pd.DataFrame) -> set[str]:
    """Returns the attributes of which fewer than two groups have ten test patients."""
    sizes = group_sizes(readings)
    large = sizes[sizes["n_group"] >= MIN_CELL].groupby("attribute").size()
    return {a for a in sizes["attribute"].unique() if large.get(a, 0) < 2}


def _may_stay(table: pd.DataFrame, hidden: set[tuple[str, str]], lost: set[str]) -> np.ndarray:
    pairs = zip(table["kind"], table["by"], table["group"], strict=True)
    return np.array([kind != "attribute" or ((by, g) not in hidden and by not in lost) for kind, by, g in pairs], bool)


def _without_small_cells(confusion: pd.DataFrame) -> pd.DataFrame:
    """Blanks shares of fewer than ten patients; shares of a row add up to one, so one blank takes another with it.

    Patients are share x patients of the group: rows may be images, so this is about as many.
    """
    made = confusion.copy()
    for _, own in confusion.groupby(["representation", "attribute", "probe", "group"], sort=False):
        counts = (own["share"] * own["n_patients"]).round().fillna(1)  # hidden before: a small cell still
        counts = counts.mask((counts == 0) & (own["share"] > 0), 1).to_numpy(np.int64)
        cells = suppressed_cells(counts[None, :], has_column_totals=False)[0]
        made.loc[own.index[cells], "share"] = np.nan
    return made


def _without_small_names(verdicts: pd.DataFrame, hidden: set[tuple[str, str]]) -> pd.DataFrame:
    """Empties reasons that name a hidden group, and their figures: a verdict may rest on one group's reading."""
    names = {a: [g for b, g in hidden if b == a] for a in verdicts["attribute"].unique()}

    def is_named(name: str, reason: str) -> bool:
        return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", reason) is not None

    told = [
        "" if any(is_named(name, reason) for name in names[a]) else reason
        for a, reason in zip(verdicts["attribute"], verdicts["reason"].fillna(""), strict=True)
    ]
    made = verdicts.assign(reason=told)
    emptied = (made["reason"] == "") & (verdicts["reason"].fillna("") != "")
    made.loc[emptied, VALUES] = np.nan
    return made
