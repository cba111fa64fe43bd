"""The page of an audit of anybody's predictions: `report.html` and its figures, nothing in them about under ten patients."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import yaml

import biascxr
from biascxr.audit import EQUALIZED_ODDS, GAP, MACRO, OVERALL
from biascxr.audit.conclusions import flagged
from biascxr.audit.standalone import StandaloneAudit
from biascxr.audit.underdiagnosis import n_findings
from biascxr.config import to_dict
from biascxr.containers import UNKNOWN, Predictions
from biascxr.metrics import decide, false_positive_rate, true_positive_rate
from biascxr.report import summary
from biascxr.report.audit_figures import plot_finding_differences, plot_operating_points
from biascxr.report.fairness import plot_differences
from biascxr.report.page import data_uri
from biascxr.report.privacy import MIN_CELL, suppress
from biascxr.run_folder import run_versions
from biascxr.verb_config import StandaloneConfig

logger = logging.getLogger("biascxr")

SHOWN = ("AUROC", "TPR", "FPR")
GAP_METRICS = (*SHOWN, "PPV", "ECE_debiased", EQUALIZED_ODDS)


def build_audit_report(audit: StandaloneAudit, config: StandaloneConfig, folder: Path) -> Path:
    """Draws the figures and writes `report.html`.

    Args:
        audit: what was found.
        config: what was asked.
        folder: where to write.

    Returns:
        The page's path.
    """
    metrics, recipe = audit.result.metrics, audit.subject
    attributes = [a for a in metrics["attribute"].unique() if a != OVERALL]
    figures = {
        "differences": plot_differences(metrics, recipe, attributes, folder),
        "operating_points": plot_operating_points(operating_rows(audit.predictions[recipe]), folder),
    }
    figures |= {
        f"findings_{i}": plot_finding_differences(metrics, audit.result.tests, recipe, attribute, config.confidence, folder)
        for i, attribute in enumerate(attributes)
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biascxr", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["unbroken"] = lambda text: text.replace(" to ", "\u00a0to\u00a0")
    context = page_context(audit, config, recipe, attributes)
    context["figures"] = {key: data_uri(path) for key, path in figures.items() if path}
    page = folder / "report.html"
    page.write_text(environment.get_template("audit.html.j2").render(context), encoding="utf-8")
    return page


def write_audit(audit: StandaloneAudit, config: StandaloneConfig) -> Path:
    """Writes tables, figures and page of an audit into its folder; files of an earlier audit there are replaced.

    Everything is made in a folder beside it first, so an audit that fails leaves the earlier one whole.

    Returns:
        The folder.
    """
    final = config.run_dir()
    final.mkdir(parents=True, exist_ok=True)
    folder = final.with_name(f".{final.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        audit.result.save(folder)
        audit.thresholds.to_csv(folder / "thresholds.csv", index=False)
        (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")
        (folder / "versions.json").write_text(json.dumps(run_versions(), indent=2), encoding="utf-8")
        build_audit_report(audit, config, folder)
        shutil.copytree(folder, final, dirs_exist_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for line in [*audit.warnings, audit.operating_point, audit.result.estimand, *audit.sensitivity]:
        logger.info("%s", line)
    attributes = [a for a in audit.result.metrics["attribute"].unique() if a != OVERALL]
    for question, sentences in answers(audit, config, audit.subject, attributes):
        logger.info("%s %s", question, " ".join(sentences))
    logger.info("report: %s", final / "report.html")
    return final


def page_context(audit: StandaloneAudit, config: StandaloneConfig, recipe: str, attributes: list[str]) -> dict:
    """Returns everything the template shows, as plain values: small cells are hidden here."""
    result, predictions = audit.result, audit.predictions[recipe]
    table = predictions.table
    return {
        "version": biascxr.__version__,
        "recipe": recipe,
        "baseline": next(iter(audit.predictions)),
        "others": [name for name in audit.predictions if name != recipe],
        "attributes": attributes,
        "n_rows": f"{len(table):,}",
        "n_patients": f"{table['patient_id'].nunique():,}",
        "unit": {"image": "images", "study": "studies"}[config.unit],
        "n_labels": n_findings(predictions.label_names),
        "answers": answers(audit, config, recipe, attributes),
        "estimand": result.estimand,
        "sensitivity": audit.sensitivity,
        "operating_point": audit.operating_point,
        "notes": audit.notes,
        "warnings": audit.warnings,
        "group_sizes": group_sizes(predictions, attributes),
        "labels": label_rows(result.metrics, recipe, predictions.label_names),
        "operating": operating_rows(predictions).to_dict("records"),
        "group_tables": {a: group_rows(result.metrics, recipe, a) for a in attributes},
        "gaps": gap_rows(result.gaps, recipe),
        "tests": test_rows(result.tests, recipe, config.confidence),
        "n_tests": int(result.tests["p_adjusted"].notna().sum()),
        "adjusted": adjusted_rows(result.adjusted, result.metrics, recipe),
        "comparisons": comparison_rows(result.comparisons),
        "readable": summary.readable,
        "confidence": f"{100 * config.confidence:.0f}%",
        "alpha": f"{1 - config.confidence:.2g}",
        "n_replicates": f"{config.n_replicates:,}",
        "n_permutations": f"{config.n_permutations:,}",
        "min_cell": MIN_CELL,
    }


def answers(
    audit: StandaloneAudit, config: StandaloneConfig, recipe: str, attributes: list[str]
) -> list[tuple[str, list[str]]]:
    """Returns the questions an audit is made for, with their answers in words."""
    metrics = audit.result.metrics
    own = metrics[(metrics["recipe"] == recipe) & (metrics["label"] == MACRO)]
    good = own[(own["attribute"] == OVERALL) & (own["metric"] == "AUROC")]
    sentences = ["No finding has enough positive patients to measure an AUROC."]
    if len(good) and not np.isnan(good.iloc[0]["value"]):
        row = good.iloc[0]
        sentences = [
            f"Macro AUROC {summary.interval(row['value'], row['low'], row['high'])} over {int(row['n_labels'])} findings, "
            f"{int(row['n_patients']):,} patients."
        ]
    found = [("How good is it?", sentences), ("How unfair is it?", summary.group_sentences(own, attributes))]
    found.append(("On which findings?", [summary.tests_sentence(audit.result.tests, recipe, config.confidence)]))
    if len(audit.predictions) > 1:
        found.append(
            ("Is one fairer than the other?", comparison_sentences(audit.result.comparisons, next(iter(audit.predictions))))
        )
    return found


def comparison_sentences(comparisons: pd.DataFrame, baseline: str) -> list[str]:
    """Returns per recipe what the macro gaps say, with who paid for it."""
    sentences = []
    for recipe, own in comparisons.groupby("recipe", sort=False):
        macro = own[(own["label"] == MACRO) & own["metric"].isin([*SHOWN, EQUALIZED_ODDS])]
        cost = macro[(macro["attribute"] == OVERALL) & (macro["metric"] == "AUROC")]
        told = macro[(macro["group"] == GAP) & (macro["verdict"].isin(["better", "worse"]) | (macro["levelling"] != ""))]
        parts = [
            f"gap of {r.metric.replace('_', ' ')} by {summary.readable(r.attribute)} "
            f"{summary.interval(r.change, r.low, r.high, sign=True)}: {', '.join(filter(None, [r.verdict, r.levelling]))}"
            for r in told.itertuples()
        ]
        parts = parts or ["not enough evidence that any macro gap changed"]
        parts += [
            f"macro AUROC of everyone {summary.interval(r.change, r.low, r.high, sign=True)}: {r.verdict}"
            for r in cost.itertuples()
        ]
        sentences.append(f"{recipe} against {baseline}: {'; '.join(parts)}.")
    return sentences


def group_sizes(predictions: Predictions, attributes: list[str]) -> list[dict]:
    """Returns patients per group of each attribute as text, small cells hidden; crossings are not listed."""
    rows = []
    for attribute in predictions.attributes:
        if attribute.name not in attributes:
            continue
        counts = predictions.table.groupby(attribute.name)["patient_id"].nunique()
        counts = counts.reindex([*attribute.groups, UNKNOWN], fill_value=0).to_frame("patients")
        if not counts.loc[UNKNOWN, "patients"]:
            counts = counts.drop(index=UNKNOWN)
        text = suppress(counts, has_row_totals=False)
        rows += [{"attribute": attribute.name, "group": g, "patients": text.loc[g, "patients"]} for g in counts.index]
    return rows


def label_rows(metrics: pd.DataFrame, recipe: str, label_names: tuple[str, ...]) -> list[dict]:
    """Returns AUROC, TPR and FPR of each finding over everyone."""
    own = metrics[(metrics["recipe"] == recipe) & (metrics["attribute"] == OVERALL)]
    rows = []
    for label in (*label_names, MACRO, "micro"):
        cells = own[own["label"] == label].set_index("metric")
        rows.append({"label": label} | {m: _shown(cells, m) for m in SHOWN})
    return rows


def _shown(cells: pd.DataFrame, metric: str) -> str:
    if metric not in cells.index:
        return "–"
    cell = cells.loc[metric]
    if cell["n_class_patients"] < MIN_CELL:
        return f"under {MIN_CELL} patients"
    return summary.interval(cell["value"], cell["low"], cell["high"])


def operating_rows(predictions: Predictions) -> pd.DataFrame:
    """Returns TPR and FPR over everyone at 0.5 and at the decisions used, for findings with ten positive patients."""
    rows = []
    for i, label in enumerate(predictions.label_names):
        y = predictions.y_true[:, i]
        if predictions.table["patient_id"][y == 1].nunique() < MIN_CELL or predictions.decisions is None:
            continue
        half = decide(predictions.scores[:, i], 0.5)
        row = {"label": label}
        for name, decision in (("half", half), ("used", predictions.decisions[:, i])):
            row |= {f"tpr_{name}": true_positive_rate(y, decision), f"fpr_{name}": false_positive_rate(y, decision)}
        rows.append(row)
    return pd.DataFrame(rows, columns=["label", "tpr_half", "fpr_half", "tpr_used", "fpr_used"])


def group_rows(metrics: pd.DataFrame, recipe: str, attribute: str) -> list[dict]:
    """Returns per group the macro metrics and their differences from everyone else."""
    own = metrics[(metrics["recipe"] == recipe) & (metrics["label"] == MACRO) & (metrics["attribute"] == attribute)]
    return [summary.group_row(group, own[own["group"] == group].set_index("metric"), SHOWN) for group in own["group"].unique()]


def gap_rows(gaps: pd.DataFrame, recipe: str) -> list[dict]:
    """Returns the macro gaps, each beside the gap that noise alone would give."""
    own = gaps[(gaps["recipe"] == recipe) & (gaps["label"] == MACRO) & gaps["metric"].isin(GAP_METRICS)].dropna(subset=["gap"])
    return [
        {
            "attribute": r.attribute, "metric": r.metric.replace("_", " "), "gap": summary.interval(r.gap, r.low, r.high),
            "noise": f"{r.noise_gap:.3f}", "corrected": f"{r.corrected_gap:.3f}", "lowest": r.lowest_group,
            "highest": r.highest_group, "n_groups": r.n_groups, "n_labels": r.n_labels,
        }
        for r in own.itertuples()
    ]  # fmt: skip


def test_rows(tests: pd.DataFrame, recipe: str, confidence: float) -> list[dict]:
    """Returns the tests that stand after correction, smallest p-value first."""
    own = flagged(tests[(tests["recipe"] == recipe) & (tests["n_patients"] >= MIN_CELL)], confidence)
    return [
        {
            "label": r.label, "attribute": r.attribute, "metric": r.metric, "n_groups": r.n_groups, "p": _p(r.p_value),
            "adjusted": _p(r.p_adjusted), "bh": _p(r.p_benjamini_hochberg), "test": r.test,
        }
        for r in own.head(40).itertuples()
    ]  # fmt: skip


def _p(value: float) -> str:
    return "–" if np.isnan(value) else "under 0.0001" if value < 0.0001 else f"{value:.4f}"


def adjusted_rows(adjusted: pd.DataFrame, metrics: pd.DataFrame, recipe: str) -> list[dict]:
    """Returns macro differences from everyone else before and after the groups were reweighted to a common standard."""
    keys = ["attribute", "group", "metric"]
    own = adjusted[(adjusted["recipe"] == recipe) & (adjusted["label"] == MACRO) & adjusted["metric"].isin(SHOWN)]
    own = own[own["n_patients"] >= MIN_CELL]
    before = metrics[(metrics["recipe"] == recipe) & (metrics["label"] == MACRO)].set_index(keys)
    rows = []
    for r in own.itertuples():
        plain = before.loc[(r.attribute, r.group, r.metric)]
        rows.append(
            {
                "attribute": r.attribute, "group": r.group, "metric": r.metric, "adjusted_for": r.adjusted_for,
                "before": summary.interval(plain["difference"], plain["difference_low"], plain["difference_high"], sign=True),
                "after": r.note or summary.interval(r.difference, r.difference_low, r.difference_high, sign=True),
                "n_effective": f"{r.n_effective:,.0f}", "n": f"{r.n:,}",
            }
        )  # fmt: skip
    return rows


def comparison_rows(comparisons: pd.DataFrame) -> list[dict]:
    """Returns the macro changes of gaps and over everyone, with verdicts and who paid."""
    macro = comparisons[(comparisons["label"] == MACRO) & comparisons["metric"].isin([*SHOWN, EQUALIZED_ODDS])]
    macro = macro[(macro["attribute"] == OVERALL) | (macro["group"] == GAP)].dropna(subset=["change"])
    return [
        {
            "recipe": r.recipe,
            "what": f"macro {r.metric}, everyone" if r.attribute == OVERALL
            else f"gap of macro {r.metric.replace('_', ' ')} by {summary.readable(r.attribute)}",
            "change": summary.interval(r.change, r.low, r.high, sign=True), "p": _p(r.p_holm), "verdict": r.verdict,
            "levelling": r.levelling,
        }
        for r in macro.itertuples()
    ]  # fmt: skip
