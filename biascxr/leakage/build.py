"""Leakage stage: fit probes on train, score them on test, beside the same probes with attributes shuffled in both."""

from __future__ import annotations

import importlib
import logging

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from biascxr.config import AuditConfig, LeakageConfig
from biascxr.containers import Attribute, Cohort, EmbeddingSet
from biascxr.errors import unknown_name
from biascxr.leakage.base import Probe
from biascxr.metrics import auroc_replicates, patient_weights, percentile_interval

logger = logging.getLogger("biascxr")

PROBES = {"knn": "biascxr.leakage.knn:Knn", "logistic": "biascxr.leakage.logistic:Logistic"}
MACRO = "macro"
# Below so many numbers (rows x columns) BLAS threads wait for each other longer than they work: on the demo's vectors and
# two busy cores, one thread took 2.5 s where two took 26 s.
SMALL_PROBLEM = 20_000_000


def find_probe(name: str) -> Probe:
    """Returns the probe of that name. Raises InputError for an unknown one, naming the nearest."""
    if name not in PROBES:
        raise unknown_name("probe", name, PROBES)
    module, member = PROBES[name].split(":")
    return getattr(importlib.import_module(module), member)()


def measure_leakage(
    cohort: Cohort, embeddings: EmbeddingSet, config: LeakageConfig, audit: AuditConfig, *, seed: int
) -> pd.DataFrame:
    """How well can each attribute be read from the vectors?

    Args:
        cohort: rows of `embeddings`, in the same order.
        embeddings: one vector per row.
        config: probes, number of shuffles.
        audit: replicates and level of the intervals.
        seed: seed of shuffles, probes and resamples.

    Returns:
        Columns `attribute, probe, is_control, group, auroc, low, high, n, n_group`: one-vs-rest AUROC per group and their
        mean (`"macro"`), on the test split, over rows whose attribute is known. Intervals resample patients. For the
        control, attributes are shuffled among the patients of train and of test; the value is the mean over shuffles, and
        low to high their range.
    """
    probes = [find_probe(name) for name in config.probes]
    # Which columns vary is a property of the training split; a column whose deviation is rounding noise is left out.
    rows = {split: cohort.split_rows(split) for split in ("train", "test")}
    train = np.asarray(embeddings.vectors[rows["train"]], np.float32)
    mean, deviation = train.mean(0), train.std(0)
    scale = np.where(deviation > 1e-6 * np.abs(mean), 1 / np.where(deviation > 0, deviation, 1), 0).astype(np.float32)
    vectors = {"train": (train - mean) * scale}
    vectors["test"] = (np.asarray(embeddings.vectors[rows["test"]], np.float32) - mean) * scale
    tables = []
    threads = 1 if train.size < SMALL_PROBLEM else None
    bar = tqdm(total=len(cohort.attributes) * len(probes), desc="leakage", unit="probe")
    with threadpool_limits(limits=threads, user_api="blas"), bar:
        for attribute in cohort.attributes:
            for probe in probes:
                tables.append(_probe_attribute(cohort, rows, vectors, attribute, probe, config, audit, seed))
                bar.update()
    columns = ["attribute", "probe", "is_control", "group", "auroc", "low", "high", "n", "n_group"]
    tables = [t for t in tables if len(t)]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    for row in table[(table["group"] == MACRO) & ~table["is_control"].astype(bool)].itertuples():
        logger.info(
            "leakage: %s from the vectors by %s: macro AUROC %.3f (%.3f to %.3f)",
            row.attribute, row.probe, row.auroc, row.low, row.high,
        )  # fmt: skip
    return table[columns]


def _probe_attribute(
    cohort: Cohort,
    rows: dict[str, np.ndarray],
    vectors: dict[str, np.ndarray],
    attribute: Attribute,
    probe: Probe,
    config: LeakageConfig,
    audit: AuditConfig,
    seed: int,
) -> pd.DataFrame:
    values = cohort.table[attribute.name].to_numpy(object)
    codes = pd.Categorical(values, attribute.groups).codes.astype(np.int64)  # -1 where unknown
    patients = cohort.table["patient_id"].to_numpy(object)
    known = {split: codes[index] >= 0 for split, index in rows.items()}
    train_codes = codes[rows["train"]][known["train"]]
    test_codes = codes[rows["test"]][known["test"]]
    train_patients = patients[rows["train"]][known["train"]]
    test_patients = patients[rows["test"]][known["test"]]
    present, packed = np.unique(train_codes, return_inverse=True)
    if len(present) < 2 or len(test_codes) == 0:
        logger.info("leakage: %s has fewer than two known groups in train; not probed", attribute.name)
        return pd.DataFrame()
    x_train, x_test = vectors["train"][known["train"]], vectors["test"][known["test"]]

    def scores_with(labels: np.ndarray) -> np.ndarray:
        """`[m, k]` over all groups; NaN columns for groups without training rows."""
        full = np.full((len(x_test), len(attribute.groups)), np.nan)
        found, again = np.unique(labels, return_inverse=True)
        full[:, present[found]] = probe.fit_predict(x_train, again, x_test, seed=seed)
        return full

    weights = patient_weights(test_patients, audit.n_replicates, seed=seed)
    once = np.ones((1, len(test_codes)))
    scores = scores_with(packed)
    point = _one_vs_rest(test_codes, scores, once)[0]
    replicates = _one_vs_rest(test_codes, scores, weights)
    rng = np.random.default_rng(seed)
    controls = np.array(
        [
            _one_vs_rest(
                # Test too: a probe on shuffled rows still points somewhere, and where an attribute is strongly encoded
                # its true groups lie far apart along any direction, so the control would range from .1 to .9.
                _shuffle_patients(test_codes, test_patients, rng),
                scores_with(_shuffle_patients(packed, train_patients, rng)),
                once,
            )[0]
            for _ in range(config.n_shuffles)
        ]
    )
    names = [*attribute.groups, MACRO]
    table = []
    for index, group in enumerate(names):
        n_group = len(test_codes) if group == MACRO else int((test_codes == index).sum())
        common = {"attribute": attribute.name, "probe": probe.name, "group": group, "n": len(test_codes)}
        low, high = percentile_interval(replicates[:, index], audit.confidence)
        table.append({**common, "is_control": False, "auroc": point[index], "low": low, "high": high, "n_group": n_group})
        shuffled = controls[:, index]
        is_defined = not np.isnan(shuffled).any()
        table.append(
            {
                **common,
                "is_control": True,
                "auroc": shuffled.mean(),
                "low": shuffled.min() if is_defined else np.nan,
                "high": shuffled.max() if is_defined else np.nan,
                "n_group": n_group,
            }
        )
    return pd.DataFrame(table)


def _one_vs_rest(codes: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One-vs-rest AUROC per group, then their mean over groups that are defined: `[R, k + 1]`."""
    k = scores.shape[1]
    values = np.full((len(weights), k), np.nan)
    for group in range(k):
        if not np.isnan(scores[:, group]).any():
            values[:, group] = auroc_replicates((codes == group).astype(float), scores[:, group], weights)
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0).sum(1)
    macro = np.divide(total, defined.sum(1), out=np.full(len(values), np.nan), where=defined.any(1))
    return np.column_stack([values, macro])


def _shuffle_patients(codes: np.ndarray, patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gives each patient the attribute of another one, all images of a patient alike.

    Shuffling images would make the control too easy to beat: a probe that recognises a patient again would seem to read
    the attribute.
    """
    _, first, numbers = np.unique(patients.astype(str), return_index=True, return_inverse=True)
    return rng.permutation(codes[first])[numbers]
