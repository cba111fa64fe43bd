"""The page of an external evaluation: what a run's recipes do elsewhere, beside what they do at home."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

import biascxr
from biascxr.audit import GAP, MACRO, OVERALL
from biascxr.audit.external import DIFFERENCE, VALUE, ExternalTables
from biascxr.containers import UNKNOWN, Cohort, Predictions
from biascxr.report import summary
from biascxr.report.external_figures import SHOWN, plot_group_differences, plot_recipes
from biascxr.report.page import contract_warnings, data_uri, hide_few, planted_notes
from biascxr.report.privacy import MIN_CELL, suppress

RECIPE_METRICS = (*SHOWN, "Brier", "ECE_debiased")
SIDES = ("in", "out")


@dataclass(frozen=True)
class ExternalInputs:
    """What the evaluation found.

    Attributes:
        tables: the two cohorts side by side.
        home: the run's test predictions of the shared findings, by recipe, the baseline first.
        away: the same elsewhere.
        home_layout: layout of the run's table.
        cohort: the evaluated rows that have a vector.
        rejected: why files could not be used, one text each.
        facts: what is shared and what is left out (`biascxr.apply.evaluated.Evaluated`).
        applied: per recipe the attributes it uses and the groups that it does not know.
        rules: per recipe its decision rule.
        card: card of the vectors.
        is_known_maker: whether the vectors were shown to be of the run's own encoder; else only their length was compared.
        is_demo: whether the recipes were trained on made-up films.
        has_reference: whether there is a second audit, against reference labels.
        config: the configuration.
        versions: versions of libraries.
    """

    tables: ExternalTables
    home: dict[str, Predictions]
    away: dict[str, Predictions]
    home_layout: str
    cohort: Cohort
    rejected: list[str]
    facts: dict
    applied: dict[str, dict]
    rules: dict[str, str]
    card: dict
    is_known_maker: bool
    is_demo: bool
    has_reference: bool
    config: dict
    versions: dict[str, str]

    @property
    def baseline(self) -> str:
        """The recipe that the others are compared with."""
        return next(iter(self.home))

    @property
    def attributes(self) -> list[str]:
        """The attributes (and crossings) with two groups in both cohorts."""
        found = self.tables.side_by_side["attribute"].unique()
        return [a for a in found if a != OVERALL]

    def rows(self, **chosen: str) -> pd.DataFrame:
        """Returns the rows of the side-by-side table with these values."""
        table = self.tables.side_by_side
        for column, value in chosen.items():
            table = table[table[column] == value]
        return table


def build_external_page(inputs: ExternalInputs, folder: Path) -> Path:
    """Draws the figures and writes `report.html`; nothing in it is about fewer than ten patients.

    Returns:
        The page's path.
    """
    table = inputs.tables.side_by_side
    figures = {
        "recipes": plot_recipes(table, folder),
        "differences": plot_group_differences(table, inputs.baseline, folder),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biascxr", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["unbroken"] = lambda text: text.replace(" to ", "\u00a0to\u00a0")
    context = page_context(inputs) | {"figures": {key: data_uri(path) for key, path in figures.items() if path}}
    page = folder / "report.html"
    page.write_text(environment.get_template("external.html.j2").render(context), encoding="utf-8")
    return page


def page_context(inputs: ExternalInputs) -> dict:
    """Returns everything the template shows, as plain values: small cells are hidden here."""
    home, away = (next(iter(own.values())).table for own in (inputs.home, inputs.away))
    audit = inputs.config["audit"]
    return {
        "version": biascxr.__version__,
        "banners": banners(inputs),
        "baseline": inputs.baseline,
        "recipes": list(inputs.home),
        "layouts": (inputs.home_layout, inputs.cohort.layout),
        "n_rows": [f"{len(t):,}" for t in (home, away)],
        "n_patients": [f"{t['patient_id'].nunique():,}" for t in (home, away)],
        "attributes": inputs.attributes,
        "answers": answers(inputs),
        "flow": flow(inputs),
        "notes": notes(inputs),
        "warnings": contract_warnings(inputs.cohort.accounting.get("findings", [])),
        "facts": inputs.facts,
        "group_sizes": group_sizes(inputs),
        "recipe_rows": recipe_rows(inputs),
        "label_rows": label_rows(inputs),
        "group_tables": {a: group_rows(inputs, a) for a in inputs.attributes},
        "gaps": gap_rows(inputs),
        "effects": effect_rows(inputs),
        "readable": summary.readable,
        "confidence": f"{100 * audit['confidence']:.0f}%",
        "n_replicates": f"{audit['n_replicates']:,}",
        "min_patients": audit["min_patients"],
        "min_cell": MIN_CELL,
    }


def banners(inputs: ExternalInputs) -> list[str]:
    """Returns the warnings that stand above everything else."""
    found = []
    if inputs.is_demo:
        found.append("Made-up data: the recipes were trained on drawings. Nothing here is about any patient or any hospital.")
    if not inputs.card["is_trained"]:
        found.append(
            "Untrained encoder (random weights): the numbers show that the pipeline works and have no scientific meaning."
        )
    return found


def answers(inputs: ExternalInputs) -> list[tuple[str, list[str]]]:
    """Returns the questions of an external evaluation with their answers in words."""
    return [
        ("How good is it elsewhere?", [performance_sentence(inputs)]),
        ("Do its thresholds mean the same there?", [operating_sentence(inputs)]),
        ("How unfair is it there, and at home?", gap_sentences(inputs)),
        ("Do the remedies do there what they do at home?", effect_sentences(inputs)),
    ]


def _overall(inputs: ExternalInputs, metric: str) -> pd.Series | None:
    own = inputs.rows(recipe=inputs.baseline, label=MACRO, attribute=OVERALL, metric=metric, quantity=VALUE)
    return None if own.empty or own.iloc[0][["value_in", "value_out"]].isna().any() else own.iloc[0]


def both_sides(row) -> str:
    """Returns `0.81 (...) at home, 0.77 (...) elsewhere, change -0.04 (...)`."""
    inside, outside = (summary.interval(*(row[f"{c}_{side}"] for c in ("value", "low", "high"))) for side in SIDES)
    change = summary.interval(row["change"], row["change_low"], row["change_high"], sign=True)
    return f"{inside} at home, {outside} elsewhere, change {change}"


def performance_sentence(inputs: ExternalInputs) -> str:
    """How well does the baseline find the findings, here and at home?"""
    row = _overall(inputs, "AUROC")
    if row is None:
        return "No finding has enough positive and negative patients on both sides to measure an AUROC."
    return f"Macro AUROC of {inputs.baseline} over {int(row['n_labels'])} findings: {both_sides(row)}."


def operating_sentence(inputs: ExternalInputs) -> str:
    """What do the run's thresholds do elsewhere?"""
    rows = {metric: _overall(inputs, metric) for metric in ("TPR", "FPR")}
    parts = [f"macro {metric} {both_sides(row)}" for metric, row in rows.items() if row is not None]
    if not parts:
        return "TPR and FPR cannot be measured on both sides."
    moved = [m for m, row in rows.items() if row is not None and (row["change_low"] > 0 or row["change_high"] < 0)]
    end = (
        f" The {' and the '.join(moved)} moved with the site, so equal thresholds are not an equal operating point: before use "
        "there, thresholds would have to be fitted on patients of that site."
        if moved
        else " No shift beyond the intervals is seen."
    )
    return f"The thresholds of {inputs.baseline} are the run's: {'; '.join(parts)}.{end}"


def gap_sentences(inputs: ExternalInputs) -> list[str]:
    """Per attribute: the baseline's gap of the macro TPR on both sides."""
    if not inputs.attributes:
        return ["No attribute has two groups in common, so groups cannot be compared."]
    sentences = []
    for attribute in inputs.attributes:
        own = inputs.rows(recipe=inputs.baseline, attribute=attribute, metric="TPR", quantity=GAP)
        own = own.dropna(subset=["value_in", "value_out"])
        if own.empty:
            sentences.append(f"By {summary.readable(attribute)}, two groups with enough patients on both sides are lacking.")
            continue
        row = own.iloc[0]
        noise = f"noise alone would give {row['noise_in']:.3f} and {row['noise_out']:.3f}"
        sentences.append(
            f"By {summary.readable(attribute)} ({row['compared_groups']}), gap of the macro TPR: {both_sides(row)}; {noise}."
        )
    return sentences


def effect_sentences(inputs: ExternalInputs) -> list[str]:
    """Per remedy: what was shown about a macro gap or the macro AUROC, on either side."""
    table = inputs.tables.effects
    if table.empty:
        return ["Only the plain classifier was run, so there is no remedy."]
    sentences = []
    for recipe, own in table.groupby("recipe", sort=False):
        named = own[own["metric"].isin(SHOWN) & ((own["group"] == GAP) | _is_overall_auroc(own))]
        told = named[named[["verdict_in", "verdict_out"]].isin(["better", "worse"]).any(axis=1)]
        parts = [
            f"{effect_name(row)} {summary.interval(row.change_in, row.low_in, row.high_in, sign=True)} at home "
            f"({row.verdict_in}), {summary.interval(row.change_out, row.low_out, row.high_out, sign=True)} elsewhere "
            f"({row.verdict_out})"
            for row in told.itertuples()
        ]
        silent = "no change of a macro gap or of the macro AUROC was shown, at home or elsewhere"
        sentences.append(f"{recipe} against {inputs.baseline}: {'; '.join(parts) or silent}.")
    return sentences


def _is_overall_auroc(table: pd.DataFrame) -> pd.Series:
    return (table["attribute"] == OVERALL) & (table["metric"] == "AUROC")


def effect_name(row) -> str:
    """Returns what a row of the effects is about."""
    if row.attribute == OVERALL:
        return f"macro {row.metric}, everyone"
    return f"gap of macro {row.metric} by {summary.readable(row.attribute)}"


def flow(inputs: ExternalInputs) -> list[tuple[str, str]]:
    """Returns what became of the table's rows, from first to last."""
    account, table = inputs.cohort.accounting, inputs.cohort.table
    rows = [("rows in the table", f"{account['rows_in_table']:,}")]
    rows += [(f"left out: {reason}", f"− {n:,}") for reason, n in account["excluded"].items()]
    reasons = Counter(reason.split(" (")[0] for reason in inputs.rejected)
    rows += [(f"file not usable: {reason}", f"− {n:,}") for reason, n in reasons.most_common()]
    return [*rows, ("images evaluated", f"{len(table):,}"), ("patients", f"{table['patient_id'].nunique():,}")]


def notes(inputs: ExternalInputs) -> list[str]:
    """Returns what a reader has to know about these two cohorts; counts of one to nine patients or images are hidden."""
    facts, found = inputs.facts, []
    found.append(
        "The vectors are made by the run's own encoder: the same network in the same precision."
        if inputs.is_known_maker
        else "The vectors have the length of the run's. Who made them is not known here, so whether it is the same encoder "
        "cannot be checked."
    )
    if facts["n_images_left_out"]:
        found.append("Patients that the run learned from (train, validation, calibration) are left out.")
    elif facts["are_same_patients"]:
        found.append("Patient numbers are those of the run; it learned from none of these patients.")
    elif facts["n_patient_ids_in_both"]:
        found.append(
            f"{facts['n_patient_ids_in_both']} patient numbers of this table are also numbers of the run, and no image is in "
            "both: they are taken for other people. If they are not, some of these patients were learned from, and this page "
            "flatters every recipe (--same_patients yes leaves them out)."
        )
    if facts["n_test_patients_in_both"]:
        found.append(
            f"{facts['n_test_patients_in_both']} patients are on both sides. Intervals of changes take the two sides for "
            "different people, so they are wider than they need be."
        )
    found += [sentence for name, own in inputs.applied.items() if (sentence := uses_sentence(inputs, name, own))]
    if any(own["uses"] for own in inputs.applied.values()):
        found.append(
            "A prediction that depends on a patient's recorded group is disparate treatment in some settings, and needs "
            "clinical and legal review."
        )
    if inputs.has_reference:
        found.append("A second audit of the same predictions, against reference labels, is in 06_audit/reference.")
    account = inputs.cohort.accounting
    return [hide_few(note) for note in (*found, *account["notes"], *planted_notes(account))]


def uses_sentence(inputs: ExternalInputs, recipe: str, own: dict) -> str:
    """Says which attributes a recipe uses, and who gets its answer for an unknown group; empty where it uses none."""
    if not own["uses"]:
        return ""
    text = f"{recipe} uses {' and '.join(summary.readable(a) for a in own['uses'])}."
    sizes = [n for groups in own["unseen"].values() for n in groups.values()]
    if sizes:
        named = ", ".join(group for groups in own["unseen"].values() for group in groups)
        # A share beside a hidden group would give its size away.
        share = f", {own['n_images_unseen'] / len(inputs.cohort):.0%} of the images," if min(sizes) >= MIN_CELL else ""
        text += f" Groups that the run did not have ({named}){share} get its answer for unknown."
    absent = [summary.readable(a) for a in own["not_recorded"]]
    if absent:
        text += f" The table does not have {' and '.join(absent)} in two groups: everyone gets the answer for unknown."
    return text


def group_sizes(inputs: ExternalInputs) -> list[dict]:
    """Returns patients per group on both sides as text, small cells hidden; an en dash where a side lacks the attribute."""
    sides = [next(iter(own.values())) for own in (inputs.home, inputs.away)]
    there = [{a.name: a.groups for a in side.attributes} for side in sides]
    rows = []
    for name in dict.fromkeys([*there[0], *there[1]]):
        groups = list(dict.fromkeys([*there[0].get(name, ()), *there[1].get(name, ()), UNKNOWN]))
        texts = []
        for side, own in zip(sides, there, strict=True):
            if name not in own:
                texts.append(dict.fromkeys(groups, "–"))
                continue
            counts = side.table.groupby(name)["patient_id"].nunique().reindex(groups, fill_value=0)
            texts.append(suppress(counts.to_frame("n"), has_row_totals=False)["n"].to_dict())
        if all(text[UNKNOWN] in ("0", "–") for text in texts):
            groups.remove(UNKNOWN)
        rows += [{"attribute": name, "group": g, "home": texts[0][g], "away": texts[1][g]} for g in groups]
    return rows


def _triple(row, *, sign: bool = False) -> dict:
    """Returns a row's two values and their change as text, and whether the change's interval holds 0."""
    made = {
        key: summary.interval(row[f"value_{side}"], row[f"low_{side}"], row[f"high_{side}"], sign=sign)
        for key, side in (("home", "in"), ("away", "out"))
    }
    made["change"] = summary.interval(row["change"], row["change_low"], row["change_high"], sign=True)
    return made | {"is_off_zero": bool(row["change_low"] > 0 or row["change_high"] < 0)}


def recipe_rows(inputs: ExternalInputs) -> list[dict]:
    """Returns per recipe its macro metrics over everyone on both sides."""
    rows = []
    for recipe in inputs.home:
        own = inputs.rows(recipe=recipe, label=MACRO, attribute=OVERALL, quantity=VALUE).set_index("metric")
        for metric in RECIPE_METRICS:
            if metric in own.index:
                cell = own.loc[metric]
                rows.append({
                    "recipe": recipe, "rule": inputs.rules[recipe], "metric": metric.replace("_", " "),
                    "n_labels": int(cell["n_labels"]), "depends_on_prevalence": bool(cell["depends_on_prevalence"]),
                    **_triple(cell),
                })  # fmt: skip
    return rows


def label_rows(inputs: ExternalInputs) -> list[dict]:
    """Returns per finding how common it is and the baseline's AUROC, TPR and FPR on both sides."""
    rows = []
    sides = [inputs.home[inputs.baseline], inputs.away[inputs.baseline]]
    for i, label in enumerate(sides[0].label_names):
        own = inputs.rows(recipe=inputs.baseline, label=label, attribute=OVERALL, quantity=VALUE).set_index("metric")
        row = {"label": label, "prevalence": [_prevalence(side, i) for side in sides]}
        for metric in SHOWN:
            cell = own.loc[metric] if metric in own.index else None
            is_few = cell is None or min(cell["n_class_patients_in"], cell["n_class_patients_out"]) < MIN_CELL
            hidden = {"home": f"under {MIN_CELL} patients", "away": "", "change": "", "is_off_zero": False}
            row[metric] = hidden if is_few else _triple(cell)
        rows.append(row)
    return rows


def _prevalence(predictions: Predictions, label: int) -> str:
    """Share of images labelled positive; hidden where it stands on fewer than ten patients of a class."""
    y, patient = predictions.y_true[:, label], predictions.table["patient_id"]
    fewest = min(patient[y == value].nunique() for value in (0, 1))
    return f"under {MIN_CELL} patients" if fewest < MIN_CELL else f"{np.nanmean(y):.3f}"


def group_rows(inputs: ExternalInputs, attribute: str) -> list[dict]:
    """Returns per group the baseline's macro metrics and differences from everyone else on both sides."""
    values, differences = (
        inputs.rows(recipe=inputs.baseline, label=MACRO, attribute=attribute, quantity=q).set_index(["group", "metric"])
        for q in (VALUE, DIFFERENCE)
    )
    rows = []
    for group in values.index.get_level_values("group").unique():
        own = values.loc[group]
        if own[["n_patients_in", "n_patients_out"]].to_numpy().min() < MIN_CELL:
            rows.append({"group": group, "is_hidden": True})
            continue
        for metric in (m for m in SHOWN if m in own.index):
            value, difference = own.loc[metric], differences.loc[(group, metric)]
            rows.append({
                "group": group, "is_hidden": False, "metric": metric, "n_labels": int(value["n_labels"]),
                "value": [summary.interval(*(value[f"{c}_{s}"] for c in ("value", "low", "high"))) for s in SIDES],
                **_triple(difference, sign=True),
            })  # fmt: skip
    return rows


def gap_rows(inputs: ExternalInputs) -> list[dict]:
    """Returns the macro gaps of every recipe on both sides, with what noise alone would give."""
    own = inputs.rows(quantity=GAP).dropna(subset=["value_in", "value_out"])
    own = own[own["metric"].isin(SHOWN)].sort_values(
        ["attribute", "metric"], key=lambda c: c.map((inputs.attributes if c.name == "attribute" else list(SHOWN)).index)
    )
    is_first = ~own.duplicated(["attribute", "metric"])
    return [
        {
            "is_first": bool(is_first[i]), "attribute": row["attribute"], "metric": row["metric"], "recipe": row["recipe"],
            "groups": row["compared_groups"], "n_labels": int(row["n_labels"]),
            "noise": [f"{row[f'noise_{side}']:.3f}" for side in SIDES], **_triple(row),
        }
        for i, row in own.iterrows()
    ]  # fmt: skip


def effect_rows(inputs: ExternalInputs) -> list[dict]:
    """Returns what each remedy changes against the baseline on both sides, with verdicts."""
    table = inputs.tables.effects
    if table.empty:
        return []
    named = table[table["metric"].isin(SHOWN) & ((table["group"] == GAP) | (table["attribute"] == OVERALL))]
    named = named.dropna(subset=["change_in", "change_out"])
    # By what they change, recipes below each other; the recipes keep their order.
    order = {key: i for i, key in enumerate(dict.fromkeys(zip(named["attribute"], named["metric"], strict=True)))}
    keys = [order[key] for key in zip(named["attribute"], named["metric"], strict=True)]
    named = named.assign(order=keys).sort_values("order", kind="stable")
    return [
        {
            "is_primary": row.metric == ("AUROC" if row.attribute == OVERALL else "TPR"),
            "recipe": row.recipe, "what": effect_name(row),
            "home": summary.interval(row.change_in, row.low_in, row.high_in, sign=True), "verdict_home": row.verdict_in,
            "away": summary.interval(row.change_out, row.low_out, row.high_out, sign=True), "verdict_away": row.verdict_out,
            "transfer": summary.interval(row.transfer, row.transfer_low, row.transfer_high, sign=True),
            "is_off_zero": bool(row.transfer_low > 0 or row.transfer_high < 0),
        }
        for row in named.itertuples()
    ]  # fmt: skip
