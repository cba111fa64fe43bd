"""The trade-off chart: what each recipe changes against the baseline, in macro AUROC and in an attribute's gap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.audit import GAP, MACRO, OVERALL
from biascxr.report.style import INK, QUIET, figure, recipe_colours
from biascxr.report.summary import readable

GOOD = "#2f855a"


def tradeoff_table(comparisons: pd.DataFrame, attribute: str, metric: str) -> pd.DataFrame:
    """Returns one row per recipe: its paired change of macro AUROC over everyone and of the attribute's macro gap.

    Args:
        comparisons: the audit's comparisons with the baseline.
        attribute: whose gap.
        metric: of which metric.

    Returns:
        Columns `recipe, change_auroc, low_auroc, high_auroc, change_gap, low_gap, high_gap, gap` (the gap itself); recipes
        whose changes could not be measured are left out.
    """
    macro = comparisons[comparisons["label"] == MACRO]
    columns = ["recipe", "change", "low", "high"]
    overall = macro[(macro["attribute"] == OVERALL) & (macro["metric"] == "AUROC")][columns]
    gap = macro[(macro["attribute"] == attribute) & (macro["group"] == GAP) & (macro["metric"] == metric)]
    joined = overall.merge(gap[[*columns, "after"]], on="recipe", suffixes=("_auroc", "_gap"))
    return joined.rename(columns={"after": "gap"}).dropna(subset=["change_auroc", "change_gap"]).reset_index(drop=True)


def plot_tradeoff(comparisons: pd.DataFrame, gaps: pd.DataFrame, attributes: list[str], folder: Path) -> Path | None:
    """Draws `tradeoff.png`: per attribute, change of macro AUROC (up is better) against change of the TPR gap (left is better).

    The baseline stands where the lines cross. Changes are paired on the same patients, so their intervals are narrower than
    those of the values. Recipes are numbered, as ten names beside their points could not be read.

    Args:
        comparisons: the audit's comparisons.
        gaps: the audit's gaps: the baseline's own is named in the panel.
        attributes: whose gaps.
        folder: where to write.
    """
    tables = {a: tradeoff_table(comparisons, a, "TPR") for a in attributes}
    tables = {a: t for a, t in tables.items() if len(t)}
    if not tables:
        return None
    baseline = gaps["recipe"].iloc[0]
    recipes = list(dict.fromkeys(comparisons["recipe"]))
    colours = recipe_colours([baseline, *recipes])
    columns = min(2, len(tables))
    rows = -(-len(tables) // columns)
    path = folder / "tradeoff.png"
    n_lines = -(-len(recipes) // 2)
    size = (4.6 * columns + 0.2, 3.7 * rows + 0.35 + 0.2 * n_lines)
    with figure(path, rows=rows, columns=columns, size=size, squeeze=False, sharey=True) as (made, axes):
        for axis, (attribute, table) in zip(axes.flat, tables.items(), strict=False):
            _draw_panel(axis, table, recipes, colours)
            own = gaps[(gaps["recipe"] == baseline) & (gaps["label"] == MACRO) & (gaps["metric"] == "TPR")]
            own = own.set_index("attribute").loc[attribute]
            # Two lines: in one, that of a long name would end outside the picture.
            title = f"{readable(attribute)}\ngap of {baseline}: {own['gap']:.3f}, noise alone {own['noise_gap']:.3f}"
            axis.set_title(title, fontsize=8.5)
            axis.set_xlabel(f"change of the gap of macro TPR against {baseline}")
        for axis in axes[:, 0]:
            axis.set_ylabel(f"change of macro AUROC against {baseline}")
        for axis in axes.flat[len(tables) :]:
            axis.set_visible(False)
        handles, texts = axes.flat[0].get_legend_handles_labels()
        made.legend(handles, texts, loc="outside lower center", ncols=2, handletextpad=0.3)
    return path


def _draw_panel(axis, table: pd.DataFrame, recipes: list[str], colours: dict[str, str]) -> None:
    axis.axvline(0, color=QUIET, lw=1)
    axis.axhline(0, color=QUIET, lw=1)
    axis.plot(0, 0, "o", ms=5, color=INK, zorder=4)
    for row in table.itertuples():
        colour = colours[row.recipe]
        axis.errorbar(
            row.change_gap, row.change_auroc,
            xerr=np.abs([[row.change_gap - row.low_gap], [row.high_gap - row.change_gap]]),
            yerr=np.abs([[row.change_auroc - row.low_auroc], [row.high_auroc - row.change_auroc]]),
            fmt="o", ms=3, lw=1, color=colour, alpha=0.5, zorder=2,
        )  # fmt: skip
    for number, recipe in enumerate(recipes, start=1):  # an entry for every recipe, also for one that a panel does not have
        axis.plot([], [], "o", ms=7, color=colours[recipe], label=f"{number}  {recipe}")
    axis.margins(0.06)
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    reach_x, reach_y = max(-left, right), max(-low, high)
    axis.set_xlim(-reach_x, reach_x)
    axis.set_ylim(-reach_y, reach_y)
    axis.fill_between([-reach_x, 0], 0, reach_y, color=GOOD, alpha=0.06, lw=0)
    axis.text(0.02, 0.98, "narrower gap, better AUROC", transform=axis.transAxes, fontsize=7.5, color=GOOD, va="top")
    axis.text(0.98, 0.02, "wider gap, worse AUROC", transform=axis.transAxes, fontsize=7.5, color=QUIET, ha="right")

    scale = np.array([reach_x, reach_y])
    points = table[["change_gap", "change_auroc"]].to_numpy(float)
    places = spread_out(points / scale, nearest=0.085) * scale
    for row, point, place in zip(table.itertuples(), points, places, strict=True):
        colour, number = colours[row.recipe], recipes.index(row.recipe) + 1
        axis.plot(*zip(point, place, strict=True), lw=0.8, color=colour, zorder=5)
        axis.plot(*place, "o", ms=11, color=colour, mec="white", mew=0.8, zorder=6)
        axis.text(
            *place, str(number), ha="center", va="center_baseline", fontsize=7, color="white", fontweight="bold", zorder=7
        )


def spread_out(points: np.ndarray, *, nearest: float) -> np.ndarray:
    """Moves labels apart until no two are nearer than `nearest`, or a hundred rounds are over.

    Args:
        points: `[n, 2]`.
        nearest: distance, in the same units.

    Returns:
        `[n, 2]`: the points themselves where they lie apart.
    """
    places = points + 1e-6 * np.arange(len(points))[:, None] * [[1.0, -1.0]]  # equal points have a way to go apart
    for _ in range(100):
        apart = places[:, None] - places[None, :]
        distance = np.linalg.norm(apart, axis=2) + np.eye(len(places)) * 2 * nearest
        overlap = np.maximum(nearest - distance, 0)
        if not overlap.any():
            break
        places = places + (apart / distance[..., None] * (overlap / 2 + 1e-3 * (overlap > 0))[..., None]).sum(axis=1)
    return places
