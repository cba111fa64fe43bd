"""Like with like: overlap weights make groups alike in what they are adjusted for, and only in that."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.audit.adjust import Adjustment
from biascxr.audit.adjusted import MIN_EFFECTIVE, MIN_EFFECTIVE_SHARE, TOO_THIN, adjusted_table
from biascxr.audit.cells import measure_cells
from biascxr.audit.groups import find_groups
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.errors import InputError
from biascxr.metrics import METRICS, resample_patients

RACE, AGE = Attribute("race", ("A", "B", "C"), True), Attribute("age_group", ("young", "old"), False)
SHARE_AP = {"A": 0.15, "B": 0.5, "C": 0.85}
METRICS_OF_ROWS = [m for m, metric in METRICS.items() if not metric.of_group]


def make_world(seed: int, n: int, *, prevalence=(0.4, 0.4, 0.4), share_ap=SHARE_AP) -> Predictions:
    """Groups differ in how often they are imaged at the bedside, where findings are missed, and in nothing else."""
    rng = np.random.default_rng(seed)
    n_patients = max(1, n // 2)
    patient = rng.integers(0, n_patients, n)
    race = rng.choice(3, n_patients, p=[0.5, 0.3, 0.2])[patient]
    is_ap = rng.random(n) < np.array([share_ap[g] for g in "ABC"])[race]
    y = (rng.random((n, 2)) < np.array(prevalence)[race][:, None]).astype(np.float32)
    score = np.clip(rng.normal(0.35 + y * np.where(is_ap, 0.05, 0.35)[:, None], 0.15), 0, 1).round(3)
    y[rng.random((n, 2)) < 0.04] = np.nan
    table = pd.DataFrame(
        {
            "image_id": np.arange(n).astype(str), "patient_id": patient, "race": np.array(["A", "B", "C"])[race],
            "view": np.where(rng.random(n) < 0.03, "unknown", np.where(is_ap, "AP", "PA")),
            "age_group": rng.choice(["young", "old", "unknown"], n, p=[0.5, 0.4, 0.1]),
        }
    )  # fmt: skip
    table.loc[rng.random(n) < 0.05, "race"] = "unknown"
    return Predictions(table, y, score, ("a", "b"), (RACE, AGE), (score > 0.5).astype(np.float32))


def adjust(predictions, names=("view",), *, attributes=(RACE, AGE), crossings=(), n_replicates=5, **options) -> Adjustment:
    groups = find_groups(predictions, attributes, crossings)
    resamples = resample_patients(predictions.table["patient_id"], n_replicates, seed=1)
    return Adjustment(predictions, groups, resamples, names, **{"min_patients": 1} | options)


def cells_of(adjustment: Adjustment, metrics, **options):
    return measure_cells(
        adjustment.predictions, adjustment.groups, adjustment.resamples, metrics,
        weight=adjustment.weight, adjustment=adjustment, **options,
    )  # fmt: skip


def columns_of(adjustment: Adjustment, attribute: str) -> list[int]:
    groups = next(a.groups for a in adjustment.groups.attributes if a.name == attribute)
    return [adjustment.groups.index(attribute, group) for group in groups]


def overlap_by_hand(adjustment: Adjustment, label: int, attribute: str, names, weight: np.ndarray) -> np.ndarray:
    """Li and Li's weights from their definition, stratum by stratum: `h_s / e_gs`, each group scaled to its size."""
    table = adjustment.predictions.table.assign(label=adjustment.predictions.y_true[:, label], weight=weight)
    groups = next(a.groups for a in adjustment.groups.attributes if a.name == attribute)
    kept = table[attribute].isin(groups) & table["label"].notna()
    for name in names:
        kept &= table[name] != "unknown"
    made = np.zeros(len(table))
    for _, rows in table[kept].groupby(list(names)):
        sizes = rows.groupby(attribute)["weight"].sum().reindex(list(groups), fill_value=0)
        if (sizes > 0).all():
            share = sizes / sizes.sum()
            made[rows.index] = rows[attribute].map((1 / (1 / share).sum()) / share)
    for group in groups:
        own = table[attribute] == group
        total = (made * weight)[own].sum()
        made[own] *= weight[own & kept].sum() / total if total > 0 else 0
    return made


def kept_rows(adjustment: Adjustment, label: int, attribute: str) -> np.ndarray:
    """Rows whose label, group and stratum are known."""
    at = [g.attribute.name for g in adjustment.groups.groupings].index(attribute)
    return adjustment.strata(label, at) >= 0


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 150),
    names=st.sampled_from([("view",), ("label",), ("age_group", "view"), ("view", "label", "age_group")]),
    is_weighted=st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_the_weights_are_overlap_weights_balance_the_strata_and_sum_to_the_size_of_each_group(seed, n, names, is_weighted):
    predictions = make_world(seed, n)
    weight = np.random.default_rng(seed).random(n) + 0.1 if is_weighted else None
    adjustment = adjust(predictions, names, weight=weight)
    if len(adjustment.compared(1)) < 3:
        return  # a group is absent from so few rows: the others are compared without it, tested below
    own = np.ones(n) if weight is None else weight
    for label in range(2):
        fixed = adjustment.fixed(label, 1)
        np.testing.assert_allclose(fixed, overlap_by_hand(adjustment, label, "race", names, own), atol=1e-9)
        total = own * fixed
        kept = kept_rows(adjustment, label, "race")
        table = predictions.table.assign(label=predictions.y_true[:, label], total=total, own=own)[kept]
        if not table["total"].any():
            continue  # no stratum holds all groups
        sums = table.groupby("race")[["total", "own"]].sum()
        np.testing.assert_allclose(sums["total"], sums["own"])  # a group's weights sum to its size
        shares = table.pivot_table(index=list(names), columns="race", values="total", aggfunc="sum", fill_value=0)
        shares = (shares / shares.sum()).to_numpy()
        np.testing.assert_allclose(shares, np.repeat(shares[:, :1], 3, axis=1), atol=1e-9)  # the same strata in each group
        assert not total[~kept].any()


def test_weights_of_two_groups_are_the_classical_overlap_weights():
    """A row weighs the chance of being of the other group (Li, Morgan and Zaslavsky 2018), up to the scale of its group."""
    predictions = make_world(1, 1000)
    adjustment = adjust(predictions, ("view",), attributes=(AGE,))
    kept = kept_rows(adjustment, 0, "age_group")
    is_old = (predictions.table["age_group"] == "old").to_numpy()
    chance = pd.Series(is_old[kept]).groupby(predictions.table["view"].to_numpy()[kept]).transform("mean").to_numpy()
    fixed = adjustment.fixed(0, 1)[kept]
    for group, other in ((is_old[kept], 1 - chance), (~is_old[kept], chance)):
        ratio = fixed[group] / other[group]
        np.testing.assert_allclose(ratio, ratio[0])


def test_a_difference_that_the_mix_of_views_makes_is_gone_after_adjusting_for_view():
    predictions = make_world(2, 20_000)
    adjustment = adjust(predictions, attributes=(RACE,), n_replicates=1)
    plain = measure_cells(predictions, adjustment.groups, adjustment.resamples, ("TPR", "AUROC", "FPR"))
    made = cells_of(adjustment, ("TPR", "AUROC", "FPR"))
    columns = columns_of(adjustment, "race")
    for metric in ("TPR", "AUROC"):
        assert np.ptp(plain.estimate(metric)[0, columns]) > 0.1
        values, errors = made.estimate(metric)[0, columns], made.counts.errors[metric][0, columns]
        assert np.ptp(values) < 4 * errors.max() and errors.max() < 0.02
    # On everyone, who is no group that is compared, nothing changes.
    overall = adjustment.groups.index("overall", "all")
    np.testing.assert_array_equal(made.values["TPR"][:, overall], plain.values["TPR"][:, overall])


def test_a_group_that_is_treated_worse_in_the_same_view_still_is_after_adjusting():
    predictions = make_world(3, 20_000)
    is_c = (predictions.table["race"] == "C").to_numpy()
    missed = is_c & (np.random.default_rng([3, 1]).random(20_000) < 0.3)
    decisions = predictions.decisions.copy()
    decisions[missed] = 0
    made = cells_of(adjust(replace(predictions, decisions=decisions), attributes=(RACE,), n_replicates=1), ("TPR",))
    a, _, c = made.estimate("TPR")[0, columns_of(adjust(predictions, attributes=(RACE,)), "race")]
    assert c / a == pytest.approx(0.7, abs=0.1)  # 2.5 standard errors; unharmed it is 1


def test_adjusting_for_the_label_makes_predictive_values_comparable():
    """Groups of different prevalence have different PPVs although each class is treated alike."""
    predictions = make_world(4, 20_000, prevalence=(0.15, 0.3, 0.6), share_ap=dict.fromkeys("ABC", 0.4))
    adjustment = adjust(predictions, ("label",), attributes=(RACE,), n_replicates=1)
    plain = measure_cells(predictions, adjustment.groups, adjustment.resamples, ("PPV", "TPR", "selection_rate"))
    made = cells_of(adjustment, ("PPV", "TPR", "selection_rate"))
    columns = columns_of(adjustment, "race")
    assert np.ptp(plain.estimate("PPV")[0, columns]) > 0.2
    assert np.ptp(made.estimate("PPV")[0, columns]) < 0.03 and np.ptp(made.estimate("selection_rate")[0, columns]) < 0.03
    np.testing.assert_allclose(made.estimate("TPR")[0, columns], plain.estimate("TPR")[0, columns])  # within the class already


def test_a_stratum_that_lacks_a_group_drops_out_for_all_and_is_counted():
    predictions = make_world(5, 2000)
    is_lateral = np.random.default_rng(5).random(2000) < 0.2
    is_lateral &= (predictions.table["race"] != "C").to_numpy()
    predictions = replace(
        predictions, table=predictions.table.assign(view=predictions.table["view"].mask(is_lateral, "LATERAL"))
    )
    adjustment = adjust(predictions)
    fixed = adjustment.fixed(0, 1)
    assert not fixed[is_lateral].any()
    dropped = adjustment.dropped(0, 1)
    known = ~np.isnan(predictions.y_true[:, 0])
    for group in "ABC":
        own = known & (predictions.table["race"] == group).to_numpy()
        is_left_out = is_lateral | (predictions.table["view"] == "unknown").to_numpy()
        assert dropped[adjustment.groups.index("race", group)] == pytest.approx(is_left_out[own].mean())
    assert dropped[adjustment.groups.index("race", "C")] < 0.06 < 0.2 < dropped[adjustment.groups.index("race", "A")]


def test_a_group_too_small_to_be_compared_drops_out_and_not_the_strata_of_the_others():
    predictions = make_world(6, 1500)
    race = predictions.table["race"].mask((predictions.table["race"] == "C") & (np.arange(1500) >= 60), "unknown")
    predictions = replace(predictions, table=predictions.table.assign(race=race))
    few = predictions.table.loc[race == "C", "patient_id"].nunique()
    assert 2 < few < 25
    adjustment = adjust(predictions, min_patients=25)
    np.testing.assert_array_equal(adjustment.compared(1), [0, 1])
    without = replace(predictions, table=predictions.table.assign(race=race.mask(race == "C", "unknown")))
    pair = adjust(without, attributes=(Attribute("race", ("A", "B"), True),))
    np.testing.assert_allclose(adjustment.fixed(0, 1), pair.fixed(0, 1))
    made, of_pair = cells_of(adjustment, ("TPR",)), cells_of(pair, ("TPR",))
    np.testing.assert_allclose(made.values["TPR"][:, 1:3], of_pair.values["TPR"][:, 1:3])
    assert np.isnan(made.values["TPR"][:, 3]).all() and adjustment.dropped(0, 1)[3] == 1
    assert adjust(predictions, min_patients=few).compared(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("is_weighted", [False, True])
def test_each_resample_estimates_the_weights_again(is_weighted):
    """Replicate by replicate: the metric's function on the copied rows, with overlap weights of just those rows."""
    n = 500
    predictions = make_world(7, n)
    weight = np.random.default_rng(7).random(n) + 0.1 if is_weighted else None
    adjustment = adjust(predictions, ("view", "label"), n_replicates=70, weight=weight)
    made = cells_of(adjustment, METRICS_OF_ROWS)
    own_weight = np.ones(n) if weight is None else weight
    for replicate, attribute in itertools.product((0, 1, 66), ("race", "age_group")):
        rows = np.repeat(np.arange(n), adjustment.resamples.weights()[replicate].astype(int))
        drawn = replace(
            predictions, table=predictions.table.iloc[rows].reset_index(drop=True), y_true=predictions.y_true[rows],
            scores=predictions.scores[rows], decisions=predictions.decisions[rows],
        )  # fmt: skip
        of_drawn = replace(adjustment, predictions=drawn)
        w = own_weight[rows]
        w = w * overlap_by_hand(of_drawn, 1, attribute, ("view", "label"), w)
        for column in columns_of(adjustment, attribute):
            group = adjustment.groups.names[column][1]
            own = (drawn.table[attribute] == group).to_numpy()
            for metric in METRICS_OF_ROWS:
                if replicate > 0 and metric.startswith("calibration_"):
                    continue  # one Newton step with the weights as they are
                second = drawn.scores if METRICS[metric].reads == "score" else drawn.decisions
                expected = METRICS[metric].load()(drawn.y_true[own, 1], second[own, 1], w[own])
                value = made.values[metric][1, column, replicate]
                assert value == pytest.approx(expected, abs=1e-6 if metric == "ECE_debiased" else 1e-9), (
                    metric,
                    group,
                    replicate,
                )


def test_the_estimate_is_the_metric_with_the_fixed_weights():
    predictions = make_world(8, 600)
    adjustment = adjust(predictions, ("view",), crossings=("race x age_group",))
    made = cells_of(adjustment, METRICS_OF_ROWS)
    for at in range(1, len(adjustment.groups.groupings)):
        fixed = adjustment.fixed(1, at)
        for column in columns_of(adjustment, adjustment.groups.groupings[at].attribute.name):
            for is_others in (0, adjustment.groups.n_own):
                own = adjustment.groups.mask(column + is_others)
                for metric in METRICS_OF_ROWS:
                    second = predictions.scores if METRICS[metric].reads == "score" else predictions.decisions
                    expected = METRICS[metric].load()(predictions.y_true[own, 1], second[own, 1], fixed[own])
                    tolerance = 1e-6 if metric == "ECE_debiased" else 1e-9
                    value = made.estimate(metric)[1, column + is_others]
                    assert value == pytest.approx(expected, abs=tolerance, nan_ok=True), (metric, column, is_others)


def test_an_attribute_is_never_adjusted_for_itself():
    predictions = make_world(9, 400)
    adjustment = adjust(predictions, ("age_group", "view"), crossings=("race x age_group",))
    assert [adjustment.adjusts(at) for at in (1, 2, 3)] == [("age_group", "view"), ("view",), ("view",)]
    only = adjust(predictions, ("age_group",))
    assert only.adjusts(2) == () and only.factors(0, 2) == {} and (only.fixed(0, 2) == 1).all()
    made = cells_of(only, ("TPR",))
    plain = measure_cells(predictions, only.groups, only.resamples, ("TPR",))
    ages, races = columns_of(only, "age_group"), columns_of(only, "race")
    np.testing.assert_array_equal(made.values["TPR"][:, ages], plain.values["TPR"][:, ages])
    assert (made.values["TPR"][:, races] != plain.values["TPR"][:, races]).any()
    table = adjusted_table(predictions, only, ("TPR",), AuditConfig())
    assert set(table["attribute"]) == {"race"} and set(table["adjusted_for"]) == {"age_group"}


@pytest.mark.slow
def test_weights_say_what_glockers_resampled_test_set_says():
    """Rows drawn with replacement in proportion to the weights: 300 such test sets, averaged, to 5 Monte Carlo errors."""
    predictions = make_world(10, 3000)
    adjustment = adjust(predictions, ("view", "age_group"), attributes=(RACE,), n_replicates=1)
    made = cells_of(adjustment, ("AUROC", "TPR"))
    plain = measure_cells(predictions, adjustment.groups, adjustment.resamples, ("AUROC", "TPR"))
    fixed = adjustment.fixed(0, 1)
    rng = np.random.default_rng(10)
    moved = []
    for column in columns_of(adjustment, "race"):
        own = np.flatnonzero(adjustment.groups.mask(column) & (fixed > 0))
        chance = fixed[own] / fixed[own].sum()
        for metric, values in (("AUROC", predictions.scores), ("TPR", predictions.decisions)):
            function = METRICS[metric].load()
            sets = [rng.choice(own, len(own), p=chance) for _ in range(300)]
            drawn = np.array([function(predictions.y_true[rows, 0], values[rows, 0]) for rows in sets])
            error = drawn.std() / np.sqrt(300)
            assert made.estimate(metric)[0, column] == pytest.approx(drawn.mean(), abs=5 * error)
            moved.append(abs(plain.estimate(metric)[0, column] - drawn.mean()) / error)
    assert max(moved) > 20  # the unadjusted values are told apart by far


@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_effective_number_is_kishs(is_weighted):
    predictions = make_world(11, 800)
    weight = np.random.default_rng(11).random(800) if is_weighted else None
    adjustment = adjust(predictions, weight=weight)
    made = cells_of(adjustment, ("TPR",))
    total = adjustment.fixed(0, 1) * (1 if weight is None else weight)
    known = ~np.isnan(predictions.y_true[:, 0])
    for column in columns_of(adjustment, "race"):
        w = total[adjustment.groups.mask(column) & known]
        assert made.counts.n_effective[0, column] == pytest.approx(w.sum() ** 2 / (w**2).sum())
        assert made.counts.n[0, column] == len(w) > made.counts.n_effective[0, column]


def test_with_the_strata_shares_alike_the_weights_are_one():
    predictions = make_world(12, 10)
    rows = [(g, v) for g in "ABC" for v in ("AP", "PA") for _ in range(3 if v == "AP" else 7)]
    table = pd.DataFrame(rows, columns=["race", "view"]).assign(patient_id=np.arange(30), age_group="young")
    y = np.ones((30, 1), np.float32)
    even = Predictions(table, y, y, ("a",), predictions.attributes, y)
    np.testing.assert_allclose(adjust(even).fixed(0, 1), 1)


def test_a_thin_group_is_not_shown_and_says_why():
    """Group A is hardly ever imaged at the bedside, group C hardly ever elsewhere: little of A can be compared."""
    predictions = make_world(13, 3000, share_ap={"A": 0.03, "B": 0.4, "C": 0.99})
    adjustment = adjust(predictions, attributes=(RACE,), n_replicates=60)
    table = adjusted_table(predictions, adjustment, ("AUROC", "TPR"), AuditConfig())
    single = table[table["label"].isin(["a", "b"])]
    is_thin = (single["n_effective"] < MIN_EFFECTIVE) | (single["n_effective"] < MIN_EFFECTIVE_SHARE * single["n"])
    assert is_thin.any() and not is_thin.all()
    numbers = ["value", "low", "high", "difference", "difference_low", "difference_high"]
    assert single.loc[is_thin, numbers].isna().all(axis=None)
    assert single.loc[~is_thin, ["value", "low", "high"]].notna().all(axis=None)
    assert (single.loc[is_thin, "note"] == TOO_THIN).all() and (single.loc[~is_thin, "note"] == "").all()
    assert single["n_effective"].notna().all() and (single["n"] > 0).all()  # what there was is still told
    for row in single.itertuples():
        label, column = predictions.label_names.index(row.label), adjustment.groups.index("race", row.group)
        assert row.dropped_share == adjustment.dropped(label, 1)[column]


def test_without_a_common_stratum_nothing_is_shown():
    predictions = make_world(14, 300)
    apart = replace(predictions, table=predictions.table.assign(view=predictions.table["race"]))
    adjustment = adjust(apart, attributes=(RACE,), n_replicates=50)
    assert not adjustment.fixed(0, 1).any()
    assert all(share == 1 for share in adjustment.dropped(0, 1).values())
    table = adjusted_table(apart, adjustment, ("AUROC", "TPR", "ECE"), AuditConfig())
    assert table["value"].isna().all()


def test_a_finding_that_nobody_knows_is_undefined():
    predictions = make_world(15, 200)
    y = predictions.y_true.copy()
    y[:, 1] = np.nan
    made = cells_of(adjust(replace(predictions, y_true=y), ("view", "label")), ("AUROC", "TPR"))
    assert np.isnan(made.values["TPR"][1]).all() and not np.isnan(made.estimate("TPR")[0, 1])


def test_a_blank_view_is_unknown():
    predictions = make_world(16, 400)
    fixed = adjust(predictions).fixed(0, 1)
    for blank in (None, np.nan, "", " "):
        view = predictions.table["view"].astype(object).where(predictions.table["view"] != "unknown", blank)
        other = replace(predictions, table=predictions.table.assign(view=view))
        np.testing.assert_array_equal(adjust(other).fixed(0, 1), fixed)


def test_a_name_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"column to adjust for 'veiw'. Did you mean 'view'"):
        adjust(make_world(17, 20), ("veiw",))


def test_too_many_values_are_an_error():
    with pytest.raises(InputError, match=r"image_id has 60 values, too many to compare within each. Cut it into groups first"):
        adjust(make_world(18, 60), ("image_id",))


def test_no_name_is_an_error():
    with pytest.raises(InputError, match="adjust needs at least one name, for instance age_group or view"):
        adjust(make_world(19, 20), ())


def test_one_group_that_is_large_enough_has_nothing_to_be_compared_with():
    """Shown as adjusted it would be the plain number under another name."""
    made = adjust(make_world(0, 400), attributes=(RACE,), min_patients=10**6)
    assert (made.fixed(0, 1) == 0).all()
    assert np.isnan(cells_of(made, ("TPR",)).estimate("TPR")[0, columns_of(made, "race")]).all()
