"""Standard errors in closed form and counts, of every group and of everyone else, against other ways to the same numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.api import WLS

from biascxr.audit.cells import measure_cells, spread
from biascxr.audit.closed_forms import RATIOS, closed_forms
from biascxr.audit.groups import find_groups
from biascxr.audit.rows import label_rows
from biascxr.containers import Attribute, Predictions
from biascxr.metrics import METRICS, clustered_auroc, effective_n, resample_patients

SEX, AGE = Attribute("sex", ("F", "M"), True), Attribute("age_group", ("young", "middle", "old"), False)
WITH_FORM = (*RATIOS, "AUROC")


def make_world(seed: int, n: int, *, images: float = 2.0, levels: int = 20) -> Predictions:
    """Labels and scores with a patient effect; the age group of a patient changes from image to image."""
    rng = np.random.default_rng(seed)
    n_patients = max(1, int(n / images))
    patient = rng.integers(0, n_patients, n)
    y = (rng.normal(size=n_patients)[patient] + rng.normal(size=n) > 0.6).astype(np.float32)
    score = np.clip(0.4 + 0.2 * y + 0.15 * rng.normal(size=n_patients)[patient] + 0.15 * rng.normal(size=n), 0, 1)
    score = np.round(score * levels) / levels
    decision = (score > 0.45).astype(np.float32)
    y[rng.random(n) < 0.06] = np.nan
    decision[rng.random(n) < 0.06] = np.nan
    table = pd.DataFrame(
        {
            "image_id": np.arange(n).astype(str), "patient_id": patient,
            "sex": rng.choice(["F", "M", "unknown"], n_patients, p=[0.5, 0.4, 0.1])[patient],
            "age_group": rng.choice(["young", "middle", "old", "unknown"], n, p=[0.4, 0.3, 0.2, 0.1]),
        }
    )  # fmt: skip
    return Predictions(table, y[:, None], score[:, None], ("a",), (SEX, AGE), decision[:, None])


def forms_of(predictions, weight=None, metrics=WITH_FORM):
    groups = find_groups(predictions, (SEX, AGE))
    return groups, closed_forms([label_rows(predictions, 0)], predictions, groups, metrics, weight=weight)


def parts_of(metric: str, y, score, decision) -> tuple[np.ndarray, np.ndarray]:
    """Returns `[n]` twice: what each row adds to a metric's numerator, and whether it is in the denominator."""
    known = ~np.isnan(y)
    decided = known & ~np.isnan(decision)
    if metric in ("Brier", "log_loss"):
        p = np.clip(score, 1e-7, 1 - 1e-7)
        value = (score - y) ** 2 if metric == "Brier" else -np.where(y == 1, np.log(p), np.log(1 - p))
        return np.where(known, value, 0.0), known
    among = {
        "TPR": decided & (y == 1), "FNR": decided & (y == 1), "FPR": decided & (y == 0), "TNR": decided & (y == 0),
        "PPV": known & (decision == 1), "NPV": known & (decision == 0),
    }.get(metric, decided)  # fmt: skip
    right = {"FNR": decision == 0, "FPR": decision == 1, "selection_rate": decision == 1}.get(metric, decision == y)
    return (among & right).astype(float), among


def linearised_error(value, among, weight, patient) -> float:
    """Taylor linearisation of a ratio of two totals over patients, who are the sampled units."""
    frame = pd.DataFrame({"a": weight * value * among, "b": weight * among, "patient": patient})
    frame = frame[among & (weight > 0)].groupby("patient").sum()
    if len(frame) < 2:
        return np.nan
    ratio = frame["a"].sum() / frame["b"].sum()
    residual = frame["a"] - ratio * frame["b"]
    return np.sqrt(len(frame) * residual.var(ddof=1)) / frame["b"].sum()  # the residuals' mean is 0


def test_the_metrics_with_a_closed_form_are_those_whose_interval_needs_one():
    assert {m for m, metric in METRICS.items() if metric.interval in ("rate", "mean")} == set(RATIOS)
    assert [m for m, metric in METRICS.items() if metric.interval == "auroc"] == ["AUROC"]


weightings = st.sampled_from([None, "patient", "random", "with zeros"])


def weight_of(kind, predictions, seed):
    rng = np.random.default_rng(seed)
    patient = predictions.table["patient_id"]
    return {
        None: None, "patient": (1 / patient.map(patient.value_counts())).to_numpy(), "random": rng.random(len(patient)) + 0.1,
        "with zeros": rng.choice([0.0, 0.0, 1.0, 2.5], len(patient)),
    }[kind]  # fmt: skip


@given(st.integers(0, 2**31), st.integers(1, 120), st.sampled_from([1.0, 2.0, 5.0]), weightings)
@settings(deadline=None, max_examples=40)
def test_the_error_of_an_auroc_is_that_of_clustered_delong_on_the_rows(seed, n, images, kind):
    predictions = make_world(seed, n, images=images)
    weight = weight_of(kind, predictions, seed)
    groups, made = forms_of(predictions, weight)
    y, score, patient = predictions.y_true[:, 0], predictions.scores[:, 0], predictions.table["patient_id"].to_numpy()
    for column in range(len(groups.names)):
        own = groups.mask(column)
        expected = clustered_auroc(y[own], score[own], patient[own], None if weight is None else weight[own])
        error = np.sqrt(max(expected.variance, 0)) if not np.isnan(expected.variance) else np.nan
        assert made.errors["AUROC"][0, column] == pytest.approx(error, rel=1e-6, abs=1e-8, nan_ok=True), groups.names[column]
        assert made.n_positive_patients[0, column] == expected.n_positive_patients
        assert made.n_negative_patients[0, column] == expected.n_negative_patients
        assert made.n_patients[0, column] == expected.n_patients


@pytest.mark.slow
@given(st.integers(0, 2**31), st.integers(1, 120), st.sampled_from([1.0, 2.0, 5.0]), weightings)
@settings(deadline=None, max_examples=25)
def test_the_error_of_a_ratio_is_its_linearisation_over_patients(seed, n, images, kind):
    predictions = make_world(seed, n, images=images)
    weight = weight_of(kind, predictions, seed)
    groups, made = forms_of(predictions, weight)
    w = np.ones(n) if weight is None else weight
    patient = predictions.table["patient_id"].to_numpy()
    for metric in RATIOS:
        value, among = parts_of(metric, predictions.y_true[:, 0], predictions.scores[:, 0], predictions.decisions[:, 0])
        for column in range(len(groups.names)):
            own = groups.mask(column) & among
            expected = linearised_error(value, own, w, patient)
            name = f"{metric}, {groups.names[column]}"
            # Everyone else is found by subtraction: a variance of 0 is 1e-16, its root 1e-8.
            assert made.errors[metric][0, column] == pytest.approx(expected, rel=1e-6, abs=3e-8, nan_ok=True), name
            assert made.effective[metric][0, column] == pytest.approx(effective_n(w[own]), rel=1e-9, abs=1e-9), name
            assert made.patients[metric][0, column] == len(set(patient[own & (w > 0)])), name


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("metric", ["Brier", "accuracy", "TPR"])
def test_the_error_of_a_mean_is_statsmodels_cluster_robust_one(metric, is_weighted):
    """With one coefficient its small-sample factor G / (G - 1) (N - 1) / (N - 1) is ours."""
    predictions = make_world(1, 300, images=3)
    weight = np.random.default_rng(1).random(300) if is_weighted else None
    groups, made = forms_of(predictions, weight)
    value, among = parts_of(metric, predictions.y_true[:, 0], predictions.scores[:, 0], predictions.decisions[:, 0])
    for column in range(1, len(groups.names)):
        own = groups.mask(column) & among
        if not own.any():
            continue
        w = np.ones(own.sum()) if weight is None else weight[own]
        model = WLS(value[own], np.ones(own.sum()), weights=w)
        fitted = model.fit(cov_type="cluster", cov_kwds={"groups": predictions.table["patient_id"].to_numpy()[own]})
        assert made.errors[metric][0, column] == pytest.approx(fitted.bse[0], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("is_weighted", [False, True])
def test_on_many_patients_the_errors_are_the_spread_over_resamples(is_weighted):
    """2,000 resamples know a standard deviation to 1.6%."""
    predictions = make_world(2, 6000, images=2.5, levels=1000)
    weight = np.random.default_rng(2).random(6000) if is_weighted else None
    groups = find_groups(predictions, (SEX, AGE))
    resamples = resample_patients(predictions.table["patient_id"], 2000, seed=1)
    made = measure_cells(predictions, groups, resamples, WITH_FORM, weight=weight, is_compiled=False)
    for metric in WITH_FORM:
        of_spread = spread(made.values[metric][0, :, 1:])
        defined = ~np.isnan(of_spread)
        assert defined.sum() == len(groups.names) - 1  # all but everyone else of everyone
        np.testing.assert_allclose(made.counts.errors[metric][0, defined], of_spread[defined], rtol=0.15, err_msg=metric)
        assert np.median(made.counts.errors[metric][0, defined] / of_spread[defined]) == pytest.approx(1, abs=0.04)


@given(st.integers(0, 2**31), st.integers(1, 80), st.sampled_from([1.0, 3.0, 8.0]))
@settings(deadline=None, max_examples=25)
def test_the_counts_are_those_of_pandas(seed, n, images):
    predictions = make_world(seed, n, images=images)
    weight = np.random.default_rng(seed).choice([0.5, 1, 2], n)
    groups, made = forms_of(predictions, weight)
    table = predictions.table.assign(y=predictions.y_true[:, 0], weight=weight)
    for column, (attribute, group, is_others) in enumerate(groups.names):
        if attribute == "overall":
            own = table.iloc[:0] if is_others else table
        elif is_others:
            own = table[(table[attribute] != group) & (table[attribute] != "unknown")]
        else:
            own = table[table[attribute] == group]
        own = own[own["y"].notna()]
        assert made.n[0, column] == len(own)
        assert made.n_positive[0, column] == (own["y"] == 1).sum()
        assert made.n_patients[0, column] == own["patient_id"].nunique()
        assert made.n_positive_patients[0, column] == own.loc[own["y"] == 1, "patient_id"].nunique()
        assert made.n_negative_patients[0, column] == own.loc[own["y"] == 0, "patient_id"].nunique()
        kish = own["weight"].sum() ** 2 / (own["weight"] ** 2).sum() if len(own) else 0
        assert made.n_effective[0, column] == pytest.approx(kish)


def test_a_patient_whose_group_changes_counts_in_the_group_and_in_everyone_else(make_predictions):
    """Two images of one patient, one young and one old, of patients who never change."""
    ages = ["young", "old", "young", "old", "young", "old"]
    predictions = make_predictions(
        [[1], [1], [1], [0], [0], [1]], np.full((6, 1), 0.6), attributes=(Attribute("age_group", ("young", "old"), False),),
        age_group=ages, patient_id=["both", "both", "a", "b", "c", "d"],
    )  # fmt: skip
    groups = find_groups(predictions, predictions.attributes)
    made = closed_forms([label_rows(predictions, 0)], predictions, groups, ("TPR",))
    for group, other in (("young", "old"), ("old", "young")):
        own, others = groups.index("age_group", group), groups.index("age_group", other, others=True)
        for counts in (made.n_patients, made.n_positive_patients, made.n_negative_patients, made.patients["TPR"]):
            assert counts[0, own] == counts[0, others]  # of two groups, everyone else of one is the other
        assert made.n_patients[0, own] == 3
    assert made.n_patients[0, groups.index("overall", "all")] == 5
    assert made.n_positive_patients[0, groups.index("age_group", "young")] == 2


def test_rows_of_weight_zero_are_images_but_no_patients_behind_a_number():
    """An adjustment drops them: the image stays in the count, what the interval rests on is the patients that are left."""
    predictions = make_world(3, 400)
    weight = np.where(np.arange(400) < 330, 0.0, 1.0)
    _, made = forms_of(predictions, weight)
    left = Predictions(
        predictions.table[330:].reset_index(drop=True), predictions.y_true[330:], predictions.scores[330:], ("a",), (SEX, AGE),
        predictions.decisions[330:],
    )  # fmt: skip
    _, alone = forms_of(left)
    _, whole = forms_of(predictions)
    for metric in WITH_FORM:
        np.testing.assert_allclose(made.errors[metric], alone.errors[metric], atol=1e-8)
    np.testing.assert_array_equal(made.n_patients, alone.n_patients)
    np.testing.assert_array_equal(made.n_positive_patients, alone.n_positive_patients)
    np.testing.assert_array_equal(made.n, whole.n)
    np.testing.assert_allclose(made.n_effective, alone.n)


def test_metrics_without_a_closed_form_are_passed_over():
    groups, made = forms_of(make_world(4, 50), metrics=("AUPRC", "ECE", "TPR"))
    assert set(made.errors) == {"TPR"} and made.errors["TPR"].shape == (1, len(groups.names))


def test_a_finding_that_nobody_knows_has_counts_of_zero_and_no_error():
    predictions = make_world(5, 50)
    blank = Predictions(
        predictions.table, np.full((50, 1), np.nan, np.float32), predictions.scores, ("a",), (SEX, AGE), predictions.decisions
    )
    _, made = forms_of(blank)
    for metric in WITH_FORM:
        assert np.isnan(made.errors[metric]).all()
    assert not made.n.any() and not made.n_effective.any() and not made.n_patients.any()
