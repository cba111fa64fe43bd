"""Tests of equal TPR, FPR and AUROC: what they find, what they leave alone, and how they are corrected for their number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import special
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportions_chisquare

from biascxr.audit.cells import measure_cells
from biascxr.audit.equality import COLUMNS, MAX_PERMUTED, equality_table
from biascxr.audit.groups import find_groups
from biascxr.config import AuditConfig
from biascxr.containers import Attribute
from biascxr.metrics import floored_score_test, resample_patients, welch_james_test

CONFIG = AuditConfig(n_replicates=50, n_permutations=499)
METRICS = ("AUROC", "TPR", "FPR")


def equality_of(predictions, config: AuditConfig = CONFIG, *, metrics=METRICS, crossings=(), seed: int = 0, weight=None):
    """Returns the table of tests; several predictions are recipes 0, 1, ..."""
    many = predictions if isinstance(predictions, list) else [predictions]
    groups = find_groups(many[0], many[0].attributes, crossings)
    resamples = resample_patients(many[0].table["patient_id"], config.n_replicates, seed=seed)
    named = {f"recipe {i}": p for i, p in enumerate(many)}
    cells = {name: measure_cells(p, groups, resamples, metrics, weight=weight) for name, p in named.items()}
    return equality_table(named, cells, groups, config, seed=seed, weight=weight)


def row_of(table: pd.DataFrame, **keys) -> pd.Series:
    for name, value in keys.items():
        table = table[table[name] == value]
    assert len(table) == 1, f"{len(table)} rows"
    return table.iloc[0]


@pytest.fixture(scope="module")
def table(random_predictions) -> pd.DataFrame:
    return equality_of(random_predictions(0))


def test_there_is_one_test_per_metric_finding_and_attribute(table):
    assert list(table) == list(COLUMNS)
    assert len(table) == 3 * 2 * 2 == len(table.drop_duplicates(["recipe", "label", "attribute", "metric"]))
    assert table["p_value"].between(0, 1).all()


@pytest.mark.parametrize("metric", ["TPR", "FPR"])
def test_with_one_image_per_patient_the_statistic_is_pearsons_chi_square(random_predictions, metric):
    predictions = random_predictions(0, patient_id=np.arange(600).astype(str))
    rows = predictions.y_true[:, 0] == (metric == "TPR")
    race = predictions.table["race"].to_numpy()
    flagged = predictions.decisions[:, 0] == 1
    hits, trials = ([np.sum(own & rows & (race == g)) for g in "ABC"] for own in (flagged, np.ones(600, bool)))
    statistic, p_value, _ = proportions_chisquare(hits, trials)
    row = row_of(equality_of(predictions), label="finding 0", attribute="race", metric=metric)
    assert (row["statistic"], row["df"], row["p_value"]) == pytest.approx((statistic, 2, p_value))
    assert (row["n_groups"], row["n_patients"]) == (3, rows.sum())
    score = floored_score_test(flagged[rows].astype(float), np.ones(rows.sum()), np.searchsorted(list("ABC"), race[rows]))
    assert row["p_score"] == pytest.approx(score.p_value)


def test_auroc_is_compared_on_the_logit_scale_by_welch_and_james(random_predictions):
    predictions = random_predictions(0)
    groups = find_groups(predictions, predictions.attributes)
    cells = measure_cells(predictions, groups, resample_patients(predictions.table["patient_id"], 50, seed=0), METRICS)
    columns = [groups.index("race", g) for g in "ABC"]
    value, error = cells.estimate("AUROC")[1, columns], cells.standard_error("AUROC")[1, columns]
    df = (cells.class_patients("AUROC")[1, columns] - 1) / 2  # half: placement values are skewed
    expected = welch_james_test(special.logit(value), error / (value * (1 - value)), df)
    row = row_of(equality_of(predictions), label="finding 1", attribute="race", metric="AUROC")
    assert (row["statistic"], row["p_value"]) == pytest.approx((expected.statistic, expected.p_value))
    assert row["test"] == "Welch-James on the logit scale" and np.isnan(row["p_permuted"])


def test_a_planted_gap_is_found_after_all_corrections(unequal_predictions):
    """Positives of C are flagged half as often; its negatives as often as others'."""
    table = equality_of(unequal_predictions(0, 600))
    for metric in ("AUROC", "TPR"):
        assert row_of(table, metric=metric)["p_adjusted"] < 0.01
    assert row_of(table, metric="FPR")["p_adjusted"] > 0.05


def test_an_adjusted_p_value_lies_between_its_own_and_bonferronis(random_predictions):
    """The 6 tests of a metric: min-P compares chi-square p-values, whose rank among permutations is Monte Carlo's."""
    for seed in (0, 1, 2):
        predictions = random_predictions(seed)
        missed = (predictions.table["sex"] == "M").to_numpy()[:, None] & (np.arange(600) % 6 == 0)[:, None]
        decisions = np.where(missed & (predictions.y_true == 1), 0, predictions.decisions).astype(np.float32)
        table = equality_of(replace(predictions, decisions=decisions), crossings=("race x sex",))
        rates = table[table["metric"] != "AUROC"]
        p = rates["p_permuted"]
        slack = 4 * np.sqrt(p * (1 - p) / 499) + 0.01
        assert len(rates) == 12 and (rates["p_min"] >= p - 1e-12).all()
        assert (rates["p_min"] <= np.minimum(1, 6 * (p + slack))).all()
        np.testing.assert_array_equal(rates["p_adjusted"], rates["p_min"])
        assert (table["p_holm"] >= table["p_score"].fillna(table["p_value"]) - 1e-12).all()


def test_the_corrections_are_statsmodels_over_the_family_of_a_metric(random_predictions):
    table = equality_of([random_predictions(0), random_predictions(0)])
    for metric in METRICS:
        own = table[table["metric"] == metric]
        score = own["p_score"] if metric != "AUROC" else own["p_value"]
        np.testing.assert_allclose(own["p_holm"], multipletests(score, method="holm")[1])
        best = own["p_permuted"] if metric != "AUROC" else own["p_value"]
        np.testing.assert_allclose(own["p_benjamini_hochberg"], multipletests(best, method="fdr_bh")[1])
    auroc = table[table["metric"] == "AUROC"]
    np.testing.assert_array_equal(auroc["p_adjusted"], auroc["p_holm"])


def test_asking_the_same_question_twice_costs_nothing(random_predictions):
    """Tests that share their permutations know that they are the same; Bonferroni would double the p-value."""
    once = random_predictions(0)
    keys = ["label", "attribute", "metric"]
    plain = equality_of(once).set_index(keys)["p_min"].dropna()
    sex = once.attributes[0]
    copied = replace(
        once,
        table=once.table.assign(sex_again=once.table["sex"]),
        attributes=(*once.attributes, replace(sex, name="sex_again")),
    )
    as_attribute = equality_of(copied).set_index(keys)["p_min"].dropna()
    np.testing.assert_array_equal(as_attribute.loc[plain.index], plain)
    as_recipe = equality_of([once, once]).set_index(keys)["p_min"].dropna()
    assert len(as_recipe) == 2 * len(plain)
    np.testing.assert_array_equal(as_recipe, plain.loc[as_recipe.index])
    twice = replace(
        once, y_true=np.tile(once.y_true, 2), scores=np.tile(once.scores, 2), decisions=np.tile(once.decisions, 2),
        label_names=("finding 0", "finding 1", "again 0", "again 1"),
    )  # fmt: skip
    as_finding = equality_of(twice).set_index(keys)["p_min"].dropna()
    np.testing.assert_array_equal(as_finding.loc[plain.index], plain)


def test_attributes_of_the_patient_are_permuted_together(unequal_predictions):
    """An attribute that is nearly another one adds little to the correction; one that is unrelated adds its full share."""
    fair = unequal_predictions(2, 300, signal=(1.5, 1.5, 1.5))
    n_patients = fair.table["patient_id"].nunique()
    rng = np.random.default_rng(0)
    race = fair.table["race"].to_numpy()[::2]
    nearly = np.where(rng.random(n_patients) < 0.03, rng.choice(["A", "B", "C"], n_patients), race)
    unrelated = rng.permutation(race)
    ratios = {}
    for name, values in (("nearly", nearly), ("unrelated", unrelated)):
        both = replace(
            fair, table=fair.table.assign(other=np.repeat(values, 2)),
            attributes=(*fair.attributes, Attribute("other", ("A", "B", "C"), True)),
        )  # fmt: skip
        table = equality_of(both, replace(CONFIG, n_permutations=2000), metrics=("TPR",))
        smallest = table.loc[table["p_permuted"].idxmin()]
        ratios[name] = smallest["p_min"] / smallest["p_permuted"]
    assert 1 <= ratios["nearly"] < 1.4
    assert 1.5 < ratios["unrelated"] <= 2.1


def test_without_permutations_the_floored_score_test_and_holm_serve(random_predictions):
    table = equality_of(random_predictions(0), replace(CONFIG, n_permutations=0))
    assert table[["p_permuted", "p_min"]].isna().all(axis=None)
    np.testing.assert_array_equal(table["p_adjusted"], table["p_holm"])
    for metric in ("TPR", "FPR"):
        own = table[table["metric"] == metric]
        np.testing.assert_allclose(own["p_holm"], multipletests(own["p_score"], method="holm")[1])
        assert set(own["test"]) == {"Donner's chi-square and the floored score test"}


def test_a_family_too_large_to_permute_is_not(random_predictions, monkeypatch):
    assert MAX_PERMUTED >= 10**8
    monkeypatch.setattr("biascxr.audit.equality.MAX_PERMUTED", 1000)
    table = equality_of(random_predictions(0))
    assert table["p_min"].isna().all() and table["p_adjusted"].notna().all()


def test_a_finding_with_few_patients_in_a_group_is_not_tested(make_predictions):
    n = 200
    rng = np.random.default_rng(2)
    sex = np.array(["F", "M"])[np.arange(n) % 2]
    y = rng.integers(0, 2, (n, 2)).astype(float)
    y[sex == "M", 0] = 0
    y[np.flatnonzero(sex == "M")[:4], 0] = 1
    table = equality_of(make_predictions(y, rng.random((n, 2)), sex=sex))
    numbers = ["statistic", "df", "p_value", "p_permuted", "p_score", "p_holm", "p_benjamini_hochberg", "p_min", "p_adjusted"]
    for metric in ("AUROC", "TPR"):
        row = row_of(table, label="finding 0", metric=metric)
        assert row[numbers].isna().all() and row["test"] == "not enough patients"
        assert (row["n_groups"], row["n_patients"]) == (1, 0)
        # Alone in its family, the other finding pays for no one.
        other = row_of(table, label="finding 1", metric=metric)
        assert other["p_holm"] == pytest.approx(other["p_value" if metric == "AUROC" else "p_score"])
    assert row_of(table, label="finding 0", metric="FPR")["p_adjusted"] <= 1


def test_patients_of_unknown_group_are_not_in_the_test(random_predictions):
    predictions = random_predictions(0)
    row = row_of(equality_of(predictions), label="finding 0", attribute="sex", metric="TPR")
    positive = (predictions.y_true[:, 0] == 1) & (predictions.table["sex"] != "unknown").to_numpy()
    assert row["n_patients"] == predictions.table["patient_id"][positive].nunique()


def test_an_attribute_that_changes_within_patients_is_tested_by_patient_and_group(make_predictions):
    """Every patient once young and once old; a gap between the ages is found, none is found where there is none."""
    rng = np.random.default_rng(0)
    n = 300
    attribute = Attribute("age_group", ("young", "old"), False)
    y = np.ones((2 * n, 1))
    y[::3] = 0
    options = {
        "attributes": (attribute,), "patient_id": np.tile(np.arange(n), 2).astype(str),
        "age_group": np.repeat(["young", "old"], n),
    }  # fmt: skip
    equal = np.tile(rng.random((n, 1)) < 0.7, (2, 1))
    unequal = rng.random((2 * n, 1)) < np.repeat([0.6, 0.8], n)[:, None]
    found = {
        name: row_of(equality_of(make_predictions(y, 0.2 + 0.6 * d, decisions=d, **options)), metric="TPR")
        for name, d in (("equal", equal), ("unequal", unequal))
    }
    assert found["unequal"]["p_adjusted"] < 0.01 and found["equal"]["p_adjusted"] > 0.05
    assert found["equal"]["n_patients"] == (y == 1).sum()  # each patient in each group is one unit


def test_weights_that_are_all_one_change_nothing(random_predictions):
    predictions = random_predictions(0)
    plain = equality_of(predictions)
    weighted = equality_of(predictions, weight=np.full(600, 0.5))  # two images each
    numbers = ["statistic", "p_value", "p_permuted", "p_score", "p_min"]
    np.testing.assert_allclose(weighted[numbers].to_numpy(float), plain[numbers].to_numpy(float), rtol=1e-9)


def test_the_same_seed_gives_the_same_table(random_predictions):
    tables = [equality_of(random_predictions(0), seed=s) for s in (1, 1, 2)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert (tables[0]["p_permuted"].dropna() != tables[2]["p_permuted"].dropna()).any()


def test_without_decisions_auroc_alone_is_tested(random_predictions):
    table = equality_of(replace(random_predictions(0), decisions=None), metrics=("AUROC",))
    assert set(table["metric"]) == {"AUROC"}


@pytest.mark.slow
def test_fair_worlds_of_unequal_prevalence_are_rejected_as_often_as_said(unequal_predictions):
    """300 worlds, 5%: one test may be rejected in 2 to 8% (Monte Carlo error 1.3%), and some test of a family in at most 8%."""
    config = replace(CONFIG, n_permutations=199)
    single: dict[str, list] = {m: [] for m in METRICS}
    family: dict[str, list] = {m: [] for m in METRICS}
    for seed in range(300):
        world = unequal_predictions(seed, 250, signal=(1.5, 1.5, 1.5), prevalence=(0.5, 0.25, 0.15))
        rng = np.random.default_rng([5, seed])
        world.table["sex"] = rng.choice(["F", "M"], 250).repeat(2)
        both = replace(world, attributes=(*world.attributes, Attribute("sex", ("F", "M"), True)))
        table = equality_of(both, config, seed=seed)
        for metric in METRICS:
            own = table[table["metric"] == metric].set_index("attribute")
            single[metric].append(own.loc["race", "p_permuted" if metric != "AUROC" else "p_value"] < 0.05)
            family[metric].append((own["p_adjusted"] < 0.05).any())
    for metric in METRICS:
        assert 0.02 <= np.mean(single[metric]) <= 0.08, (metric, np.mean(single[metric]))
        assert np.mean(family[metric]) <= 0.08, (metric, np.mean(family[metric]))
