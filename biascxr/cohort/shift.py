"""How groups differ in what is no fault of a classifier: age, view, and how often each finding is labelled positive.

Such differences move PPV, calibration and, through severity and case mix, TPR and AUROC too; they are to be known before a
gap between groups is read.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from biascxr.containers import Attribute, Cohort
from biascxr.metrics import adjust_p_values, donner_test, welch_james_test

AGE, AP_VIEW = "age", "AP view"
# An attribute that is made from the variable differs in it by construction.
BY_CONSTRUCTION = {("age_group", AGE), ("view", AP_VIEW)}
# Below five patients expected on either side (Cochran), the chi-square distribution does not hold.
MIN_EXPECTED = 5
COLUMNS = (
    "attribute", "variable", "unit", "group", "n", "n_patients", "n_positive_patients", "n_negative_patients", "value", "smd",
    "is_tested", "explained", "statistic", "df", "p", "p_adjusted",
)  # fmt: skip


def group_shift(cohort: Cohort, *, min_patients: int = 25) -> pd.DataFrame:
    """Compares the known groups of each attribute in age, share of AP views and label rates.

    Age is a patient's at the first image, tested by Welch's analysis of variance. AP views (among AP and PA) and labels (after
    policies) are shares of images, tested by Donner's chi-square, which keeps a patient's images together. A patient who
    changes groups, as with age groups, counts as one patient in each: that test is then somewhat cautious.

    Args:
        cohort: the rows to describe.
        min_patients: groups with fewer take no part in the test; so does, for shares, a group of which fewer than five
            patients are expected to be positive, or negative, if all groups were equal. They keep their values.

    Returns:
        One row per attribute, variable and group, full counts. `n` counts what `unit` says; `n_positive_patients` and
        `n_negative_patients` those with an image of the kind (NaN for age); `value` is the mean age in years or the share;
        `smd` the standardised difference from everyone else (all other known groups). Of the test over the groups where
        `is_tested`, and so alike in all rows of an attribute and variable: `explained`, the share of the variable's variance
        that lies between groups (eta squared); `statistic`, `df`, `p` and `p_adjusted`, Holm's over all tests. NaN where
        fewer than two groups can be tested.

    Reference: Welch, Biometrika 1951; Donner, Statistics in Medicine 1989; Austin, Statistics in Medicine 2009 (SMD).
    """
    patient = pd.factorize(cohort.table["patient_id"])[0]
    first = first_images(cohort.table)
    ages = cohort.table["age"].to_numpy(np.float64)[first]
    shares = _shares(cohort)
    rows = []
    for attribute in cohort.attributes:
        code = pd.Index(attribute.groups).get_indexer(cohort.table[attribute.name])
        slot_of_row, slots = _patients_in_groups(patient, code, len(attribute.groups))
        if (attribute.name, AGE) not in BY_CONSTRUCTION:
            rows += _rows(attribute, AGE, "patients", _compare_ages(ages, code[first], attribute, min_patients))
        for name, values in shares.items():
            if (attribute.name, name) not in BY_CONSTRUCTION:
                compared = _compare_shares(values, slot_of_row, slots, attribute, min_patients)
                rows += _rows(attribute, name, "images", compared)
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    tests = table.drop_duplicates(["attribute", "variable"])[["attribute", "variable", "p"]]
    tests = tests.assign(p_adjusted=adjust_p_values(tests["p"].to_numpy(np.float64), "holm")).drop(columns="p")
    return table.merge(tests, on=["attribute", "variable"], how="left")


def first_images(table: pd.DataFrame) -> np.ndarray:
    """Returns the row of each patient's first image, `[m] int64`, by age; patients without a known age have none."""
    known = np.flatnonzero(table["age"].notna())
    by_age = known[np.argsort(table["age"].to_numpy(np.float64)[known], kind="stable")]
    return by_age[~table["patient_id"].iloc[by_age].duplicated().to_numpy()]


def differences_from_others(mean: np.ndarray, variance: np.ndarray, n: np.ndarray, *, ddof: int) -> np.ndarray:
    """Standardised difference of each group from all other groups together.

    `(m_g - m_o) / sqrt((s_g^2 + s_o^2) / 2)`: in units of spread, it does not grow with the number of patients.

    Args:
        mean: `[k]`; a share, for what is yes or no.
        variance: `[k]`, with `n - ddof` in its denominator; `p (1 - p)` of a share.
        n: `[k]` numbers behind them.
        ddof: 1 for measurements, 0 for shares.

    Returns:
        `[k]`; NaN where a side is empty or neither side varies.
    """
    mean, variance = (np.where(n > ddof, part, 0.0) for part in (mean, variance))
    n = np.where(n > ddof, n, 0)
    n_others = n.sum() - n
    squares = np.maximum(n - ddof, 0) * variance + n * mean**2
    with np.errstate(divide="ignore", invalid="ignore"):
        others = ((n * mean).sum() - n * mean) / n_others
        others_variance = (squares.sum() - squares - n_others * others**2) / (n_others - ddof)
        spread = np.sqrt((variance + np.maximum(others_variance, 0.0)) / 2)
        return np.where((n > 0) & (n_others > ddof) & (spread > 1e-6), (mean - others) / spread, np.nan)


def _shares(cohort: Cohort) -> dict[str, np.ndarray]:
    """Returns what is yes or no per image, `[n]` in {0, 1, NaN}, by name."""
    view = cohort.table["view"]
    values = {AP_VIEW: np.where(view.isin(["AP", "PA"]), view == "AP", np.nan)} if view.isin(["AP", "PA"]).any() else {}
    return values | {name: cohort.labels[:, i].astype(np.float64) for i, name in enumerate(cohort.label_names)}


def _patients_in_groups(patient: np.ndarray, code: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the pairs of patient and known group: of each row (-1 where the group is unknown), and the group of each."""
    known = code >= 0
    pairs, at = np.unique(patient[known].astype(np.int64) * k + code[known], return_inverse=True)
    of_row = np.full(len(code), -1, np.int64)
    of_row[known] = at
    return of_row, pairs % k


def _compare_ages(ages: np.ndarray, code: np.ndarray, attribute: Attribute, min_patients: int) -> dict:
    k = len(attribute.groups)
    ages, code = ages[code >= 0], code[code >= 0]
    n = np.bincount(code, minlength=k)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(code, ages, k) / n
        variance = np.bincount(code, (ages - mean[code]) ** 2, k) / (n - 1)
        tested = n >= max(min_patients, 2)
        result = welch_james_test(mean[tested], np.sqrt(variance / n)[tested], n[tested] - 1)
    none = np.full(k, np.nan)
    return {
        "n": n, "n_patients": n, "n_positive_patients": none, "n_negative_patients": none, "value": mean,
        "smd": differences_from_others(mean, variance, n, ddof=1), "is_tested": tested,
        "explained": _explained(mean, variance * (n - 1), n, tested), "result": result,
    }  # fmt: skip


def _compare_shares(
    values: np.ndarray, slot_of_row: np.ndarray, slots: np.ndarray, attribute: Attribute, min_patients: int
) -> dict:
    k = len(attribute.groups)
    used = (slot_of_row >= 0) & ~np.isnan(values)
    trials = np.bincount(slot_of_row[used], minlength=len(slots))
    hits = np.bincount(slot_of_row[used], values[used], len(slots))
    present = trials > 0
    trials, hits, group = trials[present], hits[present], slots[present]
    n, n_patients = np.bincount(group, trials, k).astype(int), np.bincount(group, minlength=k)
    positive, negative = (np.bincount(group[which], minlength=k) for which in (hits > 0, hits < trials))
    # By what is expected, not by what is found: a group is not left out for being low.
    rarer = min(positive.sum(), negative.sum()) / max(n_patients.sum(), 1)
    tested = (n_patients >= min_patients) & (n_patients * rarer >= MIN_EXPECTED)
    result = donner_test(hits, trials, np.where(tested[group], group, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.bincount(group, hits, k) / n
    variance = rate * (1 - rate)
    return {
        "n": n, "n_patients": n_patients, "n_positive_patients": positive, "n_negative_patients": negative, "value": rate,
        "smd": differences_from_others(rate, variance, n, ddof=0), "is_tested": tested,
        "explained": _explained(rate, variance * n, n, tested), "result": result,
    }  # fmt: skip


def _explained(mean: np.ndarray, within: np.ndarray, n: np.ndarray, tested: np.ndarray) -> float:
    """Share of the sum of squares that lies between the tested groups."""
    if tested.sum() < 2:
        return float("nan")
    mean, within, n = mean[tested], within[tested], n[tested]
    between = (n * (mean - n @ mean / n.sum()) ** 2).sum()
    return float(between / (between + within.sum())) if between + within.sum() > 0 else float("nan")


def _rows(attribute: Attribute, variable: str, unit: str, compared: dict) -> list[dict]:
    result = compared["result"]
    of_test = {"explained": compared["explained"], "statistic": result.statistic, "df": result.df, "p": result.p_value}
    own = [name for name in COLUMNS if name in compared and name != "explained"]
    return [
        {"attribute": attribute.name, "variable": variable, "unit": unit, "group": group}
        | {name: compared[name][i] for name in own}
        | of_test
        for i, group in enumerate(attribute.groups)
    ]
