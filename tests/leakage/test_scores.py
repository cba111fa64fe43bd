"""An AUROC within folds and strata is the sum over its pairs; its interval counts patients, and never closes on 1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from biascxr.containers import Attribute
from biascxr.leakage.readout import Readout
from biascxr.leakage.scores import confusion_rows, one_vs_rest, roc_rows
from biascxr.metrics.delong import clustered_auroc
from biascxr.metrics.intervals import logit_t_interval

COLUMNS = ["control", "group", "auroc", "low", "high", "p_value", "n", "n_group", "n_patients", "n_group_patients", "setting"]


def readout(seed: int = 0, *, n_patients: int = 60, k: int = 3, strength: float = 0.7, n_folds: int = 1, varies: bool = False):
    """One to five images a patient, scores with a patient effect, of two digits (so that some are tied)."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 6, n_patients))
    n = len(patient)
    codes = rng.choice(k, n, p=[0.5, *[0.5 / (k - 1)] * (k - 1)]) if varies else rng.choice(k, n_patients)[patient]
    scores = rng.normal(size=(n_patients, k))[patient] + rng.normal(size=(n, k)) + strength * np.eye(k)[codes]
    names = tuple("ABCDE"[:k])
    ids = np.array([f"p{i}" for i in patient], object)
    return Readout(
        Attribute("race", names, not varies),
        "knn",
        np.arange(n),
        codes,
        scores.round(1),
        patient % n_folds,
        ids,
        "k = 5",
        np.nan,
    )


def of(rows: list[dict], group: str) -> dict:
    (found,) = [row for row in rows if row["group"] == group]
    return found


def pairs_won(is_group, score, cell, weight) -> float:
    """The AUROC pair by pair."""
    won = total = 0.0
    for i in np.flatnonzero(is_group):
        for j in np.flatnonzero(~is_group):
            if cell[i] == cell[j] >= 0:
                total += weight[i] * weight[j]
                won += weight[i] * weight[j] * (0.5 + 0.5 * np.sign(score[i] - score[j]))
    return won / total


def standard_error(row: dict, df: int) -> float:
    """Read back from the interval."""
    from scipy import special, stats

    half = (special.logit(row["high"]) - special.logit(row["low"])) / 2
    return half * row["auroc"] * (1 - row["auroc"]) / stats.t.ppf(0.975, df)


@pytest.mark.parametrize("varies", [False, True], ids=["constant", "varies within patients"])
@pytest.mark.parametrize("weighted", [False, True])
def test_in_one_stratum_it_is_the_clustered_auroc_and_its_logit_t_interval(varies, weighted):
    made = readout(varies=varies)
    weight = np.random.default_rng(1).uniform(0, 2, len(made)) if weighted else None
    rows = one_vs_rest(made, confidence=0.9, weight=weight)
    for g, group in enumerate("ABC"):
        peer = clustered_auroc((made.codes == g).astype(float), made.scores[:, g], made.patient_id, weight)
        df = min(peer.n_positive_patients, peer.n_negative_patients) - 1
        low, high = logit_t_interval(peer.value, np.sqrt(peer.variance), 0.9, df=df)
        row = of(rows, group)
        assert (row["auroc"], row["low"], row["high"]) == pytest.approx((peer.value, low, high), rel=1e-9)
        assert (row["n_group_patients"], row["n_patients"]) == (peer.n_positive_patients, peer.n_patients)
        assert (row["n"], row["n_group"]) == (len(made), (made.codes == g).sum())
    assert of(rows, "macro")["auroc"] == pytest.approx(np.mean([of(rows, g)["auroc"] for g in "ABC"]))
    assert list(rows[0]) == COLUMNS and all(np.isnan(row["p_value"]) and row["setting"] == "k = 5" for row in rows)


def test_within_folds_and_strata_it_is_the_share_of_pairs_won_there():
    made = readout(2, n_folds=3)
    rng = np.random.default_rng(0)
    strata, weight = rng.integers(-1, 3, len(made)), rng.uniform(0.2, 2, len(made))
    cell = np.where(strata < 0, -1, 10 * made.fold + strata)
    rows = one_vs_rest(made, confidence=0.95, strata=strata, weight=weight, control="within_view")
    for g, group in enumerate("ABC"):
        expected = pairs_won(made.codes == g, made.scores[:, g], cell, weight)
        assert of(rows, group)["auroc"] == pytest.approx(expected, abs=1e-12)
    assert {row["control"] for row in rows} == {"within_view"}
    moved = made.with_scores(made.scores + 100.0 * cell[:, None])
    assert of(one_vs_rest(moved, confidence=0.95, strata=strata, weight=weight), "macro")["auroc"] == pytest.approx(
        of(rows, "macro")["auroc"]
    )


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("stratified", [False, True])
def test_standard_errors_are_those_of_leaving_out_one_patient_after_another(k, stratified):
    made = readout(5, n_patients=150, k=k)
    strata = np.random.default_rng(3).integers(0, 4, len(made)) if stratified else None
    rows = one_vs_rest(made, confidence=0.95, strata=strata)
    patients = np.unique(made.patient_id)
    without = []
    for patient in patients:
        weight = (made.patient_id != patient).astype(float)
        without.append([row["auroc"] for row in one_vs_rest(made, confidence=0.95, strata=strata, weight=weight)])
    without = np.array(without)
    jackknife = np.sqrt((len(patients) - 1) / len(patients) * ((without - without.mean(0)) ** 2).sum(0))
    smaller = [min(row["n_group_patients"], 150 - row["n_group_patients"]) for row in rows[:-1]]
    for column, row in enumerate(rows):
        df = (min(smaller) if row["group"] == "macro" else smaller[column]) - 1
        assert standard_error(row, df) == pytest.approx(jackknife[column], rel=0.06)


def test_the_mean_has_the_degrees_of_freedom_of_the_smallest_group():
    made = readout(4, n_patients=90)
    small = np.isin(made.patient_id, ["p1", "p2", "p3"])
    made = replace(made, codes=np.where(small, 2, np.arange(len(made)) % 2))
    *groups, macro = one_vs_rest(made, confidence=0.95)
    assert groups[2]["n_group_patients"] == 3
    values = np.array([row["auroc"] for row in groups])
    without = []
    for patient in np.unique(made.patient_id):
        weight = (made.patient_id != patient).astype(float)
        without.append(one_vs_rest(made, confidence=0.95, weight=weight)[-1]["auroc"])
    jackknife = np.sqrt((len(without) - 1) * np.var(without))
    assert standard_error(macro, 2) == pytest.approx(jackknife, rel=0.3) and macro["auroc"] == pytest.approx(values.mean())


def test_of_two_groups_with_mirrored_scores_the_mean_is_as_uncertain_as_each():
    made = readout(k=2)
    made = made.with_scores(np.c_[made.scores[:, 0], -made.scores[:, 0]])
    rows = one_vs_rest(made, confidence=0.95)
    for column in ("auroc", "low", "high"):
        assert of(rows, "macro")[column] == pytest.approx(of(rows, "A")[column]) == pytest.approx(of(rows, "B")[column])


def test_a_weight_of_two_is_the_row_twice_and_of_zero_no_row():
    made = readout(3)
    weight = np.random.default_rng(0).integers(0, 3, len(made))
    twice = np.repeat(np.arange(len(made)), weight)
    copies = replace(
        made, **{name: getattr(made, name)[twice] for name in ("rows", "codes", "scores", "fold", "patient_id")}
    )  # fmt: skip
    weighted, copied = (one_vs_rest(r, confidence=0.95, weight=w) for r, w in ((made, weight), (copies, None)))
    for one, other in zip(weighted, copied, strict=True):
        same = ("auroc", "low", "high", "n_patients", "n_group_patients")
        assert [one[c] for c in same] == pytest.approx([other[c] for c in same])
        assert one["n"] == (weight > 0).sum()


def test_a_group_read_without_mistake_has_an_interval_that_a_few_patients_can_support():
    made = readout(k=2, n_patients=30)
    made = made.with_scores(np.eye(2)[made.codes])
    smaller = min(len(np.unique(made.patient_id[made.codes == g])) for g in (0, 1))
    for row in one_vs_rest(made, confidence=0.95):
        assert (row["auroc"], row["high"]) == (1, 1)
        assert row["low"] == pytest.approx(0.025 ** (1 / smaller))


class TestUndefined:
    def test_a_group_of_one_patient_is_undefined_and_the_mean_is_of_the_others(self):
        made = readout(k=3)
        codes = np.where(made.codes == 2, 0, made.codes)
        codes[made.patient_id == "p7"] = 2
        rows = one_vs_rest(replace(made, codes=codes), confidence=0.95)
        alone = of(rows, "C")
        assert np.isnan([alone["auroc"], alone["low"], alone["high"]]).all() and alone["n_group_patients"] == 1
        assert of(rows, "macro")["auroc"] == pytest.approx((of(rows, "A")["auroc"] + of(rows, "B")["auroc"]) / 2)

    def test_a_column_without_scores_is_undefined_and_keeps_its_counts(self):
        made = readout()
        scores = made.scores.copy()
        scores[:, 1] = np.nan
        row = of(one_vs_rest(made.with_scores(scores), confidence=0.95), "B")
        assert np.isnan(row["auroc"]) and row["n_group"] == (made.codes == 1).sum()

    def test_a_fold_without_scores_of_a_group_is_left_out_for_that_group_only(self):
        made = readout(n_folds=3)
        scores = made.scores.copy()
        scores[made.fold == 1, 1] = np.nan
        rows = one_vs_rest(made.with_scores(scores), confidence=0.95)
        cell = np.where(made.fold == 1, -1, made.fold)
        assert of(rows, "B")["auroc"] == pytest.approx(
            pairs_won(made.codes == 1, made.scores[:, 1], cell, np.ones(len(made)))
        )  # fmt: skip
        assert of(rows, "B")["n"] == (made.fold != 1).sum() and of(rows, "A")["n"] == len(made)

    def test_refused_weights_give_no_number(self):
        made = readout()
        rows = one_vs_rest(made, confidence=0.95, weight=np.full(len(made), np.nan))
        assert all(np.isnan([row["auroc"], row["low"], row["high"]]).all() and row["n"] == len(made) for row in rows)

    def test_a_stratum_with_one_group_alone_compares_nothing(self):
        made = readout()
        rows = one_vs_rest(made, confidence=0.95, strata=made.codes)
        assert all(np.isnan(row["auroc"]) for row in rows)

    def test_strata_and_weights_that_do_not_fit_are_refused(self):
        made = readout()
        with pytest.raises(ValueError, match="strata must have a value for each of"):
            one_vs_rest(made, confidence=0.95, strata=np.zeros(3))
        with pytest.raises(ValueError, match="weight must be 0 or more"):
            one_vs_rest(made, confidence=0.95, weight=np.full(len(made), -1.0))


class TestCurvesAndConfusion:
    def test_a_curve_is_scikit_learns_at_the_grid(self):
        made = readout()
        rows = [row for row in roc_rows(made) if row["group"] == "B"]
        fpr, tpr, _ = roc_curve(made.codes == 1, made.scores[:, 1], drop_intermediate=False)
        assert [row["fpr"] for row in rows] == pytest.approx(np.arange(51) / 50)
        inside = np.array([row["tpr"] for row in rows])[1:]
        assert inside == pytest.approx(np.interp(np.arange(1, 51) / 50, fpr, tpr))
        assert rows[0]["n"] == len(made) and list(rows[0]) == ["group", "fpr", "tpr", "n", "n_group_patients"]

    def test_the_area_under_the_curve_of_several_folds_is_their_auroc(self):
        made = readout(n_patients=300, strength=1.0)
        fold = (np.arange(len(made)) >= 100).astype(np.int64)  # a small fold that is read the wrong way round, on its own scale
        made = replace(made, fold=fold, scores=np.where(fold[:, None] == 0, 7 - made.scores, made.scores))
        rows = [row for row in roc_rows(made) if row["group"] == "A"]
        area = np.trapezoid([row["tpr"] for row in rows], [row["fpr"] for row in rows])
        assert area == pytest.approx(of(one_vs_rest(made, confidence=0.95), "A")["auroc"], abs=0.005)
        assert abs(area - roc_auc_score(made.codes == 0, made.scores[:, 0])) > 0.02

    def test_confusion_is_scikit_learns_by_recorded_group(self):
        made = readout()
        expected = confusion_matrix(made.codes, made.scores.argmax(1), normalize="true")
        rows = confusion_rows(made)
        assert [row["share"] for row in rows] == pytest.approx(expected.ravel())
        assert {row["n"] for row in rows if row["group"] == "B"} == {(made.codes == 1).sum()}

    def test_undefined_columns_are_never_read_as_and_empty_groups_have_no_share(self):
        made = readout()
        scores = np.where([False, False, True], np.nan, made.scores)
        made = replace(made, scores=scores, codes=np.where(made.codes == 1, 0, made.codes))
        rows = confusion_rows(made)
        assert all(row["share"] == 0 for row in rows if row["read_as"] == "C" and row["group"] != "B")
        assert all(np.isnan(row["share"]) and row["n"] == 0 for row in rows if row["group"] == "B")
        assert all(np.isnan(row["tpr"]) for row in roc_rows(made) if row["group"] == "C")
