"""Two cohorts side by side: the same findings and groups on both sides, independent samples, effects paired within each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from biascxr.audit import audit
from biascxr.audit.external import compare_cohorts, read_tables, shared_attributes
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.errors import InputError

LABELS = ("Edema", "Mass")
CONFIG = AuditConfig(metrics=("AUROC", "TPR", "FPR", "Brier"), n_replicates=100, n_permutations=0)


def site(seed: int, *, n: int = 400, races=("WHITE", "BLACK"), signal=1.5, rates=(0.4, 0.3), recipe="erm") -> Predictions:
    """A patient per row; positives score higher by `signal` standard deviations."""
    rng = np.random.default_rng(seed)
    race, sex = rng.choice(races, n), rng.choice(["F", "M"], n)
    y = (rng.random((n, 2)) < rates).astype(np.float32)
    scores = 1 / (1 + np.exp(-rng.normal(signal * y - 0.7, 1)))
    table = pd.DataFrame({"image_id": [f"{seed}i{k}" for k in range(n)], "split": "test", "race": race, "sex": sex})
    table = table.assign(study_id=table["image_id"], patient_id=table["image_id"], recipe=recipe, seed=0, fold=0)
    attributes = (Attribute("race", tuple(races), True), Attribute("sex", ("F", "M"), True))
    return Predictions(table, y, scores, LABELS, attributes, (scores >= 0.5).astype(np.float32))


def rows(tables, **chosen):
    table = tables.side_by_side
    for column, value in chosen.items():
        table = table[table[column] == value]
    return table


@pytest.fixture(scope="module")
def tables():
    """Other groups, other prevalence and a weaker signal elsewhere."""
    home = site(0, races=("WHITE", "BLACK", "ASIAN"))
    away = site(1, races=("BLACK", "WHITE", "White"), signal=0.8, rates=(0.2, 0.3), n=600)
    return home, away, compare_cohorts({"erm": home}, {"erm": away}, CONFIG)


def test_values_are_those_of_scikit_learn_and_of_the_audit_on_each_side(tables):
    home, away, made = tables
    for side, own in (("in", home), ("out", away)):
        metrics = audit([own], CONFIG).metrics.set_index(["label", "attribute", "group", "metric"])
        for i, label in enumerate(LABELS):
            everyone = rows(made, label=label, attribute="overall", quantity="value").set_index("metric")
            assert everyone.loc["AUROC", f"value_{side}"] == pytest.approx(roc_auc_score(own.y_true[:, i], own.scores[:, i]))
            assert everyone.loc["Brier", f"value_{side}"] == pytest.approx(brier_score_loss(own.y_true[:, i], own.scores[:, i]))
            white = rows(made, label=label, group="WHITE", metric="TPR", quantity="value").iloc[0]
            audited = metrics.loc[(label, "race", "WHITE", "TPR")]
            assert tuple(white[[f"{c}_{side}" for c in ("value", "low", "high", "n", "n_patients")]]) == pytest.approx(
                tuple(audited[["value", "low", "high", "n", "n_patients"]])
            )


def test_a_change_is_out_minus_in_with_newcombes_interval(tables):
    row = rows(tables[2], label="Edema", attribute="overall", metric="TPR", quantity="value").iloc[0]
    assert row["change"] == pytest.approx(row["value_out"] - row["value_in"])
    below = np.hypot(row["value_out"] - row["low_out"], row["high_in"] - row["value_in"])
    above = np.hypot(row["high_out"] - row["value_out"], row["value_in"] - row["low_in"])
    assert (row["change_low"], row["change_high"]) == pytest.approx((row["change"] - below, row["change"] + above))
    auroc = rows(tables[2], label="macro", attribute="overall", metric="AUROC", quantity="value").iloc[0]
    assert auroc["change_high"] < 0  # the weaker signal is seen


def test_only_groups_of_both_sides_are_set_side_by_side(tables):
    home, away, made = tables
    assert set(rows(made, attribute="race")["group"]) == {"WHITE", "BLACK", "gap"}
    gap = rows(made, attribute="race", metric="TPR", quantity="gap").iloc[0]
    assert gap["compared_groups"] == "WHITE, BLACK"  # in the order of home
    for side, own in (("in", home), ("out", away)):
        tpr = {}
        for race in ("WHITE", "BLACK"):
            positive = (own.table["race"] == race).to_numpy()[:, None] & (own.y_true == 1)
            tpr[race] = np.mean([own.decisions[positive[:, i], i].mean(dtype=float) for i in range(len(LABELS))])
        assert gap[f"value_{side}"] == pytest.approx(abs(tpr["WHITE"] - tpr["BLACK"]))
        assert gap[f"low_{side}"] <= gap[f"value_{side}"] <= gap[f"high_{side}"] and gap[f"noise_{side}"] > 0


def test_a_difference_is_from_everyone_else_of_the_groups_of_both_sides(tables):
    home, _, made = tables
    row = rows(made, label="Mass", group="WHITE", metric="FPR", quantity="difference").iloc[0]
    negative = home.y_true[:, 1] == 0
    fpr = {r: home.decisions[(home.table["race"] == r) & negative, 1].mean(dtype=float) for r in ("WHITE", "BLACK")}
    assert row["value_in"] == pytest.approx(fpr["WHITE"] - fpr["BLACK"])  # ASIAN is nobody's "everyone else" here


def test_a_macro_average_is_over_the_findings_that_both_sides_can_measure():
    home = site(0)
    away = site(1)
    y = away.y_true.copy()
    y[3:, 1] = 0  # at most three positives of Mass elsewhere
    made = compare_cohorts({"erm": home}, {"erm": replace(away, y_true=y)}, CONFIG)
    macro = rows(made, label="macro", attribute="overall", metric="AUROC", quantity="value").iloc[0]
    edema = rows(made, label="Edema", attribute="overall", metric="AUROC", quantity="value").iloc[0]
    assert macro["n_labels"] == 1
    assert (macro["value_in"], macro["value_out"]) == (edema["value_in"], edema["value_out"])


def test_a_cohort_beside_itself_has_not_changed():
    own = site(3)
    better = replace(own, scores=np.clip(own.scores + 0.2 * own.y_true, 0, 1), table=own.table.assign(recipe="better"))
    both = {"erm": own, "better": better}
    made = compare_cohorts(both, both, CONFIG)
    assert (made.side_by_side["change"].dropna() == 0).all()
    assert (made.effects["transfer"].dropna() == 0).all()
    auroc = made.effects[(made.effects["attribute"] == "overall") & (made.effects["metric"] == "AUROC")].iloc[0]
    assert auroc["verdict_in"] == auroc["verdict_out"] == "better" and auroc["change_in"] > 0.05


def test_effects_are_paired_within_a_side_and_agree_with_the_audits_own():
    home, away = site(4), site(5)
    remedy = {
        side: replace(p, scores=np.clip(p.scores + shift * p.y_true, 0, 1), table=p.table.assign(recipe="remedy"))
        for side, p, shift in (("in", home, 0.2), ("out", away, 0.0))
    }
    made = compare_cohorts({"erm": home, "remedy": remedy["in"]}, {"erm": away, "remedy": remedy["out"]}, CONFIG)
    row = made.effects[(made.effects["attribute"] == "overall") & (made.effects["metric"] == "AUROC")].iloc[0]
    audited = audit([home, remedy["in"]], CONFIG).comparisons
    audited = audited[(audited["label"] == "macro") & (audited["attribute"] == "overall") & (audited["metric"] == "AUROC")]
    assert tuple(row[["change_in", "low_in", "high_in"]]) == pytest.approx(tuple(audited.iloc[0][["change", "low", "high"]]))
    assert (row["verdict_in"], row["verdict_out"]) == ("better", "not enough evidence")
    assert row["change_out"] == 0 and row["transfer"] == pytest.approx(-row["change_in"]) and row["transfer_high"] < 0
    gap = made.effects[(made.effects["group"] == "gap") & (made.effects["attribute"] == "sex")]
    assert set(gap["metric"]) == set(CONFIG.metrics) and gap["low_in"].notna().all()


def test_intervals_of_changes_hold_zero_where_two_sites_are_alike():
    held, of_gaps = [], []
    for k in range(20):
        home, away = site(100 + k, n=200), site(200 + k, n=300)
        made = compare_cohorts({"erm": home}, {"erm": away}, replace(CONFIG, metrics=("AUROC", "TPR"), n_replicates=50))
        own = rows(made, attribute="overall", quantity="value")
        held += list((own["change_low"] <= 0) & (own["change_high"] >= 0))
        of_gaps += list(rows(made, quantity="gap").eval("change_low <= 0 <= change_high"))
    assert 0.88 <= np.mean(held) < 1.0  # 120 intervals of 95 %
    assert np.mean(of_gaps) >= 0.9  # a gap's interval is wide, and so is that of its change


def test_a_group_without_a_row_on_one_side_is_no_group_of_both():
    home, away = site(10), site(11)
    races = Attribute("race", ("WHITE", "BLACK", "ASIAN"), True)  # the cohort had ASIAN patients, its test part has none
    home, away = (replace(p, attributes=(races,)) for p in (home, away))
    away = replace(away, table=away.table.assign(race=away.table["race"].replace("BLACK", "ASIAN")))
    assert shared_attributes(home, away) == ()
    both = site(11)
    assert shared_attributes(home, replace(both, attributes=(races,)))[0].groups == ("WHITE", "BLACK")


def test_crossings_are_compared_like_attributes():
    home, away = site(6), site(7)
    made = compare_cohorts({"erm": home}, {"erm": away}, replace(CONFIG, attributes=("sex",), crossings=("race x sex",)))
    assert set(made.side_by_side["attribute"]) == {"overall", "sex", "race x sex"}
    row = rows(made, label="Edema", attribute="race x sex", group="BLACK, F", metric="TPR", quantity="value").iloc[0]
    own = ((home.table["race"] == "BLACK") & (home.table["sex"] == "F") & (home.y_true[:, 0] == 1)).to_numpy()
    assert row["value_in"] == pytest.approx(home.decisions[own, 0].mean(dtype=float))


def test_without_a_group_in_common_everyone_is_compared_all_the_same():
    home, away = site(8, races=("WHITE", "BLACK")), site(9, races=("White", "Black"))
    home, away = (replace(p, attributes=p.attributes[:1]) for p in (home, away))
    assert shared_attributes(home, away) == ()
    made = compare_cohorts({"erm": home}, {"erm": away}, CONFIG)
    assert set(made.side_by_side["attribute"]) == {"overall"} and made.effects.empty


def test_other_recipes_or_findings_are_refused():
    own = site(0)
    with pytest.raises(InputError, match="same recipes and findings"):
        compare_cohorts({"erm": own}, {"other": own}, CONFIG)
    with pytest.raises(InputError, match="same recipes and findings"):
        compare_cohorts({"erm": own}, {"erm": replace(own, label_names=("Mass", "Edema"))}, CONFIG)


def test_tables_come_back_from_their_files(tables, tmp_path):
    own = tables[2]
    own.side_by_side.to_csv(tmp_path / "a.csv", index=False)
    own.effects.to_csv(tmp_path / "b.csv", index=False)
    again = read_tables(tmp_path / "a.csv", tmp_path / "b.csv")
    pd.testing.assert_series_equal(again.side_by_side["change"], own.side_by_side["change"])
    assert set(again.side_by_side["group"]) == set(own.side_by_side["group"]) and again.effects.empty
