"""How groups differ in age, view and label rates: a heat map of standardised differences, and the answer in a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns

from biascxr.cohort.shift import group_shift
from biascxr.containers import UNKNOWN, Cohort
from biascxr.report.privacy import MIN_CELL, suppressed_cells
from biascxr.report.style import INK, figure
from biascxr.report.summary import readable

LEVEL = 0.05
LARGE = 0.5  # colours end here: half a standard deviation


def shown_shift(cohort: Cohort, *, min_patients: int) -> pd.DataFrame:
    """Returns `group_shift` as the page may show it.

    Groups of fewer than `min_patients`, and of fewer than ten, are set aside before anything is computed: their differences
    are noise, and "everyone else" must not hold what is hidden. Where a group has one to nine patients with a positive image,
    or a negative one, its value and difference are NaN, and so are those of a second group, from which they could be worked
    out.
    """
    table, attributes = cohort.table.copy(), []
    enough = max(min_patients, MIN_CELL)
    for attribute in cohort.attributes:
        n_patients = table.groupby(attribute.name)["patient_id"].nunique()
        kept = tuple(g for g in attribute.groups if n_patients.get(g, 0) >= enough)
        table[attribute.name] = table[attribute.name].where(table[attribute.name].isin(kept), UNKNOWN)
        attributes += [replace(attribute, groups=kept)] if len(kept) > 1 else []
    shift = group_shift(replace(cohort, table=table, attributes=tuple(attributes)), min_patients=enough)
    behind = np.where(shift["n_positive_patients"].between(1, MIN_CELL - 1), shift["n_positive_patients"], shift["n_patients"])
    behind = np.where(shift["n_negative_patients"].between(1, MIN_CELL - 1), shift["n_negative_patients"], behind)
    hidden = np.zeros(len(shift), bool)
    for _, rows in shift.groupby(["attribute", "variable"]).indices.items():
        hidden[rows] = suppressed_cells(behind[rows].astype(int)[None], has_column_totals=False)[0]
    shift.loc[hidden, ["value", "smd"]] = np.nan
    return shift


def plot_shift(shift: pd.DataFrame, folder: Path) -> Path | None:
    """Draws `demographics/shift.png`: per attribute a heat map of standardised differences from everyone else.

    Args:
        shift: from `shown_shift`. A variable whose test gives an adjusted p under .05 is in bold and has a star.
        folder: the report's folder.
    """
    if shift["smd"].notna().sum() == 0:
        return None
    variables = list(shift["variable"].unique())
    panels = [(name, own) for name, own in shift.groupby("attribute", sort=False)]
    tables = [_wide(own).reindex(variables) for _, own in panels]
    path = folder / "demographics" / "shift.png"
    widths = [t.shape[1] + 0.6 for t in tables]
    size = (2.6 + 0.66 * sum(widths), 1.6 + 0.27 * len(variables))
    with figure(path, columns=len(panels), size=size, width_ratios=widths, squeeze=False) as (_, axes):
        for axis, (name, own), table in zip(axes[0], panels, tables, strict=True):
            sns.heatmap(
                table, ax=axis, cmap="RdBu_r", vmin=-LARGE, vmax=LARGE, cbar=False, annot=True, fmt="+.2f",
                annot_kws={"fontsize": 7}, linewidths=0.6, linecolor="white", yticklabels=axis is axes[0, 0],
            )  # fmt: skip
            axis.set(title=name.replace("_", " "), xlabel="", ylabel="", facecolor="#f1f3f5")
            axis.tick_params(length=0, labelsize=8)
            axis.set_xticks(axis.get_xticks(), axis.get_xticklabels(), rotation=35, ha="right")
            _mark(axis, [v in _differing(own) for v in variables], table)
    return path


def _wide(own: pd.DataFrame) -> pd.DataFrame:
    groups = list(own["group"].unique())
    # Adding 0 after rounding turns -0.00 into +0.00.
    return own.pivot(index="variable", columns="group", values="smd").reindex(columns=groups).round(2) + 0.0


def _differing(own: pd.DataFrame) -> set[str]:
    return set(own["variable"][own["p_adjusted"] < LEVEL])


def _mark(axis, differs: list[bool], table: pd.DataFrame) -> None:
    """Puts a star beside the rows that differ and their numbers in bold."""
    for text in axis.texts:
        is_so = differs[int(text.get_position()[1])]
        is_dark = abs(table.iloc[int(text.get_position()[1]), int(text.get_position()[0])]) > 0.7 * LARGE
        text.set(fontweight="bold" if is_so else "normal", color="white" if is_dark else INK)
    for row, is_so in enumerate(differs):
        if is_so:
            axis.text(table.shape[1] + 0.08, row + 0.5, "★", va="center", fontsize=8, color=INK)


def shift_sentences(shift: pd.DataFrame) -> list[str]:
    """Returns per attribute what differs between its groups, largest standardised differences first."""
    sentences = []
    for name, own in shift.groupby("attribute", sort=False):
        tests = own.drop_duplicates("variable")
        n_tests, differing = int(tests["p_adjusted"].notna().sum()), _differing(own)
        if n_tests == 0:
            sentences.append(f"By {readable(name)}, no two groups have enough patients to be compared.")
            continue
        if not differing:
            sentences.append(
                f"By {readable(name)}, none of {n_tests} comparisons differs beyond chance; that is not proof of likeness."
            )
            continue
        found = own[own["variable"].isin(differing)].dropna(subset=["smd"])
        largest = found.loc[found["smd"].abs().sort_values(ascending=False, kind="stable").index].drop_duplicates("variable")
        parts = [f"{r.variable} ({r.group} {r.smd:+.2f}, {_value(r)})" for r in largest.head(3).itertuples()]
        sentences.append(
            f"By {readable(name)}, {len(differing)} of {n_tests} comparisons differ beyond chance"
            + (f", most of all {', '.join(parts)}." if parts else ".")
        )
    return sentences


def _value(row) -> str:
    return f"mean {row.value:.0f} years" if row.unit == "patients" else f"{100 * row.value:.0f}% of images"
