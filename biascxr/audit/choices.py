"""What an audit is asked to look at: attributes, metrics, crossings, adjustment; checked before anything is measured."""

from __future__ import annotations

from biascxr.audit.adjust import LABEL
from biascxr.audit.groups import crossed_attributes
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Cohort
from biascxr.errors import unknown_name
from biascxr.metrics.base import METRICS


def choose_attributes(available: tuple[Attribute, ...], wanted: tuple[str, ...]) -> tuple[Attribute, ...]:
    """Restricts the attributes to those asked for.

    Raises:
        InputError: one that the cohort does not have, or has with one known group only.
    """
    by_name = {a.name: a for a in available}
    for name in wanted:
        if name not in by_name:
            raise unknown_name("attribute in --attributes (the cohort has no two known groups of it)", name, by_name)
    return tuple(by_name[name] for name in wanted) if wanted else available


def choose_metrics(wanted: tuple[str, ...], *, has_decisions: bool) -> tuple[str, ...]:
    """Returns the metrics asked for, in the order of the table of metrics; without decisions those that need none.

    Raises:
        InputError: an unknown name.
    """
    for name in wanted:
        if name not in METRICS and name != "all":
            raise unknown_name("metric", name, [*METRICS, "all"])
    return tuple(
        m for m, metric in METRICS.items() if (m in wanted or "all" in wanted) and (has_decisions or metric.reads == "score")
    )


def check_audit(cohort: Cohort, config: AuditConfig) -> None:
    """Finds what an audit of this cohort could not do, before anything is trained.

    Raises:
        InputError: an unknown metric, attribute, crossing or column to adjust for.
    """
    choose_metrics(config.metrics, has_decisions=True)
    choose_attributes(cohort.attributes, config.attributes)
    known = {a.name: a for a in cohort.attributes}
    for name in config.crossings:
        crossed_attributes(name, known)
    for name in config.adjust:
        if name not in (LABEL, "view", *known):
            raise unknown_name("column to adjust for", name, [LABEL, "view", *known])
