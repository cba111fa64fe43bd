"""Strata hold rows that are alike; what is not known is left out, and an attribute is no stratum of itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biascxr.containers import Attribute, Cohort
from biascxr.errors import InputError
from biascxr.leakage.strata import MIN_ROWS, strata_of, strata_there_are

SEX, VIEW = Attribute("sex", ("F", "M"), True), Attribute("view", ("AP", "PA"), False)


def cohort(labels: np.ndarray, **columns) -> Cohort:
    n = len(labels)
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)], "study_id": "s", "patient_id": [f"p{i}" for i in range(n)],
            "path": "x.jpg", "view": "PA", "age": 50.0, "split": "test", "sex": np.resize(["F", "M"], n), **columns,
        }
    )  # fmt: skip
    names = tuple(f"finding {i}" for i in range(labels.shape[1]))
    return Cohort(table, labels.astype(np.float32), names, (SEX,), "generic", "image", ".")


def random_labels(n: int = 2000, prevalence=(0.03, 0.4, 0.1, 0.001)) -> np.ndarray:
    return (np.random.default_rng(0).random((n, len(prevalence))) < prevalence).astype(np.float32)


def test_there_are_the_strata_with_two_known_values_and_never_the_attribute_itself():
    made = cohort(random_labels(), view=np.resize(["PA", "AP"], 2000), portable=np.resize(["fixed", "unknown"], 2000))
    assert strata_there_are(made, Attribute("race", ("A", "B"), True)) == ("label", "view", "sex")
    assert strata_there_are(made, SEX) == ("label", "view")
    assert strata_there_are(made, VIEW) == ("label", "sex")
    aged = cohort(np.zeros((40, 1)), age_group=np.resize(["20-40", "40-60"], 40))
    assert strata_there_are(aged, SEX) == ("age_group",)
    assert strata_there_are(aged, Attribute("age_group", ("20-40", "40-60"), False)) == ("sex",)


def test_a_column_parts_rows_by_its_known_values_in_the_order_of_the_rows():
    made = cohort(np.zeros((6, 1)), view=["PA", "AP", "unknown", None, "", "PA"])
    assert strata_of(made, "view", np.array([5, 1, 2, 3, 4, 0])).tolist() == [1, 0, -1, -1, -1, 1]


def test_frequent_findings_are_alike_within_a_stratum_and_no_stratum_is_small():
    labels = random_labels()
    rows = np.random.default_rng(1).permutation(2000)[:1500]
    strata = strata_of(cohort(labels), "label", rows)
    assert strata.min() == 0 and np.bincount(strata).min() >= MIN_ROWS
    for finding in (1, 2):  # 40 % and 10 %
        for stratum in np.unique(strata):
            assert len(np.unique(labels[rows][strata == stratum, finding])) == 1
    rare = labels[rows, 3] == 1
    assert 0 < rare.sum() < MIN_ROWS  # too few: told apart nowhere
    joint = pd.DataFrame(labels[rows]).groupby(strata)[3].mean()
    assert (joint < 1).all()
    assert len(np.unique(strata)) == 5  # 40 % x 10 %, and the 3 % where that leaves 20 rows: among the largest four


def test_an_unknown_label_is_a_value_of_its_own_and_a_row_without_any_is_left_out():
    labels = np.zeros((120, 2))
    labels[:40, 0], labels[40:80, 0], labels[80:] = 1, np.nan, 0
    labels[110:] = np.nan
    strata = strata_of(cohort(labels), "label", np.arange(120))
    assert (strata[110:] == -1).all()
    assert [len(set(strata[part])) for part in (slice(0, 40), slice(40, 80), slice(80, 110))] == [1, 1, 1]
    assert len({strata[0], strata[40], strata[80]}) == 3


def test_unknown_strata_get_the_names_there_are():
    with pytest.raises(InputError, match=r"Unknown stratum 'veiw'\. Did you mean 'view'\? Known: label, sex, view"):
        strata_of(cohort(np.zeros((4, 1))), "veiw", np.arange(4))
    with pytest.raises(InputError, match="Unknown stratum 'portable'"):
        strata_of(cohort(np.zeros((4, 1))), "portable", np.arange(4))
