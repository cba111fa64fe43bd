"""The attribute-input flip rate: how many decisions change if only the recorded attribute is another, and which way."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.trained import TrainedRecipe
from biascxr.mitigation.vector_table import VectorTable

DISPARATE_TREATMENT = (
    "Decisions of this recipe depend on what was recorded about the patient, not on the image alone: two patients with the "
    "same image may be decided upon differently. In some settings such use of an attribute is disparate treatment; it needs "
    "clinical and legal review before it touches care."
)
MACRO = "macro"
COLUMNS = ["label", "attribute", "value", "part", "n", "n_patients", "flip_rate", "to_positive", "to_negative"]


def attribute_flips(
    trained: TrainedRecipe, vectors: np.ndarray | VectorTable, attributes: pd.DataFrame, patient_id: np.ndarray
) -> pd.DataFrame:
    """Counts the decisions that change if one attribute input takes another value and everything else stays as it is.

    `flip rate = mean |d' - d|` over rows that are not of the value already; d is a row's decision as it is, d' the one with the
    attribute set to the value. For a rule that draws, d and d' are its probabilities of a flag: the rate is then what is
    expected when both decisions come from one draw. This is a test of what the model reads, not of what would be if the patient
    were another person: the image stays the same.

    Args:
        trained: a trained recipe.
        vectors: `[n, d]`, as the encoder gives them.
        attributes: `[n]` rows, one column per attribute; one that is used and not there is unknown for everyone.
        patient_id: `[n]`, whose rows they are.

    Returns:
        One row per finding (then `macro`, the mean of the findings that have decisions), attribute that the recipe uses, value
        it is set to (every group that the recipe knows, then `unknown`) and `part`: `scores` (what leads to the probability
        takes the value, the thresholds stay the row's own), `thresholds` (the other way round), `all` (both).
        `n` counts the rows that were not of the value, without undefined decisions, `n_patients` whose they are;
        `flip_rate`, `to_positive` (newly flagged) and `to_negative` are fractions of them, and the last two add up to the
        first; NaN where n is 0. No row where the recipe uses no attribute.
    """
    in_head, in_calibrators, in_rule = attributes_used(trained, attributes)
    values = merged([in_head, in_calibrators, in_rule])
    if not values:
        return pd.DataFrame(columns=COLUMNS)
    attributes = attributes.reset_index(drop=True)
    attributes = attributes.assign(**{name: UNKNOWN for name in values if name not in attributes})

    def flags(scores: np.ndarray, recorded: pd.DataFrame) -> np.ndarray:
        return trained.rule.flag_probability(scores, recorded, trained.label_names)

    raw = trained.raw_scores(vectors, attributes)
    scores = trained.calibrate(raw, attributes)
    as_it_is = flags(scores, attributes)
    rows = []
    for name, known in values.items():
        for value in (*sorted(known - {UNKNOWN}), UNKNOWN):
            changed = attributes.assign(**{name: value})
            # Of all rows, not only of those that change: a head's last digit depends on the batch a row stands in.
            new_raw = trained.raw_scores(vectors, changed) if name in in_head else raw
            moves_scores, moves_thresholds = name in in_head or name in in_calibrators, name in in_rule
            new_scores = trained.calibrate(new_raw, changed) if moves_scores else scores
            after = {
                "scores": flags(new_scores, attributes) if moves_scores else as_it_is,
                "thresholds": flags(scores, changed) if moves_thresholds else as_it_is,
            }
            both = moves_scores and moves_thresholds
            after["all"] = flags(new_scores, changed) if both else after["scores" if moves_scores else "thresholds"]
            others = (attributes[name] != value).to_numpy()
            n_patients = len(np.unique(patient_id[others].astype(str)))
            for part, flagged in after.items():
                shares = flip_shares(as_it_is[others], flagged[others])
                named = zip([*trained.label_names, MACRO], [*shares, macro(shares)], strict=True)
                about = {"attribute": name, "value": value, "part": part, "n_patients": n_patients}
                rows += [{"label": label, **about, **own} for label, own in named]
    return pd.DataFrame(rows, columns=COLUMNS)


def flip_shares(before: np.ndarray, after: np.ndarray) -> list[dict[str, float]]:
    """Returns `n, flip_rate, to_positive, to_negative` of each finding, from decisions `[n, L]` in [0, 1] or NaN."""
    shares = []
    for change in (after - before).T:
        change = change[~np.isnan(change)]
        up, down = (float(np.maximum(c, 0).mean()) if len(c) else float("nan") for c in (change, -change))
        shares.append({"n": len(change), "flip_rate": up + down, "to_positive": up, "to_negative": down})
    return shares


def macro(shares: list[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of the findings that have decisions; n is the largest of theirs."""
    defined = [own for own in shares if own["n"]]
    rates = ("flip_rate", "to_positive", "to_negative")
    means = {rate: float(np.mean([own[rate] for own in defined])) if defined else float("nan") for rate in rates}
    return {"n": max((own["n"] for own in defined), default=0), **means}


def attributes_used(trained: TrainedRecipe, table: pd.DataFrame) -> tuple[dict[str, set[str]], ...]:
    """Returns which attributes the head with its representations, the calibrators and the rule use: attribute -> known values.

    Args:
        trained: a trained recipe.
        table: `[n]` rows, one column per attribute; gives values where the recipe does not tell its own.
    """
    head = trained.head.demographics.groups if trained.head.demographics is not None else {}
    in_head = [{name: set(groups) for name, groups in head.items()}]
    for transform in trained.representations:
        if transform.uses_attributes:
            in_head += [cells.values() for cells in representation_cells(transform.state, table)]
    in_calibrators = [c.fitted_cells.values() for c in trained.calibrators]
    return merged(in_head), merged(in_calibrators), trained.rule.fitted_cells.values()


def representation_cells(state: dict[str, np.ndarray], table: pd.DataFrame) -> list[Cells]:
    """Returns the groups that a representation's arrays `attributes [k]` and `groups [k]` name; without them, any there are."""
    if "attributes" not in state or "groups" not in state:
        return [Cells.of(table, (name,)) for name in table]
    titles, groups = state["attributes"].astype(str), state["groups"].astype(str)
    return [Cells.named(title, tuple(groups[titles == title].tolist())) for title in dict.fromkeys(titles.tolist())]


def merged(parts: Iterable[dict[str, set[str]]]) -> dict[str, set[str]]:
    """Returns attribute -> values of all parts together."""
    together: dict[str, set[str]] = {}
    for part in parts:
        for name, values in part.items():
            together.setdefault(name, set()).update(values)
    return together
