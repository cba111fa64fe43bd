"""More patients read more; with all of them, and with all components, the reading is the plain one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from biascxr.containers import Attribute
from biascxr.leakage import find_probe
from biascxr.leakage.growth import Task, by_components, by_training_patients, patient_order, subset_sizes
from biascxr.leakage.readout import Fold

SHARES = (0.7, 0.27, 0.03)
RACE = Attribute("race", ("A", "B", "C"), True)


def score(readout) -> list[dict]:
    """Stand-in for `scores.one_vs_rest`: scikit-learn's AUROC, an interval of no width."""
    value = np.mean([roc_auc_score(readout.codes == g, readout.scores[:, g]) for g in np.unique(readout.codes)])
    return [{"group": "A", "auroc": 0.0, "low": 0, "high": 0}, {"group": "macro", "auroc": value, "low": value, "high": value}]


def world(n_patients: int = 900, *, d: int = 30, strength: float = 1.0, seed: int = 0, probe: str = "logistic"):
    """Two films a patient; the group moves the first column; column j has deviation 1 / (j + 1)."""
    rng = np.random.default_rng(seed)
    patient = np.arange(2 * n_patients) // 2
    codes = rng.choice(3, n_patients, p=SHARES)[patient]
    vectors = rng.normal(size=(len(patient), d)).astype(np.float32)
    vectors[:, 0] += strength * np.array([-1, 1, 3])[codes]
    part = rng.choice(3, n_patients, p=[0.6, 0.1, 0.3])[patient]
    fold = Fold(*(np.flatnonzero(part == i) for i in range(3)))
    return Task(find_probe(probe), RACE, codes, np.array([f"p{p}" for p in patient]), (fold,), score), vectors


def test_sizes_double_from_fifty_on_and_end_with_everybody():
    assert subset_sizes(800) == [50, 100, 200, 400, 800]
    assert subset_sizes(799) == pytest.approx([50, 116, 317, 799], abs=20)  # three doublings fit, so four sizes
    assert subset_sizes(30) == [30]
    many = subset_sizes(60_000)
    assert (len(many), many[0], many[-1]) == (8, 50, 60_000)
    assert np.diff(np.log(many)) == pytest.approx(np.log(1200) / 7, rel=0.02)


def test_every_beginning_of_the_order_has_all_groups_in_about_their_shares():
    task, _ = world()
    fold = task.folds[0]
    order = patient_order(task, fold, seed=3)
    group = dict(zip(task.patient_id, task.codes, strict=True))
    counts = np.array([[group[p] for p in order[:n]].count(g) for n in range(len(order) + 1) for g in range(3)]).reshape(-1, 3)
    total = counts[-1]
    assert sorted(order) == sorted(set(task.patient_id[fold.train]))
    assert (counts[6] == 2).all()
    for n in range(50, len(order) + 1):
        assert np.abs(counts[n] - n * total / total.sum()).max() < 7  # the six that lead, and rounding
    assert (patient_order(task, fold, seed=4) != order).any()


def test_each_subset_is_of_whole_patients_within_the_next_and_test_rows_stay(monkeypatch):
    task, vectors = world()
    used = []
    monkeypatch.setattr(Task, "read", lambda self, vectors, folds: used.append(folds[0]))
    rows = by_training_patients(task, vectors)
    assert [row["amount"] for row in rows] == [row["n_train_patients"] for row in rows]
    assert [len(np.unique(task.patient_id[f.train])) for f in used] == [row["n_train_patients"] for row in rows]
    for smaller, larger in itertools.pairwise(used):
        assert set(smaller.train) < set(larger.train)
        assert (smaller.test == larger.test).all()
        assert len(smaller.train) == 2 * len(np.unique(task.patient_id[smaller.train]))
    first = patient_order(task, task.folds[0], seed=task.seed)[:50]
    assert set(task.patient_id[used[0].train]) == set(first)
    assert used[-1] is task.folds[0]
    assert np.isnan(rows[0]["auroc"])  # nothing could be read


def test_more_patients_read_more_and_all_of_them_as_much_as_the_plain_reading():
    task, vectors = world(d=60, strength=0.8)
    rows = by_training_patients(task, vectors)
    auroc = [row["auroc"] for row in rows]
    assert auroc[-1] == score(task.read(vectors))[1]["auroc"]
    assert auroc[-1] > auroc[0] + 0.05
    assert {row["kind"] for row in rows} == {"training patients"}
    assert by_training_patients(task, vectors) == rows


@pytest.mark.parametrize("probe", ["logistic", "knn"])
def test_all_components_read_what_the_vectors_do(probe):
    task, vectors = world(300, d=24, probe=probe)
    vectors = vectors @ np.random.default_rng(1).normal(size=(24, 24)).astype(np.float32)  # unequal variances
    rows = by_components(task, vectors)
    assert [row["amount"] for row in rows] == [1, 2, 4, 8, 16, 24]
    assert rows[-1]["auroc"] == pytest.approx(score(task.read(vectors))[1]["auroc"], abs=2e-4)


def test_more_columns_than_training_rows_leave_as_many_components_as_rows_allow():
    task, vectors = world(40, d=100)
    rows = by_components(task, vectors)
    n_train = len(task.folds[0].train)
    assert rows[-1]["amount"] == n_train - 1  # centred
    assert rows[-1]["auroc"] == pytest.approx(score(task.read(vectors))[1]["auroc"], abs=2e-3)


def test_an_attribute_along_the_third_component_is_read_from_four_components_and_not_from_two():
    rng = np.random.default_rng(0)
    task, _ = world(1500)
    latent = rng.normal(size=(len(task.codes), 3))
    latent[:, 2] = np.array([-1, 1, 2])[task.codes] + 0.3 * latent[:, 2]
    vectors = latent[:, [0] * 6 + [1] * 4 + [2] * 2] + 0.01 * rng.normal(size=(len(latent), 12))  # six copies, four, two
    auroc = {row["amount"]: row["auroc"] for row in by_components(task, vectors.astype(np.float32))}
    assert auroc[4] > 0.95
    assert auroc[2] < 0.6


def test_rows_without_a_group_are_no_training_patients():
    task, vectors = world(200)
    unknown = np.isin(task.patient_id, np.unique(task.patient_id)[::4])
    task = replace(task, codes=np.where(unknown, -1, task.codes))
    rows = by_training_patients(task, vectors)
    known = np.unique(task.patient_id[task.folds[0].train][~unknown[task.folds[0].train]])
    assert rows[-1]["n_train_patients"] == len(known) == rows[-1]["amount"]
    assert rows[-1]["auroc"] == score(task.read(vectors))[1]["auroc"]
