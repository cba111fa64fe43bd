"""Do the conclusions hang on the labels? The same audit on reference labels, and under other policies for uncertain ones."""

from __future__ import annotations

import pandas as pd

from biascxr.audit import MACRO, OVERALL
from biascxr.report.inputs import ReportInputs
from biascxr.report.privacy import MIN_CELL
from biascxr.report.summary import interval, readable

METRICS = ("AUROC", "TPR", "FPR")
SHOWN = 12


def label_checks(inputs: ReportInputs) -> dict:
    """Returns what the section on labels shows, as plain values."""
    return {
        "reference": reference_rows(inputs),
        "reference_labels": reference_labels(inputs),
        "policy": policy_sentence(inputs.label_policy),
        "policy_rows": policy_rows(inputs.label_policy),
    }


def reference_labels(inputs: ReportInputs) -> str:
    """Says which findings have reference labels on how many test patients."""
    if inputs.reference is None:
        return ""
    metrics = inputs.reference.metrics
    overall = metrics[(metrics["attribute"] == OVERALL) & (metrics["metric"] == "AUROC")]
    names = [label for label in overall["label"].unique() if label not in (MACRO, "micro")]
    n = int(overall["n_patients"].max())
    return f"Reference labels: {len(names)} findings ({', '.join(names)}) on {n:,} test patients."


def reference_rows(inputs: ReportInputs) -> list[dict]:
    """Returns each group's macro differences from everyone else on recorded and on reference labels, for the baseline."""
    if inputs.reference is None:
        return []
    like = inputs.audit if inputs.recorded_alike is None else inputs.recorded_alike
    recorded, reference = (_differences(r.metrics, inputs.baseline) for r in (like, inputs.reference))
    rows = []
    for key, true in reference.items():
        attribute, group, metric = key
        seen = recorded.get(key)
        if seen is None or pd.isna(true[0]):
            continue
        rows.append(
            {
                "attribute": readable(attribute),
                "group": group,
                "metric": metric,
                "recorded": interval(*seen, sign=True),
                "reference": interval(*true, sign=True),
                # Beyond what the reference labels' own interval allows for; a mere difference in width is none.
                "misleads": bool(seen[0] < true[1] or seen[0] > true[2]),
            }
        )
    return rows


def _differences(metrics: pd.DataFrame, recipe: str) -> dict[tuple, tuple[float, float, float]]:
    own = metrics[
        (metrics["recipe"] == recipe)
        & (metrics["label"] == MACRO)
        & (metrics["attribute"] != OVERALL)
        & metrics["metric"].isin(METRICS)
        & (metrics["n_patients"] >= MIN_CELL)
    ]
    return {
        (row.attribute, row.group, row.metric): (row.difference, row.difference_low, row.difference_high)
        for row in own.itertuples()
    }


def policy_sentence(table: pd.DataFrame | None) -> str:
    """Says how many conclusions survive every policy for uncertain labels."""
    if table is None:
        return ""
    if table.empty:
        return "No label is uncertain here, so no conclusion depends on the policy for uncertain labels."
    n, kept = len(table), int(table["survives"].sum())
    if kept == n:
        return f"All {n:,} conclusions are the same whether uncertain labels are read as absent, as present, or left out."
    return (
        f"{n - kept:,} of {n:,} conclusions depend on whether uncertain labels are read as absent (zeros), as present (ones), "
        "or left out (ignore)."
    )


def policy_rows(table: pd.DataFrame | None) -> list[dict]:
    """Returns the conclusions that do not survive, macro ones first, at most a dozen."""
    if table is None or table.empty:
        return []
    lost = table[~table["survives"].astype(bool)]
    lost = lost.assign(is_macro=lost["label"] == MACRO).sort_values("is_macro", ascending=False, kind="stable").head(SHOWN)
    return [
        {
            "recipe": row["recipe"],
            "what": f"{row['metric']} of {row['label']} by {readable(row['attribute'])}"
            + ("" if row["group"] == "any group" else f", {row['group']}"),
            **{policy: row[policy] for policy in ("zeros", "ones", "ignore")},
        }
        for row in lost.to_dict("records")
    ]
