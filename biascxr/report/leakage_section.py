"""The leakage section of a report: the answer in words, its tables and its charts, the same in a run and standing alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from biascxr.leakage import MACRO, VECTORS
from biascxr.leakage.result import LeakageResult
from biascxr.report.leakage_anew import plot_dose
from biascxr.report.leakage_evidence_plots import METHODS, plot_curves, plot_dependence, plot_panels
from biascxr.report.leakage_lookup import (
    attributes_of,
    baseline,
    chosen_probe,
    probe_title,
    reading,
    reading_rows,
    verdict_row,
)
from biascxr.report.leakage_plots import plot_confusion, plot_controls, plot_leakage, plot_leakage_roc, plot_recipes
from biascxr.report.leakage_shown import group_sizes, shareable
from biascxr.report.leakage_words import CAUTIONS, answer, capital, short_answer
from biascxr.report.privacy import MIN_CELL
from biascxr.report.summary import interval, p_text, readable

NOT_MEASURED = "No attribute has two known groups, so leakage was not measured."


def leakage_answers(result: LeakageResult) -> list[str]:
    """Returns the verdict on each attribute in a sentence, for the top of a report and its card."""
    result = shareable(result)
    return [short_answer(result, attribute) for attribute in attributes_of(result)] or [NOT_MEASURED]


def leakage_section(result: LeakageResult) -> dict:
    """Returns what the section's template shows, as plain values; small groups are hidden here."""
    result = shareable(result)
    attributes = attributes_of(result)
    return {
        "not_measured": NOT_MEASURED,
        "answers": [answer(result, a) for a in attributes],
        "cautions": CAUTIONS,
        "recipes": recipe_sentences(result),
        "readings": reading_table(result),
        "groups": {a: group_table(result, a) for a in attributes},
        "verdicts": verdict_table(result),
        "modes": mode_sentences(result),
        "baseline": baseline(result),
        "methods": list(METHODS),
        "has_dependence": bool(len(result.dependence)),
    }


def leakage_figures(result: LeakageResult, folder: Path) -> dict[str, Path]:
    """Draws the charts whose tables have rows.

    Args:
        result: tables of the stage.
        folder: where to write; `leakage.png`, the others in `leakage/`.

    Returns:
        The pictures by their key in the template.
    """
    result = shareable(result)
    drawn: dict[str, Path | None] = {
        "leakage": plot_leakage(result, folder),
        "leakage_controls": plot_controls(result, folder),
        "leakage_recipes": plot_recipes(result, folder),
        "leakage_curves": plot_curves(result, folder),
    }
    for kind in ("attribute", "label"):
        for method in METHODS:
            drawn[f"leakage_panels_{kind}_{method}"] = plot_panels(result, folder, kind=kind, method=method)
    for attribute in attributes_of(result):
        drawn[f"leakage_roc_{attribute}"] = plot_leakage_roc(result, folder, attribute=attribute)
        drawn[f"leakage_confusion_{attribute}"] = plot_confusion(result, folder, attribute=attribute)
        drawn[f"leakage_dependence_{attribute}"] = plot_dependence(result, folder, attribute=attribute)
        drawn[f"leakage_dose_{attribute}"] = plot_dose(result, folder, attribute=attribute)
    return {key: path for key, path in drawn.items() if path is not None}


def reading_table(result: LeakageResult) -> list[dict]:
    """Returns per attribute and probe the macro AUROC from the vectors, its controls and its shuffle test."""
    rows = []
    for attribute in attributes_of(result):
        chosen = chosen_probe(result, VECTORS, attribute)
        for probe in reading_rows(result, VECTORS, attribute)["probe"].unique():
            real, shuffled, alone = (
                reading(result, VECTORS, attribute, probe, control=control) for control in ("none", "shuffled", "covariates")
            )
            if real is None:
                continue
            is_empty = shuffled is None or pd.isna(shuffled["low"])
            rows.append(
                {
                    "attribute": attribute,
                    "probe": probe_title(probe),
                    "setting": "" if pd.isna(real["setting"]) else real["setting"],
                    "is_chosen": probe == chosen,
                    "auroc": interval(real["auroc"], real["low"], real["high"]),
                    "shuffled": "–" if is_empty else f"{shuffled['low']:.3f} to {shuffled['high']:.3f}",
                    "p": "–" if pd.isna(real["p_value"]) else p_text(real["p_value"]).removeprefix("p ").removeprefix("= "),
                    "alone": "–" if alone is None else interval(alone["auroc"], alone["low"], alone["high"]),
                }
            )
    return rows


def group_table(result: LeakageResult, attribute: str) -> dict:
    """Returns one-vs-rest AUROCs of an attribute: `probes`, and `rows` of a group with a text per probe.

    The form of the question that started it: groups down, the image network and the frozen probes across.
    """
    own = reading_rows(result, VECTORS, attribute)
    own = own[own["control"] == "none"]
    probes = sorted(own["probe"].unique(), key=lambda p: p != "encoder")
    sizes = group_sizes(own).set_index("group")["n_group"]
    rows = []
    for group in [*(g for g in own["group"].unique() if g != MACRO), MACRO]:
        cells = own[own["group"] == group].set_index("probe")
        texts = [interval(*cells.loc[p, ["auroc", "low", "high"]]) if p in cells.index else "–" for p in probes]
        is_small = group != MACRO and sizes[group] < MIN_CELL
        rows.append({"group": "all groups (macro)" if group == MACRO else group, "is_hidden": bool(is_small), "texts": texts})
    return {"probes": [probe_title(p) for p in probes], "rows": rows if len(own) else []}


def verdict_table(result: LeakageResult) -> list[dict]:
    """Returns the verdict on every recipe and attribute, with its figure and its reason."""
    return [
        {
            "recipe": row.recipe,
            "attribute": row.attribute,
            "verdict": row.verdict,
            "probe": probe_title(row.probe) if row.probe else "",
            "auroc": interval(row.auroc, row.low, row.high),
            "reason": row.reason,
        }
        for row in result.verdicts.itertuples()
    ]


def recipe_sentences(result: LeakageResult) -> list[str]:
    """Does a recipe's representation leak less, and what becomes of the verdict?

    Both representations are read on the same patients, so intervals that do not overlap are a strict test.
    """
    recipes = list(result.verdicts["recipe"].unique())
    own = [r for r in result.readings["representation"].unique() if r != VECTORS]
    sentences = [_recipe_sentence(result, recipe) for recipe in own if recipe in recipes or not recipes]
    same = [r for r in recipes if r not in own]
    if len(recipes) > 1 and len(same) > 1:
        said = "leave the vectors as they are, so that the same can be read" if own else (
            "leave the vectors as they are: the same can be read under every recipe"
        )  # fmt: skip
        sentences.append(f"{', '.join(same)} {said}.")
    changed = []
    for row in result.verdicts.itertuples():
        first = verdict_row(result, recipes[0], row.attribute)
        if first is not None and row.recipe != recipes[0] and row.verdict != first["verdict"]:
            changed.append(f"{row.recipe}, {readable(row.attribute)}: {row.verdict} (under {recipes[0]}: {first['verdict']})")
    if changed:
        sentences.append(f"Verdicts that differ from those on {recipes[0]}: {'; '.join(changed)}.")
    return sentences


def _recipe_sentence(result: LeakageResult, recipe: str) -> str:
    parts = []
    for attribute in attributes_of(result):
        before = reading(result, VECTORS, attribute, chosen_probe(result, VECTORS, attribute))
        after = reading(result, recipe, attribute, chosen_probe(result, recipe, attribute))
        if before is None or after is None or pd.isna(before["auroc"]) or pd.isna(after["auroc"]):
            continue
        change = "less readable" if after["high"] < before["low"] else (
            "more readable" if after["low"] > before["high"] else "no difference shown"
        )  # fmt: skip
        rows = reading_rows(result, recipe, attribute)
        rows = rows[(rows["control"] == "none") & (rows["group"] == MACRO) & (rows["probe"] != after["probe"])]
        above = rows[rows["low"] > after["high"]]
        other = "" if above.empty else f", though {probe_title(above.iloc[0]['probe'])} reads {above.iloc[0]['auroc']:.3f}"
        value = interval(after["auroc"], after["low"], after["high"])
        parts.append(f"{readable(attribute)} {value}, from the vectors as they are {before['auroc']:.3f} ({change}{other})")
    if not parts:
        return f"{recipe} has vectors of its own, from which no attribute could be read for comparison."
    return f"{recipe} has vectors of its own. From them: {'; '.join(parts)}."


def mode_sentences(result: LeakageResult) -> list[str]:
    """On which leading principal components do groups, or films with and without a finding, differ?"""
    sentences = []
    for kind, what in (("attribute", "groups of {}"), ("label", "patients with and without {}")):
        own = result.modes[result.modes["kind"] == kind].dropna(subset=["ks"])
        for by, rows in own.groupby("by", sort=False):
            found = rows[rows["p_adjusted"] < 0.05]
            if found.empty:
                continue
            most = found.loc[found["ks"].idxmax()]
            modes = ", ".join(f"{int(m)}" for m in sorted(found["mode"].unique()))
            name = what.format(readable(by) if kind == "attribute" else by)
            who = f", {most['group']}" if kind == "attribute" else ""
            sentences.append(
                f"{capital(name)} differ on principal component {modes} of {int(rows['mode'].max())}: at most KS "
                f"{most['ks']:.2f} on component {int(most['mode'])}{who} ({p_text(most['p_adjusted'])}, corrected)."
            )
    return sentences
