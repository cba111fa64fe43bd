"""Each recipe against `erm`: paired, on the same patients, with a verdict that says when there is not enough evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from biascxr.audit import EQUALIZED_ODDS, GAP, audit
from biascxr.config import AuditConfig
from biascxr.containers import Attribute
from biascxr.errors import InputError

CONFIG = AuditConfig(n_replicates=100, n_permutations=0, metrics=("AUROC", "TPR", "FPR", "FNR"))


def named(predictions, recipe: str, **changes):
    return replace(predictions, table=predictions.table.assign(recipe=recipe), **changes)


def test_identical_predictions_do_not_differ(random_predictions):
    erm = random_predictions(0)
    table = audit([erm, named(erm, "copy")], CONFIG, seed=0).comparisons
    assert set(table["recipe"]) == {"copy"}
    defined = table.dropna(subset=["change"])
    assert (defined["change"] == 0).all() and len(defined) > 20
    assert (table["verdict"] == "not enough evidence").all()
    np.testing.assert_allclose(defined[["low", "high"]], 0, atol=1e-9)
    assert (defined["p_value"] == 1).all() and (defined["p_holm"] == 1).all()
    assert (table["levelling"] == "").all()


def test_a_change_is_after_minus_before_of_the_audits_own_metrics(random_predictions):
    erm = random_predictions(0)
    other = named(erm, "noisy", scores=np.clip(erm.scores + 0.1 * np.random.default_rng(0).random(erm.scores.shape), 0, 1))
    made = audit([erm, other], CONFIG, seed=0)
    keys = ["label", "attribute", "group", "metric"]
    values = made.metrics[made.metrics["label"] != "macro"].pivot(index=keys, columns="recipe", values="value")
    changes = made.comparisons[(made.comparisons["group"] != GAP) & (made.comparisons["label"] != "macro")].set_index(keys)
    joined = changes.join(values)
    assert len(joined) == len(changes) > 10
    np.testing.assert_allclose(joined["change"], joined["noisy"] - joined["erm"], atol=1e-12)
    gaps = made.gaps.pivot(index=["label", "attribute", "metric"], columns="recipe", values="gap")
    of_gaps = made.comparisons[made.comparisons["group"] == GAP].set_index(["label", "attribute", "metric"]).join(gaps)
    np.testing.assert_allclose(of_gaps["before"], of_gaps["erm"], atol=1e-12)
    np.testing.assert_allclose(of_gaps["after"], of_gaps["noisy"], atol=1e-12)


def test_pairing_sees_what_two_separate_intervals_cannot(random_predictions):
    """A few more positives flagged by the same model: the change is sure although both rates are not."""
    erm = random_predictions(4)
    extra = (erm.y_true == 1) & (erm.decisions == 0) & (np.arange(len(erm.table)) % 3 == 0)[:, None]
    made = audit([erm, named(erm, "more", decisions=np.where(extra, 1, erm.decisions).astype(np.float32))], CONFIG, seed=0)
    table = made.comparisons.set_index(["label", "attribute", "group", "metric"])
    row = table.loc[("finding 1", "overall", "all", "TPR")]
    assert row["low"] > 0 and row["verdict"] == "better"
    metrics = made.metrics.set_index(["recipe", "label", "attribute", "metric", "group"])
    before, after = (metrics.loc[(r, "finding 1", "overall", "TPR", "all")] for r in ("erm", "more"))
    assert before["high"] > after["low"]


def test_a_closed_gap_is_better_and_an_opened_one_is_worse(random_predictions):
    fair = random_predictions(5, 1600)
    missed = (fair.table["sex"] == "M").to_numpy()[:, None] & (fair.y_true == 1)
    missed &= np.random.default_rng(0).random(missed.shape) < 0.6
    unfair = replace(fair, decisions=np.where(missed, 0, fair.decisions).astype(np.float32))
    for first, second, expected in ((unfair, fair, "better"), (fair, unfair, "worse")):
        table = audit([first, named(second, "other")], replace(CONFIG, attributes=("sex",)), seed=0).comparisons
        gap = table[(table["group"] == GAP) & (table["metric"] == "TPR") & (table["attribute"] == "sex")]
        gap = gap[gap["label"].isin(["finding 0", "finding 1", "macro"])]
        assert set(gap["verdict"]) == {expected} and len(gap) == 3


def test_a_lower_fpr_is_better_and_a_lower_tpr_is_worse(random_predictions):
    erm = random_predictions(6)
    fewer = named(erm, "fewer", decisions=np.where(erm.scores < 0.7, 0, erm.decisions).astype(np.float32))
    table = audit([erm, fewer], CONFIG, seed=0).comparisons.set_index(["label", "attribute", "group", "metric"])
    assert table.loc[("macro", "overall", "all", "FPR"), "verdict"] == "better"
    assert table.loc[("macro", "overall", "all", "TPR"), "verdict"] == "worse"


def test_a_finding_with_too_few_patients_has_a_gap_in_neither_table(make_predictions):
    n = 200
    rng = np.random.default_rng(2)
    sex = np.array(["F", "M"])[np.arange(n) % 2]
    y = rng.integers(0, 2, (n, 2)).astype(float)
    y[sex == "M", 0] = 0
    y[np.flatnonzero(sex == "M")[:4], 0] = 1
    erm = make_predictions(y, rng.random((n, 2)), attributes=(Attribute("sex", ("F", "M"), True),), sex=sex)
    made = audit([erm, named(erm, "other", scores=rng.random((n, 2)).astype(np.float32))], CONFIG, seed=0)
    for table in (made.gaps, made.comparisons[made.comparisons["group"] == GAP]):
        row = table[(table["label"] == "finding 0") & (table["metric"] == "TPR")].iloc[0]
        assert np.isnan(row["low"]) and np.isnan(row["gap"] if "gap" in row else row["change"])


def test_other_images_other_order_or_other_labels_are_refused(random_predictions):
    erm = random_predictions(0)
    turned = erm.table.iloc[::-1].reset_index(drop=True)
    with pytest.raises(InputError, match="different images, or in another order"):
        audit([erm, named(replace(erm, table=turned), "other")], CONFIG, seed=0)
    with pytest.raises(InputError, match="different images"):
        audit([erm, random_predictions(0, 300, recipe="other")], CONFIG, seed=0)
    with pytest.raises(InputError, match="different findings or labels"):
        audit([erm, named(erm, "other", y_true=1 - erm.y_true)], CONFIG, seed=0)
    with pytest.raises(InputError, match="different findings or labels"):
        audit([erm, named(erm, "other", label_names=("other", "names"))], CONFIG, seed=0)


def keyed(table):
    return table.set_index(["label", "attribute", "group", "metric"]).sort_index()


def test_the_change_of_equalized_odds_is_of_the_larger_gap(random_predictions):
    erm = random_predictions(0)
    fewer = named(erm, "fewer", decisions=np.where(erm.scores < 0.6, 0, erm.decisions).astype(np.float32))
    table = keyed(audit([erm, fewer], CONFIG).comparisons)
    odds = table.xs((GAP, EQUALIZED_ODDS), level=("group", "metric"))
    assert len(odds) >= 6
    for side in ("before", "after"):
        larger = np.maximum(*(table.xs((GAP, m), level=("group", "metric"))[side] for m in ("TPR", "FPR")))
        np.testing.assert_allclose(odds[side], larger.reindex(odds.index))
    np.testing.assert_allclose(odds["change"], odds["after"] - odds["before"])
    assert ((odds["low"] <= odds["change"]) & (odds["change"] <= odds["high"])).all()


def test_the_interval_and_p_value_of_a_group_are_the_paired_t_of_its_resampled_change(make_predictions):
    """One image per patient: the standard error of a paired change of rates in closed form, McNemar's."""
    rng = np.random.default_rng(0)
    n = 800
    y, score = np.ones((n, 1)), rng.random((n, 1))
    y[n // 2 :] = 0
    erm = make_predictions(y, score, sex=np.array(["F", "M"])[np.arange(n) % 2])
    after = np.where(rng.random((n, 1)) < 0.2, 1, erm.decisions).astype(np.float32)
    table = audit([erm, named(erm, "more", decisions=after)], replace(CONFIG, n_replicates=2000)).comparisons
    row = keyed(table).loc[("finding 0", "sex", "F", "TPR")]
    own = (erm.table["sex"] == "F").to_numpy() & (y[:, 0] == 1)
    change = (after - erm.decisions)[own, 0].astype(float)
    error, df = change.std() / np.sqrt(own.sum()), own.sum() - 1
    assert row["change"] == pytest.approx(change.mean())
    low, high = stats.t.interval(0.95, df, loc=change.mean(), scale=error)
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.1 * error)
    expected = 2 * stats.t.sf(change.mean() / error, df)
    assert np.log10(row["p_value"]) == pytest.approx(np.log10(expected), rel=0.1)


def test_fate_is_the_gain_less_the_growth_of_a_gap_that_is_off_0(unequal_predictions):
    """Group C scores worse, so its gap of AUROC is real; its FPR is that of the others."""
    erm = unequal_predictions(0)
    noise = np.random.default_rng(1).normal(0, 0.1, erm.scores.shape) * (erm.table["race"] == "A").to_numpy()[:, None]
    noisy = named(erm, "noisy", scores=np.clip(erm.scores + noise, 0, 1).astype(np.float32))
    made = audit([erm, noisy], CONFIG)
    table = keyed(made.comparisons)
    gap_low = made.gaps[made.gaps["recipe"] == "erm"].set_index(["label", "attribute", "metric"])["low"]
    whole = table.loc[("finding 0", "overall", "all", "AUROC")]
    n_defined = 0
    for metric in ("AUROC", "TPR", "FPR"):
        row = table.loc[("finding 0", "race", GAP, metric)]
        if gap_low[("finding 0", "race", metric)] > 0:
            gain = (whole["after"] - whole["before"]) / whole["before"]
            assert row["fate"] == pytest.approx(gain - (row["after"] - row["before"]) / row["before"])
            n_defined += 1
        else:
            assert np.isnan(row["fate"])
    assert gap_low[("finding 0", "race", "AUROC")] > 0 and n_defined < 3
    assert table[table.index.get_level_values("group") != GAP]["fate"].isna().all()


def test_without_auroc_there_is_no_fate(unequal_predictions):
    erm = unequal_predictions(0)
    table = audit([erm, named(erm, "copy")], replace(CONFIG, metrics=("TPR", "FPR"))).comparisons
    assert set(table["metric"]) == {"TPR", "FPR", EQUALIZED_ODDS}
    assert table["fate"].isna().all()


def test_predictions_for_other_patients_are_refused(random_predictions):
    erm = random_predictions(0)
    turned = erm.table.assign(patient_id=erm.table["patient_id"].to_numpy()[::-1])
    with pytest.raises(InputError, match="other patients for the same images"):
        audit([erm, named(replace(erm, table=turned), "other")], CONFIG, seed=0)
