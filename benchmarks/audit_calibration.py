"""Do the audit's intervals and tests hold what they promise? Measured in simulated worlds whose truth is known.

    python benchmarks/audit_calibration.py                       # 1,000 worlds of each setting
    python benchmarks/audit_calibration.py --quick               # 100 worlds, under 12 minutes on two cores
    python benchmarks/audit_calibration.py --part coverage,gaps  # some parts

Everything runs through the package's own tables. Each line gives a figure, its Monte Carlo error (one standard error), the
target beside it, and whether it is met. What is known to fail stands at the end of each part, so that it can be seen to fail.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
from scipy import special, stats
from threadpoolctl import threadpool_limits
from worlds import FEW, MANY, SOME, Family, Label, World, draw, draw_family, draw_large, label_of_auroc

import biascxr
from biascxr.audit.cells import measure_cells
from biascxr.audit.comparisons import EQUALIZED_ODDS, GAP, comparison_table
from biascxr.audit.equality import equality_table
from biascxr.audit.groups import ALL, OVERALL, find_groups
from biascxr.audit.tables import gaps_table, metrics_table
from biascxr.audit.verdicts import DOWN, DOWN_POSSIBLE
from biascxr.config import AuditConfig
from biascxr.containers import Predictions
from biascxr.metrics.base import METRICS
from biascxr.metrics.intervals import percentile_interval
from biascxr.metrics.resampling import resample_patients
from biascxr.metrics.significance import adjust_p_values
from biascxr.metrics.sorted_pass import has_compiler

RATES, RANKS = ("TPR", "FPR"), ("AUROC",)
COVERED = (
    "AUROC", "AUPRC", "TPR", "FPR", "PPV", "selection_rate", "Brier", "ECE", "ECE_debiased", "log_loss", "balanced_accuracy",
    "calibration_in_the_large", "calibration_slope", "BNSP_AUROC", "BPSN_AUROC",
)  # fmt: skip
MACRO_METRICS = ("AUROC", "AUPRC", "TPR", "FPR", "Brier")
SIZES = (25, 100)  # patients with a positive image in the smallest group
TRUTH_PATIENTS = 12_000  # positive patients of each group behind a truth without closed form
FIVE, FIVE_IMAGES = (0.66, 0.16, 0.10, 0.05, 0.03), (SOME, MANY, FEW, SOME, MANY)
FIVE_PREVALENCE, FIVE_SPREAD = (0.02, 0.05, 0.10, 0.20, 0.30), (1.0, 1.4, 0.8, 1.2, 0.7)
TWO, TWO_IMAGES, TWO_PREVALENCE, TWO_SPREAD = (0.7, 0.3), (FEW, MANY), (0.06, 0.20), (1.3, 0.8)
LAYOUTS = {
    2: (TWO, TWO_IMAGES, TWO_PREVALENCE, TWO_SPREAD),
    5: (FIVE, FIVE_IMAGES, FIVE_PREVALENCE, FIVE_SPREAD),
}
TARGETS = {25: (0.925, 0.975), 100: (0.935, 0.97)}
AT_LEAST_94, SIZE_OF_TEST = (0.94, 1.0), (0.02, 0.08)


# ---------------------------------------------------------------------------------------------------------------- worlds


def coverage_worlds() -> dict[str, World]:
    """Groups that differ in everything, at two base rates."""
    five = Label(
        "x", FIVE_PREVALENCE, tpr=(0.80, 0.70, 0.75, 0.60, 0.85), fpr=(0.20, 0.15, 0.25, 0.30, 0.10), spread=FIVE_SPREAD
    )
    three = Label("x", (0.15, 0.04, 0.25), tpr=(0.65, 0.90, 0.75), fpr=(0.10, 0.20, 0.15), spread=(0.8, 1.0, 1.3))
    return {
        "5 groups": World(FIVE, FIVE_IMAGES, (five,)),
        "3 groups": World((0.2, 0.6, 0.2), (FEW, SOME, MANY), (three,)),
    }


def macro_world() -> World:
    """Four findings of three groups."""
    prevalence = ((0.05, 0.10, 0.15), (0.10, 0.12, 0.30), (0.20, 0.15, 0.25), (0.08, 0.20, 0.12))
    tpr = ((0.8, 0.7, 0.75), (0.7, 0.7, 0.7), (0.9, 0.8, 0.85), (0.6, 0.75, 0.7))
    labels = tuple(
        Label(f"finding {i + 1}", p, t, (0.2, 0.15, 0.25), (1.0, 1.3, 0.8))
        for i, (p, t) in enumerate(zip(prevalence, tpr, strict=True))
    )
    return World((0.6, 0.25, 0.15), (SOME, MANY, FEW), labels)


def gap_labels(k: int, *, rate_shift: float, rank_shift: float, is_centred: bool = False) -> tuple[Label, ...]:
    """A finding whose TPR and FPR, and one whose AUROC, is worse by a shift in the last but one of k groups."""
    _, _, prevalence, spread = LAYOUTS[k]
    base_tpr, base_fpr, base_auroc = (0.75, 0.25, 0.75) if is_centred else (0.80, 0.20, 0.85)

    def moved(base: float, shift: float) -> tuple[float, ...]:
        values = np.full(k, base)
        values[k - 2] += shift
        return tuple(values)

    return (
        Label("rates", prevalence, moved(base_tpr, -rate_shift), moved(base_fpr, rate_shift), spread),
        label_of_auroc("ranks", prevalence, moved(base_auroc, -rank_shift), (base_fpr,) * k, spread),
    )


def gap_world(k: int, size: float) -> World:
    """Groups of which one is worse by `size`."""
    shares, images, _, _ = LAYOUTS[k]
    return World(shares, images, gap_labels(k, rate_shift=size, rank_shift=size))


CHANGES = {
    "0 -> 0": (0.0, 0.0),
    ".15 -> .15": (0.15, 0.15),
    "0 -> .15": (0.0, 0.15),
    ".15 -> 0": (0.15, 0.0),
    "order swaps": (0.15, -0.15),
}


def change_world(k: int, case: str) -> World:
    """Two models; the second is the first with fresh noise, apart from what the case says."""
    shares, images, _, _ = LAYOUTS[k]
    before, after = (gap_labels(k, rate_shift=s, rank_shift=s, is_centred=True) for s in CHANGES[case])
    return World(shares, images, before, after=after)


def equal_worlds(k: int) -> dict[str, World]:
    """Groups that differ in prevalence, image counts and spread, and are equal in rates, or in AUROC."""
    shares, images, prevalence, spread = LAYOUTS[k]
    rates = tuple(Label(f"TPR {t}, FPR {f}", prevalence, (t,) * k, (f,) * k, spread) for t, f in ((0.80, 0.20), (0.90, 0.05)))
    ranks = tuple(label_of_auroc(f"AUROC {a}", prevalence, (a,) * k, (0.2,) * k, spread) for a in (0.80, 0.90))
    return {"rates": World(shares, images, rates), "ranks": World(shares, images, ranks)}


def family_world(*, planted: tuple[float, ...] = ()) -> Family:
    """14 findings and 4 attributes; planted: the TPRs of the first finding in the halves of the first attribute."""
    family = Family(
        attributes=((0.5, 0.5), FIVE, (0.35, 0.45, 0.20), (0.6, 0.25, 0.15)),
        shifts=(
            (0.0, 0.0) if planted else (0.0, -0.4), (0.0, 0.3, -0.3, 0.5, 0.4), (-0.3, 0.0, 0.3), (0.0, 0.2, 0.4),
        ),
        prevalence=(0.18, 0.04, 0.05, 0.06, 0.08, 0.10, 0.12, 0.15, 0.20, 0.25, 0.30, 0.05, 0.08, 0.10),
        tpr=(0.8, 0.7, 0.8, 0.9, 0.75, 0.85, 0.7, 0.8, 0.9, 0.75, 0.8, 0.7, 0.8, 0.85),
        fpr=(0.2, 0.1, 0.2, 0.3, 0.15, 0.2, 0.2, 0.1, 0.2, 0.25, 0.2, 0.2, 0.15, 0.2),
        planted=planted,
        n_patients=1200,
    )  # fmt: skip
    if planted:
        family = replace(family, n_patients=round(1200 * 400 / family.planted_positives()))
    return family


# --------------------------------------------------------------------------------------------------------- measured truth


@cache
def truths(world_key: tuple[str, str]) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Value and difference from everyone else by label, group and metric, from a very large sample of the world."""
    world = macro_world() if world_key[0] == "macro" else coverage_worlds()[world_key[1]]
    metrics = MACRO_METRICS if world_key[0] == "macro" else COVERED
    predictions, weight = draw_large(world, np.random.default_rng([99, len(world.shares)]), positive_patients=TRUTH_PATIENTS)
    codes = pd.Categorical(predictions.table["group"], categories=list(world.attribute.groups)).codes
    found = {}
    for index, label in enumerate(world.labels):
        y, score, decision = predictions.y_true[:, index], predictions.scores[:, index], predictions.decisions[:, index]
        for metric in metrics:
            spec, function = METRICS[metric], METRICS[metric].load()
            argument = decision if spec.reads == "decision" else score
            for g in [*range(len(world.shares)), None]:
                own = np.ones(len(codes), bool) if g is None else codes == g
                name = ALL if g is None else world.attribute.groups[g]
                if spec.of_group:
                    if g is not None:
                        found[label.name, name, metric] = (function(y, score, own, weight), np.nan)
                    continue
                value = function(y[own], argument[own], weight[own])
                if g is not None and metric in ("AUROC", "TPR", "FPR"):
                    value = float(label.truth(metric)[g])
                others = np.nan if g is None else function(y[~own], argument[~own], weight[~own])
                found[label.name, name, metric] = (value, value - others)
    if len(world.labels) > 1:
        keys = {(g, m) for _, g, m in found}
        for g, m in keys:
            found["macro", g, m] = tuple(np.mean([found[label.name, g, m] for label in world.labels], axis=0))
    return found


# ------------------------------------------------------------------------------------------------------------ one world


Observation = tuple[tuple[str, ...], float]


def holds(low: float, high: float, value: float) -> float:
    """1 or 0; NaN where the interval is undefined."""
    return np.nan if np.isnan(low) or np.isnan(high) else float(low <= value <= high)


def _cells(predictions: Predictions, metrics: tuple[str, ...], n_replicates: int, seed: int, *, by_image: bool = False):
    groups = find_groups(predictions, predictions.attributes)
    unit = predictions.table["image_id" if by_image else "patient_id"]
    resamples = resample_patients(unit, n_replicates, seed=seed)
    return groups, measure_cells(predictions, groups, resamples, metrics, is_compiled=has_compiler)


def coverage(world: World, name: str, rng: np.random.Generator, seed: int, n_replicates: int) -> Iterator[Observation]:
    """Intervals of each metric and difference; and the image-level percentile bootstrap."""
    (predictions,) = draw(world, rng)
    config = AuditConfig(n_replicates=n_replicates)
    groups, cells = _cells(predictions, COVERED, n_replicates, seed)
    known = truths(("coverage", name))
    table = metrics_table(cells, groups, predictions.label_names, COVERED, config)
    for row in table[table["label"] == "x"].itertuples():
        value, difference = known.get(("x", row.group, row.metric), (np.nan, np.nan))
        if np.isnan(value):
            continue
        kind = "interval of everyone" if row.attribute == OVERALL else "interval"
        yield (kind, row.metric, row.group), holds(row.low, row.high, value)
        if row.attribute != OVERALL and not np.isnan(difference):
            yield ("difference", row.metric, row.group), holds(row.difference_low, row.difference_high, difference)
    for kind, by_image in (("percentile", False), ("image bootstrap", True)):
        if by_image:
            _, cells = _cells(predictions, COVERED, n_replicates, seed, by_image=True)
        for metric in COVERED:
            for group in world.attribute.groups:
                values = cells.values[metric][0, groups.index("group", group)]
                interval = percentile_interval(values[1:], config.confidence)
                yield (kind, metric, group), holds(*interval, known["x", group, metric][0])


def macro(world: World, name: str, rng: np.random.Generator, seed: int, n_replicates: int) -> Iterator[Observation]:
    """Means over findings, and their difference from everyone else."""
    (predictions,) = draw(world, rng)
    groups, cells = _cells(predictions, MACRO_METRICS, n_replicates, seed)
    table = metrics_table(cells, groups, predictions.label_names, MACRO_METRICS, AuditConfig(n_replicates=n_replicates))
    known = truths(("macro", name))
    for row in table[(table["label"] == "macro") & (table["n_labels"] == len(world.labels))].itertuples():
        value, difference = known["macro", row.group, row.metric]
        yield ("macro interval", row.metric, row.group), holds(row.low, row.high, value)
        if row.attribute != OVERALL:
            yield ("macro difference", row.metric, row.group), holds(row.difference_low, row.difference_high, difference)


def gaps(world: World, name: str, rng: np.random.Generator, seed: int, n_replicates: int) -> Iterator[Observation]:
    """Max-min gaps: max-T MOVER, and the percentile interval that fails."""
    (predictions,) = draw(world, rng)
    metrics = (*RANKS, *RATES)
    groups, cells = _cells(predictions, metrics, n_replicates, seed)
    table = gaps_table(cells, groups, predictions.label_names, metrics, AuditConfig(n_replicates=n_replicates), seed=seed)
    table = table.set_index(["label", "metric"])
    columns = [groups.index("group", g) for g in world.attribute.groups]
    for index, label in enumerate(world.labels):
        for metric in RATES if label.name == "rates" else RANKS:
            row, true = table.loc[(label.name, metric)], np.ptp(label.truth(metric))
            if row["n_groups"] < len(columns):
                continue
            yield ("gap", metric), holds(row["low"], row["high"], true)
            replicates = np.ptp(cells.values[metric][index, columns, 1:], axis=0)
            yield ("gap, percentile", metric), holds(*percentile_interval(replicates, 0.95), true)
            yield ("naive gap less truth", metric), row["gap"] - true
            yield ("corrected gap less truth", metric), row["corrected_gap"] - true


def changes(world: World, name: str, rng: np.random.Generator, seed: int, n_replicates: int) -> Iterator[Observation]:
    """Paired changes of gaps and of groups, and levelling down where nothing changed."""
    first, second = draw(world, rng)
    metrics = (*RANKS, *RATES)
    groups, before = _cells(first, metrics, n_replicates, seed)
    _, after = _cells(second, metrics, n_replicates, seed)
    config = AuditConfig(n_replicates=n_replicates)
    table = comparison_table(before, after, groups, first.label_names, metrics, config)
    table = table[table["attribute"] == "group"].set_index(["label", "group", "metric"])
    models = {label.name: (label, later) for label, later in zip(world.labels, world.after, strict=True)}
    for label, metric in (("rates", "TPR"), ("rates", "FPR"), ("rates", EQUALIZED_ODDS), ("ranks", "AUROC")):
        of = RATES if metric == EQUALIZED_ODDS else (metric,)
        sizes = [max(np.ptp(model.truth(m)) for m in of) for model in models[label]]
        if (label, GAP, metric) not in table.index:
            continue
        row = table.loc[(label, GAP, metric)]
        yield ("change of gap", metric), holds(row["low"], row["high"], sizes[1] - sizes[0])
        columns = [groups.index("group", g) for g in world.attribute.groups]
        at = first.label_names.index(label)
        replicates = [
            np.max([np.ptp(cells.values[m][at, columns, 1:], axis=0) for m in of], axis=0) for cells in (before, after)
        ]
        interval = percentile_interval(replicates[1] - replicates[0], config.confidence)
        yield ("change of gap, percentile", metric), holds(*interval, sizes[1] - sizes[0])
        if metric == EQUALIZED_ODDS:
            continue
        is_unchanged = models[label][0].truth(metric).tolist() == models[label][1].truth(metric).tolist()
        if is_unchanged and metric in ("AUROC", "TPR"):
            yield ("levelling down", metric), float(row["levelling"] in (DOWN, DOWN_POSSIBLE))
        for g, group in enumerate(world.attribute.groups):
            if (label, group, metric) in table.index:
                row = table.loc[(label, group, metric)]
                change = models[label][1].truth(metric)[g] - models[label][0].truth(metric)[g]
                yield ("change of group", metric, group), holds(row["low"], row["high"], change)


def _image_chi_square(predictions: Predictions, label: int, metric: str, attribute: str, groups: tuple[str, ...]) -> float:
    """p-value of the plain chi-square test over images; NaN where it is undefined."""
    rows = (predictions.y_true[:, label] == (1 if metric == "TPR" else 0)) & predictions.table[attribute].isin(
        groups
    ).to_numpy()
    flagged = predictions.decisions[rows, label] == 1
    codes = pd.factorize(predictions.table[attribute][rows])[0]
    table = np.array([np.bincount(codes[flagged], minlength=len(groups)), np.bincount(codes[~flagged], minlength=len(groups))])
    if table.shape[1] != len(groups) or (table.sum(axis=0) == 0).any() or (table.sum(axis=1) == 0).any():
        return np.nan
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def _wald(values: np.ndarray, errors: np.ndarray) -> float:
    """p-value of the Wald test that estimates are equal; a group without variance is left to it as it is: infinitely sure."""
    w = 1 / np.maximum(errors, 1e-9) ** 2
    return float(stats.chi2.sf((w * (values - w @ values / w.sum()) ** 2).sum(), len(values) - 1))


def _rejects(p: float) -> float:
    return np.nan if np.isnan(p) else float(p < 0.05)


def tests(world: World, name: str, rng: np.random.Generator, seed: int, n_replicates: int) -> Iterator[Observation]:
    """Rejections of equal rates (a world with equal rates) or equal AUROC."""
    (predictions,) = draw(world, rng)
    is_rates = name.startswith("rates")
    metrics = RATES if is_rates else RANKS
    groups, cells = _cells(predictions, metrics, 1, seed)
    config = AuditConfig(n_permutations=199)
    table = equality_table({"a": predictions}, {"a": cells}, groups, config, seed=seed)
    columns = [groups.index("group", g) for g in world.attribute.groups]
    for row in table.itertuples():
        label = predictions.label_names.index(row.label)
        what = f"{row.metric} ({row.label})"
        if row.n_groups < len(columns):
            continue
        if not is_rates:
            yield ("Welch-James", what), _rejects(row.p_value)
            continue
        for test, p in (("Donner", row.p_value), ("Donner, permuted", row.p_permuted), ("floored score", row.p_score)):
            yield (test, what), _rejects(p)
        image = _image_chi_square(predictions, label, row.metric, "group", world.attribute.groups)
        yield ("image chi-square", what), _rejects(image)
        wald = _wald(cells.estimate(row.metric)[label, columns], cells.standard_error(row.metric)[label, columns])
        yield ("patients' Wald", what), _rejects(wald)


def family(world: Family, name: str, rng: np.random.Generator, seed: int, n_replicates: int) -> Iterator[Observation]:
    """Any flag at all among 14 findings and 4 attributes; or, where one is planted, whether it is found."""
    predictions = draw_family(world, rng)
    groups, cells = _cells(predictions, (*RANKS, *RATES), 1, seed)
    config = AuditConfig(n_permutations=n_replicates)
    table = equality_table({"a": predictions}, {"a": cells}, groups, config, seed=seed)
    for metric, own in table.groupby("metric", sort=False):
        if world.planted:
            row = own[(own["label"] == predictions.label_names[0]) & (own["attribute"] == "attribute 1")].iloc[0]
            if metric == "TPR":
                yield ("power, adjusted (min-P)", metric), float(row["p_adjusted"] < 0.05)
                yield ("power, Holm on floored score", metric), float(row["p_holm"] < 0.05)
                yield ("power, unadjusted (Donner, permuted)", metric), float(row["p_permuted"] < 0.05)
            continue
        yield ("any flag, p_adjusted", metric), float((own["p_adjusted"] < 0.05).any())
        yield ("any flag, Holm", metric), float((own["p_holm"] < 0.05).any())
        yield ("tests in the family", metric), float(own["p_adjusted"].notna().sum())
        if metric == "AUROC":
            continue
        naive = {"patients' Wald": [], "image chi-square": []}
        for row in own[own["n_groups"] > 1].itertuples():
            label = predictions.label_names.index(row.label)
            attribute = next(a for a in predictions.attributes if a.name == row.attribute)
            columns = [groups.index(attribute.name, g) for g in attribute.groups]
            errors = cells.standard_error(metric)[label, columns]
            enough = cells.class_patients(metric)[label, columns] >= 5
            naive["patients' Wald"].append(_wald(cells.estimate(metric)[label, columns][enough], errors[enough]))
            compared = tuple(g for g, is_enough in zip(attribute.groups, enough, strict=True) if is_enough)
            naive["image chi-square"].append(_image_chi_square(predictions, label, metric, attribute.name, compared))
        for test, p in naive.items():
            yield (f"any flag, Holm on {test}", metric), float((adjust_p_values(np.array(p), "holm") < 0.05).any())


def power(world: World, name: str, rng: np.random.Generator, seed: int, n_replicates: int) -> Iterator[Observation]:
    """TPR .80 against .70; with so few permutations as serve the size of a test, power would be lost to the draws."""
    (predictions,) = draw(world, rng)
    groups, cells = _cells(predictions, ("TPR",), 1, seed)
    table = equality_table({"a": predictions}, {"a": cells}, groups, AuditConfig(n_permutations=n_replicates), seed=seed)
    row = table[table["metric"] == "TPR"].iloc[0]
    for test, p in (("Donner", row["p_value"]), ("Donner, permuted", row["p_permuted"]), ("floored score", row["p_score"])):
        yield (f"power, {test}", "TPR"), _rejects(p)


# ------------------------------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class Setting:
    """One world and what is measured in it.

    Attributes:
        part: name in `PARTS`.
        name: shown in the table.
        run: function of the world that yields observations.
        world: the world.
        world_name: name by which its truth is known.
        n_replicates: resamples of patients, or permutations.
        size: positive patients in the smallest group.
    """

    part: str
    name: str
    run: Callable
    world: World | Family
    world_name: str
    n_replicates: int
    size: int = 0


def _settings_of_coverage() -> Iterator[Setting]:
    for size in SIZES:
        for name, world in coverage_worlds().items():
            yield Setting("coverage", f"{name}, K+ {size}", coverage, world.sized(positive_patients=size), name, 255, size)


def _settings_of_macro() -> Iterator[Setting]:
    for size in SIZES:
        world = macro_world().sized(positive_patients=size)
        yield Setting("macro", f"4 findings, 3 groups, K+ {size}", macro, world, "macro", 255, size)


def _settings_of_gaps() -> Iterator[Setting]:
    for k in LAYOUTS:
        for size in SIZES:
            for gap in (0.0, 0.03, 0.15):
                world = gap_world(k, gap).sized(positive_patients=size)
                yield Setting("gaps", f"gap {gap:g}, {k} groups, K+ {size}", gaps, world, "", 127, size)


def _settings_of_changes() -> Iterator[Setting]:
    for k in LAYOUTS:
        for size in SIZES:
            for case in CHANGES:
                world = change_world(k, case).sized(positive_patients=size)
                yield Setting("changes", f"{case}, {k} groups, K+ {size}", changes, world, case, 191, size)


def _settings_of_tests() -> Iterator[Setting]:
    for k in LAYOUTS:
        for size in SIZES:
            for name, world in equal_worlds(k).items():
                sized = world.sized(positive_patients=size)
                yield Setting("tests", f"{k} groups, K+ {size}", tests, sized, name, 0, size)


def _settings_of_family() -> Iterator[Setting]:
    yield Setting("family", "14 findings x 4 attributes", family, family_world(), "fair", 199)


def _settings_of_power() -> Iterator[Setting]:
    label = Label("x", (0.15, 0.15), (0.80, 0.70), (0.2, 0.2), (1.0, 1.0))
    world = World((0.5, 0.5), (SOME, SOME), (label,))
    # Images of a patient are alike, so 400 positive images are fewer than 400 positive patients.
    for unit, expected in (("images", world.positive_images().min()), ("patients", world.positive_patients().min())):
        sized = replace(world, n_patients=round(world.n_patients * 400 / expected))
        yield Setting("power", f"400 positive {unit} each", power, sized, "", 999)
    planted = family_world(planted=(0.80, 0.70))
    yield Setting("power", "400 positive images, family of 56", family, planted, "planted", 249)


PARTS: dict[str, Callable[[], Iterator[Setting]]] = {
    "coverage": _settings_of_coverage,
    "macro": _settings_of_macro,
    "gaps": _settings_of_gaps,
    "changes": _settings_of_changes,
    "tests": _settings_of_tests,
    "family": _settings_of_family,
    "power": _settings_of_power,
}
_SETTINGS: dict[str, list[Setting]] = {}


def run_worlds(job: tuple[str, int, int, int, int]) -> tuple[tuple[str, int], list[list[Observation]], float]:
    """Runs some worlds of a setting, in a worker."""
    part, at, first, last, seed = job
    start = time.process_time()
    setting = _SETTINGS[part][at]
    found = []
    for index in range(first, last):
        rng = np.random.default_rng([seed, list(PARTS).index(part), at, index])
        with np.errstate(all="ignore"):
            observed = setting.run(setting.world, setting.world_name, rng, index + 1, setting.n_replicates)
            found.append(list(observed))
    return (part, at), found, time.process_time() - start


# -------------------------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True)
class Figure:
    """One line of the result.

    Attributes:
        part: name in `PARTS`.
        kind: what was measured.
        metric: of which metric.
        setting: in which worlds.
        mean: over worlds and groups.
        error: its Monte Carlo error.
        lowest: the group of the lowest mean, and that mean.
        highest: likewise.
        n_worlds: worlds in which it was defined.
        target: bounds, or None: shown only.
    """

    part: str
    kind: str
    metric: str
    setting: str
    mean: float
    error: float
    lowest: tuple[str, float]
    highest: tuple[str, float]
    n_worlds: int
    target: tuple[float, float] | None

    @property
    def what(self) -> str:
        """Kind and metric, as shown."""
        return f"{self.kind}, {self.metric}"

    def number(self, *, with_error: bool = False) -> str:
        """Percent, or a bias or count as it is."""
        is_share = not self.kind.endswith(("less truth", "in the family"))
        mean, error = (f"{100 * v:.1f}" if is_share else f"{v:.3f}" for v in (self.mean, self.error))
        return f"{mean} ± {error}" if with_error else mean

    def verdict(self) -> str:
        """PASS, or in which direction it falls short."""
        if self.target is None:
            return ""
        low, high = self.target
        if np.isnan(self.mean):
            return "FALLS SHORT: undefined"
        if low <= self.mean <= high:
            # The worst group may be outside by chance: it is one of several, each with its own error.
            by = 3 * np.sqrt(0.05 * 0.95 / max(self.n_worlds, 1))
            if low - by <= self.lowest[1] and self.highest[1] <= high + by:
                return "PASS"
            return "FALLS SHORT in one group"
        distance = low - self.mean if self.mean < low else self.mean - high
        return "FALLS SHORT" + (" (within 2 errors)" if distance < 2 * self.error else "")


def target_of(part: str, key: tuple[str, ...], setting: Setting) -> tuple[float, float] | None:
    """Returns the bounds a figure must lie in, or None."""
    kind = key[0]
    if kind in ("interval", "difference", "macro interval", "macro difference"):
        return TARGETS[setting.size]
    if kind == "interval of everyone":
        return TARGETS[100]  # everyone has far more positive patients than the smallest group
    if kind in ("gap", "change of gap"):
        return AT_LEAST_94
    if kind == "change of group":
        return TARGETS[setting.size]
    if kind == "levelling down":
        return (0.0, 0.05)
    if kind in ("Donner", "Donner, permuted", "floored score", "Welch-James"):
        return SIZE_OF_TEST
    if kind == "any flag, p_adjusted":
        return (0.0, 0.08)
    if kind == "power, Donner, permuted":
        return (0.80, 1.0)
    return None


def figures_of(setting: Setting, worlds: list[list[Observation]]) -> list[Figure]:
    """Averages the observations of a setting over its worlds and groups."""
    by_world: dict[tuple[str, ...], list[float]] = defaultdict(list)
    by_group: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for observations in worlds:
        own: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for key, value in observations:
            if not np.isnan(value):
                own[key[:2]].append(value)
                by_group[key[:2]]["".join(key[2:])].append(value)
            else:
                own[key[:2]] += []
        for key, values in own.items():
            by_world[key].append(float(np.mean(values)) if values else np.nan)
    made = []
    for key, values in by_world.items():
        groups = {g: float(np.mean(v)) for g, v in by_group[key].items()}
        defined = np.array(values)[~np.isnan(values)]
        # All observations count alike, also where a group is undefined in some worlds.
        observed = np.concatenate([np.asarray(v) for v in by_group[key].values()]) if groups else np.array([np.nan])
        mean = float(observed.mean())
        # A share of 0 or 1 in every world is no certainty.
        floor = np.sqrt(0.5) / len(observed) if np.isin(observed, (0, 1)).all() else 0.0
        error = max(float(np.std(defined, ddof=1) / np.sqrt(len(defined))), floor) if len(defined) > 1 else np.nan
        lowest, highest = (
            (pick(groups, key=groups.get), pick(groups.values())) if groups else ("", np.nan) for pick in (min, max)
        )
        made.append(
            Figure(
                setting.part, *key, setting.name, mean, error, lowest, highest, len(defined),
                target_of(setting.part, key, setting),
            )
        )  # fmt: skip
    return made


# What is shown beside a figure, for it is known to fail: a kind, and the kind whose line it stands on.
BESIDE = {
    "percentile": "interval",
    "image bootstrap": "interval",
    "gap, percentile": "gap",
    "naive gap less truth": "gap",
    "corrected gap less truth": "gap",
    "change of gap, percentile": "change of gap",
}


def print_figures(figures: list[Figure]) -> None:
    """Prints the table, what is known to fail beside what replaces it."""
    print(
        f"\n{'what':<49}{'worlds':<34}{'figure':>13}  {'lowest..highest group':<26}{'n':>5}  {'target':<12}"
        f"{'verdict':<31}known to fail"
    )
    for part in dict.fromkeys(f.part for f in figures):
        print(f"--- {part}")
        own = [f for f in figures if f.part == part]
        first = {f.what: i for i, f in reversed(list(enumerate(own)))}
        beside: dict[tuple[str, str], list[str]] = defaultdict(list)
        for f in own:
            if f.kind in BESIDE:
                beside[f"{BESIDE[f.kind]}, {f.metric}", f.setting].append(f"{f.kind} {f.number()}")
        for f in sorted((f for f in own if f.kind not in BESIDE), key=lambda f: first[f.what]):
            reach = ""
            if f.lowest[0] != f.highest[0]:
                reach = f"{f.lowest[0]} {100 * f.lowest[1]:.1f} .. {f.highest[0]} {100 * f.highest[1]:.1f}"
            target = "" if f.target is None else f"{100 * f.target[0]:g}..{100 * f.target[1]:g}"
            print(
                f"{f.what:<49}{f.setting:<34}{f.number(with_error=True):>13}  {reach:<26}{f.n_worlds:>5}  {target:<12}"
                f"{f.verdict():<31}{'; '.join(beside[f.what, f.setting])}".rstrip()
            )


# --------------------------------------------------------------------------------------------------------- command line


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the flags; an unknown one, or a part that does not exist, ends the program with an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, help="worlds of each setting (default 1000; 100 with --quick)")
    parser.add_argument("--quick", action="store_true", help="100 worlds: under 12 minutes on two cores")
    parser.add_argument("--part", default=",".join(PARTS), help=f"comma-separated, among {', '.join(PARTS)}")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all worlds (default 0)")
    flags = parser.parse_args(arguments)
    flags.parts = [part.strip() for part in flags.part.split(",") if part.strip()]
    unknown = [part for part in flags.parts if part not in PARTS]
    if unknown or not flags.parts:
        parser.error(f"--part: unknown {', '.join(unknown) or 'empty list'}; the parts are {', '.join(PARTS)}")
    flags.worlds = flags.worlds if flags.worlds is not None else (100 if flags.quick else 1000)
    for name, least in (("worlds", 2), ("workers", 1), ("seed", 0)):
        if getattr(flags, name) < least:
            parser.error(f"--{name} must be at least {least}; got {getattr(flags, name)}")
    return flags


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "no git"


def _warm_up() -> None:
    """Compiles and imports once, before the workers fork: they inherit it."""
    label = Label("x", (0.3, 0.3), (0.8, 0.8), (0.2, 0.2), (1.0, 1.0))
    (predictions,) = draw(World((0.5, 0.5), (SOME, SOME), (label,), n_patients=200), np.random.default_rng(0))
    groups, cells = _cells(predictions, COVERED, 60, 0)
    metrics_table(cells, groups, ("x",), COVERED, AuditConfig())
    gaps_table(cells, groups, ("x",), COVERED, AuditConfig(), seed=0)
    equality_table({"a": predictions}, {"a": cells}, groups, AuditConfig(n_permutations=50), seed=0)
    comparison_table(cells, cells, groups, ("x",), (*RANKS, *RATES), AuditConfig())
    special.expit(0.0)


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts and prints the table. Returns the number of figures that fall short."""
    flags = parse_arguments(arguments)
    start = time.perf_counter()
    print(
        f"audit calibration: {flags.worlds} worlds a setting, seed {flags.seed}, {flags.workers} workers\n"
        f"python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, pandas {pd.__version__}, "
        f"biascxr {biascxr.__version__} ({_commit()}), {'compiled' if has_compiler else 'numpy'} pass\n"
        "K+: expected patients with a positive image in the smallest group. ±: Monte Carlo error, one standard error.\n"
        "Figures are percent of worlds (and groups); biases of gaps are fractions."
    )
    if "fork" not in multiprocessing.get_all_start_methods():
        sys.exit("This benchmark needs processes that fork (Linux).")
    threadpool_limits(1)  # a pool of processes already uses every core
    _warm_up()
    if "coverage" in flags.parts:
        for name in coverage_worlds():
            truths(("coverage", name))
    if "macro" in flags.parts:
        truths(("macro", "macro"))
    print(f"{time.perf_counter() - start:5.0f} s  compiled, truths known", flush=True)
    _SETTINGS.update({part: list(PARTS[part]()) for part in flags.parts})
    done: list[Figure] = []
    with ProcessPoolExecutor(flags.workers, mp_context=multiprocessing.get_context("fork")) as pool:
        for part in flags.parts:
            step = 10
            jobs = [
                (part, at, first, min(first + step, flags.worlds), flags.seed)
                for at in range(len(_SETTINGS[part]))
                for first in range(0, flags.worlds, step)
            ]
            worlds, seconds = defaultdict(list), defaultdict(float)
            for (_, at), found, spent in pool.map(run_worlds, jobs):
                worlds[at] += found
                seconds[at] += spent
                if len(worlds[at]) >= flags.worlds:
                    figures = figures_of(_SETTINGS[part][at], worlds.pop(at))
                    done += figures
                    n_short = sum(f.verdict().startswith("FALLS") for f in figures)
                    print(
                        f"{time.perf_counter() - start:5.0f} s  {part}: {_SETTINGS[part][at].name} done, "
                        f"{seconds[at] / flags.worlds:.2f} s a world, {n_short} fall short", flush=True,
                    )  # fmt: skip
            print_figures([f for f in done if f.part == part])
            sys.stdout.flush()
    short = [f for f in done if f.verdict().startswith("FALLS")]
    n_judged = sum(f.target is not None for f in done)
    print(
        f"\n{n_judged - len(short)} of {n_judged} figures pass, {len(short)} fall short; {time.perf_counter() - start:.0f} s."
    )
    if short:
        print_figures(short)
    return 0


if __name__ == "__main__":
    sys.exit(main())
