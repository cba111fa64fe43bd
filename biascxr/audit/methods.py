"""A verdict on a method: many trained models of each recipe, on the same test patients, against as many of the baseline.

One trained model is one draw: another seed, or other training patients, would have given another. A claim about a method
therefore rests on several, and its interval holds both kinds of chance: other test patients and other training runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from biascxr.audit.build import check_alike, patient_share, with_verdicts
from biascxr.audit.cells import MACRO, Cells, RunNoise, is_worth_compiling, measure_cells
from biascxr.audit.choices import choose_attributes, choose_metrics
from biascxr.audit.comparisons import comparison_table
from biascxr.audit.groups import ALL, OVERALL, Groups, find_groups
from biascxr.audit.tables import macro_labels, macro_values
from biascxr.config import AuditConfig
from biascxr.containers import Predictions
from biascxr.errors import InputError
from biascxr.metrics.resampling import Resamples, resample_patients

logger = logging.getLogger("biascxr")

MIN_UNITS = 5  # a verdict on a method rests on so many seeds, or folds
NO_VERDICT = "no verdict: too few runs"


@dataclass(frozen=True)
class TrainedRun:
    """One trained model of a recipe.

    Attributes:
        seed: seed of its training.
        fold: which patients it did not learn from, from 0.
        load: returns its predictions of the test patients; called when they are needed, so that many runs fit in memory.
    """

    seed: int
    fold: int
    load: object


@dataclass(frozen=True)
class MethodComparison:
    """What the runs say.

    Attributes:
        runs: one row per recipe, seed, fold, attribute, group and metric: the macro value over everyone and of each group.
        comparisons: as `comparisons.comparison_table`, of the means over runs, with `verdict` and `n_units`.
    """

    runs: pd.DataFrame
    comparisons: pd.DataFrame


def compare_methods(
    runs: Mapping[str, Sequence[TrainedRun]], config: AuditConfig, *, seed: int = 0, progress=lambda iterable: iterable
) -> MethodComparison:
    """Compares recipes by the means over their training runs; the first recipe is the baseline.

    The estimate is the difference of means over runs. Its variance is that of other test patients (the same resamples for
    all runs, so models are compared on the same patients) plus that of other training runs (`run_factor` times the variance
    over units), with Welch and Satterthwaite's degrees of freedom (`comparisons.with_run_noise`). With one fold a unit is a
    seed, and the verdict is about this training set. With several a unit is a fold, its seeds averaged; folds share most of
    the patients they learn from, which the factor makes up for by rule of thumb.

    Args:
        runs: per recipe its runs, with the same seeds and folds for every recipe.
        config: attributes, metrics, replicates, level.
        seed: seed of the resamples.
        progress: wraps the sequence of runs, for a progress bar.

    Raises:
        InputError: recipes with different seeds or folds, or runs about different images.
    """
    names = list(runs)
    keys = [(run.seed, run.fold) for run in runs[names[0]]]
    for name in names:
        if [(run.seed, run.fold) for run in runs[name]] != keys:
            raise InputError(f"Recipe {name} was not trained with the same seeds and folds as {names[0]}.")
    first = runs[names[0]][0].load()
    metrics = choose_metrics(config.metrics, has_decisions=first.decisions is not None)
    groups = find_groups(first, choose_attributes(first.attributes, config.attributes), config.crossings)
    resamples = resample_patients(first.table["patient_id"], config.n_replicates, seed=seed)
    units = unit_numbers(keys)
    n_units = int(units.max() + 1)
    factor = run_factor(n_units, is_folds=len({fold for _, fold in keys}) > 1)
    draws = run_draws(n_units, resamples.n_replicates, factor, seed=seed)
    work = progress([(name, run) for name in names for run in runs[name]])
    rows, collected = [], {name: RunSum(units, factor, draws) for name in names}
    for name, run in work:
        predictions = run.load()
        check_alike({"first": first, name: predictions})
        cells = _measure(predictions, groups, resamples, metrics, config, n_sets=len(keys) * len(names))
        collected[name].add(cells)
        rows += macro_rows(name, run, cells, groups, metrics)
    before = collected[names[0]].mean()
    tables = []
    for name in names[1:]:
        made = comparison_table(before, collected[name].mean(), groups, first.label_names, metrics, config)
        made.insert(0, "recipe", name)
        tables.append(made)
    comparisons = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["recipe"])
    if tables:
        comparisons = with_verdicts(comparisons, config)
        comparisons["n_units"] = n_units
        if n_units < MIN_UNITS:
            comparisons["verdict"], comparisons["levelling"] = NO_VERDICT, ""
    return MethodComparison(pd.DataFrame(rows), comparisons)


def unit_numbers(keys: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns each run's independent unit, `[runs] int64`: its fold where there are several, else its seed."""
    folds = [fold for _, fold in keys]
    own = folds if len(set(folds)) > 1 else [seed for seed, _ in keys]
    return np.unique(own, return_inverse=True)[1]


def run_factor(n_units: int, *, is_folds: bool) -> float:
    """Returns by what the variance over units is multiplied to give that of the mean over runs; 0 for a single unit.

    Seeds are independent given the training set: 1 / U. Folds are not: two of K share (K - 2) / (K - 1) of the patients they
    learn from. Nadeau and Bengio, Inference for the generalization error, Machine Learning 2003: 1 / K + n_held_out / n_train,
    which is 1 / K + 1 / (K - 1). That is a correction by rule of thumb; the variance over other training sets has no unbiased
    estimate from one (Bengio and Grandvalet, JMLR 2004).
    """
    if n_units < 2:
        return 0.0
    return 1 / n_units + (1 / (n_units - 1) if is_folds else 0.0)


def run_draws(n_units: int, n_replicates: int, factor: float, *, seed: int) -> np.ndarray:
    """Returns what each resample gives the units' deviations, `[U, R]`: noise of variance `factor x variance over units`."""
    if n_units < 2:
        return np.zeros((n_units, n_replicates))
    return np.random.default_rng([seed, 71]).standard_normal((n_units, n_replicates)) * np.sqrt(factor / (n_units - 1))


class RunSum:
    """Adds up the cells of one recipe's runs, so that no more than one run's resamples are in memory beside the sum.

    Args:
        units: `[runs]`, the unit of each run, in the order in which they are added.
        factor: see `run_factor`.
        draws: `[units, R]`, see `run_draws`.
    """

    def __init__(self, units: np.ndarray, factor: float, draws: np.ndarray) -> None:
        self._units, self._factor, self._draws, self._n = units, factor, draws, 0
        self._cells: Cells | None = None
        self._sums: dict[str, np.ndarray] = {}
        self._own: dict[str, list[np.ndarray]] = {}

    def add(self, cells: Cells) -> None:
        """Adds one run's cells."""
        self._cells = self._cells or cells
        self._n += 1
        for metric, values in cells.values.items():
            self._sums[metric] = self._sums.get(metric, 0.0) + values
            self._own.setdefault(metric, []).append(values[:, :, 0])

    def mean(self) -> Cells:
        """Returns the means over runs, with how the units differ."""
        units = {}
        for metric, own in self._own.items():
            stacked = np.stack(own)  # [runs, L, C]
            units[metric] = np.stack([stacked[self._units == u].mean(axis=0) for u in range(len(self._draws))])
        values = {metric: total / self._n for metric, total in self._sums.items()}
        return replace(self._cells, values=values, runs=RunNoise(units, self._factor, self._draws), _spreads={})


def _measure(
    predictions: Predictions,
    groups: Groups,
    resamples: Resamples,
    metrics: tuple[str, ...],
    config: AuditConfig,
    *,
    n_sets: int,
) -> Cells:
    weight = patient_share(predictions) if config.weight == "patient" else None
    is_compiled = is_worth_compiling(predictions, groups, resamples, n_sets)
    return measure_cells(predictions, groups, resamples, metrics, weight=weight, is_compiled=is_compiled)


def macro_rows(name: str, run: TrainedRun, cells: Cells, groups: Groups, metrics: tuple[str, ...]) -> list[dict]:
    """Returns one run's macro metrics over everyone and in each group, each over the findings that it is defined on there."""
    rows = []
    for attribute, group in [(OVERALL, ALL), *((a.name, g) for a in groups.attributes for g in a.groups)]:
        column = [groups.index(attribute, group)]
        for metric in metrics:
            chosen = macro_labels(cells, metric, column)
            value = float(macro_values(cells, metric, chosen, column)[0, 0]) if chosen.any() else float("nan")
            rows.append(
                {"recipe": name, "seed": run.seed, "fold": run.fold, "label": MACRO, "attribute": attribute, "group": group,
                 "metric": metric, "value": value, "n_labels": int(chosen.sum())}
            )  # fmt: skip
    return rows
