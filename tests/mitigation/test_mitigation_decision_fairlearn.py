"""`equalized_odds` and `demographic_parity`: fairlearn's solution, kept as numbers, drawn from the row itself."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from fairlearn.postprocessing import ThresholdOptimizer
from scipy import stats

from biascxr.errors import InputError
from biascxr.mitigation.decision.demographic_parity import DemographicParity
from biascxr.mitigation.decision.equalized_odds import EqualizedOdds
from biascxr.mitigation.decision.isotonic import Isotonic
from biascxr.mitigation.decision.threshold_optimizer import ScoreEstimator, ThresholdOptimizerSettings, row_draws

BOTH = [EqualizedOdds, DemographicParity]
SEX = ThresholdOptimizerSettings(attributes=("sex",))
FINDINGS = ("finding 0", "finding 1", "finding 2")


@pytest.fixture(scope="module")
def calibration(split_of):
    """1,000 rows, scores that separate women better than men, all labels known but one, and no group unknown."""
    data = split_of("calibration", n=1000, n_labels=3, sex=np.random.default_rng(5).choice(["F", "M"], 1000, p=[0.7, 0.3]))
    labels = np.nan_to_num(data.labels)
    labels[0, 0] = np.nan
    signal = np.where(data.attributes["sex"] == "F", 0.4, 0.15)[:, None] * np.nan_to_num(labels)
    scores = np.clip(np.random.default_rng(0).normal(0.3 + signal, 0.15), 0, 1).astype(np.float32)
    return replace(data, labels=labels), scores


def rates(data, probability, index):
    """Returns per group the expected (TPR, FPR, selection rate)."""
    out = []
    for group in sorted(set(data.attributes["sex"])):
        y, p = (values[(data.attributes["sex"] == group).to_numpy(), index] for values in (data.labels, probability))
        out.append((p[y == 1].mean(), p[y == 0].mean(), p[~np.isnan(y)].mean()))
    return np.array(out)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("objective", ["balanced_accuracy_score", "accuracy_score"])
def test_probabilities_are_fairlearns_own_to_the_last_bit(calibration, kind, objective):
    data, scores = calibration
    rule = kind(ThresholdOptimizerSettings(("sex",), objective)).fit(data, scores)
    others = np.random.default_rng(1).random((1000, 3))
    at_a_threshold = rule.table[["threshold0", "threshold1"]].to_numpy().ravel()
    at_a_threshold = at_a_threshold[np.isfinite(at_a_threshold)]
    others[: len(at_a_threshold) * 5] = np.tile(at_a_threshold, 5)[:, None]  # where > and >= are not the same
    ours = rule.flag_probability(others, data.attributes, FINDINGS)
    for index in range(2):
        rows = ~np.isnan(data.labels[:, index])
        theirs = ThresholdOptimizer(estimator=ScoreEstimator(), constraints=kind.constraints, objective=objective, prefit=True)
        theirs.fit(
            scores[rows, index, None].astype(np.float64),
            data.labels[rows, index],
            sensitive_features=data.attributes["sex"][rows],
        )
        expected = theirs._pmf_predict(others[:, index, None], sensitive_features=data.attributes["sex"])
        np.testing.assert_array_equal(ours[:, index], expected[:, 1])
        if kind is EqualizedOdds:
            assert ((expected[:, 1] > 0) & (expected[:, 1] < 1)).any()  # something is drawn


@pytest.mark.parametrize(("kind", "constrained"), [(EqualizedOdds, [0, 1]), (DemographicParity, [2])])
def test_the_constraint_holds_exactly_on_the_fitting_rows_in_expectation(calibration, kind, constrained):
    data, scores = calibration
    rule = kind(SEX).fit(data, scores)
    probability = rule.flag_probability(scores, data.attributes, FINDINGS)
    for index in range(2):
        reached = rates(data, probability, index)
        np.testing.assert_allclose(reached[0, constrained], reached[1, constrained], atol=1e-12)
        one_threshold = rates(data, (scores >= 0.4) * 1.0, index)
        assert np.abs(one_threshold[0, constrained] - one_threshold[1, constrained]).max() > 0.05


@pytest.mark.parametrize(("kind", "constrained"), [(EqualizedOdds, [0, 1]), (DemographicParity, [2])])
def test_drawn_decisions_meet_it_but_for_the_draw(calibration, kind, constrained):
    data, scores = calibration
    gaps, fitted = [], kind(SEX).fit(data, scores)
    for seed in range(20):
        rule = kind(ThresholdOptimizerSettings(("sex",), seed=seed))
        rule.table = fitted.table
        reached = rates(data, rule.decide(scores, data.attributes, FINDINGS), 0)
        gaps.append(reached[0, constrained] - reached[1, constrained])
    assert np.abs(np.mean(gaps, axis=0)).max() < 0.02 and np.abs(gaps).max() < 0.15


@pytest.mark.parametrize("kind", BOTH)
def test_a_saved_rule_decides_without_fairlearn_and_alike(calibration, kind, tmp_path, monkeypatch):
    data, scores = calibration
    rule = kind(SEX).fit(data, scores)
    decisions = rule.decide(scores, data.attributes, FINDINGS)
    rule.save(tmp_path / "thresholds.csv")
    monkeypatch.setitem(sys.modules, "fairlearn", None)
    monkeypatch.setitem(sys.modules, "fairlearn.postprocessing", None)
    loaded = kind(SEX).load(tmp_path / "thresholds.csv")
    np.testing.assert_array_equal(loaded.decide(scores, data.attributes, FINDINGS), decisions)
    with pytest.raises(ImportError):
        kind(SEX).fit(data, scores)


class TestOutsideTheConstraint:
    @pytest.mark.parametrize("kind", BOTH)
    def test_a_group_of_one_class_gets_the_solution_for_all_and_the_others_stay_equal(self, calibration, kind):
        data, scores = calibration
        lone = (data.attributes["sex"] == "F").to_numpy() & (data.labels[:, 0] == 1) & (np.arange(1000) < 300)
        part = replace(data, attributes=data.attributes.assign(sex=data.attributes["sex"].mask(lone, "O")))
        rule = kind(SEX).fit(part, scores)
        table = rule.table[rule.table["label"] == "finding 0"].set_index("group")
        numbers = ["p0", "threshold0", "p1", "threshold1", "p_ignore", "constant"]
        assert table.loc["O", numbers].equals(table.loc["all", numbers].rename("O"))
        assert table.loc["O", "note"] == "one class only in this group: the solution for all"
        f_and_m = replace(part.take(~lone))
        reached = rates(f_and_m, rule.flag_probability(scores[~lone], f_and_m.attributes, FINDINGS), 0)
        constrained = [0, 1] if kind is EqualizedOdds else [2]
        np.testing.assert_allclose(reached[0, constrained], reached[1, constrained], atol=1e-12)

    @pytest.mark.parametrize("kind", BOTH)
    def test_for_all_is_everyone_as_one_group_the_unknown_too(self, calibration, kind):
        data, scores = calibration
        part = replace(
            data, attributes=data.attributes.assign(sex=data.attributes["sex"].where(np.arange(1000) < 800, "unknown"))
        )
        rule, one = (
            kind(SEX).fit(part, scores),
            kind(SEX).fit(replace(data, attributes=data.attributes.assign(sex="x")), scores),
        )
        for table in (rule.table, one.table):
            table.set_index(["label", "attribute"], inplace=True)
        numbers = ["p0", "threshold0", "p1", "threshold1", "p_ignore", "constant"]
        for_all = rule.table.xs("", level="attribute")[numbers]
        assert for_all.equals(one.table.xs("", level="attribute")[numbers])
        assert one.table.loc[("finding 0", "sex"), "note"].startswith("no second group has both classes")
        assert for_all.equals(one.table.xs("sex", level="attribute")[numbers])
        theirs = ThresholdOptimizer(
            estimator=ScoreEstimator(), constraints=kind.constraints, objective="balanced_accuracy_score", prefit=True
        )
        everyone = np.zeros(1000)
        theirs.fit(scores[:, 1:2].astype(np.float64), data.labels[:, 1], sensitive_features=everyone)
        expected = theirs._pmf_predict(scores[:, 1:2].astype(np.float64), sensitive_features=everyone)[:, 1]
        rule.table.reset_index(inplace=True)
        unknown = part.attributes.assign(sex="unknown")
        np.testing.assert_array_equal(rule.flag_probability(scores, unknown, FINDINGS)[:, 1], expected)

    def test_a_finding_of_one_class_has_no_decision(self, calibration):
        data, scores = calibration
        rule = EqualizedOdds(SEX).fit(data, scores)
        assert np.isnan(rule.decide(scores, data.attributes, FINDINGS)[:, 2]).all()
        assert rule.table.loc[rule.table["label"] == "finding 2", "note"].str.startswith("one class only").all()


class TestDraws:
    @pytest.mark.parametrize("n_labels", [1, 3])
    def test_they_are_uniform_whatever_the_scores_and_independent_of_them(self, n_labels):
        rng = np.random.default_rng(0)
        for spread in (0.01, 2.0):  # scores of a rare finding lie within a hair of each other
            logits = rng.normal(-4, spread, (20000, n_labels))
            scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
            draws = row_draws(scores, FINDINGS[:n_labels], seed=1)
            assert draws.shape == scores.shape and (draws >= 0).all() and (draws < 1).all()
            for index in range(n_labels):
                assert stats.kstest(draws[:, index], "uniform").pvalue > 1e-3
                assert abs(stats.spearmanr(draws[:, index], scores[:, index]).statistic) < 0.03
            if n_labels > 1:
                assert np.abs(np.corrcoef(draws.T) - np.eye(n_labels)).max() < 0.03

    def test_a_row_draws_the_same_alone_and_other_seeds_and_findings_draw_otherwise(self):
        scores = np.random.default_rng(0).random((500, 3)).astype(np.float32)
        draws = row_draws(scores, FINDINGS, seed=0)
        for row in (0, 17, 499):
            np.testing.assert_array_equal(row_draws(scores[[row]], FINDINGS, seed=0)[0], draws[row])
        np.testing.assert_array_equal(row_draws(scores[::-1], FINDINGS, seed=0), draws[::-1])
        assert abs(np.corrcoef(draws[:, 0], row_draws(scores, FINDINGS, seed=1)[:, 0])[0, 1]) < 0.15
        assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.15

    def test_they_are_the_same_for_ever(self):
        """Decisions of a published model must not change with a version of anything."""
        draws = row_draws(np.array([[0.25, 0.5]]), ("Edema", "No Finding"), seed=7)
        np.testing.assert_allclose(draws, [[0.21463553489, 0.23535450917]], atol=1e-9)  # by the formula, with 50 digits

    @pytest.mark.parametrize("kind", BOTH)
    def test_a_row_is_decided_the_same_wherever_it_stands(self, calibration, kind):
        data, scores = calibration
        rule = kind(SEX).fit(data, scores)
        decisions = rule.decide(scores, data.attributes, FINDINGS)
        chosen = np.random.default_rng(3).permutation(1000)[:300]
        again = rule.decide(scores[chosen], data.attributes.iloc[chosen], FINDINGS)
        np.testing.assert_array_equal(again, decisions[chosen])

    def test_the_last_digit_of_a_score_hardly_ever_changes_a_decision(self, calibration):
        data, scores = calibration
        rule = EqualizedOdds(SEX).fit(data, scores)
        nudged = np.nextafter(scores, np.float32(1), dtype=np.float32)
        changed = rule.decide(scores, data.attributes, FINDINGS) != rule.decide(nudged, data.attributes, FINDINGS)
        assert changed[:, :2].mean() < 0.01

    def test_rows_that_isotonic_calibration_ties_are_told_apart_by_their_other_findings(self, calibration):
        data, scores = calibration
        tied = Isotonic().fit(data, scores).calibrate(scores, data.attributes, FINDINGS)
        rule = EqualizedOdds(SEX).fit(data, tied)
        probability, decided = (f(tied, data.attributes, FINDINGS)[:, 0] for f in (rule.flag_probability, rule.decide))
        assert len(np.unique(tied[:, 0])) < 100
        blocks = 0
        for score in np.unique(tied[:, 0]):
            block = (tied[:, 0] == score) & (probability > 0.2) & (probability < 0.8)
            if block.sum() >= 20:
                blocks += 1
                assert 0 < decided[block].mean() < 1
        assert blocks


def test_settings_are_checked():
    with pytest.raises(InputError, match="objective must be one of balanced_accuracy_score, accuracy_score; got 'f1'"):
        ThresholdOptimizerSettings(objective="f1")
    with pytest.raises(InputError, match="grid_size must be at least 1; got 0"):
        ThresholdOptimizerSettings(grid_size=0)
