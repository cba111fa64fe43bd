"""xAUC of two groups is that of the pure function, in both orders, and its interval holds the truth."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from scipy import stats

from biascxr.audit.cross_auroc import COLUMNS, cross_auroc_table
from biascxr.audit.groups import find_groups
from biascxr.config import AuditConfig
from biascxr.containers import Attribute
from biascxr.metrics import clustered_auroc, cross_auroc

SEX = Attribute("sex", ("F", "M"), True)
RACE = Attribute("race", ("A", "B", "C"), True)


def table_of(predictions, attributes=(SEX, RACE), crossings=(), **options):
    return cross_auroc_table(predictions, find_groups(predictions, attributes, crossings), AuditConfig(), **options)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_each_ordered_pair_of_groups_has_the_value_of_the_function(random_predictions, is_weighted):
    predictions = random_predictions(1)
    weight = np.random.default_rng(1).choice([0, 0.5, 1], 600) if is_weighted else None
    table = table_of(predictions, weight=weight)
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 2 * (2 * 1 + 3 * 2)
    assert (table["positives_of"] != table["negatives_of"]).all()
    for row in table.itertuples():
        label = predictions.label_names.index(row.label)
        y, score = predictions.y_true[:, label], predictions.scores[:, label]
        values = predictions.table[row.attribute].to_numpy()
        a, b = values == row.positives_of, values == row.negatives_of
        assert row.value == pytest.approx(cross_auroc(y, score, a, b, weight), abs=1e-12)
        assert row.low < row.value < row.high
        rows = (a & (y == 1)) | (b & (y == 0))
        rows &= True if weight is None else weight > 0
        patient = predictions.table["patient_id"].to_numpy()
        assert row.n_class_patients == min(len(set(patient[rows & (y == value)])) for value in (0, 1))


def test_the_pairs_of_a_crossing_are_left_out(random_predictions):
    predictions = random_predictions(2)
    assert table_of(predictions, crossings=("sex x race",)).equals(table_of(predictions))


def test_the_other_order_asks_another_question(make_predictions):
    """Group M scores higher throughout: its positives beat all negatives of F, while those of F lose to M's negatives."""
    y = np.tile([[0], [1]], (40, 1))
    is_m = np.repeat([False, True], 40)
    scores = 0.1 + 0.1 * y[:, 0] + 0.5 * is_m + np.linspace(0, 0.05, 80)
    predictions = make_predictions(y, scores[:, None], attributes=(SEX,), sex=np.where(is_m, "M", "F"))
    table = table_of(predictions, (SEX,)).set_index(["positives_of", "negatives_of"])
    assert table.loc[("M", "F"), "value"] == 1 and table.loc[("F", "M"), "value"] == 0
    assert table.loc[("M", "F"), "low"] < 1 and table.loc[("F", "M"), "high"] > 0  # 40 patients prove no certainty


def test_the_images_of_a_patient_count_together(random_predictions):
    """Copies of every image, in the same patients, move neither value nor interval much; as new patients they would."""
    predictions = random_predictions(3)
    y, score = predictions.y_true[:, 0], predictions.scores[:, 0]
    once = table_of(predictions).iloc[0]
    rows = np.tile(np.arange(600), 4)
    copied = type(predictions)(
        predictions.table.iloc[rows].reset_index(drop=True), predictions.y_true[rows], predictions.scores[rows],
        predictions.label_names, predictions.attributes, predictions.decisions[rows],
    )  # fmt: skip
    made = table_of(copied).iloc[0]
    np.testing.assert_allclose(made[["value", "low", "high"]].astype(float), once[["value", "low", "high"]].astype(float))
    own = np.where(y == 1, predictions.table["sex"] == "F", predictions.table["sex"] == "M")
    by_image = clustered_auroc(np.tile(y[own], 4), np.tile(score[own], 4), np.arange(4 * own.sum()))
    assert 4 * np.sqrt(by_image.variance) < once["high"] - once["low"]


def test_without_a_class_there_is_no_value(make_predictions):
    y = np.r_[np.ones((10, 1)), np.zeros((10, 1))]
    predictions = make_predictions(y, y * 0.2 + 0.3, attributes=(SEX,), sex=np.repeat(["F", "M"], 10))
    table = table_of(predictions, (SEX,)).set_index("positives_of")
    assert table.loc["F", "value"] == 1
    assert table.loc["M", ["value", "low", "high"]].isna().all() and table.loc["M", "n_class_patients"] == 0


@pytest.mark.parametrize("kind", [int, str])
def test_the_type_of_the_identifiers_does_not_matter(random_predictions, kind):
    predictions = random_predictions(4)
    table = predictions.table.assign(patient_id=predictions.table["patient_id"].astype(int).astype(kind))
    other = type(predictions)(
        table, predictions.y_true, predictions.scores, predictions.label_names, predictions.attributes, predictions.decisions
    )
    assert table_of(other).equals(table_of(predictions))


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says(make_predictions):
    """Two correlated images a patient; 250 worlds, so that the Monte Carlo error of .95 is .014 (.01 over both orders)."""
    held = defaultdict(list)
    for world in range(250):
        rng = np.random.default_rng([3, world])
        patient = np.arange(300) // 2
        is_m = (rng.random(150) < 0.4)[patient]
        y = (rng.random(300) < 0.3).astype(float)
        score = y + 0.5 * is_m + np.sqrt(0.5) * rng.normal(size=150)[patient] + np.sqrt(0.5) * rng.normal(size=300)
        predictions = make_predictions(
            y[:, None], stats.norm.cdf(score / 2)[:, None], attributes=(SEX,), patient_id=patient, sex=np.where(is_m, "M", "F")
        )
        for row in table_of(predictions, (SEX,)).itertuples():
            truth = stats.norm.cdf((1 + (0.5 if row.positives_of == "M" else -0.5)) / np.sqrt(2))
            held[row.positives_of].append(row.low <= truth <= row.high)
    assert all(np.mean(values) >= 0.91 for values in held.values())
    assert 0.92 <= np.mean([*held["F"], *held["M"]]) <= 0.985
