"""Pairwise xAUC: does a positive of one group score above a negative of another?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from biascxr.audit.groups import CROSSING, Groups
from biascxr.config import AuditConfig
from biascxr.containers import Predictions
from biascxr.metrics.delong import clustered_auroc
from biascxr.metrics.intervals import logit_t_interval

COLUMNS = ("label", "attribute", "positives_of", "negatives_of", "value", "low", "high", "n_class_patients", "interval")


def cross_auroc_table(
    predictions: Predictions, groups: Groups, config: AuditConfig, *, weight: np.ndarray | None = None
) -> pd.DataFrame:
    """xAUC of every ordered pair of groups of each attribute (not of crossings, which have too many pairs).

    The xAUC of (a, b) is the AUROC of the rows that are positives of a or negatives of b; so is its clustered variance.

    Returns:
        Columns `label, attribute, positives_of, negatives_of, value, low, high, n_class_patients, interval`.

    Reference: Kallus and Zhou, The fairness of risk scores beyond classification, NeurIPS 2019.
    """
    patient, _ = pd.factorize(predictions.table["patient_id"].astype(str))
    rows = []
    for grouping in groups.groupings[1:]:
        names = grouping.attribute.groups
        if CROSSING in grouping.attribute.name:
            continue
        for label, label_name in enumerate(predictions.label_names):
            y, score = predictions.y_true[:, label], predictions.scores[:, label]
            for a in range(len(names)):
                for b in range(len(names)):
                    if a == b:
                        continue
                    own = ((grouping.codes == a) & (y == 1)) | ((grouping.codes == b) & (y == 0))
                    found = clustered_auroc(y[own], score[own], patient[own], None if weight is None else weight[own])
                    n_class = min(found.n_positive_patients, found.n_negative_patients)
                    error = np.sqrt(found.variance)
                    low, high = logit_t_interval(found.value, error, config.confidence, df=n_class - 1)
                    rows.append((label_name, grouping.attribute.name, names[a], names[b], found.value, low, high, n_class))
    table = pd.DataFrame(rows, columns=list(COLUMNS[:-1]))
    return table.assign(interval="logit t, clustered DeLong")
