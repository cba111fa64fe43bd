"""`biascxr cohort --check`: what would a run find wrong with these data? Nothing is written."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace

from biascxr.cohort import build_cohort
from biascxr.cohort.contract import (
    RULES,
    Evidence,
    Finding,
    allow_findings,
    check_contract,
    rules_about,
)
from biascxr.config import RunConfig
from biascxr.containers import Cohort, EmbeddingSet
from biascxr.errors import InputError
from biascxr.run_folder import STAGES, manifest_of

logger = logging.getLogger("biascxr")


def check_data(config: RunConfig) -> list[Finding]:
    """Looks at everything the contract has a rule for, and goes on after errors.

    The image files are looked at too. The vectors are, where they lie in the run's folder from an earlier run.

    Args:
        config: the run that would be made.

    Returns:
        Everything that was found, errors first.

    Raises:
        InputError: no table is given, or no cohort can be made of it.
    """
    if config.csv_path is None:
        raise InputError("Give the data to check with --csv_path meta.csv (or a data set's folder).")
    findings: list[Finding] = []
    cohort, stopped_by = None, None
    try:
        cohort = build_cohort(
            config.csv_path,
            config.images_root,
            replace(config.cohort, allow=()),
            seed=config.seed,
            min_patients=config.audit.min_patients,
            look_at_files=True,
            settle=lambda found: findings.extend(found) or list(found),
        )
    except InputError as error:
        if not findings:
            raise
        stopped_by = error
    if cohort is not None:
        embeddings = _earlier_vectors(config, cohort)
        if embeddings is not None:
            evidence = Evidence(cohort=cohort.rows(embeddings.image_id), embeddings=embeddings)
            findings += check_contract(evidence, rules=rules_about("embeddings"))
        _report(findings, looked_at={"parsed", "cohort"} | ({"embeddings"} if embeddings is not None else set()))
    else:
        _report(findings, looked_at={"parsed"})
    if stopped_by is not None:
        logger.error("The cohort cannot be built: %s", stopped_by)
        if not any(f.is_error for f in findings):  # else what stopped it is among them
            raise stopped_by
    return sorted(allow_findings(findings, config.cohort.allow), key=lambda f: not f.is_error)


def _earlier_vectors(config: RunConfig, cohort: Cohort) -> EmbeddingSet | None:
    folder = config.run_dir() / STAGES["embeddings"]
    if not manifest_of(folder):
        return None
    embeddings = EmbeddingSet.load(folder)
    return embeddings if set(embeddings.image_id) <= set(cohort.table["image_id"]) else None


def _report(findings: list[Finding], *, looked_at: set[str]) -> None:
    """Prints a line per rule: kept, broken and how, or not looked at."""
    for name, rule in RULES.items():
        own = [f for f in findings if f.rule == name]
        if not set(rule.needs) <= looked_at:
            needed = " and ".join(sorted(set(rule.needs) - looked_at))
            logger.info("  -      %-28s not looked at: needs %s", name, needed)
        elif not own:
            logger.info("  ok     %-28s %s", name, rule.sentence)
        for finding in own:
            logger.info("  %-6s %-28s %s %s", "ERROR" if finding.is_error else "warn", name, finding.message, finding.advice)
            if finding.examples:
                print(f"  {'':6} {'':28} for instance: {', '.join(finding.examples)}", file=sys.stderr)
    n_errors = sum(f.is_error for f in findings)
    logger.info("%d errors, %d warnings", n_errors, len(findings) - n_errors)
