"""The answer in words: a few sentences made from the tables, each with its interval."""

from __future__ import annotations

import pandas as pd

from biascxr.audit import GAP, MACRO, OVERALL
from biascxr.audit.conclusions import flagged
from biascxr.report.inputs import ReportInputs
from biascxr.report.privacy import MIN_CELL


def interval(value: float, low: float, high: float, *, sign: bool = False) -> str:
    """Returns `0.81 (0.78 to 0.84)`; an en dash where undefined."""
    if pd.isna(value):
        return "–"

    def text(number: float) -> str:
        number = round(number, 3) + 0.0  # adding 0.0 turns -0.0 into 0.0
        return f"{number:+.3f}" if sign else f"{number:.3f}"

    return text(value) if pd.isna(low) else f"{text(value)} ({text(low)} to {text(high)})"


def readable(attribute: str) -> str:
    """Returns an attribute's name for people: recorded race, recorded sex; an age group is not recorded but cut."""
    return f"recorded {attribute}" if attribute in ("race", "sex", "insurance") else attribute.replace("_", " ")


def p_text(value: float) -> str:
    """Returns a p-value as text."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def performance_sentence(inputs: ReportInputs) -> str:
    """How well does the baseline find the findings?"""
    metrics = inputs.audit.metrics
    row = metrics[
        (metrics["recipe"] == inputs.baseline)
        & (metrics["label"] == MACRO)
        & (metrics["attribute"] == OVERALL)
        & (metrics["metric"] == "AUROC")
    ].iloc[0]
    if pd.isna(row["value"]):
        return "No finding has enough positive test patients to measure the plain classifier's AUROC."
    return (
        f"The plain classifier ({inputs.baseline}) reaches a macro AUROC of {interval(row['value'], row['low'], row['high'])} "
        f"over {int(row['n_labels'])} findings on {int(row['n_patients']):,} test patients."
    )


def unfairness_sentences(inputs: ReportInputs) -> list[str]:
    """Per attribute: which groups does the baseline serve differently, beyond what noise explains?"""
    metrics = inputs.audit.metrics
    own = metrics[(metrics["recipe"] == inputs.baseline) & (metrics["label"] == MACRO)]
    return group_sentences(own, inputs.audited)


def group_sentences(own: pd.DataFrame, attributes: list[str]) -> list[str]:
    """Returns a sentence per attribute on the macro differences of one recipe, from its rows of the audit's metrics."""
    sentences = []
    for attribute in attributes:
        rows = own[
            (own["attribute"] == attribute) & own["metric"].isin(["AUROC", "TPR", "FPR"]) & (own["n_patients"] >= MIN_CELL)
        ].dropna(subset=["difference"])
        off_zero = rows[(rows["difference_high"] < 0) | (rows["difference_low"] > 0)]
        if rows.empty:
            sentences.append(f"By {readable(attribute)}, no group has enough patients to be measured.")
        elif off_zero.empty:
            sentences.append(
                f"By {readable(attribute)}, no group's macro AUROC, TPR or FPR differs from everyone else's by more than its "
                "interval allows for; that is not proof of equality."
            )
        else:
            worst = off_zero.loc[off_zero["difference"].abs().sort_values(ascending=False).index]
            parts = [
                f"{row.group}: macro {row.metric} "
                f"{interval(row.difference, row.difference_low, row.difference_high, sign=True)}"
                for row in worst.head(4).itertuples()
            ]
            sentences.append(f"By {readable(attribute)}, these differ from everyone else: {'; '.join(parts)}.")
    return sentences


def tests_sentence(tests: pd.DataFrame, recipe: str, confidence: float) -> str:
    """Which tests of equal AUROC, TPR and FPR stand for a recipe, of all that were made?"""
    own = tests[tests["recipe"] == recipe]
    found, n = flagged(own, confidence), int(own["p_adjusted"].notna().sum())
    if n == 0:
        return "No finding has enough patients in two groups to test for equality."
    if found.empty:
        return f"None of {n:,} tests of equal AUROC, TPR or FPR stands after correction; that is not proof of equality."
    named = ", ".join(f"{r.metric} of {r.label} by {readable(r.attribute)}" for r in found.head(4).itertuples())
    more = f" and {len(found) - 4} more." if len(found) > 4 else "."
    stand = "stands" if len(found) == 1 else "stand"
    return f"{len(found)} of {n:,} tests of equal AUROC, TPR or FPR {stand} after correction for their number: {named}{more}"


def group_row(group: str, cells: pd.DataFrame, metrics: tuple[str, ...]) -> dict:
    """Returns a group's macro metrics and differences from everyone else as text; hidden under ten patients.

    Args:
        group: its name.
        cells: its macro rows, by metric.
        metrics: which to show.
    """
    if cells["n_patients"].max() < MIN_CELL:
        return {"group": group, "is_hidden": True}
    row = {"group": group, "is_hidden": False, "is_small": bool(cells["is_small"].any()), "n_labels": 0}
    for metric in metrics:
        if metric not in cells.index:
            row |= {metric: "–", f"{metric}_difference": "–", f"{metric}_is_off_zero": False}
            continue
        cell = cells.loc[metric]
        row[metric] = interval(cell["value"], cell["low"], cell["high"])
        row[f"{metric}_difference"] = interval(cell["difference"], cell["difference_low"], cell["difference_high"], sign=True)
        row[f"{metric}_is_off_zero"] = bool(cell["difference_low"] > 0 or cell["difference_high"] < 0)
        row["n_labels"] = max(row["n_labels"], int(cell["n_labels"]))
    return row


def remedy_sentence(inputs: ReportInputs) -> str:
    """Does a recipe narrow a gap of the macro TPR, and at what cost?"""
    table = inputs.audit.comparisons
    if len(table) == 0:
        return "Only the plain classifier was run, so no remedy is compared."
    gaps = table[(table["label"] == MACRO) & (table["group"] == GAP) & (table["metric"] == "TPR")]
    if gaps["change"].isna().all():
        return "No gap of the macro TPR between groups could be measured, so no remedy is compared on it."
    helped = gaps[gaps["verdict"] == "better"]
    if helped.empty:
        return (
            f"None of the {gaps['recipe'].nunique()} remedies narrows a gap of the macro TPR by more than its interval allows "
            "for: not enough evidence, on these patients and this one seed."
        )
    parts = []
    for row in helped.itertuples():
        cost = table[
            (table["recipe"] == row.recipe)
            & (table["label"] == MACRO)
            & (table["attribute"] == OVERALL)
            & (table["metric"] == "AUROC")
        ].iloc[0]
        parts.append(
            f"{row.recipe} narrows the TPR gap by {readable(row.attribute)} by {interval(-row.change, -row.high, -row.low)}, "
            f"with macro AUROC {interval(cost.change, cost.low, cost.high, sign=True)}"
        )
    return "; ".join(parts) + "."


def planted_sentence(inputs: ReportInputs) -> str | None:
    """In a made-up cohort: was the planted bias found?"""
    if inputs.truth is None:
        return None
    truth = inputs.truth
    group, strength = truth["disadvantaged_race"], truth["strength"]
    if strength == 0:
        return "This cohort is made up, and no bias is planted in it."
    planted = (
        f"This cohort is made up, with one planted bias: mechanism {truth['mechanism']!r}, strength {strength:g}, in {group}."
    )
    if truth["shows"] is None:
        return f"{planted} By itself it makes no gap: there is only less to learn from."
    (metric, sign), label = truth["shows"], truth["shows_on"]
    # Where the truth is known it decides: on recorded labels some biases cannot be seen.
    result, labels = (inputs.audit, "recorded") if inputs.reference is None else (inputs.reference, "true")
    m = result.metrics
    row = m[(m["recipe"] == inputs.baseline) & (m["label"] == label) & (m["attribute"] == "race") & (m["group"] == group)]
    row = row[row["metric"] == metric]
    if row.empty or pd.isna(row.iloc[0]["difference"]):
        return f"{planted} The audit could not measure that group."
    found = row.iloc[0]
    is_found = found["difference_high"] < 0 if sign < 0 else found["difference_low"] > 0
    place = f"{metric} of {label}" if label != MACRO else f"macro {metric}"
    verdict = "finds it" if is_found else "does not find it beyond its interval"
    return (
        f"{planted} The audit {verdict}: {place}, {group} minus everyone else on "
        f"{labels} labels, {interval(found['difference'], found['difference_low'], found['difference_high'], sign=True)}."
    )
