"""One pass over rows in falling order of score gives, for every group and every weighting, all sums that metrics are made of.

Counts, AUROC pairs, average precision and calibration all follow from the order of the scores, and resampling patients
changes weights, never the order. So rows are sorted once per label, and a pass runs over them for many weightings side by
side: the inner loop adds whole lanes of replicates, which processors do several at a time. Compiled with numba where it is
installed; a numpy form of the same sums otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from biascxr.metrics.calibration import SMALLEST_PROBABILITY, calibration_bin

try:
    import numba
except ImportError:  # the numpy form below serves then
    numba = None

has_compiler = numba is not None
# The sums of one group, in the order of the output's first axis. "others" are rows of other known groups of the grouping.
SUMS = (
    "positive",  # weight of positives
    "negative",
    "true_positive",  # flagged positives
    "false_positive",
    "undecided_positive",  # positives without a decision
    "undecided_negative",
    "losses",  # pairs of the group that are in the wrong order, ties half
    "losses_to_group",  # positives of all known groups below negatives of the group, ties half
    "losses_of_group",  # positives of the group below negatives of all known groups, ties half
    "precision",  # sum over positives of the precision at their score
    "squared_error",
    "log_loss",
    "bin_error",  # sum over bins of |sum of residuals|
    "bin_noise",  # the part of it that noise alone explains
    "precision_others",  # the same of everyone else
    "bin_error_others",
    "bin_noise_others",
)
N_BINS = 15
LANES = 64
TINY = 1e-300


@dataclass(frozen=True)
class SortedLabel:
    """Rows of one label whose label is known, by falling score.

    Attributes:
        row: `[m] int64`, where each row stands in the table.
        score: `[m] float64`.
        positive: `[m] bool`.
        flag: `[m] int8`: 1 flagged, 0 not, -1 undecided.
        tie_end: `[m] int64`: for the first row of a block of tied scores that holds a positive, where the block ends;
            for any other row the next row.
        bin_end: `[m] bool`: the last row of its calibration bin.
        residual: `[m] float64`, score minus label.
        log_loss: `[m] float64`.
    """

    row: np.ndarray
    score: np.ndarray
    positive: np.ndarray
    flag: np.ndarray
    tie_end: np.ndarray
    bin_end: np.ndarray
    residual: np.ndarray
    log_loss: np.ndarray


def sort_label(y_true: np.ndarray, score: np.ndarray, decision: np.ndarray | None) -> SortedLabel:
    """Sorts the rows of one label.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`, probabilities.
        decision: `[n]` in {0, 1, NaN}, or None: nothing is decided.
    """
    known = np.flatnonzero(~np.isnan(y_true))
    row = known[np.argsort(-score[known], kind="stable")]
    s, y = score[row].astype(np.float64), y_true[row] == 1
    m = len(row)
    first = np.flatnonzero(np.r_[True, s[1:] != s[:-1]]) if m else np.zeros(0, np.int64)
    ends = np.r_[first[1:], m]
    tie_end = np.arange(1, m + 1)
    has_positive = np.add.reduceat(y, first) > 0 if m else np.zeros(0, bool)
    tie_end[first[has_positive]] = ends[has_positive]
    bins = calibration_bin(s, N_BINS)
    flag = np.full(m, -1, np.int8)
    if decision is not None:
        decided = ~np.isnan(decision[row])
        flag[decided] = decision[row][decided]
    clipped = np.clip(s, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return SortedLabel(
        row=row,
        score=s,
        positive=y,
        flag=flag,
        tie_end=tie_end,
        bin_end=np.r_[bins[1:] != bins[:-1], True] if m else np.zeros(0, bool),
        residual=s - y,
        log_loss=-np.log(np.where(y, clipped, 1 - clipped)),
    )


def tie_blocks(tie_end: np.ndarray) -> np.ndarray:
    """Returns `[m] int`: rows of one block of tied scores share a number, where the block holds a positive."""
    at = np.arange(len(tie_end))
    is_block = tie_end > at + 1
    depth = np.zeros(len(tie_end) + 1, np.int64)
    depth[at[is_block] + 1] += 1
    np.add.at(depth, tie_end[is_block], -1)
    return np.cumsum(np.cumsum(depth)[:-1] == 0)


def sorted_pass(
    rows: SortedLabel,
    codes: np.ndarray,
    n_groups: int,
    patient: np.ndarray,
    resamples: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    cell: np.ndarray | None = None,
    factor: np.ndarray | None = None,
    is_compiled: bool = False,
    with_precision: bool = True,
    with_calibration: bool = True,
) -> np.ndarray:
    """Sums per group and weighting. In replicate r row i weighs `weight_i * resamples[patient_i, r] * factor[cell_i, r]`.

    Args:
        rows: the label's rows, sorted.
        codes: `[n]`, group of each row of the table, -1 where unknown.
        n_groups: k.
        patient: `[n]`, patient of each row of the table, 0..P-1.
        resamples: `[blocks, P, LANES] uint8`, how often each patient is drawn (`in_lanes` makes it from `[P, R]`).
        weight: `[n] float64` of each row of the table; default 1.
        cell: `[n]`, cell of each row of the table, for `factor`.
        factor: `[blocks, cells, LANES] float64`.
        is_compiled: numba's form or numpy's; the sums are the same but for rounding.
        with_precision: also the sums behind the AUPRC.
        with_calibration: also those behind Brier, log loss and the calibration error.

    Returns:
        `[len(SUMS), k, blocks * LANES] float64`; what was not asked for is 0.

    Raises:
        ValueError: numba's form is asked for and numba is not installed.
    """
    if is_compiled and not has_compiler:
        raise ValueError("is_compiled=True needs numba, which is not installed; numpy's form gives the same sums.")
    base = np.ones(len(rows.row)) if weight is None else weight[rows.row].astype(np.float64)
    own_cell = np.zeros(len(rows.row), np.int64) if cell is None else cell[rows.row].astype(np.int64)
    out = np.zeros((len(resamples), len(SUMS), n_groups, LANES))
    (_compiled_pass if is_compiled else _numpy_pass)(
        codes[rows.row].astype(np.int64), patient[rows.row].astype(np.int64), rows.positive, rows.flag, rows.tie_end,
        rows.bin_end, rows.residual, rows.log_loss, base, own_cell, np.ones((1, 1, 1)) if factor is None else factor,
        factor is not None, resamples, with_precision, with_calibration, out,
    )  # fmt: skip
    return out.transpose(1, 2, 0, 3).reshape(len(SUMS), n_groups, -1)


def in_lanes(weights: np.ndarray) -> np.ndarray:
    """Lays weightings out as the pass reads them: `[P, R]` to `[blocks, P, LANES]`, the last block filled up with 0."""
    blocks = -(-weights.shape[1] // LANES)
    padded = np.zeros((len(weights), blocks * LANES), weights.dtype)
    padded[:, : weights.shape[1]] = weights
    return np.ascontiguousarray(padded.reshape(len(weights), blocks, LANES).transpose(1, 0, 2))


def _folded_excess(error, n, positives, squares):
    """How much larger |mean residual| of a bin is than the truth, by noise: E|N(d, v)| - |d|, times the bin's weight."""
    if n <= 0.0:
        return 0.0
    effective = n * n / (squares + TINY)
    if effective <= 1.000001:
        return 0.0
    rate = min(max(positives / n, 0.0), 1.0)
    deviation = math.sqrt(rate * (1.0 - rate) / (effective - 1.0))
    distance = abs(error) / n
    if deviation <= 0.0:
        return 0.0
    z = distance / deviation
    expected = deviation * math.sqrt(2.0 / math.pi) * math.exp(-0.5 * z * z) + distance * math.erf(z / math.sqrt(2.0))
    return n * (expected - distance)


def _loop_pass(
    codes, patient, positive, flag, tie_end, bin_end, residual, log_loss, base, cell, factor, has_factor, resamples,
    with_precision, with_calibration, out,
):  # fmt: skip
    k = out.shape[2]
    n = len(codes)
    w = np.zeros(LANES)
    undrawn = np.zeros(LANES)
    all_negative = np.zeros(LANES)
    all_positive = np.zeros(LANES)
    sums = np.zeros((len(SUMS), k, LANES))
    # Calibration: residuals and squared weights since the last bin ended, counts at that time.
    error = np.zeros((k, LANES))
    squares = np.zeros((k, LANES))
    at_positive = np.zeros((k, LANES))
    at_negative = np.zeros((k, LANES))
    for block in range(len(resamples)):
        for array in (sums.reshape(-1, LANES), error, squares, at_positive, at_negative):
            array[:] = 0.0
        i = 0
        while i < n:
            end = tie_end[i]
            is_tied = end > i + 1
            # A block of tied scores with a positive is walked three times: half of its pairs with the counts before it,
            # then the counts, then the other half with the counts after it.
            for walk in range(3 if is_tied else 1):
                share = 0.5 if is_tied else 1.0
                for t in range(i, end):
                    g = codes[t]
                    if g < 0 or (walk != 1 and is_tied and not positive[t]):
                        continue
                    drawn = resamples[block, patient[t]]
                    # A row drawn twice is two rows: its weight enters squared sums once for each, so it is kept apart.
                    for b in range(LANES):
                        undrawn[b] = base[t]
                    if has_factor:
                        own_factor = factor[block, cell[t]]
                        for b in range(LANES):
                            undrawn[b] *= own_factor[b]
                    for b in range(LANES):
                        w[b] = undrawn[b] * drawn[b]
                    if positive[t] and walk != 1:
                        # Pairs are counted from the positives, which are few: what stands above a positive is lost to it.
                        for h in range(k):
                            lost, above = sums[7, h], sums[1, h]
                            for b in range(LANES):
                                lost[b] += share * w[b] * above[b]
                        lost, above = sums[6, g], sums[1, g]
                        for b in range(LANES):
                            lost[b] += share * w[b] * above[b]
                        lost = sums[8, g]
                        for b in range(LANES):
                            all_negative[b] = 0.0
                        for h in range(k):
                            above = sums[1, h]
                            for b in range(LANES):
                                all_negative[b] += above[b]
                        for b in range(LANES):
                            lost[b] += share * w[b] * all_negative[b]
                    if walk == 1 or not is_tied:
                        count = sums[0 if positive[t] else 1, g]
                        for b in range(LANES):
                            count[b] += w[b]
                        if flag[t] != 0:
                            count = sums[(2 if positive[t] else 3) if flag[t] == 1 else (4 if positive[t] else 5), g]
                            for b in range(LANES):
                                count[b] += w[b]
                        if with_calibration:
                            r, loss = residual[t], log_loss[t]
                            own_error, own_squares, squared, logged = error[g], squares[g], sums[10, g], sums[11, g]
                            for b in range(LANES):
                                own_error[b] += w[b] * r
                                own_squares[b] += w[b] * undrawn[b]
                                squared[b] += w[b] * (r * r)
                                logged[b] += w[b] * loss
                    if with_precision and positive[t] and (walk == 2 or not is_tied):
                        own, found, other = sums[9, g], sums[0, g], sums[1, g]
                        for b in range(LANES):
                            own[b] += w[b] * found[b] / (found[b] + other[b] + TINY)
                        for b in range(LANES):
                            all_negative[b] = 0.0
                            all_positive[b] = 0.0
                        for h in range(k):
                            found, other = sums[0, h], sums[1, h]
                            for b in range(LANES):
                                all_positive[b] += found[b]
                                all_negative[b] += other[b]
                        for h in range(k):
                            if h != g:
                                own, found, other = sums[14, h], sums[0, h], sums[1, h]
                                for b in range(LANES):
                                    above = all_positive[b] - found[b]
                                    own[b] += w[b] * above / (above + all_negative[b] - other[b] + TINY)
            if with_calibration and bin_end[end - 1]:
                for b in range(LANES):
                    e_all = 0.0
                    q_all = 0.0
                    p_all = 0.0
                    n_all = 0.0
                    for g in range(k):
                        p = sums[0, g, b] - at_positive[g, b]
                        m = p + sums[1, g, b] - at_negative[g, b]
                        sums[12, g, b] += abs(error[g, b])
                        sums[13, g, b] += _folded_excess(error[g, b], m, p, squares[g, b])
                        e_all += error[g, b]
                        q_all += squares[g, b]
                        p_all += p
                        n_all += m
                    if k > 1:
                        for g in range(k):
                            p = p_all - (sums[0, g, b] - at_positive[g, b])
                            m = n_all - (sums[0, g, b] - at_positive[g, b] + sums[1, g, b] - at_negative[g, b])
                            sums[15, g, b] += abs(e_all - error[g, b])
                            sums[16, g, b] += _folded_excess(e_all - error[g, b], m, p, q_all - squares[g, b])
                    for g in range(k):
                        error[g, b] = 0.0
                        squares[g, b] = 0.0
                        at_positive[g, b] = sums[0, g, b]
                        at_negative[g, b] = sums[1, g, b]
            i = end
        out[block] = sums


def _weight_above(w, chosen, tie_start, at):
    """Returns `[len(at), LANES]`: the weight of the chosen rows above each row of `at`, those tied with it counted half."""
    first = np.flatnonzero(tie_start)
    running = np.zeros((len(w) + 1, w.shape[1]))
    np.cumsum(w * chosen[:, None], axis=0, out=running[1:])
    block = (np.cumsum(tie_start) - 1)[at]
    return (running[first[block]] + running[np.r_[first[1:], len(w)][block]]) / 2


def _precision_sum(w, positive, tie_start):
    """Returns `[LANES]`: sum over positives of the precision at the end of their tied block."""
    if not len(w):
        return 0.0
    last = np.r_[np.flatnonzero(tie_start)[1:], len(w)] - 1
    found = np.cumsum(np.where(positive[:, None], w, 0.0), axis=0)[last]
    flagged = np.cumsum(w, axis=0)[last]
    return (np.diff(found, axis=0, prepend=0.0) * found / (flagged + TINY)).sum(axis=0)


def _bin_sums(w, residual, positive, undrawn, bin_id):
    """Returns `[bins, LANES]` four times: residuals, weight, positives, squared weight, for bins 0 to the last.

    Args:
        w: `[m, LANES]`.
        residual: `[m]`.
        positive: `[m] bool`.
        undrawn: `[m, LANES]` or `[m, 1]`, the weights without how often each row was drawn: copies are rows of their own.
        bin_id: `[m]`, rising.
    """
    sums = []
    for value in (residual[:, None], np.ones((len(w), 1)), positive[:, None].astype(np.float64), undrawn):
        total = np.zeros((N_BINS, w.shape[1]))
        if len(w):
            starts = np.flatnonzero(np.r_[True, bin_id[1:] != bin_id[:-1]])
            total[bin_id[starts]] = np.add.reduceat(w * value, starts, axis=0)
        sums.append(total)
    return sums


def _excess_of_bins(error, n, positives, squares):
    """The numpy form of `_folded_excess`, summed over bins: `[bins, LANES]` to `[LANES]`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = n**2 / squares
        rate = np.clip(positives / n, 0, 1)
        deviation = np.sqrt(rate * (1 - rate) / (effective - 1))
        distance = np.abs(error) / n
        z = distance / deviation
        expected = deviation * np.sqrt(2 / np.pi) * np.exp(-0.5 * z**2) + distance * special.erf(z / np.sqrt(2))
        is_noisy = (n > 0) & (effective > 1.000001) & (deviation > 0)
        return np.where(is_noisy, n * (expected - distance), 0.0).sum(axis=0)


def _numpy_pass(
    codes, patient, positive, flag, tie_end, bin_end, residual, log_loss, base, cell, factor, has_factor, resamples,
    with_precision, with_calibration, out,
):  # fmt: skip
    known = codes >= 0
    tie_id = tie_blocks(tie_end)[known]
    bin_id = (np.cumsum(bin_end) - bin_end)[known]  # counted from the highest score; only their being apart matters
    codes, patient, positive, flag, residual, log_loss, base, cell = (
        a[known] for a in (codes, patient, positive, flag, residual, log_loss, base, cell)
    )

    def starts(rows):
        return np.diff(tie_id[rows], prepend=-1) != 0

    kinds = [positive, ~positive]
    kinds += [kind & chosen for chosen in (flag == 1, flag < 0) for kind in (positive, ~positive)]
    for block, drawn in enumerate(resamples):
        undrawn = base[:, None] * factor[block][cell] if has_factor else base[:, None]
        w = drawn[patient] * undrawn
        sums = out[block]
        is_start_of_tie = starts(slice(None))
        at_positive, at_negative = np.flatnonzero(positive), np.flatnonzero(~positive)
        all_positive = w[positive].sum(axis=0)
        lost_of = w[at_positive] * _weight_above(w, ~positive, is_start_of_tie, at_positive)
        lost_to = w[at_negative] * (all_positive - _weight_above(w, positive, is_start_of_tie, at_negative))
        bins = _bin_sums(w, residual, positive, undrawn, bin_id) if with_calibration else []
        for g in range(sums.shape[1]):
            own = codes == g
            for s, chosen in enumerate(kinds):
                sums[s, g] = w[own & chosen].sum(axis=0)
            is_positive, w_own = positive[own], w[own]
            found = np.flatnonzero(is_positive)
            sums[6, g] = (w_own[found] * _weight_above(w_own, ~is_positive, starts(own), found)).sum(axis=0)
            sums[7, g] = lost_to[own[at_negative]].sum(axis=0)
            sums[8, g] = lost_of[own[at_positive]].sum(axis=0)
            if with_precision:
                sums[9, g] = _precision_sum(w_own, is_positive, starts(own))
                if sums.shape[1] > 1:
                    sums[14, g] = _precision_sum(w[~own], positive[~own], starts(~own))
            if with_calibration:
                sums[10, g] = (w_own * residual[own, None] ** 2).sum(axis=0)
                sums[11, g] = (w_own * log_loss[own, None]).sum(axis=0)
                of_group = _bin_sums(w_own, residual[own], is_positive, undrawn[own], bin_id[own])
                sums[12, g], sums[13, g] = np.abs(of_group[0]).sum(axis=0), _excess_of_bins(*of_group)
                if sums.shape[1] > 1:
                    of_others = [a - b for a, b in zip(bins, of_group, strict=True)]
                    sums[15, g], sums[16, g] = np.abs(of_others[0]).sum(axis=0), _excess_of_bins(*of_others)


_compiled_pass = None
if numba is not None:
    _folded_excess = numba.njit(nogil=True, error_model="numpy")(_folded_excess)
    _compiled_pass = numba.njit(nogil=True, error_model="numpy")(_loop_pass)
