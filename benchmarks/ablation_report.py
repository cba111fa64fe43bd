"""From the measures of all worlds to changes with intervals, and what they say of what was expected."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from ablation_lines import ERM, HIGHER, LINES, LOWER, MEASURES, NIH, SAME, UNBIASED, Line, same_rule
from remedy_verdicts import CONFIDENCE, Estimate, mean_estimate

from biascxr.metrics import fate, t_interval

UNCLEAR, UNDEFINED = "unclear", "undefined"
# A smaller change is none, and an interval within twice it on both sides says so.
MARGINS = {"delta_eo": 0.02, "delta_auc": 0.02, "auroc": 0.01, "bnsp_sd": 0.01, "flips": 0.02}
FATES = {"fate_eo": "delta_eo", "fate_auc": "delta_auc"}
# Test films over training films of a fifth-fold division, for folds that share three quarters of their training patients.
TEST_OVER_TRAIN = 0.2 / 0.6
KEYS = ["world", "judged", "line"]
TITLES = {
    "delta_eo": "ΔEO", "delta_auc": "ΔAUC", "auroc": "AUROC", "bnsp_sd": "BNSP SD", "flips": "flips",
    "fate_eo": "FATE_EO", "fate_auc": "FATE_AUC",
}  # fmt: skip


def estimate(values: np.ndarray, world: str) -> Estimate:
    """Mean over seeds with Student's interval.

    The seeds of a phantom have patients, films and initial weights of their own. Those of the NIH sample judge different fifths
    of its patients, but learn from overlapping rest; `1 / k` of the variance of the mean is then too little, and `1 / k +
    n_test / n_train` is taken (Nadeau and Bengio, Machine Learning 2003, equation 3).

    Args:
        values: `[k]`, one for each seed.
        world: where.
    """
    if world != NIH or len(values) < 2:
        return mean_estimate(values, np.zeros(len(values)))
    error = np.sqrt(values.var(ddof=1) * (1 / len(values) + TEST_OVER_TRAIN))
    low, high = t_interval(values.mean(), error, CONFIDENCE, df=len(values) - 1)
    return Estimate(float(values.mean()), float(low), float(high))


def seen(measure: str, change: Estimate) -> str:
    """What an interval of a change says: lower, same, higher, unclear, or undefined (too few positives in a group)."""
    margin = MARGINS[measure]
    if math.isnan(change.value):
        return UNDEFINED
    if change.low > 0 and change.value >= margin:
        return HIGHER
    if change.high < 0 and change.value <= -margin:
        return LOWER
    return SAME if -2 * margin < change.low and change.high < 2 * margin else UNCLEAR


def agreement(expected: str, found: str) -> str:
    """agrees, disagrees, open where the interval is too wide to tell, or empty where there is nothing to tell."""
    if found in (UNCLEAR, UNDEFINED):
        return "open" if found == UNCLEAR else ""
    return "agrees" if expected == found else "disagrees"


def summarise(found: pd.DataFrame, expectations: dict[tuple[str, str, str, str], tuple[str, str]]) -> pd.DataFrame:
    """Returns a row for each world, films judged, line and measure.

    Args:
        found: rows of `ablation_measures.measure`, of all worlds.
        expectations: of `ablation_lines.read_expectations`.

    Returns:
        `value`, the mean over seeds; `change, low, high`, against `erm` at 0.5; `rule_change, rule_low, rule_high`, against
        `erm` with the line's own rule; `expected, seen, outcome`, of the change (none for FATE, which follows from others).
    """
    lines, rows = {line.name: line for line in LINES}, []
    for (world, judged), own in found.groupby(["world", "judged"], sort=False):
        by = {name: part.set_index("seed").sort_index() for name, part in own.groupby("line")}
        for name in own["line"].drop_duplicates():
            about = {"world": world, "judged": judged, "line": name, "seeds": len(by[name])}
            about["seconds"] = float(by[name]["seconds"].mean())
            plain = by.get(same_rule(lines[name]).name)
            for measure in MEASURES:
                rows.append(about | _row(measure, world, by[name], by[ERM.name], plain, lines[name]))
                if name != ERM.name:
                    expected = expectations[name, world, judged, measure][0]
                    change = Estimate(*(rows[-1][k] for k in ("change", "low", "high")))
                    verdict = seen(measure, change)
                    rows[-1] |= {"expected": expected, "seen": verdict, "outcome": agreement(expected, verdict)}
            for measure, gap in FATES.items() if name != ERM.name else ():
                rows.append(about | {"measure": measure} | _fates(gap, world, by[name], by[ERM.name]))
    return pd.DataFrame(rows)


def _row(measure: str, world: str, of: pd.DataFrame, erm: pd.DataFrame, plain: pd.DataFrame | None, line: Line) -> dict:
    row = {"measure": measure, "value": float(of[measure].mean())}
    if line != ERM:
        row |= _named("", estimate((of[measure] - erm[measure]).to_numpy(), world))
        if plain is not None and line.training != ERM.training:
            row |= _named("rule_", estimate((of[measure] - plain[measure]).to_numpy(), world))
    return row


def _named(prefix: str, change: Estimate) -> dict[str, float]:
    return {f"{prefix}change": change.value, f"{prefix}low": change.low, f"{prefix}high": change.high}


def _fates(gap: str, world: str, of: pd.DataFrame, erm: pd.DataFrame) -> dict:
    """FATE of each seed and its interval. Performance is AUROC for both: accuracy moves with the threshold alone."""
    low = estimate(erm[gap].to_numpy(), world).low
    pairs = zip(erm["auroc"], of["auroc"], erm[gap], of[gap], strict=True)
    values = [fate(p, own_p, g, own_g, gap_before_low=low) for p, own_p, g, own_g in pairs]
    mean = estimate(np.array(values), world)
    return {"value": mean.value, "change": mean.value, "low": mean.low, "high": mean.high}


def table_lines(table: pd.DataFrame) -> list[str]:
    """Returns the whole table as text: for each world and films judged, a line each."""
    printed = []
    for (world, judged), own in table.groupby(["world", "judged"], sort=False):
        printed.append(f"\n{world}, judged on {_judged(world, judged)}, {own['seeds'].iloc[0]} seeds; change against erm (95%)")
        titles = ["ΔEO", "its change", "same rule", "ΔAUC", "AUROC", "BNSP SD", "flips", "FATE_EO", "FATE_AUC"]
        printed.append(f"  {'line':<24}{titles[0]:<7}" + "".join(f"{title:<26}" for title in titles[1:]) + "s")
        for line, rows in own.groupby("line", sort=False):
            by = rows.set_index("measure")
            cells = [interval(by, "delta_eo"), interval(by, "delta_eo", "rule_")]
            cells += [interval(by, measure) for measure in (*MEASURES[1:], *FATES)]
            value = f"{by.loc['delta_eo', 'value']:.3f}"
            shown = "".join(f"{cell:<26}" for cell in cells)
            printed.append(f"  {line:<24}{value:<7}{shown}{rows['seconds'].iloc[0]:.0f}")
    return printed


def _judged(world: str, judged: str) -> str:
    if world == NIH:
        return "test films whose labels are as they were recorded"
    return "unbiased films, true labels" if judged == UNBIASED else "films of the same law, recorded labels"


def interval(by: pd.DataFrame, measure: str, prefix: str = "") -> str:
    """Returns `change (low to high)` of a row, or `-` where there is none."""
    if measure not in by.index or f"{prefix}change" not in by:
        return "-"
    value, low, high = (by.loc[measure, f"{prefix}{end}"] for end in ("change", "low", "high"))
    if math.isnan(value):
        return "-"
    return f"{value:+.3f}" + ("" if math.isnan(low) else f" ({low:+.3f} to {high:+.3f})")


def conclusions(table: pd.DataFrame) -> list[str]:
    """Says how often theory was right, by line, and where it was wrong."""
    told = table[table["outcome"].isin(["agrees", "disagrees", "open"])]
    counts = told["outcome"].value_counts()
    lines = [
        f"Expected and seen, {len(told)} pairs: {counts.get('agrees', 0)} agree, {counts.get('disagrees', 0)} disagree, "
        f"{counts.get('open', 0)} are open."
    ]
    firm = told[told["expected"] != SAME]
    lines.append(f"Of the {len(firm)} where a change was expected, {(firm['outcome'] == 'agrees').sum()} agree.")
    for row in told[told["outcome"] == "disagrees"].to_dict("records"):
        change = f"{row['change']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        what = f"{row['line']}, {row['world']}, {row['judged']}, {TITLES[row['measure']]}"
        lines.append(f"  disagrees: {what}: expected {row['expected']}, seen {row['seen']}, {change}")
    return lines


def markdown(table: pd.DataFrame, expectations: dict[tuple[str, str, str, str], tuple[str, str]], cut: str) -> str:
    """Returns the tables as Markdown: changes in every world, what was expected, and why."""
    parts = [
        "# What each part of FairREAD, of the causal paper and of the two-step optimisation does\n",
        "Written by `python benchmarks/ablations.py`; what the columns mean stands in its first lines. Each number is the "
        "change against `erm` at a threshold of 0.5 (95%); **bold**: not as expected; in brackets beside ΔEO: the change "
        "against `erm` with the same rule. Made-up vectors, and heads on 14 scores of real films: no hospital.\n",
        f"{cut}\n",
        *(f"  - {line.strip()}" if line.startswith(" ") else f"- {line}" for line in conclusions(table)),
    ]
    for (world, judged), own in table.groupby(["world", "judged"], sort=False):
        parts += [f"\n## {world}, {_judged(world, judged)}, {own['seeds'].iloc[0]} seeds\n"]
        titles = [TITLES[m] for m in (*MEASURES, *FATES)]
        parts += [f"| line | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
        for line, rows in own.groupby("line", sort=False):
            by = rows.set_index("measure")
            if line == ERM.name:
                cells = [f"{by.loc[m, 'value']:.3f}" for m in MEASURES] + ["-"] * len(FATES)
            else:
                cells = [_marked(by, measure) for measure in (*MEASURES, *FATES)]
            parts.append(f"| `{line}` | {' | '.join(cells)} |")
    parts.append("\n## What was expected, and why\n")
    for line in [name for name in table["line"].drop_duplicates() if name != ERM.name]:
        reasons: dict[tuple[str, str], list[str]] = {}
        for (name, world, judged, measure), (direction, why) in expectations.items():
            if name == line and world in set(table["world"]):
                what = reasons.setdefault((why, f"{world} {judged}"), [])
                what += [f"{TITLES[measure]} {direction}"] if direction != SAME else []
        by_reason: dict[tuple[str, str], list[str]] = {}
        for (why, place), what in reasons.items():
            by_reason.setdefault((why, ", ".join(what) or "no change"), []).append(place)
        parts += [f"- `{line}`, {'; '.join(places)}: **{what}**: {why}" for (why, what), places in by_reason.items()]
    return "\n".join(parts) + "\n"


def _marked(by: pd.DataFrame, measure: str) -> str:
    text = interval(by, measure)
    if measure in MEASURES and by.loc[measure, "outcome"] == "disagrees":
        text = f"**{text}**"
    beside = interval(by, measure, "rule_") if measure == MEASURES[0] else "-"
    return text if beside == "-" else f"{text} [{beside.split(' ')[0]}]"
