"""Figures of an audit of anybody's predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns

from biascxr.audit import MACRO, MICRO
from biascxr.report.privacy import MIN_CELL
from biascxr.report.style import ACCENT, PALETTE, QUIET, figure, file_name
from biascxr.report.summary import readable

METRICS = ("AUROC", "TPR", "FPR")


def plot_finding_differences(
    metrics: pd.DataFrame, tests: pd.DataFrame, recipe: str, attribute: str, confidence: float, folder: Path
) -> Path | None:
    """Draws `findings_<attribute>.png`: each finding's AUROC, TPR and FPR per group minus everyone else's.

    A ring marks findings whose test of equality stands after correction; a cell with under ten patients of the class, in the
    group, is blank.
    """
    own = metrics[(metrics["recipe"] == recipe) & (metrics["attribute"] == attribute) & ~metrics["label"].isin([MACRO, MICRO])]
    shown = [m for m in METRICS if m in set(own["metric"])]
    groups, labels = list(own["group"].unique()), list(own["label"].unique())
    if len(groups) < 2 or len(groups) > 12 or not shown:
        return None
    stands = tests[(tests["recipe"] == recipe) & (tests["attribute"] == attribute) & (tests["p_adjusted"] < 1 - confidence)]
    stands = set(zip(stands["label"], stands["metric"], strict=True))
    path = folder / f"findings_{file_name(attribute)}.png"
    size = (2.6 + len(shown) * max(1.5, 0.55 * len(groups)), 1.3 + 0.28 * len(labels))
    with figure(path, columns=len(shown), size=size, squeeze=False, sharey=True) as (made, axes):
        for axis, metric in zip(axes[0], shown, strict=True):
            table = own[own["metric"] == metric].copy()
            table.loc[table["n_class_patients"] < MIN_CELL, "difference"] = np.nan
            grid = table.pivot(index="label", columns="group", values="difference").reindex(index=labels, columns=groups)
            text = grid.map(lambda v: "" if np.isnan(v) else f"{round(100 * v):+d}" if round(100 * v) else "0")
            sns.heatmap(
                100 * grid, ax=axis, cmap="RdBu_r" if metric == "FPR" else "RdBu", center=0, vmin=-30, vmax=30, cbar=False,
                annot=text, fmt="", annot_kws={"fontsize": 7}, linewidths=0.6, linecolor="white",
            )  # fmt: skip
            for row, label in enumerate(labels):
                if (label, metric) in stands:
                    axis.plot(-0.12, row + 0.5, "o", ms=5, color=ACCENT, clip_on=False)
            axis.set(xlabel="", ylabel="")
            axis.grid(visible=False)
            axis.set_title(metric)
            axis.tick_params(length=0, labelsize=8)
            axis.set_xticks(axis.get_xticks(), axis.get_xticklabels(), rotation=35, ha="right")
            axis.set_yticks(np.arange(len(labels)) + 0.5, [label.replace("_", " ") for label in labels], rotation=0)
            axis.tick_params(axis="y", pad=9)
            axis.set_facecolor("#f1f3f5")
        made.suptitle(f"By {readable(attribute)}: group minus everyone else, points of 100", fontsize=10, x=0.01, ha="left")
    return path


def plot_operating_points(rows: pd.DataFrame, folder: Path) -> Path | None:
    """Draws `operating_points.png`: per finding the TPR and FPR at 0.5 and at the thresholds used."""
    if rows.empty:
        return None
    y = np.arange(len(rows))
    path = folder / "operating_points.png"
    with figure(path, columns=2, size=(7.6, 1.2 + 0.24 * len(rows)), sharey=True) as (made, axes):
        for axis, metric in zip(axes, ("tpr", "fpr"), strict=True):
            at_half, used = rows[f"{metric}_half"], rows[f"{metric}_used"]
            axis.hlines(y, at_half, used, color=QUIET, lw=1)
            axis.plot(at_half, y, "o", ms=5, mfc="white", mec=QUIET, label="at 0.5")
            axis.plot(used, y, "o", ms=5, color=PALETTE[0], label="at the thresholds used")
            axis.set_yticks(y, rows["label"].str.replace("_", " "))
            axis.set_xlim(-0.02, 1.02)
            axis.set_xlabel(f"{metric.upper()}, everyone")
        axes[0].invert_yaxis()
        handles, texts = axes[0].get_legend_handles_labels()
        made.legend(handles, texts, loc="outside lower center", ncols=2)
    return path
