"""Finding one's way in the tables of the leakage stage: the first recipe, its vectors, the probe that validation chose."""

from __future__ import annotations

import pandas as pd

from biascxr.leakage import MACRO, VECTORS, find_probe
from biascxr.leakage.result import FACT, LeakageResult

EVIDENCE = {
    "given_label": "score, given the label",
    "given_label_and_covariates": "score, given label and covariates",
    "frozen_head": "erased under the trained head",
    "retrained_linear": "erased, linear head trained anew",
    "retrained_mlp": "erased, deeper head trained anew",
}
MEASURES = {
    "auroc": "AUROC of the score for the group",
    "auroc_positives": "AUROC of the score for the group, positives only",
    "rms_logit_change": "change of the logit, in its deviations",
    "auroc_change": "change of AUROC",
    "log_loss_change": "change of log loss",
    "group_difference_change": "difference of groups, after less before",
    "auroc_change_marginal": "change of AUROC, erased",
    "auroc_change_conditional": "change of AUROC, erased given the label",
    "group_difference_change_marginal": "difference of groups, erased",
    "group_difference_change_conditional": "difference of groups, erased given the label",
}
REJECTED = 0.025  # either of two tests at half of 5%, as in biascxr.leakage.verdicts
READABLE = "readable_"  # then the probe and what was done to the vectors


def attributes_of(result: LeakageResult) -> list[str]:
    """Returns the attributes that were asked for, in order."""
    return list(dict.fromkeys([*result.readings["attribute"], *result.verdicts["attribute"]]))


def baseline(result: LeakageResult) -> str:
    """Returns the recipe whose verdicts are told first; empty where there are none."""
    return result.verdicts["recipe"].iloc[0] if len(result.verdicts) else ""


def representation_of(result: LeakageResult, recipe: str) -> str:
    """Returns where a recipe's head reads from: its own transformed vectors, or the vectors as they came."""
    return recipe if recipe in set(result.readings["representation"]) else VECTORS


def verdict_row(result: LeakageResult, recipe: str, attribute: str) -> pd.Series | None:
    """Returns the row of a recipe and attribute in the verdicts, or None."""
    table = result.verdicts
    found = table[(table["recipe"] == recipe) & (table["attribute"] == attribute)]
    return found.iloc[0] if len(found) else None


def chosen_probe(result: LeakageResult, recipe: str, attribute: str) -> str:
    """Returns the probe that read best on validation patients (never the best on test).

    Args:
        result: the tables.
        recipe: a recipe, for what its last layer takes, or "vectors".
        attribute: the attribute.

    Returns:
        Its name; where no validation value is known, the probe of the verdict, and without one the first that was asked.
    """
    rows = reading_rows(result, representation_of(result, recipe), attribute)
    rows = rows[(rows["control"] == "none") & (rows["group"] == MACRO) & (rows["probe"] != "encoder")]
    if rows["validation_auroc"].notna().any():
        return rows.loc[rows["validation_auroc"].idxmax(), "probe"]
    row = verdict_row(result, baseline(result) if recipe == VECTORS else recipe, attribute)
    probes = list(rows["probe"])
    return row["probe"] if row is not None and row["probe"] in probes else (probes or [""])[0]


def reading_rows(result: LeakageResult, representation: str, attribute: str) -> pd.DataFrame:
    """Returns all readings of an attribute from one representation."""
    table = result.readings
    return table[(table["representation"] == representation) & (table["attribute"] == attribute)]


def reading(
    result: LeakageResult, representation: str, attribute: str, probe: str, *, control: str = "none", group: str = MACRO
) -> pd.Series | None:
    """Returns one row of the readings, or None."""
    rows = reading_rows(result, representation, attribute)
    rows = rows[(rows["probe"] == probe) & (rows["control"] == control) & (rows["group"] == group)]
    return rows.iloc[0] if len(rows) else None


def controls_of(result: LeakageResult, best: pd.Series) -> pd.DataFrame:
    """Returns a reading with its controls, macro."""
    rows = reading_rows(result, best["representation"], best["attribute"])
    is_fact = rows["control"].str.startswith(FACT)
    return rows[(rows["probe"] == best["probe"]) & (rows["group"] == MACRO) & ~is_fact]


def telling_facts(result: LeakageResult, best: pd.Series) -> pd.DataFrame:
    """Returns how well each recorded fact alone tells an attribute's groups apart, the best first: `fact, auroc, low, high`."""
    rows = reading_rows(result, best["representation"], best["attribute"])
    rows = rows[rows["control"].str.startswith(FACT) & (rows["auroc"] > 0.5)].sort_values("auroc", ascending=False)
    return rows.assign(fact=rows["control"].str.removeprefix(FACT))[["fact", "auroc", "low", "high"]]


def probe_title(probe: str) -> str:
    """Returns a probe's name for people."""
    return "Image network" if probe == "encoder" else find_probe(probe).title


def best_reading(result: LeakageResult, recipe: str, attribute: str) -> pd.Series | None:
    """Returns the macro row of `chosen_probe`, or None; `recipe` may be "vectors"."""
    return reading(result, representation_of(result, recipe), attribute, chosen_probe(result, recipe, attribute))


def main_row(rows: pd.DataFrame) -> pd.Series:
    """Returns the row of one kind of evidence to tell: of those that reject, if any do, else of all, the one farthest off.

    Means over findings go first. Of the measures, the one that stands first and, of rankings, that among positives: they are
    what the verdict is made from. p-values are corrected over findings and groups already.

    Args:
        rows: of one recipe, attribute and kind of evidence, one at least.
    """
    evidence, first = rows["evidence"].iloc[0], rows["measure"].iloc[0]
    is_first = rows["measure"] == first
    rejecting = rows[(rows["p_value"] < REJECTED) & (is_first | (rows["measure"] == "auroc_positives"))]
    rows = rejecting if len(rejecting) else rows[is_first]
    macro = rows[rows["label"] == MACRO]
    rows = macro if len(macro) else rows
    return rows.loc[(rows["value"] - no_effect(evidence, first)).abs().idxmax()]


def no_effect(evidence: str, measure: str) -> float:
    """Returns the value that means no effect: .5 for a ranking or a reading, 0 for a change."""
    return 0.5 if evidence.startswith("given_label") or measure.startswith(READABLE) else 0.0


def measure_words(measure: str) -> str:
    """Returns a measure for people."""
    if measure.startswith(READABLE):
        probe, done = measure.removeprefix(READABLE).rsplit("_", 1)
        after = {"before": "before", "marginal": "erased", "conditional": "erased given the label"}.get(done, done)
        return f"{probe_title(probe)}, {after}"
    return MEASURES.get(measure, measure.replace("_", " "))
