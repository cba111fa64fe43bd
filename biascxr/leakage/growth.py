"""How what is read grows: with the number of patients to learn from, and with the number of principal components.

A curve that has not levelled off says that more patients would read more; one that needs many components says that the
attribute does not lie along the vectors' main directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from biascxr.containers import Attribute
from biascxr.leakage.base import Probe
from biascxr.leakage.readout import Fold, Readout, read_out, standardise
from biascxr.mitigation.vector_table import VectorTable, principal_axes, weighted_mean

Score = Callable[[Readout], list[dict]]

SMALLEST_SIZE = 50
MAX_SIZES = 8
KEPT_OF_EACH_GROUP = 2  # patients of every group in every subset; without any, a probe could not read that group at all


@dataclass(frozen=True)
class Task:
    """What is read, on which rows, by which probe; what a curve varies is not in here.

    Attributes:
        probe: the probe.
        attribute: what is read.
        codes: `[n] int64`, group of each row; -1 where it is not known.
        patient_id: `[n]`.
        folds: the divisions.
        score: gives the AUROCs of a readout with their intervals: one dictionary per group and one whose `group` is "macro",
            with the keys `auroc`, `low`, `high`.
        is_balanced: groups count alike in training.
        seed: seed of anything random.
    """

    probe: Probe
    attribute: Attribute
    codes: np.ndarray
    patient_id: np.ndarray
    folds: tuple[Fold, ...]
    score: Score
    is_balanced: bool = False
    seed: int = 0

    def read(
        self, vectors: np.ndarray, *, folds: Sequence[Fold] | None = None, standardised: dict[int, list] | None = None
    ) -> Readout | None:
        """Reads the attribute from vectors `[n, d]`; see `read_out`.

        Args:
            vectors: one per row.
            folds: other divisions than the task's own.
            standardised: per fold the vectors to learn from, to choose on and to judge, where they are not the standardised
                `vectors`.
        """
        return read_out(
            self.probe, vectors, self.attribute, self.codes, self.patient_id, self.folds if folds is None else folds,
            is_balanced=self.is_balanced, standardised=standardised, seed=self.seed,
        )  # fmt: skip

    def known(self, fold: Fold) -> Fold:
        """Returns the rows of a fold whose group is known."""
        return fold.of(self.codes >= 0)

    def row(
        self,
        readout: Readout | None,
        *,
        kind: str,
        amount: float,
        unit: str,
        block: str = "",
        folds: Sequence[Fold] | None = None,
    ) -> dict:
        """Returns a row of `curves.csv`; AUROC and interval are NaN where nothing could be read.

        Args:
            readout: what was read; None for nothing.
            kind: which curve.
            amount: where on it.
            unit: what the amount is.
            block: name of the encoder's block, where the curve is over blocks.
            folds: what was learned from, where that is not the task's own; `n_train_patients` is their mean.
        """
        found = [] if readout is None else self.score(readout)
        macro = next((line for line in found if line["group"] == "macro"), {})
        n_train = [len(np.unique(self.patient_id[self.known(f).train])) for f in (self.folds if folds is None else folds)]
        return {
            "attribute": self.attribute.name, "probe": self.probe.name, "kind": kind, "amount": float(amount), "unit": unit,
            "block": block, **{name: float(macro.get(name, np.nan)) for name in ("auroc", "low", "high")},
            "n_train_patients": round(np.mean(n_train)),
        }  # fmt: skip


def by_training_patients(task: Task, vectors: np.ndarray) -> list[dict]:
    """Reads after learning from 50, 100, 200, ... patients, and from all; every time from the same test rows.

    Subsets are random and nested; each group has its share of every one, and two patients at least. Settings are chosen on all
    validation rows. The last row is the reading itself.

    Args:
        task: what is read.
        vectors: `[n, d]`.

    Returns:
        Rows of `curves.csv` of the kind "training patients".
    """
    orders = [patient_order(task, fold, seed=task.seed + number) for number, fold in enumerate(task.folds)]
    rows = []
    for size in subset_sizes(min(map(len, orders))):
        folds = [_first_patients(task, fold, order, size) for fold, order in zip(task.folds, orders, strict=True)]
        rows.append((size, folds))
    rows[-1] = (round(np.mean([len(order) for order in orders])), list(task.folds))
    return [
        task.row(task.read(vectors, folds=folds), kind="training patients", amount=size, unit="patients", folds=folds)
        for size, folds in rows
    ]


def subset_sizes(n_patients: int) -> list[int]:
    """Returns the sizes of the subsets: from 50 on, each at least twice the one before, 8 at most; everybody last."""
    n_doublings = int(np.log2(max(n_patients, 1) / SMALLEST_SIZE)) if n_patients > SMALLEST_SIZE else 0
    if n_doublings == 0:
        return [n_patients]
    return [round(size) for size in np.geomspace(SMALLEST_SIZE, n_patients, min(n_doublings + 1, MAX_SIZES))]


def patient_order(task: Task, fold: Fold, *, seed: int) -> np.ndarray:
    """Returns the training patients with a known group in an order whose every beginning has all groups in about their shares.

    The first two of each group lead. A patient whose group changes counts with the first.
    """
    train = task.known(fold).train
    patients, first = np.unique(task.patient_id[train].astype(str), return_index=True)
    codes = task.codes[train][first]
    rng = np.random.default_rng(seed)
    place = np.empty(len(patients))
    for code in np.unique(codes):
        own = np.flatnonzero(codes == code)
        rank = rng.permutation(len(own))
        place[own] = np.where(rank < KEPT_OF_EACH_GROUP, -1, (rank + rng.random()) / len(own))
    return patients[np.lexsort((rng.random(len(patients)), place))]


def _first_patients(task: Task, fold: Fold, order: np.ndarray, size: int) -> Fold:
    train = task.known(fold).train
    return replace(fold, train=train[np.isin(task.patient_id[train].astype(str), order[:size])])


def by_components(task: Task, vectors: np.ndarray) -> list[dict]:
    """Reads from the 1, 2, 4, ... leading principal components of the standardised training vectors, and from all of them.

    Components keep their variances: with all of them, distances and a ridge penalty are those of the vectors themselves, so
    the last row is the reading itself, whereas components scaled to variance 1 would blow up the last ones, which are noise.

    Args:
        task: what is read.
        vectors: `[n, d]`.

    Returns:
        Rows of `curves.csv` of the kind "components".
    """
    turned = {}
    for number, whole in enumerate(task.folds):
        fold = task.known(whole)
        if len(fold.train) == 0:
            continue
        parts = standardise(vectors, whole.train, [fold.train, fold.validation, fold.test])
        train, weights = VectorTable.of(parts[0]), np.ones(len(fold.train))
        _, axes = principal_axes(train, weights, weighted_mean(train, weights))
        turned[number] = [part @ axes.astype(np.float32) for part in parts]
    if not turned:
        return []
    n_components = min(parts[0].shape[1] for parts in turned.values())
    rows = []
    for n in [*(2**i for i in range(32) if 2**i < n_components), n_components]:
        leading = {number: [np.ascontiguousarray(part[:, :n]) for part in parts] for number, parts in turned.items()}
        readout = task.read(vectors, standardised=leading)
        rows.append(task.row(readout, kind="components", amount=n, unit="components"))
    return rows
