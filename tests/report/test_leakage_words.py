"""The leakage section answers in words: the verdict, what it is confounded with, what predictions do with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from leakage_tables import RECIPE, made_up_tables

from biascxr.leakage.result import LeakageResult
from biascxr.report.leakage_lookup import chosen_probe, controls_of, reading
from biascxr.report.leakage_section import (
    NOT_MEASURED,
    group_table,
    leakage_answers,
    leakage_section,
    mode_sentences,
    reading_table,
    recipe_sentences,
)
from biascxr.report.leakage_words import CAUTIONS, answer, evidence_phrase


@pytest.fixture(scope="module")
def result():
    return made_up_tables()


@pytest.fixture(scope="module")
def section(result):
    return leakage_section(result)


def changed(result, name, where, **values):
    """Returns the tables with values set in the rows where a query holds."""
    table = getattr(result, name).copy()
    rows = table.query(where).index
    assert len(rows)
    for column, value in values.items():
        table.loc[rows, column] = value
    return replace(result, **{name: table})


def test_the_verdict_comes_first_and_under_its_own_name(result):
    assert [answer(result, a).headline for a in ("sex", "race", "age_group", "insurance")] == [
        "Recorded sex: encoded, no dependence found.",
        "Recorded race: encoded, predictions depend on it.",
        "Age group: inconclusive.",
        "Recorded insurance: not detected.",
    ]


def test_the_probe_is_the_verdicts_and_not_the_best_on_test(result):
    better = changed(result, "readings", "probe == 'knn' and attribute == 'sex' and control == 'none'", auroc=0.99)
    said = answer(better, "sex").read
    assert said.startswith("Logistic regression, the best probe on validation patients, reads it from the vectors of 600 test")
    assert "AUROC of 0.930 (0.910 to 0.950)" in said and "0.990" not in said
    assert "shuffled among the patients gives 0.470 to 0.530 (p = 0.001)" in said


def test_where_nothing_is_detected_the_margin_is_named(result):
    assert "beyond the margin of 0.55" in answer(result, "insurance").read


def test_what_can_be_had_without_a_film_is_said(result):
    said = answer(result, "view").merely
    assert said.startswith(
        "Of the 0.980, 0.930 (0.910 to 0.950) can be had from what else is recorded (age, recorded sex, port"
    )
    assert "most of what is read may be that" in said
    assert "little of what lies above chance" in answer(result, "sex").merely
    equal = changed(result, "readings", "attribute == 'sex' and control == 'covariates'", auroc=0.95)
    assert "not shown to add" in answer(equal, "sex").merely


def test_the_facts_that_go_with_it_are_named_the_highest_first_or_said_not_to_be_shown(result):
    best = reading(result, "vectors", "race", chosen_probe(result, "vectors", "race"))

    def said(**facts: tuple[float, float, float]) -> str:
        rows = [
            best.to_dict() | {"probe": "logistic", "control": f"fact:{name}", "auroc": auroc, "low": low, "high": high}
            for name, (auroc, low, high) in facts.items()
        ]
        more = replace(result, readings=pd.concat([result.readings, pd.DataFrame(rows)], ignore_index=True))
        assert best["probe"] == "logistic" and not controls_of(more, best)["control"].str.startswith("fact:").any()
        return answer(more, "race").merely

    weak, strong, opposite = (0.55, 0.45, 0.65), (0.7, 0.6, 0.8), (0.4, 0.3, 0.5)
    assert "Highest of these facts by themselves: Edema 0.700 (0.600 to 0.800), age 0.550" in said(age=weak, Edema=strong)
    assert "None of these facts is shown to tell by itself; highest: age 0.550" in said(age=weak, Mass=opposite)
    assert "by itself" not in said(Mass=opposite) and "themselves" not in said(Mass=opposite)


def test_the_attribute_itself_is_not_among_what_else_is_recorded(result):
    for attribute, own in (("sex", "recorded sex"), ("view", "view"), ("age_group", "age,")):
        facts = answer(result, attribute).merely.split("(")[2].split(")")[0]
        assert own not in facts and "labels" in facts


def test_a_reading_that_falls_far_within_labels_is_called_confounded_and_one_that_stays_is_not(result):
    said = answer(result, "view").merely
    assert "what is read may be the labels, with which view goes together in these data; what is left is still above" in said
    assert "may be the" not in answer(result, "race").merely
    gone = changed(result, "readings", "attribute == 'race' and control == 'within_view'", auroc=0.51, low=0.48, high=0.54)
    assert "may be the view" in answer(gone, "race").merely and "nothing above chance is shown" in answer(gone, "race").merely
    wide = changed(result, "readings", "attribute == 'race' and control == 'within_view'", auroc=0.51, low=0.2, high=0.8)
    assert "may be the view" not in answer(wide, "race").merely, "a wide interval shows no fall"


def test_groups_that_overlap_too_little_to_be_reweighted_are_said(result):
    assert "overlap too little" in answer(result, "age_group").merely
    assert "overlap too little" not in answer(result, "race").merely


def test_dependence_is_told_by_the_evidence_that_the_verdict_names(result):
    said = answer(result, "race").use
    assert said.startswith("Predictions of erm depend on it: among films of the same label and recorded covariates")
    assert "ranks WHITE above the others with an AUROC of 0.560 (0.530 to 0.590)" in said
    assert "changes the logits by 0.420 (0.400 to 0.440) deviations, random directions by 0.030 to 0.120 (p = 0.004)" in said
    assert "erased" not in said.split(" Where it was erased from the vectors")[0]
    assert answer(result, "sex").use.startswith("No dependence of the predictions of erm was found: ")
    assert answer(result, "age_group").use.startswith("Whether predictions of erm depend on it stays open")


def test_a_finding_that_rejects_is_told_and_not_a_mean_that_does_not(result):
    rows = result.dependence.query("attribute == 'sex' and evidence == 'given_label'")
    one = rows.assign(label="Edema", value=0.62, low=0.56, high=0.68, p_value=0.001).head(1)
    said = evidence_phrase(pd.concat([rows, one], ignore_index=True), "given_label")
    assert "the score of Edema ranks F above the others with an AUROC of 0.620" in said


def test_heads_trained_anew_are_told_from_the_rows_of_the_vectors(result):
    said = answer(result, "race").use
    assert "heads were trained anew: AUROC changed by -0.010 (-0.018 to -0.002) in a linear head and -0.010" in said
    assert "groups' mean logits within a label, in deviations, moved by 0.030 (0.010 to 0.050) in a linear head" in said
    assert "KNN still reads 0.600" in said
    assert "Of 15 heads made to encode it more or less, those that encode it more were more unfair" in said
    assert "(rank correlation over heads, not patients, 0.800 (0.700 to 0.900), p = 0.004)" in said
    open_ = changed(result, "dependence", "measure == 'spearman'", p_value=0.3)
    assert "were shown neither more nor less unfair" in answer(open_, "race").use
    gone = changed(result, "dependence", "measure == 'readable_knn_conditional'", value=0.49, low=0.42, high=0.55)
    assert "KNN is not shown to read it any more: 0.490 (0.420 to 0.550)" in answer(gone, "race").use
    without = replace(result, dependence=result.dependence[result.dependence["recipe"] != "vectors"])
    assert "trained anew" not in answer(without, "race").use and "heads" not in answer(without, "race").use


def test_without_predictions_dependence_is_said_not_to_have_been_asked(result):
    alone = replace(result, dependence=result.dependence.head(0))
    assert "was not asked" in answer(alone, "sex").use


def test_a_time_varying_attribute_is_flagged_and_a_constant_one_is_not(result):
    assert "can be in two of its groups" in answer(result, "age_group").read
    assert "can be in two of its groups" not in answer(result, "race").read


def test_a_recipe_that_one_probe_no_longer_reads_is_not_praised_where_another_does(result):
    sentences = " ".join(recipe_sentences(result))
    assert f"{RECIPE} has vectors of its own" in sentences
    assert (
        "recorded sex 0.520 (0.500 to 0.540), from the vectors as they are 0.930 (less readable, though KNN reads" in sentences
    )
    assert "view 0.970 (0.950 to 0.990), from the vectors as they are 0.980 (no difference shown)" in sentences
    assert f"{RECIPE}, recorded race: inconclusive (under erm: encoded, predictions depend on it)" in sentences


def test_recipes_that_leave_the_vectors_alone_are_said_to():
    result = made_up_tables(("sex",), has_recipe=False)
    assert recipe_sentences(result) == []
    more = replace(result, verdicts=pd.concat([result.verdicts, result.verdicts.assign(recipe="reweigh+erm")]))
    assert recipe_sentences(more) == [
        "erm, reweigh+erm leave the vectors as they are: the same can be read under every recipe."
    ]


def test_the_two_cautions_are_in_the_section_once(section):
    assert section["cautions"] == CAUTIONS and "equivalence" in CAUTIONS[0] and "not harm" in CAUTIONS[1]
    assert sum("equivalence" in str(value) for value in section.values()) == 1


def test_the_group_table_has_the_form_of_the_first_question(result):
    table = group_table(result, "race")
    assert table["probes"] == ["Image network", "KNN", "Logistic regression"]
    assert [row["group"] for row in table["rows"]] == ["WHITE", "BLACK", "HISPANIC", "ASIAN", "all groups (macro)"]


def test_small_groups_are_in_no_sentence_and_no_cell(section):
    (small,) = [row for row in section["groups"]["race"]["rows"] if row["group"] == "ASIAN"]
    assert small["is_hidden"] and set(small["texts"]) == {"–"}
    rest = str({key: value for key, value in section.items() if key != "groups"})
    assert "ASIAN" not in rest and "HISPANIC" not in rest


def test_nothing_is_called_nan(result):
    blank = changed(result, "readings", "attribute == 'sex' and control != 'none'", auroc=np.nan, low=np.nan, high=np.nan)
    assert "nan" not in str(leakage_section(blank)["answers"]) + str(reading_table(blank))


def test_modes_name_the_largest_difference_that_stands(result):
    (race,) = [s for s in mode_sentences(made_up_tables(("race",))) if "race" in s]
    assert race.startswith("Groups of recorded race differ on principal component 1, 2, 3 of 4: at most KS 0.31 on component 1")


def test_a_run_without_attributes_says_so():
    assert leakage_answers(LeakageResult.of()) == [NOT_MEASURED]


def test_language_keeps_to_what_was_recorded_and_to_vectors(section):
    text = str(section).lower()
    assert "recorded race" in text and "image contains" not in text and "contain race" not in text and "racial" not in text
