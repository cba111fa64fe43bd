"""`cell_interpolation`: new vectors lie between two rows of one cell, nearer to the one whose labels they keep."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from biascxr.errors import InputError
from biascxr.mitigation.sampling.cell_interpolation import CellInterpolation, CellInterpolationSettings


def in_cells(split_of, *, n_labels: int = 3, d: int = 16, seed: int = 0, **sizes: int):
    """Rows of that many of each recorded race, shuffled."""
    race = np.random.default_rng(seed).permutation(np.repeat([*sizes], [*sizes.values()]))
    return split_of(n=len(race), d=d, n_labels=n_labels, seed=seed, race=race)


def race_of(train) -> np.ndarray:
    return train.attributes["race"].to_numpy(object)


@pytest.mark.parametrize("seed", range(3))
class TestNewRows:
    def sampled(self, split_of, seed, **settings):
        train = in_cells(split_of, A=90, B=40, C=12, unknown=5)
        return train, CellInterpolation(CellInterpolationSettings(**settings)).sample(train, seed=seed)

    def test_cells_below_the_median_come_to_it_and_all_rows_stay(self, split_of, seed):
        train, sample = self.sampled(split_of, seed)
        assert Counter(race_of(train)[sample.rows]) == {"A": 90, "B": 40, "C": 40, "unknown": 5}
        assert set(sample.rows) == set(range(len(train))) and (np.diff(sample.rows) >= 0).all()
        np.testing.assert_array_equal(sample.weights, 1)

    def test_vectors_lie_on_the_segment_nearer_to_their_own_row(self, split_of, seed):
        train, sample = self.sampled(split_of, seed)
        made, own, partner = sample.of(train).vectors, train.vectors[sample.rows], train.vectors[sample.partners]
        to_own, to_partner = (np.linalg.norm(np.asarray(made) - end, axis=1) for end in (own, partner))
        np.testing.assert_allclose(to_own + to_partner, np.linalg.norm(own - partner, axis=1), rtol=1e-4, atol=1e-5)
        is_new = sample.shares < 1
        assert is_new.sum() == 28 and (to_own <= to_partner)[is_new].all() and (to_own > 0)[is_new].all()
        np.testing.assert_array_equal(np.asarray(made)[~is_new], own[~is_new])
        assert sample.shares.min() >= 0.5 and sample.shares[is_new].std() > 0.1

    def test_labels_attributes_and_patients_are_those_of_their_own_row(self, split_of, seed):
        train, sample = self.sampled(split_of, seed)
        taken = sample.of(train)
        np.testing.assert_array_equal(taken.labels, train.labels[sample.rows])
        np.testing.assert_array_equal(taken.patient_id, train.patient_id[sample.rows])
        np.testing.assert_array_equal(race_of(taken), race_of(train)[sample.rows])

    def test_a_partner_is_of_the_same_cell_and_another_row(self, split_of, seed):
        train, sample = self.sampled(split_of, seed)
        is_new = sample.shares < 1
        np.testing.assert_array_equal(race_of(train)[sample.partners], race_of(train)[sample.rows])
        assert (sample.partners != sample.rows)[is_new].all()
        np.testing.assert_array_equal(sample.partners[~is_new], sample.rows[~is_new])

    def test_a_partner_is_one_of_the_nearest_and_agrees_most(self, split_of, seed):
        train, sample = self.sampled(split_of, seed, n_neighbors=4)
        points = np.asarray(train.vectors) / np.std(train.vectors, axis=0)
        for row, partner in zip(sample.rows[sample.shares < 1], sample.partners[sample.shares < 1], strict=True):
            others = np.setdiff1d(np.flatnonzero(race_of(train) == "C"), [row])
            nearest = others[np.argsort(np.linalg.norm(points[others] - points[row], axis=1))[:4]]
            both = ~np.isnan(train.labels[row]) & ~np.isnan(train.labels[nearest])
            agreement = ((train.labels[row] == train.labels[nearest]) & both).sum(1) / np.maximum(both.sum(1), 1)
            assert partner in nearest[agreement == agreement.max()]

    def test_a_row_is_used_no_more_than_max_copies_times(self, split_of, seed):
        train, sample = self.sampled(split_of, seed, max_copies=2)
        assert max(Counter(sample.rows).values()) == 2
        assert Counter(race_of(train)[sample.rows])["C"] == 24
        assert "1 cells stopped at 2 uses of a row" in sample.notes


def test_rows_are_used_evenly_and_with_several_partners(split_of):
    train = in_cells(split_of, n_labels=1, A=60, B=60, C=10)
    sample = CellInterpolation().sample(train, seed=0)
    is_new = sample.shares < 1
    assert set(Counter(sample.rows[is_new]).values()) == {5}
    assert len(set(zip(sample.rows[is_new], sample.partners[is_new], strict=True))) > 15


def test_columns_count_the_same_whatever_their_scale(split_of):
    train = in_cells(split_of, A=60, B=60, C=20)
    stretched = dataclasses.replace(train, vectors=np.asarray(train.vectors) * np.geomspace(0.01, 100, 16, dtype=np.float32))
    partners = [CellInterpolation().sample(t, seed=0).partners for t in (train, stretched)]
    np.testing.assert_array_equal(*partners)


def test_copies_of_an_image_are_no_partners_of_it(split_of):
    train = in_cells(split_of, A=60, B=60, C=10)
    rows = np.r_[np.arange(130), np.tile(np.flatnonzero(race_of(train) == "C"), 3)]  # as a sampler before may have chosen
    copied = train.take(rows)
    sample = CellInterpolation().sample(copied, seed=0)
    is_new = sample.shares < 1
    assert is_new.sum() == 20
    assert (copied.image_id[sample.partners] != copied.image_id[sample.rows])[is_new].all()


def test_a_cell_of_one_image_is_filled_with_copies(split_of):
    train = in_cells(split_of, A=8, B=8, C=1)
    sample = CellInterpolation(CellInterpolationSettings(min_cell=1)).sample(train, seed=0)
    of_c = race_of(train)[sample.rows] == "C"
    assert of_c.sum() == 8
    np.testing.assert_array_equal(np.asarray(sample.of(train).vectors)[of_c], train.vectors[sample.rows[of_c]])


def test_neighbours_are_looked_for_among_search_rows(split_of):
    train = in_cells(split_of, A=100, B=100, C=60)
    sample = CellInterpolation(CellInterpolationSettings(search_rows=8, n_neighbors=1)).sample(train, seed=0)
    is_new = sample.shares < 1
    found = np.unique(sample.partners[is_new])
    assert 1 < len(found) <= 8
    points = np.asarray(train.vectors) / np.std(train.vectors, axis=0)
    for row, partner in zip(sample.rows[is_new], sample.partners[is_new], strict=True):
        others = found[found != row]
        assert partner == others[np.argmin(np.linalg.norm(points[others] - points[row], axis=1))]


def test_cells_of_equal_size_need_nothing(split_of):
    sample = CellInterpolation().sample(in_cells(split_of, A=20, B=20), seed=0)
    np.testing.assert_array_equal(sample.rows, np.arange(40))
    assert sample.partners is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_neighbors": 0}, "n_neighbors must be at least 1; got 0"),
        ({"max_copies": 0}, "max_copies must be at least 1; got 0"),
        ({"min_cell": 0}, "min_cell must be at least 1; got 0"),
        ({"search_rows": 5}, "search_rows must be above n_neighbors, 5; got 5"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        CellInterpolationSettings(**wrong)
