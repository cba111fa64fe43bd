"""`random_under` and `random_over` are imbalanced-learn's samplers on cells; where they differ, it is by a stated limit."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler

from biascxr.errors import InputError
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.sampling.random_over import RandomOver, RandomOverSettings
from biascxr.mitigation.sampling.random_under import RandomUnder, RandomUnderSettings

PAIRS = [(RandomUnder, RandomUnderSampler), (RandomOver, RandomOverSampler)]


def race_of(**sizes: int) -> np.ndarray:
    return np.repeat([*sizes], [*sizes.values()])


@pytest.fixture
def split_by_race(split_of):
    """Function `(**sizes) -> SplitData` with that many rows of each recorded race, shuffled."""

    def make(**sizes: int):
        race = np.random.default_rng(0).permutation(race_of(**sizes))
        return split_of(n=len(race), race=race)

    return make


def sizes_after(train, rows) -> dict[str, int]:
    return dict(Counter(train.attributes["race"].to_numpy()[rows].tolist()))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("seed", range(3))
class TestAgreementWithImbalancedLearn:
    def test_the_same_rows_for_the_same_random_state(self, split_of, ours, theirs, seed):
        train = split_of(n=300, sex=np.repeat(["F", "M"], 150), race=race_of(A=60, B=120, C=70, D=50))
        rows = np.arange(300)
        random_state = int(np.random.default_rng(seed).integers(2**31))
        sampler = theirs(random_state=random_state)
        sampler.fit_resample(rows[:, None], Cells.of(train.attributes, ("sex", "race")).codes(train.attributes))
        np.testing.assert_array_equal(ours().sample(train, seed=seed).rows, np.sort(sampler.sample_indices_))

    def test_the_same_sizes_of_cells(self, split_by_race, ours, theirs, seed):
        train = split_by_race(A=60, B=33, C=12)
        race = train.attributes["race"].to_numpy()
        _, resampled = theirs(random_state=seed).fit_resample(np.arange(105)[:, None], race)
        assert sizes_after(train, ours().sample(train, seed=seed).rows) == dict(Counter(resampled.tolist()))


class TestRandomUnder:
    def test_small_cells_do_not_cut_the_others_down_to_themselves(self, split_by_race):
        train = split_by_race(A=60, B=33, C=4, unknown=7)
        sample = RandomUnder().sample(train, seed=0)
        assert sizes_after(train, sample.rows) == {"A": 33, "B": 33, "C": 4, "unknown": 7}
        assert len(set(sample.rows)) == len(sample.rows)
        small = RandomUnder(RandomUnderSettings(min_cell=1)).sample(train, seed=0)
        assert sizes_after(train, small.rows) == {"A": 4, "B": 4, "C": 4, "unknown": 7}
        assert not any(re.search(r"(?<!\d)[1-9] (row|of)", note) for note in small.notes), "few rows are not counted"

    def test_min_cell_below_one_is_refused(self):
        with pytest.raises(InputError, match="min_cell must be at least 1; got 0"):
            RandomUnderSettings(min_cell=0)


class TestRandomOver:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("limit", [1, 2, 4, 6])
    def test_no_row_occurs_more_than_max_copies_times_and_every_row_once(self, split_by_race, limit, seed):
        """To 60 rows from 12 takes 5 of each on average, so that some row would come more often."""
        train = split_by_race(A=60, B=20, C=12, D=3, unknown=5)
        sample = RandomOver(RandomOverSettings(max_copies=limit)).sample(train, seed=seed)
        times = np.bincount(sample.rows, minlength=len(train))
        assert times.min() == 1 and times.max() <= limit
        expected = {"A": 60, "B": min(60, 20 * limit), "C": min(60, 12 * limit), "D": 3, "unknown": 5}
        assert sizes_after(train, sample.rows) == expected
        assert any(f"stopped at {limit} copies" in note for note in sample.notes) == (12 * limit < 60)

    def test_draws_beyond_the_limit_go_elsewhere_and_the_others_stay(self, split_by_race):
        train = split_by_race(A=60, C=12)
        free, limited = (
            np.bincount(RandomOver(RandomOverSettings(max_copies=limit)).sample(train, seed=1).rows) for limit in (60, 6)
        )
        assert free.max() > 6, "the limit must have something to do"
        assert ((limited >= np.minimum(free, 6)) & (limited <= 6)).all()

    @pytest.mark.parametrize("wrong", [{"max_copies": 0}, {"min_cell": 0}])
    def test_settings_out_of_range_are_refused(self, wrong):
        with pytest.raises(InputError, match="max_copies and min_cell must be at least 1"):
            RandomOverSettings(**wrong)
