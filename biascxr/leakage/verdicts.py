"""One verdict per recipe and attribute, from what probes read and what predictions depend on, with its reason in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.errors import InputError
from biascxr.leakage import MACRO
from biascxr.leakage.result import COLUMNS, VERDICTS

NOT_DETECTED, UNUSED, USED, INCONCLUSIVE = VERDICTS
GIVEN, GIVEN_MORE, FROZEN = "given_label", "given_label_and_covariates", "frozen_head"
LEAST_EFFECT = 0.1  # of a logit's deviation: less than 1% of its variance goes with what was erased


@dataclass(frozen=True)
class _Finding:
    """One of the two questions answered: True yes, False no (shown to be small), None undecided."""

    answer: bool | None
    words: str
    evidence: tuple[str, ...] = ()


def verdict(
    readings: pd.DataFrame,
    dependence: pd.DataFrame,
    *,
    margin: float = 0.55,
    dependence_margin: float = 0.05,
    alpha: float = 0.05,
    least_effect: float = LEAST_EFFECT,
) -> dict:
    """Decides, by rules fixed beforehand, whether an attribute is encoded and whether predictions depend on it.

    Encoded. The probe with the best validation AUROC (column `validation_auroc`; never the best on test) has a shuffle
    p-value below alpha and a lower limit above .5. Where readings have no such column, the probe with the smallest p-value
    speaks and alpha is divided by the number of probes. A single group counts too, with alpha divided by the number of groups
    on top, where its lower limit is above .5 and its upper limit at `margin` or above: a small group that is readable
    hardly moves the mean.

    Not detected. The upper limit of *every* probe's macro AUROC lies below `margin`, and no single group is encoded. A
    significant reading of .52 is then still "not detected": the margin, not the sample's size, says what counts.

    If encoded, predictions depend on it where either test rejects, each at half of alpha:

    - given label: the smallest p-value (they are adjusted over findings and groups) is below alpha / 2, and not all
      simultaneous intervals lie within .5 +- `dependence_margin`. Rows that also hold covariates fixed are used where there
      are any, as age or view may explain what the label does not.
    - frozen head: erasing the attribute changes logits more than all but alpha / 4 of the random subspaces, macro or some
      finding (whose p-values are adjusted over the findings), with a lower limit above `least_effect`.

    No dependence found: neither rejects; all simultaneous intervals of measure `auroc` lie within the margin; and where the
    head could be opened, every change is either no larger than its control or, by its upper limit, below `least_effect`.
    `auroc_positives` can reject but need not be equivalent: with some hundred positives no interval would be narrow enough.

    If not detected, and yet predictions depend: inconclusive, as what these probes cannot read may still be used (or the
    head takes the attribute as an input, or groups differ in severity).

    Args:
        readings: rows of `readings.csv` of one representation and attribute; those with control `none` are used.
        dependence: rows of `dependence.csv` of one recipe and attribute; none is allowed.
        margin: of the macro AUROC, in (.5, 1).
        dependence_margin: of the AUROC given the label, either side of .5.
        alpha: level of the whole verdict's "encoded", and of its "depends".
        least_effect: RMS change of a logit, in its deviations, that counts as one.

    Returns:
        A row of `verdicts.csv`. `probe, auroc, low, high, p_value` are of the reading that decided: for "not detected", of the
        probe with the highest upper limit. `evidence`: what the second answer rests on, joined by "; ".

    Raises:
        InputError: no readings with control `none`, or rows of several attributes, representations or recipes.
    """
    own = readings[readings["control"] == "none"]
    _check_one(own, dependence)
    encoded, chosen = _is_encoded(own, margin, alpha)
    depends = _depends(dependence, dependence_margin, alpha, least_effect)
    if encoded.answer is False:
        is_contradicted = depends.answer is True
        name = INCONCLUSIVE if is_contradicted else NOT_DETECTED
        words = f"{encoded.words}; and yet {depends.words}" if is_contradicted else encoded.words
        evidence = depends.evidence if is_contradicted else ()
    elif encoded.answer is None:
        name, words, evidence = INCONCLUSIVE, encoded.words, ()
    else:
        name = {True: USED, False: UNUSED, None: INCONCLUSIVE}[depends.answer]
        words, evidence = f"{encoded.words}; {depends.words}", depends.evidence
    recipe = dependence["recipe"].iloc[0] if len(dependence) else own["representation"].iloc[0]
    row = {"recipe": recipe, "attribute": own["attribute"].iloc[0], "verdict": name, "probe": chosen["probe"]}
    row |= {key: float(chosen[key]) for key in ("auroc", "low", "high", "p_value")}
    row |= {"margin": margin, "evidence": "; ".join(evidence), "reason": words[0].upper() + words[1:] + "."}
    return {key: row[key] for key in COLUMNS["verdicts"]}


def _check_one(readings: pd.DataFrame, dependence: pd.DataFrame) -> None:
    if not (readings["group"] == MACRO).any():
        raise InputError("readings must hold a row with control none and group macro; run the probes first.")
    for table, names in ((readings, ("representation", "attribute")), (dependence, ("recipe", "attribute"))):
        for name in names:
            if table[name].nunique() > 1:
                raise InputError(f"A verdict is of one {name}; got {sorted(table[name].unique())}. Filter the rows first.")
    if len(dependence) and dependence["attribute"].iloc[0] != readings["attribute"].iloc[0]:
        raise InputError(
            f"readings and dependence must be of one attribute; got {readings['attribute'].iloc[0]!r} and "
            f"{dependence['attribute'].iloc[0]!r}."
        )


def _is_encoded(readings: pd.DataFrame, margin: float, alpha: float) -> tuple[_Finding, pd.Series]:
    macro = readings[readings["group"] == MACRO]
    by_validation = "validation_auroc" in macro and macro["validation_auroc"].notna().any()
    if by_validation:
        chosen = macro.loc[macro["validation_auroc"].idxmax()]
    else:
        alpha = alpha / len(macro)
        chosen = macro.sort_values(["p_value", "low"], ascending=[True, False]).iloc[0]
    groups = readings[(readings["group"] != MACRO) & (readings["probe"] == chosen["probe"])]
    level = alpha / max(len(groups), 1)
    single = groups[(groups["p_value"] < level) & (groups["low"] > 0.5) & (groups["high"] >= margin)]

    def figures(row: pd.Series) -> str:
        return f"AUROC {row['auroc']:.2f}, {row['low']:.2f} to {row['high']:.2f}"

    attribute = f"recorded {chosen['attribute'].replace('_', ' ')}"
    is_below = bool((macro["high"] < margin).all())
    if is_below and single.empty:
        highest = macro.loc[macro["high"].idxmax()]
        words = (
            f"no probe reads {attribute} from the vector beyond the margin of {margin:g}: the highest upper limit is "
            f"{highest['high']:.2f} ({highest['probe']})"
        )
        wide = groups[~(groups["high"] < margin)]
        if len(wide):
            words += f", as the mean over groups; too few patients to say it of {', '.join(wide['group'])} alone"
        return _Finding(False, words), highest
    if chosen["p_value"] < alpha and chosen["low"] > 0.5 and not is_below:
        return _Finding(True, f"{attribute} is readable from the vector ({chosen['probe']}: {figures(chosen)})"), chosen
    if len(single):
        best = single.loc[single["low"].idxmax()]
        words = (
            f"of {attribute}, {best['group']} is readable from the vector ({best['probe']}: {figures(best)}), the mean is not"
        )
        return _Finding(True, words), best
    words = f"whether {attribute} is readable from the vector stays open ({chosen['probe']}: {figures(chosen)}, shuffle p = "
    return _Finding(None, f"{words}{chosen['p_value']:.3g})"), chosen


def _depends(table: pd.DataFrame, margin: float, alpha: float, least_effect: float) -> _Finding:
    evidence = GIVEN_MORE if (table["evidence"] == GIVEN_MORE).any() else GIVEN
    parts = [
        _given(table[table["evidence"] == evidence], margin, alpha),
        _frozen(table[table["evidence"] == FROZEN], alpha, least_effect),
    ]
    used = [part for part in parts if part is not None]
    if not used:
        return _Finding(None, "whether predictions depend on it was not measured")
    answers = [part.answer for part in used]
    # The frozen head alone shows no absence: scores may differ between groups by what it does not erase.
    is_absent = parts[0] is not None and all(answer is False for answer in answers)
    if True in answers:
        answer, lead = True, "predictions depend on it"
    elif is_absent:
        answer, lead = False, "no dependence of predictions was found"
    else:
        answer, lead = None, "whether predictions depend on it stays open"
    decisive = [part for part in used if part.answer is answer] or used
    words = f"{lead}: {', and '.join(part.words for part in decisive)}"
    return _Finding(answer, words, tuple(name for part in decisive for name in part.evidence))


def _given(rows: pd.DataFrame, margin: float, alpha: float) -> _Finding | None:
    unmeasured = rows[(rows["measure"] == "auroc") & (rows["label"] != MACRO) & rows["p_value"].isna()]
    rows = rows[rows["p_value"].notna()]
    if rows.empty:
        return None
    evidence = (rows["evidence"].iloc[0],)
    ranking = rows[rows["measure"] == "auroc"]
    is_within = (rows["low"] > 0.5 - margin) & (rows["high"] < 0.5 + margin)
    # Of the rows that reject, the one farthest from one half; of all others the widest.
    rejecting = rows[(rows["p_value"] < alpha / 2) & ~is_within]
    given = "of one label" if evidence[0] == GIVEN else "of one label and the same covariates"
    if len(rejecting):
        worst = rejecting.loc[(rejecting["value"] - 0.5).abs().idxmax()]
        label = "on average over findings" if worst["label"] == MACRO else f"for {worst['label']}"
        words = (
            f"among patients {given}, {worst['group']} outranks the others {worst['value']:.0%} of the time {label} "
            f"({worst['low']:.2f} to {worst['high']:.2f}, adjusted p = {worst['p_value']:.2g})"
        )
        return _Finding(True, words, evidence)
    limits = np.r_[0.5 - ranking["low"], ranking["high"] - 0.5]
    farthest = f"simultaneous limits of {limits.max():.3f} either side of one half" if len(limits) else "no interval"
    words = f"among patients {given}, how groups rank by the score has {farthest} at the widest (margin {margin:g})"
    if len(unmeasured):
        words += f"; too few patients to say it of {', '.join(sorted(set(unmeasured['group'])))} in every finding"
    is_equivalent = len(ranking) > 0 and bool(is_within[ranking.index].all())
    return _Finding(False if is_equivalent else None, words, evidence)


def _frozen(rows: pd.DataFrame, alpha: float, least_effect: float) -> _Finding | None:
    rows = rows[(rows["measure"] == "rms_logit_change") & rows["p_value"].notna()]
    if rows.empty:
        return None
    is_above = rows["p_value"] < alpha / 4
    used = rows[is_above & (rows["low"] > least_effect)]
    if len(used):
        worst = used[used["label"] == MACRO] if (used["label"] == MACRO).any() else used.nlargest(1, "value")
        row = worst.iloc[0]
        what = "logits" if row["label"] == MACRO else f"the logit of {row['label']}"
        words = (
            f"erasing it below the last layer changes {what} by {row['value']:.2f} deviations, more than random directions do "
            f"(up to {row['control_high']:.2f}, p = {row['p_value']:.2g})"
        )
        return _Finding(True, words, (FROZEN,))
    macro = rows[rows["label"] == MACRO]
    shown = (macro if len(macro) else rows.nlargest(1, "value")).iloc[0]
    words = (
        f"erasing it below the last layer changes logits by {shown['value']:.2f} deviations, random directions by up to "
        f"{shown['control_high']:.2f}"
    )
    is_small = ~is_above | (rows["high"] < least_effect)
    return _Finding(False if bool(is_small.all()) else None, words, (FROZEN,))
