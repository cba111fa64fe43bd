"""Gini, entropy and Kish's effective n against their closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from biascxr.metrics import effective_n, gini_coefficient, normalized_entropy

sizes_of_groups = st.lists(st.integers(0, 1000), min_size=2, max_size=8).filter(any).map(np.array)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_equal_groups_have_gini_0_and_entropy_1(k):
    assert gini_coefficient(np.full(k, 7)) == 0
    assert normalized_entropy(np.full(k, 7)) == pytest.approx(1)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_one_group_with_everything_has_the_largest_gini_and_entropy_0(k):
    sizes = np.r_[np.zeros(k - 1), 9]
    assert gini_coefficient(sizes) == pytest.approx((k - 1) / k)
    assert normalized_entropy(sizes) == 0


def test_gini_of_two_groups_is_half_the_difference_of_their_shares():
    assert gini_coefficient(np.array([30, 10])) == pytest.approx((0.75 - 0.25) / 2)


@given(sizes_of_groups)
def test_gini_is_the_area_between_lorenz_curve_and_diagonal(sizes):
    lorenz = np.r_[0, np.cumsum(np.sort(sizes)) / sizes.sum()]
    area = np.trapezoid(lorenz, np.linspace(0, 1, len(lorenz)))
    assert gini_coefficient(sizes) == pytest.approx(1 - 2 * area, abs=1e-9)


@given(sizes_of_groups)
def test_entropy_is_scipys_over_log_k(sizes):
    assert normalized_entropy(sizes) == pytest.approx(scipy.stats.entropy(sizes) / np.log(len(sizes)), abs=1e-9)


def test_balance_of_nothing_is_undefined():
    for sizes in ([], [0, 0]):
        assert np.isnan(gini_coefficient(np.array(sizes))) and np.isnan(normalized_entropy(np.array(sizes)))
    assert np.isnan(normalized_entropy(np.array([5])))


def test_copies_add_weight_and_no_information():
    assert effective_n(np.ones(10)) == 10
    assert effective_n(np.full(10, 4.0)) == pytest.approx(10)
    assert effective_n(np.r_[np.ones(10), np.zeros(90)]) == pytest.approx(10)
    assert effective_n(np.array([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective_n(np.zeros(3)) == 0
