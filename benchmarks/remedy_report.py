"""The tables of `remedies.py`, for the terminal and for the documentation: agreement and disagreement alike."""

from __future__ import annotations

import math

import pandas as pd
from remedy_methods import DECISION, LOG_LOSS, RECALIBRATED, Expectations
from remedy_verdicts import BOTH, MARGIN, NO_EXCESS
from remedy_worlds import NOTHING

LOSS_NAMES = {LOG_LOSS: "log loss", RECALIBRATED: "recalibrated", DECISION: "decision"}
QUANTITY = {False: "share closed", True: "loss above erm's"}  # by whether nothing is planted
# Columns of the terminal: title, width.
COLUMNS = (
    ("method", 24), ("judged on", 12), ("expected", 9), ("seen", 12), ("", 9), ("share closed", 22), ("log", 6), ("recal", 6),
    ("decis", 6), ("others", 7), ("AUROC", 7), ("in-large", 8), ("ECE", 5), ("leaks", 11),
)  # fmt: skip


def print_report(table: pd.DataFrame, context: pd.DataFrame) -> None:
    """Prints a table for each mechanism, then what was right and wrong."""
    for mechanism in table["mechanism"].drop_duplicates():
        own = overall(table[table["mechanism"] == mechanism])
        print(f"\n{mechanism}, {own['seeds'].iloc[0]} seeds, families: {own['family'].iloc[0]}")
        for line in context_lines(context[context["mechanism"] == mechanism], own["findings"].iloc[0]):
            print(f"  {line}")
        titles = [QUANTITY[mechanism == NOTHING] if title == QUANTITY[False] else title for title, _ in COLUMNS]
        print("  ".join(f"{title:<{width}}" for title, (_, width) in zip(titles, COLUMNS, strict=True)).rstrip())
        for row in own.to_dict("records"):
            cells = _cells(row)
            print("  ".join(f"{cell:<{width}}" for cell, (_, width) in zip(cells, COLUMNS, strict=True)).rstrip())
    print()
    for line in conclusions(table):
        print(line)


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows over all families; those of the one family where there is one."""
    return table[table["family"] == BOTH] if (table["family"] == BOTH).any() else table


def context_lines(context: pd.DataFrame, findings: str) -> list[str]:
    """Says what the bias has cost, for each family and loss, and whether the group was the worst."""
    lines = []
    for row in context[context["findings"] == findings].to_dict("records"):
        text = f"{row['family']}, {LOSS_NAMES[row['loss']]} of the group, {findings}: erm {row['erm']:.3f}"
        if not math.isnan(row["erm on unbiased"]):
            excess = row["erm"] - row["erm on unbiased"]
            text += f", on unbiased data {row['erm on unbiased']:.3f} (excess {excess:+.3f}"
            text += f", {row['excess_low']:+.3f} to {row['excess_high']:+.3f})" if not math.isnan(row["excess_low"]) else ")"
        worst = "the worst" if row["group_is_worst"] else "NOT the worst"
        lines.append(f"{text}, Bayes {row['Bayes']:.3f}; {worst} beside everyone else ({row['others']:.3f})")
    return lines


def conclusions(table: pd.DataFrame) -> list[str]:
    """Says how often theory was right, where it was wrong, and which methods cost something where nothing is planted."""
    table = overall(table)
    planted = table[table["mechanism"] != NOTHING]
    counts = planted["outcome"].value_counts()
    lines = [
        f"Expected and seen, {len(planted)} pairs of method and mechanism: {counts.get('agrees', 0)} agree, "
        f"{counts.get('disagrees', 0)} disagree, {counts.get('open', 0)} are unclear, "
        f"{(planted['seen'] == NO_EXCESS).sum()} have no excess to close."
    ]
    wrong = planted[planted["outcome"] == "disagrees"]
    for row in wrong.to_dict("records"):
        verdicts = f"expected {row['expected']}, seen {row['seen']}, {_share(row)}"
        lines.append(f"  disagrees: {row['method']} under {row['mechanism']}: {verdicts}")
    control = table[table["mechanism"] == NOTHING]
    costly = control[control["seen"] == "harm"]
    n_kept = int(control["seen"].isin(["no_effect", "gains anyway"]).sum())
    lines.append(
        f"Negative control, strength 0: {n_kept} of {len(control)} methods stay within {MARGIN} of the loss of erm, "
        f"{len(costly)} do not, {len(control) - n_kept - len(costly)} are unclear."
    )
    for row in costly.to_dict("records"):
        known = "as expected" if row["expected"] == "harm" else "NOT expected"
        lines.append(f"  NOT MET: {row['method']} costs {_change(row)} ({LOSS_NAMES[row['judged_on']]}), {known}")
    return lines


def _cells(row: dict) -> list[str]:
    is_control = row["mechanism"] == NOTHING
    leaks = f"{row['leak_scores']:.2f}" + ("" if math.isnan(row["leak_vectors"]) else f" ({row['leak_vectors']:.2f})")
    return [
        row["method"], LOSS_NAMES[row["judged_on"]], row["expected"], row["seen"], row["outcome"],
        _change(row) if is_control else _share(row),
        *(_number(row[f"{loss}_share"], "+.2f") for loss in LOSS_NAMES),
        _number(row["others_loss_change"], "+.3f"), _number(row["auroc_change"], "+.3f"), _number(row["citl"], "+.2f"),
        _number(row["ece"], ".3f"), leaks,
    ]  # fmt: skip


def _share(row: dict) -> str:
    if math.isnan(row["share"]):
        return "-"
    return f"{row['share']:+.2f} ({row['share_low']:+.2f} to {row['share_high']:+.2f})"


def _change(row: dict) -> str:
    ends = "" if math.isnan(row["loss_change_low"]) else f" ({row['loss_change_low']:+.3f} to {row['loss_change_high']:+.3f})"
    return f"{row['loss_change']:+.3f}{ends}"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def markdown(table: pd.DataFrame, context: pd.DataFrame, expectations: Expectations) -> str:
    """Returns the tables as Markdown: one for each mechanism, then each method's expectations and their reasons."""
    parts = [
        "# Remedies on worlds with known bias\n",
        "Written by `python benchmarks/remedies.py`; what the columns mean stands in its first lines. Share: of what the bias "
        "has cost in the group that it acts on, how much the method closes (0: plain training, 1: plain training on unbiased "
        "data). Made-up vectors: what holds here need not hold on a real data set.\n",
        *summary(table),
        "",
        *(f"  - {line.strip()}" if line.startswith(" ") else f"- {line}" for line in conclusions(table)),
    ]
    for mechanism in table["mechanism"].drop_duplicates():
        own = overall(table[table["mechanism"] == mechanism])
        parts += [f"\n## {mechanism}\n"]
        parts += [f"- {line}" for line in context_lines(context[context["mechanism"] == mechanism], own["findings"].iloc[0])]
        parts += [
            f"\n| method | judged on | expected | seen | {QUANTITY[mechanism == NOTHING]} (95%) "
            "| others | AUROC | in the large | leakage |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in own.to_dict("records"):
            cells = _cells(row)
            shown = [*cells[:3], _seen(cells[3], cells[4]), cells[5], *cells[9:12], cells[13]]
            parts.append(f"| {' | '.join(shown)} |")
    parts.append("\n## What was expected, and why\n")
    for method in table["method"].drop_duplicates():
        reasons: dict[tuple[str, str], list[str]] = {}
        for (name, where), line in expectations.verdicts.items():
            if name == method:
                reasons.setdefault(line, []).append(where)
        for (verdict, why), where in reasons.items():
            parts.append(f"- `{method}`, {', '.join(where)}: **{verdict}**: {why}")
    return "\n".join(parts) + "\n"


def summary(table: pd.DataFrame) -> list[str]:
    """Returns the shares of all methods under all mechanisms, as lines of one Markdown table."""
    own = overall(table)
    mechanisms = [m for m in own["mechanism"].drop_duplicates() if m != NOTHING]
    named = [m.replace("_", " ") for m in mechanisms]
    lines = [
        "**help** and *harm* as defined there; in brackets: unclear, or a gain that is there without bias too. Last column: "
        "what the method adds to its loss where there is no bias.\n",
        f"| method | {' | '.join(named)} | no bias |",
        "|---" * (len(mechanisms) + 2) + "|",
    ]
    rows = {(row["method"], row["mechanism"]): row for row in own.to_dict("records")}
    for method in own["method"].drop_duplicates():
        cells = [_short(rows[method, mechanism]) if (method, mechanism) in rows else "" for mechanism in mechanisms]
        control = rows.get((method, NOTHING))
        cost = "" if control is None else format(control["loss_change"], "+.3f")
        cost = f"*{cost}*" if control is not None and control["seen"] == "harm" else cost
        lines.append(f"| `{method}` | {' | '.join(cells)} | {cost} |")
    return lines


def _short(row: dict) -> str:
    if math.isnan(row["share"]):
        return "no excess"
    share = format(row["share"], "+.2f")
    return {"help": f"**{share}**", "harm": f"*{share}*", "no_effect": share}.get(row["seen"], f"({share})")


def _seen(seen: str, outcome: str) -> str:
    return f"**{seen}**, not as expected" if outcome == "disagrees" else seen
