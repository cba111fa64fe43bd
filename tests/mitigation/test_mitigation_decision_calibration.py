"""Calibrators against scikit-learn's, and what must hold of any of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import special
from sklearn.calibration import _SigmoidCalibration, _TemperatureScaling
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from biascxr.metrics import auroc, log_loss
from biascxr.mitigation import resolve
from biascxr.mitigation.decision import CALIBRATORS
from biascxr.mitigation.decision.base import GroupSettings
from biascxr.mitigation.decision.isotonic import GroupIsotonic, Isotonic
from biascxr.mitigation.decision.logit_calibrator import to_logit
from biascxr.mitigation.decision.platt import GroupPlatt, Platt
from biascxr.mitigation.decision.temperature import COLDEST, HOTTEST, GroupTemperature, Temperature

PAIRS = [(Platt, GroupPlatt), (Isotonic, GroupIsotonic), (Temperature, GroupTemperature)]


def made(split_of, *, n=2000, sharpness=2.5, shift=1.0, seed=0):
    """Rows whose labels are drawn from known risks, and scores that are these risks, too sharp and too high."""
    data = split_of("calibration", n=n, seed=seed)
    risk = special.expit(np.random.default_rng(seed).normal(-1, 1.2, size=(n, 3)))
    labels = (np.random.default_rng(seed + 1).random((n, 3)) < risk).astype(np.float32)
    labels[np.isnan(data.labels)] = np.nan
    labels[:, 2] = np.where(np.isnan(labels[:, 2]), np.nan, 0)  # one class only
    scores = special.expit(sharpness * special.logit(risk) + shift).astype(np.float32)
    return replace(data, labels=labels), scores, risk


def known(data, index=0):
    return ~np.isnan(data.labels[:, index])


def test_platt_is_scikit_learns_sigmoid_calibration_on_the_logit(split_of):
    data, scores, _ = made(split_of)
    fitted = Platt().fit(data, scores)
    calibrated = fitted.calibrate(scores, data.attributes, data.label_names)
    for index in range(2):
        rows = known(data, index)
        theirs = _SigmoidCalibration().fit(to_logit(scores[rows, index]), data.labels[rows, index].astype(np.float64))
        np.testing.assert_allclose(calibrated[:, index], theirs.predict(to_logit(scores[:, index])), rtol=1e-4)


def test_platt_is_unpenalised_logistic_regression_on_his_smoothed_targets(split_of):
    data, scores, _ = made(split_of, n=120)
    rows = known(data)
    y, x = data.labels[rows, 0], to_logit(scores[rows, 0])[:, None]
    target = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
    # A target of .9 is a positive of weight .9 and a negative of weight .1.
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.r_[x, x], np.repeat([1, 0], len(y)), sample_weight=np.r_[target, 1 - target]
    )
    ours = Platt().fit(data, scores).table.iloc[0]
    assert ours["slope"] == pytest.approx(theirs.coef_.item(), rel=1e-5)
    assert ours["intercept"] == pytest.approx(theirs.intercept_.item(), rel=1e-5)


def test_temperature_is_scikit_learns_temperature_scaling(split_of):
    data, scores, _ = made(split_of, shift=0.0)
    calibrated = Temperature().fit(data, scores).calibrate(scores, data.attributes, data.label_names)
    for index in range(2):
        rows, p = known(data, index), np.column_stack([1 - scores[:, index], scores[:, index]]).astype(np.float64)
        theirs = _TemperatureScaling().fit(p[rows], data.labels[rows, index].astype(int))
        np.testing.assert_allclose(calibrated[:, index], theirs.predict(p)[:, 1], rtol=1e-5)


def test_isotonic_is_scikit_learns(split_of):
    data, scores, _ = made(split_of)
    fitted = Isotonic().fit(data, scores)
    others = np.random.default_rng(9).random((500, 3)).astype(np.float32)
    calibrated = fitted.calibrate(others, data.attributes.iloc[:500], data.label_names)
    for index in range(2):
        rows = known(data, index)
        theirs = IsotonicRegression(out_of_bounds="clip").fit(scores[rows, index].astype(np.float64), data.labels[rows, index])
        np.testing.assert_allclose(calibrated[:, index], theirs.predict(others[:, index].astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize(("kind", "sharpness", "shift"), [(Platt, 2.5, 1.0), (Isotonic, 2.5, 1.0), (Temperature, 2.5, 0.0)])
def test_known_risks_are_found_again_from_scores_that_are_too_sharp(split_of, kind, sharpness, shift):
    data, scores, risk = made(split_of, n=20000, sharpness=sharpness, shift=shift)
    calibrated = kind().fit(data, scores).calibrate(scores, data.attributes, data.label_names)
    before, after = (np.abs(s[:, :2] - risk[:, :2]).mean() for s in (scores, calibrated))
    assert before > 0.1 and after < 0.02


def test_platt_finds_the_temperature_that_temperature_finds_where_there_is_no_shift(split_of):
    data, scores, _ = made(split_of, n=20000, sharpness=2.0, shift=0.0)
    assert Temperature().fit(data, scores).table["slope"].iloc[0] == pytest.approx(1 / 2, rel=0.05)
    assert Platt().fit(data, scores).table["slope"].iloc[0] == pytest.approx(1 / 2, rel=0.05)


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("turned_round", [False, True])
def test_no_score_overtakes_another_of_its_group(split_of, name, turned_round):
    data, scores, _ = made(split_of, n=300)
    scores = 1 - scores if turned_round else scores
    kind = resolve("decision", CALIBRATORS, name)
    fitted = kind(kind.Settings(**({"attributes": ("sex",)} if kind.is_per_group else {}))).fit(data, scores)
    grid = np.repeat(np.r_[0, np.geomspace(1e-9, 0.5, 300), 1 - np.geomspace(0.5, 6e-8, 300), 1][:, None], 3, axis=1)
    for group in ("F", "M", "unknown"):
        attributes = data.attributes.iloc[np.zeros(len(grid), int)].assign(sex=group)
        calibrated = fitted.calibrate(grid.astype(np.float32), attributes, data.label_names)
        assert calibrated.dtype == np.float32 and (calibrated >= 0).all() and (calibrated <= 1).all()
        assert (np.diff(calibrated, axis=0) >= 0).all()


@pytest.mark.parametrize("kind", [Platt, Temperature])
def test_platt_and_temperature_keep_the_auroc_and_lower_the_loss(split_of, kind):
    data, scores, _ = made(split_of)
    calibrated = kind().fit(data, scores).calibrate(scores, data.attributes, data.label_names)
    for index in range(2):
        y = data.labels[:, index]
        assert auroc(y, calibrated[:, index]) == pytest.approx(auroc(y, scores[:, index]), abs=1e-6)
        assert log_loss(y, calibrated[:, index]) < log_loss(y, scores[:, index])


@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_finding_of_one_class_keeps_its_scores_to_the_last_bit_and_says_so(split_of, name):
    data, scores, _ = made(split_of, n=200)
    scores[:4, 2] = (0, 1, 1e-20, 1 - 6e-8)
    fitted = resolve("decision", CALIBRATORS, name)().fit(data, scores)
    np.testing.assert_array_equal(fitted.calibrate(scores, data.attributes, data.label_names)[:, 2], scores[:, 2])
    notes = fitted.table.loc[(fitted.table["label"] == "finding 2") & (fitted.table["attribute"] == ""), "note"]
    assert notes.str.startswith("one class only where it is fitted: scores stay as they are").all()


def test_scores_that_point_the_wrong_way_are_not_turned_round(split_of):
    data, scores, _ = made(split_of)
    row = Platt().fit(data, 1 - scores).table.iloc[0]
    assert row["slope"] == 0 and "slope 0" in row["note"]
    row = Temperature().fit(data, 1 - scores).table.iloc[0]
    assert row["slope"] == 1 / HOTTEST and "no temperature between" in row["note"]


def test_separated_classes_have_a_finite_calibration(split_of):
    data, _, _ = made(split_of, n=200)
    perfect = np.where(data.labels == 1, 0.9, 0.1).astype(np.float32)
    assert Temperature().fit(data, perfect).table["slope"].iloc[0] == 1 / COLDEST
    y = data.labels[known(data), 0]
    calibrated = Platt().fit(data, perfect).calibrate(perfect, data.attributes, data.label_names)
    n1, n0 = (y == 1).sum(), (y == 0).sum()
    expected = np.where(perfect[:, 0] > 0.5, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))  # Platt's targets, met exactly
    np.testing.assert_allclose(calibrated[:, 0], expected, rtol=1e-5)


class TestGroups:
    @pytest.fixture
    def differing(self, split_of):
        """Scores that are right for women and too high for men."""
        data, _, risk = made(split_of, n=3000)
        is_man = (data.attributes["sex"] == "M").to_numpy()[:, None]
        return data, special.expit(special.logit(risk) + np.where(is_man, 1.5, 0.0)).astype(np.float32), risk

    @pytest.mark.parametrize(("plain", "grouped"), PAIRS)
    def test_without_shrinkage_a_group_has_the_fit_of_its_own_rows(self, differing, plain, grouped):
        data, scores, _ = differing
        fitted = grouped(GroupSettings(("sex",), 0.0)).fit(data, scores)
        calibrated = fitted.calibrate(scores, data.attributes, data.label_names)
        for group in ("F", "M"):
            own = (data.attributes["sex"] == group).to_numpy()
            alone = plain().fit(data.take(own), scores[own]).calibrate(scores[own], data.attributes[own], data.label_names)
            np.testing.assert_array_equal(calibrated[own], alone)
        unknown = (data.attributes["sex"] == "unknown").to_numpy()
        for_all = plain().fit(data, scores).calibrate(scores, data.attributes, data.label_names)
        assert unknown.sum() > 200
        np.testing.assert_array_equal(calibrated[unknown], for_all[unknown])

    @pytest.mark.parametrize(("plain", "grouped"), PAIRS)
    def test_shrinkage_draws_a_group_towards_the_fit_for_all_and_at_its_limit_onto_it(self, differing, plain, grouped):
        data, scores, _ = differing
        is_man = (data.attributes["sex"] == "M").to_numpy()
        for_all = plain().fit(data, scores).calibrate(scores, data.attributes, data.label_names)
        far = []
        for shrinkage in (0.0, 100.0, 1e12):
            fitted = grouped(GroupSettings(("sex",), shrinkage)).fit(data, scores)
            calibrated = fitted.calibrate(scores, data.attributes, data.label_names)
            far.append(np.abs(calibrated - for_all)[is_man, :2].mean())
        assert far[0] > far[1] > far[2] and far[2] < 1e-6

    def test_half_shrunk_logits_lie_half_way(self, differing):
        data, scores, _ = differing
        y, men = data.labels[:, 0], (data.attributes["sex"] == "M").to_numpy()
        n = min(len(set(data.patient_id[men & (y == c)])) for c in (0, 1))
        table = GroupPlatt(GroupSettings(("sex",), float(n))).fit(data, scores).table
        own = GroupPlatt(GroupSettings(("sex",), 0.0)).fit(data, scores).table
        at = (table["label"] == "finding 0") & (table["group"] == "M")
        for name in ("slope", "intercept"):
            assert table.loc[at, name].item() == pytest.approx((own.loc[at, name].item() + own[name].iloc[0]) / 2)
        assert table.loc[at, "note"].item() == "50% its own, the rest the fit for all"

    def test_half_shrunk_isotonic_probabilities_lie_half_way(self, differing):
        data, scores, _ = differing
        y, men = data.labels[:, 0], (data.attributes["sex"] == "M").to_numpy()
        n = min(len(set(data.patient_id[men & (y == c)])) for c in (0, 1))
        grid, men = np.random.default_rng(3).random((500, 3)), data.attributes[men].iloc[:500]
        half, own = (
            GroupIsotonic(GroupSettings(("sex",), float(k))).fit(data, scores).calibrate(grid, men, data.label_names)
            for k in (n, 0)
        )
        for_all = Isotonic().fit(data, scores).calibrate(grid, men, data.label_names)
        np.testing.assert_allclose(half[:, 0], (own[:, 0] + for_all[:, 0]) / 2, atol=1e-6)

    def test_group_platt_makes_the_mean_of_a_groups_scores_its_prevalence(self, differing):
        data, scores, _ = differing
        grouped = GroupPlatt(GroupSettings(("sex",), 0.0)).fit(data, scores)
        for_all = Platt().fit(data, scores)
        off = {}
        for fitted in (grouped, for_all):
            calibrated = fitted.calibrate(scores, data.attributes, data.label_names)[:, 0]
            for group in ("F", "M"):
                own = (data.attributes["sex"] == group).to_numpy() & known(data)
                off[fitted.name, group] = abs(calibrated[own].mean() - data.labels[own, 0].mean())
        assert max(off["group_platt", g] for g in "FM") < 0.002 < 0.03 < min(off["platt", g] for g in "FM")

    @pytest.mark.parametrize(("plain", "grouped"), PAIRS)
    def test_a_group_of_one_class_gets_the_fit_for_all_and_says_so(self, split_of, plain, grouped):
        data, scores, _ = made(split_of, n=200)
        race = np.where(data.labels[:, 0] == 1, "positives only", "the rest")
        part = replace(data, attributes=data.attributes.assign(race=race))
        fitted = grouped(GroupSettings(("race",), 0.0)).fit(part, scores)
        for_all = plain().fit(data, scores).calibrate(scores, data.attributes, data.label_names)
        np.testing.assert_array_equal(fitted.calibrate(scores, part.attributes, data.label_names)[:, 0], for_all[:, 0])
        own = fitted.table[(fitted.table["label"] == "finding 0") & (fitted.table["group"] == "positives only")]
        assert len(own) and (own["note"] == "0% its own, the rest the fit for all").all()
