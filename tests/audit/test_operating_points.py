"""Operating points: never judged on the patients they were fitted on; groups with few positives share everyone's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biascxr.audit.operating_points import fit_thresholds
from biascxr.containers import Attribute
from biascxr.errors import InputError
from biascxr.metrics import decide, false_positive_rate, true_positive_rate
from biascxr.metrics.thresholds import THRESHOLD_RULES, shrink_threshold, youden_threshold

SEX = Attribute("sex", ("F", "M"), True)
TARGETS = {"fixed_tpr": 0.9}


def of_other_patients(predictions):
    """The same rows, as if of other patients."""
    return replace(predictions, table=predictions.table.assign(patient_id="other " + predictions.table["patient_id"]))


def threshold_of(fitted, label, group="all"):
    """Returns the row of a label and group."""
    rows = fitted.table[(fitted.table["label"] == label) & (fitted.table["group"] == group)]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.mark.parametrize("rule", THRESHOLD_RULES)
def test_a_rule_decides_as_its_threshold_says_for_every_label(random_predictions, rule):
    fit_on, judged = random_predictions(0), of_other_patients(random_predictions(1))
    fitted = fit_thresholds(fit_on, rule, target=TARGETS.get(rule))
    decisions = fitted.decide(judged)
    assert decisions.dtype == np.float32 and decisions.shape == judged.scores.shape
    for index, label in enumerate(judged.label_names):
        threshold = threshold_of(fitted, label)["threshold"]
        np.testing.assert_array_equal(decisions[:, index], decide(judged.scores[:, index], np.float32(threshold)))
        assert 0 < decisions[:, index].mean() < 1


def test_the_rates_aimed_at_are_reached_where_they_were_fitted_and_nearly_so_elsewhere(random_predictions):
    fit_on, judged = random_predictions(0), of_other_patients(random_predictions(1))
    fpr = fit_thresholds(fit_on, "fixed_fpr")
    tpr = fit_thresholds(fit_on, "fixed_tpr", target=0.9)
    assert (fpr.target, tpr.target) == (0.2, 0.9)
    for index in range(2):
        y = fit_on.y_true[:, index]
        same_rows = of_other_patients(fit_on)
        assert 0.19 < false_positive_rate(y, fpr.decide(same_rows)[:, index]) <= 0.2
        assert 0.9 <= true_positive_rate(y, tpr.decide(same_rows)[:, index]) < 0.92
        y = judged.y_true[:, index]
        assert false_positive_rate(y, fpr.decide(judged)[:, index]) == pytest.approx(0.2, abs=0.06)
        assert true_positive_rate(y, tpr.decide(judged)[:, index]) == pytest.approx(0.9, abs=0.06)


@pytest.mark.parametrize("rule", sorted(set(THRESHOLD_RULES) - {"0.5"}))
def test_rows_that_share_one_patient_with_the_fit_are_refused(random_predictions, rule):
    fit_on, judged = random_predictions(0), of_other_patients(random_predictions(1))
    fitted = fit_thresholds(fit_on, rule, target=TARGETS.get(rule))
    fitted.decide(judged)
    table = judged.table.copy()
    table.loc[5, "patient_id"] = fit_on.table["patient_id"].iloc[0]
    with pytest.raises(InputError, match=r"1 of 301 patients are among those .* calibration split, or take the rule '0.5'"):
        fitted.decide(replace(judged, table=table))


def test_a_patient_is_recognised_whether_its_id_is_text_or_a_number(random_predictions):
    fit_on = random_predictions(0)
    as_numbers = replace(fit_on, table=fit_on.table.assign(patient_id=fit_on.table["patient_id"].astype(int)))
    for one, other in ((fit_on, as_numbers), (as_numbers, fit_on)):
        with pytest.raises(InputError, match="300 of 300 patients"):
            fit_thresholds(one, "youden").decide(other)


def test_one_half_fits_nothing_so_it_may_be_judged_on_the_same_rows(random_predictions):
    rows = random_predictions(0)
    fitted = fit_thresholds(rows, "0.5", attribute="race")
    assert (fitted.table["threshold"] == 0.5).all()
    np.testing.assert_array_equal(fitted.decide(rows), rows.scores >= 0.5)
    assert fitted.patients == frozenset()


@pytest.mark.parametrize("fit_dtype", [np.float32, np.float64])
@pytest.mark.parametrize("apply_dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", ["youden", "g_mean", "min_gap", "f1", "fixed_tpr"])
def test_a_score_that_was_the_threshold_is_flagged_in_any_dtype(random_predictions, rule, fit_dtype, apply_dtype):
    for seed in range(6):
        exact = random_predictions(seed, 100)
        scores = np.random.default_rng(seed).random(exact.scores.shape)
        fit_on = replace(exact, scores=scores.astype(fit_dtype))
        fitted = fit_thresholds(fit_on, rule, target=TARGETS.get(rule), attribute="sex", shrinkage=0)
        judged = of_other_patients(replace(exact, scores=scores.astype(apply_dtype)))
        decisions = fitted.decide(judged)
        for index, label in enumerate(exact.label_names):
            for group in ("F", "M"):
                in_group = (exact.table["sex"] == group).to_numpy()
                threshold = np.float32(threshold_of(fitted, label, group)["threshold"])
                is_it = in_group & (scores[:, index].astype(np.float32) == threshold)
                assert is_it.sum() == 1
                assert decisions[is_it, index] == 1


def test_thresholds_read_back_from_a_table_of_text_decide_the_same(random_predictions, tmp_path):
    fit_on, judged = random_predictions(0), of_other_patients(random_predictions(0))
    fitted = fit_thresholds(fit_on, "youden", attribute="race")
    fitted.table.to_csv(tmp_path / "thresholds.csv", index=False)
    read = replace(fitted, table=pd.read_csv(tmp_path / "thresholds.csv", keep_default_na=False))
    np.testing.assert_array_equal(read.decide(judged), fitted.decide(judged))


def test_a_group_has_its_own_threshold_drawn_towards_everyones_by_its_positive_patients(random_predictions):
    fit_on = random_predictions(0)
    fitted = fit_thresholds(fit_on, "youden", attribute="sex", shrinkage=25)
    for index, label in enumerate(fit_on.label_names):
        overall = threshold_of(fitted, label)["threshold"]
        assert overall == youden_threshold(fit_on.y_true[:, index], fit_on.scores[:, index])
        for group in ("F", "M"):
            in_group = (fit_on.table["sex"] == group).to_numpy()
            row = threshold_of(fitted, label, group)
            y = fit_on.y_true[in_group, index]
            assert (row["n_positive"], row["n_negative"]) == ((y == 1).sum(), (y == 0).sum())
            assert row["n_positive_patients"] == fit_on.table["patient_id"][in_group][y == 1].nunique() < row["n_positive"]
            assert row["own_threshold"] == youden_threshold(y, fit_on.scores[in_group, index])
            wanted = shrink_threshold(row["own_threshold"], overall, row["n_positive_patients"], 25)
            assert row["threshold"] == pytest.approx(wanted, rel=1e-6)


def test_each_row_is_judged_by_its_groups_threshold_and_an_unknown_group_by_everyones(random_predictions):
    fit_on = random_predictions(0)
    judged = of_other_patients(random_predictions(1))
    judged.table.loc[:3, "sex"] = "never seen"
    fitted = fit_thresholds(fit_on, "fixed_fpr", attribute="sex", shrinkage=0)
    decisions = fitted.decide(judged)
    for index, label in enumerate(judged.label_names):
        thresholds = {group: threshold_of(fitted, label, group)["threshold"] for group in ("F", "M", "all")}
        assert len(set(thresholds.values())) == 3
        wanted = [
            float(score >= np.float32(thresholds[sex if sex in ("F", "M") else "all"]))
            for score, sex in zip(judged.scores[:, index], judged.table["sex"], strict=True)
        ]
        np.testing.assert_array_equal(decisions[:, index], wanted)


def test_a_group_without_positives_shares_everyones_threshold_and_says_so(make_predictions):
    y = np.array([[0], [1], [0], [1], [0], [0]], float)
    scores = np.array([[0.1], [0.8], [0.3], [0.7], [0.9], [0.2]])
    fit_on = make_predictions(y, scores, sex=["F", "F", "F", "F", "M", "M"])
    for rule in ("youden", "fixed_fpr"):  # the second one could be fitted on negatives alone, but has nothing to rest on
        fitted = fit_thresholds(fit_on, rule, attribute="sex")
        row = threshold_of(fitted, "finding 0", "M")
        assert row["threshold"] == threshold_of(fitted, "finding 0")["threshold"]
        assert "threshold of everyone" in row["note"]
        assert np.isnan(row["own_threshold"]) == (rule == "youden")


def test_a_label_with_one_class_has_no_threshold_and_no_decision(make_predictions):
    y = np.array([[0, 0], [1, 0], [0, 0], [1, np.nan]], float)
    fit_on = make_predictions(y, np.array([[0.1, 0.2], [0.8, 0.4], [0.3, 0.9], [0.7, 0.7]]), sex=["F", "F", "M", "M"])
    fitted = fit_thresholds(fit_on, "youden", attribute="sex")
    decisions = fitted.decide(of_other_patients(fit_on))
    assert np.isnan(decisions[:, 1]).all() and not np.isnan(decisions[:, 0]).any()
    assert "no decision" in threshold_of(fitted, "finding 1")["note"]


def test_what_cannot_be_used_is_said(random_predictions):
    rows = random_predictions(0, 40)
    with pytest.raises(InputError, match=r"Unknown threshold rule 'yuden'. Did you mean 'youden'"):
        fit_thresholds(rows, "yuden")
    with pytest.raises(InputError, match="Unknown attribute 'age'"):
        fit_thresholds(rows, "youden", attribute="age")
    with pytest.raises(InputError, match=r"'youden' has no target; got 0.2"):
        fit_thresholds(rows, "youden", target=0.2)
    with pytest.raises(InputError, match="'fixed_tpr' needs a target"):
        fit_thresholds(rows, "fixed_tpr")
    with pytest.raises(InputError, match=r"got 20. Give a fraction"):
        fit_thresholds(rows, "fixed_fpr", target=20)
    with pytest.raises(InputError, match="shrinkage must be at least 0"):
        fit_thresholds(rows, "youden", shrinkage=-1)
    with pytest.raises(InputError, match="no row to fit"):
        fit_thresholds(rows.in_split("validation"), "youden")
    fitted = fit_thresholds(rows, "youden", attribute="sex")
    other = of_other_patients(rows)
    with pytest.raises(InputError, match=r"no threshold was fitted for it.*'Edema'"):
        fitted.decide(replace(other, label_names=("Edema", "finding 1")))
    with pytest.raises(InputError, match="'sex'"):
        fitted.decide(replace(other, table=other.table.drop(columns="sex"), attributes=()))
