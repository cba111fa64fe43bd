"""The attribute-input flip rate, on recipes whose flips are known."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from biascxr.containers import Attribute, Cohort, EmbeddingSet
from biascxr.mitigation import TrainedRecipe, parse_recipes, run_recipe
from biascxr.mitigation.decision.equalized_odds import EqualizedOdds
from biascxr.mitigation.decision.fixed_fpr import FixedFpr
from biascxr.mitigation.decision.platt import GroupPlatt
from biascxr.mitigation.decision.threshold_optimizer import ThresholdOptimizerSettings
from biascxr.mitigation.decision.youden import GroupYouden
from biascxr.mitigation.flips import COLUMNS, DISPARATE_TREATMENT, attribute_flips
from biascxr.mitigation.training import DemographicInputs


def flips_of(trained, vectors, attributes):
    """The flips, each row a patient of its own."""
    return attribute_flips(trained, vectors, attributes, np.arange(len(vectors)).astype(str).astype(object))


@dataclass
class HandMadeHead:
    """Scores are the vectors, and a fixed number more for each recorded group."""

    added: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    calls: int = 0

    @property
    def demographics(self):
        return DemographicInputs({a: tuple(sorted(groups)) for a, groups in self.added.items()}) if self.added else None

    def predict(self, vectors, attributes=None):
        self.calls += 1
        scores = np.asarray(vectors, np.float64)
        for name, groups in self.added.items():
            scores = scores + attributes[name].map(groups).fillna(0.0).to_numpy()[:, None]
        return scores.astype(np.float32)


def thresholds(rule, of: dict[tuple[str, str], float | list[float]], n_labels=1):
    """A rule with these thresholds: (attribute, group) -> threshold of all findings, or of each."""
    rows = [
        {"label": f"x{i}", "attribute": a, "group": g, "n_positive": 9, "threshold": t if np.isscalar(t) else t[i], "note": ""}
        for i in range(n_labels)
        for (a, g), t in of.items()
    ]
    rule.table = pd.DataFrame(rows)
    return rule


def recipe_of(head, rule, calibrators=(), representations=(), n_labels=1):
    names = tuple(f"x{i}" for i in range(n_labels))
    return TrainedRecipe(
        SimpleNamespace(name="hand"), names, n_labels, list(representations), head, list(calibrators), rule, {}
    )


def one(flips, **where):
    """Returns the one row of this description."""
    found = flips.loc[np.logical_and.reduce([flips[c] == v for c, v in where.items()])]
    assert len(found) == 1
    return found.iloc[0]


def four(flips, **where):
    return one(flips, **where)[["n", "flip_rate", "to_positive", "to_negative"]].tolist()


VECTORS = np.array([[0.45], [0.55], [0.65], [0.75]], np.float32)
SEX = pd.DataFrame({"sex": ["F", "F", "M", "unknown"]})
BY_SEX = {("", "all"): 0.5, ("sex", "F"): 0.5, ("sex", "M"): 0.7}


def test_group_thresholds_alone_flip_what_lies_between_them():
    flips = flips_of(recipe_of(HandMadeHead(), thresholds(GroupYouden(), BY_SEX)), VECTORS, SEX)
    assert list(flips) == COLUMNS and len(flips) == 2 * 3 * 3  # x0 and macro, F M unknown, three parts
    # Now: .45 F no, .55 F yes, .65 M no, .75 unknown yes (threshold for all).
    for part in ("thresholds", "all"):
        assert four(flips, label="x0", value="F", part=part) == [2, 1 / 2, 1 / 2, 0]  # .65 is flagged, .75 stays
        assert four(flips, label="x0", value="M", part=part) == [3, 1 / 3, 0, 1 / 3]  # .55 is no longer flagged
        assert four(flips, label="x0", value="unknown", part=part) == [3, 1 / 3, 1 / 3, 0]  # .65 at the threshold for all
    assert (flips.loc[flips["part"] == "scores", "flip_rate"] == 0).all()


def test_demographic_inputs_alone_flip_by_scores():
    head = HandMadeHead({"sex": {"F": 0.0, "M": -0.2}})  # unknown adds nothing
    flips = flips_of(recipe_of(head, thresholds(FixedFpr(), {("", "all"): 0.5})), VECTORS, SEX)
    # Now: .45 no, .55 yes, .65 - .2 no, .75 yes.
    for part in ("scores", "all"):
        assert four(flips, label="x0", value="F", part=part) == [2, 1 / 2, 1 / 2, 0]
        assert four(flips, label="x0", value="M", part=part) == [3, 1 / 3, 0, 1 / 3]
        assert four(flips, label="x0", value="unknown", part=part) == [3, 1 / 3, 1 / 3, 0]
    assert (flips.loc[flips["part"] == "thresholds", "flip_rate"] == 0).all()


def test_scores_and_thresholds_that_cancel_flip_apart_and_not_together():
    head = HandMadeHead({"sex": {"F": 0.0, "M": 0.2}})
    flips = flips_of(recipe_of(head, thresholds(GroupYouden(), BY_SEX)), VECTORS, SEX)
    # Men score .2 more and have a threshold .2 higher. Now: no, yes, yes (.85 >= .7), yes.
    assert four(flips, label="x0", value="M", part="all")[1:] == [0, 0, 0]
    assert four(flips, label="x0", value="M", part="scores") == [3, 1 / 3, 1 / 3, 0]  # .45 + .2
    assert four(flips, label="x0", value="M", part="thresholds") == [3, 1 / 3, 0, 1 / 3]  # .55 < .7


def test_calibrators_per_group_count_as_scores():
    calibrator = GroupPlatt()
    lines = {("", "all"): 0.0, ("sex", "F"): 0.0, ("sex", "M"): -1.0}
    rows = [
        {"label": "x0", "attribute": a, "group": g, "n_positive": 9, "slope": 1.0, "intercept": b, "note": ""}
        for (a, g), b in lines.items()
    ]
    calibrator.table = pd.DataFrame(rows)
    head = HandMadeHead()
    flips = flips_of(recipe_of(head, thresholds(FixedFpr(), {("", "all"): 0.5}), [calibrator]), VECTORS, SEX)
    assert four(flips, label="x0", value="M", part="scores") == [3, 1 / 3, 0, 1 / 3]  # .55; .75 keeps a logit of .1
    assert four(flips, label="x0", value="F", part="all") == [2, 1 / 2, 1 / 2, 0]
    assert head.calls == 1


def test_representations_that_use_attributes_count_as_scores():
    def table(vectors, attributes):
        shift = np.where(attributes["sex"] == "M", -0.2, 0.0)[:, None]
        return vectors.transformed(lambda v, rows: v + shift[rows])

    state = {"attributes": np.array(["sex", "sex"]), "groups": np.array(["F", "M"])}
    remover = SimpleNamespace(uses_attributes=True, table=table, state=state)
    trained = recipe_of(HandMadeHead(), thresholds(FixedFpr(), {("", "all"): 0.5}), representations=[remover])
    for known in (state, {}):  # a representation that does not tell its groups is asked for those of the rows
        remover.state = known
        flips = flips_of(trained, VECTORS, SEX)
        assert set(flips["value"]) == {"F", "M", "unknown"}
        assert four(flips, label="x0", value="M", part="scores") == [3, 1 / 3, 0, 1 / 3]


def test_one_attribute_of_a_crossing_changes_and_the_other_stays():
    cells = {("", "all"): 0.5, ("race x sex", "A / F"): 0.6, ("race x sex", "A / M"): 0.7, ("race x sex", "B / F"): 0.4}
    table = pd.DataFrame({"race": ["A", "A", "B", "unknown"], "sex": ["F", "M", "F", "F"]})
    flips = flips_of(recipe_of(HandMadeHead(), thresholds(GroupYouden(), cells)), VECTORS, table)
    # Now: .45 no (.6), .55 no (.7), .65 yes (.4), .75 yes (all .5).
    assert set(flips["attribute"]) == {"race", "sex"}
    # To B: .45 >= .4 yes; B / M was not there: .55 >= .5 yes; .75 stays.
    assert four(flips, label="x0", attribute="race", value="B", part="all") == [3, 2 / 3, 2 / 3, 0]
    # To M: .45 < .7 no; .65: B / M was not there, .5 yes; .75: unknown race, yes.
    assert four(flips, label="x0", attribute="sex", value="M", part="all") == [3, 0, 0, 0]


def test_a_group_whose_name_holds_the_separator_comes_back_as_recorded():
    cells = {("", "all"): 0.5, ("race x sex", "A \\/ B / F"): 0.6, ("race x sex", "C / M"): 0.7}
    table = pd.DataFrame({"race": ["A / B", "A / B", "C", "unknown"], "sex": ["F", "M", "F", "F"]})
    flips = flips_of(recipe_of(HandMadeHead(), thresholds(GroupYouden(), cells)), VECTORS, table)
    assert set(flips.loc[flips["attribute"] == "race", "value"]) == {"A / B", "C", "unknown"}
    assert set(flips.loc[flips["attribute"] == "sex", "value"]) == {"F", "M", "unknown"}
    # Now: .45 no (.6), .55 yes (all .5), .65 yes (all), .75 yes (all); all of them to C: .55 is C / M then.
    assert four(flips, label="x0", attribute="race", value="C", part="all") == [3, 1 / 3, 0, 1 / 3]


def test_macro_is_the_mean_of_findings_that_have_decisions_and_undefined_ones_are_left_out():
    by_sex = {("", "all"): [0.5, 0.5, np.nan], ("sex", "F"): [0.5, 0.5, np.nan], ("sex", "M"): [0.7, 0.5, np.nan]}
    rule = thresholds(GroupYouden(), by_sex, n_labels=3)
    flips = flips_of(recipe_of(HandMadeHead(), rule, n_labels=3), np.repeat(VECTORS, 3, axis=1), SEX)
    assert flips["label"].drop_duplicates().tolist() == ["x0", "x1", "x2", "macro"]
    undefined = four(flips, label="x2", value="M", part="all")
    assert undefined[0] == 0 and np.isnan(undefined[1:]).all()
    assert four(flips, label="x1", value="M", part="all") == [3, 0, 0, 0]
    assert four(flips, label="macro", value="M", part="all") == [3, 1 / 6, 0, 1 / 6]


def test_groups_that_are_all_of_the_value_already_leave_nothing_to_count():
    everyone = pd.DataFrame({"sex": ["M"] * 4})
    flips = flips_of(recipe_of(HandMadeHead(), thresholds(GroupYouden(), BY_SEX)), VECTORS, everyone)
    for label in ("x0", "macro"):
        row = four(flips, label=label, value="M", part="all")
        assert row[0] == 0 and np.isnan(row[1:]).all()
    assert four(flips, label="x0", value="F", part="all") == [4, 1 / 2, 1 / 2, 0]  # .55 and .65


def test_an_attribute_that_the_rows_do_not_have_is_unknown_for_everyone():
    head = HandMadeHead({"sex": {"F": 0.0, "M": -0.2}})
    trained = recipe_of(head, thresholds(GroupYouden(), BY_SEX))
    flips = flips_of(trained, VECTORS, pd.DataFrame(index=range(4)))
    unknown = flips_of(trained, VECTORS, pd.DataFrame({"sex": ["unknown"] * 4}))
    pd.testing.assert_frame_equal(flips, unknown)
    assert one(flips, label="x0", value="unknown", part="all")["n"] == 0
    assert four(flips, label="x0", value="M", part="all") == [4, 3 / 4, 0, 3 / 4]


def test_a_recipe_that_uses_no_attribute_has_no_row():
    flips = flips_of(recipe_of(HandMadeHead(), thresholds(FixedFpr(), {("", "all"): 0.5})), VECTORS, SEX)
    assert list(flips) == COLUMNS and len(flips) == 0


def test_a_head_without_attributes_is_asked_once_and_one_with_them_once_for_each_value_of_its_own():
    race_and_sex = SEX.assign(race="A")
    cells = {("", "all"): 0.5, ("race", "A"): 0.6, ("race", "B"): 0.7}
    for added, calls in (({}, 1), ({"sex": {"F": 0.0, "M": 0.1}}, 1 + 3)):
        head = HandMadeHead(added)
        flips_of(recipe_of(head, thresholds(GroupYouden(), cells)), VECTORS, race_and_sex)
        assert head.calls == calls


def test_of_a_rule_that_draws_the_expected_flips_are_counted_under_one_draw():
    """A changed score would be drawn for anew, which says nothing about the attribute."""
    rule = EqualizedOdds(ThresholdOptimizerSettings(("sex",)))
    mixed = {"p0": 1.0, "threshold0": 0.5, "p1": 0.0, "threshold1": np.inf, "constant": 0.2}
    groups = [("", "all", 0.0), ("sex", "F", 0.5), ("sex", "M", 0.0)]
    rows = [
        {"label": "x0", "attribute": a, "group": g, "n_positive": 9, **mixed, "p_ignore": p, "note": ""} for a, g, p in groups
    ]
    rule.table = pd.DataFrame(rows)
    flips = flips_of(recipe_of(HandMadeHead(), rule), VECTORS, SEX)
    # F: .5 x .2 below .5, .5 + .5 x .2 above; M and all: 0 below, 1 above.
    assert four(flips, label="x0", value="F", part="all") == pytest.approx([2, 0.4, 0, 0.4])
    assert four(flips, label="x0", value="M", part="all") == pytest.approx([3, 0.5 / 3, 0.4 / 3, 0.1 / 3])


def test_the_sentence_names_the_matter():
    assert "disparate treatment" in DISPARATE_TREATMENT and "clinical and legal review" in DISPARATE_TREATMENT


@pytest.mark.slow
def test_a_run_writes_flips_on_its_test_rows_where_attributes_are_used_and_only_there(tmp_path):
    n = 240
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)], "study_id": [f"s{i}" for i in range(n)],
            "patient_id": [f"p{i}" for i in range(n)], "path": "x.jpg", "view": "PA", "age": 50.0,
            "split": np.repeat(["train", "validation", "calibration", "test"], n // 4),
            "sex": rng.choice(["F", "M", "unknown"], n), "race": rng.choice(["A", "B"], n),
        }
    )  # fmt: skip
    attributes = (Attribute("sex", ("F", "M"), True), Attribute("race", ("A", "B"), True))
    labels = (rng.random((n, 2)) < 0.4).astype(np.float32)
    cohort = Cohort(table, labels, ("x", "y"), attributes, "generic", "image", ".")
    vectors = rng.normal(size=(n, 4)).astype(np.float32)
    embeddings = EmbeddingSet(table["image_id"].to_numpy(object), np.zeros(n, np.int32), vectors, {"encoder": "test"})
    recipes = parse_recipes("erm, erm(demographics=[sex])+group_youden", ("erm.hidden=[4]", "erm.max_epochs=1"))
    for recipe in recipes:
        folder = tmp_path / recipe.name
        folder.mkdir()
        predictions = run_recipe(recipe, cohort, embeddings, folder, seed=0)
        assert (folder / "flips.csv").is_file() == (recipe.name != "erm")
    flips = pd.read_csv(folder / "flips.csv")
    assert set(flips["attribute"]) == {"sex", "race"} and set(flips["label"]) == {"x", "y", "macro"}
    in_test = predictions.in_split("test").table
    assert one(flips, label="x", attribute="sex", value="F", part="all")["n"] == (in_test["sex"] != "F").sum()
    is_race = flips["attribute"] == "race"
    assert (flips.loc[is_race & (flips["part"] == "scores"), "flip_rate"] == 0).all()
    assert (flips.loc[is_race & (flips["part"] == "thresholds"), "flip_rate"] > 0).any()
