"""The stage as a whole: a planted signal is read, a shuffled or an absent one is not, and a verdict follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from biascxr.config import LeakageConfig
from biascxr.containers import Attribute, Predictions
from biascxr.errors import InputError
from biascxr.leakage.build import attributes_to_read, measure_leakage, pooled
from biascxr.leakage.dependence import LastLayer
from biascxr.leakage.recipes import ScoredModel
from biascxr.leakage.result import LeakageResult
from biascxr.report.leakage_section import reading_table
from biascxr.report.leakage_words import answer

PROBED = ("knn", "logistic")
SHORT = LeakageConfig(n_shuffles=3)


@pytest.fixture(scope="module")
def result(made_up) -> LeakageResult:
    return measure_leakage(*made_up(), SHORT, seed=0)


def row(result: LeakageResult, attribute: str, probe: str, group: str = "macro", control: str = "none") -> pd.Series:
    own = result.readings.query("representation == 'vectors' and attribute == @attribute and probe == @probe")
    found = own[(own["group"] == group) & (own["control"] == control)]
    assert len(found) == 1
    return found.iloc[0]


def scored(cohort, vectors: np.ndarray, *, use: float) -> ScoredModel:
    """A head that takes the finding's column, and `use` times the race's."""
    test = cohort.split_rows("test")
    logit = 1.5 * vectors[test, 1] - 1.5 + use * vectors[test, 0]
    table = cohort.table.iloc[test].assign(recipe="head", seed=0, fold=0).reset_index(drop=True)
    scores = special.expit(logit)[:, None]
    return ScoredModel("head", Predictions(table, cohort.labels[test], scores, cohort.label_names, cohort.attributes))


@pytest.mark.parametrize("probe", PROBED)
def test_a_planted_signal_is_found_above_its_shuffled_control(result, probe):
    real, control = row(result, "race", probe), row(result, "race", probe, control="shuffled")
    assert real["auroc"] > 0.75 and real["low"] > control["high"] and real["p_value"] < 0.01
    assert row(result, "race", probe, "C")["auroc"] > 0.8


@pytest.mark.parametrize("probe", PROBED)
def test_an_absent_signal_is_not_found(result, probe):
    real = row(result, "sex", probe)
    assert real["low"] < 0.5 < real["high"] and real["p_value"] > 0.05


@pytest.mark.parametrize("probe", PROBED)
@pytest.mark.parametrize("attribute", ["race", "sex"])
def test_the_shuffled_control_stands_around_one_half(result, attribute, probe):
    control = row(result, attribute, probe, control="shuffled")
    assert abs(control["auroc"] - 0.5) < 0.07 and control["low"] <= control["auroc"] <= control["high"]


def test_what_is_known_without_the_film_reads_nothing_here_and_strata_change_nothing(result):
    real, merely = row(result, "race", "logistic"), row(result, "race", "logistic", control="covariates")
    assert merely["low"] < 0.5 < merely["high"]
    for what in ("label", "view", "sex"):
        assert row(result, "race", "logistic", control=f"within_{what}")["auroc"] == pytest.approx(real["auroc"], abs=0.03)


def test_the_recorded_fact_that_goes_with_an_attribute_is_found_by_name(made_up):
    """The view follows the finding in four films of five, as where the ill are imaged lying down: that explains the reading."""
    cohort, embeddings = made_up(3)
    follows = np.random.default_rng(0).random(len(cohort)) < 0.8
    view = np.where((cohort.labels[:, 0] == 1) == follows, "AP", "PA")
    confounded = replace(cohort, table=cohort.table.assign(view=view))
    found = measure_leakage(confounded, embeddings, LeakageConfig(probes=("knn",), leakage_attributes=("view",)), seed=0)
    facts = found.readings[found.readings["control"].str.startswith("fact:")].set_index("control")
    assert set(facts.index) == {"fact:age", "fact:sex", "fact:x"} and set(facts["probe"]) == {"logistic"}
    test = cohort.split_rows("test")
    direct = roc_auc_score(view[test] == "AP", cohort.labels[test, 0])
    assert facts.loc["fact:x", "auroc"] == pytest.approx(direct, abs=1e-12) and facts.loc["fact:x", "low"] > 0.7
    assert facts.loc["fact:age", "low"] < 0.5 and facts.loc["fact:sex", "low"] < 0.5
    # Said in words, and neither a probe in the table nor a row among the controls.
    assert "Highest of these facts by themselves: x 0.7" in answer(found, "view").merely
    assert {row["probe"] for row in reading_table(found)} == {"KNN"}


def test_one_vs_rest_aurocs_are_scikit_learns(made_up, result):
    cohort, embeddings = made_up()
    known = (cohort.table["race"] != "unknown").to_numpy()
    train, test = ((cohort.table["split"] == s).to_numpy() & known for s in ("train", "test"))
    every = (cohort.table["split"] == "train").to_numpy()
    scaled = (embeddings.vectors - embeddings.vectors[every].mean(0)) / embeddings.vectors[every].std(0)
    race = cohort.table["race"].to_numpy(object).astype(str)
    own = row(result, "race", "knn")
    peer = KNeighborsClassifier(int(own["setting"].removeprefix("k = "))).fit(scaled[train], race[train])
    scores = peer.predict_proba(scaled[test])
    aurocs = [roc_auc_score(race[test] == g, scores[:, i]) for i, g in enumerate("ABC")]
    for group, value in zip("ABC", aurocs, strict=True):
        assert row(result, "race", "knn", group)["auroc"] == pytest.approx(value, abs=1e-3)
    assert own["auroc"] == pytest.approx(np.mean(aurocs), abs=1e-3)


def test_calibration_rows_and_rows_without_the_attribute_are_not_used(made_up, result):
    cohort, embeddings = made_up()
    table = cohort.table.assign(split=cohort.table["split"].replace("validation", "calibration"))
    moved = embeddings.vectors.copy()
    moved[(table["split"] == "calibration").to_numpy()] = 1e6
    one = replace(SHORT, probes=("knn",), leakage_attributes=("race",))
    first, again = (
        measure_leakage(replace(cohort, table=table), replace(embeddings, vectors=v), one, seed=0).readings
        for v in (embeddings.vectors, moved)
    )
    pd.testing.assert_frame_equal(first, again)
    in_test = cohort.table[cohort.table["split"] == "test"]
    found = row(result, "race", "logistic", "B")
    assert found["n"] == (in_test["race"] != "unknown").sum() and found["n_group"] == (in_test["race"] == "B").sum()


@pytest.mark.parametrize("probe", PROBED)
def test_nothing_is_read_where_only_patients_can_be_recognised(made_up, probe):
    """Every patient's images look alike here. Patients never straddle the split, so recognising one reads nothing."""
    config = LeakageConfig(probes=(probe,), leakage_attributes=("race", "sex"), n_shuffles=1)
    made = measure_leakage(*made_up(3, strength=0.0, identity=5.0), config, seed=0)
    for attribute in ("race", "sex"):
        real = row(made, attribute, probe)
        assert real["low"] < 0.5 < real["high"]


def test_a_head_that_uses_the_attribute_is_told_from_one_that_does_not(made_up):
    cohort, embeddings = made_up(n=24_000)
    config = LeakageConfig(probes=("logistic",), leakage_attributes=("race",), n_shuffles=1)
    verdicts = {}
    for use in (0.0, 1.0):
        head = scored(cohort, embeddings.vectors, use=use)
        made = measure_leakage(cohort, embeddings, config, models=[head], seed=0)
        assert set(made.dependence["evidence"]) == {"given_label", "given_label_and_covariates"}
        verdicts[use] = made.verdicts.iloc[0]["verdict"]
    assert verdicts == {0.0: "encoded, no dependence found", 1.0: "encoded, predictions depend on it"}


def test_the_last_layer_of_a_head_is_opened_on_the_rows_that_it_is_judged_on(made_up):
    cohort, embeddings = made_up()
    # Of two groups one direction is erased; of three a second one, which here would be noise.
    two = Attribute("race", ("A", "B"), True)
    race = cohort.table["race"].replace("C", "unknown")
    cohort = replace(cohort, table=cohort.table.assign(race=race), attributes=(two, cohort.attributes[1]))
    config = LeakageConfig(probes=("logistic",), leakage_attributes=("race",), n_shuffles=1, leakage_folds=3)
    changes = {}
    for use in (0.0, 1.0):
        layer = LastLayer(None, np.array([[use], [1.5], [0], [0], [0], [0]]), np.zeros(1))
        head = replace(scored(cohort, embeddings.vectors, use=use), vectors=embeddings.vectors, layer=layer)
        made = measure_leakage(cohort, embeddings, config, models=[head], seed=0)
        rows = made.dependence.query("evidence == 'frozen_head' and measure == 'rms_logit_change' and label == 'macro'")
        changes[use] = rows.iloc[0]["value"]
    assert changes[1.0] > 0.5 and changes[0.0] < 0.15
    own = made.readings.query("representation == 'head' and group == 'macro'").iloc[0]
    in_test = (cohort.table["split"] == "test") & (cohort.table["race"] != "unknown")
    assert own["n"] == in_test.sum(), "a head's vectors are read on its own split, whatever the folds"


def test_a_feature_map_is_read_as_its_mean_over_places(made_up):
    _, embeddings = made_up()
    maps = np.random.default_rng(0).normal(size=(len(embeddings), 2, 2, 6)).astype(np.float32)
    maps += embeddings.vectors[:, None, None, :] - maps.mean(axis=(1, 2), keepdims=True)
    flat = replace(embeddings, vectors=maps.reshape(len(maps), -1), card={"map_shape": [2, 2, 6]})
    np.testing.assert_allclose(pooled(flat).vectors, embeddings.vectors, atol=1e-5)
    assert pooled(embeddings) is embeddings


def test_modes_are_of_the_attributes_that_are_read_the_view_among_them(made_up, result):
    assert set(result.modes.query("kind == 'attribute'")["by"]) == {"race", "sex", "view"}
    one = measure_leakage(*made_up(), replace(SHORT, leakage_attributes=("sex",), probes=("logistic",)), seed=0)
    assert set(one.modes.query("kind == 'attribute'")["by"]) == {"sex"}


def test_without_a_model_a_verdict_says_that_dependence_was_not_measured(result):
    own = result.verdicts.set_index("attribute")
    assert own.loc["race", "verdict"] == "inconclusive" and "not measured" in own.loc["race", "reason"]


def test_the_view_is_read_too_and_single_attributes_can_be_chosen(made_up):
    cohort, _ = made_up()
    assert [a.name for a in attributes_to_read(cohort)] == ["race", "sex", "view"]
    assert [a.name for a in attributes_to_read(cohort, ("view", "sex"))] == ["view", "sex"]
    with pytest.raises(InputError, match="race"):
        attributes_to_read(cohort, ("rase",))


def test_over_folds_every_row_is_judged_and_the_p_value_is_of_refits(made_up):
    config = LeakageConfig(probes=("logistic",), leakage_attributes=("race", "sex"), leakage_folds=4)
    made = measure_leakage(*made_up(), config, seed=0)
    race, sex = (row(made, attribute, "logistic") for attribute in ("race", "sex"))
    assert sex["n"] == 900 and sex["p_value"] > 0.05
    assert race["p_value"] == pytest.approx(1 / 61)  # 20 refits per group


def test_curves_end_in_the_reading_itself(made_up):
    config = LeakageConfig(probes=("logistic",), leakage_attributes=("race",), n_shuffles=1, curves=True)
    made = measure_leakage(*made_up(), config, seed=0)
    for kind in ("training patients", "components"):
        own = made.curves[made.curves["kind"] == kind]
        assert len(own) >= 2 and own.iloc[-1]["auroc"] == pytest.approx(row(made, "race", "logistic")["auroc"], abs=5e-3)


@pytest.mark.parametrize("asked", [{"where": ("blocks",)}, {"attribute_encoders": ("race.keras",)}])
def test_films_are_needed_for_what_looks_at_films(made_up, asked):
    config = LeakageConfig(probes=("logistic",), leakage_attributes=("sex",), n_shuffles=1, **asked)
    with pytest.raises(InputError, match="vectors only"):
        measure_leakage(*made_up(), config, seed=0)


def test_tables_come_back_as_they_were_written(result, tmp_path):
    result.save(tmp_path)
    again = LeakageResult.load(tmp_path)
    for name in ("readings", "verdicts", "modes", "panels", "dependence", "curves"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(result, name), check_dtype=False)


def test_same_seed_same_tables_and_another_seed_other_p_values(made_up, result):
    again, other = (measure_leakage(*made_up(), SHORT, seed=seed).readings for seed in (0, 1))
    pd.testing.assert_frame_equal(result.readings, again)
    assert (again["auroc"] != other["auroc"]).any()


def test_predictions_may_come_in_any_order(made_up):
    cohort, embeddings = made_up()
    layer = LastLayer(None, np.array([[1.0], [1.5], [0], [0], [0], [0]]), np.zeros(1))
    head = replace(scored(cohort, embeddings.vectors, use=1.0), vectors=embeddings.vectors, layer=layer)
    order = np.random.default_rng(0).permutation(len(head.predictions.table))
    config = LeakageConfig(probes=("logistic",), leakage_attributes=("race",), n_shuffles=1)
    values = [
        measure_leakage(cohort, embeddings, config, models=[model], seed=0).dependence.set_index(
            ["evidence", "measure", "group"]
        )
        for model in (head, replace(head, predictions=head.predictions.rows(order)))
    ]
    pd.testing.assert_series_equal(values[0]["value"], values[1]["value"], rtol=1e-6)


def test_a_facts_row_says_how_few_share_a_value_of_it(made_up):
    """The report hides what fewer than ten patients of a group share; it must be told."""
    cohort, embeddings = made_up(5)
    is_test, is_a = cohort.table["split"] == "test", cohort.table["race"] == "A"
    few = cohort.table.loc[is_test & is_a, "patient_id"].unique()[:4]
    elsewhere = cohort.table.loc[is_test & (cohort.table["race"] == "B"), "patient_id"].unique()[:30]
    rare = np.zeros((len(cohort), 1), np.float32)
    rare[cohort.table["patient_id"].isin([*few, *elsewhere])] = 1
    rare[:30:3] = 1  # train rows too, or there is nothing to learn
    config = LeakageConfig(probes=("logistic",), leakage_attributes=("race",), n_shuffles=1)
    found = measure_leakage(replace(cohort, labels=rare), embeddings, config, seed=0).readings.set_index("control")
    table = cohort.table.assign(rare=rare[:, 0])[is_test & (cohort.table["race"] != "unknown")]
    assert found.loc["fact:x", "n_group_patients"] == table.groupby(["race", "rare"])["patient_id"].nunique().min() == 4
    assert found.loc["fact:age", "n_group_patients"] == found.loc["fact:age", "n_patients"] > 50
