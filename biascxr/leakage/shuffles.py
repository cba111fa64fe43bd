"""Is the attribute read better than chance? Groups shuffled among patients, with the scores kept or the probe fitted anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from biascxr.errors import InputError
from biascxr.leakage import MACRO
from biascxr.leakage.readout import Readout
from biascxr.leakage.scores import cells_of, one_vs_rest, patient_numbers
from biascxr.metrics.significance import permutation_p_value

MIN_REFITS = 19  # of fewer refits no p-value can be .05
_CHUNK = 400_000  # units times permutations held at once: stays in cache


@dataclass(frozen=True)
class _Units:
    """Rows that always have one group: all of a patient in a cell, or single rows where a patient's group may change.

    Attributes:
        patient: `[u] int64`.
        cell: `[u] int64`, fold and stratum.
        size: `[u] float64`, rows.
        excess: `[u, k] float64`, midranks within the cell less their mean, summed; 0 in a cell whose column is undefined.
        is_scored: `[cells, k] bool`, whether the column is defined in the cell.
        position: `[u] int64`, which of its patient's groups a unit has.
        codes: groups of the patients, one patient's after another's.
        start: `[patients] int64`, where a patient's begin in `codes`.
        count: `[patients] int64`, how many he has: 1 unless they may change.
    """

    patient: np.ndarray
    cell: np.ndarray
    size: np.ndarray
    excess: np.ndarray
    is_scored: np.ndarray
    position: np.ndarray
    codes: np.ndarray
    start: np.ndarray
    count: np.ndarray

    def codes_from(self, donor: np.ndarray) -> np.ndarray:
        """Returns the group of each unit `[R, u]` when patients take those of their donors `[R, patients]`."""
        from_patient = donor[:, self.patient]
        if (self.count == 1).all():
            return self.codes[self.start[from_patient]]
        return self.codes[self.start[from_patient] + self.position % self.count[from_patient]]


def shuffle_test(
    readout: Readout,
    *,
    n_permutations: int,
    seed: int,
    strata: np.ndarray | None = None,
    is_studentised: bool = True,
    over_folds: bool = False,
) -> dict[str, float]:
    """Could chance have given these AUROCs? Groups are shuffled among the patients of each fold, the scores stay.

    One-sided, `p = (1 + #{shuffled >= observed}) / (N + 1)`. With midranks R within a fold (and stratum), group g has

        AUROC_g - 1/2 = sum_(rows of g) (R - mean R) / pairs

    so a shuffle costs a few sums over patients. The statistic is this divided by its standard error over patients (and for
    the mean over groups likewise), computed anew in each shuffle.

    What is exact: with one split the probe never saw the groups that are judged. If these say nothing about the vectors,
    patients can be exchanged, and every shuffle is as likely as what was observed: the size is the nominal one, whatever
    the statistic. Where groups have different numbers of images per patient, patients cannot be exchanged although nothing
    may be read; the AUROC itself then rejects too often (if the smaller group has fewer images a patient; too rarely if it
    has more), the studentised one is right in large samples. It costs a few points of power where a group has 10 to 20
    patients, none otherwise.

    What is not: (a) a group that changes between a patient's images, as view does: shuffled patients take another one's
    sequence, repeated or cut to their own number of images; right in large samples, by the studentised form alone. (b)
    Several folds: a fold's probe has seen the groups of the other folds, which are permuted here as if it had not. The
    folds' AUROCs then vary together, and at 5% the test rejects in 11% of worlds where nothing can be read (5 folds, 150
    patients; `benchmarks/leakage_calibration.py`). So it gives no p-value there unless told to: `refitted` with `observed`
    does. (c) Within strata, patients change places only with patients who are in the same strata; where these are many, few
    can move, and little is found.

    Args:
        readout: the scores.
        n_permutations: N.
        seed: of the shuffles.
        strata: `[m] int`, rows are ranked within theirs only; -1 leaves a row out.
        is_studentised: False takes the AUROC itself as the statistic.
        over_folds: give p-values for readouts of several folds too, although they are too small.

    Returns:
        p by group of the attribute, and `"macro"`, over the defined groups; NaN where the AUROC is, and for several folds.

    Raises:
        InputError: fewer than 1 permutation.

    Reference: Phipson and Smyth 2010; studentised permutations, Chung and Romano, Annals of Statistics 2013.
    """
    if n_permutations < 1:
        raise InputError(f"n_permutations must be at least 1; got {n_permutations}. Take 999 for p-values down to .001.")
    k = len(readout.attribute.groups)
    names = [*readout.attribute.groups, MACRO]
    values = one_vs_rest(readout, confidence=0.95, strata=strata)
    is_defined = ~np.isnan([row["auroc"] for row in values[:-1]])
    if not is_defined.any() or (len(np.unique(readout.fold)) > 1 and not over_folds):
        return dict.fromkeys(names, float("nan"))
    cell = cells_of(readout, strata)
    used = cell >= 0
    patient = patient_numbers(readout.patient_id[used])
    units = _units(readout.codes[used], readout.scores[used], cell[used], patient)
    blocks = _exchangeable(cell[used], patient)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(units.patient))
    itself = np.arange(len(units.start))
    observed = _statistics(units, units.codes_from(itself[None]), is_defined, is_studentised)[0]
    shuffled = np.empty((n_permutations, k + 1))
    for first in range(0, n_permutations, step):
        donors = np.tile(itself, (min(step, n_permutations - first), 1))
        for block in blocks:
            donors[:, block] = rng.permuted(donors[:, block], axis=1)
        codes = units.codes_from(donors)
        shuffled[first : first + step] = _statistics(units, codes, is_defined, is_studentised)
    return dict(zip(names, map(float, permutation_p_value(observed, shuffled)), strict=True))


def _units(codes: np.ndarray, scores: np.ndarray, cell: np.ndarray, patient: np.ndarray) -> _Units:
    n_cells, n_patients = cell.max() + 1, patient.max() + 1
    excess, is_scored = np.zeros(scores.shape), np.ones((n_cells, scores.shape[1]), bool)
    for c in range(n_cells):
        rows = np.flatnonzero(cell == c)
        is_scored[c] = ~np.isnan(scores[rows]).any(axis=0)
        ranks = rankdata(scores[rows], axis=0, nan_policy="propagate")
        excess[rows] = np.where(is_scored[c], ranks - (len(rows) + 1) / 2, 0)
    order = np.argsort(patient, kind="stable")
    start = np.searchsorted(patient[order], np.arange(n_patients))
    count = np.bincount(patient)
    changes = (codes != codes[order][start][patient]).any()
    if changes:
        position = np.empty(len(codes), np.int64)
        position[order] = np.arange(len(codes)) - np.repeat(start, count)
        return _Units(patient, cell, np.ones(len(codes)), excess, is_scored, position, codes[order], start, count)
    pairs, unit = np.unique(np.stack([patient, cell]), axis=1, return_inverse=True)
    gather = sparse.csr_matrix((np.ones(len(codes)), (unit.ravel(), np.arange(len(codes)))))
    own = codes[order][start]
    zero, one = np.zeros(pairs.shape[1], np.int64), np.ones(n_patients, np.int64)
    return _Units(*pairs, gather @ np.ones(len(codes)), gather @ excess, is_scored, zero, own, np.arange(n_patients), one)


def _exchangeable(cell: np.ndarray, patient: np.ndarray) -> list[np.ndarray]:
    """Returns sets of two patients or more who have rows in the same cells; only they change places."""
    pairs = np.unique(np.stack([patient, cell]), axis=1)
    first = np.searchsorted(pairs[0], np.arange(patient.max() + 1))
    found: dict[tuple[int, ...], list[int]] = {}
    for number, cells in enumerate(np.split(pairs[1], first[1:])):
        found.setdefault(tuple(cells.tolist()), []).append(number)
    return [np.array(own) for own in found.values() if len(own) > 1]


def _statistics(units: _Units, codes: np.ndarray, is_defined: np.ndarray, is_studentised: bool) -> np.ndarray:
    """Returns `[R, k + 1]`, of each group and of their mean; NaN where undefined. `codes` are `[R, u]`."""
    n_draws, n_units = codes.shape
    n_cells, n_patients = len(units.is_scored), len(units.start)
    one = np.ones(n_units)
    to_cell = sparse.csc_matrix((units.size, (np.arange(n_units), units.cell)), (n_units, n_cells))
    to_patient = sparse.csc_matrix((one, (np.arange(n_units), units.patient)), (n_units, n_patients))
    in_cell = np.bincount(units.cell, units.size, n_cells)
    found = np.full((n_draws, len(is_defined) + 1), np.nan)
    mean, influences = np.zeros(n_draws), np.zeros((n_draws, n_patients if is_studentised else 0))
    for g in np.flatnonzero(is_defined):
        is_group = (codes == g).astype(np.float64)
        rows = (is_group @ to_cell) * units.is_scored[:, g]  # [R, cells], of the group
        pairs = (rows * (in_cell - rows)).sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = is_group @ units.excess[:, g : g + 1] / pairs  # AUROC - 1/2, [R, 1]
        mean += value[:, 0] / is_defined.sum()
        if not is_studentised:
            found[:, g] = value[:, 0]
            continue
        # A patient's influence: sum over his units of d (excess - value x size x rows of the cell x d), d = [in g] - share.
        away = is_group
        away -= (rows / in_cell)[:, units.cell] if n_cells > 1 else rows / in_cell
        if not units.is_scored[:, g].all():
            away *= units.is_scored[units.cell, g]
        own = away * (units.size * in_cell[units.cell])
        own *= -value
        own += units.excess[:, g]
        own *= away
        if n_units != n_patients:
            own = own @ to_patient
        with np.errstate(divide="ignore", invalid="ignore"):
            own /= pairs
        found[:, g] = _studentised(value[:, 0], own)
        influences += own / is_defined.sum()
    found[:, -1] = _studentised(mean, influences) if is_studentised else mean
    return found


def _studentised(value: np.ndarray, influence: np.ndarray) -> np.ndarray:
    """Divides by the standard error; without variance: 0 where the value is 1/2 (as of constant scores), else infinite."""
    error = np.sqrt(np.einsum("rp,rp->r", influence, influence))
    is_flat = error < 1e-12
    value = np.where(np.abs(value) < 1e-12, 0.0, value)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(is_flat & (value == 0), 0.0, value / np.where(is_flat, 0.0, error))


def refitted(
    read: Callable[[np.random.Generator], Readout | None],
    *,
    n_shuffles: int,
    seed: int,
    observed: Readout | None = None,
) -> list[dict]:
    """The whole reading with shuffled groups: what the probe, its fit and the folds give for nothing.

    Args:
        read: makes the reading anew with groups shuffled by the generator, as `read_out` does with `shuffled`.
        n_shuffles: readings.
        seed: of the shuffles.
        observed: the reading itself. With it and 19 shuffles or more, `p_value` is `(1 + #{shuffled >= observed}) / (N +
            1)` by AUROC, valid for several folds too; otherwise NaN.

    Returns:
        A row per group and `"macro"`, as of `one_vs_rest`, control `"shuffled"`: `auroc` is the mean over shuffles, `low`
        and `high` the lowest and the highest. Counts are those of the last shuffle. NaN where a shuffle leaves an AUROC
        undefined. Empty where nothing can be read.
    """
    if n_shuffles < 1:
        raise InputError(f"n_shuffles must be at least 1; got {n_shuffles}.")
    rng = np.random.default_rng(seed)
    values, rows = [], []
    for _ in range(n_shuffles):
        readout = read(rng)
        if readout is None:
            continue
        rows = one_vs_rest(readout, confidence=0.95, control="shuffled")
        values.append([row["auroc"] for row in rows])
    if not values:
        return []
    shuffled = np.array(values)
    p_values = np.full(shuffled.shape[1], np.nan)
    if observed is not None and len(values) >= MIN_REFITS:
        truth = np.array([row["auroc"] for row in one_vs_rest(observed, confidence=0.95)])
        p_values = np.where(np.isnan(shuffled).any(axis=0), np.nan, permutation_p_value(truth, shuffled))
    # mean, lowest and highest are NaN where a shuffle's is
    ends = zip(rows, shuffled.mean(axis=0), shuffled.min(axis=0), shuffled.max(axis=0), p_values, strict=True)
    return [
        {**row, "auroc": float(mean), "low": float(low), "high": float(high), "p_value": float(p), "setting": ""}
        for row, mean, low, high, p in ends
    ]
