"""Would the conclusions be others with other labels: the reference labels, or another policy for uncertain ones?"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.audit import AuditResult, audit
from biascxr.audit.conclusions import conclusion_table
from biascxr.cohort import relabel
from biascxr.config import AuditConfig
from biascxr.containers import Cohort, Predictions

logger = logging.getLogger("biascxr")


def with_labels(predictions: Predictions, cohort: Cohort, labels: np.ndarray, keep: np.ndarray | None = None) -> Predictions:
    """Returns predictions judged by other labels; scores and decisions stay as they are.

    Args:
        predictions: rows of the cohort, in any order.
        cohort: where the rows are found.
        labels: `[len(cohort), L]` in {0, 1, NaN}.
        keep: `[L] bool`, the findings to keep; default all.
    """
    rows = pd.Index(cohort.table["image_id"]).get_indexer(predictions.table["image_id"])
    keep = np.ones(labels.shape[1], bool) if keep is None else keep
    return replace(
        predictions,
        y_true=labels[rows][:, keep],
        scores=predictions.scores[:, keep],
        decisions=None if predictions.decisions is None else predictions.decisions[:, keep],
        label_names=tuple(name for name, kept in zip(predictions.label_names, keep, strict=True) if kept),
    )


def audit_on_reference(cohort: Cohort, predictions: list[Predictions], config: AuditConfig, folder: Path, *, seed: int) -> None:
    """Audits the same predictions against the reference labels, into `reference/`; nothing where there are none.

    Beside it, into `reference/recorded/`, the recorded labels of the same rows and findings: like is compared with like.

    Args:
        cohort: with or without `reference_labels`.
        predictions: one per recipe, test rows.
        config: as for the audit on the recorded labels.
        folder: the audit stage's folder.
        seed: as for the audit on the recorded labels.
    """
    if cohort.reference_labels is None:
        return
    test = cohort.reference_labels[cohort.split_rows("test")]
    keep = (test == 1).any(0) & (test == 0).any(0)
    if not keep.any():
        logger.info("audit: no finding has reference labels of both classes among the test rows")
        return
    (folder / "reference" / "recorded").mkdir(parents=True, exist_ok=True)
    known = ~np.isnan(with_labels(predictions[0], cohort, cohort.reference_labels, keep).y_true).all(axis=1)
    for labels, place in ((cohort.reference_labels, "reference"), (cohort.labels, "reference/recorded")):
        if labels is cohort.labels and keep.all() and known.all():  # then it is the audit that was made already
            AuditResult.load(folder).save(folder / place)
            continue
        judged = [with_labels(p, cohort, labels, keep).rows(known) for p in predictions]
        audit(judged, config, seed=seed).save(folder / place)


def check_label_policy(
    cohort: Cohort, predictions: dict[str, list[Predictions]], config: AuditConfig, folder: Path, *, seed: int
) -> None:
    """Repeats the audit under every policy for uncertain labels and says which conclusions survive.

    Args:
        cohort: with its labels as recorded.
        predictions: policy for uncertain labels -> predictions of the test rows, one per recipe, by models of the run
            (rescore) or models trained on that policy's labels (retrain).
        config: as for the audit.
        folder: where `label_policy.csv` goes: one row per conclusion, a column per policy, `survives`.
        seed: as for the audit.
    """
    if not (cohort.recorded == -1).any():
        logger.info("audit: no label is uncertain, so no conclusion depends on the policy for uncertain labels")
        conclusion_table({}, config.confidence).to_csv(folder / "label_policy.csv", index=False)
        return
    tests_only = replace(config, adjust=(), crossings=())
    results = {}
    for policy, own in predictions.items():
        labels = relabel(cohort, uncertain=policy).labels
        judged = [with_labels(p, cohort, labels) for p in own]
        results[policy] = audit(judged, tests_only, seed=seed)
    conclusion_table(results, config.confidence).to_csv(folder / "label_policy.csv", index=False)
