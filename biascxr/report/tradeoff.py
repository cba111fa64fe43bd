"""The trade-off chart: macro AUROC against the gap, one point with two-way error bars per recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.audit import ALL, MACRO, OVERALL
from biascxr.report.style import MARKERS, QUIET, figure, recipe_colours
from biascxr.report.summary import readable


def tradeoff_table(metrics: pd.DataFrame, gaps: pd.DataFrame, attribute: str, metric: str) -> pd.DataFrame:
    """Returns one row per recipe: macro AUROC over everyone and the attribute's macro gap, both with intervals.

    Args:
        metrics: the audit's metrics.
        gaps: the audit's gaps.
        attribute: whose gap.
        metric: of which metric.
    """
    overall = metrics[
        (metrics["label"] == MACRO)
        & (metrics["attribute"] == OVERALL)
        & (metrics["group"] == ALL)
        & (metrics["metric"] == "AUROC")
    ]
    gap = gaps[(gaps["label"] == MACRO) & (gaps["attribute"] == attribute) & (gaps["metric"] == metric)]
    joined = overall[["recipe", "value", "low", "high"]].merge(
        gap[["recipe", "gap", "low", "high", "noise_gap"]], on="recipe", suffixes=("_auroc", "_gap")
    )
    return joined.dropna(subset=["value", "gap"])


def plot_tradeoff(metrics: pd.DataFrame, gaps: pd.DataFrame, attributes: list[str], folder: Path) -> Path | None:
    """Draws `tradeoff.png`: per attribute, macro AUROC (up is better) against the gap of macro TPR (left is better)."""
    tables = {a: tradeoff_table(metrics, gaps, a, "TPR") for a in attributes}
    tables = {a: t for a, t in tables.items() if len(t)}
    if not tables:
        return None
    recipes = list(metrics["recipe"].unique())
    colours = recipe_colours(recipes)
    columns = min(2, len(tables))
    rows = -(-len(tables) // columns)
    path = folder / "tradeoff.png"
    size = (4.3 * columns + 0.2, 3.5 * rows + 0.7)
    with figure(path, rows=rows, columns=columns, size=size, squeeze=False, sharey=True) as (made, axes):
        for axis, (attribute, table) in zip(axes.flat, tables.items(), strict=False):
            noise = table["noise_gap"].mean()
            axis.axvspan(0, noise, color="#eef2f6", lw=0)
            axis.text(
                noise,
                0.015,
                " gap from\n noise alone",
                transform=axis.get_xaxis_transform(),
                fontsize=7,
                color=QUIET,
                va="bottom",
            )
            for row in table.itertuples():
                index = recipes.index(row.recipe)
                axis.errorbar(
                    row.gap, row.value,
                    xerr=np.abs([[row.gap - row.low_gap], [row.high_gap - row.gap]]),
                    yerr=np.abs([[row.value - row.low_auroc], [row.high_auroc - row.value]]),
                    fmt=MARKERS[index % len(MARKERS)], ms=7 if index == 0 else 6, color=colours[row.recipe],
                    lw=1.1, alpha=0.95, label=row.recipe, zorder=3 + (index == 0),
                )  # fmt: skip
            axis.set_xlim(left=0)
            axis.set_title(readable(attribute))
            axis.set_xlabel("gap of macro TPR, max - min over groups")
            axis.annotate(
                "better", (0.02, 0.99), (0.13, 0.88), xycoords="axes fraction", textcoords="axes fraction",
                fontsize=9, color="#2f855a", fontweight="bold", va="center",
                bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1},
                arrowprops={"arrowstyle": "-|>", "color": "#2f855a", "lw": 1.6}, zorder=6,
            )  # fmt: skip
        for axis in axes[:, 0]:
            axis.set_ylabel("macro AUROC, all test patients")
        for axis in axes.flat[len(tables) :]:
            axis.set_visible(False)
        handles, texts = axes.flat[0].get_legend_handles_labels()
        made.legend(handles, texts, loc="outside lower center", ncols=3)
    return path
