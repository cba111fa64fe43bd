"""Is the planted bias really there? Each mechanism, on made-up vectors whose best possible classifier is known.

    python benchmarks/phantom.py            # 40 audits of 3,000 patients for each mechanism and strength
    python benchmarks/phantom.py --quick    # 10 of each, a few minutes on two cores

One classifier per world (logistic regression on the vectors, trained on the *recorded* labels of the training patients, without
the group; one threshold per finding at an overall FPR of 0.20 on the calibration patients). Its true gap is measured on all
test patients, tens of thousands; then the audit is given one small sample of them after the other. A patient counts once,
whatever the number of images (1 to 200). Shown per mechanism, the disadvantaged group minus everyone else, as a mean over the
findings (for acquisition on the marked finding):

- the true gap of the classifier on true labels, and that of the Bayes-optimal score at the same overall FPR: what exceeds it
  could be removed, what does not could not (Chen, Johansson and Sontag 2018);
- how many audits on true labels hold the true gap in their interval, and how many say that it is off zero;
- the mean of the same audits on recorded labels, and how many of those still hold the true gap: where few do, the recorded
  labels mislead, and nobody can tell without reference labels.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import pandas as pd
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import biascxr
from biascxr.audit import audit
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.metrics import fixed_fpr_threshold
from biascxr.phantom.mechanisms import MECHANISMS
from biascxr.phantom.vectors import VectorConfig, VectorPhantom, draw_vectors

METRICS = ("AUROC", "TPR", "FPR")
STRENGTHS = (0.0, 0.8)
SEPARABILITY = 0.95  # the group can be read from the vector, so that a model can treat it otherwise
TRAIN_PATIENTS = 12_000
AUDITED_PATIENTS = 3_000
# What theory says a strength of 0.8 does to the group: metric and sign of its true gap; None is no gap at all.
EXPECTED = {
    "prevalence": ("TPR", -1),  # rarer in the group, which can be read from the vector: scores are lower there, rightly
    "presentation": ("AUROC", -1),
    "annotation": ("TPR", -1),  # the model learns that the group is seldom ill
    "acquisition": ("AUROC", -1),  # of the marked finding: the marker that was leaned on says nothing any more
    "selection": ("TPR", -1),
    "under_representation": None,  # P(Y|X,A) is the same for all, and a linear model loses nothing by fewer of them
}
# Where recorded labels mislead: findings recorded as absent count as false alarms when they are found.
MISLED = {("annotation", "AUROC"), ("annotation", "FPR")}
WIDTHS = {
    "mechanism": 20, "strength": 8, "metric": 6, "true gap": 8, "Bayes": 7, "excess": 7, "audits": 6, "hold it": 7,
    "off zero": 8, "on recorded labels": 18, "still hold it": 13,
}  # fmt: skip
GROUP, OTHERS = "disadvantaged", "others"


def train(world: VectorPhantom, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores of all rows `[n, L]` and thresholds `[L]` of the plain classifier."""
    rows = rows_of(world, "train", TRAIN_PATIENTS, rng)
    scores = np.empty(world.labels.shape)
    thresholds = np.empty(world.labels.shape[1])
    calibration = np.flatnonzero(world.split == "calibration")
    for label in range(world.labels.shape[1]):
        model = LogisticRegression(C=1.0, max_iter=300).fit(world.vectors[rows], world.recorded[rows, label])
        scores[:, label] = model.predict_proba(world.vectors)[:, 1]
        thresholds[label] = fixed_fpr_threshold(
            world.recorded[calibration, label].astype(float), scores[calibration, label], fpr=0.20
        )
    return scores, thresholds


def rows_of(world: VectorPhantom, split: str, n_patients: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the rows of some patients of a split."""
    own = np.flatnonzero(world.split == split)
    patients = np.unique(world.patient[own])
    chosen = rng.choice(patients, min(n_patients, len(patients)), replace=False)
    return own[np.isin(world.patient[own], chosen)]


def true_gap(
    labels: np.ndarray,
    scores: np.ndarray,
    thresholds: np.ndarray,
    in_group: np.ndarray,
    patient: np.ndarray,
    findings: list[int],
) -> dict[str, float]:
    """Returns group minus everyone else, mean over some findings, by plain counting and scikit-learn's AUROC."""
    weight = 1.0 / np.bincount(patient)[patient]
    parts = {metric: [] for metric in METRICS}
    for label in findings:
        y, s = labels[:, label], scores[:, label]
        flagged = s >= thresholds[label]
        both = {}
        for name, rows in ((GROUP, in_group), (OTHERS, ~in_group)):
            rates = [np.average(flagged[rows & of], weights=weight[rows & of]) for of in (y, ~y)]
            both[name] = (roc_auc_score(y[rows], s[rows], sample_weight=weight[rows]), *rates)
        for k, metric in enumerate(METRICS):
            parts[metric].append(both[GROUP][k] - both[OTHERS][k])
    return {metric: float(np.mean(values)) for metric, values in parts.items()}


def predictions_of(
    world: VectorPhantom, rows: np.ndarray, y: np.ndarray, scores: np.ndarray, thresholds: np.ndarray
) -> Predictions:
    """Returns what a user would hand to the audit."""
    names = tuple(f"finding {i}" for i in range(y.shape[1]))
    group = np.where(world.group[rows] == world.config.disadvantaged_group, GROUP, OTHERS)
    ids = rows.astype(str)
    table = pd.DataFrame({"image_id": ids, "study_id": ids, "patient_id": world.patient[rows].astype(str), "split": "test"})
    table = table.assign(recipe="erm", seed=0, fold=0, group=group)
    return Predictions(
        table=table,
        y_true=y[rows].astype(np.float32),
        scores=scores[rows],
        label_names=names,
        attributes=(Attribute("group", (GROUP, OTHERS), True),),
        decisions=(scores[rows] >= thresholds).astype(np.float32),
    )


def audited(predictions: Predictions, label: str, seed: int) -> pd.DataFrame:
    """Returns the audit's differences of the disadvantaged group, by metric, on a finding or macro."""
    config = AuditConfig(metrics=METRICS, weight="patient", n_replicates=200, n_permutations=0)
    metrics = audit([predictions], config, seed=seed).metrics
    own = metrics[(metrics["label"] == label) & (metrics["group"] == GROUP)]
    return own.set_index("metric")[["difference", "difference_low", "difference_high"]]


def measure(mechanism: str, strength: float, n_audits: int, n_patients: int) -> list[dict]:
    """Returns a row per metric."""
    config = VectorConfig(n_patients=n_patients, seed=1, mechanism=mechanism, strength=strength, separability=SEPARABILITY)
    world = draw_vectors(config)
    rng = np.random.default_rng(2)
    scores, thresholds = train(world, rng)
    is_marked = mechanism == "acquisition"
    findings = [config.marked_label] if is_marked else list(range(config.n_labels))
    label = f"finding {config.marked_label}" if is_marked else "macro"
    test = np.flatnonzero(world.split == "test")
    in_group = world.group[test] == config.disadvantaged_group
    patient = world.patient[test]
    truth = true_gap(world.labels[test], scores[test], thresholds, in_group, patient, findings)
    calibration = np.flatnonzero(world.split == "calibration")
    bayes = np.asarray(world.bayes_scores, np.float64)
    bayes_thresholds = [
        fixed_fpr_threshold(world.labels[calibration, i].astype(float), bayes[calibration, i], fpr=0.20)
        for i in range(bayes.shape[1])
    ]
    best = true_gap(world.labels[test], bayes[test], np.array(bayes_thresholds), in_group, patient, findings)

    patients = rng.permutation(np.unique(world.patient[test]))
    on_truth, on_recorded = [], []
    for k in range(n_audits):
        part = patients[k * AUDITED_PATIENTS : (k + 1) * AUDITED_PATIENTS]
        rows = test[np.isin(world.patient[test], part)]
        on_truth.append(audited(predictions_of(world, rows, world.labels, scores, thresholds), label, k))
        on_recorded.append(audited(predictions_of(world, rows, world.recorded, scores, thresholds), label, k))
    lines = []
    for metric in METRICS:
        true_rows, recorded_rows = (pd.DataFrame([t.loc[metric] for t in made]) for made in (on_truth, on_recorded))
        lines.append(
            {
                "mechanism": mechanism,
                "strength": f"{strength:.1f}",
                "metric": metric,
                "true gap": truth[metric],
                "Bayes": best[metric],
                "excess": truth[metric] - best[metric],
                "audits": n_audits,
                "hold it": int(holds(true_rows, truth[metric]).sum()),
                "off zero": int((~holds(true_rows, 0.0)).sum()),
                "on recorded labels": recorded_rows["difference"].mean(),
                "still hold it": int(holds(recorded_rows, truth[metric]).sum()),
            }
        )
    return lines


def holds(rows: pd.DataFrame, value: float) -> pd.Series:
    """Returns whether each interval holds a value."""
    return (rows["difference_low"] <= value) & (value <= rows["difference_high"])


def verdicts(table: pd.DataFrame) -> list[tuple[str, bool]]:
    """Returns what the table must show, in words, and whether it does."""
    zero, planted = table[table["strength"] == "0.0"], table[table["strength"] != "0.0"]
    n = table["audits"].sum()
    covered = table["hold it"].sum() / n
    claims = [(f"intervals on true labels hold the true gap: {covered:.1%} of {n} (at least 90%)", covered >= 0.90)]
    zero = zero[zero["mechanism"] != "acquisition"]  # one finding alone is noisy at any strength
    if len(zero):
        off, largest = zero["off zero"].sum() / zero["audits"].sum(), zero["true gap"].abs().max()
        words = f"largest gap of a mean over findings {largest:.3f} (below 0.02), off zero in {off:.1%} (at most 10%)"
        claims.append((f"strength 0 plants nothing: {words}", largest < 0.02 and off <= 0.10))
    for row in planted.to_dict("records"):
        mechanism, metric, gap = row["mechanism"], row["metric"], row["true gap"]
        expected = EXPECTED[mechanism]
        if expected is None and metric == "TPR":
            claims.append((f"{mechanism}: no gap that this model shows, {metric} {gap:+.3f}", abs(gap) < 0.02))
        elif expected is not None and metric == expected[0]:
            found = row["off zero"] / row["audits"]
            if mechanism == "acquisition":
                # One finding of 3,000 patients: the shortcut is there, and an audit of this size often cannot tell.
                words = (
                    f"{metric} of the marked finding {row['excess']:+.3f} beyond Bayes; {found:.0%} of the audits see its gap"
                )
                claims.append((f"{mechanism}: {words}", expected[1] * row["excess"] > 0.01))
                continue
            is_there = expected[1] * gap > 0.02
            claims.append((f"{mechanism}: {metric} {gap:+.3f}; {found:.0%} of the audits say so", is_there and found >= 0.8))
        if (mechanism, metric) in MISLED:
            share = row["still hold it"] / row["audits"]
            claims.append((f"{mechanism}, {metric}: recorded labels mislead ({share:.0%} hold the true gap)", share < 0.5))
    return claims


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 audits of each")
    parser.add_argument("--audits", type=int, help="audits of each mechanism and strength")
    parser.add_argument("--mechanisms", default=",".join(MECHANISMS), help="some of them, separated by commas")
    flags = parser.parse_args(arguments)
    n_audits = flags.audits if flags.audits is not None else 10 if flags.quick else 40
    chosen = flags.mechanisms.split(",")
    if n_audits < 1 or not set(chosen) <= set(MECHANISMS):
        parser.error(f"--audits must be positive and --mechanisms among {', '.join(MECHANISMS)}")
    n_patients = max(2 * TRAIN_PATIENTS, (n_audits + 1) * AUDITED_PATIENTS * 5)
    print(f"biascxr {biascxr.__version__}, scikit-learn {sklearn.__version__}, numpy {np.__version__}")
    print(
        f"{n_patients:,} made-up patients a world; audits of {AUDITED_PATIENTS:,} patients; disadvantaged minus everyone else\n"
    )
    started, rows = time.perf_counter(), []
    for mechanism in chosen:
        for strength in STRENGTHS:
            lines = measure(mechanism, strength, n_audits, n_patients)
            for line in lines:
                if not rows:
                    print("  ".join(f"{name:>{WIDTHS[name]}}" for name in line))
                rows.append(line)
                cells = (f"{v:+.3f}" if isinstance(v, float) else str(v) for v in line.values())
                print("  ".join(f"{c:>{WIDTHS[n]}}" for n, c in zip(line, cells, strict=True)), flush=True)
    table = pd.DataFrame(rows)
    print(f"\n{time.perf_counter() - started:.0f} s")
    claims = verdicts(table)
    for words, is_met in claims:
        print(f"{'met    ' if is_met else 'NOT MET'} {words}")
    return 0 if all(is_met for _, is_met in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
