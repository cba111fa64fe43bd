"""The decision rules, each on the split it may see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biascxr.errors import InputError
from biascxr.metrics import false_positive_rate, true_positive_rate, youden_threshold
from biascxr.mitigation.decision.base import GroupSettings
from biascxr.mitigation.decision.fixed_fpr import FixedFpr, FixedFprSettings
from biascxr.mitigation.decision.half import Half
from biascxr.mitigation.decision.youden import GroupYouden, Youden


@pytest.fixture
def calibration(split_of):
    """400 rows with scores that separate women better than men."""
    data = split_of("calibration", n=400)
    rng = np.random.default_rng(0)
    signal = np.where(data.attributes["sex"] == "F", 0.4, 0.1)[:, None] * np.nan_to_num(data.labels)
    scores = np.clip(rng.normal(0.3 + signal, 0.15), 0, 1).astype(np.float32)
    return data, scores


@pytest.mark.parametrize("fpr", [0.05, 0.2, 0.5])
def test_fixed_fpr_has_that_fpr_over_everyone_on_calibration(calibration, fpr):
    data, scores = calibration
    decisions = FixedFpr(FixedFprSettings(fpr)).fit(data, scores).decide(scores, data.attributes, data.label_names)
    for i in range(3):
        reached = false_positive_rate(data.labels[:, i], decisions[:, i])
        assert fpr - 0.01 < reached <= fpr


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


def test_youden_maximises_tpr_minus_fpr_and_a_finding_without_positives_gets_no_decision(calibration):
    data, scores = calibration
    rule = Youden().fit(data, scores)
    decisions = rule.decide(scores, data.attributes, data.label_names)
    y = data.labels[:, 0]
    reached = true_positive_rate(y, decisions[:, 0]) - false_positive_rate(y, decisions[:, 0])
    others = [true_positive_rate(y, s) - false_positive_rate(y, s) for s in (scores[:, :1] >= np.unique(scores[:, 0])).T * 1.0]
    assert reached == pytest.approx(max(others))
    assert np.isnan(decisions[:, 2]).all()
    assert "one class only" in rule.table["note"].iloc[2]


class TestGroupYouden:
    def test_each_group_gets_youdens_threshold_on_its_own_rows(self, calibration):
        data, scores = calibration
        rule = GroupYouden(GroupSettings(attribute="sex")).fit(data, scores)
        table = rule.table.query("label == 'finding 0'").set_index("group")
        for group in ("F", "M"):
            mask = (data.attributes["sex"] == group).to_numpy()
            assert table.loc[group, "threshold"] == youden_threshold(data.labels[mask, 0], scores[mask, 0])
        assert table.loc["F", "threshold"] != table.loc["M", "threshold"]
        decisions = rule.decide(scores, data.attributes, data.label_names)
        for group in ("F", "M"):
            mask = (data.attributes["sex"] == group).to_numpy()
            np.testing.assert_array_equal(decisions[mask, 0], scores[mask, 0] >= table.loc[group, "threshold"])

    def test_the_unknown_get_the_threshold_for_all(self, calibration):
        data, scores = calibration
        rule = GroupYouden(GroupSettings(attribute="sex")).fit(data, scores)
        assert (data.attributes["sex"] == "unknown").sum() >= 30
        assert "unknown" not in set(rule.table["group"])
        everyone = rule.table.query("label == 'finding 0' and group == 'all'")["threshold"].item()
        unknown = (data.attributes["sex"] == "unknown").to_numpy()
        decisions = rule.decide(scores, data.attributes, data.label_names)
        np.testing.assert_array_equal(decisions[unknown, 0], scores[unknown, 0] >= everyone)

    def test_a_group_with_too_few_of_a_class_shares_the_threshold_for_all_and_says_so(self, calibration):
        data, scores = calibration
        rule = GroupYouden(GroupSettings(attribute="race", min_positive=60)).fit(data, scores)
        table = rule.table.query("label == 'finding 0'").set_index("group")
        assert table.loc["B", "n_positive"] < 60 <= table.loc["A", "n_positive"]
        assert table.loc["B", "threshold"] == table.loc["all", "threshold"]
        enough = GroupYouden(GroupSettings(attribute="race", min_positive=3)).fit(data, scores).thresholds.table
        own = enough.query("label == 'finding 0' and group == 'B'")["threshold"].item()
        assert own != table.loc["all", "threshold"]
        assert "under 60 of a class" in table.loc["B", "note"]

    def test_race_is_the_default_and_the_first_attribute_where_there_is_no_race(self, calibration):
        data, scores = calibration
        by_race = GroupYouden().fit(data, scores).thresholds.table
        assert set(by_race["attribute"]) == {"", "race"}
        no_race = replace(data, attributes=data.attributes[["sex"]])
        assert set(GroupYouden().fit(no_race, scores).thresholds.table["attribute"]) == {"", "sex"}

    def test_an_attribute_that_is_not_there_is_named(self, calibration):
        data, scores = calibration
        with pytest.raises(InputError, match=r"group_youden.attribute='ethnicity' is not an attribute.*\['sex', 'race'\]"):
            GroupYouden(GroupSettings(attribute="ethnicity")).fit(data, scores)

    def test_without_any_attribute_it_is_youden_and_says_so(self, calibration):
        data, scores = calibration
        no_groups = replace(data, attributes=pd.DataFrame(index=range(len(data))))
        grouped, plain = GroupYouden().fit(no_groups, scores), Youden().fit(no_groups, scores)
        assert grouped.thresholds.table["threshold"].equals(plain.thresholds.table["threshold"])
        fitted = grouped.thresholds.table.dropna(subset="threshold")  # the others say that a class is missing
        assert len(fitted) == 2
        assert (fitted["note"] == "no attribute has two known groups: one threshold for all").all()
        names = data.label_names
        decided = [rule.decide(scores, no_groups.attributes, names) for rule in (grouped, plain)]
        assert np.array_equal(*decided, equal_nan=True)


def test_a_target_outside_0_and_1_is_refused():
    with pytest.raises(InputError, match=r"fixed_fpr.fpr must lie in \[0, 1\]; got 1.2"):
        FixedFprSettings(1.2)
