"""Figures of an external evaluation: at home and elsewhere, as pairs of points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from biascxr.audit import MACRO, OVERALL
from biascxr.audit.external import DIFFERENCE, VALUE
from biascxr.report.privacy import MIN_CELL
from biascxr.report.style import ACCENT, INK, PALETTE, QUIET, figure, recipe_colours

SHOWN = ("AUROC", "TPR", "FPR")
OFFSET = 0.13  # of the two points of a row, so that their intervals do not lie on each other


def plot_recipes(table: pd.DataFrame, folder: Path) -> Path | None:
    """Draws `external_recipes.png`: macro AUROC, TPR and FPR of every recipe, at home (open) and elsewhere (filled)."""
    keep = (table["label"] == MACRO) & (table["attribute"] == OVERALL) & (table["quantity"] == VALUE)
    own = table[keep & table["metric"].isin(SHOWN)].dropna(subset=["value_in", "value_out"])
    shown = [m for m in SHOWN if m in set(own["metric"])]
    if not shown:
        return None
    recipes = list(own["recipe"].unique())
    colours = recipe_colours(recipes)
    path = folder / "external_recipes.png"
    size = (2.9 * len(shown) + 1.2, 1.5 + 0.46 * len(recipes))
    with figure(path, columns=len(shown), size=size, squeeze=False, sharey=True) as (made, axes):
        for axis, metric in zip(axes[0], shown, strict=True):
            rows = own[own["metric"] == metric].set_index("recipe").reindex(recipes)
            for y, recipe in enumerate(recipes):
                _pair(axis, rows.loc[recipe], y, colours[recipe])
            axis.set_yticks(range(len(recipes)), recipes)
            axis.set_ylim(len(recipes) - 0.5, -0.5)
            axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.set_title(f"macro {metric}")
            axis.set_xlabel("left is better" if metric == "FPR" else "right is better")
        _legend(made)
    return path


def plot_group_differences(table: pd.DataFrame, recipe: str, folder: Path) -> Path | None:
    """Draws `external_differences.png`: each group minus everyone else, at home (open) and elsewhere (filled), one recipe.

    A group of fewer than ten patients on either side is left out.
    """
    keep = (table["recipe"] == recipe) & (table["label"] == MACRO) & (table["quantity"] == DIFFERENCE)
    own = table[keep & table["metric"].isin(SHOWN) & (table[["n_patients_in", "n_patients_out"]].min(axis=1) >= MIN_CELL)]
    own = own.dropna(subset=["value_in", "value_out"])
    shown = [m for m in SHOWN if m in set(own["metric"])]
    order = own[["attribute", "group"]].drop_duplicates()
    attributes = list(order["attribute"].unique())
    if not attributes:
        return None
    heights = [max(2, int((order["attribute"] == a).sum())) for a in attributes]
    path = folder / "external_differences.png"
    options = {"height_ratios": heights, "squeeze": False, "sharex": "col", "sharey": "row"}
    size = (2.9 * len(shown) + 1.2, 1.4 + 0.42 * sum(heights))
    with figure(path, rows=len(attributes), columns=len(shown), size=size, **options) as (made, axes):
        for i, attribute in enumerate(attributes):
            groups = list(order.loc[order["attribute"] == attribute, "group"])
            for j, metric in enumerate(shown):
                axis = axes[i, j]
                rows = own[(own["attribute"] == attribute) & (own["metric"] == metric)].set_index("group").reindex(groups)
                for y, group in enumerate(groups):
                    row = rows.loc[group]
                    _pair(axis, row, y, ACCENT if row["change_low"] > 0 or row["change_high"] < 0 else PALETTE[0])
                axis.axvline(0, color=INK, lw=0.8)
                axis.set_yticks(range(len(groups)), groups)
                axis.set_ylim(len(groups) - 0.5, -0.5)
                axis.xaxis.set_major_locator(MaxNLocator(4))
                if i == 0:
                    axis.set_title(f"macro {metric}")
                if i == len(attributes) - 1:
                    axis.set_xlabel("group minus everyone else")
            axes[i, 0].set_ylabel(attribute.replace("_", " "), fontweight="bold")
        _legend(made)
    return path


def _pair(axis, row: pd.Series, y: float, colour: str) -> None:
    """Draws one row: the point at home above, the one elsewhere below, their intervals, and the way from one to the other."""
    inside, outside = y - OFFSET, y + OFFSET
    axis.plot([row["value_in"], row["value_out"]], [inside, outside], color=colour, lw=0.9, alpha=0.5)
    axis.hlines(inside, row["low_in"], row["high_in"], color=QUIET, lw=1.2)
    axis.hlines(outside, row["low_out"], row["high_out"], color=colour, lw=1.6)
    if np.isfinite(row["value_in"]):
        axis.plot(row["value_in"], inside, "o", ms=5, mfc="white", mec=colour, mew=1.3, zorder=3)
    if np.isfinite(row["value_out"]):
        axis.plot(row["value_out"], outside, "o", ms=5.5, color=colour, zorder=3)


def _legend(made) -> None:
    handles = [
        Line2D([], [], marker="o", ls="", ms=5, mfc="white", mec=INK, label="at home: the run's test patients"),
        Line2D([], [], marker="o", ls="", ms=5.5, color=INK, label="elsewhere: this table"),
    ]
    made.legend(handles=handles, loc="outside lower center", ncols=2)
