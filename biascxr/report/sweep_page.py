"""The page of a sweep: what several training runs show of each method, as `sweep.html`."""

from __future__ import annotations

from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

import biascxr
from biascxr.audit import EQUALIZED_ODDS, GAP, MACRO, MIN_UNITS, OVERALL, MethodComparison
from biascxr.report.page import data_uri
from biascxr.report.style import ACCENT, INK, QUIET, figure
from biascxr.report.summary import interval, readable

SHOWN_GAPS = ("AUROC", "TPR", "FPR", EQUALIZED_ODDS)


def write_sweep_page(made: MethodComparison, described: dict, facts: dict, folder: Path) -> Path:
    """Draws the figure and writes `sweep.html`.

    Args:
        made: what the runs say.
        described: `seeds`, `folds`, and the configuration.
        facts: `truth` (is the cohort made up?), `is_trained` (is the encoder?), `encoder`, `layout`, `n_images`, `n_patients`
            (tested on), `versions`.
        folder: where to write.

    Returns:
        The page's path.
    """
    changes = macro_changes(made.comparisons)
    recipes, attributes = list(dict.fromkeys(changes["recipe"])), attributes_of(changes)
    units = int(made.comparisons["n_units"].iloc[0])
    context = {
        "version": biascxr.__version__,
        "facts": facts,
        "config": described["config"],
        "seeds": described["seeds"],
        "folds": described["folds"],
        "units": units,
        "min_units": MIN_UNITS,
        "unit": "fold" if described["folds"] > 1 else "seed",
        "baseline": made.runs["recipe"].iloc[0],
        "recipes": recipes,
        "attributes": attributes,
        "sentences": [sentence(changes[changes["recipe"] == r], r) for r in recipes] if units >= MIN_UNITS else [],
        "spread": spread_rows(made.runs),
        "rows": change_rows(changes),
        "readable": readable,
        "confidence": f"{100 * described['config']['audit']['confidence']:.0f}%",
        "figure": data_uri(plot_changes(changes, made.runs, recipes, attributes, folder)),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biascxr", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["unbroken"] = lambda text: text.replace(" to ", "\u00a0to\u00a0")
    page = folder / "sweep.html"
    page.write_text(environment.get_template("sweep.html.j2").render(context), encoding="utf-8")
    return page


def macro_changes(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Returns the macro changes over everyone and of gaps: what the page is about."""
    keep = (comparisons["label"] == MACRO) & comparisons["metric"].isin(SHOWN_GAPS)
    keep &= (comparisons["attribute"] == OVERALL) | (comparisons["group"] == GAP)
    return comparisons[keep].dropna(subset=["change"])


def attributes_of(changes: pd.DataFrame) -> list[str]:
    """Returns the attributes whose gaps could be measured, in order."""
    return [a for a in dict.fromkeys(changes["attribute"]) if a != OVERALL]


def sentence(own: pd.DataFrame, recipe: str) -> str:
    """Returns what the runs say of one method."""
    told = own[own["verdict"].isin(["better", "worse"])]
    if told.empty:
        return f"{recipe}: not enough evidence of any change, good or bad."
    parts = []
    for r in told.itertuples():
        metric = r.metric.replace("_", " ")
        what = f"gap of macro {metric} by {readable(r.attribute)}" if r.group == GAP else f"macro {metric} of everyone"
        parts.append(f"{what} {interval(r.change, r.low, r.high, sign=True)}: {r.verdict}")
    return f"{recipe}: {'; '.join(parts)}."


def spread_rows(runs: pd.DataFrame) -> list[dict]:
    """Returns per recipe the mean, lowest and highest macro AUROC over everyone among its runs."""
    own = runs[(runs["attribute"] == OVERALL) & (runs["metric"] == "AUROC")]
    return [
        {
            "recipe": recipe, "n": len(part), "mean": f"{part['value'].mean():.3f}", "low": f"{part['value'].min():.3f}",
            "high": f"{part['value'].max():.3f}", "sd": f"{part['value'].std():.4f}" if len(part) > 1 else "–",
        }
        for recipe, part in own.groupby("recipe", sort=False)
    ]  # fmt: skip


def change_rows(changes: pd.DataFrame) -> list[dict]:
    """Returns the table of changes as text."""
    return [
        {
            "recipe": r.recipe,
            "what": f"gap of macro {r.metric.replace('_', ' ')} by {readable(r.attribute)}"
            if r.group == GAP else f"macro {r.metric}, everyone",
            "before": f"{r.before:.3f}", "after": f"{r.after:.3f}",
            "change": interval(r.change, r.low, r.high, sign=True),
            "p": "–" if np.isnan(r.p_holm) else "under 0.0001" if r.p_holm < 0.0001 else f"{r.p_holm:.4f}",
            "verdict": r.verdict, "levelling": r.levelling,
        }
        for r in changes.itertuples()
    ]  # fmt: skip


def plot_changes(changes: pd.DataFrame, runs: pd.DataFrame, recipes: list[str], attributes: list[str], folder: Path) -> Path:
    """Draws `sweep.png`: per method the change of macro AUROC and of each attribute's gap of macro TPR, with intervals."""
    panels = [("macro AUROC, everyone", OVERALL, "AUROC", 1)] if "AUROC" in set(changes["metric"]) else []
    panels += [(f"gap of macro TPR\nby {readable(a)}", a, "TPR", -1) for a in attributes]
    if not panels:
        panels = [("macro TPR, everyone", OVERALL, "TPR", 1)]
    path = folder / "sweep.png"
    size = (2.2 + 2.0 * len(panels), 1.3 + 0.34 * max(2, len(recipes)))
    with figure(path, columns=len(panels), size=size, squeeze=False, sharey=True) as (_, axes):
        for axis, (title, attribute, metric, better) in zip(axes.flat, panels, strict=True):
            own = changes[(changes["attribute"] == attribute) & (changes["metric"] == metric)].set_index("recipe")
            for y, recipe in enumerate(recipes):
                if attribute == OVERALL:
                    dots = run_changes(runs, recipe, metric)
                    axis.plot(dots, np.full(len(dots), y + 0.22), "|", ms=5, color=QUIET, alpha=0.8)
                if recipe in own.index:
                    row = own.loc[recipe]
                    colour = {"better": "#2f855a", "worse": ACCENT}.get(row["verdict"], INK)
                    axis.errorbar(
                        row["change"], y, xerr=np.abs([[row["change"] - row["low"]], [row["high"] - row["change"]]]), fmt="o",
                        ms=5, lw=1.4, color=colour,
                    )  # fmt: skip
            axis.axvline(0, color=QUIET, lw=1)
            axis.set_title(title)
            axis.set_xlabel("better →" if better > 0 else "← better")
            axis.locator_params(axis="x", nbins=4)
        axes[0, 0].set_yticks(range(len(recipes)), recipes)
        axes[0, 0].set_ylim(len(recipes) - 0.4, -0.6)
    return path


def run_changes(runs: pd.DataFrame, recipe: str, metric: str) -> np.ndarray:
    """Returns a method's change from the baseline in each run, over everyone."""
    own = runs[(runs["attribute"] == OVERALL) & (runs["metric"] == metric)]
    wide = own.pivot(index=["seed", "fold"], columns="recipe", values="value")
    baseline = runs["recipe"].iloc[0]
    return (wide[recipe] - wide[baseline]).to_numpy() if {recipe, baseline} <= set(wide) else np.zeros(0)
