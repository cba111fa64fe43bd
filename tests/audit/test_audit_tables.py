"""Metrics per group, differences from everyone else, gaps: what the audit says of worlds that are known."""

from __future__ import annotations

from dataclasses import replace

import fairlearn.metrics
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from biascxr.audit import AuditResult, audit, choose_attributes
from biascxr.audit.cells import find_groups
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.errors import InputError

CONFIG = AuditConfig(n_replicates=100)
SEX = Attribute("sex", ("F", "M"), True)
RACE = Attribute("race", ("A", "B", "C"), True)


def cell(table: pd.DataFrame, **keys) -> pd.Series:
    """Returns the one row with these values."""
    for name, value in keys.items():
        table = table[table[name] == value]
    assert len(table) == 1, f"{len(table)} rows"
    return table.iloc[0]


@pytest.fixture(scope="module")
def result(random_predictions) -> AuditResult:
    return audit([random_predictions(0)], CONFIG, seed=0)


def twins(random_predictions, n_copies: int = 2, **changes) -> Predictions:
    """Every patient once in each group: the groups are equal by construction."""
    one = random_predictions(1, 200, attributes=(), sex="F", race="A")
    groups = ("F", "M") if n_copies == 2 else ("A", "B", "C")
    table = pd.concat([one.table.assign(**{"sex" if n_copies == 2 else "race": g}) for g in groups], ignore_index=True)
    table["patient_id"] = table["patient_id"] + np.repeat(np.arange(n_copies), len(one.table)).astype(str)
    table["image_id"] = [f"i{i}" for i in range(len(table))]
    return Predictions(
        table,
        np.tile(one.y_true, (n_copies, 1)),
        np.tile(one.scores, (n_copies, 1)),
        one.label_names,
        (SEX if n_copies == 2 else RACE,),
        np.tile(one.decisions, (n_copies, 1)),
    )


def test_groups_that_are_equal_by_construction_differ_by_exactly_0(random_predictions):
    for predictions in (twins(random_predictions), twins(random_predictions, 3)):
        made = audit([predictions], CONFIG, seed=0)
        groups = made.metrics[made.metrics["attribute"] != "overall"]
        if predictions.attributes == (SEX,):
            assert (groups["difference"] == 0).all()
        np.testing.assert_allclose(groups["difference"], 0, atol=1e-12)
        np.testing.assert_allclose(made.gaps["gap"], 0, atol=1e-12)
        assert (made.gaps["low"] == 0).all() and (made.gaps["high"] > 0).all()
        assert (made.gaps["corrected_gap"] == 0).all() and (made.gaps["noise_gap"] > 0).all()
        assert ((groups["difference_low"] < 0) & (groups["difference_high"] > 0)).all()


def test_a_planted_difference_is_found_with_its_size_and_its_sign(random_predictions):
    predictions = random_predictions(2, 1600)
    is_b = (predictions.table["race"] == "B").to_numpy()
    flagged = is_b[:, None] & (predictions.y_true == 1) & (predictions.decisions == 1)
    missed = flagged & (flagged.cumsum(axis=0) % 2 == 0)  # every second true positive of group B
    planted = replace(predictions, decisions=np.where(missed, 0, predictions.decisions).astype(np.float32))
    made = audit([planted], CONFIG, seed=0)
    row = cell(made.metrics, label="finding 0", attribute="race", group="B", metric="TPR")
    before = audit([predictions], CONFIG, seed=0).metrics
    planted_size = cell(before, label="finding 0", attribute="race", group="B", metric="TPR")["value"] / 2
    assert row["difference_low"] < -planted_size < row["difference_high"] < 0
    assert cell(made.metrics, label="finding 0", attribute="race", group="A", metric="TPR")["difference_low"] > 0
    gap = cell(made.gaps, label="macro", attribute="race", metric="TPR")
    assert gap["low"] > 0 and gap["lowest_group"] == "B"
    assert gap["noise_gap"] < gap["corrected_gap"] < gap["gap"]
    aurocs = [t[t["metric"] == "AUROC"].reset_index(drop=True) for t in (made.metrics, before)]
    pd.testing.assert_frame_equal(*aurocs)  # scores were left alone


def test_metrics_of_a_group_are_scikit_learns_and_fairlearns(result, random_predictions):
    predictions = random_predictions(0)
    for group in ("F", "M"):
        mask = (predictions.table["sex"] == group).to_numpy() & ~np.isnan(predictions.y_true[:, 1])
        y, score, decision = (block[mask, 1] for block in (predictions.y_true, predictions.scores, predictions.decisions))
        expected = {
            "AUROC": roc_auc_score(y, score),
            "TPR": fairlearn.metrics.true_positive_rate(y, decision),
            "FPR": fairlearn.metrics.false_positive_rate(y, decision),
            "FNR": fairlearn.metrics.false_negative_rate(y, decision),
        }
        for metric, value in expected.items():
            row = cell(result.metrics, label="finding 1", attribute="sex", group=group, metric=metric)
            assert row["value"] == pytest.approx(value, abs=1e-6)
            assert (row["n"], row["n_positive"]) == (mask.sum(), (y == 1).sum())
            assert row["n_patients"] == predictions.table["patient_id"][mask].nunique()


def test_a_gap_is_fairlearns_difference_over_groups(result, random_predictions):
    predictions = random_predictions(0)
    known = ~np.isnan(predictions.y_true[:, 0])
    frame = fairlearn.metrics.MetricFrame(
        metrics=fairlearn.metrics.true_positive_rate,
        y_true=predictions.y_true[known, 0],
        y_pred=predictions.decisions[known, 0],
        sensitive_features=predictions.table["race"][known],
    )
    gap = cell(result.gaps, label="finding 0", attribute="race", metric="TPR")
    assert gap["n_groups"] == 3
    assert gap["gap"] == pytest.approx(frame.difference(), abs=1e-6)
    assert (gap["lowest_group"], gap["highest_group"]) == (frame.by_group.idxmin(), frame.by_group.idxmax())


def test_the_unknown_are_in_no_group_and_in_no_everyone_else(random_predictions):
    predictions = random_predictions(0)
    groups = find_groups(predictions, (SEX,))
    sex = predictions.table["sex"].to_numpy()
    assert (sex == "unknown").any()
    for group, other in (("F", "M"), ("M", "F")):
        np.testing.assert_array_equal(groups.masks[groups.index("sex", group)], sex == group)
        np.testing.assert_array_equal(groups.masks[groups.index("sex", group, others=True)], sex == other)
    assert groups.masks[groups.index("overall", "all")].all()


def test_everyone_else_is_the_complement_among_the_known(random_predictions):
    predictions = random_predictions(0)
    predictions.table.loc[:9, "race"] = "unknown"
    groups = find_groups(predictions, (RACE,))
    known = (predictions.table["race"] != "unknown").to_numpy()
    for group in RACE.groups:
        own, others = groups.masks[groups.index("race", group)], groups.masks[groups.index("race", group, others=True)]
        assert not (own & others).any()
        np.testing.assert_array_equal(own | others, known)


def test_groups_written_as_digits_are_found_after_a_round_trip_through_csv(make_predictions, tmp_path):
    attribute = Attribute("site", ("1", "2"), True)
    rng = np.random.default_rng(0)
    made = make_predictions(
        rng.integers(0, 2, (60, 1)), rng.random((60, 1)), attributes=(attribute,), site=["1", "2", "2"] * 20
    )
    made.save(tmp_path / "p.csv")
    groups = find_groups(Predictions.load(tmp_path / "p.csv", (attribute,)), (attribute,))
    assert groups.masks[groups.index("site", "1")].sum() == 20
    assert groups.masks[groups.index("site", "1", others=True)].sum() == 40


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_audit_of_saved_predictions_is_the_same(random_predictions, tmp_path, ending):
    predictions = random_predictions(0)
    predictions.save(tmp_path / f"p.{ending}")
    again = Predictions.load(tmp_path / f"p.{ending}", predictions.attributes)
    first, second = (audit([p], CONFIG, seed=0) for p in (predictions, again))
    pd.testing.assert_frame_equal(first.metrics, second.metrics)
    pd.testing.assert_frame_equal(first.gaps, second.gaps)


def test_an_undefined_metric_stays_undefined_with_its_counts_beside_it(make_predictions):
    n = 120
    rng = np.random.default_rng(0)
    sex = np.array(["F", "M"])[np.arange(n) % 2]
    y = rng.integers(0, 2, (n, 2)).astype(float)
    y[sex == "M", 0] = 0  # no man is labelled positive
    made = audit([make_predictions(y, rng.random((n, 2)), sex=sex)], CONFIG, seed=0)
    for metric in ("AUROC", "TPR", "FNR"):
        row = cell(made.metrics, label="finding 0", attribute="sex", group="M", metric=metric)
        assert row[["value", "low", "high", "difference", "difference_low"]].isna().all()
        assert (row["n"], row["n_positive"], row["n_class_patients"]) == (60, 0, 0)
        assert row["is_small"]
        assert np.isnan(cell(made.metrics, label="finding 0", attribute="sex", group="F", metric=metric)["difference"])
        assert np.isnan(cell(made.gaps, label="finding 0", attribute="sex", metric=metric)["gap"])
    defined = cell(made.metrics, label="finding 0", attribute="sex", group="M", metric="FPR")
    assert not np.isnan(defined["value"]) and not np.isnan(
        cell(made.gaps, label="finding 0", attribute="sex", metric="FPR")["gap"]
    )


def test_macro_is_the_mean_over_findings_defined_in_every_compared_group(make_predictions):
    """One finding that only women have must not enter the comparison of women with men."""
    n = 200
    rng = np.random.default_rng(1)
    sex = np.array(["F", "M"])[np.arange(n) % 2]
    y = rng.integers(0, 2, (n, 3)).astype(float)
    y[sex == "M", 0] = 0
    made = audit([make_predictions(y, rng.random((n, 3)), sex=sex)], CONFIG, seed=0)
    for group in ("F", "M"):
        macro = cell(made.metrics, label="macro", attribute="sex", group=group, metric="TPR")
        own = made.metrics.query("attribute == 'sex' and group == @group and metric == 'TPR'").set_index("label")
        assert macro["n_labels"] == 2
        assert macro["value"] == pytest.approx(own.loc[["finding 1", "finding 2"], "value"].mean())
    assert cell(made.gaps, label="macro", attribute="sex", metric="TPR")["n_labels"] == 2
    assert cell(made.metrics, label="macro", attribute="sex", group="F", metric="FPR")["n_labels"] == 3
    assert cell(made.metrics, label="macro", attribute="overall", group="all", metric="TPR")["n_labels"] == 3


def test_a_finding_with_four_patients_of_the_class_does_not_enter_macro(make_predictions):
    n = 200
    rng = np.random.default_rng(2)
    sex = np.array(["F", "M"])[np.arange(n) % 2]
    y = rng.integers(0, 2, (n, 2)).astype(float)
    men = np.flatnonzero(sex == "M")
    y[men, 0] = 0
    y[men[:4], 0] = 1
    made = audit([make_predictions(y, rng.random((n, 2)), sex=sex)], CONFIG, seed=0)
    assert cell(made.metrics, label="macro", attribute="sex", group="M", metric="TPR")["n_labels"] == 1
    y[men[4], 0] = 1
    made = audit([make_predictions(y, rng.random((n, 2)), sex=sex)], CONFIG, seed=0)
    assert cell(made.metrics, label="macro", attribute="sex", group="M", metric="TPR")["n_labels"] == 2


def test_small_groups_are_flagged_and_left_out_of_the_gap(random_predictions):
    made = audit([random_predictions(0, 300)], replace(CONFIG, min_patients=25), seed=0)
    sizes = random_predictions(0, 300).table.groupby("race")["patient_id"].nunique()
    assert sizes["C"] < 25 <= sizes["B"]
    for group, n in sizes.items():
        assert cell(made.metrics, label="macro", attribute="race", group=group, metric="TPR")["is_small"] == (n < 25)
    assert cell(made.gaps, label="macro", attribute="race", metric="TPR")["n_groups"] == 2
    rows = made.metrics[made.metrics["label"] != "macro"]
    np.testing.assert_array_equal(rows["is_small"], rows["n_class_patients"] < 25)


def test_images_of_one_patient_do_not_make_an_interval_narrower(make_predictions):
    """A bootstrap over images would read ten identical images of a patient as ten patients."""
    rng = np.random.default_rng(3)
    y, score = rng.integers(0, 2, (120, 1)).astype(float), rng.random((120, 1))
    sex = rng.choice(["F", "M"], 120)
    once = audit([make_predictions(y, score, sex=sex)], replace(CONFIG, n_replicates=400), seed=0).metrics
    copies = np.repeat(np.arange(120), 10)
    many = audit(
        [make_predictions(y[copies], score[copies], sex=sex[copies], patient_id=copies.astype(str))],
        replace(CONFIG, n_replicates=400), seed=0,
    ).metrics  # fmt: skip
    width_once, width_many = ((t["high"] - t["low"])[t["label"] != "macro"].to_numpy() for t in (once, many))
    assert (width_many > 0.75 * width_once).all()


def test_the_same_seed_gives_the_same_tables_and_another_seed_other_intervals(random_predictions):
    first, again, other = (audit([random_predictions(0)], CONFIG, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(first.metrics, again.metrics)
    pd.testing.assert_frame_equal(first.gaps, again.gaps)
    np.testing.assert_array_equal(first.metrics["value"], other.metrics["value"])
    assert (first.metrics["low"] != other.metrics["low"]).any()


def test_values_lie_in_their_intervals(result):
    for table, value in ((result.metrics, "value"), (result.gaps, "gap")):
        defined = table.dropna(subset=[value])
        assert len(defined) > 10
        assert ((defined["low"] <= defined[value]) & (defined[value] <= defined["high"])).all()
        assert ((defined["low"] >= 0) & (defined["high"] <= (1 if value == "value" else 2))).all()


def test_a_masked_label_is_not_counted(result, random_predictions):
    y = random_predictions(0).y_true[:, 0]
    row = cell(result.metrics, label="finding 0", attribute="overall", group="all", metric="TPR")
    assert row["n"] == (~np.isnan(y)).sum() < len(y)


def test_tables_come_back_from_disk(result, tmp_path):
    result.save(tmp_path)
    again = AuditResult.load(tmp_path)
    pd.testing.assert_frame_equal(again.metrics, result.metrics, check_dtype=False)
    assert list(again.comparisons) == list(result.comparisons) and len(again.comparisons) == 0


def test_without_attributes_there_is_overall_and_no_gap(random_predictions):
    made = audit([replace(random_predictions(0), attributes=())], CONFIG, seed=0)
    assert set(made.metrics["attribute"]) == {"overall"}
    assert len(made.gaps) == 0 and {"label", "attribute", "metric", "gap", "low", "high", "noise_gap"} <= set(made.gaps)


def test_an_attribute_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"rase.*Did you mean 'race'\?.*Known: race, sex"):
        choose_attributes((SEX, RACE), ("rase",))
    assert choose_attributes((SEX, RACE), ("race",)) == (RACE,)
    assert choose_attributes((SEX, RACE), ()) == (SEX, RACE)


def test_predictions_that_cannot_be_audited_are_refused(random_predictions):
    predictions = random_predictions(0)
    with pytest.raises(InputError, match="no row to audit"):
        audit([predictions.in_split("train")], CONFIG, seed=0)
    with pytest.raises(InputError, match="no predictions to audit"):
        audit([], CONFIG, seed=0)
    with pytest.raises(InputError, match="'erm' have no decisions"):
        audit([replace(predictions, decisions=None)], CONFIG, seed=0)
