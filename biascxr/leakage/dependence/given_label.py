"""Is the score independent of the attribute given the label? Asked of the scores alone: no model is opened or trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse, special

from biascxr.errors import unknown_name
from biascxr.leakage.dependence.rows import ScoredRows, dependence_table
from biascxr.leakage.stratified import StratifiedAuroc, centred_ranks, stratified_auroc

MACRO = "macro"
ALL, POSITIVES = "auroc", "auroc_positives"
IMAGE_COUNT_CLASSES = np.array([2, 4, 8, 16])  # 1, 2 to 3, 4 to 7, 8 to 15, 16 and more images a patient


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
    findings = [_Finding.of(rows.scores[:, j], rows.labels[:, j], patient, cell, len(codes)) for j in range(n_labels)]

    made = [_measured(rows, j, measure, cell) for j in range(n_labels) for measure in (ALL, POSITIVES)]
    made += _macro(made[::2], patient, n_groups, min_patients)
    counted = np.array([[min(a.n_group_patients, a.n_other_patients) >= min_patients for a in cells] for cells in made])
    counted = counted.reshape(len(made), n_groups)
    observed = _statistics(findings, [codes] * n_labels, counted)
    rng = np.random.default_rng(seed)
    largest = np.array(
        [_largest(_statistics(findings, permuted, counted)) for permuted in _permutations(findings, codes, n_permutations, rng)]
    )
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


@dataclass(frozen=True)
class _Part:
    """A finding's rows summed within patient and stratum; `entry` arrays have one value per pair of them that occurs.

    Attributes:
        patient: `[e]`, rising.
        stratum: `[e]`.
        count: `[e]`, rows.
        rank: `[e]`, sum of their centred ranks c.
        by_patient: the ranks as a sparse matrix `[P, S]`.
        own_share: `[P]`, `sum_s N_s c`, N_s the rows of stratum s.
    """

    patient: np.ndarray
    stratum: np.ndarray
    count: np.ndarray
    rank: np.ndarray
    by_patient: sparse.csr_array
    own_share: np.ndarray

    @classmethod
    def of(cls, score: np.ndarray, stratum: np.ndarray, patient: np.ndarray, n_patients: int) -> _Part:
        _, stratum = np.unique(stratum, return_inverse=True)
        n_strata = int(stratum.max(initial=0)) + 1
        pair, entry = np.unique(patient * n_strata + stratum, return_inverse=True)
        count = np.bincount(entry, minlength=len(pair)).astype(float)
        rank = np.bincount(entry, centred_ranks(score, stratum), len(pair)) if len(score) else np.zeros(0)
        own_patient, own_stratum = np.divmod(pair, n_strata)
        by_patient = sparse.csr_array((rank, (own_patient, own_stratum)), shape=(n_patients, n_strata))
        total = np.bincount(own_stratum, count, n_strata)
        return cls(own_patient, own_stratum, count, rank, by_patient, by_patient @ total)

    def scores(self, codes: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns AUROC - .5 of each group `[k]` and what each patient adds under the null, `[P, k]`.

        With c a row's centred rank and m_s, n_s the rows of stratum s of the group and of the others (N_s together):
        `AUROC - .5 = sum_s N_s sum_(i in group) c_i / sum_s m_s n_s`. Were groups drawn anew, a patient of the group would
        add `sum_s n_s c`, another `- sum_s m_s c`, each over the same pairs: `- sum_s m_s c`, and a patient of the group
        `sum_s N_s c` beside it.
        """
        n_strata = self.by_patient.shape[1]
        at = codes[self.patient] * n_strata + self.stratum
        own = np.bincount(at, self.count, n_groups * n_strata).reshape(n_groups, n_strata)
        added = -(self.by_patient @ own.T)  # [P, k]
        added[np.arange(len(codes)), codes] += self.own_share
        value, total = np.bincount(codes, self.own_share, n_groups), own.sum(0)
        pairs = (own * (total - own)).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return value / pairs, added / pairs


@dataclass(frozen=True)
class _Finding:
    """A finding's rows of known label; `pattern[p]` numbers the sets of patients that are exchanged, -1 for no such row."""

    parts: tuple[_Part, _Part]  # all rows; positives
    pattern: np.ndarray

    @classmethod
    def of(cls, score: np.ndarray, label: np.ndarray, patient: np.ndarray, cell: np.ndarray, n_patients: int) -> _Finding:
        known = ~np.isnan(label)
        stratum = 2 * cell[known] + label[known].astype(np.int64)
        whole = _Part.of(score[known], stratum, patient[known], n_patients)
        is_positive = label == 1
        return cls(
            (whole, _Part.of(score[is_positive], cell[is_positive], patient[is_positive], n_patients)),
            _patterns(whole, n_patients),
        )


def _patterns(part: _Part, n_patients: int) -> np.ndarray:
    """Numbers patients by the set of strata that their rows are of and the class of their number of rows."""
    images = np.bincount(part.patient, part.count, n_patients)
    keys = np.digitize(images, IMAGE_COUNT_CLASSES).astype(np.int64)
    # Entries are sorted by patient, then stratum: a running number of "what was there so far, and now this stratum".
    position = np.arange(len(part.patient)) - np.searchsorted(part.patient, part.patient)
    for i in range(int(position.max(initial=-1)) + 1):
        at = position == i
        joined = np.full(n_patients, -1)
        joined[part.patient[at]] = part.stratum[at]
        _, keys = np.unique(np.stack([keys, joined]), axis=1, return_inverse=True)
        keys = keys.ravel()
    return np.where(images > 0, keys, -1)


def _permutations(
    findings: list[_Finding], codes: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> Iterator[list[np.ndarray]]:
    """Yields one vector of permuted groups `[P]` per finding, coupled through the order of the patients."""
    ordered = [codes[np.lexsort((codes, finding.pattern))] for finding in findings]
    patterns = [finding.pattern.astype(np.int32) for finding in findings]
    for _ in range(n_permutations):
        keyed = rng.permutation(len(codes))
        made = []
        for pattern, own in zip(patterns, ordered, strict=True):
            permuted = np.empty_like(codes)
            permuted[keyed[np.argsort(pattern[keyed], kind="stable")]] = own
            made.append(permuted)
        yield made


def _statistics(findings: list[_Finding], codes: list[np.ndarray], counted: np.ndarray) -> np.ndarray:
    """Returns the studentised values `[2 L + 1, k]`, the macro last; NaN where they are not counted."""
    n_groups, n_patients = counted.shape[1], len(codes[0]) if codes else 0
    out = np.full(counted.shape, np.nan)
    value, added = np.zeros(n_groups), np.zeros((n_patients, n_groups))
    for j, (finding, own) in enumerate(zip(findings, codes, strict=True)):
        for p, part in enumerate(finding.parts):
            used = counted[2 * j + p]
            if not used.any():
                continue
            found, terms = part.scores(own, n_groups)
            with np.errstate(divide="ignore", invalid="ignore"):
                out[2 * j + p, used] = (found / np.sqrt(np.einsum("pk,pk->k", terms, terms)))[used]
            if p == 0:
                value[used] += found[used]
                added[:, used] += terms[:, used]
    with np.errstate(divide="ignore", invalid="ignore"):
        out[-1] = np.where(counted[-1], value / np.sqrt(np.einsum("pk,pk->k", added, added)), np.nan)
    return out


def _largest(statistics: np.ndarray) -> float:
    finite = np.abs(statistics[np.isfinite(statistics)])
    return float(finite.max(initial=0.0))


def _measured(rows: ScoredRows, finding: int, measure: str, cell: np.ndarray) -> list[StratifiedAuroc]:
    """Returns each group's stratified AUROC; the influence values are those of all rows, 0 where the label is not known."""
    label = rows.labels[:, finding]
    used = label == 1 if measure == POSITIVES else ~np.isnan(label)
    return [
        stratified_auroc(
            rows.codes == g, rows.scores[:, finding], patient_id=rows.patient_id, weight=used.astype(float),
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
