"""The same trained models on two cohorts, at home ("in") and elsewhere ("out"), side by side on what both can measure.

The two cohorts are different people, so a difference between them has the interval of independent samples. Groups, and the
findings that a macro average is over, are the same on both sides: else a difference could come from what is averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.audit.build import check_alike, patient_share, with_verdicts
from biascxr.audit.cells import MACRO, Cells, measure_cells, spread
from biascxr.audit.choices import choose_metrics
from biascxr.audit.comparisons import GAP
from biascxr.audit.groups import CROSSING, OVERALL, Groups, crossed_attributes, find_groups
from biascxr.audit.tables import (
    MACRO_INTERVAL,
    compared_groups,
    correlation_of,
    macro_bounds,
    macro_labels,
    macro_values,
    measurable_labels,
    metrics_table,
)
from biascxr.config import AuditConfig
from biascxr.containers import EXACT_DIGITS, UNKNOWN, Attribute, Predictions
from biascxr.errors import InputError
from biascxr.metrics.base import METRICS
from biascxr.metrics.gaps import expected_noise_gap, gap_change, max_t_gap_interval
from biascxr.metrics.intervals import mover_difference, t_interval, t_p_value
from biascxr.metrics.resampling import resample_patients

SIDES = ("in", "out")
VALUE, DIFFERENCE = "value", "difference"
KEYS = ["recipe", "label", "attribute", "group", "metric", "quantity"]
COUNTS = ("n", "n_positive", "n_patients", "n_class_patients")
EFFECT_KEYS = ["recipe", "label", "attribute", "group", "metric"]


@dataclass(frozen=True)
class ExternalTables:
    """Two cohorts side by side; columns end in `_in` (at home) and `_out` (elsewhere).

    Attributes:
        side_by_side: one row per recipe, label (and macro), attribute, group, metric and quantity: a group's `value`, its
            `difference` from everyone else, and, as group `"gap"`, the max-min `gap` of a macro metric with the gap that noise
            alone would give. `change` is out minus in, with the interval of independent samples (MOVER).
        effects: what each recipe changes against the first, paired within each cohort, with verdicts, macro metrics only;
            `transfer` is the effect elsewhere minus the effect at home.
    """

    side_by_side: pd.DataFrame
    effects: pd.DataFrame


@dataclass(frozen=True)
class _Side:
    groups: Groups
    cells: dict[str, Cells]


def compare_cohorts(
    home: Mapping[str, Predictions], away: Mapping[str, Predictions], config: AuditConfig | None = None, *, seed: int = 0
) -> ExternalTables:
    """Sets the same recipes' predictions on two cohorts side by side.

    Attributes and crossings are those that both cohorts have with two groups or more in common; groups that only one side has
    are left out. Gaps are over the groups that are large enough on both sides.

    Args:
        home: test predictions where the recipes were trained, by recipe; the first is the baseline.
        away: predictions of the same recipes elsewhere, the same findings in the same order.
        config: as of `audit`.
        seed: seed of the resamples.

    Raises:
        InputError: other recipes or findings on one side.
    """
    config = config or AuditConfig()
    first = [next(iter(own.values())) for own in (home, away)]
    if list(home) != list(away) or first[0].label_names != first[1].label_names:
        raise InputError(
            f"Two cohorts are compared on the same recipes and findings; got {list(home)} on {list(first[0].label_names)} and "
            f"{list(away)} on {list(first[1].label_names)}."
        )
    check_alike(home)
    check_alike(away)
    has_decisions = all(p.decisions is not None for own in (home, away) for p in own.values())
    metrics = choose_metrics(config.metrics, has_decisions=has_decisions)
    metrics = tuple(m for m in metrics if not METRICS[m].of_group)
    crossed = [_with_crossings(p, config.crossings) for p in first]
    wanted = (*config.attributes, *map(_title, config.crossings)) if config.attributes else ()
    attributes = shared_attributes(*crossed, wanted)
    sides = [_measure(p, own, attributes, metrics, config, seed) for p, own in zip(crossed, (home, away), strict=True)]
    label_names = first[0].label_names
    rows, effects = [], []
    for recipe in home:
        table = _values(sides, recipe, label_names, metrics, config)
        rows.append(pd.concat([table, _gaps(sides, recipe, metrics, config, seed)], ignore_index=True))
        if recipe != next(iter(home)):
            effects.append(_effects(sides, recipe, metrics, config))
    side_by_side = _with_change(pd.concat(rows, ignore_index=True))
    return ExternalTables(side_by_side, _with_transfer(effects, config))


def shared_attributes(home: Predictions, away: Predictions, wanted: tuple[str, ...] = ()) -> tuple[Attribute, ...]:
    """Returns the attributes of both cohorts, each with the groups that both have, where these are two or more.

    Args:
        home: gives the order.
        away: the other cohort.
        wanted: only these; default: all.
    """
    there = {a.name: a for a in away.attributes}
    shared = []
    for own in home.attributes:
        if own.name not in there or (wanted and own.name not in wanted):
            continue
        present = [set(p.table[own.name].astype(str)) for p in (home, away)]
        groups = tuple(g for g in own.groups if g in there[own.name].groups and all(g in p for p in present))
        if len(groups) > 1:
            shared.append(Attribute(own.name, groups, own.constant and there[own.name].constant))
    return tuple(shared)


def _title(crossing: str) -> str:
    return CROSSING.join(part.strip() for part in crossing.split(CROSSING))


def _with_crossings(predictions: Predictions, crossings: tuple[str, ...]) -> Predictions:
    """Adds each crossing as an attribute of its own, where the cohort has all of its parts."""
    known = {a.name: a for a in predictions.attributes}
    table, attributes = predictions.table, list(predictions.attributes)
    for name in crossings:
        if not all(part.strip() in known for part in name.split(CROSSING)):
            continue
        parts = crossed_attributes(name, known)
        columns = [table[a.name].astype(str) for a in parts]
        is_known = np.logical_and.reduce([c.isin(a.groups) for c, a in zip(columns, parts, strict=True)])
        text = columns[0].str.cat(columns[1:], sep=", ").where(is_known, UNKNOWN)
        title = _title(name)
        table = table.assign(**{title: text})
        groups = tuple(g for g in pd.unique(text) if g != UNKNOWN)
        attributes.append(Attribute(title, groups, all(a.constant for a in parts)))
    return replace(predictions, table=table, attributes=tuple(attributes))


def _measure(
    first: Predictions,
    named: Mapping[str, Predictions],
    attributes: tuple[Attribute, ...],
    metrics: tuple[str, ...],
    config: AuditConfig,
    seed: int,
) -> _Side:
    """Measures every recipe on one cohort; `first` brings the groups."""
    groups = find_groups(first, attributes)
    weight = patient_share(first) if config.weight == "patient" else None
    resamples = resample_patients(first.table["patient_id"], config.n_replicates, seed=seed)
    cells = {name: measure_cells(p, groups, resamples, metrics, weight=weight) for name, p in named.items()}
    return _Side(groups, cells)


def _values(sides: list[_Side], recipe: str, label_names: tuple[str, ...], metrics, config: AuditConfig) -> pd.DataFrame:
    """Values and differences from everyone else: findings as the audit measures them, macro over the same findings."""
    groups = sides[0].groups
    parts = []
    for side in sides:
        table = metrics_table(side.cells[recipe], side.groups, label_names, metrics, config)
        parts.append(table[table["label"] != MACRO].reset_index(drop=True))
    of_findings, macro = _joined(parts), []
    for own in range(groups.n_own):
        attribute, group, _ = groups.names[own]
        columns = [own] if attribute == OVERALL else [own, own + groups.n_own]
        for metric in metrics:
            cells = [side.cells[recipe] for side in sides]
            labels = np.logical_and(*(macro_labels(c, metric, columns) for c in cells))
            common = {"label": MACRO, "attribute": attribute, "group": group, "metric": metric, "n_labels": int(labels.sum())}
            macro.append([common | _macro_row(c, metric, labels, columns, config) for c in cells])
    of_macro = _joined([pd.DataFrame([pair[i] for pair in macro]) for i in range(len(sides))])
    wide = pd.concat([of_findings, of_macro], ignore_index=True)
    wide.insert(0, "recipe", recipe)
    common = [*KEYS[:-1], "n_labels", *(f"{c}_{side}" for side in SIDES for c in COUNTS), *(f"interval_{s}" for s in SIDES)]
    long = []
    for quantity, columns in (
        (VALUE, ("value", "low", "high")),
        (DIFFERENCE, ("difference", "difference_low", "difference_high")),
    ):
        own = wide if quantity == VALUE else wide[wide["attribute"] != OVERALL]
        renamed = {
            f"{c}_{side}": f"{new}_{side}" for side in SIDES for c, new in zip(columns, ("value", "low", "high"), strict=True)
        }
        long.append(own[[*common, *renamed]].rename(columns=renamed).assign(quantity=quantity))
    return pd.concat(long, ignore_index=True)


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Joins two tables of the same rows, columns of the first ending in `_in`, of the second in `_out`."""
    keys = ["label", "attribute", "group", "metric", "n_labels"]
    named = [part.set_index(keys).add_suffix(f"_{side}") for part, side in zip(parts, SIDES, strict=True)]
    return named[0].join(named[1]).reset_index()


def _macro_row(cells: Cells, metric: str, labels: np.ndarray, columns: list[int], config: AuditConfig) -> dict:
    """One side's mean over these findings, and its difference from everyone else's, as the audit's macro rows are made."""
    values = macro_values(cells, metric, labels, columns)
    low, high = macro_bounds(values, metric, config.confidence)
    own, found = columns[0], np.flatnonzero(labels)
    counts, n = cells.counts, cells.n_findings
    row = {"value": values[0, 0], "low": low[0], "high": high[0], "interval": MACRO_INTERVAL} | {
        "n": int(counts.n[:n, own].max()), "n_positive": int(counts.n_positive[found, own].sum()),
        "n_patients": int(counts.n_patients[:n, own].max()),
        "n_class_patients": int(cells.class_patients(metric)[found, own].sum()),
    }  # fmt: skip
    row |= dict.fromkeys(("difference", "difference_low", "difference_high"), np.nan)
    if len(columns) == 2:
        difference = values[0] - values[1]
        ends = t_interval(difference[0], spread(difference[1:]), config.confidence, df=np.inf)
        row |= dict(zip(("difference", "difference_low", "difference_high"), (difference[0], *ends), strict=True))
    return row


def _comparable(sides: list[_Side], attribute: Attribute, metric: str, config: AuditConfig) -> list[str]:
    """The groups of an attribute that are large enough on both sides; judged on the first recipe, the rows are the same."""
    names = [compared_groups(next(iter(side.cells.values())), side.groups, attribute, metric, config) for side in sides]
    return [g for g in names[0] if g in names[1]]


def _gaps(sides: list[_Side], recipe: str, metrics, config: AuditConfig, seed: int) -> pd.DataFrame:
    """Gaps of macro metrics between the groups that both sides can compare, over the same findings."""
    rows = []
    for attribute in sides[0].groups.attributes:
        for metric in metrics:
            names = _comparable(sides, attribute, metric, config)
            columns = [sides[0].groups.index(attribute.name, g) for g in names]
            cells = [side.cells[recipe] for side in sides]
            labels = np.zeros(cells[0].n_findings, bool)
            if len(columns) > 1:
                labels = np.logical_and(*(macro_labels(c, metric, columns) for c in cells))
            row = {
                "recipe": recipe,
                "label": MACRO,
                "attribute": attribute.name,
                "group": GAP,
                "metric": metric,
                "quantity": GAP,
            }
            row |= {"n_labels": int(labels.sum()), "compared_groups": ", ".join(names)}
            for side, own in zip(SIDES, cells, strict=True):
                gap = _gap(own, metric, labels, columns, config, seed, is_independent=attribute.constant)
                row |= {f"{key}_{side}": value for key, value in gap.items()}
            rows.append(row)
    return pd.DataFrame(rows)


def _gap(cells: Cells, metric: str, labels, columns, config: AuditConfig, seed: int, *, is_independent: bool) -> dict:
    found = dict.fromkeys(("value", "low", "high", "noise"), np.nan) | {"interval": "max-T MOVER"}
    if not labels.any():
        return found
    values = macro_values(cells, metric, labels, columns)
    errors = spread(values[:, 1:])
    if np.isnan(values[:, 0]).any() or np.isnan(errors).any():
        return found
    related = None if is_independent else correlation_of(values[:, 1:])
    low, high = max_t_gap_interval(
        values[:, 0], lambda level: macro_bounds(values, metric, level), errors, config.confidence, seed=seed,
        correlation=related,
    )  # fmt: skip
    noise = expected_noise_gap(errors, seed=seed, correlation=related)
    return found | {"value": float(np.ptp(values[:, 0])), "low": low, "high": high, "noise": noise}


def _with_change(table: pd.DataFrame) -> pd.DataFrame:
    """Adds out minus in, and puts the columns in their order."""
    inside, outside = ([table[f"{c}_{side}"] for c in ("value", "low", "high")] for side in SIDES)
    low, high = mover_difference(outside, inside)
    table = table.assign(change=outside[0] - inside[0], change_low=low, change_high=high)
    table["depends_on_prevalence"] = table["metric"].map(lambda m: METRICS[m].depends_on_prevalence)
    sided = [f"{c}_{side}" for side in SIDES for c in ("value", "low", "high", *COUNTS, "noise", "interval")]
    order = [*KEYS, "n_labels", *sided, "change", "change_low", "change_high", "depends_on_prevalence", "compared_groups"]
    return table.reindex(columns=order)


def _effects(sides: list[_Side], recipe: str, metrics, config: AuditConfig) -> list[pd.DataFrame]:
    """Returns for each side what a recipe changes against the baseline: macro, everyone, each compared group, and the gap."""
    groups = sides[0].groups
    found: list[list[dict]] = [[], []]
    for attribute in (None, *groups.attributes):
        for metric in metrics:
            names = ["all"] if attribute is None else _comparable(sides, attribute, metric, config)
            title = OVERALL if attribute is None else attribute.name
            columns = [groups.index(title, g) for g in names]
            if not columns:
                continue
            pairs = [(next(iter(side.cells.values())), side.cells[recipe]) for side in sides]
            labels = np.logical_and.reduce(
                [measurable_labels(c, metric, columns)[: c.n_findings] for pair in pairs for c in pair]
            )
            common = {"recipe": recipe, "label": MACRO, "attribute": title, "metric": metric, "n_labels": int(labels.sum())}
            for rows, pair in zip(found, pairs, strict=True):
                before, after = (macro_values(c, metric, labels, columns) for c in pair)
                rows += [common | row for row in _changes(names, before, after, config, has_gap=attribute is not None)]
    return [pd.DataFrame(rows) for rows in found]


def _changes(names: list[str], before: np.ndarray, after: np.ndarray, config: AuditConfig, *, has_gap: bool) -> list[dict]:
    """Paired changes of groups `[k, R + 1]`, and of the gap between them."""
    change, error = after[:, 0] - before[:, 0], spread(after[:, 1:] - before[:, 1:])
    low, high = t_interval(change, error, config.confidence, df=np.inf)
    p = t_p_value(change, error, df=np.inf)
    rows = [
        {
            "group": name, "before": before[i, 0], "after": after[i, 0], "change": change[i], "low": low[i],
            "high": high[i], "p_value": p[i],
        }
        for i, name in enumerate(names)
    ]  # fmt: skip
    if has_gap and len(names) > 1:
        gaps = [float(np.ptp(v[:, 0])) for v in (before, after)]  # NaN where a group's value is
        moved = gap_change(before[:, 0], after[:, 0], before[:, 1:], after[:, 1:], config.confidence)
        rows.append(
            {
                "group": GAP, "before": gaps[0], "after": gaps[1], "change": gaps[1] - gaps[0], "low": moved.low,
                "high": moved.high, "p_value": moved.p_value,
            }
        )  # fmt: skip
    return rows


def _with_transfer(effects: list[list[pd.DataFrame]], config: AuditConfig) -> pd.DataFrame:
    """Joins the two sides' effects, each side's tests corrected for their number, and compares them."""
    keys = [*EFFECT_KEYS, "n_labels"]
    columns = ["before", "after", "change", "low", "high", "p_holm", "verdict"]
    if not effects:
        return pd.DataFrame(
            columns=[*keys, *(f"{c}_{s}" for s in SIDES for c in columns), "transfer", "transfer_low", "transfer_high"]
        )
    sides = []
    for i, side in enumerate(SIDES):
        judged = with_verdicts(pd.concat([own[i] for own in effects], ignore_index=True), config)
        sides.append(judged.set_index(keys)[columns].add_suffix(f"_{side}"))
    table = sides[0].join(sides[1]).reset_index()
    inside, outside = ([table[f"{c}_{side}"] for c in ("change", "low", "high")] for side in SIDES)
    low, high = mover_difference(outside, inside)
    return table.assign(transfer=outside[0] - inside[0], transfer_low=low, transfer_high=high)


def read_tables(side_by_side: Path, effects: Path) -> ExternalTables:
    """Reads the two tables from their CSV files; only an empty cell is missing, a group may be called "NA"."""
    text = dict.fromkeys((*KEYS, "compared_groups", *(f"{c}_{s}" for s in SIDES for c in ("interval", "verdict"))), str)
    frames = []
    for path in (side_by_side, effects):
        frame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""], **EXACT_DIGITS)
        frames.append(frame.fillna({c: "" for c in text if c in frame}))
    return ExternalTables(*frames)
