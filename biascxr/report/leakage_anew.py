"""Heads trained anew, the attribute erased, or encoded more and less (`--dependence full`): in words and as a chart."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from biascxr.leakage import MACRO, VECTORS
from biascxr.leakage.result import LeakageResult
from biascxr.report.leakage_lookup import READABLE, probe_title
from biascxr.report.leakage_shown import shareable
from biascxr.report.style import INK, PALETTE, QUIET, figure, file_name
from biascxr.report.summary import interval, p_text

HEADS = {"retrained_linear": "a linear head", "retrained_mlp": "a network"}
DOSE, STRENGTH = "dose_response", "s = "


def anew_sentences(result: LeakageResult, attribute: str) -> list[str]:
    """Says what heads lost, what is still read, and whether unfairness went with encoding; nothing where it was not asked."""
    rows = _rows(result, attribute)
    return list(filter(None, [_retrained_sentence(rows), _dose_sentence(rows[rows["evidence"] == DOSE])]))


def _retrained_sentence(rows: pd.DataFrame) -> str:
    own = rows[rows["evidence"].isin(HEADS)]

    def said(measure: str) -> str:
        found = own[own["measure"] == f"{measure}_conditional"]
        return " and ".join(f"{interval(r.value, r.low, r.high)} in {HEADS[r.evidence]}" for r in found.itertuples())

    parts = [f"AUROC changed by {said('auroc_change')}"] if said("auroc_change") else []
    if said("group_difference_change"):
        moved = said("group_difference_change")
        parts.append(f"groups' mean logits within a label, in deviations, moved by {moved} (below 0: together)")
    is_read = own["measure"].str.startswith(READABLE) & own["measure"].str.endswith("_conditional")
    for row in own[is_read].itertuples():
        probe = row.measure.removeprefix(READABLE).removesuffix("_conditional")
        does = "still reads" if row.low > 0.5 else "is not shown to read it any more:"
        parts.append(f"{probe_title(probe)} {does} {interval(row.value, row.low, row.high)}")
    if not parts:
        return ""
    return f"Where it was erased from the vectors, given the labels, and heads were trained anew: {'; '.join(parts)}."


def _dose_sentence(rows: pd.DataFrame) -> str:
    found = rows[rows["measure"] == "spearman"]
    if found.empty:
        return ""
    row = found.iloc[0]
    is_shown = row["p_value"] < 0.05
    did = (
        ("were more unfair" if row["value"] > 0 else "were less unfair")
        if is_shown
        else "were shown neither more nor less unfair"
    )
    return (
        f"Of {int(row['n'])} heads made to encode it more or less, those that encode it more {did} (rank correlation over "
        f"heads, not patients, {interval(row['value'], row['low'], row['high'])}, {p_text(row['p_value'])})."
    )


def plot_dose(result: LeakageResult, folder: Path, *, attribute: str) -> Path | None:
    """Draws `leakage/dose_<attribute>.png`: encoding and unfairness of heads, a point per strength, bars over seeds."""
    rows = _rows(shareable(result), attribute)
    rows = rows[(rows["evidence"] == DOSE) & rows["group"].str.startswith(STRENGTH)]
    encoding, unfairness = (rows[rows["measure"] == m].set_index("group") for m in ("encoding", "unfairness"))
    both = encoding.index[encoding.index.isin(unfairness.index)]
    if both.empty:
        return None
    encoding, unfairness = encoding.loc[both], unfairness.loc[both]
    path = folder / "leakage" / f"dose_{file_name(attribute)}.png"
    with figure(path, size=(4.4, 3.0)) as (_, axis):
        x, y = encoding["value"], unfairness["value"]
        axis.hlines(y, encoding["low"], encoding["high"], color=PALETTE[0], lw=1.2)
        axis.vlines(x, unfairness["low"], unfairness["high"], color=PALETTE[0], lw=1.2)
        axis.plot(x, y, "-", color=QUIET, lw=0.8, zorder=1)
        axis.plot(x, y, "o", ms=5, color=PALETTE[0])
        for group in encoding.index:
            axis.annotate(group.removeprefix(STRENGTH), (x[group], y[group]), (5, 5), textcoords="offset points",
                          fontsize=7.5, color=INK)  # fmt: skip
        axis.set_xlabel("encoding: AUROC of a probe on the hidden layer")
        axis.set_ylabel("groups apart within a label,\nin deviations of the logit")
    return path


def _rows(result: LeakageResult, attribute: str) -> pd.DataFrame:
    table = result.dependence
    is_own = (table["attribute"] == attribute) & (table["label"] == MACRO) & (table["recipe"] == VECTORS)
    return table[is_own].dropna(subset=["value"])
