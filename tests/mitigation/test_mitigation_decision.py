"""The decision rules, each on the split it may see."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biascxr.errors import InputError
from biascxr.metrics import false_positive_rate, true_negative_rate, true_positive_rate, youden_threshold
from biascxr.metrics.thresholds import shrink_threshold
from biascxr.mitigation import resolve
from biascxr.mitigation.decision import DECISION, RULES, DecisionRule
from biascxr.mitigation.decision.base import GroupSettings
from biascxr.mitigation.decision.f1 import F1, GroupF1
from biascxr.mitigation.decision.fixed_fpr import FixedFpr, FixedFprSettings, GroupFixedFpr, GroupFixedFprSettings
from biascxr.mitigation.decision.gmean import GMean, GroupGMean
from biascxr.mitigation.decision.half import Half
from biascxr.mitigation.decision.min_gap import GroupMinGap, MinGap
from biascxr.mitigation.decision.youden import GroupYouden, Youden

OWN = GroupSettings(attributes=("sex",), shrinkage=0.0)


@pytest.fixture
def calibration(split_of):
    """400 rows with scores that separate women better than men."""
    data = split_of("calibration", n=400)
    rng = np.random.default_rng(0)
    signal = np.where(data.attributes["sex"] == "F", 0.4, 0.1)[:, None] * np.nan_to_num(data.labels)
    scores = np.clip(rng.normal(0.3 + signal, 0.15), 0, 1).astype(np.float32)
    return data, scores


def rows_of(data, group):
    return (data.attributes["sex"] == group).to_numpy()


def fits(rule, label="finding 0"):
    """Returns a finding's rows of a rule's table by group."""
    return rule.table[rule.table["label"] == label].set_index("group")


@pytest.mark.parametrize("fpr", [0.05, 0.2, 0.5])
def test_fixed_fpr_has_that_fpr_over_everyone_on_calibration(calibration, fpr):
    data, scores = calibration
    decisions = FixedFpr(FixedFprSettings(fpr)).fit(data, scores).decide(scores, data.attributes, data.label_names)
    for i in range(3):
        reached = false_positive_rate(data.labels[:, i], decisions[:, i])
        assert fpr - 0.01 < reached <= fpr


@pytest.mark.parametrize("fpr", [0.05, 0.2, 0.5])
def test_group_fixed_fpr_keeps_every_groups_fpr_and_the_next_lower_threshold_would_not(calibration, fpr):
    data, scores = calibration
    rule = GroupFixedFpr(GroupFixedFprSettings(("sex",), 0.0, fpr=fpr)).fit(data, scores)
    decisions = rule.decide(scores, data.attributes, data.label_names)
    for index, label in enumerate(data.label_names):
        for group in ("F", "M"):
            own = rows_of(data, group)
            y, s = data.labels[own, index], scores[own, index]
            assert false_positive_rate(y, decisions[own, index]) <= fpr
            threshold = fits(rule, label).loc[group, "threshold"]
            one_more = s[s < threshold].max()
            assert false_positive_rate(y, (s >= one_more) * 1.0) > fpr


def test_thresholds_stay_those_of_calibration_when_other_scores_are_decided(calibration, split_of):
    """A threshold that moved with the rows it is judged on would always reach its FPR."""
    data, scores = calibration
    rule = FixedFpr().fit(data, scores)
    higher = np.clip(scores + 0.2, 0, 1)
    decisions = rule.decide(higher, data.attributes, data.label_names)
    assert false_positive_rate(data.labels[:, 0], decisions[:, 0]) > 0.4


def test_half_flags_what_is_at_least_one_half(calibration):
    data, scores = calibration
    decisions = Half().fit(data, scores).decide(scores, data.attributes, data.label_names)
    np.testing.assert_array_equal(decisions, scores >= 0.5)


def f1_of(y, flagged):
    tp, fp, fn = ((y == a) & (flagged == b) for a, b in ((1, 1), (0, 1), (1, 0)))
    return 2 * tp.sum() / (2 * tp.sum() + fp.sum() + fn.sum())


# What each rule makes as large as possible.
CRITERIA = {
    "youden": (Youden, GroupYouden, lambda y, d: true_positive_rate(y, d) - false_positive_rate(y, d)),
    "gmean": (GMean, GroupGMean, lambda y, d: np.sqrt(true_positive_rate(y, d) * true_negative_rate(y, d))),
    "min_gap": (MinGap, GroupMinGap, lambda y, d: -abs(true_positive_rate(y, d) - true_negative_rate(y, d))),
    "f1": (F1, GroupF1, f1_of),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_a_rule_is_best_on_the_rows_it_is_fitted_to_of_everyone_and_of_each_group(calibration, name):
    data, scores = calibration
    plain, grouped, criterion = CRITERIA[name]
    for rule, groups in ((plain(), [np.ones(len(data), bool)]), (grouped(OWN), [rows_of(data, g) for g in ("F", "M")])):
        decisions = rule.fit(data, scores).decide(scores, data.attributes, data.label_names)
        for index in range(2):  # the last finding has no positive
            for own in groups:
                y, s = data.labels[own, index], scores[own, index]
                best = max(criterion(y, (s >= t) * 1.0) for t in np.unique(s))
                assert criterion(y, decisions[own, index]) == pytest.approx(best)
    assert fits(rule).loc["F", "threshold"] != fits(rule).loc["M", "threshold"]


def test_a_finding_without_positives_gets_no_decision_and_a_note(calibration):
    data, scores = calibration
    for rule in (Youden(), GroupYouden(OWN), GMean(), MinGap(), F1()):
        rule.fit(data, scores)
        assert np.isnan(rule.decide(scores, data.attributes, data.label_names)[:, 2]).all()
        assert fits(rule, "finding 2")["note"].str.contains("one class only").all()


class TestGroups:
    def test_the_unknown_get_the_threshold_for_all(self, calibration):
        data, scores = calibration
        rule = GroupYouden(OWN).fit(data, scores)
        assert (data.attributes["sex"] == "unknown").sum() >= 30
        assert "unknown" not in set(rule.table["group"])
        everyone = fits(rule).loc["all", "threshold"]
        unknown = rows_of(data, "unknown")
        decisions = rule.decide(scores, data.attributes, data.label_names)
        np.testing.assert_array_equal(decisions[unknown, 0], scores[unknown, 0] >= everyone)

    def test_few_patients_draw_a_group_towards_everyone_and_the_note_says_how_far(self, calibration):
        data, scores = calibration
        rule = GroupYouden(GroupSettings(("race",), 25.0)).fit(data, scores)
        own = GroupYouden(GroupSettings(("race",), 0.0)).fit(data, scores)
        for group in ("A", "B"):
            y = data.labels[:, 0]
            in_group = (data.attributes["race"] == group).to_numpy()
            n = min(len(set(data.patient_id[in_group & (y == c)])) for c in (0, 1))
            assert n < min((in_group & (y == c)).sum() for c in (0, 1))  # patients, who have two images each
            expected = shrink_threshold(fits(own).loc[group, "threshold"], fits(own).loc["all", "threshold"], n, 25)
            assert fits(rule).loc[group, "threshold"] == expected
            assert fits(rule).loc[group, "note"].startswith(f"{n / (n + 25):.0%} its own")

    def test_a_fixed_fpr_rests_on_negatives_and_needs_no_positive(self, calibration):
        data, scores = calibration
        rule = GroupFixedFpr(GroupFixedFprSettings(("sex",), 0.0)).fit(data, scores)
        assert (data.labels[:, 2] == 0).any() and not (data.labels[:, 2] == 1).any()
        assert fits(rule, "finding 2").loc["F", "threshold"] != fits(rule, "finding 2").loc["all", "threshold"]

    def test_a_group_of_one_class_gets_the_threshold_for_all(self, calibration):
        data, scores = calibration
        race = np.where(data.labels[:, 0] == 1, "positives only", "the rest")
        rule = GroupYouden(GroupSettings(("race",), 0.0)).fit(
            replace(data, attributes=data.attributes.assign(race=race)), scores
        )
        for group in ("positives only", "the rest"):
            assert fits(rule).loc[group, "threshold"] == fits(rule).loc["all", "threshold"]
            assert fits(rule).loc[group, "note"].startswith("0% its own")

    def test_race_is_the_default_and_the_first_attribute_where_there_is_no_race(self, calibration):
        data, scores = calibration
        by_race = GroupYouden().fit(data, scores).table
        assert set(by_race["attribute"]) == {"", "race"}
        no_race = replace(data, attributes=data.attributes[["sex"]])
        assert set(GroupYouden().fit(no_race, scores).table["attribute"]) == {"", "sex"}

    def test_an_attribute_that_is_not_there_is_named(self, calibration):
        data, scores = calibration
        with pytest.raises(InputError, match=r"group_youden.attributes=\['ethnicity'\]: 'ethnicity' is not an attribute.*"):
            GroupYouden(GroupSettings(attributes=("ethnicity",))).fit(data, scores)

    def test_without_any_attribute_it_is_youden_and_says_so(self, calibration):
        data, scores = calibration
        no_groups = replace(data, attributes=pd.DataFrame(index=range(len(data))))
        grouped, plain = GroupYouden().fit(no_groups, scores), Youden().fit(no_groups, scores)
        assert grouped.table["threshold"].equals(plain.table["threshold"])
        assert grouped.table["note"].str.contains("no attribute has two known groups: one fit for all").all()
        names = data.label_names
        decided = [rule.decide(scores, no_groups.attributes, names) for rule in (grouped, plain)]
        assert np.array_equal(*decided, equal_nan=True)


class TestJointSubgroups:
    """FairREAD's: one threshold for each cell of race x sex x age group."""

    SETTINGS = GroupSettings(attributes=("race", "sex", "age_group"), shrinkage=0.0)

    @pytest.fixture
    def crossed(self, split_of):
        rng = np.random.default_rng(4)
        groups = {"race": ["WHITE", "BLACK", "unknown"], "sex": ["F", "M"], "age_group": ["0-60", "60+"]}
        data = split_of("calibration", n=1200, **{name: rng.choice(values, 1200) for name, values in groups.items()})
        height = 0.1 * sum(pd.factorize(data.attributes[name])[0] * 2**i for i, name in enumerate(groups))[:, None]
        scores = rng.random((1200, 3)) * 0.3 + height * 0.6 + 0.1 * np.nan_to_num(data.labels)
        return data, np.clip(scores, 0, 1).astype(np.float32)

    def test_every_cell_has_a_threshold_of_its_own_at_which_its_tpr_is_its_tnr(self, crossed):
        data, scores = crossed
        rule = GroupMinGap(self.SETTINGS).fit(data, scores)
        table = fits(rule)
        cells = {f"{r} / {s} / {a}" for r in ("WHITE", "BLACK") for s in "FM" for a in ("0-60", "60+")}
        assert set(table.index) == {"all", *cells} and set(table["attribute"]) == {"", "race x sex x age_group"}
        assert table["threshold"].nunique() == 9
        decisions = rule.decide(scores, data.attributes, data.label_names)
        text = data.attributes.agg(" / ".join, axis=1).to_numpy()
        for cell in cells:
            own = text == cell
            y, s = data.labels[own, 0], scores[own, 0]
            np.testing.assert_array_equal(decisions[own, 0], s >= table.loc[cell, "threshold"])
            gap = abs(true_positive_rate(y, decisions[own, 0]) - true_negative_rate(y, decisions[own, 0]))
            assert gap < 1 / min((y == 0).sum(), (y == 1).sum())

    def test_a_cell_that_calibration_did_not_have_gets_the_threshold_for_all(self, crossed):
        data, scores = crossed
        is_missing = (data.attributes == ("BLACK", "M", "60+")).all(axis=1).to_numpy()
        rule = GroupMinGap(self.SETTINGS).fit(data.take(~is_missing), scores[~is_missing])
        assert "BLACK / M / 60+" not in set(rule.table["group"]) and rule.table["group"].nunique() == 8
        decisions = rule.decide(scores, data.attributes, data.label_names)
        assert is_missing.sum() > 50
        expected = scores[is_missing, 0] >= fits(rule).loc["all", "threshold"]
        np.testing.assert_array_equal(decisions[is_missing, 0], expected)


AWKWARD = ["all", "NA", "", "nan", 'with "quotes", and commas', "A / B", "A x B", " blank in front", "BLACK/AFRICAN AMERICAN"]


@pytest.mark.parametrize("name", DECISION)
def test_groups_by_any_name_come_back_from_disk_as_they_were(calibration, name, tmp_path):
    data, scores = calibration
    kind = resolve("decision", DECISION, name)
    race = np.random.default_rng(2).choice(AWKWARD, len(data))
    # Each group at another height, so that a mistaken group is another outcome.
    scores = np.clip(scores * 0.5 + 0.05 * np.array([AWKWARD.index(r) for r in race])[:, None], 0, 1).astype(np.float32)
    for attributes in (("race",), ("race", "sex")):
        part = replace(data, attributes=data.attributes.assign(race=race))
        names = {} if not kind.is_per_group else {"attributes": attributes}
        fitted = kind(kind.Settings(**names)).fit(part, scores)
        fitted.save(tmp_path / "fitted.csv")
        loaded = kind(kind.Settings(**names)).load(tmp_path / "fitted.csv")
        put = [(m.decide if isinstance(m, DecisionRule) else m.calibrate) for m in (fitted, loaded)]
        made, again = (p(scores, part.attributes, data.label_names) for p in put)
        np.testing.assert_array_equal(made, again)
        if kind.is_per_group:
            assert loaded.fitted_cells == fitted.fitted_cells and len(fitted.fitted_cells) == len(AWKWARD) * len(attributes)


def test_a_cohorts_group_called_all_is_not_everyone(calibration):
    data, scores = calibration
    scores = np.where(rows_of(data, "F")[:, None], scores / 2, scores)
    called_all = replace(data, attributes=data.attributes.replace({"sex": {"F": "all"}}))
    plain, renamed = GroupYouden(OWN).fit(data, scores), GroupYouden(OWN).fit(called_all, scores)
    decided = [rule.decide(scores, part.attributes, data.label_names) for rule, part in ((plain, data), (renamed, called_all))]
    np.testing.assert_array_equal(*decided)
    own = renamed.table.query("label == 'finding 0' and attribute == 'sex' and group == 'all'")["threshold"].item()
    assert own == fits(plain).loc["F", "threshold"] != fits(plain).loc["all", "threshold"]


def test_what_is_asked_of_a_rule_is_checked():
    with pytest.raises(InputError, match=r"fpr must lie in \[0, 1\]; got 1.2"):
        FixedFprSettings(1.2)
    with pytest.raises(InputError, match=r"fpr must lie in \[0, 1\]; got -0.1"):
        GroupFixedFprSettings(fpr=-0.1)
    for shrinkage in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"shrinkage must be at least 0 and finite; got {shrinkage}"):
            GroupSettings(shrinkage=shrinkage)


@pytest.mark.parametrize("name", RULES)
def test_scores_of_either_precision_are_decided_alike_and_silently(calibration, name):
    data, scores = calibration
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule = resolve("decision", DECISION, name)().fit(data, scores)
        decided = [rule.decide(scores.astype(t), data.attributes, data.label_names) for t in (np.float32, np.float64)]
    np.testing.assert_array_equal(*decided)


def test_youden_of_a_group_is_youdens_threshold_of_its_rows(calibration):
    data, scores = calibration
    rule = GroupYouden(OWN).fit(data, scores)
    for group in ("F", "M"):
        own = rows_of(data, group)
        assert fits(rule).loc[group, "threshold"] == youden_threshold(data.labels[own, 0], scores[own, 0])
