"""Choosing among candidates: each rule against its definition, ties, dominated candidates, order, and the cost elsewhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.audit.selection import SELECTION_RULES, pareto_efficient, regret_elsewhere, selection_table
from biascxr.errors import InputError

GROUPS = ("A", "B", "C")


def as_table(values: dict[str, list[float]]) -> pd.DataFrame:
    """Returns the tidy form of candidate -> overall value, then one value per group."""
    rows = []
    for candidate, (overall, *groups) in values.items():
        rows.append((candidate, "overall", "all", overall))
        rows += [(candidate, "race", g, v) for g, v in zip(GROUPS, groups, strict=False)]
    return pd.DataFrame(rows, columns=["candidate", "attribute", "group", "value"])


def choices(values: dict[str, list[float]], **options) -> dict[str, str]:
    """Returns the chosen candidate per rule."""
    chosen = selection_table(as_table(values), attribute="race", **options).chosen
    return dict(zip(chosen["rule"], chosen["candidate"], strict=True))


# Few levels, so that ties are common.
some_values = st.lists(st.lists(st.integers(0, 6).map(lambda i: i / 8), min_size=4, max_size=4), min_size=1, max_size=7).map(
    lambda rows: {f"m{i}": row for i, row in enumerate(rows)}
)


def dominates(a: list[float], b: list[float]) -> bool:
    """Whether a is at least as good as b in every group and better in one."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


def test_each_rule_chooses_what_its_name_says():
    values = {
        "accurate": [0.90, 0.95, 0.90, 0.60],
        "careful": [0.80, 0.80, 0.78, 0.75],
        "level": [0.70, 0.70, 0.70, 0.70],
        "between": [0.85, 0.90, 0.85, 0.74],
    }
    leakage = {"accurate": 0.9, "careful": 0.7, "level": 0.8, "between": 0.6}
    assert choices(values, leakage=leakage) == {
        "overall": "accurate",
        "worst_group": "careful",
        "minimax_pareto": "careful",
        "distance_to_optimal": "between",
        "minimum_gap": "level",
        "minimum_leakage": "between",
    }
    made = selection_table(as_table(values), attribute="race", leakage=leakage).candidates.set_index("candidate")
    assert list(made.index[~made["is_pareto"]]) == ["level"]  # careful is better in every group
    assert made.loc["between", "dto"] == pytest.approx(np.sqrt(0.05**2 + 0.05**2 + 0.01**2))
    assert made.loc["level", "regret_overall"] == pytest.approx(0.2)
    assert made.loc["accurate", "regret_worst_group"] == pytest.approx(0.15)
    assert made.loc["accurate", "regret_minimum_gap"] == pytest.approx(0.35)
    assert made.loc["accurate", "regret_minimum_leakage"] == pytest.approx(0.3)


def test_only_the_overall_rule_sees_no_groups():
    assert [name for name, rule in SELECTION_RULES.items() if not rule.sees_groups] == ["overall"]
    assert all(rule.name == name and rule.text.endswith(".") for name, rule in SELECTION_RULES.items())


def test_minimax_pareto_passes_over_a_candidate_that_worst_group_would_take():
    # Both have .5 in the worst group and the dominated one is better overall, so the tie goes to it without the condition.
    values = {"dominated": [0.9, 0.5, 0.6, 0.6], "efficient": [0.8, 0.5, 0.7, 0.6]}
    assert choices(values)["worst_group"] == "dominated"
    assert choices(values)["minimax_pareto"] == "efficient"


@given(some_values)
@settings(deadline=None, max_examples=25)
def test_the_criteria_are_what_the_definitions_give(values):
    made = selection_table(as_table(values), attribute="race").candidates.set_index("candidate")
    ideal = [max(row[i] for row in values.values()) for i in (1, 2, 3)]
    for name, (overall, *groups) in values.items():
        row = made.loc[name]
        assert (row["overall"], row["worst"], row["gap"]) == (overall, min(groups), max(groups) - min(groups))
        assert row["dto"] == pytest.approx(np.linalg.norm(np.subtract(ideal, groups)))
        assert row["is_pareto"] == (not any(dominates(other[1:], groups) for other in values.values()))


@given(some_values, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_the_chosen_has_no_regret_and_no_one_has_less(values, seed):
    leakage = dict(zip(values, np.random.default_rng(seed).integers(0, 3, len(values)) / 4, strict=True))
    made = selection_table(as_table(values), attribute="race", leakage=leakage)
    candidates = made.candidates.set_index("candidate")
    for row in made.chosen.itertuples():
        regret = candidates[f"regret_{row.rule}"]
        assert regret[row.candidate] == 0
        assert (regret >= 0).all()
        rule = SELECTION_RULES[row.rule]
        distance = (candidates[rule.criterion] - row.criterion).abs()
        np.testing.assert_allclose(regret, distance, atol=1e-12)
        # Of those without regret that the rule may take, none is better overall or as good and earlier by name.
        tied = candidates[(regret == 0) & (candidates["is_pareto"] | (not rule.only_pareto))]
        best = tied[tied["overall"] == tied["overall"].max()]
        assert row.candidate == min(best.index)


@given(some_values, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=25)
def test_the_order_of_candidates_and_rows_changes_nothing(values, random):
    table = as_table(values)
    order = list(range(len(table)))
    random.shuffle(order)
    leakage = {name: 0.5 for name in values}
    one = selection_table(table, attribute="race", leakage=leakage)
    other = selection_table(table.iloc[order], attribute="race", leakage=dict(reversed(leakage.items())))
    pd.testing.assert_frame_equal(one.candidates, other.candidates)
    pd.testing.assert_frame_equal(one.chosen, other.chosen)


@given(some_values)
@settings(deadline=None, max_examples=25)
def test_a_dominated_candidate_is_not_chosen_by_performance(values):
    for rule, candidate in choices(values).items():
        own = values[candidate] if candidate else None
        if rule in ("minimax_pareto", "distance_to_optimal"):
            assert not any(dominates(other[1:], own[1:]) for other in values.values())
        if rule in ("overall", "worst_group"):
            # These look at one number: a candidate is passed over if another one is better in all of them.
            assert not any(all(x > y for x, y in zip(other, own, strict=True)) for other in values.values())


@given(some_values, st.data())
@settings(deadline=None, max_examples=25)
def test_adding_a_dominated_candidate_changes_no_choice_by_performance(values, data):
    better = data.draw(st.sampled_from(sorted(values)))
    drop = data.draw(st.lists(st.integers(1, 3).map(lambda i: i / 32), min_size=4, max_size=4))
    # A first name, so that it would win any tie that it should not be in.
    more = {"a worse one": [v - d for v, d in zip(values[better], drop, strict=True)], **values}
    before, after = choices(values), choices(more)
    for rule in ("overall", "worst_group", "minimax_pareto", "distance_to_optimal"):
        assert after[rule] == before[rule]


@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_pareto_efficiency_is_that_of_a_search_through_all_pairs(n, k, seed):
    values = np.random.default_rng(seed).integers(0, 4, (n, k)).astype(float)
    wanted = [not any(dominates(list(other), list(own)) for other in values) for own in values]
    np.testing.assert_array_equal(pareto_efficient(values), wanted)


def test_without_leakage_its_rule_is_skipped_and_says_so():
    made = selection_table(as_table({"a": [0.8, 0.8, 0.7, 0.9], "b": [0.7, 0.8, 0.8, 0.8]}), attribute="race")
    row = made.chosen.set_index("rule").loc["minimum_leakage"]
    assert (row["candidate"], row["note"]) == ("", "skipped: no leakage was given") and np.isnan(row["criterion"])
    assert np.isnan(made.candidates[["leakage", "regret_minimum_leakage"]].to_numpy()).all()


def test_an_undefined_value_is_never_chosen_and_is_told():
    values = {"a": [0.9, np.nan, 0.9, 0.9], "b": [0.7, 0.6, 0.7, 0.8], "c": [np.nan, 0.5, 0.8, 0.8]}
    made = selection_table(as_table(values), attribute="race")
    chosen = made.chosen.set_index("rule")
    assert chosen["candidate"].to_dict() == {
        "overall": "a", "worst_group": "b", "minimax_pareto": "b", "distance_to_optimal": "c", "minimum_gap": "b",
        "minimum_leakage": "",
    }  # fmt: skip
    assert chosen.loc["worst_group", "note"] == "undefined, so not to be chosen: a"
    assert chosen.loc["overall", "note"] == "undefined, so not to be chosen: c"
    assert np.isnan(made.candidates.set_index("candidate").loc["a", "regret_worst_group"])


def test_a_group_that_is_undefined_for_every_candidate_is_left_out_and_named():
    values = {"a": [0.9, 0.8, np.nan, 0.7], "b": [0.7, 0.75, np.nan, 0.75]}
    made = selection_table(as_table(values), attribute="race")
    without = selection_table(as_table(values).query("group != 'B'"), attribute="race")
    pd.testing.assert_frame_equal(made.candidates, without.candidates)
    notes = made.chosen.set_index("rule")["note"]
    assert notes["minimum_gap"] == "groups left out, undefined for every candidate: B" and notes["overall"] == ""


@given(some_values, st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_a_choice_judged_on_the_rows_it_was_made_on_has_no_regret_and_elsewhere_what_its_criterion_lacks(values, seed):
    chosen = selection_table(as_table(values), attribute="race").chosen
    same = regret_elsewhere(chosen, as_table(values)).set_index("rule")
    assert (same["regret"].drop("minimum_leakage") == 0).all()
    drawn = np.random.default_rng(seed).random((len(values), 4))
    test = dict(zip(values, drawn.tolist(), strict=True))
    made = regret_elsewhere(chosen, as_table(test)).set_index("rule")
    assert list(made["candidate"]) == list(chosen["candidate"])
    worst = {name: min(row[1:]) for name, row in test.items()}
    gap = {name: np.ptp(row[1:]) for name, row in test.items()}
    for rule, wanted in (
        ("overall", max(row[0] for row in test.values()) - test[made.loc["overall", "candidate"]][0]),
        ("worst_group", max(worst.values()) - worst[made.loc["worst_group", "candidate"]]),
        ("minimax_pareto", max(worst.values()) - worst[made.loc["minimax_pareto", "candidate"]]),
        ("minimum_gap", gap[made.loc["minimum_gap", "candidate"]] - min(gap.values())),
    ):
        assert made.loc[rule, "regret"] == pytest.approx(wanted, abs=1e-12)
    assert (made["regret"].drop("minimum_leakage") >= 0).all()
    assert np.isnan(made.loc["minimum_leakage", "regret"])


def test_the_best_on_noise_is_not_the_best_elsewhere():
    """Candidates that are equal in truth: what looks best on validation is a draw on test, and its regret is that of any."""
    rng = np.random.default_rng(0)
    regrets = []
    for _ in range(35):
        validation, test = ({f"m{i:02d}": row for i, row in enumerate(rng.normal(0.8, 0.03, (20, 4)).tolist())} for _ in "ab")
        chosen = selection_table(as_table(validation), attribute="race").chosen
        regrets.append(regret_elsewhere(chosen, as_table(test)).set_index("rule").loc["overall", "regret"])
    # The maximum of 20 normal draws lies 1.867 standard deviations above a draw chosen blindly.
    assert np.mean(regrets) == pytest.approx(1.867 * 0.03, rel=0.2)


def test_what_cannot_be_used_is_said():
    table = as_table({"a": [0.8, 0.8, 0.7, 0.9], "b": [0.7, 0.8, 0.8, 0.8]})
    for values, message in (
        (table.drop(columns="value"), r"Unknown column .* 'value'"),
        (table.iloc[:0], "no candidate"),
        (pd.concat([table, table.iloc[[1]]]), r"Candidate 'a' has two values in group 'A'"),
        (table.drop(index=0), r"lacking 1, first \('a', 'all'\)"),
        (table.drop(index=[5, 6]), r"lacking 2, first \('b', 'A'\)|lacking 2, first \('b', 'B'\)"),
        (table.assign(value=np.where(table["attribute"] == "race", np.nan, 0.5)), "nothing to compare"),
    ):
        with pytest.raises(InputError, match=message):
            selection_table(values, attribute="race")
    with pytest.raises(InputError, match="Unknown attribute in the candidates' values 'sex'"):
        selection_table(table, attribute="sex")
    with pytest.raises(InputError, match=r"Unknown candidate in leakage .* 'b'"):
        selection_table(table, attribute="race", leakage={"a": 0.5})
    chosen = selection_table(table, attribute="race").chosen
    with pytest.raises(InputError, match=r"Unknown candidate in test_values .* 'a'"):
        regret_elsewhere(chosen, table[table["candidate"] == "b"])
