"""BiasCXR's fairness figures and files: error rates per group, improvement of the disparity, and the signed differences."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

from biascxr.audit import GAP, MACRO, OVERALL
from biascxr.report.privacy import MIN_CELL
from biascxr.report.style import ACCENT, QUIET, figure, file_name, recipe_colours
from biascxr.report.summary import readable

ERROR_RATES = ("FPR", "FNR")


def plot_group_errors(metrics: pd.DataFrame, label_names: tuple[str, ...], attributes: list[str], folder: Path) -> None:
    """Draws `fairness/fairness_<attribute>_<label>.png`: FPR and FNR per group and recipe, with intervals.

    A group with fewer than ten patients of the class has no bar.
    """
    recipes = list(metrics["recipe"].unique())
    colours = recipe_colours(recipes)
    by_cell = metrics.set_index(["attribute", "label", "metric", "recipe"]).sort_index()
    jobs = [(a, label) for a in attributes for label in label_names]
    for attribute, label in tqdm(jobs, desc="figures", unit="figure", mininterval=0.5):
        groups = list(metrics.loc[metrics["attribute"] == attribute, "group"].unique())
        path = folder / "fairness" / f"fairness_{file_name(attribute)}_{file_name(label)}.png"
        with figure(path, columns=2, size=(7.6, 2.7), sharey=True) as (made, axes):
            width = 0.8 / len(recipes)
            for axis, metric in zip(axes, ERROR_RATES, strict=True):
                for r, recipe in enumerate(recipes):
                    own = by_cell.loc[(attribute, label, metric, recipe)].set_index("group").reindex(groups)
                    hidden = own["n_class_patients"].to_numpy() < MIN_CELL
                    value, low, high = (np.where(hidden, np.nan, own[c]) for c in ("value", "low", "high"))
                    x = np.arange(len(groups)) + (r - (len(recipes) - 1) / 2) * width
                    axis.bar(x, value, width * 0.92, color=colours[recipe], alpha=0.85, label=recipe)
                    axis.vlines(x, low, high, color=QUIET, lw=0.9)
                n_class = by_cell.loc[(attribute, label, metric, recipes[0])].set_index("group")["n_class_patients"]
                for x in np.flatnonzero(n_class.reindex(groups).to_numpy() < MIN_CELL):
                    axis.text(x, 0.03, f"under {MIN_CELL}\npatients", ha="center", fontsize=6.5, color=QUIET)
                axis.set_xticks(range(len(groups)), [g.replace("/", "/\n") for g in groups], fontsize=7)
                axis.set_title(metric)
                axis.grid(axis="x", visible=False)
            axes[0].set_ylim(0, 1)
            made.suptitle(f"{label} by {readable(attribute)}", fontsize=10, x=0.01, ha="left")
            handles, texts = axes[0].get_legend_handles_labels()
            made.legend(handles, texts, loc="outside lower center", ncols=3)


def plot_improvements(comparisons: pd.DataFrame, folder: Path) -> dict[str, Path]:
    """Draws `fairness/overall_{fpr,fnr}_improvement.png`: how much each recipe narrows the macro gap, paired, per attribute.

    Improvement is the disparity (max - min over groups) before minus after, as BiasCXR defines it; above 0 is narrower.
    """
    paths = {}
    for metric in ERROR_RATES:
        # The gap of the FNR is the gap of the TPR: FNR = 1 - TPR in every group.
        source = "TPR" if metric == "FNR" else metric
        keep = (comparisons["group"] == GAP) & (comparisons["label"] == MACRO) & (comparisons["metric"] == source)
        table = comparisons[keep]
        recipes, attributes = list(table["recipe"].unique()), list(table["attribute"].unique())
        path = folder / "fairness" / f"overall_{metric.lower()}_improvement.png"
        colours = recipe_colours(["erm", *recipes])
        with figure(path, size=(6.6, 1.2 + 0.28 * max(2, len(recipes)) * max(1, len(attributes)))) as (_, axis):
            for r, recipe in enumerate(recipes):
                own = table[table["recipe"] == recipe].set_index("attribute").reindex(attributes)
                y = np.arange(len(attributes)) + (r - (len(recipes) - 1) / 2) * 0.75 / max(1, len(recipes))
                value = -own["change"].to_numpy()
                errors = np.abs(np.array([-own["high"], -own["low"]]) - value)
                axis.errorbar(value, y, xerr=errors, fmt="o", ms=4, lw=1.2, color=colours[recipe], label=recipe)
            axis.axvline(0, color=ACCENT, lw=1)
            axis.set_yticks(range(len(attributes)), [a.replace("_", " ") for a in attributes])
            axis.invert_yaxis()
            axis.set_xlabel(f"gap of macro {metric} before minus after (right: narrower)")
            axis.set_title(f"{metric} disparity: improvement over erm")
            if recipes:
                axis.legend(loc="upper center", bbox_to_anchor=(0.45, -0.28), ncols=2)
        paths[metric] = path
    return paths


def plot_differences(metrics: pd.DataFrame, recipe: str, attributes: list[str], folder: Path) -> Path | None:
    """Draws `fairness/differences.png`: each group's macro AUROC, TPR and FPR minus everyone else's, for one recipe."""
    keep = (metrics["recipe"] == recipe) & (metrics["label"] == MACRO) & (metrics["attribute"] != OVERALL)
    table = metrics[keep & (metrics["n_patients"] >= MIN_CELL)]
    shown = [a for a in attributes if a in set(table["attribute"])]
    if not shown:
        return None
    kinds = ("AUROC", "TPR", "FPR")
    order = table[["attribute", "group"]].drop_duplicates()
    heights = [max(2, int((order["attribute"] == a).sum())) for a in shown]
    path = folder / "fairness" / "differences.png"
    options = {"height_ratios": heights, "squeeze": False, "sharex": "col", "sharey": "row"}
    size = (8.2, 1.0 + 0.34 * sum(heights))
    with figure(path, rows=len(shown), columns=len(kinds), size=size, **options) as (_, axes):
        for i, attribute in enumerate(shown):
            groups = list(order.loc[order["attribute"] == attribute, "group"])
            for j, metric in enumerate(kinds):
                axis: plt.Axes = axes[i, j]
                own = table[(table["attribute"] == attribute) & (table["metric"] == metric)].set_index("group").reindex(groups)
                value = own["difference"].to_numpy()
                low, high = own["difference_low"].to_numpy(), own["difference_high"].to_numpy()
                is_off_zero = (low > 0) | (high < 0)
                for y in range(len(groups)):
                    colour = ACCENT if is_off_zero[y] else QUIET
                    axis.plot([low[y], high[y]], [y, y], color=colour, lw=1.8, solid_capstyle="round")
                    axis.plot(value[y], y, "o", ms=5, color=colour)
                axis.axvline(0, color="#1f2933", lw=0.8)
                axis.set_yticks(range(len(groups)), groups)
                axis.set_ylim(len(groups) - 0.5, -0.5)
                axis.xaxis.set_major_locator(MaxNLocator(4))
                if i == 0:
                    axis.set_title(f"macro {metric}")
                if i == len(shown) - 1:
                    axis.set_xlabel("group minus everyone else")
            axes[i, 0].set_ylabel(attribute.replace("_", " "), fontweight="bold")
    return path


def write_fairness_json(metrics: pd.DataFrame, gaps: pd.DataFrame, comparisons: pd.DataFrame, folder: Path) -> None:
    """Writes `fairness/fairness_metrics.json` and `fairness/fairness_disparity.json`, BiasCXR's files.

    Cells of fewer than ten patients a class are null. A disparity has its interval, the gap that noise alone would give,
    and the improvement over `erm` (before minus after).
    """

    def number(value: float) -> float | None:
        return None if pd.isna(value) else round(float(value), 6)

    values: dict = {}
    for row in metrics[metrics["metric"].isin(ERROR_RATES)].itertuples():
        if row.n_class_patients < MIN_CELL:
            cell = {"value": None, "low": None, "high": None}
        else:
            cell = {"value": number(row.value), "low": number(row.low), "high": number(row.high)}
        values.setdefault(row.recipe, {}).setdefault(row.attribute, {}).setdefault(row.label, {}).setdefault(row.group, {})[
            row.metric
        ] = cell
    changes = comparisons[comparisons["group"] == GAP].set_index(["recipe", "attribute", "label", "metric"])["change"]
    disparity: dict = {}
    for row in gaps[gaps["metric"].isin(ERROR_RATES)].itertuples():
        source = "TPR" if row.metric == "FNR" else row.metric
        change = changes.get((row.recipe, row.attribute, row.label, source), np.nan)
        disparity.setdefault(row.recipe, {}).setdefault(row.attribute, {}).setdefault(row.label, {})[row.metric] = {
            "disparity": number(row.gap),
            "low": number(row.low),
            "high": number(row.high),
            "noise_alone": number(row.noise_gap),
            "improvement_over_erm": number(-change),
        }
    target = folder / "fairness"
    target.mkdir(parents=True, exist_ok=True)
    (target / "fairness_metrics.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    (target / "fairness_disparity.json").write_text(json.dumps(disparity, indent=1), encoding="utf-8")
