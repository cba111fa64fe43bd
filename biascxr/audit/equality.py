"""Are TPR, FPR and AUROC equal in all groups? One test per finding and attribute, corrected for their number."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from biascxr.audit.cells import Cells
from biascxr.audit.groups import Grouping, Groups
from biascxr.audit.tables import MIN_CLASS_PATIENTS, compared_groups
from biascxr.config import AuditConfig
from biascxr.containers import Predictions
from biascxr.metrics.significance import (
    adjust_p_values,
    donner_test,
    floored_score_test,
    permutation_p_value,
    permuted_donner,
    step_down_min_p,
    welch_james_test,
)

TESTED = ("AUROC", "TPR", "FPR")
# More patients times permutations than this take minutes; the floored score test serves then, without permutation.
MAX_PERMUTED = 200_000_000
COLUMNS = (
    "recipe", "label", "attribute", "metric", "n_groups", "n_patients", "statistic", "df", "p_value", "p_permuted", "p_score",
    "p_holm", "p_benjamini_hochberg", "p_min", "p_adjusted", "test",
)  # fmt: skip


@dataclass(frozen=True)
class _Units:
    """What keeps its group: the patient, or where an attribute changes within patients, the patient in one group.

    Attributes:
        of_row: `[n]`, the unit of each row.
        group: `[U]`, its group, -1 where unknown.
    """

    of_row: np.ndarray
    group: np.ndarray


def _find_units(grouping: Grouping, patient: np.ndarray) -> _Units:
    key = patient.astype(np.int64) * (len(grouping.attribute.groups) + 1) + grouping.codes + 1
    found, of_row = np.unique(key, return_inverse=True)
    return _Units(of_row, (found % (len(grouping.attribute.groups) + 1) - 1).astype(np.int64))


def equality_table(
    predictions: dict[str, Predictions],
    cells: dict[str, Cells],
    groups: Groups,
    config: AuditConfig,
    *,
    seed: int,
    weight: np.ndarray | None = None,
) -> pd.DataFrame:
    """Tests that TPR, FPR and AUROC are equal in all groups that are large enough to compare.

    TPR and FPR: Donner's pooled-ICC chi-square; its p-value by permuting groups among the patients with a positive (negative)
    image, where that is not too dear; and a score test with a floored variance. AUROC: Welch-James on the logit scale.
    `p_adjusted` is what a claim may rest on: min-P over the permutations that all tests of a metric share, or Holm on the
    floored score test (on Welch-James for AUROC). Holm, Benjamini-Hochberg and min-P run over findings x attributes x recipes.

    Args:
        predictions: rows of each recipe, all in one order.
        cells: their cells.
        groups: the groups.
        config: smallest group, permutations.
        seed: seed of the permutations.
        weight: `[n]` weight of each row.

    Returns:
        One row per recipe, label, attribute and metric; NaN where there is nothing to test.
    """
    first = next(iter(predictions.values()))
    patient, _ = pd.factorize(first.table["patient_id"].astype(str))
    units = [_find_units(g, patient) for g in groups.groupings]
    rows: list[dict] = []
    for metric in TESTED:
        if any(metric not in cells[name].values for name in predictions):
            continue
        jobs = [
            (recipe, label, at)
            for recipe in predictions
            for at in range(1, len(groups.groupings))
            for label in range(len(first.label_names))
        ]
        if metric == "AUROC":
            found = [_auroc_row(cells[recipe], groups, label, at, config) for recipe, label, at in jobs]
        else:
            found = _rate_rows(metric, jobs, predictions, cells, groups, units, config, seed=seed, weight=weight)
        rows += [
            {
                "recipe": recipe, "label": first.label_names[label], "attribute": groups.groupings[at].attribute.name,
                "metric": metric, **row,
            }
            for (recipe, label, at), row in zip(jobs, found, strict=True)
        ]  # fmt: skip
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for _, own in table.groupby("metric", sort=False):
        score = own["p_score"].where(own["p_score"].notna(), own["p_value"]).to_numpy(float)
        table.loc[own.index, "p_holm"] = adjust_p_values(score, "holm")
        best = own["p_permuted"].where(own["p_permuted"].notna(), score).to_numpy(float)
        table.loc[own.index, "p_benjamini_hochberg"] = adjust_p_values(best, "benjamini_hochberg")
    table["p_adjusted"] = table["p_min"].where(table["p_min"].notna(), table["p_holm"])
    return table


def _compared_codes(cells: Cells, groups: Groups, at: int, label: int, metric: str, config: AuditConfig) -> list[int]:
    """Returns the codes of the groups of a grouping that are tested on a finding."""
    attribute = groups.groupings[at].attribute
    large = compared_groups(cells, groups, attribute, metric, config)
    return [
        code for code, group in enumerate(attribute.groups)
        if group in large and cells.class_patients(metric)[label, groups.index(attribute.name, group)] >= MIN_CLASS_PATIENTS
    ]  # fmt: skip


def _empty(n_groups: int) -> dict:
    names = ("statistic", "df", "p_value", "p_permuted", "p_score", "p_holm", "p_benjamini_hochberg", "p_min")
    return {"n_groups": n_groups, "n_patients": 0, **dict.fromkeys(names, np.nan), "test": "not enough patients"}


def _auroc_row(cells: Cells, groups: Groups, label: int, at: int, config: AuditConfig) -> dict:
    attribute = groups.groupings[at].attribute
    codes = _compared_codes(cells, groups, at, label, "AUROC", config)
    row = _empty(len(codes))
    if len(codes) < 2:
        return row
    columns = [groups.index(attribute.name, attribute.groups[c]) for c in codes]
    value, error = cells.estimate("AUROC")[label, columns], cells.standard_error("AUROC")[label, columns]
    # Placement values are skewed, with a kurtosis near 5: their variance from K patients is known as well as that of K / 2
    # normal ones. With K - 1, something was flagged in 8.2% of 400 fair worlds of 56 tests; with half of it in 4.0%.
    df = np.maximum(1.0, (cells.class_patients("AUROC")[label, columns] - 1) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        result = welch_james_test(special.logit(value), error / (value * (1 - value)), df)
    row |= {"n_patients": int(cells.counts.n_patients[label, columns].sum()), "test": "Welch-James on the logit scale"}
    return row | {"statistic": result.statistic, "df": result.df, "p_value": result.p_value}


def _rate_rows(metric, jobs, predictions, cells, groups, units, config, *, seed, weight) -> list[dict]:
    """Donner's test of each job; permuted together where the family is small enough."""
    shared = _attributes_by_units(units)
    n_labels = len(next(iter(predictions.values())).label_names)
    sums = {
        (recipe, label, ats): _class_sums(metric, predictions[recipe], label, units[ats[0]], weight)
        for recipe in predictions
        for ats in shared
        for label in range(n_labels)
    }
    n_units = sum(len(sums[key][0]) * len(key[2]) for key in sums)
    is_permuted = config.n_permutations > 0 and n_units * config.n_permutations <= MAX_PERMUTED
    rng = np.random.default_rng(seed)
    # One key per unit and draw: findings and recipes that share patients see the same permutation.
    keys = {
        ats: rng.random((config.n_permutations, len(units[ats[0]].group)), dtype=np.float32) if is_permuted else None
        for ats in shared
    }

    def test(key) -> dict[tuple, tuple[dict, float, np.ndarray | None]]:
        recipe, label, ats = key
        found, hits, trials, squares = sums[key]
        results, permuted_ats = {}, {}
        for at in ats:
            codes = _compared_codes(cells[recipe], groups, at, label, metric, config)
            row = _empty(len(codes))
            results[recipe, label, at] = (row, np.nan, None)
            if len(codes) < 2:
                continue
            lookup = np.full(len(groups.groupings[at].attribute.groups) + 1, -1)
            lookup[codes] = np.arange(len(codes))
            group = lookup[units[at].group[found]]
            result = donner_test(hits, trials, group, squared_weights=squares)
            score = floored_score_test(hits, trials, group, squared_weights=squares)
            row |= {
                "n_patients": int((group >= 0).sum()), "statistic": result.statistic, "df": result.df,
                "p_value": result.p_value, "p_score": score.p_value, "test": "Donner's chi-square and the floored score test",
            }  # fmt: skip
            if is_permuted and not np.isnan(result.statistic):
                permuted_ats[at] = group
        if permuted_ats:
            observed, permuted = permuted_donner(
                hits, trials, np.column_stack(list(permuted_ats.values())), n_permutations=config.n_permutations, seed=seed,
                keys=keys[ats][:, found], squared_weights=squares,
            )  # fmt: skip
            p_values = permutation_p_value(observed, permuted)
            for column, at in enumerate(permuted_ats):
                row = results[recipe, label, at][0]
                row |= {"p_permuted": float(p_values[column]), "test": "Donner's chi-square, permuted"}
                results[recipe, label, at] = (row, float(observed[column]), permuted[:, column])
        return results

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        by_job = {job: result for results in pool.map(test, sums) for job, result in results.items()}
    found = [by_job[job] for job in jobs]
    tested = [i for i, (_, _, permuted) in enumerate(found) if permuted is not None]
    if tested:
        adjusted = step_down_min_p(
            np.array([found[i][1] for i in tested]),
            np.column_stack([found[i][2] for i in tested]),
            df=np.array([found[i][0]["df"] for i in tested]),
        )
        for i, p in zip(tested, adjusted, strict=True):
            found[i][0]["p_min"] = p
    return [row for row, _, _ in found]


def _attributes_by_units(units: list[_Units]) -> list[tuple[int, ...]]:
    """Puts attributes with the same units together: they are permuted as one, so that the dependence between them is kept.

    Attributes that are constant for a patient all have the patient as their unit.
    """
    found: list[list[int]] = []
    for at in range(1, len(units)):
        own = next((ats for ats in found if np.array_equal(units[ats[0]].of_row, units[at].of_row)), None)
        if own is None:
            found.append([at])
        else:
            own.append(at)
    return [tuple(ats) for ats in found]


def _class_sums(metric: str, predictions: Predictions, label: int, units: _Units, weight: np.ndarray | None):
    """Returns the units with an image of the class, and per unit hits, trials and squared weights (None without weights)."""
    y, decision = predictions.y_true[:, label], predictions.decisions[:, label]
    rows = (y == (1 if metric == "TPR" else 0)) & ~np.isnan(decision)
    w = np.ones(int(rows.sum())) if weight is None else weight[rows]
    of_row, n = units.of_row[rows], len(units.group)
    trials = np.bincount(of_row, w, n)
    found = np.flatnonzero(trials > 0)
    hits = np.bincount(of_row, w * (decision[rows] == 1), n)[found]
    squares = None if weight is None else np.bincount(of_row, w**2, n)[found]
    return found, hits, trials[found], squares
