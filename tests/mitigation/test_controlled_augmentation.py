"""Augmented views fill up cells; no other sampler sees them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from biascxr.containers import Attribute, Cohort, EmbeddingSet
from biascxr.errors import InputError
from biascxr.mitigation import SplitData, balance_table, parse_recipes, split_data
from biascxr.mitigation.sampling import sample_in_order
from biascxr.mitigation.sampling.controlled_augmentation import ControlledAugmentation, ControlledAugmentationSettings
from biascxr.mitigation.sampling.median_balance import MedianBalance


def train_with_views(n_views: int) -> SplitData:
    """60 images of A, 40 of B, 12 of C, 3 unknown, and behind them `n_views` of each image of C."""
    race = ["A"] * 60 + ["B"] * 40 + ["C"] * 12 + ["unknown"] * 3 + ["C"] * (12 * n_views)
    n, of_c = len(race), [f"i{100 + i}" for i in range(12)]
    return SplitData(
        split="train",
        vectors=np.arange(n, dtype=np.float32)[:, None],
        labels=np.zeros((n, 1), np.float32),
        attributes=pd.DataFrame({"race": race}),
        patient_id=np.array([f"p{i}" for i in range(115)] + [f"p{100 + i}" for i in range(12)] * n_views, object),
        label_names=("x",),
        image_id=np.array([f"i{i}" for i in range(115)] + of_c * n_views, object),
        view_id=np.r_[np.zeros(115), np.repeat(np.arange(1, n_views + 1), 12)].astype(np.int32),
    )


def counts(train: SplitData, rows: np.ndarray) -> dict:
    return train.attributes["race"].iloc[rows].value_counts().to_dict()


def test_a_small_cell_grows_to_the_median_by_views_each_once():
    train = train_with_views(4)
    sample = ControlledAugmentation().sample(train, seed=0)
    assert counts(train, sample.rows) == {"A": 60, "B": 40, "C": 40, "unknown": 3}
    assert len(set(sample.rows)) == len(sample.rows) and set(range(115)) <= set(sample.rows)
    assert "28 augmented views" in sample.notes[0]


def test_with_too_few_views_it_says_that_the_cell_stays_below():
    train = train_with_views(1)
    sample = ControlledAugmentation().sample(train, seed=0)
    assert counts(train, sample.rows)["C"] == 24 and "1 cells stay below the target" in sample.notes[1]


def test_other_samplers_see_images_only():
    train = train_with_views(4)
    assert MedianBalance().sample(train, seed=0).rows.max() < 115
    assert len(train.images()) == 115


def test_a_sampler_after_it_sees_what_it_chose():
    train = train_with_views(4)
    sample = sample_in_order([ControlledAugmentation(), MedianBalance()], train, seed=0)
    assert counts(train, sample.rows) == {"A": 40, "B": 40, "C": 40, "unknown": 3}
    assert (train.view_id[sample.rows] > 0).sum() == 28


def test_the_balance_table_counts_images_before_and_views_after():
    train = train_with_views(4)
    table = balance_table(train, ControlledAugmentation().sample(train, seed=0)).set_index("when")
    assert table.loc["before", "n_rows"] == 115 and table.loc["after", "n_rows"] == 143
    assert table.loc["after", "gini"] < table.loc["before", "gini"]


def test_it_must_be_the_first_sampler():
    assert parse_recipes("controlled_augmentation+median_balance")[1].view_settings() == ControlledAugmentationSettings()
    with pytest.raises(InputError, match="controlled_augmentation chooses among augmented views, so it must be the first"):
        parse_recipes("median_balance+controlled_augmentation")


def test_views_stand_behind_their_splits_images_and_only_where_their_image_has_a_vector():
    n = 8
    table = pd.DataFrame(
        {"image_id": [f"i{i}" for i in range(n)], "study_id": "s", "patient_id": [f"p{i}" for i in range(n)], "path": "x",
         "view": "PA", "split": ["train"] * 6 + ["test"] * 2, "age": 1.0, "sex": ["F", "M"] * 4}
    )  # fmt: skip
    cohort = Cohort(
        table,
        (np.arange(2 * n).reshape(n, 2) % 3 == 0).astype(np.float32),
        ("x", "y"),
        (Attribute("sex", ("F", "M"), True),),
        "g",
        "image",
        ".",
    )
    ids = table["image_id"].to_numpy(object)
    store = EmbeddingSet(ids, np.zeros(n, np.int32), np.arange(n, dtype=np.float32)[:, None], {})
    views = EmbeddingSet(
        np.array(["i1", "i1", "gone", "i7", "i4"], object), np.array([1, 2, 1, 1, 1], np.int32),
        np.array([[10], [11], [12], [13], [14]], np.float32), {},
    )  # fmt: skip
    train = split_data(cohort, store, "train", views=views)
    np.testing.assert_array_equal(train.vectors[:], np.array([0, 1, 2, 3, 4, 5, 10, 11, 14], np.float32)[:, None])
    assert train.view_id.tolist() == [0] * 6 + [1, 2, 1] and train.image_id[6:].tolist() == ["i1", "i1", "i4"]
    np.testing.assert_array_equal(train.labels[6:], cohort.labels[[1, 1, 4]])
    assert train.patient_id[6:].tolist() == ["p1", "p1", "p4"] and train.attributes["sex"][6:].tolist() == ["M", "M", "F"]
    assert split_data(cohort, store, "test", views=None).view_id.tolist() == [0, 0]
    same = split_data(cohort, store, "train", views=replace(views, vectors=views.vectors + 1))
    assert same.vectors[6:9].ravel().tolist() == [11, 12, 15]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_views": 0}, "max_views and min_cell must be at least 1"),
        ({"max_rotation": 200.0}, r"max_rotation must lie in \[0, 180\] degrees; got 200"),
        ({"max_shift": 1.0}, r"max_shift must be a share in \[0, 1\); got 1"),
    ],
)
def test_settings_out_of_range_are_named(setting, message):
    with pytest.raises(InputError, match=message):
        ControlledAugmentationSettings(**setting)
