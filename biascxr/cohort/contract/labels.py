"""Rules about labels: nothing and something at once, and findings of which a split holds one class only."""

from __future__ import annotations

import numpy as np

from biascxr.cohort.chexpert_labels import NO_FINDING, SUPPORT_DEVICES
from biascxr.cohort.contract.base import Evidence, Finding
from biascxr.cohort.contract.words import counted, percent, some
from biascxr.config import SPLITS


def no_finding_with_finding(evidence: Evidence) -> list[Finding]:
    """Finds studies recorded with No Finding and a finding; uncertain findings and support devices are no contradiction."""
    labels = evidence.parsed.labels
    if NO_FINDING not in labels:
        return []
    findings = labels.drop(columns=[NO_FINDING, SUPPORT_DEVICES], errors="ignore").to_numpy()
    healthy = labels[NO_FINDING].to_numpy() == 1
    study = evidence.parsed.table["study_id"]
    both = study[healthy & (findings == 1).any(axis=1)].drop_duplicates()
    if both.empty:
        return []
    share = len(both) / study[healthy].nunique()
    return [
        Finding(
            "no_finding_with_finding",
            is_error=False,
            count=len(both),
            message=f"{counted(len(both), 'study')} with No Finding and a finding at once ({percent(share)} of those with "
            "No Finding).",
            advice="One of the two labels is wrong. They stay as recorded: a high share speaks against the labels of "
            "underdiagnosis (the FPR of No Finding).",
            examples=some(both),
        )
    ]


def one_class_label(evidence: Evidence) -> list[Finding]:
    """Finds labels without a positive or without a negative in a split, after policies; a finding per split."""
    cohort = evidence.cohort
    findings = []
    for split in SPLITS:
        part = cohort.labels[cohort.split_rows(split)]
        lacks = ~((part == 1).any(axis=0) & (part == 0).any(axis=0))
        if lacks.any():
            names = [cohort.label_names[i] for i in np.flatnonzero(lacks)]
            consequence = "cannot be measured (NaN)" if split == "test" else "cannot be fitted"
            findings.append(
                Finding(
                    "one_class_label",
                    is_error=False,
                    count=len(names),
                    message=f"One class only in {split}: {', '.join(names)}.",
                    advice=f"What needs both classes there {consequence}. Take more data, or leave these out with --labels.",
                )
            )
    return findings
