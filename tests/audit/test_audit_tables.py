"""Metrics per group, differences from everyone else, gaps: what the audit says of worlds that are known."""

from __future__ import annotations

from dataclasses import replace

import fairlearn.metrics
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, precision_score, recall_score, roc_auc_score

from biascxr.audit import AuditResult, audit, choose_attributes
from biascxr.audit.cells import measure_cells
from biascxr.audit.groups import find_groups
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.errors import InputError
from biascxr.metrics import METRICS, effective_n, resample_patients

CONFIG = AuditConfig(n_replicates=100, n_permutations=50)
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
        # The debiased ECE takes out the noise of so many rows, and everyone else are twice as many as one of three groups.
        alike = groups[groups["metric"] != "ECE_debiased"]
        np.testing.assert_allclose(alike["difference"], 0, atol=1e-12)
        np.testing.assert_allclose(made.gaps["gap"], 0, atol=1e-12)
        assert (made.gaps["low"] == 0).all() and (made.gaps["high"] > 0).all()
        assert (made.gaps["corrected_gap"] == 0).all() and (made.gaps["noise_gap"] > 0).all()
        assert ((alike["difference_low"] < 0) & (alike["difference_high"] > 0)).all()


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
        np.testing.assert_array_equal(groups.mask(groups.index("sex", group)), sex == group)
        np.testing.assert_array_equal(groups.mask(groups.index("sex", group, others=True)), sex == other)
    assert groups.mask(groups.index("overall", "all")).all()


def test_everyone_else_is_the_complement_among_the_known(random_predictions):
    predictions = random_predictions(0)
    predictions.table.loc[:9, "race"] = "unknown"
    groups = find_groups(predictions, (RACE,))
    known = (predictions.table["race"] != "unknown").to_numpy()
    for group in RACE.groups:
        own, others = groups.mask(groups.index("race", group)), groups.mask(groups.index("race", group, others=True))
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
    assert groups.mask(groups.index("site", "1")).sum() == 20
    assert groups.mask(groups.index("site", "1", others=True)).sum() == 40


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


def test_micro_is_the_metric_of_all_findings_pooled(result, random_predictions):
    predictions = random_predictions(0)
    men = (predictions.table["sex"] == "M").to_numpy()
    y, score, decision = (b[men].ravel() for b in (predictions.y_true, predictions.scores, predictions.decisions))
    known = ~np.isnan(y)
    y, score, decision = y[known], score[known], decision[known]
    expected = {
        "AUROC": roc_auc_score(y, score),
        "AUPRC": average_precision_score(y, score),
        "TPR": recall_score(y, decision),
        "PPV": precision_score(y, decision),
        "selection_rate": decision.mean(),
        "Brier": brier_score_loss(y, score),
    }
    for metric, value in expected.items():
        row = cell(result.metrics, label="micro", attribute="sex", group="M", metric=metric)
        assert row["value"] == pytest.approx(value, abs=1e-6)
        assert (row["n"], row["n_positive"]) == (len(y), y.sum())
        assert row["n_patients"] == predictions.table["patient_id"][men].nunique()  # once each, not once per finding
        assert row["low"] < row["value"] < row["high"]
    gap = cell(result.gaps, label="micro", attribute="sex", metric="TPR")
    values = result.metrics.query("label == 'micro' and attribute == 'sex' and metric == 'TPR'")["value"]
    assert gap["gap"] == pytest.approx(np.ptp(values))


def test_the_difference_is_from_everyone_else_whose_group_is_known(result, random_predictions):
    predictions = random_predictions(0)
    y, decision = predictions.y_true[:, 0], predictions.decisions[:, 0].astype(float)
    for attribute in (SEX, RACE):
        values = predictions.table[attribute.name].to_numpy()
        for group in attribute.groups:
            own = (y == 1) & (values == group)
            others = (y == 1) & (values != group) & (values != "unknown")
            row = cell(result.metrics, label="finding 0", attribute=attribute.name, group=group, metric="TPR")
            assert row["difference"] == pytest.approx(decision[own].mean() - decision[others].mean(), abs=1e-12)
            assert row["difference_low"] < row["difference"] < row["difference_high"]


def test_everyone_has_no_everyone_else(result):
    rows = result.metrics[result.metrics["attribute"] == "overall"]
    assert rows[["difference", "difference_low", "difference_high"]].isna().all(axis=None)
    assert rows["value"].notna().all()


@pytest.mark.parametrize("metric", ["TPR", "FPR", "selection_rate", "PPV"])
def test_the_ratio_is_fairlearns(result, random_predictions, metric):
    predictions = random_predictions(0)
    known = ~np.isnan(predictions.y_true[:, 1])
    function = {
        "TPR": fairlearn.metrics.true_positive_rate,
        "FPR": fairlearn.metrics.false_positive_rate,
        "selection_rate": fairlearn.metrics.selection_rate,
        "PPV": precision_score,
    }[metric]
    frame = fairlearn.metrics.MetricFrame(
        metrics=function,
        y_true=predictions.y_true[known, 1],
        y_pred=predictions.decisions[known, 1],
        sensitive_features=predictions.table["race"][known],
    )
    gap = cell(result.gaps, label="finding 1", attribute="race", metric=metric)
    assert gap["ratio"] == pytest.approx(frame.ratio(), abs=1e-6)
    assert gap["gap"] == pytest.approx(frame.difference(), abs=1e-6)


def test_the_equalized_odds_gap_is_the_larger_of_the_gaps_of_tpr_and_fpr(result):
    gaps = result.gaps.pivot(index=["label", "attribute"], columns="metric", values="gap")
    assert len(gaps) >= 8
    np.testing.assert_allclose(gaps["equalized_odds"], gaps[["TPR", "FPR"]].max(axis=1))
    ends = result.gaps[result.gaps["metric"] == "equalized_odds"]
    assert ((ends["low"] <= ends["gap"]) & (ends["gap"] <= ends["high"])).all()


def test_without_weights_every_image_is_effective(result):
    np.testing.assert_allclose(result.metrics["n_effective"], result.metrics["n"])


def uneven_predictions(make_predictions, seed: int = 0, n_patients: int = 150):
    """Patients with 1 to 6 images, whose labels and scores hold together."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 7, n_patients))
    tendency = rng.normal(size=n_patients)[patient]
    y = (tendency[:, None] + rng.normal(size=(len(patient), 2)) > 0.3).astype(float)
    scores = stats.norm.cdf(0.8 * y + 0.5 * tendency[:, None] + rng.normal(size=y.shape) - 0.5)
    y[rng.random(y.shape) < 0.05] = np.nan
    sex = rng.choice(["F", "M"], n_patients)[patient]
    return make_predictions(y, scores, sex=sex, patient_id=patient.astype(str))


def test_weighted_by_patient_each_patient_counts_once(make_predictions):
    """Against scikit-learn with sample weights, and our own pure functions for what it does not have."""
    predictions = uneven_predictions(make_predictions)
    config = replace(CONFIG, weight="patient", metrics=("all",))
    made = audit(predictions, config)
    patient = predictions.table["patient_id"]
    weight = 1 / patient.map(patient.value_counts()).to_numpy()
    assert weight.sum() == pytest.approx(patient.nunique())
    men = (predictions.table["sex"] == "M").to_numpy() & ~np.isnan(predictions.y_true[:, 0])
    y, score, decision, w = predictions.y_true[men, 0], predictions.scores[men, 0], predictions.decisions[men, 0], weight[men]
    expected = {
        "AUROC": roc_auc_score(y, score, sample_weight=w),
        "AUPRC": average_precision_score(y, score, sample_weight=w),
        "TPR": np.average(decision[y == 1], weights=w[y == 1]),
        "PPV": np.average(y[decision == 1], weights=w[decision == 1]),
        "Brier": brier_score_loss(y, score, sample_weight=w),
        "log_loss": log_loss(y, score.astype(float), sample_weight=w),
    }
    for metric, value in expected.items():
        row = cell(made.metrics, label="finding 0", attribute="sex", group="M", metric=metric)
        assert row["value"] == pytest.approx(value, abs=1e-6), metric
        assert row["n_effective"] == pytest.approx(effective_n(w)) and row["n_effective"] < row["n"] == men.sum()
    for metric, definition in METRICS.items():
        if not definition.of_group:
            second = score.astype(np.float64) if definition.reads == "score" else decision
            row = cell(made.metrics, label="finding 0", attribute="sex", group="M", metric=metric)
            assert row["value"] == pytest.approx(definition.load()(y, second, w), abs=1e-6), metric
    unweighted = audit(predictions, CONFIG)
    assert (unweighted.metrics["value"] - made.metrics["value"]).abs().max() > 0.01


def test_the_estimand_says_what_counts_once(make_predictions):
    predictions = uneven_predictions(make_predictions)
    n, n_patients = len(predictions.table), predictions.table["patient_id"].nunique()
    for weight, says in (("image", "about an image drawn from these"), ("patient", "those of a patient drawn from these")):
        text = audit(predictions, replace(CONFIG, weight=weight, metrics=("TPR",))).estimand
        assert says in text and f"{n:,} rows of {n_patients:,} patients" in text
    sizes = predictions.table["patient_id"].value_counts()
    assert f"hold {sizes.iloc[: n_patients // 10].sum() / n:.0%} of them" in text


def test_a_crossing_has_the_groups_of_two_attributes_at_once(random_predictions):
    predictions = random_predictions(0)
    made = audit(predictions, replace(CONFIG, crossings=("race x sex",)))
    crossed = made.metrics[made.metrics["attribute"] == "race x sex"]
    assert set(crossed["group"]) == {f"{race}, {sex}" for race in "ABC" for sex in "FM"}
    known = ~np.isnan(predictions.y_true[:, 0])
    mask = (predictions.table["race"] == "A").to_numpy() & (predictions.table["sex"] == "F").to_numpy() & known
    row = cell(made.metrics, label="finding 0", attribute="race x sex", group="A, F", metric="AUROC")
    assert row["value"] == pytest.approx(roc_auc_score(predictions.y_true[mask, 0], predictions.scores[mask, 0]))
    assert row["n"] == mask.sum()
    others = (predictions.table["sex"] != "unknown").to_numpy() & known & ~mask
    value = roc_auc_score(predictions.y_true[others, 0], predictions.scores[others, 0])
    assert row["value"] - row["difference"] == pytest.approx(value)
    assert "race x sex" in set(made.gaps["attribute"])


def test_all_metrics_can_be_asked_for_at_once(random_predictions):
    made = audit(random_predictions(0), replace(CONFIG, metrics=("all",)))
    assert set(made.metrics["metric"]) == set(METRICS)
    of_group = made.metrics["metric"].map({m: d.of_group for m, d in METRICS.items()})
    assert made.metrics[~of_group]["value"].notna().all()
    background = made.metrics[of_group & made.metrics["attribute"].isin(["sex", "race"])]
    assert background["value"].notna().all() and background["difference"].isna().all()
    assert made.metrics[of_group & (made.metrics["attribute"] == "overall")]["value"].isna().all()


def test_metrics_come_in_the_tables_order_and_each_once(random_predictions):
    made = audit(random_predictions(0), replace(CONFIG, metrics=("TPR", "AUROC", "TPR")))
    rows = made.metrics.query("label == 'finding 0' and attribute == 'sex' and group == 'F'")
    assert list(rows["metric"]) == ["AUROC", "TPR"]


def test_an_unknown_metric_is_named_with_the_nearest(random_predictions):
    with pytest.raises(InputError, match=r"Unknown metric 'AUROCC'\. Did you mean 'AUROC'\?.*TPR"):
        audit(random_predictions(0), replace(CONFIG, metrics=("AUROCC",)))


AGE = ("young", "old")


def aging_predictions(make_predictions, *, sign: int, constant: bool):
    """Every patient once young and once old; the decision at both ages agrees (`sign=1`) or is the opposite (-1)."""
    rng = np.random.default_rng(0)
    n = 300
    young = (rng.random(n) < 0.5).astype(float)
    old = young if sign > 0 else 1 - young
    flipped = rng.random(n) < 0.1
    decisions = np.r_[young, np.where(flipped, 1 - old, old)][:, None]
    return make_predictions(
        rng.integers(0, 2, (2 * n, 1)), 0.2 + 0.6 * decisions, decisions=decisions,
        attributes=(Attribute("age_group", AGE, constant),),
        patient_id=np.tile(np.arange(n), 2).astype(str), age_group=np.repeat(AGE, n),
    )  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
def test_groups_that_share_patients_are_compared_with_their_correlation(make_predictions, sign):
    """Paired decisions: the variance of the difference in closed form, from each patient's difference."""
    config = replace(CONFIG, n_replicates=400, metrics=("selection_rate",))
    paired, apart = (
        audit(aging_predictions(make_predictions, sign=sign, constant=constant), config) for constant in (False, True)
    )
    keys = {"label": "finding 0", "attribute": "age_group", "metric": "selection_rate"}
    widths = [
        np.diff(cell(made.metrics, group="young", **keys)[["difference_low", "difference_high"]].astype(float))[0]
        for made in (paired, apart)
    ]
    decisions = aging_predictions(make_predictions, sign=sign, constant=False).decisions[:, 0].reshape(2, -1)
    expected = 2 * 1.96 * stats.sem(decisions[0] - decisions[1])
    assert widths[0] == pytest.approx(expected, rel=0.15)
    assert widths[1] == pytest.approx(2 * 1.96 * np.hypot(*stats.sem(decisions, axis=1)), rel=0.05)
    assert (widths[0] < 0.6 * widths[1]) if sign > 0 else (widths[0] > 1.25 * widths[1])
    gaps = [cell(made.gaps, **keys) for made in (paired, apart)]
    assert (gaps[0]["high"] < gaps[1]["high"]) == (sign > 0)
    half_normal = np.sqrt(2 / np.pi) * stats.sem(decisions[0] - decisions[1])
    assert gaps[0]["noise_gap"] == pytest.approx(half_normal, rel=0.15)


def test_the_interval_of_a_calibration_error_reaches_from_below_the_debiased_to_above_the_raw_value(random_predictions):
    predictions = random_predictions(0)
    made = audit([predictions], CONFIG, seed=0).metrics
    groups = find_groups(predictions, (SEX,))
    resamples = resample_patients(predictions.table["patient_id"], CONFIG.n_replicates, seed=0)
    cells = measure_cells(predictions, groups, resamples, ("ECE", "ECE_debiased"))
    column = groups.index("sex", "M")
    known = (predictions.table["sex"] == "M").to_numpy() & ~np.isnan(predictions.y_true[:, 0])
    t = stats.t.ppf(0.975, predictions.table["patient_id"][known].nunique() - 1)
    ends = [
        cells.values[m][0, column, 0] + side * t * cells.values[m][0, column, 1:].std(ddof=1)
        for m, side in (("ECE_debiased", -1), ("ECE", 1))
    ]
    for metric in ("ECE", "ECE_debiased"):
        row = cell(made, label="finding 0", group="M", metric=metric)
        assert (row["low"], row["high"]) == pytest.approx((max(0, ends[0]), ends[1]))
    assert cells.values["ECE_debiased"][0, column, 0] < cells.values["ECE"][0, column, 0]


def test_a_gap_stands_beside_the_spread_over_groups(result):
    gap = cell(result.gaps, label="finding 0", attribute="race", metric="AUROC")
    own = result.metrics[(result.metrics["label"] == "finding 0") & (result.metrics["attribute"] == "race")]
    values = own[own["metric"] == "AUROC"]["value"].to_numpy()
    assert gap["spread"] == pytest.approx(values.std()) and gap["gap"] == pytest.approx(np.ptp(values))
    assert 0 <= gap["corrected_spread"] < values.std(ddof=1)


def test_gaps_are_called_by_the_fields_names(random_predictions):
    predictions = replace(random_predictions(0), label_names=("No Finding", "Edema"))
    gaps = audit([predictions], CONFIG, seed=0).gaps
    names = gaps[gaps["attribute"] == "sex"].set_index(["label", "metric"])["known_as"]
    assert names["Edema", "TPR"] == "equal opportunity difference (EOpp1)"
    assert names["Edema", "selection_rate"] == "demographic parity difference"
    assert names["macro", "equalized_odds"] == "equalized odds difference"
    assert names["No Finding", "FPR"] == "underdiagnosis gap" and names["Edema", "FPR"] == ""
