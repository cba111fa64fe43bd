"""How MIMIC-IV's recorded race is sorted into groups: a table of rules that anyone can read and dispute."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from biascxr.cohort.base import NOT_RECORDED
from biascxr.cohort.race import ASIAN, BLACK, HISPANIC, MULTIPLE, NATIVE_AMERICAN, OTHER, PACIFIC, WHITE
from biascxr.containers import UNKNOWN


@dataclass(frozen=True)
class RaceRule:
    """What becomes of texts that begin with given words.

    Attributes:
        begins_with: upper-case words; they count as whole words, so `"ASIAN"` does not cover `"ASIANS"`.
        group: one of `biascxr.cohort.race.RACE_GROUPS`, or `"unknown"`.
        why: the reason for a choice that could have gone another way, or why the group is unknown.
        is_ambiguous: whether it could have gone another way; such records are counted in the notes.
    """

    begins_with: str
    group: str
    why: str = ""
    is_ambiguous: bool = False


# The first that fits applies, so named exceptions stand before the prefixes that would cover them. Version 1 of MIMIC-IV
# writes the groups themselves, which the same prefixes cover.
RULES = (
    RaceRule("WHITE - BRAZILIAN", WHITE, "recorded under WHITE first; Brazil is not of Spanish culture", True),
    RaceRule("PORTUGUESE", WHITE, "an origin in Europe is White by the United States' OMB standard of 1997", True),
    RaceRule("SOUTH AMERICAN", HISPANIC, "South American origin is Hispanic by the OMB standard of 1997", True),
    RaceRule("WHITE", WHITE),
    RaceRule("BLACK", BLACK),
    RaceRule("HISPANIC", HISPANIC),
    RaceRule("ASIAN", ASIAN),
    RaceRule("AMERICAN INDIAN", NATIVE_AMERICAN),
    RaceRule("NATIVE HAWAIIAN", PACIFIC),
    RaceRule("MULTIPLE RACE", MULTIPLE),
    RaceRule("MULTI RACE", MULTIPLE, "an older spelling"),
    RaceRule("OTHER", OTHER),
    RaceRule("UNKNOWN", UNKNOWN, NOT_RECORDED["UNKNOWN"]),
    RaceRule("UNABLE TO OBTAIN", UNKNOWN, NOT_RECORDED["UNABLE TO OBTAIN"]),
    RaceRule("PATIENT DECLINED", UNKNOWN, NOT_RECORDED["PATIENT DECLINED TO ANSWER"]),
)


@dataclass(frozen=True)
class SortedRaces:
    """Recorded texts in groups.

    Attributes:
        group: `[n] str`, the group or `"unknown"`.
        reason: `[n] str`, why a group is unknown; `""` where it is known.
        ambiguous: `[n] str`, the text where a rule that could have gone another way applied, else `""`.
        unforeseen: `[n] str`, the text where no rule applied (the group is then `"OTHER"`), else `""`.
    """

    group: pd.Series
    reason: pd.Series
    ambiguous: pd.Series
    unforeseen: pd.Series


def sort_races(recorded: pd.Series) -> SortedRaces:
    """Sorts recorded texts into groups by `RULES`; every text gets a group, or a reason why it has none."""
    codes, texts = pd.factorize(recorded)  # some thirty different texts among hundreds of thousands of records
    answers = [_sort_one(text) for text in texts]

    def column(which: int) -> pd.Series:
        return pd.Series(pd.Index([answer[which] for answer in answers], dtype=object).take(codes), index=recorded.index)

    return SortedRaces(*map(column, range(4))) if len(texts) else SortedRaces(*(recorded.astype(object) for _ in range(4)))


def _sort_one(text: str) -> tuple[str, str, str, str]:
    text = re.sub(r"\s+", " ", text.strip().upper())
    if text in NOT_RECORDED:
        return UNKNOWN, NOT_RECORDED[text], "", ""
    for rule in RULES:
        if re.match(rf"{re.escape(rule.begins_with)}(?!\w)", text):
            is_unknown = rule.group == UNKNOWN
            return rule.group, rule.why if is_unknown else "", text if rule.is_ambiguous else "", ""
    return OTHER, "", "", text


def race_rules_table() -> pd.DataFrame:
    """Returns the rules as a table: `recorded` (what a text begins with), `group`, `why`; for the documentation."""
    rows = [(f"{rule.begins_with}...", rule.group, rule.why) for rule in RULES]
    blanks = [(text or "(blank)", UNKNOWN, reason) for text, reason in NOT_RECORDED.items()]
    rest = ("anything else", OTHER, "no rule foresees it; counted in the notes")
    return pd.DataFrame([*rows, *blanks, rest], columns=["recorded", "group", "why"])


def race_notes(patient_id: pd.Series, races: SortedRaces) -> list[str]:
    """Returns the rules in words, and how many patients the debatable and the unforeseen texts concern.

    Args:
        patient_id: `[n]`, whose record it is.
        races: what the records were sorted into.
    """
    groups = dict.fromkeys(rule.group for rule in RULES if rule.group != UNKNOWN)
    covered = "; ".join(f"{group} from {', '.join(r.begins_with for r in RULES if r.group == group)}" for group in groups)
    notes = [f"Race groups by how the recorded text begins: {covered}. Texts that say nothing are unknown, not OTHER."]
    by_text = {rule.begins_with: rule for rule in RULES}
    for text, n in _patients_by(races.ambiguous, patient_id).items():
        rule = next(by_text[begin] for begin in by_text if text.startswith(begin))
        notes.append(f"{n:,} patients have a record of race {text!r}, counted as {rule.group}: {rule.why}.")
    for text, n in _patients_by(races.unforeseen, patient_id).items():
        notes.append(f"{n:,} patients have a record of race {text!r}, which no rule foresees: counted as {OTHER}.")
    return notes


def _patients_by(text: pd.Series, patient_id: pd.Series) -> dict[str, int]:
    said = text != ""
    return patient_id[said].groupby(text[said]).nunique().sort_index().to_dict()
