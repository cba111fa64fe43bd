"""The rule about fits: nothing is fitted on what it is judged on."""

from __future__ import annotations

from biascxr.cohort.contract.base import Evidence, Finding
from biascxr.cohort.contract.words import counted, some


def fit_touched_test(evidence: Evidence) -> list[Finding]:
    """Finds parts of recipes (sampler, representation, head, threshold) that were fitted on test rows; a finding per part."""
    cohort = evidence.cohort
    test = frozenset(cohort.table["image_id"].iloc[cohort.split_rows("test")])
    touched = [(fit, fit.image_ids & test) for fit in evidence.fits]
    return [
        Finding(
            "fit_touched_test",
            is_error=True,
            count=len(rows),
            message=f"{fit.part} of recipe {fit.recipe} was fitted on {counted(len(rows), 'test image')}.",
            advice="What is fitted on test rows looks better on them than it is: fit samplers, representations and heads on "
            "train and validation, thresholds on calibration.",
            examples=some(sorted(rows)),
        )
        for fit, rows in touched
        if rows
    ]
