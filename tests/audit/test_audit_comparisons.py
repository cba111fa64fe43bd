"""Each recipe against `erm`: paired, on the same patients, with a verdict that says when there is not enough evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from biascxr.audit import GAP, audit
from biascxr.audit.compare import verdict
from biascxr.config import AuditConfig
from biascxr.containers import Attribute
from biascxr.errors import InputError

CONFIG = AuditConfig(n_replicates=100)


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
    gaps = made.gaps[made.gaps["metric"] != "FNR"].pivot(index=["label", "attribute", "metric"], columns="recipe", values="gap")
    of_gaps = made.comparisons[made.comparisons["group"] == GAP].set_index(["label", "attribute", "metric"]).join(gaps)
    np.testing.assert_allclose(of_gaps["before"], of_gaps["erm"], atol=1e-12)
    np.testing.assert_allclose(of_gaps["after"], of_gaps["noisy"], atol=1e-12)


def test_pairing_sees_what_two_separate_intervals_cannot(random_predictions):
    """A few more positives flagged by the same model: the change is sure although both rates are not."""
    erm = random_predictions(4)
    extra = (erm.y_true == 1) & (erm.decisions == 0) & (np.arange(len(erm.table)) % 5 == 0)[:, None]
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
        table = audit([first, named(second, "other")], CONFIG, seed=0).comparisons
        gap = table[(table["group"] == GAP) & (table["metric"] == "TPR") & (table["attribute"] == "sex")]
        assert set(gap["verdict"]) == {expected} and len(gap) == 3


@pytest.mark.parametrize(
    ("low", "high", "lower_is_better", "expected"),
    [
        (0.01, 0.2, False, "better"),
        (0.01, 0.2, True, "worse"),
        (-0.2, -0.01, False, "worse"),
        (-0.2, -0.01, True, "better"),
        (-0.1, 0.1, False, "not enough evidence"),
        (0.0, 0.1, False, "not enough evidence"),
        (np.nan, np.nan, True, "not enough evidence"),
    ],
)
def test_a_verdict_needs_an_interval_off_zero(low, high, lower_is_better, expected):
    assert verdict(low, high, lower_is_better=lower_is_better) == expected


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
        audit([erm, replace(erm, table=turned)], CONFIG, seed=0)
    with pytest.raises(InputError, match="different images"):
        audit([erm, random_predictions(0, 300)], CONFIG, seed=0)
    with pytest.raises(InputError, match="different findings or labels"):
        audit([erm, replace(erm, y_true=1 - erm.y_true)], CONFIG, seed=0)
    with pytest.raises(InputError, match="different findings or labels"):
        audit([erm, replace(erm, label_names=("other", "names"))], CONFIG, seed=0)
