"""Rules about patients: one part of the split each, one value of what does not change, ages that a person can have."""

from __future__ import annotations

from biascxr.age_groups import MAX_AGE, impossible_ages
from biascxr.cohort.contract.base import Evidence, Finding
from biascxr.cohort.contract.words import counted, some
from biascxr.cohort.split import SPLIT_NAMES


def patient_in_two_splits(evidence: Evidence) -> list[Finding]:
    """Finds patients in several parts of the table's own split: an error where that split is in use.

    All rows count, also those that selection will leave out: a lateral film on the other side is a sign that the split was
    drawn by image. Rows without a patient or a part say nothing.
    """
    table = evidence.parsed.table
    if "split" not in table:
        return []
    split = table["split"].map(SPLIT_NAMES).fillna(table["split"])
    said = table.assign(split=split)[(split != "") & (table["patient_id"] != "")]
    pairs = said[["patient_id", "split"]].drop_duplicates()
    in_two = pairs["patient_id"][pairs["patient_id"].duplicated()].drop_duplicates()
    if in_two.empty:
        return []
    unused = "" if evidence.split_is_used else ", which is not in use here"
    return [
        Finding(
            "patient_in_two_splits",
            is_error=evidence.split_is_used,
            count=len(in_two),
            message=f"{counted(len(in_two), 'patient')} in more than one part of the table's own split{unused}.",
            advice="A test part that shares patients with training flatters every model: use --split_source random (drawn by "
            "patient), or mend the table.",
            examples=some(in_two),
        )
    ]


def constant_attribute_changes(evidence: Evidence) -> list[Finding]:
    """Finds patients recorded with several values of what is constant for a person; a finding per attribute."""
    return [
        Finding(
            "constant_attribute_changes",
            is_error=False,
            count=len(patients),
            message=f"{counted(len(patients), 'patient')} recorded with more than one value of {name.replace('_', ' ')}.",
            advice="--conflict_policy decides their group: unknown, majority, first, or drop (they are left out).",
            examples=some(sorted(patients)),
        )
        for name, patients in evidence.parsed.conflicting.items()
        if patients
    ]


def impossible_ages_recorded(evidence: Evidence) -> list[Finding]:
    """Finds ages that nobody has."""
    table = evidence.parsed.table
    impossible = impossible_ages(table["age"])
    n = int(impossible.sum())
    if not n:
        return []
    return [
        Finding(
            "impossible_ages",
            is_error=False,
            count=n,
            message=f"{counted(n, 'image')} with an age below 0 or above {MAX_AGE:.0f} years.",
            advice="These ages become unknown. If there are many, look at the unit: months or days may stand in the column.",
            examples=some(table["image_id"][impossible]),
        )
    ]
