"""Power: the closed forms against statsmodels and published formulas, and against worlds where a gap is planted and counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import power_proportions_2indep, proportion_effectsize

from biascxr.audit.power import (
    auroc_variance,
    detectable_auroc_difference,
    detectable_difference,
    power_of_auroc_difference,
    power_of_difference,
)
from biascxr.audit.power_tables import POWER_METRICS, power_from_sizes, power_table
from biascxr.errors import InputError


@pytest.mark.parametrize("n_a", [10, 60, 400])
@pytest.mark.parametrize("n_b", [10, 90, 4000])
@pytest.mark.parametrize("rate", [0.95, 0.8, 0.5])
@pytest.mark.parametrize("difference", [0.02, 0.1, 0.3])
def test_power_is_statsmodels_power(n_a, n_b, rate, difference):
    for alpha, n_tests in ((0.05, 1), (0.01, 20)):
        # -difference: its first sample is prop2 + diff, here the group that does worse.
        wanted = power_proportions_2indep(-difference, rate, n_a, ratio=n_b / n_a, alpha=alpha / n_tests, return_results=False)
        got = power_of_difference(n_a, n_b, difference=difference, rate=rate, alpha=alpha, n_tests=n_tests)
        assert got == pytest.approx(wanted, abs=1e-12)


def test_power_is_near_that_of_cohens_h():
    """Another approximation (arcsine) says much the same where sizes are equal."""
    for n, low in ((100, 0.65), (400, 0.7), (2000, 0.76)):
        h = proportion_effectsize(0.8, low)
        wanted = NormalIndPower().power(h, n, 0.05)
        assert power_of_difference(n, n, difference=0.8 - low) == pytest.approx(wanted, abs=0.01)


def test_four_hundred_positives_each_see_80_against_70_percent_nine_times_in_ten():
    assert power_of_difference(400, 400, difference=0.1) == pytest.approx(0.906, abs=0.001)
    assert power_of_difference(100, 100, difference=0.1) == pytest.approx(0.371, abs=0.001)


sizes = st.integers(2, 5000)


@given(sizes, sizes, st.floats(0.05, 0.99), st.floats(1, 6), st.floats(0, 1), st.sampled_from([1, 56]))
@settings(deadline=None, max_examples=200)
def test_the_detectable_difference_has_the_power_and_no_smaller_one_has(n_a, n_b, rate, images, icc, n_tests):
    given_ = {"rate": rate, "images_per_patient": images, "icc": icc, "n_tests": n_tests}
    difference = detectable_difference(n_a, n_b, power=0.8, **given_)
    if np.isnan(difference):
        assert power_of_difference(n_a, n_b, difference=rate, **given_) < 0.8
        return
    assert 0 < difference <= rate
    assert power_of_difference(n_a, n_b, difference=difference, **given_) == pytest.approx(0.8, abs=1e-6)
    for smaller in np.linspace(0, difference * 0.999, 23):
        assert power_of_difference(n_a, n_b, difference=smaller, **given_) < 0.8


@given(sizes, sizes, sizes, sizes, st.floats(0.55, 0.99), st.floats(1, 6), st.floats(0, 1))
@settings(deadline=None, max_examples=100)
def test_the_detectable_auroc_difference_has_the_power_and_no_smaller_one_has(p_a, n_a, p_b, n_b, auroc, images, icc):
    given_ = {"auroc": auroc, "images_per_patient": images, "icc": icc}
    a, b = (p_a, n_a), (p_b, n_b)
    difference = detectable_auroc_difference(a, b, power=0.8, **given_)
    if np.isnan(difference):
        assert power_of_auroc_difference(a, b, difference=auroc, **given_) < 0.8
        return
    assert power_of_auroc_difference(a, b, difference=difference, **given_) == pytest.approx(0.8, abs=1e-6)
    for smaller in np.linspace(0, difference * 0.999, 23):
        assert power_of_auroc_difference(a, b, difference=smaller, **given_) < 0.8


@given(st.integers(20, 2000), st.integers(1, 5), st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_images_that_say_the_same_add_nothing_and_images_that_are_independent_count_as_patients(n, images, icc):
    one = detectable_difference(n, n)
    np.testing.assert_allclose(detectable_difference(n, n, images_per_patient=images, icc=1), one)
    as_patients = detectable_difference(n * images, n * images)
    np.testing.assert_allclose(detectable_difference(n, n, images_per_patient=images, icc=0), as_patients)
    between = detectable_difference(n, n, images_per_patient=images, icc=icc)
    assert np.isnan(one) or as_patients - 1e-9 <= between <= one + 1e-9


def test_more_patients_and_fewer_tests_see_smaller_differences():
    by_size = [detectable_difference(n, 1000) for n in (20, 50, 200, 1000)]
    assert by_size == sorted(by_size, reverse=True) and len(set(by_size)) == 4
    by_tests = [detectable_difference(200, 1000, n_tests=n) for n in (1, 4, 56)]
    assert by_tests == sorted(by_tests) and len(set(by_tests)) == 3
    assert detectable_difference(200, 1000, n_tests=5) == pytest.approx(detectable_difference(200, 1000, alpha=0.01))


def test_aurocs_follow_hanley_and_mcneils_sample_size():
    # Their n per group: [(z_a sqrt(2 V1) + z_b sqrt(V1 + V2)) / difference]^2, V = n x variance, one tail.
    for low, high in ((0.70, 0.80), (0.80, 0.90), (0.75, 0.80)):
        v1, v2 = (
            q1 + q2 - 2 * a**2 for a in (high, low) for q1, q2 in [(a / (2 - a), 2 * a**2 / (1 + a))]
        )  # equal numbers of both classes, n large
        z_a, z_b = stats.norm.ppf([0.975, 0.8])
        n = ((z_a * np.sqrt(2 * v1) + z_b * np.sqrt(v1 + v2)) / (high - low)) ** 2
        assert detectable_auroc_difference((n, n), (n, n), auroc=high) == pytest.approx(high - low, rel=0.01)


def test_the_variance_of_an_auroc_is_that_of_exponential_scores():
    """Hanley and McNeil's Q1 and Q2 are exact for exponential scores: the spread over drawn worlds is theirs."""
    rng, auroc, (n1, n0) = np.random.default_rng(0), 0.8, (30, 70)
    rate = (1 - auroc) / auroc  # P(positive above negative) = 1 / (1 + rate)
    positive, negative = rng.exponential(1 / rate, (2000, n1)), rng.exponential(1, (2000, n0))
    measured = (positive[:, :, None] > negative[:, None, :]).mean((1, 2))
    assert np.mean(measured) == pytest.approx(auroc, abs=0.004)
    assert np.std(measured) == pytest.approx(np.sqrt(auroc_variance(auroc, n1, n0)), rel=0.06)


def flagged_counts(rng, n_images: np.ndarray, rate: float, icc: float, n_worlds: int) -> np.ndarray:
    """Flagged images per patient, `[worlds, patients]`: beta-binomial, so that two images of a patient correlate by icc."""
    total = 1 / icc - 1
    return rng.binomial(n_images, rng.beta(rate * total, (1 - rate) * total, (n_worlds, len(n_images))))


def robust_rejections(counts, n_images, alpha: float) -> float:
    """Share of worlds where a z test of two rates with cluster-robust variances rejects."""
    rates, variances = [], []
    for flagged, n in zip(counts, n_images, strict=True):
        rate = flagged.sum(1) / n.sum()
        residual = flagged - rate[:, None] * n
        rates.append(rate)
        variances.append((residual**2).sum(1) / n.sum() ** 2 * len(n) / (len(n) - 1))
    z = (rates[0] - rates[1]) / np.sqrt(variances[0] + variances[1])
    return float((np.abs(z) > stats.norm.isf(alpha / 2)).mean())


def donner_rejections(counts, n_images, alpha: float) -> float:
    """Share of worlds where Donner's adjusted chi-square (pooled rate, pooled ICC by analysis of variance) rejects."""
    n_patients, total = sum(len(n) for n in n_images), sum(n.sum() for n in n_images)
    rates = [flagged.sum(1) / n.sum() for flagged, n in zip(counts, n_images, strict=True)]
    pooled = sum(flagged.sum(1) for flagged in counts) / total
    weighted = [(n**2).sum() / n.sum() for n in n_images]
    between = within = 0.0
    for flagged, n, rate in zip(counts, n_images, rates, strict=True):
        between = between + (n * (flagged / n - rate[:, None]) ** 2).sum(1) / (n_patients - 2)
        within = within + (flagged * (n - flagged) / n).sum(1) / (total - n_patients)
    icc = (between - within) / (between + ((total - sum(weighted)) / (n_patients - 2) - 1) * within)
    variance = sum((1 + (m - 1) * icc) / n.sum() for m, n in zip(weighted, n_images, strict=True)) * pooled * (1 - pooled)
    return float((np.abs(rates[0] - rates[1]) > stats.norm.isf(alpha / 2) * np.sqrt(variance)).mean())


def clustered_table(n_images: dict[str, np.ndarray]) -> pd.DataFrame:
    """A table where every image of every patient is positive, but for two patients per group."""
    parts = []
    for group, n in n_images.items():
        patient = np.repeat(np.arange(len(n) + 2), np.r_[n, 1, 1])
        parts.append(pd.DataFrame({"patient_id": [f"{group}{p}" for p in patient], "sex": group}))
        parts[-1]["true_Edema"] = (patient < len(n)).astype(float)
    return pd.concat(parts, ignore_index=True)


@pytest.mark.slow
@pytest.mark.parametrize("n_patients", [(80, 80), (60, 400), (400, 400)])
@pytest.mark.parametrize("icc", [0.2, 0.5])
def test_the_detectable_difference_is_seen_in_four_of_five_worlds_with_uneven_clusters(n_patients, icc):
    rng = np.random.default_rng(0)
    n_images = [1 + rng.poisson(rng.gamma(1, 1.5, n)) for n in n_patients]  # mean 2.5, up to a dozen and more
    table = power_table(clustered_table(dict(zip("FM", n_images, strict=True))), attributes=["sex"], metrics=["TPR"], icc=icc)
    difference = table.loc[table["group"] == "F", "detectable_TPR"].item()
    rates = (0.8 - difference, 0.8)
    counts = [flagged_counts(rng, n, rate, icc, 2000) for n, rate in zip(n_images, rates, strict=True)]
    assert donner_rejections(counts, n_images, 0.05) == pytest.approx(0.8, abs=0.035)
    assert robust_rejections(counts, n_images, 0.05) == pytest.approx(0.8, abs=0.06)
    # Counting images as if they were patients promises a smaller difference, which is not seen that often.
    naive = detectable_difference(*(n.sum() for n in n_images))
    counts = [flagged_counts(rng, n, rate, icc, 2000) for n, rate in zip(n_images, (0.8 - naive, 0.8), strict=True)]
    assert robust_rejections(counts, n_images, 0.05) < 0.74


@pytest.mark.slow
@pytest.mark.parametrize("n_patients", [((60, 150), (60, 150)), ((40, 200), (150, 600))])
@pytest.mark.parametrize("images", [1, 3])
def test_the_detectable_auroc_difference_is_seen_in_four_of_five_worlds(n_patients, images):
    rng, icc, n_worlds = np.random.default_rng(0), 0.5, 300
    difference = detectable_auroc_difference(*n_patients, images_per_patient=images, icc=icc)
    aurocs = []
    for (n1, n0), auroc in zip(n_patients, (0.8 - difference, 0.8), strict=True):
        y = np.repeat(np.r_[np.ones(n1), np.zeros(n0)], images)
        of_patient = np.repeat(rng.normal(0, np.sqrt(icc), (n_worlds, n1 + n0)), images, axis=1)
        score = of_patient + rng.normal(0, np.sqrt(1 - icc), of_patient.shape) + y * np.sqrt(2) * stats.norm.ppf(auroc)
        aurocs.append(np.array([roc_auc_score(y, s) for s in score]))
    # The standard error is the spread over the worlds: this asks for the closed form, not for an estimator of it.
    z = (aurocs[1] - aurocs[0]) / np.sqrt(aurocs[0].var(ddof=1) + aurocs[1].var(ddof=1))
    assert (z > stats.norm.isf(0.025)).mean() == pytest.approx(0.8, abs=0.08)


def test_too_few_patients_have_no_detectable_difference():
    assert np.isnan(detectable_difference(1, 1000)) and np.isnan(power_of_difference(1000, 1, difference=0.1))
    assert np.isnan(detectable_difference(3, 3, rate=0.5)), "even 0 against .5 is not seen"
    assert np.isnan(detectable_auroc_difference((1, 50), (50, 50)))
    assert np.isnan(power_of_auroc_difference((50, 50), (50, 1), difference=0.1))


def small_table() -> pd.DataFrame:
    """60 patients with one to three images, two attributes, two findings of which the second is rare in one group."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), rng.integers(1, 4, 60))
    table = pd.DataFrame({"patient_id": patient, "sex": np.array(["F", "M"])[patient % 2]})
    table["race"] = np.where(patient < 8, "unknown", np.where(patient < 40, "A", "B"))
    table["true_Edema"] = (rng.random(len(patient)) < 0.5).astype(float)
    table["true_Hernia"] = np.where(patient >= 40, np.where(patient == 41, 1.0, 0.0), (patient % 3 == 0).astype(float))
    table.loc[::17, "true_Edema"] = np.nan
    return table


def test_the_table_counts_patients_of_the_class_in_each_group():
    table = small_table()
    made = power_table(table, attributes=["sex", "race"])
    assert list(zip(made["label"], made["attribute"], made["group"], strict=True)) == [
        (label, attribute, group)
        for label in ("Edema", "Hernia")
        for attribute, groups in (("sex", "FM"), ("race", "AB"))
        for group in groups
    ]
    for row in made.itertuples():
        own = table[(table[row.attribute] == row.group) & table[f"true_{row.label}"].notna()]
        positive, negative = (own[own[f"true_{row.label}"] == c].groupby("patient_id").size() for c in (1, 0))
        assert row.n_patients == own["patient_id"].nunique()
        assert (row.n_positive_patients, row.n_negative_patients) == (len(positive), len(negative))
        assert row.images_per_patient == pytest.approx(len(own) / own["patient_id"].nunique())
        for images, effect in ((positive, row.design_effect_positive), (negative, row.design_effect_negative)):
            assert effect == pytest.approx(1 + ((images**2).sum() / images.sum() - 1) * 0.5)
        assert row.n_tests == 4


def test_the_table_agrees_with_the_function_where_every_patient_has_one_image():
    table = small_table().drop_duplicates("patient_id").dropna()
    made = power_table(table, attributes=["sex"], rates={"TPR": 0.9, "FPR": 0.1}, n_tests=7).set_index(["label", "group"])
    positive, negative = (table[table["true_Edema"] == c]["sex"].value_counts() for c in (1, 0))
    row = made.loc[("Edema", "F")]
    assert row["detectable_TPR"] == pytest.approx(detectable_difference(positive["F"], positive["M"], rate=0.9))
    adjusted = detectable_difference(positive["F"], positive["M"], rate=0.9, n_tests=7)
    assert row["detectable_TPR_adjusted"] == pytest.approx(adjusted, nan_ok=True)
    assert row["detectable_FPR"] == pytest.approx(detectable_difference(negative["F"], negative["M"], rate=0.9))
    auroc = detectable_auroc_difference((positive["F"], negative["F"]), (positive["M"], negative["M"]))
    assert row["detectable_AUROC"] == pytest.approx(auroc)


def test_a_higher_false_positive_rate_is_what_is_detected():
    made = power_from_sizes({"F": 300, "M": 300}, 0.5, metrics=["FPR"]).iloc[0]
    up = made["detectable_FPR"]
    wanted = power_proportions_2indep(up, 0.2, 150, ratio=1, alpha=0.05, return_results=False)
    assert wanted == pytest.approx(0.8, abs=1e-6)


def test_cells_that_are_too_small_are_nan_with_a_reason():
    made = power_table(small_table(), attributes=["race"]).set_index(["label", "group"])
    hernia = made.loc[("Hernia", "B")]
    assert hernia["n_positive_patients"] == 1
    assert np.isnan(hernia[["detectable_TPR", "detectable_AUROC", "detectable_TPR_adjusted"]].astype(float)).all()
    assert not np.isnan(hernia["detectable_FPR"])
    assert "TPR: under 2 patients" in hernia["note"] and "FPR: under 2" not in hernia["note"]
    few = power_from_sizes({"F": 6, "M": 6}, 0.5, rates={"TPR": 0.5}, n_tests=50).iloc[0]
    assert np.isnan(few["detectable_TPR"]) and "TPR: too few patients to detect any difference" in few["note"]
    some = power_from_sizes({"F": 40, "M": 10}, 0.5, n_tests=10**6).iloc[1]
    assert not np.isnan(some["detectable_TPR"]) and np.isnan(some["detectable_TPR_adjusted"])
    assert "TPR: too few patients to detect any difference once adjusted" in some["note"]
    assert "AUROC: under 10 patients" in power_from_sizes({"F": 400, "M": 18}, 0.5).iloc[1]["note"]


def test_an_attribute_with_one_known_group_has_nobody_to_compare_with():
    made = power_table(small_table().assign(sex="F"), attributes=["sex"])
    assert np.isnan(made[[f"detectable_{m}" for m in POWER_METRICS]].to_numpy()).all()
    assert made["note"].str.contains("under 2 patients of the class on a side").all()


def test_a_patient_in_two_groups_is_told():
    table = small_table()
    assert not power_table(table, attributes=["sex"])["note"].str.contains("both sides").any()
    table.loc[table.index[table["patient_id"] == 20][0], "patient_id"] = 21
    assert power_table(table, attributes=["sex"])["note"].str.contains("1 patients are on both sides").any()


def test_unknown_groups_empty_cells_and_the_order_of_rows_change_nothing():
    table = small_table()
    made = power_table(table, attributes=["race"])
    shuffled = table.sample(frac=1, random_state=0).assign(patient_id=lambda t: t["patient_id"].astype(str))
    shuffled.loc[shuffled["race"] == "unknown", "race"] = None
    pd.testing.assert_frame_equal(made, power_table(shuffled, attributes=["race"]))


def test_sizes_alone_say_what_a_table_of_these_sizes_says():
    n = {"A": 120, "B": 40, "C": 25}
    patient = np.arange(185)
    race = np.repeat(list(n), list(n.values()))
    y = np.concatenate([np.arange(k) < round(k * p) for k, p in zip(n.values(), (0.5, 0.2, 0.4), strict=True)])
    table = pd.DataFrame({"patient_id": patient, "race": race, "true_Edema": y.astype(float)})
    table = table.loc[table.index.repeat(2)].reset_index(drop=True)
    from_table = power_table(table, attributes=["race"], n_tests=3)
    from_sizes = power_from_sizes(n, {"A": 0.5, "B": 0.2, "C": 0.4}, images_per_patient=2.0, n_tests=3)
    pd.testing.assert_frame_equal(from_table.drop(columns=["label", "attribute"]), from_sizes)


def test_what_cannot_be_used_is_said():
    for options, message in (
        ({"rate": 80}, "rate must lie between 0 and 1; got 80. Give a fraction"),
        ({"power": 1.0}, "power must lie between 0 and 1"),
        ({"alpha": 5}, "alpha must lie between 0 and 1"),
        ({"power": 0.05, "alpha": 0.1}, "power must be above alpha"),
        ({"icc": 1.5}, "icc must lie in"),
        ({"n_tests": 0}, "n_tests must be at least 1"),
        ({"images_per_patient": 0.5}, "images_per_patient must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            detectable_difference(50, 50, **options)
    with pytest.raises(InputError, match=r"difference must lie between 0 and the reference, 0\.8; got 0\.9"):
        power_of_difference(50, 50, difference=0.9)
    table = small_table()
    with pytest.raises(InputError, match=r"Unknown column .* 'age'"):
        power_table(table, attributes=["age"])
    with pytest.raises(InputError, match="true_<label>"):
        power_table(table[["patient_id", "sex"]], attributes=["sex"])
    with pytest.raises(InputError, match=r"true_Edema must hold 0, 1 or nothing; got \[-1\.0\]"):
        power_table(table.assign(true_Edema=-1.0), attributes=["sex"])
    with pytest.raises(InputError, match=r"Unknown metric of a power table 'AUC'. Did you mean 'AUROC'"):
        power_table(table, attributes=["sex"], metrics=["AUC"])
    with pytest.raises(InputError, match="at least two groups"):
        power_from_sizes({"F": 10}, 0.5)
    with pytest.raises(InputError, match=r"Unknown group in prevalence .* 'M'"):
        power_from_sizes({"F": 10, "M": 10}, {"F": 0.5})
    with pytest.raises(InputError, match="Group 'F' needs"):
        power_from_sizes({"F": 10, "M": 10}, 30)
