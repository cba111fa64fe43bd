"""Heads trained anew on erased vectors: what marginal erasure takes too much, and what it leaves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biascxr.containers import Attribute
from biascxr.errors import InputError
from biascxr.leakage.dependence import retrained
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.training.base import NetworkSettings
from biascxr.mitigation.training.linear import LinearSettings
from biascxr.phantom.leakage_cases import draw_case

SEX = Attribute("sex", ("F", "M"), True)
QUICK = {
    "linear": LinearSettings(learning_rate=0.03, batch_size=256, max_epochs=10, patience=5),
    "network": NetworkSettings(hidden=(32,), dropout=0.0, learning_rate=0.01, batch_size=256, max_epochs=10, patience=5),
}


def splits(name: str, *, n_patients: int = 1500, seed: int = 0) -> list[SplitData]:
    case = draw_case(name, n_patients=n_patients, seed=seed)
    made = []
    for split in ("train", "validation", "test"):
        rows = case.rows(split)
        table = pd.DataFrame({"sex": np.array(["F", "M"], object)[case.codes[rows]]})
        table.iloc[::20] = "unknown"
        ids = rows.astype(str)
        made.append(SplitData(split, case.vectors[rows], case.labels[rows], table, case.patient_id[rows], ("a", "b", "c"), ids))
    return made


def at(table: pd.DataFrame, evidence: str, measure: str) -> pd.Series:
    found = table[(table["evidence"] == evidence) & (table["measure"] == measure) & (table["label"] == "macro")]
    assert len(found) == 1
    return found.iloc[0]


def of_unequal_prevalence() -> pd.DataFrame:
    parts = splits("unequal_prevalence")
    return retrained(*parts, attribute=SEX, forms=("linear",), probes=("logistic",), seed=0, **QUICK)


@pytest.fixture(scope="module")
def unequal():
    return of_unequal_prevalence()


def test_marginal_erasure_costs_disease_signal_where_prevalence_differs_and_conditional_does_not(unequal):
    marginal, conditional = (at(unequal, "retrained_linear", f"auroc_change_{e}") for e in ("marginal", "conditional"))
    assert marginal["value"] < conditional["value"] - 0.003
    assert abs(conditional["value"]) < 0.01
    assert set(unequal["label"]) == {"a", "b", "c", "macro"} and (unequal["low"] <= unequal["value"]).all()


def test_what_a_line_reads_is_gone_for_a_line_and_the_difference_between_groups_with_it(unequal):
    before, after = (at(unequal, "retrained_linear", f"readable_logistic_{e}") for e in ("before", "marginal"))
    assert before["low"] > 0.75 and after["high"] < 0.6
    for erasure in ("marginal", "conditional"):  # a trained head had used it, as prior knowledge of the finding
        assert at(unequal, "retrained_linear", f"group_difference_change_{erasure}")["high"] < -0.05


@pytest.mark.slow
def test_same_seed_same_table(unequal):
    pd.testing.assert_frame_equal(unequal, of_unequal_prevalence())


def test_what_is_coded_by_a_product_stays_readable_and_in_use_after_linear_erasure():
    parts = splits("used_nonlinearly")
    # Labels follow the attribute, so that a network has a reason to use it.
    rng = np.random.default_rng(0)
    for part in parts:
        is_m = (part.attributes["sex"] == "M").to_numpy()
        part.labels[:] = np.where((rng.random(len(is_m)) < 0.4)[:, None], is_m[:, None], part.labels)
    table = retrained(*parts, attribute=SEX, forms=("mlp",), probes=("logistic", "knn"), seed=0, **QUICK)
    for erasure in ("before", "marginal", "conditional"):
        assert at(table, "retrained_mlp", f"readable_logistic_{erasure}")["value"] < 0.56
        assert at(table, "retrained_mlp", f"readable_knn_{erasure}")["low"] > 0.65
    shrunk = at(table, "retrained_mlp", "group_difference_change_marginal")
    assert abs(shrunk["value"]) < 0.3  # in deviations of a logit; the network goes on using it


def test_errors_name_what_is_wrong():
    parts = splits("absent", n_patients=60)
    with pytest.raises(InputError, match=r"Unknown form of head 'mpl'\. Did you mean 'mlp'"):
        retrained(*parts, attribute=SEX, forms=("mpl",), seed=0)
    with pytest.raises(InputError, match="attribute must be one of the rows'"):
        retrained(*parts, attribute=Attribute("race", ("A", "B"), True), seed=0)
