"""Samples that follow each other are one sample; vectors drawn towards partners stay with their rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from biascxr.errors import InputError
from biascxr.mitigation import parse_recipes
from biascxr.mitigation.sampling import Sample, Sampler, sample_in_order
from biascxr.mitigation.sampling.base import count_of
from biascxr.mitigation.sampling.cell_interpolation import CellInterpolation
from biascxr.mitigation.sampling.median_balance import MedianBalance
from biascxr.mitigation.sampling.none import NoSampling
from biascxr.mitigation.sampling.random_under import RandomUnder
from biascxr.mitigation.sampling.reweigh import Reweigh
from biascxr.mitigation.sampling.sqrt_reweight import SqrtReweight


@pytest.fixture
def train(split_of):
    """Rows of three groups of unlike size, whose first label goes with the group."""
    race = np.random.default_rng(0).permutation(np.repeat(["A", "B", "C", "unknown"], [200, 80, 40, 10]))
    made = split_of(n=330, race=race)
    rate = {"A": 0.2, "B": 0.5, "C": 0.6, "unknown": 0.4}
    made.labels[:, 0] = np.random.default_rng(1).random(330) < [rate[r] for r in race]
    return made


def ones(n: int) -> np.ndarray:
    return np.ones(n, np.float32)


def rates_by_race(part, weights) -> dict[str, float]:
    race = part.attributes["race"].to_numpy()
    return {g: np.average(part.labels[race == g, 0], weights=weights[race == g]) for g in ("A", "B", "C")}


class TestSampleOf:
    def test_without_partners_it_is_the_rows(self, train):
        rows = np.array([5, 5, 0])
        taken = Sample(rows, ones(3)).of(train)
        np.testing.assert_array_equal(taken.vectors, train.vectors[rows])
        np.testing.assert_array_equal(taken.image_id, train.image_id[rows])

    def test_vectors_are_drawn_towards_partners_and_all_else_stays(self, train):
        rows, partners, shares = np.array([5, 5, 0]), np.array([7, 5, 2]), np.array([0.75, 1, 0.5], np.float32)
        taken = Sample(rows, ones(3), partners=partners, shares=shares).of(train)
        expected = shares[:, None] * train.vectors[rows] + (1 - shares[:, None]) * train.vectors[partners]
        np.testing.assert_allclose(taken.vectors, expected, rtol=1e-6)
        np.testing.assert_allclose(taken.vectors[[2, 0]], expected[[2, 0]], rtol=1e-6)
        np.testing.assert_array_equal(taken.labels, train.labels[rows])
        np.testing.assert_array_equal(taken.patient_id, train.patient_id[rows])


class TestThen:
    def test_rows_are_looked_up_and_weights_multiply(self):
        first = Sample(np.array([4, 9, 2]), np.array([1, 2, 3], np.float32), ("first",))
        both = first.then(Sample(np.array([2, 2, 0]), np.array([10, 1, 5], np.float32), ("second",)), "x")
        np.testing.assert_array_equal(both.rows, [2, 2, 4])
        np.testing.assert_array_equal(both.weights, [30, 3, 5])
        assert both.notes == ("first", "second") and both.partners is None

    @pytest.mark.parametrize("drawn_first", [True, False])
    def test_partners_are_rows_of_the_training_split_whoever_drew_them(self, train, drawn_first):
        plain = Sample(np.array([3, 8, 20, 1]), ones(4))
        drawn = Sample(np.array([0, 2, 3]), ones(3), (), np.array([1, 0, 3]), np.array([0.5, 0.75, 1], np.float32))
        first, second = (drawn, Sample(np.array([2, 0, 0]), ones(3))) if drawn_first else (plain, drawn)
        np.testing.assert_allclose(
            first.then(second, "x").of(train).vectors, second.of(first.of(train)).vectors, rtol=1e-6
        )  # fmt: skip

    def test_vectors_are_drawn_towards_each_other_once(self, train):
        with pytest.raises(
            InputError, match="cell_interpolation draws vectors towards each other, and so does a sampler before"
        ):
            sample_in_order([CellInterpolation(), RandomUnder(), Again()], train, seed=0)


class Again(Sampler):
    """Draws every row towards the first; a stand-in for a second sampler that interpolates."""

    name = "cell_interpolation"

    def _sample(self, train, rng):
        n = len(train)
        return Sample(np.arange(n), ones(n), (), np.zeros(n, np.int64), np.full(n, 0.5, np.float32))


class TestSampleInOrder:
    def test_one_sampler_is_what_it_is_alone(self, train):
        alone, listed = MedianBalance().sample(train, seed=4), sample_in_order([MedianBalance()], train, seed=4)
        np.testing.assert_array_equal(alone.rows, listed.rows)

    def test_reweigh_after_median_balance_makes_the_balanced_rows_independent(self, train):
        samplers = parse_recipes("median_balance+reweigh")[1].members("sampling")
        sample = sample_in_order(samplers, train, seed=0)
        taken = sample.of(train)
        sizes = taken.attributes["race"].value_counts()
        assert sizes["A"] == sizes["B"] == sizes["C"] == 80
        before, after = rates_by_race(taken, np.ones(len(taken))), rates_by_race(taken, sample.weights.astype(np.float64))
        assert max(before.values()) - min(before.values()) > 0.2
        assert max(after.values()) - min(after.values()) < 1e-6
        assert any("target: 80 rows" in note for note in sample.notes) and any("one positive rate" in n for n in sample.notes)

    def test_weights_of_two_samplers_multiply(self, train):
        both = sample_in_order([SqrtReweight(), Reweigh()], train, seed=0)
        one, other = (kind().sample(train, seed=0).weights for kind in (SqrtReweight, Reweigh))
        np.testing.assert_allclose(both.weights, one * other, rtol=1e-6)

    def test_a_later_sampler_sees_the_drawn_vectors_and_keeps_them_with_their_rows(self, train):
        alone = CellInterpolation().sample(train, seed=0)
        sample = sample_in_order([CellInterpolation(), RandomUnder()], train, seed=0)
        assert sample.partners is not None and (sample.shares < 1).any()
        made = {row.tobytes() for row in np.asarray(alone.of(train).vectors)}
        assert all(row.tobytes() in made for row in np.asarray(sample.of(train).vectors))
        race = train.attributes["race"].to_numpy()
        np.testing.assert_array_equal(race[sample.rows], race[sample.partners])

    def test_interpolation_after_a_choice_of_rows_draws_only_between_chosen_rows(self, train):
        few = np.r_[np.arange(0, 330, 2)]
        chosen = sample_in_order([Fixed(few), CellInterpolation()], train, seed=0)
        assert (chosen.shares < 1).any()
        assert set(chosen.rows) <= set(few) and set(chosen.partners) <= set(few)

    def test_augmented_views_are_seen_by_the_first_only_and_stay_afterwards(self, split_of):
        train = dataclasses.replace(split_of(), view_id=np.r_[np.zeros(50, np.int32), np.ones(10, np.int32)])
        assert NoSampling().sample(train, seed=0).rows.max() == 49
        views = Fixed(np.arange(40, 60))
        views.uses_views = True
        np.testing.assert_array_equal(sample_in_order([views, NoSampling()], train, seed=0).rows, np.arange(40, 60))


class Fixed(Sampler):
    """Returns the rows or the sample that it is told."""

    name = "fixed"

    def __init__(self, rows, **parts):
        super().__init__()
        self.chosen = Sample(rows, parts.pop("weights", ones(len(rows))), **parts)

    def _sample(self, train, rng):
        return self.chosen


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Fixed(np.array([], np.int64)), "must return rows of the training split; got 0 rows"),
        (Fixed(np.array([0, 330])), "must return rows of the training split"),
        (Fixed(np.array([-1, 0])), "must return rows of the training split"),
        (Fixed(np.arange(2), weights=np.array([1, 0], np.float32)), "one weight above 0 for each row"),
        (Fixed(np.arange(2), weights=np.array([1, np.nan], np.float32)), "one weight above 0 for each row"),
        (Fixed(np.arange(2), weights=ones(3)), "one weight above 0 for each row"),
        (Fixed(np.arange(2), partners=np.arange(2)), "one partner among the rows and one share"),
        (Fixed(np.arange(2), shares=ones(2)), "one partner among the rows and one share"),
        (Fixed(np.arange(2), partners=np.array([0, 330]), shares=ones(2)), "one partner among the rows and one share"),
        (Fixed(np.arange(2), partners=np.arange(2), shares=np.array([1, 0], np.float32)), "one partner among the rows and one"),
        (Fixed(np.arange(2), partners=np.arange(3), shares=ones(3)), "one partner among the rows and one share"),
    ],
)
def test_a_sampler_that_breaks_the_contract_is_named(train, wrong, message):
    with pytest.raises(ValueError, match=f"fixed must return.*{message.removeprefix('must return ')}"):
        wrong.sample(train, seed=0)


def test_a_note_does_not_tell_how_few_rows_there_are():
    assert [count_of(n, "rows") for n in (0, 1, 9, 10, 1234)] == [
        "0 rows", "fewer than 10 rows", "fewer than 10 rows", "10 rows", "1,234 rows",
    ]  # fmt: skip
