"""Like with like: overlap weights balance what groups differ in, and say what that costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biascxr.audit import audit
from biascxr.audit.adjust import Adjustment
from biascxr.audit.adjusted import TOO_THIN
from biascxr.audit.cells import measure_cells
from biascxr.audit.groups import find_groups
from biascxr.config import AuditConfig
from biascxr.containers import Attribute, Predictions
from biascxr.errors import InputError
from biascxr.metrics import effective_n, resample_patients, true_positive_rate
from biascxr.metrics.ranking import auroc

RACE = Attribute("race", ("A", "B", "C"), True)


def world(seed: int = 0, n: int = 3000, *, bedside=(0.2, 0.5, 0.8), rare: int = 0, **columns) -> Predictions:
    """Recorded view decides how well positives are found; groups differ in their share of bedside films and in nothing else."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n // 2), 2)
    race = rng.choice(3, n // 2, p=[0.5, 0.3, 0.2])[patient]
    view = rng.random(n) < np.array(bedside)[race]
    y = (rng.random(n) < np.where(view, 0.4, 0.2)).astype(np.float32)
    latent = rng.normal(0, 1, n) + y * np.where(view, 0.6, 2.0)
    scores = 1 / (1 + np.exp(-(latent - 1)))
    table = pd.DataFrame({
        "image_id": np.arange(n).astype(str), "patient_id": patient.astype(str), "split": "test", "recipe": "model",
        "race": np.array(RACE.groups)[race], "view": np.where(view, "AP", "PA"),
    }).assign(**columns)  # fmt: skip
    return Predictions(table, y[:, None], scores[:, None], ("x",), (RACE,), (scores[:, None] >= 0.5).astype(np.float32))


def adjusted(predictions: Predictions, names=("view",), *, n_replicates: int = 50, **options) -> Adjustment:
    groups = find_groups(predictions, predictions.attributes)
    return Adjustment(
        predictions, groups, resample_patients(predictions.table["patient_id"], n_replicates, seed=0), names, **options
    )


def test_what_the_mix_explains_vanishes_and_what_it_does_not_stays():
    predictions = world(n=8000)
    config = AuditConfig(metrics=("TPR",), adjust=("view",), n_replicates=60, n_permutations=0)
    made = audit(predictions, config)

    def difference(table, group="C"):
        rows = table[(table["label"] == "x") & (table["group"] == group) & (table["metric"] == "TPR")]
        return rows.iloc[0]

    before, after = difference(made.metrics), difference(made.adjusted)
    assert before["difference"] < -0.1 and before["difference_high"] < 0
    assert after["difference_low"] < 0 < after["difference_high"] and abs(after["difference"]) < 0.06
    missed = (predictions.table["race"] == "C").to_numpy() & (np.arange(len(predictions.table)) % 3 == 0)
    planted = Predictions(
        predictions.table, predictions.y_true, predictions.scores, ("x",), (RACE,),
        np.where(missed[:, None], 0, predictions.decisions).astype(np.float32),
    )  # fmt: skip
    assert difference(audit(planted, config).adjusted)["difference_high"] < 0


@pytest.mark.parametrize("names", [("view",), ("view", "label")])
def test_every_group_has_the_same_mix_afterwards_and_its_own_size(names):
    predictions = world()
    weight = adjusted(predictions, names).fixed(0, 1)
    race, view = predictions.table["race"].to_numpy(), predictions.table["view"].to_numpy()
    stratum = pd.factorize(view + predictions.y_true[:, 0].astype(int).astype(str) if "label" in names else view)[0]
    shares = np.array([np.bincount(stratum, weight * (race == g)) / weight[race == g].sum() for g in RACE.groups])
    np.testing.assert_allclose(shares, np.tile(shares[0], (3, 1)), atol=1e-12)
    for g in RACE.groups:
        assert weight[race == g].sum() == pytest.approx((race == g).sum())


def test_the_weights_are_li_and_lis():
    """h_s / e_gs up to a constant of the group, written out by hand for one stratum against the other."""
    predictions = world()
    weight = adjusted(predictions).fixed(0, 1)
    counts = pd.crosstab(predictions.table["view"], predictions.table["race"])
    share = counts.div(counts.sum(axis=1), axis=0)
    h = 1 / (1 / share).sum(axis=1)
    for g in RACE.groups:
        own = {v: weight[(predictions.table["race"] == g) & (predictions.table["view"] == v)] for v in ("AP", "PA")}
        assert np.ptp(own["AP"]) == pytest.approx(0, abs=1e-12)
        expected = (h["AP"] / share.loc["AP", g]) / (h["PA"] / share.loc["PA", g])
        assert own["AP"][0] / own["PA"][0] == pytest.approx(expected)


def test_each_resample_estimates_its_own_weights():
    predictions = world(n=600)
    made = adjusted(predictions)
    cells = measure_cells(predictions, made.groups, made.resamples, ("TPR", "AUROC"), adjustment=made)
    drawn = made.resamples.weights()
    race, view = predictions.table["race"].to_numpy(), predictions.table["view"].to_numpy()
    for r in (0, 1, 7, 50):
        counts = pd.crosstab(view, race, values=drawn[r], aggfunc="sum").astype(float)
        share = counts.div(counts.sum(axis=1), axis=0)
        factor = (1 / (1 / share).sum(axis=1)).to_numpy()[:, None] / share
        weight = drawn[r] * np.array([factor.loc[v, g] for v, g in zip(view, race, strict=True)])
        for g in RACE.groups:
            own = race == g
            y, score, decision = predictions.y_true[own, 0], predictions.scores[own, 0], predictions.decisions[own, 0]
            column = made.groups.index("race", g)
            assert cells.values["TPR"][0, column, r] == pytest.approx(true_positive_rate(y, decision, weight[own]))
            assert cells.values["AUROC"][0, column, r] == pytest.approx(auroc(y, score, weight[own]))


def test_it_agrees_with_a_resampled_test_set():
    """Glocker et al. draw a balanced test set with replacement; on average over many draws that is the weighted metric."""
    predictions = world(n=1200)
    made = adjusted(predictions, ("view", "label"))
    cells = measure_cells(predictions, made.groups, made.resamples, ("TPR", "AUROC"), adjustment=made)
    weight = made.fixed(0, 1)
    rng = np.random.default_rng(0)
    for g in RACE.groups:
        own = np.flatnonzero(predictions.table["race"] == g)
        values = []
        for _ in range(600):
            rows = rng.choice(own, len(own), p=weight[own] / weight[own].sum())
            y, score, decision = (block[rows, 0] for block in (predictions.y_true, predictions.scores, predictions.decisions))
            values.append((true_positive_rate(y, decision), auroc(y, score)))
        mean, error = np.mean(values, axis=0), np.std(values, axis=0) / np.sqrt(600)
        column = made.groups.index("race", g)
        for value, metric, e in zip(mean, ("TPR", "AUROC"), error, strict=True):
            assert cells.estimate(metric)[0, column] == pytest.approx(value, abs=4 * e)


def test_a_stratum_that_lacks_a_group_drops_out_for_all_and_is_counted():
    predictions = world(bedside=(0.0, 0.5, 0.5))  # group A has no bedside film
    made = adjusted(predictions)
    weight = made.fixed(0, 1)
    is_bedside = (predictions.table["view"] == "AP").to_numpy()
    assert (weight[is_bedside] == 0).all() and (weight[~is_bedside] > 0).all()
    dropped = made.dropped(0, 1)
    for g in RACE.groups:
        own = (predictions.table["race"] == g).to_numpy()
        assert dropped[made.groups.index("race", g)] == pytest.approx(is_bedside[own].mean())


def test_kishs_effective_number_stands_beside_every_cell():
    predictions = world()
    table = audit(predictions, AuditConfig(adjust=("view",), n_replicates=50, n_permutations=0)).adjusted
    weight = adjusted(predictions).fixed(0, 1)
    for g in RACE.groups:
        own = table[(table["group"] == g) & (table["label"] == "x") & (table["metric"] == "TPR")].iloc[0]
        assert own["n_effective"] == pytest.approx(effective_n(weight[(predictions.table["race"] == g).to_numpy()]))
        assert own["n_effective"] < own["n"]


def test_a_group_with_too_little_in_common_is_not_shown():
    predictions = world(n=2000, bedside=(0.005, 0.5, 0.999))
    table = audit(predictions, AuditConfig(adjust=("view",), n_replicates=50, n_permutations=0)).adjusted
    thin = table[table["note"] == TOO_THIN]
    assert len(thin) and thin["value"].isna().all() and thin["n_effective"].notna().all()


def test_a_handful_of_patients_does_not_decide_what_the_others_are_compared_on():
    predictions = world()
    race = predictions.table["race"].where(predictions.table["patient_id"].astype(int) >= 6, "C")
    few = predictions.table["patient_id"].astype(int) < 6
    attribute = Attribute("race", ("A", "B", "C", "rare"), True)
    table = predictions.table.assign(race=race.mask(few, "rare"))
    made = Predictions(table, predictions.y_true, predictions.scores, ("x",), (attribute,), predictions.decisions)
    weight = adjusted(made, min_patients=25).fixed(0, 1)
    assert (weight[few] == 0).all() and (weight[~few] > 0).all()
    result = audit(made, AuditConfig(adjust=("view",), n_replicates=50, n_permutations=0)).adjusted
    shown = result[(result["label"] == "x") & (result["metric"] == "TPR")].set_index("group")["value"]
    assert np.isnan(shown["rare"]) and shown[["A", "B", "C"]].notna().all()


def test_rows_whose_view_is_not_known_weigh_nothing():
    predictions = world()
    unknown = np.arange(len(predictions.table)) % 10 == 0
    table = predictions.table.assign(view=predictions.table["view"].mask(unknown, "unknown"))
    made = Predictions(table, predictions.y_true, predictions.scores, ("x",), (RACE,), predictions.decisions)
    assert (adjusted(made).fixed(0, 1)[unknown] == 0).all()


def test_an_attribute_is_not_adjusted_for_itself():
    age = Attribute("age_group", ("young", "old"), False)
    predictions = world(age_group=np.where(np.arange(3000) % 3, "young", "old"))
    predictions = Predictions(
        predictions.table, predictions.y_true, predictions.scores, ("x",), (RACE, age), predictions.decisions
    )
    config = AuditConfig(adjust=("age_group", "view"), crossings=("race x age_group",), n_replicates=50, n_permutations=0)
    table = audit(predictions, config).adjusted
    by_attribute = table.groupby("attribute")["adjusted_for"].unique().map(list)
    assert by_attribute.to_dict() == {"race": ["age_group, view"], "age_group": ["view"], "race x age_group": ["view"]}
    only_itself = audit(predictions, AuditConfig(adjust=("age_group",), n_replicates=50, n_permutations=0)).adjusted
    assert set(only_itself["attribute"]) == {"race"}


def test_unknown_columns_and_too_many_values_are_named():
    predictions = world(age=np.arange(3000) % 77)
    with pytest.raises(InputError, match="Did you mean 'view'"):
        adjusted(predictions, ("veiw",))
    with pytest.raises(InputError, match="age has 77 values"):
        adjusted(predictions, ("age",))


def test_weights_of_rows_before_are_kept():
    predictions = world(n=600)
    share = np.random.default_rng(0).random(600)
    made = adjusted(predictions, weight=share)
    weight = share * made.fixed(0, 1)
    race, view = predictions.table["race"].to_numpy(), predictions.table["view"].to_numpy()
    mix = [weight[(race == g) & (view == "AP")].sum() / weight[race == g].sum() for g in RACE.groups]
    assert np.ptp(mix) == pytest.approx(0, abs=1e-12)
    cells = measure_cells(predictions, made.groups, made.resamples, ("TPR",), weight=share, adjustment=made)
    own = race == "B"
    expected = true_positive_rate(predictions.y_true[own, 0], predictions.decisions[own, 0], weight[own])
    assert cells.estimate("TPR")[0, made.groups.index("race", "B")] == pytest.approx(expected)
