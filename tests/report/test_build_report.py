"""The page holds the answers, no patient, and nothing from elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biascxr.containers import Attribute
from biascxr.report import build_report
from biascxr.report.page import LEAKAGE_QUESTION, group_rows, page_context

SEX = Attribute("sex", ("F", "M"), True)


@pytest.fixture(scope="module")
def built(report_inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    build_report(report_inputs, folder)
    return folder


def test_the_page_and_the_card_hold_no_identifier_and_no_path(built, report_inputs):
    for name in ("report.html", "model_card.md"):
        text = (built / name).read_text(encoding="utf-8")
        assert "secret" not in text, f"{name} holds an identifier or a path"
    table = report_inputs.cohort.table
    page = (built / "report.html").read_text(encoding="utf-8")
    for column in ("image_id", "study_id", "patient_id", "path"):
        assert not any(value in page for value in table[column])


def test_the_page_loads_nothing_from_elsewhere(built):
    page = (built / "report.html").read_text(encoding="utf-8")
    targets = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page)
    assert len(targets) > 10
    assert all(t.startswith(("#", "data:")) for t in targets)
    assert "url(" not in page and "@import" not in page and "<script" not in page and "<link" not in page


def test_no_value_is_shown_as_nan(built):
    page = (built / "report.html").read_text(encoding="utf-8").split("<summary>Configuration and versions")[0]
    page = re.sub(r"data:image/png;base64,[^\"]*", "", page)
    assert re.findall(r"\bnan\b|\bNaN\b|>\s*None\s*<", page) == []


def test_every_section_and_the_known_figures_are_there(built):
    page = (built / "report.html").read_text(encoding="utf-8")
    for section in ("short", "in", "who", "good", "unfair", "remedies", "leakage", "read"):
        assert f'<section id="{section}">' in page
    for name in (
        "tradeoff.png", "leakage.png", "comparison/auc_comparison.png", "comparison/fpr_comparison.png",
        "comparison/fnr_comparison.png", "comparison/roc_curves.png", "demographics/sex.png", "demographics/race.png",
        "fairness/fairness_sex_Edema.png", "fairness/overall_fpr_improvement.png", "fairness/overall_fnr_improvement.png",
        "fairness/fairness_metrics.json", "fairness/fairness_disparity.json",
    ):  # fmt: skip
        assert (built / name).is_file(), name


def test_every_row_of_the_table_is_accounted_for(report_inputs):
    flow = dict(page_context(report_inputs)["flow"])
    assert flow["rows in the table"] == "407"
    assert flow["left out: lateral view"] == "− 7"
    assert flow["file not usable: truncated"] == "− 1"  # the reason without its detail
    assert flow["images used"] == "400"


def test_an_untrained_encoder_and_made_up_data_carry_a_banner(report_inputs):
    assert any("random weights" in b for b in page_context(report_inputs)["banners"])
    trained = replace(report_inputs, card=report_inputs.card | {"is_trained": True})
    assert page_context(trained)["banners"] == []


def test_a_group_of_fewer_than_ten_test_patients_has_no_numbers(report_inputs):
    rows = {row["group"]: row for row in group_rows(report_inputs, "race")}
    assert rows["ASIAN"] == {"group": "ASIAN", "is_hidden": True}
    assert not rows["WHITE"]["is_hidden"] and "AUROC" in rows["WHITE"]


@pytest.mark.parametrize(
    ("recorded", "hidden"),
    [
        ({"positive": 5, "negative": 395, "masked": 0, "uncertain": 0, "blank": 40}, {"positive", "negative"}),
        (
            {"positive": 50, "negative": 343, "masked": 7, "uncertain": 7, "blank": 40},
            {"masked", "positive", "uncertain", "blank"},
        ),
        ({"positive": 50, "negative": 350, "masked": 0, "uncertain": 0, "blank": 0}, set()),
    ],
)
def test_a_small_count_of_images_cannot_be_worked_out_from_the_others(report_inputs, recorded, hidden):
    from biascxr.report.page import label_counts

    shown = label_counts({"label": "Edema"} | recorded)
    assert {name for name, text in shown.items() if text != str(recorded[name])} == hidden


def test_each_finding_is_listed_with_its_name(report_inputs):
    rows = page_context(report_inputs)["labels"]
    assert [row["label"] for row in rows] == ["Edema", "Pleural Effusion"]
    assert {"positive", "negative", "uncertain", "blank", "AUROC", "TPR", "FPR"} <= set(rows[0])


def test_a_cohort_without_attributes_still_gets_a_report(make_report_inputs, tmp_path):
    inputs = make_report_inputs(tmp_path, attributes=())
    assert len(inputs.leakage.readings) == 0 and len(inputs.audit.gaps) == 0
    build_report(inputs, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "groups cannot be compared" in page and "leakage was not measured" in page
    assert "No gap of the macro TPR between groups could be measured" in page


def test_the_plain_classifier_alone_gets_a_report(make_report_inputs, tmp_path):
    build_report(make_report_inputs(tmp_path, recipes="erm", attributes=(SEX,)), tmp_path)
    assert "Only the plain classifier was run" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_made_up_cohort_says_what_was_planted_and_whether_it_was_found(report_inputs):
    truth = {"disadvantaged_race": "BLACK", "mechanism": "x", "strength": 0.5, "shows": ["AUROC", -1], "shows_on": "macro"}
    (fair,) = [t for t in page_context(replace(report_inputs, truth=truth))["answers"] if t[0] == "How unfair is it?"]
    assert "does not find it" in fair[1][-1]
    metrics = report_inputs.audit.metrics.copy()
    planted = (metrics["group"] == "BLACK") & (metrics["label"] == "macro") & (metrics["metric"] == "AUROC")
    metrics.loc[planted, ["difference", "difference_low", "difference_high"]] = [-0.2, -0.3, -0.1]
    found = replace(report_inputs, truth=truth, audit=replace(report_inputs.audit, metrics=metrics))
    said = page_context(found)["answers"][1][1][-1]
    assert "The audit finds it: macro AUROC, BLACK minus everyone else on recorded labels, -0.200" in said
    on_truth = replace(report_inputs, truth=truth, reference=found.audit, recorded_alike=report_inputs.audit)
    assert (
        "finds it: macro AUROC, BLACK minus everyone else on true labels, -0.200" in page_context(on_truth)["answers"][1][1][-1]
    )
    for changed, words in (({"strength": 0}, "no bias is planted"), ({"shows": None}, "By itself it makes no gap")):
        assert words in page_context(replace(report_inputs, truth=truth | changed))["answers"][1][1][-1]


def test_an_attribute_with_one_group_in_test_is_said_to_be_unmeasured(report_inputs):
    readings = report_inputs.leakage.readings.copy()
    readings.loc[readings["attribute"] == "sex", ["auroc", "low", "high", "p_value"]] = np.nan
    context = page_context(replace(report_inputs, leakage=replace(report_inputs.leakage, readings=readings)))
    sentence = dict(context["answers"])[LEAKAGE_QUESTION][0]
    assert "ecorded sex: could not be measured" in sentence
    assert not re.search(r"\bnan\b", str((sentence, context["leakage"])))


def test_json_files_hold_null_and_not_zero_where_a_cell_is_small_or_undefined(built, report_inputs):
    values = pd.read_json(built / "fairness" / "fairness_metrics.json")
    small = values["erm"]["race"]["Edema"]["ASIAN"]["FNR"]
    assert small == {"value": None, "low": None, "high": None}
    shown = values["erm"]["race"]["Edema"]["WHITE"]["FNR"]["value"]
    table = report_inputs.audit.metrics.query(
        "recipe == 'erm' and attribute == 'race' and label == 'Edema' and group == 'WHITE'"
    )
    assert shown == pytest.approx(table.set_index("metric").loc["FNR", "value"], abs=1e-6)
