"""Is the score independent of the attribute given the label? Asked of the scores alone: no model is opened or trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import special

from biascxr.errors import unknown_name
from biascxr.leakage import MACRO
from biascxr.leakage.dependence.rank_permutations import FindingRanks, largest_of_permutations, rank_statistics
from biascxr.leakage.dependence.rows import ScoredRows, dependence_table
from biascxr.leakage.stratified import StratifiedAuroc, stratified_auroc

ALL, POSITIVES = "auroc", "auroc_positives"


def given_label(
    rows: ScoredRows,
    *,
    given: Sequence[str] = (),
    recipe: str = "",
    margin: float = 0.05,
    confidence: float = 0.95,
    n_permutations: int = 999,
    min_patients: int = 25,
    seed: int,
) -> pd.DataFrame:
    """Ranks rows of one label value (and one cell of the covariates) by the score: is a group above or below the others?

    Measures. `auroc`: for a finding and a group, the stratified AUROC of the *score* for "is of the group"; .5 is
    independence in ranking, .6 that a row of the group outranks another of the same label 6 times in 10. Strata are label
    values crossed with the covariates, and count by their pairs. Where positives are few, the negatives decide: a finding
    with 5% positives has 400 times as many pairs of negatives. So `auroc_positives` stands beside it, ranked among positives
    only, wherever both sides have `min_patients` patients with a positive; findings with fewer count through their negatives
    alone, and their row has a value but neither interval nor p-value. `macro`: the mean over the findings, per group.

    Test. Null: the score is independent of the attribute given label and covariates. Groups are permuted among patients whose
    images are of the same label values and cells and of about the same number (1, 2 to 3, 4 to 7 ...), separately for each
    finding, exactly uniformly; the statistic is the largest |AUROC - .5| / standard error over all findings, groups and
    measures (max-T, Westfall and Young 1993), so that a p-value below alpha anywhere is one for all of them. One random
    key per patient orders the patients of every finding, and the sorted groups are laid along that order: a patient then falls
    into about the same group in all findings, as in truth, which keeps the findings' dependence. Studentised in every
    permutation by the variance under the null, so that groups of unequal size or number of images weigh alike.

    Intervals are simultaneous: clustered DeLong on the logit scale, with the null's quantile of the largest statistic.

    What it cannot tell: why. Groups may differ in severity, in age or in how they were labelled at one label value; that is a
    dependence of the score too, though no use of the attribute. Covariates take out what they measure.

    Args:
        rows: scores of rows that no fit has seen.
        given: names of covariates to hold fixed beside the label.
        recipe: whose scores they are.
        margin: equivalence margin, written into the table.
        confidence: joint level of the intervals.
        n_permutations: draws from the null.
        min_patients: fewest patients on the smaller side for an interval and a part in the test.
        seed: of the permutations.

    Returns:
        `dependence.csv` rows. `low, high`: simultaneous interval; `control_low, control_high`: where, jointly, values lie
        under the null; `p_value` adjusted over the whole table; `n`: patients that are compared.

    Raises:
        InputError: a covariate that the rows do not have.

    Reference: separation (Hardt, Price and Srebro 2016) as a question of ranks; Kallus and Zhou 2019 (their xAUC ranks across
        labels, this within).
    """
    for name in given:
        if name not in rows.covariates:
            raise unknown_name("covariate", name, rows.covariates)
    rows = rows.of_constant_group()
    n_groups, n_labels = len(rows.attribute.groups), len(rows.label_names)
    _, first, patient = np.unique(rows.patient_id.astype(str), return_index=True, return_inverse=True)
    codes = rows.codes[first]
    cell = _cells([rows.covariates[name] for name in given], len(rows))
    findings = [FindingRanks.of(rows.scores[:, j], rows.labels[:, j], patient, cell, len(codes)) for j in range(n_labels)]

    made = [_measured(rows, j, measure, cell, patient) for j in range(n_labels) for measure in (ALL, POSITIVES)]
    made += _macro(made[::2], patient, n_groups, min_patients)
    counted = np.array([[min(a.n_group_patients, a.n_other_patients) >= min_patients for a in cells] for cells in made])
    counted = counted.reshape(len(made), n_groups)
    observed = rank_statistics(findings, [codes[None]] * n_labels, counted)[0]
    largest = largest_of_permutations(findings, codes, counted, n_permutations=n_permutations, seed=seed)
    quantile = float(np.quantile(largest, confidence, method="higher")) if counted.any() and n_permutations else float("nan")

    evidence = "given_label_and_covariates" if given else "given_label"
    names = [(label, measure) for label in rows.label_names for measure in (ALL, POSITIVES)] + [(MACRO, ALL)]
    table = []
    for index, (label, measure) in enumerate(names):
        for g, group in enumerate(rows.attribute.groups):
            found, is_counted = made[index][g], counted[index, g]
            common = {"recipe": recipe, "attribute": rows.attribute.name, "evidence": evidence, "measure": measure}
            row = common | {"label": label, "group": group, "value": found.value, "margin": margin}
            row["n"] = found.n_group_patients + found.n_other_patients
            if is_counted:
                row["low"], row["high"] = _interval(found.value, found.standard_error, quantile)
                row["control_low"], row["control_high"] = _interval(0.5, found.standard_error, quantile)
                row["p_value"] = (1 + (largest >= abs(observed[index, g]) - 1e-12).sum()) / (1 + n_permutations)
            table.append(row)
    return dependence_table(table)


def _measured(rows: ScoredRows, finding: int, measure: str, cell: np.ndarray, patient: np.ndarray) -> list[StratifiedAuroc]:
    """Returns each group's stratified AUROC; the influence values are those of all rows, 0 where the label is not known."""
    label = rows.labels[:, finding]
    used = label == 1 if measure == POSITIVES else ~np.isnan(label)
    return [
        stratified_auroc(
            rows.codes == g, rows.scores[:, finding], patient_id=patient, weight=used.astype(float),
            strata=2 * cell + np.nan_to_num(label).astype(np.int64),
        )
        for g in range(len(rows.attribute.groups))
    ]  # fmt: skip


def _macro(
    findings: list[list[StratifiedAuroc]], patient: np.ndarray, n_groups: int, min_patients: int
) -> list[list[StratifiedAuroc]]:
    """Returns the mean over findings for each group, of those that have enough patients, as the last line of all cells."""
    line = []
    for g in range(n_groups):
        own = [f[g] for f in findings if min(f[g].n_group_patients, f[g].n_other_patients) >= min_patients]
        if not own:
            line.append(StratifiedAuroc(float("nan"), float("nan"), np.zeros(len(patient)), 0, 0))
            continue
        influence = np.mean([a.influence for a in own], axis=0)
        of_patient = np.bincount(patient, influence)
        counts = [max(getattr(a, side) for a in own) for side in ("n_group_patients", "n_other_patients")]
        correction = min(counts) / (min(counts) - 1)
        line.append(
            StratifiedAuroc(float(np.mean([a.value for a in own])), correction * of_patient @ of_patient, influence, *counts)
        )
    return [line]


def _interval(value: float, standard_error: float, quantile: float) -> tuple[float, float]:
    """Returns the interval on the logit scale; at a value of 0 or 1, and without a quantile, there is none."""
    if not 0 < value < 1:
        return float("nan"), float("nan")
    half = quantile * standard_error / (value * (1 - value))
    return tuple(float(special.expit(special.logit(value) + sign * half)) for sign in (-1, 1))


def _cells(covariates: list[np.ndarray], n: int) -> np.ndarray:
    if not covariates:
        return np.zeros(n, np.int64)
    return np.unique(np.stack(covariates), axis=1, return_inverse=True)[1].ravel()
