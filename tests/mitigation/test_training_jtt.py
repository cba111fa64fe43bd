"""`jtt`: wrong labels weigh more in the second round, and no attribute is read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from biascxr.errors import InputError
from biascxr.mitigation.training.base import NetworkSettings
from biascxr.mitigation.training.erm import Erm
from biascxr.mitigation.training.jtt import Jtt, JttSettings, error_weights, other_seed

SMALL = {"hidden": (4,), "max_epochs": 3, "batch_size": 16}
ONES = np.ones(60, np.float32)


def test_a_rows_weight_is_the_mean_over_its_known_labels():
    labels = np.array([[1, 0], [1, np.nan], [0, 0], [np.nan, np.nan]], np.float32)
    scores = np.array([[0.4, 0.4], [0.2, 0.9], [0.5, 0.7], [0.9, 0.1]])
    factors, is_wrong = error_weights(labels, scores, 10.0)
    np.testing.assert_array_equal(factors, np.float32([5.5, 10, 10, 1]))
    np.testing.assert_array_equal(is_wrong, [[True, False], [True, False], [True, True], [False, False]])


def test_for_one_finding_it_is_the_papers_up_weight_or_one():
    factors, _ = error_weights(np.array([[1], [0]], np.float32), np.array([[0.3], [0.3]]), 20.0)
    assert factors.tolist() == [20, 1]


def test_the_second_round_is_erm_on_weighted_rows_and_neither_reads_an_attribute(split_of):
    train, validation = split_of(), split_of("validation")
    first = Erm(NetworkSettings(**SMALL | {"max_epochs": 1})).fit(train, ONES, validation, seed=other_seed(4))
    factors, is_wrong = error_weights(train.labels, first.predict(train.vectors), 10.0)
    assert 0 < is_wrong.sum() < is_wrong.size
    expected = Erm(NetworkSettings(**SMALL)).fit(train, factors, validation, seed=4).predict(train.vectors)

    others = dataclasses.replace(train, attributes=train.attributes.iloc[::-1].reset_index(drop=True))
    head = Jtt(JttSettings(first_epochs=1, **SMALL)).fit(others, ONES, validation, seed=4)
    np.testing.assert_array_equal(head.predict(train.vectors), expected)
    share = is_wrong.sum() / (~np.isnan(train.labels)).sum()
    assert head.notes == (f"error set of the first head: {share:.1%} of the known labels, weight 10",)
    assert len(head.history) == 3


@pytest.mark.parametrize(("name", "value"), [("first_epochs", 0), ("up_weight", 0.5), ("max_epochs", 0)])
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(InputError, match=f"{name}.* must be"):
        JttSettings(**{name: value})
