"""The samplers' own mathematics, and the balance table."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import MiniBatchKMeans

from biascxr.errors import InputError
from biascxr.mitigation import SplitData, balance_table
from biascxr.mitigation.sampling import Sample
from biascxr.mitigation.sampling.cluster_downsample import ClusterDownsample, ClusterDownsampleSettings, shares
from biascxr.mitigation.sampling.median_balance import MedianBalance, MedianBalanceSettings, bias_scores


def cells_of(sizes: dict[str, int], *, labels=None, vectors=None, unknown: int = 0) -> SplitData:
    """Training rows in cells of one attribute."""
    sex = np.repeat([*sizes, "unknown"], [*sizes.values(), unknown])
    n = len(sex)
    rng = np.random.default_rng(0)
    return SplitData(
        "train",
        rng.normal(size=(n, 3)).astype(np.float32) if vectors is None else vectors,
        rng.integers(0, 2, (n, 2)).astype(np.float32) if labels is None else labels,
        pd.DataFrame({"sex": sex}),
        np.arange(n).astype(str),
        tuple(f"finding {i}" for i in range(2 if labels is None else labels.shape[1])),
        np.arange(n).astype(str),
    )


def sizes_after(train: SplitData, rows: np.ndarray) -> dict[str, int]:
    return Counter(train.attributes["sex"].to_numpy()[rows])


class TestMedianBalance:
    @pytest.mark.parametrize("seed", range(3))
    def test_every_cell_comes_to_the_median_size(self, seed):
        train = cells_of({"a": 90, "b": 40, "c": 12}, unknown=5)
        rows = MedianBalance().sample(train, seed=seed).rows
        assert sizes_after(train, rows) == {"a": 40, "b": 40, "c": 40, "unknown": 5}

    def test_the_cells_are_crossings_of_attributes(self):
        rng = np.random.default_rng(0)
        attributes = pd.DataFrame(
            {"sex": rng.choice(["F", "M"], 400, p=[0.8, 0.2]), "race": rng.choice(["A", "B"], 400, p=[0.7, 0.3])}
        )
        train = SplitData(
            "train", np.zeros((400, 2), np.float32), rng.integers(0, 2, (400, 1)).astype(np.float32), attributes,
            np.arange(400).astype(str), ("x",), np.arange(400).astype(str),
        )  # fmt: skip
        taken = train.take(MedianBalance().sample(train, seed=0).rows).attributes
        assert taken.groupby(["sex", "race"]).size().nunique() == 1

    def test_a_row_is_never_used_more_than_max_copies_times(self):
        train = cells_of({"a": 200, "b": 200, "c": 12})
        for limit in (1, 3, 7):
            sample = MedianBalance(MedianBalanceSettings(max_copies=limit)).sample(train, seed=0)
            assert max(Counter(sample.rows).values()) <= limit
            assert sizes_after(train, sample.rows)["c"] == 12 * limit
            assert any(f"1 cells stopped at {limit} copies" in note for note in sample.notes)

    @pytest.mark.parametrize("label", [0.0, 1.0])
    def test_the_limit_holds_in_label_biased_cells_too(self, label):
        labels = np.r_[np.zeros(200), np.ones(200), np.full(12, label)].astype(np.float32)[:, None]
        train = cells_of({"a": 200, "b": 200, "c": 12}, labels=labels)
        rows = MedianBalance(MedianBalanceSettings(max_copies=4)).sample(train, seed=0).rows
        assert max(Counter(rows).values()) == 4

    def test_a_cell_under_min_cell_is_left_as_it_is(self):
        train = cells_of({"a": 60, "b": 40, "c": 9, "d": 20})
        after = sizes_after(train, MedianBalance(MedianBalanceSettings(min_cell=10)).sample(train, seed=0).rows)
        assert after["c"] == 9

    def test_tiny_cells_do_not_pull_the_others_down(self):
        train = cells_of({"a": 60, "b": 40, "c": 2, "d": 2, "e": 2, "f": 2})
        assert sizes_after(train, MedianBalance().sample(train, seed=0).rows) == {
            "a": 50,
            "b": 50,
            "c": 2,
            "d": 2,
            "e": 2,
            "f": 2,
        }

    def test_a_cell_that_grows_keeps_all_its_rows(self):
        train = cells_of({"a": 90, "b": 40, "c": 15})
        rows = MedianBalance().sample(train, seed=0).rows
        assert set(np.flatnonzero(train.attributes["sex"] == "c")) <= set(rows)

    def test_a_cell_that_shrinks_uses_no_row_twice(self):
        train = cells_of({"a": 90, "b": 40, "c": 15})
        rows = MedianBalance().sample(train, seed=0).rows
        of_a = rows[train.attributes["sex"].to_numpy()[rows] == "a"]
        assert len(of_a) == len(set(of_a)) == 40

    def test_a_biased_cell_keeps_the_rows_nearest_to_the_overall_rates(self):
        """Overall rates 12 % and 0 %: in the large cell the rows (0, 0) are nearest, (1, 0) far."""
        large = np.zeros((100, 1), np.float32)
        large[:70] = 1  # 70 % positive in the large cell
        others = np.zeros((500, 1), np.float32)
        train = cells_of({"a": 100, "b": 30, "c": 30, "z": 440}, labels=np.r_[large, others])
        sample = MedianBalance().sample(train, seed=0)  # median of 100, 30, 30, 440 is 65
        of_a = sample.rows[train.attributes["sex"].to_numpy()[sample.rows] == "a"]
        assert len(of_a) == 65
        assert (train.labels[of_a, 0] == 0).sum() == 30, "all 30 near rows are kept before any far one"

    def test_an_unbiased_cell_keeps_rows_at_random(self):
        labels = np.tile([[0.0], [1.0]], (80, 1)).astype(np.float32)
        train = cells_of({"a": 100, "b": 40, "c": 20}, labels=labels)
        kept = []
        for seed in range(20):
            rows = MedianBalance().sample(train, seed=seed).rows
            kept.append(train.labels[rows[rows < 100], 0].mean())
        assert 0.4 < np.mean(kept) < 0.6 and len(set(kept)) > 3

    def test_a_biased_cell_that_grows_copies_the_far_rows_first(self):
        small = np.zeros((20, 1), np.float32)
        small[:14] = 1  # 70 % positive where 7 % are overall: the far rows are the positives
        train = cells_of({"a": 20, "b": 30, "c": 150}, labels=np.r_[small, np.zeros((180, 1), np.float32)])
        rows = MedianBalance().sample(train, seed=0).rows
        copied = Counter(rows[rows < 20])
        extra = {row for row, n in copied.items() if n > 1}
        assert sum(copied.values()) == 30 and len(extra) == 10
        assert all(train.labels[row, 0] == 1 for row in extra)

    def test_masked_labels_do_not_count_in_the_rates(self):
        labels = np.full((150, 2), np.nan, np.float32)
        labels[::2, 0], labels[1::2, 0] = 1, 0
        train = cells_of({"a": 80, "b": 50, "c": 20}, labels=labels)
        assert sizes_after(train, MedianBalance().sample(train, seed=0).rows) == {"a": 50, "b": 50, "c": 50}

    def test_of_the_far_rows_the_farthest_are_copied_first(self):
        """Overall rates 6.5 % and 4.5 %: in the small cell (1, 1) is farther than (1, 0), and (1, 0) than (0, 0)."""
        small = np.repeat([[1, 1], [1, 0], [0, 0]], [3, 10, 7], axis=0).astype(np.float32)
        others = np.zeros((180, 2), np.float32)
        others[:6, 1] = 1
        train = cells_of({"a": 20, "b": 25, "c": 155}, labels=np.r_[small, others])
        rows = MedianBalance().sample(train, seed=0).rows  # median 25: five copies
        copied = Counter({row: n - 1 for row, n in Counter(rows[rows < 20]).items() if n > 1})
        assert sum(copied.values()) == 5 and {0, 1, 2} < set(copied) and set(copied) <= set(range(13))

    def test_copies_are_spread_evenly(self):
        train = cells_of({"a": 100, "b": 100, "c": 30}, labels=np.tile([[0.0], [1.0]], (115, 1)).astype(np.float32))
        rows = MedianBalance().sample(train, seed=0).rows
        assert sorted(Counter(rows[rows >= 200]).values()) == [3] * 20 + [4] * 10

    def test_the_bias_score_is_the_mean_over_labels_of_the_difference_in_rates(self):
        labels = np.array([[1, 0], [1, np.nan], [0, np.nan], [0, np.nan], [0, 1], [np.nan, np.nan]], np.float32)
        # Rates: 2 in 5 and 1 in 2 overall; in cell 0: 2 in 3 and 0 in 1; in cell 1: 0 in 1 and none; cell 2 is masked whole.
        scores = bias_scores(labels, np.array([0, 0, 0, 1, -1, 2]), 4)
        np.testing.assert_allclose(scores, [(abs(2 / 3 - 0.4) + 0.5) / 2, 0.4, np.nan, np.nan])

    def test_a_cell_that_is_masked_whole_is_not_biased_and_does_not_warn(self, recwarn):
        labels = np.r_[np.ones((90, 1)), np.full((20, 1), np.nan)].astype(np.float32)
        train = cells_of({"a": 60, "b": 30, "c": 20}, labels=labels)
        sample = MedianBalance().sample(train, seed=0)
        assert sizes_after(train, sample.rows) == {"a": 30, "b": 30, "c": 30} and len(recwarn) == 0
        assert not any("c 0." in note or "nan" in note for note in sample.notes)

    def test_the_notes_tell_bias_scores_but_not_of_cells_of_few_patients(self):
        labels = np.r_[np.ones(60), np.zeros(40), np.ones(30), np.zeros(4)].astype(np.float32)[:, None]
        train = cells_of({"a": 60, "b": 40, "c": 30, "d": 4}, labels=labels)
        patient = np.where(np.arange(134) < 100, np.arange(134), 1000 + np.arange(134) % 9)  # c: thirty images of nine patients
        train = dataclasses.replace(train, patient_id=patient.astype(str))
        notes = MedianBalance().sample(train, seed=0).notes
        expected = "bias score by sex (above 0.1: biased): b 0.67, a 0.33; cells of fewer than 10 patients are not shown"
        assert notes[-1] == expected
        assert not any(patient in note for note in notes for patient in ("1000", "1008"))

    def test_the_notes_tell_how_even_the_cells_are(self):
        train = cells_of({"a": 90, "b": 40, "c": 20}, unknown=3)
        notes = MedianBalance().sample(train, seed=0).notes
        gini = 2 * (50 + 70 + 20) / (2 * 9 * 50)
        shares = np.array([90, 40, 20]) / 150
        entropy = -(shares * np.log(shares)).sum() / np.log(3)
        expected = f"cell sizes: Gini coefficient {gini:.2f} before, 0.00 after; entropy {entropy:.2f} before, 1.00 after"
        assert any(note.startswith(expected) for note in notes)
        assert "fewer than 10 rows with an unknown attribute left as they are" in notes

    @pytest.mark.parametrize("wrong", [{"max_copies": 0}, {"min_cell": 0}, {"far_share": 1.5}, {"bias_threshold": -0.1}])
    def test_settings_out_of_range_are_refused(self, wrong):
        with pytest.raises(InputError, match=next(iter(wrong))):
            MedianBalanceSettings(**wrong)


class TestClusterDownsample:
    def blobs(self) -> SplitData:
        """One large cell with three clear clusters of 60, 30 and 10 rows; two small cells."""
        rng = np.random.default_rng(0)
        centres = np.repeat([[0, 0, 0], [50, 0, 0], [0, 50, 0]], [60, 30, 10], axis=0)
        vectors = np.r_[centres + rng.normal(size=(100, 3)), rng.normal(size=(60, 3))].astype(np.float32)
        return cells_of({"a": 100, "b": 40, "c": 20}, vectors=vectors)

    @pytest.mark.parametrize("seed", range(3))
    def test_each_cluster_keeps_its_share(self, seed):
        train = self.blobs()
        rows = ClusterDownsample(ClusterDownsampleSettings(n_clusters=3)).sample(train, seed=seed).rows
        of_a = rows[rows < 100]
        assert [(of_a < 60).sum(), ((of_a >= 60) & (of_a < 90)).sum(), (of_a >= 90).sum()] == [24, 12, 4]

    def test_no_row_is_copied_and_small_cells_keep_all(self):
        train = self.blobs()
        rows = ClusterDownsample().sample(train, seed=0).rows
        assert len(rows) == len(set(rows))
        assert sizes_after(train, rows) == {"a": 40, "b": 40, "c": 20}

    def test_the_rows_nearest_to_a_centre_represent_their_cluster(self):
        train = self.blobs()
        rows = ClusterDownsample(ClusterDownsampleSettings(n_clusters=1)).sample(train, seed=0).rows
        points = train.vectors[:100] / np.std(train.vectors, axis=0)
        centre = MiniBatchKMeans(1, random_state=0, n_init=3).fit(points).cluster_centers_[0]
        distance = np.linalg.norm(points - centre, axis=1)
        assert distance[rows[rows < 100]].max() <= np.sort(distance)[50]

    def test_a_column_of_rounding_noise_does_not_decide_the_clusters(self):
        train = self.blobs()
        noise = np.float32(1000) + np.random.default_rng(1).choice([0, 6e-5], (160, 30))
        rows = [
            ClusterDownsample(ClusterDownsampleSettings(n_clusters=3)).sample(t, seed=0).rows
            for t in (train, cells_of({"a": 100, "b": 40, "c": 20}, vectors=np.c_[train.vectors, noise].astype(np.float32)))
        ]
        np.testing.assert_array_equal(*rows)

    @given(st.lists(st.integers(0, 50), min_size=1, max_size=9).filter(any).map(np.array), st.floats(0, 1))
    @settings(deadline=None)
    def test_shares_sum_to_the_total_and_none_exceeds_its_size(self, sizes, part):
        total = int(part * sizes.sum())
        divided = shares(sizes, total)
        assert divided.sum() == total and (divided <= sizes).all() and (divided >= 0).all()
        assert (np.abs(divided - sizes * total / sizes.sum()) < 1).all()


class TestBalanceTable:
    def test_it_tells_how_even_the_groups_are_before_and_after(self):
        train = cells_of({"a": 30, "b": 10}, unknown=4)
        rows = np.r_[np.arange(30), np.tile(np.arange(30, 40), 3), np.arange(40, 44)]
        table = balance_table(train, Sample(rows, np.ones(len(rows), np.float32))).set_index("when")
        assert table["attribute"].tolist() == ["sex", "sex"]
        assert table["gini"].tolist() == pytest.approx([0.25, 0])
        assert table.loc["before", "normalized_entropy"] == pytest.approx(0.8113, abs=1e-4)
        assert table.loc["after", "normalized_entropy"] == pytest.approx(1)
        assert table["n_rows"].tolist() == [44, 64] and table["max_copies"].tolist() == [1, 3]
        assert table["effective_n"].tolist() == pytest.approx([44, 64**2 / (34 + 10 * 9)])
        assert (table["n_unknown"] == 4).all()

    def test_rows_count_by_their_weights_and_copies_are_copies(self):
        train = cells_of({"a": 30, "b": 10})
        weights = np.r_[np.ones(30), np.full(10, 3)].astype(np.float32)
        after = balance_table(train, Sample(np.arange(40), weights)).set_index("when").loc["after"]
        assert after["gini"] == pytest.approx(0) and after["n_rows"] == 60 and after["max_copies"] == 1
        copied = balance_table(train, Sample(np.r_[np.arange(40), [0, 0]], np.ones(42, np.float32))).set_index("when")
        assert copied["max_copies"].tolist() == [1, 3]

    def test_two_attributes_are_also_crossed(self, split_of):
        table = balance_table(split_of(), Sample(np.arange(60), np.ones(60, np.float32)))
        assert table["attribute"].tolist() == ["sex", "sex", "race", "race", "all crossed", "all crossed"]
        assert table["n_groups"].tolist() == [2, 2, 2, 2, 4, 4]

    def test_without_attributes_it_is_an_empty_table_that_can_be_read_again(self, split_of, tmp_path):
        train = split_of()
        train = SplitData(**{**vars(train), "attributes": train.attributes[[]]})
        balance_table(train, Sample(np.arange(60), np.ones(60, np.float32))).to_csv(tmp_path / "b.csv", index=False)
        assert len(pd.read_csv(tmp_path / "b.csv")) == 0
