"""Do groups differ along the main directions of the vectors? Kolmogorov-Smirnov tests on the leading principal components.

A probe finds any direction that tells groups apart, also one that no classifier would use. The leading modes are what the
vectors mostly vary in; where both a finding and an attribute differ along the same mode, they are hard to keep apart.

Reference: Glocker et al., Algorithmic encoding of protected characteristics in chest X-ray disease detection models,
eBioMedicine 2023. There a principal component analysis of the test vectors; here of the training vectors, so that what is
tested chose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from biascxr.containers import Attribute, Cohort
from biascxr.leakage.readout import group_codes
from biascxr.mitigation.vector_table import VectorTable, principal_axes, weighted_mean

N_MODES = 4
FEWEST_PATIENTS = 2  # on either side of a test


@dataclass(frozen=True)
class Modes:
    """Leading principal components.

    Attributes:
        mean: `[d] float64`, of the training vectors.
        axes: `[d, k] float64`.
        explained: `[k] float64`, the share of the vectors' variance along each.
    """

    mean: np.ndarray
    axes: np.ndarray
    explained: np.ndarray

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """Returns `[m, k] float64`, where vectors `[m, d]` lie along the modes."""
        return (vectors - self.mean) @ self.axes


@dataclass(frozen=True)
class Grouping:
    """What patients are compared by.

    Attributes:
        kind: "attribute" or "label".
        by: name of the attribute or finding.
        groups: of the attribute; "negative" and "positive" of a finding.
        codes: `[n] int64`, the group of each row; -1 where it is not known.
    """

    kind: Literal["attribute", "label"]
    by: str
    groups: tuple[str, ...]
    codes: np.ndarray

    def of_patients(self, rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Returns each patient's group, `[p] int64`: positive with any positive film; of an attribute that changes, the first.

        Args:
            rows: `[m]`, row numbers.
            numbers: `[m]`, number of each row's patient, 0 to p - 1, each there.
        """
        codes = self.codes[rows]
        found = np.full(numbers.max(initial=-1) + 1, -1)
        if self.kind == "label":
            np.maximum.at(found, numbers, codes)
            return found
        known = np.flatnonzero(codes >= 0)[::-1]  # the last assignment stays
        found[numbers[known]] = codes[known]
        return found


def groupings(cohort: Cohort, attributes: Sequence[Attribute] | None = None) -> list[Grouping]:
    """Returns attributes (default: the cohort's) and the findings of a cohort as groupings."""
    attributes = [_by_attribute(cohort, one) for one in (cohort.attributes if attributes is None else attributes)]
    labels = [
        Grouping("label", name, ("negative", "positive"), np.where(np.isnan(values), -1, values).astype(np.int64))
        for name, values in zip(cohort.label_names, cohort.labels.T, strict=True)
    ]
    return attributes + labels


def _by_attribute(cohort: Cohort, attribute: Attribute) -> Grouping:
    return Grouping("attribute", attribute.name, attribute.groups, group_codes(cohort, attribute))


def leading_modes(vectors: np.ndarray, train: np.ndarray, *, n_modes: int = N_MODES) -> Modes:
    """Finds the principal components of training vectors, centred and not scaled.

    Args:
        vectors: `[n, d]`.
        train: row numbers.
        n_modes: how many; there may be fewer.
    """
    table, weights = VectorTable.of(vectors).take(train), np.ones(len(train))
    mean = weighted_mean(table, weights)
    values, axes = principal_axes(table, weights, mean)
    return Modes(mean, axes[:, :n_modes], values[:n_modes] / values.sum())


def component_rows(cohort: Cohort) -> np.ndarray:
    """Returns the rows that components are made of: train rows; all of them where there are none, as they see no group."""
    train = cohort.split_rows("train")
    return train if len(train) else np.arange(len(cohort))


def compare_modes(
    cohort: Cohort,
    vectors: np.ndarray,
    *,
    attributes: Sequence[Attribute] | None = None,
    n_modes: int = N_MODES,
    films: Literal["mean", "one"] = "one",
    seed: int = 0,
) -> list[dict]:
    """Tests each group against the others, and positives against negatives of each finding, on the leading modes.

    Test rows only, and each patient once. A mean over many films varies less than one film, so that with `films="mean"` groups
    that differ in films per patient alone are told apart once there are thousands of patients; `films="one"` does not.

    Args:
        cohort: attributes, findings and split.
        vectors: `[n, d]`, one per row of the cohort.
        attributes: default, the cohort's.
        n_modes: how many modes.
        films: a patient is the mean of its films, or one of them (of those with the patient's own group), drawn by the seed.
        seed: of that draw.

    Returns:
        Rows of `modes.csv`. `n` counts the patients of both sides, `n_patients` those of the group. `p_adjusted`: Benjamini and
        Yekutieli over all tests of this call, whatever their dependence (Annals of Statistics 2001). NaN where a side has fewer
        than two patients.
    """
    from scipy import stats

    train, test = component_rows(cohort), cohort.split_rows("test")
    if len(train) < 2 or len(test) == 0:
        return []
    modes = leading_modes(vectors, train, n_modes=n_modes)
    points = modes.of(VectorTable.of(vectors)[test])
    patient = cohort.table["patient_id"].to_numpy(object).astype(str)
    _, numbers = np.unique(patient[test], return_inverse=True)
    means = mean_of_patients(points, numbers)
    rows = []
    for grouping in groupings(cohort, attributes):
        codes = grouping.of_patients(test, numbers)
        placed = means if films == "mean" else points[_one_film(grouping.codes[test], codes, numbers, seed)]
        for code, group in enumerate(grouping.groups):
            if group == "negative" and grouping.kind == "label":
                continue  # the same test as positive
            own, others = placed[codes == code], placed[(codes >= 0) & (codes != code)]
            for mode in range(placed.shape[1]):
                is_enough = min(len(own), len(others)) >= FEWEST_PATIENTS
                found = stats.ks_2samp(own[:, mode], others[:, mode]) if is_enough else None
                rows.append(
                    {
                        "kind": grouping.kind, "by": grouping.by, "group": group, "mode": mode + 1,
                        "explained": float(modes.explained[mode]), "ks": float(found.statistic) if found else np.nan,
                        "p_value": float(found.pvalue) if found else np.nan, "p_adjusted": np.nan,
                        "n": len(own) + len(others), "n_patients": len(own),
                    }
                )  # fmt: skip
    tested = [row for row in rows if np.isfinite(row["p_value"])]
    if tested:
        adjusted = stats.false_discovery_control([row["p_value"] for row in tested], method="by")
        for row, value in zip(tested, adjusted, strict=True):
            row["p_adjusted"] = float(value)
    return rows


def mean_of_patients(points: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Returns the mean of each patient's rows, `[p, k] float64`.

    Args:
        points: `[m, k]`.
        numbers: `[m]`, number of each row's patient, 0 to p - 1, each there.
    """
    sums = np.zeros((numbers.max(initial=-1) + 1, points.shape[1]))
    np.add.at(sums, numbers, points)
    return sums / np.bincount(numbers)[:, None]


def _one_film(codes: np.ndarray, of_patients: np.ndarray, numbers: np.ndarray, seed: int) -> np.ndarray:
    """Returns a row of each patient, drawn from those that are of the patient's own group."""
    drawn = np.random.default_rng(seed).random(len(codes)) + (codes == of_patients[numbers])
    order = np.lexsort((drawn, numbers))
    is_last = np.r_[np.diff(numbers[order]) > 0, True]
    return order[is_last]
