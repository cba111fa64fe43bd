"""The page of an external evaluation: both sides in numbers and words, and nothing about fewer than ten patients."""

from __future__ import annotations

import re
from dataclasses import replace

import matplotlib.axes
import numpy as np
import pandas as pd
import pytest

from biascxr.audit.external import compare_cohorts
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.report import external_page
from biascxr.report.external_page import ExternalInputs, build_external_page, notes, page_context, uses_sentence

CONFIG = AuditConfig(metrics=("AUROC", "TPR", "FPR", "Brier"), n_replicates=60, n_permutations=0)
FACTS = {
    "are_same_patients": False, "n_images_in_both": 0, "n_patient_ids_in_both": 0, "n_images_left_out": 0,
    "n_patients_left_out": 0, "n_test_patients_in_both": 0, "labels": ["Edema", "Pleural Effusion"],
    "labels_of_run": ["Pneumonia"], "labels_of_table": ["Mass"], "labels_of_one_class": [],
}  # fmt: skip
NO_GROUPS = {"uses": [], "unseen": {}, "not_recorded": [], "n_images_unseen": 0, "n_images_unknown": 0}


def elsewhere(own: Predictions, *, shift: float, seed: int) -> Predictions:
    """The same kind of rows of other people, twice as many, whose scores are higher by `shift`."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(own.table), 2 * len(own.table))
    made = own.rows(rows)
    ids = {c: [f"secretother{c}{i}" for i in range(len(rows))] for c in ("image_id", "study_id", "patient_id")}
    scores = np.clip(made.scores + shift + rng.normal(0, 0.1, made.scores.shape), 0, 1)
    race = made.table["race"].where(made.table["race"] != "ASIAN", "WHITE").to_numpy(object)
    race[:12] = "ASIAN"  # enough elsewhere, too few at home
    race[12:16] = "OTHER"
    groups = Attribute("race", ("WHITE", "BLACK", "ASIAN", "OTHER"), True)
    return replace(
        made, table=made.table.assign(**ids, race=race), scores=scores, decisions=(scores >= 0.5).astype(np.float32),
        attributes=(made.attributes[0], groups),
    )  # fmt: skip


def make(report_inputs, *, recipes=("erm", "median_balance+erm"), attributes=True, shift=0.15, **changes) -> ExternalInputs:
    home = {name: report_inputs.predictions[name] for name in recipes}
    away = {name: elsewhere(p, shift=shift, seed=5) for name, p in home.items()}
    if not attributes:
        home, away = ({n: replace(p, attributes=()) for n, p in own.items()} for own in (home, away))
    defaults = dict(
        tables=compare_cohorts(home, away, CONFIG), home=home, away=away, home_layout="mimic_cxr", cohort=report_inputs.cohort,
        rejected=["truncated (at 3)"], facts=FACTS, applied=dict.fromkeys(recipes, NO_GROUPS),
        rules=dict.fromkeys(recipes, "fixed_fpr"), card=report_inputs.card, is_known_maker=True, is_demo=True,
        has_reference=False, config={"audit": {"confidence": 0.95, "n_replicates": 60, "min_patients": 25}}, versions={},
    )  # fmt: skip
    return ExternalInputs(**defaults | changes)


@pytest.fixture(scope="module")
def inputs(report_inputs) -> ExternalInputs:
    return make(report_inputs)


def text_of(inputs: ExternalInputs, folder) -> str:
    page = build_external_page(inputs, folder).read_text(encoding="utf-8")
    return re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "PICTURE", page)


@pytest.fixture(scope="module")
def page(inputs, tmp_path_factory) -> str:
    return text_of(inputs, tmp_path_factory.mktemp("page"))


def test_it_holds_no_identifier_and_no_path(page):
    assert "secret" not in page and page.count("PICTURE") == 2


def test_it_warns_of_made_up_films_and_of_an_untrained_encoder(page, report_inputs):
    assert "Made-up data" in page and "Untrained encoder" in page
    real = make(report_inputs, recipes=("erm",), is_demo=False, card=report_inputs.card | {"is_trained": True})
    assert external_page.banners(real) == []


def test_numbers_of_both_sides_stand_beside_each_other(page, inputs):
    own = inputs.rows(recipe="erm", label="macro", attribute="overall", metric="FPR", quantity="value").iloc[0]
    assert f"{own['value_in']:.3f} ({own['low_in']:.3f} to {own['high_in']:.3f})" in page
    assert f"{own['value_out']:.3f} ({own['low_out']:.3f} to {own['high_out']:.3f})" in page
    assert f"{own['change']:+.3f}" in page


def test_what_is_shared_and_what_is_left_out_is_said(page):
    assert "In both: Edema, Pleural Effusion." in page
    assert "Only the run has: Pneumonia." in page and "Only the table has: Mass." in page
    assert "left out: lateral view" in page and "file not usable: truncated" in page


def test_thresholds_that_mean_something_else_there_are_named(page, report_inputs):
    assert "moved with the site" in page  # all scores are higher there
    alike = make(report_inputs, recipes=("erm",), shift=0.0)
    assert "No shift beyond the intervals" in external_page.operating_sentence(alike)


def test_a_group_of_few_patients_on_one_side_is_hidden_everywhere(inputs, monkeypatch, tmp_path):
    shown = page_context(inputs)
    assert inputs.home["erm"].table.query("race == 'ASIAN'")["patient_id"].nunique() < 10
    sizes = {row["group"]: row for row in shown["group_sizes"] if row["attribute"] == "race"}
    assert sizes["ASIAN"]["home"] == "<10" and sizes["OTHER"] == {
        "attribute": "race", "group": "OTHER", "home": "0", "away": "<10",
    }  # fmt: skip
    for side in ("home", "away"):  # no hidden cell follows from the others and their sum
        assert sum(sizes[g][side] in ("<10", "hidden") for g in sizes) >= 2
    assert {"group": "ASIAN", "is_hidden": True} in shown["group_tables"]["race"]
    assert all("ASIAN" not in row["groups"] for row in shown["gaps"])
    drawn: list[str] = []
    original = matplotlib.axes.Axes.set_yticks

    def watched(axis, ticks, labels=None, **options):
        drawn.extend(labels or [])
        return original(axis, ticks, labels, **options)

    monkeypatch.setattr("matplotlib.axes.Axes.set_yticks", watched)
    table = inputs.tables.side_by_side.copy()
    external_page.plot_group_differences(table, "erm", tmp_path)
    assert {"WHITE", "BLACK", "F", "M"} <= set(drawn) and "ASIAN" not in drawn
    drawn.clear()
    table.loc[table["group"] == "BLACK", "n_patients_in"] = 9
    external_page.plot_group_differences(table, "erm", tmp_path)
    assert {"WHITE", "F", "M"} <= set(drawn) and "BLACK" not in drawn


def test_a_finding_of_few_positive_patients_is_hidden(inputs):
    home = inputs.home["erm"]
    y = home.y_true.copy()
    y[5:, 0] = 0
    few = {name: replace(p, y_true=y) for name, p in inputs.home.items()}
    row = external_page.label_rows(replace(inputs, home=few, tables=compare_cohorts(few, inputs.away, CONFIG)))[0]
    assert row["prevalence"][0] == "under 10 patients" and row["prevalence"][1] != "under 10 patients"
    assert row["AUROC"]["home"] == row["TPR"]["home"] == "under 10 patients" and row["AUROC"]["change"] == ""


def test_who_gets_the_answer_for_unknown_is_said_without_giving_a_small_group_away(inputs):
    used = NO_GROUPS | {"uses": ["race"], "unseen": {"race": {"Black": 120, "Rare": 4}}, "n_images_unseen": 130}
    sentence = uses_sentence(inputs, "erm", used)
    assert sentence == "erm uses recorded race. Groups that the run did not have (Black, Rare) get its answer for unknown."
    large = used | {"unseen": {"race": {"Black": 120}}, "n_images_unseen": 100}
    assert f"(Black), {100 / len(inputs.cohort):.0%} of the images, get its answer" in uses_sentence(inputs, "erm", large)
    absent = NO_GROUPS | {"uses": ["sex"], "not_recorded": ["sex"]}
    assert "The table does not have recorded sex in two groups" in uses_sentence(inputs, "erm", absent)
    assert any("clinical and legal review" in note for note in notes(replace(inputs, applied={"erm": absent})))
    assert not any("clinical and legal review" in note for note in notes(inputs))


def test_patients_of_both_sides_and_equal_numbers_are_said_without_small_counts(inputs):
    told = notes(replace(inputs, facts=FACTS | {"n_patient_ids_in_both": 7}))
    assert any(note.startswith("fewer than 10 patient numbers of this table are also numbers of the run") for note in told)
    told = notes(replace(inputs, facts=FACTS | {"are_same_patients": True, "n_test_patients_in_both": 80}))
    assert any(note.startswith("80 patients are on both sides") for note in told)
    assert any("cannot be checked" in note for note in notes(replace(inputs, is_known_maker=False)))


def test_one_recipe_and_no_attribute_make_a_page_too(report_inputs, tmp_path):
    text = text_of(make(report_inputs, recipes=("erm",), attributes=False), tmp_path)
    assert "No attribute has two groups in common" in text and "there is no remedy" in text
    assert "<h2>Groups</h2>" not in text and "effects transfer" not in text


def test_effects_of_remedies_are_told_where_one_side_shows_something(inputs):
    effects = inputs.tables.effects.copy()
    at = effects.index[(effects["group"] == "gap") & (effects["attribute"] == "sex") & (effects["metric"] == "TPR")]
    effects.loc[at, ["change_in", "low_in", "high_in", "verdict_in"]] = [-0.1, -0.15, -0.05, "better"]
    told = external_page.effect_sentences(replace(inputs, tables=replace(inputs.tables, effects=effects)))
    assert len(told) == 1 and "gap of macro TPR by recorded sex -0.100 (-0.150 to -0.050) at home (better)" in told[0]
    assert pd.isna(effects.loc[at, "change_out"]).all() or "elsewhere (not enough evidence)" in told[0]
