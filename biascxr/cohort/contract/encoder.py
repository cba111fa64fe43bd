"""The rule about encoders: one that has learned from test patients knows them, and every number on them is flattered."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from biascxr.cohort.contract.base import Evidence, Finding
from biascxr.cohort.contract.words import counted, some
from biascxr.containers import Cohort

PACKAGE = "biascxr"  # a card that names this package names no data set


def patient_digests(patient_ids: Iterable[str]) -> list[str]:
    """Returns what an encoder's card says about its training patients as `trained_on_patients`.

    SHA-256 keeps identifiers from being read by the way. It hides nothing from someone who tries all numbers of eight
    digits: a card made from credentialed data stays derived data.

    Args:
        patient_ids: patients, as often as they come.

    Returns:
        Hexadecimal digests, each once, in their own order.
    """
    return sorted({_digest(patient) for patient in patient_ids})


def encoder_saw_test_patients(evidence: Evidence) -> list[Finding]:
    """Finds test patients among an encoder's training patients; without a list, a training set that bears this one's name."""
    card = evidence.embeddings.card
    listed = card.get("trained_on_patients")
    if listed is None:
        return _by_name(evidence.cohort, card)
    listed = set(listed)
    seen = [patient for patient in _test_patients(evidence.cohort) if _digest(patient) in listed]
    if not seen:
        return []
    return [
        Finding(
            "encoder_saw_test_patients",
            is_error=True,
            count=len(seen),
            message=f"{counted(len(seen), 'test patient')} among those that the encoder was trained on.",
            advice="Use an encoder that has not seen them, or a split whose test part it has not seen.",
            examples=some(seen),
        )
    ]


def _by_name(cohort: Cohort, card: dict) -> list[Finding]:
    if not card.get("is_trained", True):
        return []
    stated = str(card.get("trained_on", ""))
    named = [word for word in data_set_words(cohort) if re.search(rf"(?<![a-z]){re.escape(word)}", stated, re.IGNORECASE)]
    if not named:
        return []
    n = len(_test_patients(cohort))
    return [
        Finding(
            "encoder_saw_test_patients",
            is_error=False,
            count=n,
            message=f"The encoder may have seen the {counted(n, 'test patient')}: it was trained on data named {named[0]}.",
            advice="Find out which patients it was trained on. An encoder trained here can list them in its card "
            "(trained_on_patients), which settles the question.",
        )
    ]


def data_set_words(cohort: Cohort) -> list[str]:
    """Returns the names of a cohort's data set, from the layout's own card: no table of data sets is kept here.

    They are the words of the line `Source: ...` that are written like names (MIMIC, CheXpert, ChestX, NIH: a capital inside
    the word), up to a hyphen, and the layout's own name where that line has it.
    """
    card = cohort.accounting.get("card", "")
    source = next((line for line in card.splitlines() if line.startswith("Source:")), "").removeprefix("Source:")
    words = re.findall(r"[A-Za-z][A-Za-z0-9]+", re.sub(r"-\w+", "", source))
    own = cohort.layout.split("_")[0].lower()
    named = [word for word in words if re.search(r"\w[A-Z]", word) or word.lower() == own]
    return list(dict.fromkeys(word for word in named if len(word) > 2 and word.lower() != PACKAGE))


def _test_patients(cohort: Cohort) -> list[str]:
    return cohort.table["patient_id"].iloc[cohort.split_rows("test")].drop_duplicates().tolist()


def _digest(patient: str) -> str:
    return hashlib.sha256(str(patient).encode()).hexdigest()
