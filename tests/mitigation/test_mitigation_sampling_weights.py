"""What must hold under the weights of `reweigh`, `label_group_balance` and `sqrt_reweight`, because it is a theorem."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn.utils.class_weight import compute_sample_weight

from biascxr.errors import InputError
from biascxr.mitigation.sampling.label_group_balance import LabelGroupBalance, LabelGroupBalanceSettings
from biascxr.mitigation.sampling.label_weighting import LabelWeightingSettings
from biascxr.mitigation.sampling.reweigh import Reweigh
from biascxr.mitigation.sampling.sqrt_reweight import SqrtReweight

BOTH = [Reweigh, LabelGroupBalance]


def labelled(split_of, *, n: int = 1500, n_labels: int = 3, masked: float = 0.0, seed: int = 0, n_groups: int = 3):
    """Rows whose labels go with their group and with each other."""
    rng = np.random.default_rng(seed)
    group = rng.choice(n_groups, n, p=np.arange(n_groups, 0, -1) / np.arange(1, n_groups + 1).sum())
    shift = rng.normal(0, 0.6, (n_groups, n_labels))
    latent = rng.normal(size=(n, 1)) + rng.normal(size=(n, n_labels)) + shift[group] - np.linspace(0.3, 1.2, n_labels)
    labels = (latent > 0).astype(np.float32)
    labels[rng.random(labels.shape) < masked] = np.nan
    train = split_of(n=n, n_labels=n_labels, d=2, race=np.array(["A", "B", "C", "D", "E"])[group])
    return dataclasses.replace(train, labels=labels)


def rates(train, weights) -> np.ndarray:
    """Weighted positive rate of each label in each group: `[G, L]`."""
    race, known = train.attributes["race"].to_numpy(), ~np.isnan(train.labels)
    weights = weights.astype(np.float64)
    return np.array(
        [
            [np.average(train.labels[own & known[:, k], k], weights=weights[own & known[:, k]]) for k in range(known.shape[1])]
            for own in (race == group for group in np.unique(race))
        ]
    )


def group_totals(train, weights) -> np.ndarray:
    return pd.Series(weights.astype(np.float64)).groupby(train.attributes["race"].to_numpy()).sum().to_numpy()


class TestReweigh:
    @pytest.mark.parametrize("n_groups", [2, 4])
    def test_one_label_has_kamiran_and_calders_weights(self, split_of, n_groups):
        train = labelled(split_of, n_labels=1, n_groups=n_groups)
        frame = pd.DataFrame({"a": train.attributes["race"], "y": train.labels[:, 0]})
        n = len(frame)
        expected = (
            frame.groupby("a")["y"].transform("size") / n * frame.groupby("y")["a"].transform("size") / n
        ) / (frame.groupby(["a", "y"])["a"].transform("size") / n)  # fmt: skip
        np.testing.assert_allclose(Reweigh().sample(train, seed=0).weights, expected, rtol=1e-6)

    @pytest.mark.parametrize("n_labels", [1, 3, 14])
    @pytest.mark.parametrize("masked", [0, 0.15])
    def test_every_label_is_independent_of_the_group(self, split_of, n_labels, masked):
        train = labelled(split_of, n_labels=n_labels, masked=masked)
        even = np.ones(len(train))
        assert np.ptp(rates(train, even), axis=0).max() > 0.05, "there must be something to undo"
        weights = Reweigh().sample(train, seed=0).weights.astype(np.float64)
        assert weights.mean() == pytest.approx(1, abs=1e-6)
        for label in train.labels.T:
            known = ~np.isnan(label)
            for group in np.unique(train.attributes["race"]):
                in_group = (train.attributes["race"] == group).to_numpy(float)[known]
                assert abs(np.cov(in_group, label[known], aweights=weights[known])[0, 1]) < 1e-6

    def test_groups_and_labels_keep_what_they_have(self, split_of):
        train = labelled(split_of, masked=0.15)
        weights = Reweigh().sample(train, seed=0).weights
        np.testing.assert_allclose(group_totals(train, weights), group_totals(train, np.ones(len(train))), rtol=1e-6)
        positives = np.nansum(train.labels * weights[:, None], axis=0)
        np.testing.assert_allclose(positives, np.nansum(train.labels, axis=0), rtol=1e-6)

    def test_no_other_weights_that_do_it_are_nearer_to_equal_ones(self, split_of):
        """The nearest in Kullback-Leibler divergence are exp(t . y) in each group, t from a convex problem (Hainmueller)."""
        train = labelled(split_of, n_labels=4)
        race, wanted = train.attributes["race"].to_numpy(), train.labels.mean(axis=0)
        expected = np.empty(len(train))
        for group in np.unique(race):
            centred = train.labels[race == group] - wanted
            tilt = minimize(lambda at, c=centred: np.log(np.exp(c @ at).mean()), np.zeros(4), tol=1e-12).x
            own = np.exp(centred @ tilt)
            expected[race == group] = own / own.mean()
        np.testing.assert_allclose(Reweigh().sample(train, seed=0).weights, expected, rtol=1e-4)

    def test_a_group_without_positives_is_left_out_and_the_others_are_still_independent(self, split_of):
        train = labelled(split_of)
        train.labels[(train.attributes["race"] == "C").to_numpy(), 0] = 0
        sample = Reweigh().sample(train, seed=0)
        after = rates(train, sample.weights)
        assert after[0, 0] == pytest.approx(after[1, 0], abs=1e-6) and after[2, 0] == 0
        assert np.ptp(after[:, 1:], axis=0).max() < 1e-6
        assert "times a group is left out of a label's table for want of 10 rows of each value: 1" in sample.notes

    def test_labels_that_cannot_be_independent_are_said_to_be_off(self, split_of):
        """In B the second label is the first, in A its opposite: both can only have one rate in both groups if it is a half."""
        first = np.tile([0, 0, 0, 1], 50).astype(np.float32)
        train = split_of(n=200, n_labels=2, d=2, race=np.repeat(["A", "B"], 100))
        second = np.where(np.arange(200) < 100, 1 - first, first)
        sample = Reweigh().sample(dataclasses.replace(train, labels=np.c_[first, second]), seed=0)
        assert np.isfinite(sample.weights).all() and (sample.weights > 0).all()
        assert any("2 of 2, to within 0.2" in note for note in sample.notes)

    def test_rates_that_cannot_be_had_do_not_make_a_group_vanish(self, split_of):
        """In B a row has the first label or, rarely, the second: no weights give it the common rates."""
        of_a = np.repeat([[1, 0], [0, 1], [0, 0]], [500, 500, 4000], axis=0)
        labels = np.r_[of_a, np.repeat([[1, 0], [0, 1]], [500, 10], axis=0)].astype(np.float32)
        train = dataclasses.replace(
            split_of(n=5510, n_labels=2, d=2, race=np.repeat(["A", "B"], [5000, 510])), labels=labels
        )  # fmt: skip
        sample = Reweigh(LabelWeightingSettings(max_weight=2.0)).sample(train, seed=0)
        assert group_totals(train, sample.weights)[1] > 0.9 * 510

    def test_a_cell_below_min_cell_is_left_out(self, split_of):
        labels = np.r_[np.tile([1.0, 0.0], 100), np.repeat([1.0, 0.0], [9, 91])].astype(np.float32)[:, None]
        train = dataclasses.replace(
            split_of(n=300, n_labels=1, d=2, race=np.repeat(["A", "B"], [200, 100])), labels=labels
        )  # fmt: skip
        np.testing.assert_array_equal(Reweigh().sample(train, seed=0).weights, 1)
        after = rates(train, Reweigh(LabelWeightingSettings(min_cell=9)).sample(train, seed=0).weights)
        assert after[0, 0] == pytest.approx(after[1, 0], abs=1e-6)

    def test_a_limit_is_kept_and_its_cost_is_said(self, split_of):
        labels = np.r_[np.tile([1, 0, 0, 0, 0], 76), np.repeat([1, 0], [10, 10])].astype(np.float32)[:, None]
        labels[:380][np.arange(380) >= 60] = 0  # 12 in 380 against 10 in 20
        train = dataclasses.replace(split_of(n=400, n_labels=1, d=2, race=np.repeat(["A", "B"], [380, 20])), labels=labels)
        free, limited = Reweigh(), Reweigh(LabelWeightingSettings(max_weight=1.5))
        assert free.sample(train, seed=0).weights.max() > 1.5
        sample = limited.sample(train, seed=0)
        assert sample.weights.max() <= 1.5 and sample.weights.mean() == pytest.approx(1, abs=1e-6)
        assert any("rows stopped at weight 1.5" in note for note in sample.notes)
        assert any("1 of 1, to within 0." in note for note in sample.notes)


class TestLabelGroupBalance:
    @pytest.mark.parametrize("n_groups", [2, 4])
    def test_one_label_has_balanced_weights_over_group_and_label(self, split_of, n_groups):
        train = labelled(split_of, n_labels=1, n_groups=n_groups)
        cell = train.attributes["race"] + train.labels[:, 0].astype(str)
        np.testing.assert_allclose(
            LabelGroupBalance().sample(train, seed=0).weights, compute_sample_weight("balanced", cell), rtol=1e-6
        )

    @pytest.mark.parametrize("masked", [0, 0.15])
    def test_among_many_labels_groups_have_one_rate_and_one_total(self, split_of, masked):
        train = labelled(split_of, n_labels=6, masked=masked)
        weights = LabelGroupBalance().sample(train, seed=0).weights
        after, before = rates(train, weights), rates(train, np.ones(len(train)))
        assert np.ptp(after, axis=0).max() < 1e-6 < np.ptp(before, axis=0).min()
        np.testing.assert_allclose(group_totals(train, weights), len(train) / 3, rtol=1e-6)
        if not masked:  # then groups have one mass among positives, and one among negatives
            positives = pd.DataFrame(train.labels * weights[:, None]).groupby(train.attributes["race"].to_numpy()).sum()
            assert np.ptp(positives.to_numpy() / positives.to_numpy().mean(0), axis=0).max() < 1e-5

    def test_rare_labels_become_more_frequent_but_no_more_than_half(self, split_of):
        train = labelled(split_of, n_labels=6)
        after = rates(train, LabelGroupBalance().sample(train, seed=0).weights)[0]
        before = np.nanmean(train.labels, axis=0)
        assert (before < 0.5).all() and (after > before).all() and (after < 0.5).all()

    @pytest.mark.parametrize("n_labels", [1, 6])
    def test_under_a_limit_rates_stay_equal_and_totals_give_way(self, split_of, n_labels):
        train = labelled(split_of, n=4000, n_labels=n_labels, n_groups=5)
        free = LabelGroupBalance().sample(train, seed=0).weights.max()
        limit = 0.6 * float(free)
        sample = LabelGroupBalance(LabelGroupBalanceSettings(max_weight=limit)).sample(train, seed=0)
        assert sample.weights.max() <= limit * (1 + 1e-6) and sample.weights.mean() == pytest.approx(1, abs=1e-5)
        assert np.ptp(rates(train, sample.weights), axis=0).max() < 1e-4
        totals, sizes = group_totals(train, sample.weights), group_totals(train, np.ones(len(train)))
        assert (totals[sizes < len(train) / 5] > sizes[sizes < len(train) / 5]).all(), "small groups still gain"


@pytest.mark.parametrize("kind", BOTH)
class TestLabelWeighting:
    def test_every_row_stays_once_and_unknown_and_small_groups_weigh_one(self, split_of, kind):
        train = labelled(split_of)
        race = train.attributes["race"].to_numpy(object)
        race[:20], race[20:26] = "unknown", "Z"
        sample = kind().sample(dataclasses.replace(train, attributes=pd.DataFrame({"race": race})), seed=0)
        np.testing.assert_array_equal(sample.rows, np.arange(len(train)))
        np.testing.assert_array_equal(sample.weights[:26], np.ones(26, np.float32))
        assert "20 rows with an unknown attribute left as they are" in sample.notes

    def test_a_finding_without_positives_or_masked_whole_has_no_say(self, split_of, kind):
        train = labelled(split_of, n_labels=2)
        extra = np.c_[train.labels, np.zeros(len(train)), np.full(len(train), np.nan)].astype(np.float32)
        more = dataclasses.replace(train, labels=extra, label_names=("a", "b", "c", "d"))
        weights = kind().sample(more, seed=0).weights
        assert np.isfinite(weights).all() and np.ptp(rates(train, weights), axis=0).max() < 1e-6

    def test_by_default_the_groups_are_of_race(self, split_of, kind):
        train = labelled(split_of)
        both = dataclasses.replace(train, attributes=train.attributes.assign(age_group="0-20").iloc[:, ::-1])
        both.attributes.loc[::2, "age_group"] = "80+"
        np.testing.assert_array_equal(kind().sample(both, seed=0).weights, kind().sample(train, seed=0).weights)
        crossed = kind(kind.Settings(attributes=("race", "age_group"))).sample(both, seed=0).weights
        assert not np.allclose(crossed, kind().sample(train, seed=0).weights)

    def test_an_attribute_that_is_not_there_and_settings_out_of_range_are_refused(self, split_of, kind):
        with pytest.raises(InputError, match=f"{kind.name}.attributes=.*'site' is not an attribute"):
            kind(kind.Settings(attributes=("site",))).sample(split_of(), seed=0)
        with pytest.raises(InputError, match="max_weight must be above 1, the average weight; got 1"):
            kind.Settings(max_weight=1.0)
        with pytest.raises(InputError, match="min_cell must be at least 1; got 0"):
            kind.Settings(min_cell=0)


class TestSqrtReweight:
    def test_weights_are_the_square_roots_of_balanced_ones_with_mean_one(self, split_of):
        race = np.repeat(["A", "B", "C", "unknown"], [100, 25, 4, 6])
        weights = SqrtReweight().sample(split_of(n=135, race=race), seed=0).weights
        known = race != "unknown"
        expected = np.sqrt(compute_sample_weight("balanced", race[known]))
        np.testing.assert_allclose(weights[known], expected / expected.mean(), rtol=1e-6)
        np.testing.assert_array_equal(weights[~known], 1)
        assert weights.mean() == pytest.approx(1, abs=1e-6)
        assert weights[126] / weights[0] == pytest.approx(5, rel=1e-6), "25 times fewer rows, 5 times the weight"
