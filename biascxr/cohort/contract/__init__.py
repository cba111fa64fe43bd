"""The contract: what data must keep for the numbers to mean something, one table of rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from biascxr.cohort.contract.base import (
    ContractError,
    Evidence,
    Finding,
    Fit,
    Rule,
    findings_from_records,
    findings_to_records,
    settle_findings,
)
from biascxr.cohort.contract.encoder import patient_digests
from biascxr.errors import unknown_name

__all__ = [
    "FILE_RULES",
    "RULES",
    "ContractError",
    "Evidence",
    "Finding",
    "Fit",
    "Rule",
    "allow_findings",
    "check_contract",
    "findings_from_records",
    "findings_to_records",
    "patient_digests",
    "rules_about",
    "settle_findings",
]

HERE = "biascxr.cohort.contract"
RULES: dict[str, Rule] = {
    "patient_in_two_splits": Rule(
        f"{HERE}.patients:patient_in_two_splits", ("parsed",), "each patient is in one part of the split", may_be_allowed=False
    ),
    "duplicate_images": Rule(f"{HERE}.images:duplicate_images", ("parsed",), "each image is listed once, each file too"),
    "constant_attribute_changes": Rule(
        f"{HERE}.patients:constant_attribute_changes", ("parsed",), "what does not change has one value per patient"
    ),
    "impossible_ages": Rule(f"{HERE}.patients:impossible_ages_recorded", ("parsed",), "ages lie between 0 and 120 years"),
    "no_finding_with_finding": Rule(
        f"{HERE}.labels:no_finding_with_finding", ("parsed",), "No Finding stands beside no finding"
    ),
    "one_class_label": Rule(f"{HERE}.labels:one_class_label", ("cohort",), "each finding has both classes in each split"),
    "small_group": Rule(f"{HERE}.groups:small_group", ("cohort",), "groups have enough test patients to compare"),
    "split_mix": Rule(f"{HERE}.groups:split_mix", ("cohort",), "groups are mixed alike in all splits"),
    "missing_files": Rule(f"{HERE}.files:missing_files", ("cohort",), "the files are there"),
    "copied_files": Rule(f"{HERE}.files:copied_files", ("cohort",), "no file is a copy of another (with --check only)"),
    "near_duplicate_vectors": Rule(
        f"{HERE}.vectors:near_duplicate_vectors", ("cohort", "embeddings"), "no vector is nearly one of another split"
    ),
    "encoder_saw_test_patients": Rule(
        f"{HERE}.encoder:encoder_saw_test_patients", ("cohort", "embeddings"), "the encoder has not seen the test patients"
    ),
    "fit_touched_test": Rule(
        f"{HERE}.fits:fit_touched_test", ("cohort", "fits"), "nothing is fitted on the test split", may_be_allowed=False
    ),
}

# These ask the disk, which may be slow and changes under a finished cohort: every run asks anew, when it comes to the files.
FILE_RULES = ("missing_files", "copied_files")


def check_contract(evidence: Evidence, *, allow: Iterable[str] = (), rules: Iterable[str] | None = None) -> list[Finding]:
    """Looks at everything there is to look at.

    Args:
        evidence: what is there; rules that need more are skipped.
        allow: rules whose errors become warnings.
        rules: only these; default all.

    Raises:
        InputError: `allow` names an unknown rule.
    """
    found = [
        finding
        for name in (RULES if rules is None else rules)
        if RULES[name].applies(evidence)
        for finding in RULES[name].check(evidence)
    ]
    return allow_findings(found, allow)


def allow_findings(findings: Iterable[Finding], allow: Iterable[str]) -> list[Finding]:
    """Turns the errors of these rules into warnings, where a rule may be allowed.

    Raises:
        InputError: `allow` names an unknown rule.
    """
    allow = set(allow)
    for name in sorted(allow - set(RULES)):
        raise unknown_name("rule of the contract", name, RULES)
    return [replace(f, is_error=f.is_error and not (f.rule in allow and RULES[f.rule].may_be_allowed)) for f in findings]


def rules_about(field: str) -> list[str]:
    """Returns the rules that look at a field of `Evidence`, for instance `"embeddings"`."""
    return [name for name, rule in RULES.items() if field in rule.needs]
