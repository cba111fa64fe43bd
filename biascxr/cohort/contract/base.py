"""What the contract hands out: findings, each with a count and what to do; and what it looks at."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from biascxr.cohort.base import ParsedTable
from biascxr.containers import Cohort, EmbeddingSet
from biascxr.errors import InputError

logger = logging.getLogger("biascxr")


@dataclass(frozen=True)
class Finding:
    """Something that makes numbers wrong or weak.

    Attributes:
        rule: key in `RULES`.
        is_error: whether the run stops; a warning is said and reported.
        count: how many patients, images, groups or labels it concerns.
        message: what was found, in words, without identifiers.
        advice: what to do about it.
        examples: a few identifiers for the person at the machine; never in the report.
    """

    rule: str
    is_error: bool
    count: int
    message: str
    advice: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fit:
    """Rows that a part of a recipe was fitted on.

    Attributes:
        recipe: its name.
        part: the slot's member, for instance `"group_youden"`.
        image_ids: the rows.
    """

    recipe: str
    part: str
    image_ids: frozenset[str]


@dataclass(frozen=True)
class Evidence:
    """What the rules look at; a rule is skipped while what it needs is None.

    Attributes:
        parsed: the data set as read, before selection.
        cohort: the rows in use.
        embeddings: their vectors; all of them are rows of the cohort.
        fits: what recipes were fitted on.
        look_at_files: whether files are opened to find copies under another name (slow on a network disk).
        split_is_used: whether the data set's own split is the one in use.
        min_patients: groups below it are small.
    """

    parsed: ParsedTable | None = None
    cohort: Cohort | None = None
    embeddings: EmbeddingSet | None = None
    fits: tuple[Fit, ...] | None = None
    look_at_files: bool = False
    split_is_used: bool = False
    min_patients: int = 25


@dataclass(frozen=True)
class Rule:
    """A rule of the contract.

    Attributes:
        function: `"module:function"`; takes `Evidence`, returns findings.
        needs: the fields of `Evidence` that it looks at.
        sentence: what it looks for, for `biascxr cohort --check`.
        may_be_allowed: whether `--allow` turns its errors into warnings.
    """

    function: str
    needs: tuple[str, ...]
    sentence: str
    may_be_allowed: bool = True

    def check(self, evidence: Evidence) -> list[Finding]:
        """Returns what the rule finds."""
        module, name = self.function.split(":")
        function: Callable[[Evidence], list[Finding]] = getattr(importlib.import_module(module), name)
        return function(evidence)

    def applies(self, evidence: Evidence) -> bool:
        """Returns whether everything the rule needs is there."""
        return all(getattr(evidence, name) is not None for name in self.needs)


class ContractError(InputError):
    """The data break a rule; `findings` holds everything that was found, warnings too."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        errors = [f for f in self.findings if f.is_error]
        lines = "".join(f"\n  {f.rule}: {f.message} {f.advice}" for f in errors)
        super().__init__(
            f"The data break {len(errors)} of the contract's rules:{lines}", examples=[e for f in errors for e in f.examples]
        )


def settle_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Logs warnings and stops at errors.

    Returns:
        The findings, all of them warnings.

    Raises:
        ContractError: one is an error.
    """
    findings = list(findings)
    if any(f.is_error for f in findings):
        raise ContractError(findings)
    for finding in findings:
        logger.warning("contract: %s: %s %s", finding.rule, finding.message, finding.advice)
    return findings


def findings_to_records(findings: Iterable[Finding]) -> list[dict]:
    """Returns findings as plain rows for JSON, without examples."""
    return [{k: v for k, v in asdict(f).items() if k != "examples"} for f in findings]


def findings_from_records(rows: Iterable[dict]) -> list[Finding]:
    """Returns what `findings_to_records` wrote."""
    return [Finding(**row) for row in rows]
