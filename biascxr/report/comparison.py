"""BiasCXR's comparison figures, by the names people know: AUROC, FPR and FNR per finding and recipe, ROC curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.audit import OVERALL
from biascxr.containers import Predictions
from biascxr.metrics import roc_curve_on_grid
from biascxr.report.privacy import MIN_CELL
from biascxr.report.style import figure, recipe_colours

ROC_GRID = np.linspace(0, 1, 51)  # a fixed grid: no point of the curve is one patient
FILES = {"AUROC": "auc_comparison.png", "FPR": "fpr_comparison.png", "FNR": "fnr_comparison.png"}


def overall_metric(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Returns a metric over everyone, per recipe and label; labels of fewer than ten patients a class are left out."""
    chosen = metrics[(metrics["attribute"] == OVERALL) & (metrics["metric"] == metric)]
    return chosen[chosen["n_class_patients"] >= MIN_CELL]


def plot_comparisons(metrics: pd.DataFrame, label_names: tuple[str, ...], folder: Path) -> dict[str, Path]:
    """Draws `comparison/{auc,fpr,fnr}_comparison.png`: a dot with its interval per finding and recipe."""
    recipes = list(metrics["recipe"].unique())
    colours = recipe_colours(recipes)
    paths = {}
    for metric, name in FILES.items():
        table = overall_metric(metrics, metric)
        labels = [label for label in label_names if label in set(table["label"])]
        path = folder / "comparison" / name
        with figure(path, size=(7.4, 1.1 + (0.16 + 0.075 * len(recipes)) * max(3, len(labels)))) as (_, axis):
            for r, recipe in enumerate(recipes):
                own = table[table["recipe"] == recipe].set_index("label").reindex(labels)
                y = np.arange(len(labels)) + (r - (len(recipes) - 1) / 2) * 0.72 / len(recipes)
                errors = np.abs(own[["low", "high"]].to_numpy().T - own["value"].to_numpy())
                axis.errorbar(own["value"], y, xerr=errors, fmt="o", ms=3.6, lw=1.1, color=colours[recipe], label=recipe)
            axis.set_yticks(range(len(labels)), labels)
            axis.invert_yaxis()
            axis.set_xlabel(f"{metric} on the test patients, with its interval")
            axis.set_title(f"{metric} by finding")
            if metric == "AUROC":
                axis.axvline(0.5, color="#9aa5b1", lw=1, ls=":")
            axis.legend(loc="upper center", bbox_to_anchor=(0.42, -0.11), ncols=3)
        paths[metric] = path
    return paths


def plot_roc_curves(predictions: dict[str, Predictions], metrics: pd.DataFrame, folder: Path) -> Path | None:
    """Draws `comparison/roc_curves.png`: one panel per finding, one curve per recipe, on a fixed grid."""
    names = next(iter(predictions.values())).label_names
    enough = set(overall_metric(metrics, "AUROC")["label"])
    labels = [n for n in names if n in enough]
    if not labels:
        return None
    colours = recipe_colours(list(predictions))
    columns = min(5, len(labels))
    rows = -(-len(labels) // columns)
    path = folder / "comparison" / "roc_curves.png"
    options = {"sharex": True, "sharey": True, "squeeze": False}
    with figure(path, rows=rows, columns=columns, size=(1.75 * columns + 0.4, 1.8 * rows + 0.6), **options) as (
        made,
        axes,
    ):
        for axis, label in zip(axes.flat, labels, strict=False):
            axis.plot([0, 1], [0, 1], color="#9aa5b1", lw=0.8, ls=":")
            for recipe, current in predictions.items():
                index = current.label_names.index(label)
                tpr = roc_curve_on_grid(current.y_true[:, index], current.scores[:, index], ROC_GRID)
                axis.plot(ROC_GRID, tpr, color=colours[recipe], lw=1.1, label=recipe)
            axis.set_title(label, fontsize=8 if len(label) < 20 else 6.5)
            axis.set_aspect("equal")
        for axis in axes.flat[len(labels) :]:
            axis.set_visible(False)
        for axis in axes[-1]:
            axis.set_xlabel("FPR")
        for axis in axes[:, 0]:
            axis.set_ylabel("TPR")
        handles, texts = axes.flat[0].get_legend_handles_labels()
        made.legend(handles, texts, loc="outside lower center", ncols=3)
    return path
