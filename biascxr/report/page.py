"""The report stage: figures and tables into `report.html` (one self-contained file) and `model_card.md`."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from biascxr.audit import GAP, MACRO, OVERALL
from biascxr.mitigation.flips import DISPARATE_TREATMENT
from biascxr.report import summary
from biascxr.report.annotation import annotation_section
from biascxr.report.attribute_use import attribute_use
from biascxr.report.comparison import plot_comparisons, plot_roc_curves
from biascxr.report.demographics import demographic_rows, plot_demographics, plot_label_rates
from biascxr.report.fairness import plot_differences, plot_group_errors, plot_improvements, write_fairness_json
from biascxr.report.inputs import ReportInputs
from biascxr.report.label_checks import label_checks
from biascxr.report.leakage_section import leakage_answers, leakage_figures, leakage_section
from biascxr.report.privacy import MIN_CELL, suppress
from biascxr.report.shift import plot_shift, shift_sentences, shown_shift
from biascxr.report.tradeoff import plot_tradeoff

LEAKAGE_QUESTION = "Can the attributes be read from the vectors, and do predictions depend on them?"
MAIN_METRICS = ("AUROC", "TPR", "FPR")


def build_report(inputs: ReportInputs, folder: Path) -> None:
    """Draws the figures, writes BiasCXR's JSON files, the page and the card.

    Args:
        inputs: what the stages to the left have found.
        folder: where to write; nothing in `report.html` and `model_card.md` is about fewer than ten patients.
    """
    audit, attributes = inputs.audit, inputs.audited
    names = inputs.cohort.label_names
    shift = shown_shift(inputs.used, min_patients=inputs.config["audit"]["min_patients"])
    figures: dict[str, Path | None] = {
        "tradeoff": plot_tradeoff(audit.comparisons, audit.gaps, attributes, folder),
        "label_rates": plot_label_rates(inputs.used, folder),
        "shift": plot_shift(shift, folder),
        "differences": plot_differences(audit.metrics, inputs.baseline, attributes, folder),
        "roc_curves": plot_roc_curves(inputs.predictions, audit.metrics, folder),
    }
    figures |= leakage_figures(inputs.leakage, folder)
    figures |= {path.stem: path for path in plot_demographics(inputs.used, folder)}
    figures |= plot_comparisons(audit.metrics, names, folder)
    if len(audit.comparisons):
        figures |= {f"improvement_{m}": p for m, p in plot_improvements(audit.comparisons, folder).items()}
    plot_group_errors(audit.metrics, names, attributes, folder)
    write_fairness_json(audit.metrics, audit.gaps, audit.comparisons, folder)

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biascxr", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    # In narrow columns an interval goes under its value, never apart in the middle.
    environment.filters["unbroken"] = lambda text: text.replace(" to ", "\u00a0to\u00a0")
    context = page_context(inputs) | {"figures": {k: data_uri(p) for k, p in figures.items() if p}}
    context["shift"] = shift_sentences(shift)
    for template, name in (("report.html.j2", "report.html"), ("model_card.md.j2", "model_card.md")):
        (folder / name).write_text(environment.get_template(template).render(context), encoding="utf-8")


def data_uri(path: Path) -> str:
    """Returns a PNG as text that a page holds in itself."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def page_context(inputs: ReportInputs) -> dict:
    """Returns everything the templates show, as plain values: small cells are hidden here, not in the template."""
    cohort, account = inputs.cohort, inputs.cohort.accounting
    n_rejected = len(cohort) - len(inputs.used)
    return {
        "title": f"{'Made-up demo cohort' if inputs.truth else cohort.layout + ' table'}",
        "banners": banners(inputs),
        "answers": answers(inputs),
        "flow": flow(inputs),
        "account": account,
        "planted": planted_notes(account),
        "notes": [hide_few(note) for note in (*account["notes"], *planted_notes(account))],
        "n_rejected": n_rejected,
        "labels": label_rows(inputs),
        "demographics": demographic_rows(inputs.used),
        "warnings": contract_warnings(account.get("findings", [])),
        "annotation": annotation_section(inputs.used, confidence=inputs.config["audit"]["confidence"]),
        "checks": label_checks(inputs),
        "attributes": inputs.audited,
        "recipes": recipe_rows(inputs),
        "group_tables": {a: group_rows(inputs, a) for a in inputs.audited},
        "gap_tables": gap_rows(inputs),
        "comparisons": comparison_rows(inputs),
        "balance": balance_rows(inputs),
        "attribute_use": attribute_use(inputs),
        "disparate_treatment": DISPARATE_TREATMENT,
        "leakage": leakage_section(inputs.leakage),
        "card": inputs.card,
        "config": inputs.config,
        "versions": inputs.versions,
        "baseline": inputs.baseline,
        "min_cell": MIN_CELL,
        "min_patients": inputs.config["audit"]["min_patients"],
        "readable": summary.readable,
        "n_features": inputs.card["vector_length"],
        "confidence": f"{100 * inputs.config['audit']['confidence']:.0f}%",
        "n_replicates": f"{inputs.config['audit']['n_replicates']:,}",
    }


def banners(inputs: ReportInputs) -> list[str]:
    """Returns the warnings that stand above everything else."""
    found = []
    if inputs.truth:
        found.append("Made-up data: these films are drawings. Nothing here is about any patient or any hospital.")
    if not inputs.card["is_trained"]:
        found.append(
            "Untrained encoder (random weights): the numbers show that the pipeline works and have no scientific meaning."
        )
    return found


def answers(inputs: ReportInputs) -> list[tuple[str, list[str]]]:
    """Returns the questions of the mission with their answers in words."""
    planted = summary.planted_sentence(inputs)
    confidence = inputs.config["audit"]["confidence"]
    return [
        ("How good is it?", [summary.performance_sentence(inputs)]),
        ("How unfair is it?", [*summary.unfairness_sentences(inputs), *([planted] if planted else [])]),
        ("On which findings?", [summary.tests_sentence(inputs.audit.tests, inputs.baseline, confidence)]),
        (LEAKAGE_QUESTION, leakage_answers(inputs.leakage)),
        ("Which remedy helps?", [summary.remedy_sentence(inputs)]),
    ]


def flow(inputs: ReportInputs) -> list[tuple[str, str]]:
    """Returns what became of the table's rows, from first to last."""
    account = inputs.cohort.accounting
    rows = [("rows in the table", f"{account['rows_in_table']:,}")]
    rows += [(f"left out: {reason}", f"− {n:,}") for reason, n in account["excluded"].items()]
    rows += [(f"file not usable: {reason}", f"− {n:,}") for reason, n in inputs.rejected.items()]
    rows.append(("images used", f"{len(inputs.used):,}"))
    rows.append(("patients", f"{inputs.used.table['patient_id'].nunique():,}"))
    return rows


# "6 patients", "3 other images": a number of people, or of what leads to them, that may not stand on the page.
FEW = re.compile(r"(?<![\d.,-])[1-9](?= (?:\w+ )?(?:patient|image|stud(?:y|ies)|row|file|pair|vector|path|age|of [\d,]+))")


def contract_warnings(findings: list[dict]) -> list[tuple[str, str]]:
    """Returns what the contract found and what to do about it; counts of one to nine patients, images or rows are hidden."""
    return [(hide_few(f["message"]), f["advice"]) for f in findings]


def hide_few(text: str) -> str:
    """Returns a sentence without counts of one to nine patients, images or rows."""
    return FEW.sub(f"fewer than {MIN_CELL}", text)


def planted_notes(account: dict) -> list[str]:
    """Says which bias was planted on the rows, where one was."""
    return [
        f"Planted on purpose: {p['mechanism']} of strength {p['strength']:g} in {p['attribute']} {p['group']}"
        + (f", {p['finding']}" if p["finding"] else "")
        + ". The labels as they were are the reference labels."
        for p in account.get("planted", [])
    ]


def label_rows(inputs: ReportInputs) -> list[dict]:
    """Returns per finding what was recorded and the baseline's AUROC, TPR and FPR over everyone."""
    recorded = {row["label"]: row for row in inputs.cohort.accounting["labels"]}
    metrics = inputs.audit.metrics
    own = metrics[(metrics["recipe"] == inputs.baseline) & (metrics["attribute"] == OVERALL)]
    rows = []
    for label in inputs.cohort.label_names:
        cells = own[own["label"] == label].set_index("metric")
        values = {
            m: summary.interval(*cells.loc[m, ["value", "low", "high"]])
            if cells.loc[m, "n_class_patients"] >= MIN_CELL
            else f"under {MIN_CELL} patients"
            for m in MAIN_METRICS
        }
        rows.append({"label": label} | label_counts(recorded[label]) | values)
    return rows


def label_counts(recorded: dict) -> dict[str, str]:
    """Returns a finding's counts of images as text, with small ones hidden.

    Positive, negative and masked images add up to all of them, and where both are masked, uncertain and blank ones to the
    masked: one hidden count takes another with it.
    """
    shown = {}
    for names in (["positive", "negative", "masked"], ["uncertain", "blank"]):
        line = pd.DataFrame([[recorded[name] for name in names]], columns=names)
        shown |= suppress(line, has_column_totals=False).iloc[0].to_dict()
    return shown


def recipe_rows(inputs: ReportInputs) -> list[dict]:
    """Returns per recipe its decision rule, notes, macro metrics over everyone, and the gaps of macro TPR."""
    metrics, gaps = inputs.audit.metrics, inputs.audit.gaps
    rows = []
    for name, described in inputs.recipes.items():
        own = metrics[(metrics["recipe"] == name) & (metrics["label"] == MACRO) & (metrics["attribute"] == OVERALL)]
        own = own.set_index("metric")
        macro = gaps[(gaps["recipe"] == name) & (gaps["label"] == MACRO) & (gaps["metric"] == "TPR")].set_index("attribute")
        rows.append(
            {
                "name": name,
                "decision": " + ".join(part["method"] for part in described["slots"]["decision"]),
                "notes": [hide_few(note) for notes in described["notes"].values() for note in notes],
                "uses_attributes": described["uses_attributes"],
                "metrics": {m: summary.interval(*own.loc[m, ["value", "low", "high"]]) for m in MAIN_METRICS},
                "gaps": {a: summary.interval(*macro.loc[a, ["gap", "low", "high"]]) for a in inputs.audited},
            }
        )
    return rows


def group_rows(inputs: ReportInputs, attribute: str) -> list[dict]:
    """Returns per group of an attribute the baseline's macro metrics and their differences from everyone else."""
    metrics = inputs.audit.metrics
    own = metrics[(metrics["recipe"] == inputs.baseline) & (metrics["label"] == MACRO) & (metrics["attribute"] == attribute)]
    return [
        summary.group_row(group, own[own["group"] == group].set_index("metric"), MAIN_METRICS)
        for group in own["group"].unique()
    ]


def gap_rows(inputs: ReportInputs) -> list[dict]:
    """Returns the baseline's macro gaps, each beside the gap that noise alone would give."""
    gaps = inputs.audit.gaps
    own = gaps[(gaps["recipe"] == inputs.baseline) & (gaps["label"] == MACRO) & gaps["metric"].isin(MAIN_METRICS)]
    return [
        {
            "attribute": row.attribute,
            "metric": row.metric,
            "gap": summary.interval(row.gap, row.low, row.high),
            "noise": "–" if np.isnan(row.noise_gap) else f"{row.noise_gap:.3f}",
            "corrected": "–" if np.isnan(row.corrected_gap) else f"{row.corrected_gap:.3f}",
            "lowest": row.lowest_group or "–",
            "highest": row.highest_group or "–",
            "n_groups": row.n_groups,
            "n_labels": row.n_labels,
        }
        for row in own.itertuples()
    ]


def comparison_rows(inputs: ReportInputs) -> list[dict]:
    """Returns each recipe's change of macro AUROC and of the macro gaps against the baseline, with a verdict."""
    table = inputs.audit.comparisons
    if len(table) == 0:
        return []
    macro = table[(table["label"] == MACRO) & ((table["attribute"] == OVERALL) | (table["group"] == GAP))]
    macro = macro[macro["metric"].isin(["AUROC", "TPR"]) & ~((macro["attribute"] == OVERALL) & (macro["metric"] == "TPR"))]
    return [
        {
            "recipe": row.recipe,
            "what": f"macro {row.metric}, everyone"
            if row.attribute == OVERALL
            else f"gap of macro {row.metric} by {summary.readable(row.attribute)}",
            "change": summary.interval(row.change, row.low, row.high, sign=True),
            "verdict": "not measurable" if pd.isna(row.change) else row.verdict,
        }
        for row in macro.itertuples()
    ]


def balance_rows(inputs: ReportInputs) -> list[dict]:
    """Returns Gini, entropy and effective n before and after, for recipes that resample."""
    rows = []
    for name, table in inputs.balance.items():
        if table.empty:  # no attribute, so no groups to be even or not
            continue
        pairs = table.pivot(index="attribute", columns="when")
        told = pairs[["n_rows", "gini", "effective_n", "max_copies"]]
        before, after = (told.xs(when, axis=1, level="when") for when in ("before", "after"))
        changed = (before - after).abs().gt(1e-6).any(axis=1)
        if not changed.any():
            continue
        order = [a for a in table["attribute"].unique()]
        for attribute in order:
            own = pairs.loc[attribute]
            rows.append(
                {
                    "recipe": name,
                    "attribute": attribute.replace("_", " "),
                    **{
                        key: tuple(form.format(own[key][when]) for when in ("before", "after"))
                        for key, form in (
                            ("gini", "{:.3f}"),
                            ("normalized_entropy", "{:.3f}"),
                            ("effective_n", "{:,.0f}"),
                            ("n_rows", "{:,.0f}"),
                            ("max_copies", "{:.0f}"),
                        )
                    },
                }
            )
    return rows
