"""Groups permuted among patients whose rows are ranked in the same strata: the null of `given_label`.

Ranks do not depend on groups, so a permutation costs a few sums over patients; compiled, for many permutations at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np

from biascxr.leakage.stratified import centred_ranks

IMAGE_COUNT_CLASSES = np.array([2, 4, 8, 16])  # 1, 2 to 3, 4 to 7, 8 to 15, 16 and more images a patient
NEGLIGIBLE = 1e-12  # of an AUROC: rounding
CHUNK = 100_000  # permutations times patients times groups held at once: stays in cache


@dataclass(frozen=True)
class RankSums:
    """A finding's rows summed within patient and stratum; `entry` arrays have one value per pair of them that occurs.

    Attributes:
        first: `[P + 1]`, where each patient's entries begin.
        stratum: `[e]`.
        count: `[e]`, rows.
        rank: `[e]`, sum of their centred ranks c.
        total: `[S]`, rows of each stratum.
        own_share: `[P]`, `sum_s N_s c`, N_s the rows of stratum s.
    """

    first: np.ndarray
    stratum: np.ndarray
    count: np.ndarray
    rank: np.ndarray
    total: np.ndarray
    own_share: np.ndarray

    @classmethod
    def of(cls, score: np.ndarray, stratum: np.ndarray, patient: np.ndarray, n_patients: int) -> RankSums:
        """Ranks rows within strata.

        Args:
            score: `[n]`.
            stratum: `[n] int`.
            patient: `[n] int`, below `n_patients`, P.
            n_patients: P; some may have no row.
        """
        _, stratum = np.unique(stratum, return_inverse=True)
        n_strata = int(stratum.max(initial=0)) + 1
        pair, entry = np.unique(patient * n_strata + stratum, return_inverse=True)
        count = np.bincount(entry, minlength=len(pair)).astype(float)
        rank = np.bincount(entry, centred_ranks(score, stratum), len(pair)) if len(score) else np.zeros(0)
        own_patient, own_stratum = np.divmod(pair, n_strata)
        total = np.bincount(own_stratum, count, n_strata)
        own_share = np.bincount(own_patient, rank * total[own_stratum], n_patients)
        first = np.searchsorted(own_patient, np.arange(n_patients + 1))
        return cls(first, own_stratum, count, rank, total, own_share)

    @property
    def patient(self) -> np.ndarray:
        """`[e]`, whose each entry is, rising."""
        return np.repeat(np.arange(len(self.own_share)), np.diff(self.first))

    def scores(self, codes: np.ndarray, used: np.ndarray, added: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns AUROC - .5 of each group and its variance under the null, `[R, k]` both; 0 of groups that are not used.

        With c a row's centred rank and m_s, n_s the rows of stratum s of the group and of the others (N_s together):
        `AUROC - .5 = sum_s N_s sum_(i in group) c_i / sum_s m_s n_s`. Were groups drawn anew, a patient of the group would
        add `sum_s n_s c`, another `- sum_s m_s c`, each over the same pairs: `- sum_s m_s c`, and a patient of the group
        `sum_s N_s c` beside it. The variance is the sum of their squares.

        Args:
            codes: `[R, P] int64`, the group of each patient in each permutation.
            used: `[k] bool`.
            added: `[R, P, k]`; what each patient adds is added to it.
        """
        value, variance = np.zeros((len(codes), len(used))), np.zeros((len(codes), len(used)))
        _scores(
            codes, self.first, self.stratum, self.count, self.rank, self.total, self.own_share, used, value, variance, added
        )
        return value, variance


@dataclass(frozen=True)
class FindingRanks:
    """A finding's rows of known label.

    Attributes:
        parts: all rows; positives.
        pattern: `[P]`, numbers the sets of patients that are exchanged, -1 for those without such a row.
    """

    parts: tuple[RankSums, RankSums]
    pattern: np.ndarray

    @classmethod
    def of(cls, score: np.ndarray, label: np.ndarray, patient: np.ndarray, cell: np.ndarray, n_patients: int) -> FindingRanks:
        """Ranks rows within label values crossed with cells of covariates.

        Args:
            score: `[n]`.
            label: `[n]` in {0, 1, NaN}.
            patient: `[n] int`, below `n_patients`.
            cell: `[n] int`, number of the row's cell.
            n_patients: P.
        """
        known, is_positive = ~np.isnan(label), label == 1
        stratum = 2 * cell[known] + label[known].astype(np.int64)
        whole = RankSums.of(score[known], stratum, patient[known], n_patients)
        positives = RankSums.of(score[is_positive], cell[is_positive], patient[is_positive], n_patients)
        return cls((whole, positives), _patterns(whole, n_patients))

    def sorted_groups(self, codes: np.ndarray) -> np.ndarray:
        """Returns the patients' groups `[P]`, pattern after pattern, sorted within each."""
        return codes[np.lexsort((codes, self.pattern))]

    def permuted(self, sorted_groups: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Returns groups `[R, P]`: those of each pattern, laid along the order of its patients.

        Args:
            sorted_groups: `[P]`, as `sorted_groups` gives them.
            order: `[R, P] int64`, an order of the patients per permutation.
        """
        start = np.r_[0, np.cumsum(np.bincount(self.pattern + 1))]
        made = np.empty_like(order)
        _lay_along(order, self.pattern + 1, start, sorted_groups, made)
        return made


def rank_statistics(findings: Sequence[FindingRanks], codes: Sequence[np.ndarray], counted: np.ndarray) -> np.ndarray:
    """Returns the studentised values `[R, 2 L + 1, k]`: of every finding all rows, then positives; their mean last.

    Args:
        findings: L.
        codes: of each finding `[R, P]`, the groups of patients in each permutation.
        counted: `[2 L + 1, k] bool`, whether there are patients enough; NaN elsewhere.
    """
    n_groups, shape = counted.shape[1], codes[0].shape if codes else (1, 0)
    out = np.full((shape[0], *counted.shape), np.nan)
    added, ignored = np.zeros((*shape, n_groups)), np.zeros((0, 0, n_groups))
    total = np.zeros((shape[0], n_groups))
    for j, (finding, own) in enumerate(zip(findings, codes, strict=True)):
        for p, part in enumerate(finding.parts):
            used = counted[2 * j + p]
            if used.any():
                value, variance = part.scores(own, used, added if p == 0 else ignored)
                out[:, 2 * j + p] = _studentised(value, variance, used)
                total += value if p == 0 else 0
    out[:, -1] = _studentised(total, np.einsum("rpk,rpk->rk", added, added), counted[-1])
    return out


def largest_of_permutations(
    findings: Sequence[FindingRanks], codes: np.ndarray, counted: np.ndarray, *, n_permutations: int, seed: int
) -> np.ndarray:
    """Returns the largest absolute statistic of each permutation, `[N]`.

    One order of the patients per permutation serves every finding, which keeps the findings' dependence.

    Args:
        findings: L.
        codes: `[P]`, the patients' own groups.
        counted: as in `rank_statistics`.
        n_permutations: N.
        seed: of the orders.
    """
    ordered = [finding.sorted_groups(codes) for finding in findings]
    step = max(1, CHUNK // max(1, len(codes) * counted.shape[1]))

    def task(draws: range) -> np.ndarray:
        order = np.stack([np.random.default_rng([seed, draw]).permutation(len(codes)) for draw in draws])
        permuted = [finding.permuted(own, order) for finding, own in zip(findings, ordered, strict=True)]
        found = np.abs(rank_statistics(findings, permuted, counted))
        return np.where(np.isfinite(found), found, 0).max(axis=(1, 2), initial=0.0)

    tasks = [range(first, min(first + step, n_permutations)) for first in range(0, n_permutations, step)]
    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        return np.concatenate([np.zeros(0), *pool.map(task, tasks)])


def _patterns(part: RankSums, n_patients: int) -> np.ndarray:
    """Numbers patients by the set of strata that their rows are of and the class of their number of rows."""
    patient = part.patient
    images = np.bincount(patient, part.count, n_patients)
    keys = np.digitize(images, IMAGE_COUNT_CLASSES).astype(np.int64)
    # Entries are sorted by patient, then stratum: a running number of "what was there so far, and now this stratum".
    position = np.arange(len(patient)) - part.first[patient]
    for i in range(int(position.max(initial=-1)) + 1):
        at = position == i
        joined = np.full(n_patients, -1)
        joined[patient[at]] = part.stratum[at]
        _, keys = np.unique(np.stack([keys, joined]), axis=1, return_inverse=True)
        keys = keys.ravel()
    return np.where(images > 0, keys, -1)


def _studentised(value: np.ndarray, variance: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Divides by the standard error; 0 where nothing varies, as of a score that is the same for all."""
    is_flat = (variance < NEGLIGIBLE**2) & (np.abs(value) < NEGLIGIBLE)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(used, np.where(is_flat, 0.0, value / np.sqrt(variance)), np.nan)


@numba.njit(nogil=True, error_model="numpy")
def _scores(codes, first, stratum, count, rank, total, own_share, used, value, variance, added):
    """Fills `value` and `variance`, which come as zeros; `added` without permutations is left alone."""
    n_draws, n_patients, n_groups = len(codes), len(own_share), len(used)
    own, scale, terms = np.empty((len(total), n_groups)), np.empty(n_groups), np.empty(n_groups)
    is_kept = len(added) > 0
    for r in range(n_draws):
        own[:] = 0
        for p in range(n_patients):
            g = codes[r, p]
            value[r, g] += own_share[p]
            for e in range(first[p], first[p + 1]):
                own[stratum[e], g] += count[e]
        for g in range(n_groups):
            pairs = 0.0
            for s in range(len(total)):
                pairs += own[s, g] * (total[s] - own[s, g])
            scale[g] = 1 / pairs if used[g] else 0.0
            value[r, g] *= scale[g]
        for s in range(len(total)):
            for g in range(n_groups):
                own[s, g] *= -scale[g]
        for p in range(n_patients):
            if first[p] == first[p + 1]:
                continue
            terms[:] = 0
            for e in range(first[p], first[p + 1]):
                for g in range(n_groups):
                    terms[g] += rank[e] * own[stratum[e], g]
            own_group = codes[r, p]
            terms[own_group] += own_share[p] * scale[own_group]
            for g in range(n_groups):
                variance[r, g] += terms[g] * terms[g]
            if is_kept:
                for g in range(n_groups):
                    added[r, p, g] += terms[g]


@numba.njit(nogil=True)
def _lay_along(order, pattern, start, of_pattern, made):
    """Fills `made` with the groups of each pattern, which begin in `of_pattern` at `start`, in the order of its patients."""
    at = np.empty_like(start)
    for r in range(len(order)):
        at[:] = start
        for i in range(order.shape[1]):
            p = order[r, i]
            made[r, p] = of_pattern[at[pattern[p]]]
            at[pattern[p]] += 1
