"""The answer in words: numbers with their intervals, names for people, and what was not measured is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biascxr.report import style
from biascxr.report.attribute_use import attribute_use
from biascxr.report.style import file_name, recipe_colours
from biascxr.report.summary import (
    interval,
    performance_sentence,
    planted_sentence,
    readable,
    remedy_sentence,
    unfairness_sentences,
)
from biascxr.report.tradeoff import plot_tradeoff, spread_out, tradeoff_table


@pytest.mark.parametrize(
    ("values", "sign", "text"),
    [
        ((0.81234, 0.78, 0.84), False, "0.812 (0.780 to 0.840)"),
        ((-0.05, -0.1, 0.0), True, "-0.050 (-0.100 to +0.000)"),
        ((np.nan, np.nan, np.nan), False, "–"),
        ((0.5, np.nan, np.nan), False, "0.500"),
    ],
)
def test_a_number_is_written_with_its_interval(values, sign, text):
    assert interval(*values, sign=sign) == text


def test_race_and_sex_are_recorded_and_an_age_group_is_not():
    assert [readable(a) for a in ("race", "sex", "age_group")] == ["recorded race", "recorded sex", "age group"]


def test_performance_is_said_with_findings_and_patients(report_inputs):
    sentence = performance_sentence(report_inputs)
    metrics = report_inputs.audit.metrics
    row = metrics.query("recipe == 'erm' and label == 'macro' and attribute == 'overall' and metric == 'AUROC'").iloc[0]
    assert (
        f"{row['value']:.3f} (" in sentence
        and "over 2 findings" in sentence
        and f"{row['n_patients']} test patients" in sentence
    )


def with_metrics(inputs, change):
    metrics = inputs.audit.metrics.copy()
    change(metrics)
    return replace(inputs, audit=replace(inputs.audit, metrics=metrics))


def test_a_difference_off_zero_is_named_and_one_that_holds_zero_is_not(report_inputs):
    def plant(metrics):
        metrics[["difference_low", "difference_high"]] = [-0.5, 0.5]
        chosen = (metrics["group"] == "BLACK") & (metrics["label"] == "macro") & (metrics["metric"] == "TPR")
        metrics.loc[chosen, ["difference", "difference_low", "difference_high"]] = [-0.2, -0.3, -0.1]

    sex, race = unfairness_sentences(with_metrics(report_inputs, plant))
    assert "not proof of equality" in sex
    assert race == "By recorded race, these differ from everyone else: BLACK: macro TPR -0.200 (-0.300 to -0.100)."


def test_a_group_of_fewer_than_ten_patients_is_not_spoken_of(report_inputs):
    def plant(metrics):
        metrics.loc[metrics["group"] == "ASIAN", ["difference", "difference_low", "difference_high"]] = [-0.4, -0.5, -0.3]

    assert not any("ASIAN" in s for s in unfairness_sentences(with_metrics(report_inputs, plant)))


def test_a_remedy_without_evidence_is_not_praised(report_inputs):
    comparisons = report_inputs.audit.comparisons.assign(verdict="not enough evidence")
    inputs = replace(report_inputs, audit=replace(report_inputs.audit, comparisons=comparisons))
    assert remedy_sentence(inputs).startswith("None of the 1 remedies narrows a gap")


def test_a_remedy_that_helps_is_said_with_its_cost(report_inputs):
    table = report_inputs.audit.comparisons.copy()
    gap = (table["group"] == "gap") & (table["label"] == "macro") & (table["metric"] == "TPR") & (table["attribute"] == "sex")
    table.loc[gap, ["change", "low", "high", "verdict"]] = [-0.1, -0.15, -0.05, "better"]
    inputs = replace(report_inputs, audit=replace(report_inputs.audit, comparisons=table))
    sentence = remedy_sentence(inputs)
    assert "median_balance+erm narrows the TPR gap by recorded sex by 0.100 (0.050 to 0.150), with macro AUROC" in sentence


def test_nothing_is_said_of_planted_bias_in_real_data(report_inputs):
    assert planted_sentence(report_inputs) is None


def test_the_tradeoff_has_one_point_per_recipe_that_is_compared_with_both_intervals(report_inputs):
    table = tradeoff_table(report_inputs.audit.comparisons, "sex", "TPR")
    assert table["recipe"].tolist() == ["median_balance+erm"]
    assert (table["low_auroc"] <= table["change_auroc"]).all() and (table["change_auroc"] <= table["high_auroc"]).all()
    assert (table["low_gap"] <= table["change_gap"]).all() and (table["change_gap"] <= table["high_gap"]).all()


def test_titles_of_the_tradeoff_end_inside_the_picture(report_inputs, tmp_path, monkeypatch):
    comparisons, gaps = report_inputs.audit.comparisons, report_inputs.audit.gaps
    names = ("sex", "insurance", "age_group", "recorded_insurance_of_the_patient")
    comparisons, gaps = (
        pd.concat([t, *(t[t["attribute"] == "sex"].assign(attribute=name) for name in names if name != "sex")])
        for t in (comparisons, gaps)
    )
    found = {}

    def look(made, path):
        made.draw_without_rendering()
        found[path.name] = [(made.bbox, axis._left_title.get_window_extent()) for axis in made.axes]

    monkeypatch.setattr(style, "save", look)
    plot_tradeoff(comparisons, gaps, list(names), tmp_path)
    assert len(found["tradeoff.png"]) == 4
    for picture, title in found["tradeoff.png"]:
        assert title.width > 100 and picture.x0 <= title.x0 and title.x1 <= picture.x1


def test_labels_move_apart_where_points_meet_and_stay_where_they_do_not():
    points = np.array([[0.0, 0.0], [0.0, 0.0], [0.01, 0.0], [0.8, 0.8]])
    places = spread_out(points, nearest=0.1)
    distances = np.linalg.norm(places[:, None] - places[None, :], axis=2) + np.eye(4)
    assert distances.min() >= 0.1 and np.abs(places - points).max() < 0.3
    np.testing.assert_allclose(places[3], points[3], atol=1e-4)


def test_recipes_that_use_attributes_say_how_many_decisions_hang_on_them(report_inputs):
    rows = attribute_use(report_inputs)
    assert [(r["recipe"], r["attribute"], r["value"]) for r in rows] == [("median_balance+erm", "sex", "F")], (
        "4 rows are hidden"
    )
    assert rows[0]["rates"] == {"scores": "0.0%", "thresholds": "12.5%", "all": "12.5%"}
    assert attribute_use(replace(report_inputs, flips={})) == []


def test_recipes_have_colours_of_their_own_and_file_names_no_slashes():
    colours = recipe_colours(["erm", "a", "b", "c"])
    assert len(set(colours.values())) == 4
    assert file_name("Pleural Other/new + x") == "Pleural_Other_new_+_x"
