"""How fast is the audit? Beside a plain scikit-learn loop, fairlearn's bootstrap and its own numpy form; and how it grows.

    python benchmarks/audit_speed.py            # the whole: some minutes, most of them in the peers
    python benchmarks/audit_speed.py --quick    # fewer peer replicates, growth to 100,000 rows

A made-up table of predictions: 14 findings, race, sex, age group, insurance and all their pairs, six metrics in every
group, patients resampled. The peers are timed on a few replicates, one core each, and extrapolated. Both sides must give
the same numbers, for the data as they are and for one resample, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from itertools import combinations

import fairlearn.metrics
import numpy as np
import pandas as pd
import sklearn
import sklearn.metrics

import biascxr
from biascxr.audit.cells import measure_cells
from biascxr.audit.groups import Groups, find_groups
from biascxr.audit.tables import gaps_table, metrics_table
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.metrics.resampling import Resamples, resample_patients

METRICS = ("AUROC", "TPR", "FPR", "PPV", "accuracy", "Brier")
N_LABELS = 14
ATTRIBUTES = (
    Attribute("race", ("WHITE", "BLACK", "ASIAN", "HISPANIC", "OTHER"), True),
    Attribute("sex", ("F", "M"), True),
    Attribute("age_group", ("0-20", "20-40", "40-60", "60-80", "80+"), False),
    Attribute("insurance", ("Medicare", "Medicaid", "Other"), False),
)
SHARES = ((0.6, 0.18, 0.06, 0.1, 0.06), (0.48, 0.52), (0.05, 0.2, 0.35, 0.3, 0.1), (0.4, 0.1, 0.5))


def make_predictions(n_rows: int, *, seed: int = 0) -> Predictions:
    """A table of predictions with 2.3 rows a patient and findings of 2 to 30%."""
    rng = np.random.default_rng(seed)
    n_patients = max(2, int(n_rows / 2.3))
    patient = np.sort(rng.integers(0, n_patients, n_rows))
    table = {"image_id": np.arange(n_rows).astype(str), "patient_id": patient.astype(str), "split": "test", "recipe": "model"}
    for attribute, shares in zip(ATTRIBUTES, SHARES, strict=True):
        drawn = rng.choice(attribute.groups, n_patients, p=shares)[patient]
        table[attribute.name] = drawn
    y = np.empty((n_rows, N_LABELS), np.float32)
    scores = np.empty((n_rows, N_LABELS))
    for label, prevalence in enumerate(np.linspace(0.02, 0.3, N_LABELS)):
        y[:, label] = rng.random(n_rows) < prevalence
        logit = rng.normal(0, 1, n_rows) + 1.5 * y[:, label] + np.log(prevalence / (1 - prevalence)) - 0.7
        scores[:, label] = 1 / (1 + np.exp(-logit))
    names = tuple(f"finding {i + 1}" for i in range(N_LABELS))
    decisions = (scores >= np.quantile(scores, 0.75, axis=0)).astype(np.float32)
    return Predictions(pd.DataFrame(table), y, scores, names, ATTRIBUTES, decisions)


def crossings(attributes: tuple[Attribute, ...]) -> tuple[str, ...]:
    return tuple(f"{a.name} x {b.name}" for a, b in combinations(attributes, 2))


def scikit_learn_metrics(y: np.ndarray, score: np.ndarray, decision: np.ndarray) -> list[float]:
    """What a reader of scikit-learn's documentation would write."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        has_both = len(np.unique(y)) == 2
        return [
            sklearn.metrics.roc_auc_score(y, score) if has_both else np.nan,
            sklearn.metrics.recall_score(y, decision, zero_division=np.nan),
            1 - sklearn.metrics.recall_score(y, decision, pos_label=0, zero_division=np.nan),
            sklearn.metrics.precision_score(y, decision, zero_division=np.nan),
            sklearn.metrics.accuracy_score(y, decision),
            sklearn.metrics.brier_score_loss(y, score),
        ]


def scikit_learn_replicate(predictions: Predictions, masks: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Returns `[6, L, groups]` on the drawn rows, one scikit-learn call at a time."""
    values = np.full((len(METRICS), N_LABELS, len(masks)), np.nan)
    for g, mask in enumerate(masks):
        own = rows[mask[rows]]
        for label in range(N_LABELS):
            if len(own):
                columns = (predictions.y_true, predictions.scores, predictions.decisions)
                values[:, label, g] = scikit_learn_metrics(*(block[own, label] for block in columns))
    return values


def drawn_rows(resamples: Resamples, replicate: int) -> np.ndarray:
    """Returns the rows of one resample, as often as they are drawn."""
    weights = resamples.weights()[replicate].astype(int)
    return np.repeat(np.arange(len(weights)), weights)


def fairlearn_seconds(predictions: Predictions, n_boot: int) -> float:
    """Seconds of fairlearn's bootstrap (of images) per replicate: all groupings, one finding, times the findings."""
    functions = {
        "AUROC": sklearn.metrics.roc_auc_score, "TPR": fairlearn.metrics.true_positive_rate,
        "FPR": fairlearn.metrics.false_positive_rate, "accuracy": sklearn.metrics.accuracy_score,
    }  # fmt: skip
    started = time.perf_counter()
    for names in [["sex"], ["sex", "insurance"]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fairlearn.metrics.MetricFrame(
                metrics=functions, y_true=predictions.y_true[:, -1], y_pred=predictions.decisions[:, -1],
                sensitive_features=predictions.table[names], n_boot=n_boot, ci_quantiles=[0.025, 0.975], random_state=0,
            )  # fmt: skip
    # Two of the ten groupings, four of the six metrics: as if the rest cost nothing more per metric.
    return (time.perf_counter() - started) / n_boot * N_LABELS * 5


def measured(predictions: Predictions, groups: Groups, resamples: Resamples, *, is_compiled: bool):
    started = time.perf_counter()
    cells = measure_cells(predictions, groups, resamples, METRICS, is_compiled=is_compiled)
    return cells, time.perf_counter() - started


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        raise SystemExit("FAILED: the two sides do not agree on what is undefined.")
    return float(np.nanmax(np.abs(a - b)))


def race(n_rows: int, n_replicates: int, n_peer: int) -> None:
    """Times all sides on one table and checks that they agree."""
    predictions = make_predictions(n_rows)
    groups = find_groups(predictions, ATTRIBUTES, crossings(ATTRIBUTES))
    masks = [groups.mask(c) for c in range(groups.n_own)]
    resamples = resample_patients(predictions.table["patient_id"], n_replicates, seed=0)
    print(f"\n{n_rows:,} rows, {resamples.n_patients:,} patients, {N_LABELS} findings, {groups.n_own} groups, "
          f"{len(METRICS)} metrics, {n_replicates:,} patient replicates, {os.cpu_count()} cores")  # fmt: skip

    cells, first = measured(predictions, groups, resamples, is_compiled=True)
    _, compiled = measured(predictions, groups, resamples, is_compiled=True)
    small = resample_patients(predictions.table["patient_id"], 63, seed=0)
    _, numpy_64 = measured(predictions, groups, small, is_compiled=False)
    numpy_form = numpy_64 / 64 * (n_replicates + 1)
    started = time.perf_counter()
    config = AuditConfig(n_replicates=n_replicates)
    metrics_table(cells, groups, predictions.label_names, METRICS, config)
    gaps_table(cells, groups, predictions.label_names, METRICS, config, seed=0)
    tables = time.perf_counter() - started

    started = time.perf_counter()
    peer = [scikit_learn_replicate(predictions, masks, drawn_rows(resamples, r)) for r in range(n_peer)]
    per_replicate = (time.perf_counter() - started) / n_peer
    loop = per_replicate * (n_replicates + 1)
    fair = fairlearn_seconds(predictions, 2) * n_replicates

    own = np.stack([cells.values[m] for m in METRICS])[:, :, : groups.n_own]
    point = largest_difference(peer[0], own[..., 0])
    resampled = largest_difference(peer[1], own[..., 1]) if n_peer > 1 else np.nan
    print(f"largest difference from scikit-learn: point estimates {point:.1e}, one resample {resampled:.1e}")
    if point > 1e-9 or (n_peer > 1 and resampled > 1e-9):
        raise SystemExit("FAILED: the two sides do not give the same numbers.")
    rows = [
        ("scikit-learn loop, one core", loop, f"extrapolated from {n_peer} replicates"),
        ("fairlearn MetricFrame(n_boot), images, one core", fair, "4 metrics; extrapolated from 2 replicates, 2 groupings"),
        ("biascxr, numpy form", numpy_form, "extrapolated from 64 replicates"),
        ("biascxr, compiled, first call in a process", first, "with numba's compilation"),
        ("biascxr, compiled", compiled, ""),
        ("  and its tables of intervals and gaps", tables, "on top"),
    ]
    print(f"{'':52}{'seconds':>10}{'times faster':>14}")
    for name, seconds, note in rows:
        print(f"{name:52}{seconds:10.1f}{loop / seconds:14.3g}   {note}")


def peak_gb() -> float:
    """Largest memory of this process so far; getrusage would hold the parent's where a process was forked from it."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 2**20


def growth(n_rows: int) -> None:
    """One size in its own process: prints seconds and peak memory as JSON."""
    predictions = make_predictions(n_rows)
    attributes = ATTRIBUTES[:3]
    groups = find_groups(predictions, attributes)
    before = peak_gb()
    warm = make_predictions(500)
    measured(warm, find_groups(warm, attributes), resample_patients(warm.table["patient_id"], 63, seed=0), is_compiled=True)
    started = time.perf_counter()
    resamples = resample_patients(predictions.table["patient_id"], 200, seed=0)
    cells, _ = measured(predictions, groups, resamples, is_compiled=True)
    metrics_table(cells, groups, predictions.label_names, METRICS, AuditConfig(n_replicates=200))
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "data_gb": before, "peak_gb": peak_gb()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--no-growth", action="store_true", help="leave out the second table")
    parser.add_argument("--growth-of", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.growth_of:
        growth(flags.growth_of)
        return
    import numba

    versions = {m.__name__: m.__version__ for m in (biascxr, np, pd, sklearn, fairlearn, numba)}
    print("python", platform.python_version(), *(f"{k} {v}" for k, v in versions.items()))
    race(flags.rows, flags.replicates, 2 if flags.quick else 4)
    if flags.no_growth:
        return
    print("\ngrowth: 14 findings, 3 attributes, 200 replicates, resampling and tables included")
    print(f"{'rows':>12}{'seconds':>10}{'per million rows':>18}{'peak GB':>10}{'of which the data':>19}")
    for n in (10_000, 100_000) if flags.quick else (10_000, 100_000, 1_000_000):
        command = [sys.executable, __file__, "--growth-of", str(n)]
        made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{n:12,}{made['seconds']:10.1f}{made['seconds'] / n * 1e6:18.1f}{made['peak_gb']:10.2f}{made['data_gb']:19.2f}")


if __name__ == "__main__":
    main()
