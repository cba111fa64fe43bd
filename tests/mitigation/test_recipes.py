"""A recipe is names joined by +; settings are METHOD.NAME=VALUE."""

from __future__ import annotations

import json

import pytest

from biascxr.config import MitigationConfig
from biascxr.errors import InputError
from biascxr.mitigation import SLOTS, Recipe, parse_recipes
from biascxr.mitigation.decision import RULES


def test_names_may_stand_in_any_order():
    _, one = parse_recipes("median_balance+standardize+erm+group_youden")
    _, other = parse_recipes("group_youden + erm + standardize + median_balance")
    assert one.parts == other.parts
    assert {slot: one.methods(slot) for slot in SLOTS} == {
        "sampling": ("median_balance",),
        "representation": ("standardize",),
        "training": ("erm",),
        "decision": ("group_youden",),
    }
    assert other.name == "group_youden+erm+standardize+median_balance"


def test_erm_is_always_there_and_always_first():
    assert [r.name for r in parse_recipes("standardize+erm")] == ["erm", "standardize+erm"]
    assert [r.name for r in parse_recipes("standardize+erm, erm")] == ["erm", "standardize+erm"]
    assert [r.name for r in parse_recipes("")] == ["erm"]


def test_what_a_recipe_does_not_name_is_as_in_erm():
    erm, sampled = parse_recipes("median_balance")
    plain = {"sampling": ["none"], "representation": ["none"], "training": ["erm"], "decision": ["fixed_fpr"]}
    assert {slot: [m.name for m in erm.members(slot)] for slot in SLOTS} == plain
    assert {slot: [m.name for m in sampled.members(slot)] for slot in SLOTS} == plain | {"sampling": ["median_balance"]}
    assert [m.name for m in parse_recipes("none+erm+threshold_0.5")[1].members("decision")] == ["threshold_0.5"]


def test_the_default_recipes_can_be_read():
    assert len(parse_recipes(MitigationConfig().recipes)) == 5


def test_members_are_new_each_time():
    (erm,) = parse_recipes("erm")
    assert erm.members("training")[0] is not erm.members("training")[0]


def test_representations_keep_their_order_and_may_be_several():
    assert parse_recipes("standardize+erm+standardize")[1].methods("representation") == ("standardize", "standardize")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("median_balanse+erm", r"Unknown recipe part 'median_balanse'\. Did you mean 'median_balance'\? Known: .*youden"),
        ("erm+erm", "names erm and erm: the training slot takes one method"),
        ("youden+fixed_fpr", "names youden and fixed_fpr: a recipe takes one decision rule"),
        ("erm(dropout=0.1", r"Brackets do not match in 'erm\(dropout=0.1'"),
        ("erm)(", "Brackets do not match"),
        ("erm(batch_size=16]", "Brackets do not match"),
        ("erm(batch_size=16, batch_size=32)", r"erm\(.*\) sets batch_size twice"),
        ("biascxr(batch_size=4)", "biascxr takes nothing in parentheses"),
        ("none(x=1)", "none takes nothing in parentheses"),
        ("erm(0.1)", r"Settings in parentheses are NAME=VALUE, .*; got '0.1'"),
        ("erm(dropuot=0.1)", r"Unknown setting of erm 'dropuot'\. Did you mean 'dropout'\?"),
        ("biascxrr", r"Unknown recipe part 'biascxrr'\. Did you mean 'biascxr'\?"),
        ("standardize, standardize", "Recipe 'standardize' is listed twice"),
        ("erm++standardize", "has an empty part"),
    ],
)
def test_a_recipe_that_cannot_be_read_says_why(text, message):
    with pytest.raises(InputError, match=message):
        parse_recipes(text)


def test_settings_reach_the_methods_they_name_and_no_others():
    settings = (
        "erm.batch_size=16", "erm.learning_rate=1e-4", "erm.hidden=[32, 16]", "median_balance.max_copies=3",
        "fixed_fpr.fpr=0.1", "cluster_downsample.attributes=[race]", "erm.dropout=0",
    )  # fmt: skip
    erm, balanced = parse_recipes("erm, median_balance", settings)
    chosen = erm.members("training")[0].settings
    assert (chosen.batch_size, chosen.learning_rate, chosen.hidden, chosen.dropout) == (16, 1e-4, (32, 16), 0.0)
    assert chosen.patience == 15
    assert balanced.members("sampling")[0].settings.max_copies == 3
    assert balanced.members("decision")[0].settings.fpr == 0.1
    assert balanced.describe()["sampling"][0]["settings"]["max_copies"] == 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("threshold_0.5.x=1", r"threshold_0.5 has no settings; got threshold_0.5.x"),
        ("none.x=1", "Unknown method in --settings 'none'"),
        ("erm.batchsize=16", r"Unknown setting of erm 'batchsize'\. Did you mean 'batch_size'\?"),
        ("ermm.batch_size=16", r"Unknown method in --settings 'ermm'\. Did you mean 'erm'\?"),
        ("erm.batch_size", "takes METHOD.NAME=VALUE"),
        ("batch_size=16", "takes METHOD.NAME=VALUE"),
        ("erm.batch_size=many", "erm.batch_size must be int, like its default 512; got 'many'"),
        ("erm.batch_size=true", "erm.batch_size must be int"),
        ("erm.batch_size=1.5", "erm.batch_size must be int"),
        ("erm.learning_rate=fast", "erm.learning_rate must be float"),
        ("erm.weight_decay=.nan", "erm.weight_decay must be a finite number"),
        ("group_dro.step_size=.inf", "group_dro.step_size must be a finite number"),
        ("random_over.max_copies=99999999999999999999", "must be a finite number within"),
        ("erm.attributes=[race, race]", r"erm.attributes names something twice"),
        ("erm.attributes=[[race]]", r"erm.attributes must be a list of str, quoted"),
        ("label_noise.reference=NO", r"must be str, .*; got \'NO\' \(quote it"),
        ("erm.learning_rate=-1", "learning_rate must be above 0; got -1.0"),
        ("erm.hidden=32", "erm.hidden must be tuple"),
        ("erm.hidden=[a, b]", "erm.hidden must be a list of int, .*; got 'a'"),
        ("erm.hidden=[1", "the value cannot be read"),
        ("erm.dropout=1.0", r"dropout must lie in \[0, 1\); got 1.0"),
        ("median_balance.max_copies=0", "max_copies and min_cell must be at least 1"),
    ],
)
def test_a_setting_that_cannot_be_used_says_why(setting, message):
    with pytest.raises(InputError, match=message):
        parse_recipes("erm", (setting,))


def test_settings_in_parentheses_are_for_that_place_alone_and_win():
    one, other = parse_recipes("erm, standardize + erm(dropout=0.1, hidden=[32, 16])", ("erm.dropout=0.2", "erm.batch_size=8"))
    assert one.members("training")[0].settings.dropout == 0.2
    chosen = other.members("training")[0].settings
    assert (chosen.dropout, chosen.hidden, chosen.batch_size) == (0.1, (32, 16), 8)
    assert other.name == "standardize+erm(dropout=0.1,hidden=[32,16])"


def test_samplers_keep_their_order_and_scores_are_calibrated_before_they_are_decided_upon():
    _, made = parse_recipes("cluster_downsample+median_balance")
    assert made.methods("sampling") == ("cluster_downsample", "median_balance")
    assert all(recipe.methods("decision")[-1] in RULES for recipe in parse_recipes("erm, group_youden, standardize"))


def test_a_preset_is_its_parts_and_may_be_joined_to_others():
    _, alone, joined = parse_recipes("biascxr, standardize+biascxr")
    assert alone.methods("sampling") == ("median_balance",) and alone.methods("decision") == ("threshold_0.5",)
    chosen = alone.members("training")[0].settings
    assert (chosen.batch_size, chosen.max_epochs, chosen.demographics) == (16, 1, ("sex", "race", "age_group"))
    assert joined.methods("representation") == ("standardize",) and joined.name == "standardize+biascxr"


def test_a_described_recipe_is_read_back_the_same():
    _, made = parse_recipes("median_balance+standardize+erm(hidden=[8], demographics=[sex])+group_youden(attributes=[sex])")
    again = Recipe.from_description(made.name, json.loads(json.dumps(made.describe())))
    assert again.describe() == made.describe() and again.name == made.name
