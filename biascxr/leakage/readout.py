"""From an attribute and vectors to out-of-sample scores: which rows a probe learns from, chooses on and is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from biascxr.containers import Attribute, Cohort
from biascxr.errors import InputError
from biascxr.leakage.base import Probe, ProbeRows


@dataclass(frozen=True)
class Fold:
    """Row numbers of one division, disjoint by patient."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def of(self, is_used: np.ndarray) -> Fold:
        """Returns the rows that are used; `[n] bool`."""
        return Fold(*(rows[is_used[rows]] for rows in (self.train, self.validation, self.test)))


@dataclass(frozen=True)
class Readout:
    """Scores of one probe for one attribute, on rows that it has not seen.

    Attributes:
        attribute: what was read.
        probe: name of the probe.
        rows: `[m] int64`, row numbers in the cohort; the group is known in all of them.
        codes: `[m] int64`, the group, 0 to k - 1.
        scores: `[m, k] float64`; a column is NaN where a fold had no training row of the group.
        fold: `[m] int64`; rows of different folds were scored by different fits and are never ranked against each other.
        patient_id: `[m]`.
        setting: what was chosen on validation rows, in words; of several folds, each of them.
        validation_auroc: mean, over the folds that have one, of the macro AUROC on validation rows; NaN without any.
        settings: what was chosen, by number of the fold.
    """

    attribute: Attribute
    probe: str
    rows: np.ndarray
    codes: np.ndarray
    scores: np.ndarray
    fold: np.ndarray
    patient_id: np.ndarray
    setting: str
    validation_auroc: float
    settings: dict[int, float | int | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def with_scores(self, scores: np.ndarray) -> Readout:
        """Returns the same rows with other scores."""
        return replace(self, scores=scores)


def make_folds(cohort: Cohort, codes: np.ndarray, n_folds: int, *, seed: int) -> tuple[Fold, ...]:
    """Divides the rows.

    Args:
        cohort: the rows.
        codes: `[n]`, group of each row; folds of the patients hold them in about equal shares. -1 where not known.
        n_folds: 1 takes the cohort's own split: learn from train, choose on validation, judge on test. Three or more take
            every row: each fold of the patients is judged once, the next one chooses, and the others are learned from.
        seed: decides which patients fall into which fold.

    Raises:
        InputError: fewer than three folds (but not one), or more folds than patients.
    """
    if n_folds == 1:
        return (Fold(*(cohort.split_rows(split) for split in ("train", "validation", "test"))),)
    patients = cohort.table["patient_id"].to_numpy(object).astype(str)
    if n_folds < 3 or n_folds > len(np.unique(patients)):
        raise InputError(
            f"folds must be 1 (the split that there is) or from 3 to the number of patients, {len(np.unique(patients))}: one "
            f"part is judged, one chooses settings, the others are learned from. Received: {n_folds}."
        )
    from sklearn.model_selection import StratifiedGroupKFold

    divided = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    parts = [test for _, test in divided.split(np.zeros(len(codes)), codes, patients)]
    folds = []
    for i, test in enumerate(parts):
        validation = parts[(i + 1) % n_folds]
        rest = [part for j, part in enumerate(parts) if j not in (i, (i + 1) % n_folds)]
        folds.append(Fold(np.sort(np.concatenate(rest)), validation, test))
    return tuple(folds)


def group_codes(cohort: Cohort, attribute: Attribute) -> np.ndarray:
    """Returns `[n] int64`, the number of each row's group; -1 where it is not known."""
    values = cohort.table[attribute.name].to_numpy(object)
    return pd.Categorical(values, attribute.groups).codes.astype(np.int64)


def read_out(
    probe: Probe,
    vectors: np.ndarray,
    attribute: Attribute,
    codes: np.ndarray,
    patient_id: np.ndarray,
    folds: Sequence[Fold],
    *,
    is_balanced: bool = False,
    settings: dict[int, float | int | None] | None = None,
    shuffled: np.random.Generator | None = None,
    standardised: dict[int, list[np.ndarray]] | None = None,
    seed: int,
) -> Readout | None:
    """Reads an attribute from vectors.

    Args:
        probe: the probe.
        vectors: `[n, d]`, one per row of the cohort.
        attribute: what is read.
        codes: `[n] int64`, the group of each row, -1 where it is not known.
        patient_id: `[n]`.
        folds: the divisions.
        is_balanced: groups count alike in training.
        settings: of each fold, in place of a choice on validation rows.
        shuffled: shuffle groups first, test rows too (`shuffle_parts`); the readout then holds the shuffled groups.
        standardised: an empty dictionary that keeps the standardised vectors of each fold for the next call with the same
            vectors, groups and folds; None keeps nothing.
        seed: seed of anything random.

    Returns:
        The readout; None where no fold has two groups to learn from and a row to judge.
    """
    if shuffled is not None:
        codes = shuffle_parts(codes, patient_id, folds, shuffled)
    found = []
    for number, whole in enumerate(folds):
        fold = whole.of(codes >= 0)
        if len(np.unique(codes[fold.train])) < 2 or len(fold.test) == 0:
            continue
        scaled = None if standardised is None else standardised.get(number)
        if scaled is None:
            scaled = standardise(vectors, whole.train, [fold.train, fold.validation, fold.test])
            if standardised is not None:
                standardised[number] = scaled
        own = [codes[rows] for rows in (fold.train, fold.validation, fold.test)]
        patients = [patient_id[rows] for rows in (fold.train, fold.validation, fold.test)]
        train, validation = (ProbeRows(scaled[i], own[i], patients[i]) for i in (0, 1))
        reading = probe.read(
            train, [scaled[2]], n_groups=len(attribute.groups), validation=validation if len(validation) else None,
            grid=None if settings is None else (settings[number],), is_balanced=is_balanced, seed=seed,
        )  # fmt: skip
        found.append((fold.test, own[2], reading, np.full(len(fold.test), number)))
    if not found:
        return None
    rows, used, readings, numbers = zip(*found, strict=True)
    chosen = {int(number[0]): reading.setting for number, reading in zip(numbers, readings, strict=True)}
    return Readout(
        attribute=attribute,
        probe=probe.name,
        rows=np.concatenate(rows),
        codes=np.concatenate(used),
        scores=np.concatenate([reading.scores[0] for reading in readings]),
        fold=np.concatenate(numbers),
        patient_id=patient_id[np.concatenate(rows)],
        settings=chosen,
        setting=", ".join(dict.fromkeys(probe.words(setting) for setting in chosen.values())),
        validation_auroc=_mean_of_known([reading.validation_auroc for reading in readings]),
    )


def _mean_of_known(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def standardise(vectors: np.ndarray, train: np.ndarray, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Centres and scales columns by the training rows; a column whose deviation is rounding noise becomes 0.

    Args:
        vectors: `[n, d]`; read by rows, so it may be memory-mapped.
        train: row numbers that mean and deviation come from.
        parts: row numbers wanted.

    Returns:
        Per part `[m, d] float32`.
    """
    own = np.asarray(vectors[train], np.float32)
    mean, deviation = own.mean(0, dtype=np.float64), own.std(0, dtype=np.float64)
    varies = deviation > 1e-6 * np.abs(mean)
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0).astype(np.float32)
    del own
    made = []
    for rows in parts:
        part = np.array(vectors[rows], np.float32)
        part -= mean.astype(np.float32)
        part *= scale
        made.append(part)
    return made


def shuffle_parts(codes: np.ndarray, patients: np.ndarray, folds: Sequence[Fold], rng: np.random.Generator) -> np.ndarray:
    """Shuffles groups among the patients of each part: train, validation and test of one split; each judged fold of several.

    Groups are shuffled once for all folds. Were every fold shuffled for itself, a patient would be learned from with one
    group and judged with another, and the folds' AUROCs would lose what they have in common: too narrow a null.

    Args:
        codes: `[n] int64`; -1 where not known, which stays.
        patients: `[n]`.
        folds: the divisions.
        rng: draws the shuffle.
    """
    parts = (folds[0].train, folds[0].validation, folds[0].test) if len(folds) == 1 else [fold.test for fold in folds]
    made = codes.copy()
    for part in parts:
        known = part[codes[part] >= 0]
        made[known] = shuffle_patients(codes[known], patients[known], rng)
    return made


def shuffle_patients(codes: np.ndarray, patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gives each patient the group of another one, all images of a patient alike.

    Shuffling images would make the control too easy to beat: a probe that recognises a patient again would seem to read the
    attribute. A patient whose group changes between images counts with the first.
    """
    if len(codes) == 0:
        return codes
    _, first, numbers = np.unique(patients.astype(str), return_index=True, return_inverse=True)
    return rng.permutation(codes[first])[numbers]
