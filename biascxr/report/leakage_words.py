"""Leakage in words: per attribute the verdict, how well it is read, how much of that is merely age, view or labels, and use."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from biascxr.leakage import MACRO, VECTORS
from biascxr.leakage.result import LeakageResult
from biascxr.report.leakage_anew import HEADS, anew_sentences
from biascxr.report.leakage_lookup import (
    EVIDENCE,
    baseline,
    best_reading,
    controls_of,
    main_row,
    measure_words,
    probe_title,
    reading,
    reading_rows,
    representation_of,
    telling_facts,
    verdict_row,
)
from biascxr.report.leakage_shown import group_sizes, lost_attributes
from biascxr.report.privacy import MIN_CELL
from biascxr.report.summary import interval, p_text, readable

CAUTIONS = (
    "That an attribute is not detected is a claim of equivalence: the upper limits of all probes lie below the stated "
    "margin. It holds for these probes and this many patients, and shows of no film that nothing is there to be read.",
    "Dependence is not harm: predictions may depend on an attribute because disease, age or view go with it, and that a model "
    "encodes it does not show that it errs because of it (Glocker et al. 2023). Whether groups are served worse is measured on "
    "the predictions themselves.",
)
STRATA = {
    "label": "labels", "view": "view", "age_group": "age group", "sex": "recorded sex", "portable": "machine (portable or not)",
}  # fmt: skip
HALF = 0.5  # a stratum that leaves less than this share of what lies above .5 takes most of the reading with it
MOST, LITTLE = 0.75, 0.25
MOST_FACTS = 3


@dataclass(frozen=True)
class AttributeAnswer:
    """What is said of one attribute; a part that was not measured is empty.

    Attributes:
        attribute: its name.
        verdict: as in the table of verdicts; empty where there is none.
        headline: the verdict in a line.
        read: how well it is read.
        merely: how much of that is merely age, sex, view, machine or labels.
        use: whether predictions depend on it.
    """

    attribute: str
    verdict: str
    headline: str
    read: str = ""
    merely: str = ""
    use: str = ""


def answer(result: LeakageResult, attribute: str) -> AttributeAnswer:
    """Says what was found about an attribute, for the first recipe.

    Args:
        result: tables that `shareable` has been over.
        attribute: the attribute.
    """
    name = capital(readable(attribute))
    if attribute in lost_attributes(result.readings):
        said = f"fewer than two groups have {MIN_CELL} test patients, so nothing is shown"
        return AttributeAnswer(attribute, "", f"{name}: {said}.")
    recipe = baseline(result)
    best = best_reading(result, VECTORS, attribute)
    if best is None or pd.isna(best["auroc"]):
        return AttributeAnswer(attribute, "", f"{name}: could not be measured, no two known groups to tell apart.")
    row = verdict_row(result, recipe, attribute)
    verdict = "" if row is None else row["verdict"]
    own = representation_of(result, recipe) != VECTORS  # the verdict is then about what the head's last layer takes
    read = [
        reading_sentence(result, best, None if own else row),
        head_sentence(result, recipe, attribute) if own else "",
        encoder_sentence(result, attribute),
        time_sentence(result, attribute),
    ]
    return AttributeAnswer(
        attribute,
        verdict,
        f"{name}: {verdict or 'no verdict'}.",
        read=" ".join(filter(None, read)),
        merely=" ".join(control_sentences(result, best)),
        use=" ".join([dependence_sentence(result, recipe, attribute, verdict), *anew_sentences(result, attribute)]),
    )


def short_answer(result: LeakageResult, attribute: str) -> str:
    """Returns the verdict of an attribute with its figure, in a sentence."""
    made = answer(result, attribute)
    if not made.read:
        return made.headline
    best = best_reading(result, VECTORS, attribute)
    value = interval(best["auroc"], best["low"], best["high"])
    return (
        f"{made.headline[:-1]} ({probe_title(best['probe'])}: {_auroc(result, attribute)} {value}; {_shuffled(result, best)})."
    )


def reading_sentence(result: LeakageResult, best: pd.Series, verdict: pd.Series | None) -> str:
    """How well does the probe that the verdict rests on read it?"""
    attribute, probe = best["attribute"], probe_title(best["probe"])
    value = f"{_auroc(result, attribute)} of {interval(best['auroc'], best['low'], best['high'])}"
    test = "" if pd.isna(best["p_value"]) else f" ({p_text(best['p_value'])})"
    value += f", where 0.5 is chance and {_shuffled(result, best)}{test}"
    patients = f"{int(best['n_patients']):,} test patients"
    if verdict is not None and verdict["verdict"] == "not detected":
        return (
            f"No probe reads it from the vectors of {patients} beyond the margin of {verdict['margin']:g}: {probe}, whose "
            f"upper limit is the highest, has {_article(value)}."
        )
    others = reading_rows(result, best["representation"], attribute)
    own = others.loc[(others["probe"] != "encoder") & (others["control"] == "none"), "probe"]
    is_chosen = (verdict is not None or pd.notna(best["validation_auroc"])) and own.nunique() > 1
    chosen = ", the best probe on validation patients," if is_chosen else ""
    return f"{capital(probe)}{chosen} reads it from the vectors of {patients} with {_article(value)}."


def head_sentence(result: LeakageResult, recipe: str, attribute: str) -> str:
    """What is left of it where a recipe's last layer reads?"""
    row = best_reading(result, recipe, attribute)
    if row is None or pd.isna(row["auroc"]):
        return ""
    value = _article(f"{_auroc(result, attribute)} of {interval(row['auroc'], row['low'], row['high'])}")
    probe = probe_title(row["probe"])
    return f"From what the last layer of {recipe} takes, which the verdict is about, {probe} reads it with {value}."


def encoder_sentence(result: LeakageResult, attribute: str) -> str:
    """What does an image network that was trained for the attribute itself read?"""
    row = reading(result, VECTORS, attribute, "encoder")
    if row is None or pd.isna(row["auroc"]):
        return ""
    value = interval(row["auroc"], row["low"], row["high"])
    return f"An image network trained for {readable(attribute)} itself reaches {value}, the upper bound to compare with."


def control_sentences(result: LeakageResult, best: pd.Series) -> list[str]:
    """How much of what is read is merely age, view, labels and the like?"""
    found = {row["control"]: row for _, row in controls_of(result, best).iterrows()}
    sentences = []
    alone = found.get("covariates")
    if alone is not None and pd.notna(alone["auroc"]):
        sentences += [_alone(best, alone), _which_facts(telling_facts(result, best))]
    shown = {
        name: row for name, row in found.items()
        if (name.startswith("within_") or name == "reweighted") and pd.notna(row["auroc"])
    }  # fmt: skip
    within = [
        f"the same {STRATA.get(what, what.replace('_', ' '))} {interval(row['auroc'], row['low'], row['high'])}"
        for what, row in ((name.removeprefix("within_"), row) for name, row in shown.items() if name != "reweighted")
    ]
    parts = [f"ranked only among films of {', of '.join(within)}"] if within else []
    if "reweighted" in shown:
        row = shown["reweighted"]
        alike = interval(row["auroc"], row["low"], row["high"])
        parts.append(f"reweighted so that groups are alike in recorded facts {alike}")
    if parts:
        sentences.append(capital("; ".join(parts)) + ".")
    sentences += _confounding(best, shown)
    if "reweighted" in found and pd.isna(found["reweighted"]["auroc"]):
        sentences.append("Films could not be reweighted to make the groups alike: they overlap too little.")
    return list(filter(None, sentences))


def _which_facts(facts: pd.DataFrame) -> str:
    """Which recorded facts go with the groups? The three highest, with intervals: of many facts some are high by luck."""
    said = [f"{row.fact} {interval(row.auroc, row.low, row.high)}" for row in facts.head(MOST_FACTS).itertuples()]
    if not said:
        return ""
    lead = (
        "Highest of these facts by themselves"
        if (facts["low"] > 0.5).any()
        else "None of these facts is shown to tell by itself; highest"
    )
    return f"{lead}: {', '.join(said)}."


def _alone(best: pd.Series, alone: pd.Series) -> str:
    made_of = {"age_group": "age"}.get(best["attribute"], best["attribute"])
    names = [n for n in ("age", "recorded sex", "view", "portable") if n.removeprefix("recorded ") != made_of]
    what = f"what else is recorded ({', '.join(names)} and labels, as far as the table has them)"
    value = interval(alone["auroc"], alone["low"], alone["high"])
    if alone["low"] <= 0.5:
        return f"From {what}, without any film, it is not shown to be readable: {value}."
    had = f"Of the {best['auroc']:.3f}, {value} can be had from {what} without any film"
    if best["low"] <= 0.5:
        return f"From {what}, without any film, it is read with {value}."
    share = (alone["auroc"] - 0.5) / (best["auroc"] - 0.5)
    if share >= 1:
        return f"{had}: the vectors are not shown to add to it."
    if share >= MOST:
        return f"{had}: most of what is read may be that."
    return f"{had}: {'little' if share < LITTLE else 'part'} of what lies above chance."


def _confounding(best: pd.Series, shown: dict[str, pd.Series]) -> list[str]:
    """Says where ranking within a stratum takes most of the reading away: beyond both intervals, and by more than half."""
    far = [
        name for name, row in shown.items()
        if name != "reweighted" and row["high"] < best["low"] and row["auroc"] - 0.5 < HALF * (best["auroc"] - 0.5)
    ]  # fmt: skip
    sentences = []
    for name in far:
        what = STRATA.get(name.removeprefix("within_"), name.removeprefix("within_").replace("_", " "))
        left = "what is left is still above chance" if shown[name]["low"] > 0.5 else "nothing above chance is shown to be left"
        sentences.append(
            f"Among films of the same {what} it falls far below the overall value: what is read may be the {what}, "
            f"with which {readable(best['attribute'])} goes together in these data; {left}."
        )
    return sentences


def dependence_sentence(result: LeakageResult, recipe: str, attribute: str, verdict: str) -> str:
    """Do predictions depend on it, and by which evidence?"""
    table = result.dependence
    table = table[(table["recipe"] == recipe) & (table["attribute"] == attribute)].dropna(subset=["value"])
    table = table[table["evidence"].isin(set(EVIDENCE) - set(HEADS))]  # heads trained anew have sentences of their own
    if table.empty:
        return "Whether predictions depend on it was not asked, or could not be measured."
    row = verdict_row(result, recipe, attribute)
    there = [e for e in EVIDENCE if e in set(table["evidence"])]
    named = set(re.split(r"[^a-z_]+", "" if row is None else row["evidence"]))
    given = [e for e in there if e.startswith("given_label")][-1:]  # with covariates, where they were held fixed too
    used = [e for e in there if e in named] or [*given, *(e for e in there if e == "frozen_head")] or there[:1]
    lead = {
        "encoded, predictions depend on it": f"Predictions of {recipe} depend on it",
        "encoded, no dependence found": f"No dependence of the predictions of {recipe} was found",
        "inconclusive": f"Whether predictions of {recipe} depend on it stays open",
    }.get(verdict, f"Predictions of {recipe}")
    return f"{lead}: {'; '.join(evidence_phrase(table[table['evidence'] == e], e) for e in used)}."


def evidence_phrase(rows: pd.DataFrame, evidence: str) -> str:
    """Says what one kind of evidence shows: what it rejects by, else the mean over findings."""
    row = main_row(rows)
    of = "" if row["label"] in ("", MACRO) else f" of {row['label']}"
    value = interval(row["value"], row["low"], row["high"])
    p = "" if pd.isna(row["p_value"]) else f" ({p_text(row['p_value'])})"
    if evidence.startswith("given_label"):
        margin = row["margin"]
        within = "" if pd.isna(margin) else f" and {0.5 - margin:.2f} to {0.5 + margin:.2f} the margin"
        alike = "the same label" if evidence == "given_label" else "the same label and recorded covariates"
        alike = f"{alike}, positives only" if row["measure"] == "auroc_positives" else alike
        side = "above" if row["value"] >= 0.5 else "below"
        does = "tells the groups apart" if row["group"] in ("", MACRO) else f"ranks {row['group']} {side} the others"
        return f"among films of {alike}, the score{of} {does} with an AUROC of {value}, 0.5 being independence{within}{p}"
    control = row["control_low"], row["control_high"]
    aside = p if pd.isna(control[0]) else f", random directions by {control[0]:.3f} to {control[1]:.3f}{p}"
    if row["measure"] == "rms_logit_change":
        where = "the logits" if not of else f"the logit{of}"
        return f"erasing it under the trained head changes {where} by {value} deviations{aside}"
    return f"{EVIDENCE.get(evidence, evidence)}: {measure_words(row['measure'])}{of} {value}{aside}"


def time_sentence(result: LeakageResult, attribute: str) -> str:
    """Can a patient be in two groups, as when age advances or the view changes?"""
    sizes = group_sizes(result.readings)
    own = sizes[sizes["attribute"] == attribute]
    if len(own) == 0 or own["n_group"].sum() <= own["n"].max():
        return ""
    return "A patient can be in two of its groups, so the shuffle test, which moves patients whole, is rough."


def _auroc(result: LeakageResult, attribute: str) -> str:
    sizes = group_sizes(result.readings)
    return "macro AUROC" if (sizes["attribute"] == attribute).sum() > 2 else "AUROC"


def _shuffled(result: LeakageResult, best: pd.Series) -> str:
    row = reading(result, best["representation"], best["attribute"], best["probe"], control="shuffled")
    if row is None or pd.isna(row["low"]):
        return "no shuffled control was made"
    return f"the attribute shuffled among the patients gives {row['low']:.3f} to {row['high']:.3f}"


def _article(value: str) -> str:
    return f"an {value}" if value.startswith("AUROC") else f"a {value}"


def capital(text: str) -> str:
    """Returns a text with its first letter in capitals."""
    return text[0].upper() + text[1:]
