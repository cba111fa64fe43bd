"""Every metric in every cell (label x group) under every resample of patients, computed once and shared by all tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from biascxr.containers import Attribute, Predictions
from biascxr.metrics import auroc_replicates, rate_replicates

METRICS = ("AUROC", "TPR", "FPR", "FNR")
OVERALL, ALL = "overall", "all"
MACRO = "macro"
OTHERS = "everyone else"


@dataclass(frozen=True)
class Groups:
    """The groups compared: everyone, each known group, and everyone else for each group.

    Attributes:
        names: `(attribute, group, is_others)` per group; first `("overall", "all", False)`.
        masks: `[G, n] bool`.
    """

    names: tuple[tuple[str, str, bool], ...]
    masks: np.ndarray

    def index(self, attribute: str, group: str, *, others: bool = False) -> int:
        """Returns the row of a group, or of everyone else of the same attribute whose group is known."""
        return self.names.index((attribute, group, others))


def find_groups(predictions: Predictions, attributes: tuple[Attribute, ...]) -> Groups:
    """Builds the groups of all attributes. Rows with an unknown value are in no group of that attribute."""
    table = predictions.table
    names: list[tuple[str, str, bool]] = [(OVERALL, ALL, False)]
    masks = [np.ones(len(table), bool)]
    for attribute in attributes:
        values = table[attribute.name].to_numpy(object).astype(str)  # a CSV gives groups written as digits back as numbers
        known = np.isin(values, attribute.groups)
        for group in attribute.groups:
            in_group = values == group
            names += [(attribute.name, group, False), (attribute.name, group, True)]
            masks += [in_group, known & ~in_group]
    return Groups(tuple(names), np.array(masks))


@dataclass(frozen=True)
class Cells:
    """All metrics of one set of predictions.

    Attributes:
        values: per metric `[R + 1, L, G]`; row 0 is the estimate, the others are resamples of patients.
        n: `[L, G]` images with a known label.
        n_positive: `[L, G]` images labelled positive.
        n_patients: `[L, G]` patients with a known label.
        n_positive_patients: `[L, G]` patients with an image labelled positive.
        n_negative_patients: `[L, G]` patients with an image labelled negative.
    """

    values: dict[str, np.ndarray]
    n: np.ndarray
    n_positive: np.ndarray
    n_patients: np.ndarray
    n_positive_patients: np.ndarray
    n_negative_patients: np.ndarray

    def class_patients(self, metric: str) -> np.ndarray:
        """Returns `[L, G]`: the patients that a metric rests on, the smaller class for an AUROC."""
        if metric in ("TPR", "FNR"):
            return self.n_positive_patients
        if metric == "FPR":
            return self.n_negative_patients
        return np.minimum(self.n_positive_patients, self.n_negative_patients)


def measure_cells(predictions: Predictions, groups: Groups, weights: np.ndarray) -> Cells:
    """Computes every metric in every cell.

    Args:
        predictions: the rows to audit, with decisions.
        groups: their groups.
        weights: `[R, n]` patient resamples.
    """
    weights = np.concatenate([np.ones((1, weights.shape[1]), weights.dtype), weights])
    n_labels, n_groups = len(predictions.label_names), len(groups.names)
    values = {m: np.full((len(weights), n_labels, n_groups), np.nan) for m in METRICS}
    counts = {k: np.zeros((n_labels, n_groups), int) for k in ("n", "n_positive", "patients", "positive", "negative")}
    _, patients = np.unique(predictions.table["patient_id"].to_numpy(object).astype(str), return_inverse=True)
    for g, mask in enumerate(groups.masks):
        own = np.ascontiguousarray(weights[:, mask])
        for metric in ("TPR", "FPR"):
            values[metric][:, :, g] = rate_replicates(metric, predictions.y_true[mask], predictions.decisions[mask], own)
        for index in range(n_labels):
            y, score = predictions.y_true[mask, index], predictions.scores[mask, index]
            values["AUROC"][:, index, g] = auroc_replicates(y, score, own)
            codes = patients[mask]
            counts["n"][index, g] = (~np.isnan(y)).sum()
            counts["n_positive"][index, g] = (y == 1).sum()
            counts["patients"][index, g] = len(np.unique(codes[~np.isnan(y)]))
            counts["positive"][index, g] = len(np.unique(codes[y == 1]))
            counts["negative"][index, g] = len(np.unique(codes[y == 0]))
    values["FNR"] = 1 - values["TPR"]
    return Cells(values, counts["n"], counts["n_positive"], counts["patients"], counts["positive"], counts["negative"])
