"""Would another estimand (patients, studies), or other labels, lead to other conclusions?"""

from __future__ import annotations

import pandas as pd

from biascxr.audit.build import AuditResult
from biascxr.audit.cells import MACRO

ANY_GROUP, OFF, OPEN = "any group", "unequal", "no claim"
KEYS = ["recipe", "label", "attribute", "group", "metric"]


def conclusions(result: AuditResult, confidence: float) -> dict[tuple, str]:
    """Returns what an audit claims: tests of equality, and signs of macro differences whose interval does not hold 0."""
    claims = {
        (row.recipe, row.label, row.attribute, "any group", row.metric): "unequal" if row.p_adjusted < 1 - confidence else OPEN
        for row in result.tests.dropna(subset=["p_adjusted"]).itertuples()
    }
    macro = result.metrics[(result.metrics["label"] == MACRO)].dropna(subset=["difference_low"])
    for row in macro.itertuples():
        sign = "higher" if row.difference_low > 0 else "lower" if row.difference_high < 0 else OPEN
        claims[tuple(getattr(row, k) for k in KEYS)] = sign
    return claims


def conclusion_table(results: dict[str, AuditResult], confidence: float) -> pd.DataFrame:
    """Sets the conclusions of several audits of the same predictions side by side.

    Args:
        results: audits by name, for instance of the policy for uncertain labels.
        confidence: level of the tests.

    Returns:
        Columns recipe, label, attribute, group, metric, one per audit (`"unequal"`, `"higher"`, `"lower"`, `"no claim"`;
        `"not measured"` where an audit has no such row), and `survives`: whether all say the same.
    """
    claims = {name: conclusions(result, confidence) for name, result in results.items()}
    keys = list(dict.fromkeys(key for own in claims.values() for key in own))
    table = pd.DataFrame(keys, columns=KEYS)
    for name, own in claims.items():
        table[name] = [own.get(key, "not measured") for key in keys]
    table["survives"] = table[list(claims)].nunique(axis=1) == 1 if len(table) else True
    return table


def changed_conclusions(here: AuditResult, there: AuditResult, confidence: float) -> str:
    """Returns in words how many claims differ, and the first few of them."""
    ours, theirs = (conclusions(r, confidence) for r in (here, there))
    shared = [key for key in ours if key in theirs]
    changed = [key for key in shared if ours[key] != theirs[key]]
    if not changed:
        return f"the same {len(shared):,} conclusions."
    several = here.metrics["recipe"].nunique() > 1
    names = [
        f"{metric} of {label} by {attribute}".replace("_", " ")
        + (f", {group}" if group != ANY_GROUP else "")
        + (f" ({recipe})" if several else "")
        + f": {ours[key]} here, {theirs[key]} then"
        for key in changed[:3]
        for recipe, label, attribute, group, metric in [key]
    ]
    more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"{len(changed)} of {len(shared):,} conclusions would change ({'; '.join(names)}{more})."


def flagged(tests: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Returns the tests whose adjusted p-value is below 1 - confidence, smallest first."""
    return tests[tests["p_adjusted"] < 1 - confidence].sort_values("p_adjusted", kind="stable")
