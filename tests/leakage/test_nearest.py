"""The search finds the rows that a plain computation in extended precision finds, on every kind of cloud."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from biascxr.errors import InputError
from biascxr.leakage import nearest
from biascxr.leakage.nearest import nearest_neighbours


def by_definition(train: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Square distances one query at a time, in extended precision; ties by row number."""
    found = []
    for query in queries:
        difference = train.astype(np.longdouble) - query
        found.append(np.argsort((difference**2).sum(1), kind="stable")[:k])
    return np.array(found)


def searched(train: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    train, queries = np.asarray(train, np.float32), np.asarray(queries, np.float32)
    return nearest_neighbours(train, queries, k, is_always_searched_in_float32=True)


def cloud(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


CLOUDS = {
    "even": lambda: cloud(3000, 40),
    "few columns": lambda: cloud(3000, 2),
    "one column": lambda: cloud(500, 1),
    "far from the origin": lambda: cloud(3000, 20) + np.float32(3e4),
    "columns of very different size": lambda: cloud(3000, 20) * np.logspace(-8, 8, 20, dtype=np.float32),
    "constant columns": lambda: np.hstack([cloud(2000, 5), np.full((2000, 9), 7, np.float32)]),
    "some rows far out": lambda: np.vstack([cloud(2500, 30), 1e4 * cloud(20, 30, 1)]),
    "one row at the end of float32": lambda: np.vstack([cloud(1000, 8), np.full((1, 8), 3e38, np.float32)]),
    "the size of the smallest numbers": lambda: cloud(1000, 8) * np.float32(1e-36),
    "tight clusters": lambda: 50 * np.repeat(cloud(10, 30), 300, 0) + 1e-4 * cloud(3000, 30, 1),
    "whole numbers, many ties": lambda: np.random.default_rng(0).integers(0, 3, (3000, 4)).astype(np.float32),
}


@pytest.mark.parametrize("kind", CLOUDS)
@pytest.mark.parametrize("k", [1, 7, 60])
def test_neighbours_are_those_of_the_definition(kind, k):
    rows = CLOUDS[kind]()
    order = np.random.default_rng(1).permutation(len(rows))
    queries, train = rows[order[:40]], rows[order[30:]]  # ten of the queries are among the rows: their distance is 0
    expected = by_definition(train, queries, k)
    np.testing.assert_array_equal(searched(train, queries, k), expected)
    np.testing.assert_array_equal(nearest_neighbours(train, queries, k), expected)  # so small that float64 does it


def test_neighbours_are_scikit_learns():
    train, queries = cloud(8000, 64), cloud(300, 64, 1)
    peer = NearestNeighbors(n_neighbors=50, algorithm="brute").fit(train.astype(np.float64))
    np.testing.assert_array_equal(searched(train, queries, 50), peer.kneighbors(queries.astype(float), return_distance=False))


def test_rows_that_are_all_alike_come_in_their_order():
    same = np.ones((400, 12), np.float32)
    np.testing.assert_array_equal(searched(same, same[:5], 30), np.tile(np.arange(30), (5, 1)))


def test_every_row_can_be_asked_for():
    train, queries = cloud(90, 6), cloud(4, 6, 1)
    np.testing.assert_array_equal(searched(train, queries, 90), by_definition(train, queries, 90))


def test_a_query_far_outside_the_cloud_is_answered_beside_others():
    train, queries = cloud(2000, 10), cloud(20, 10, 1)
    queries[3], queries[7] = 1e30, -1e12
    np.testing.assert_array_equal(searched(train, queries, 5)[[3, 7]], by_definition(train, queries[[3, 7]], 5))
    usual = np.delete(np.arange(20), [3, 7])
    np.testing.assert_array_equal(searched(train, queries, 5)[usual], by_definition(train, queries[usual], 5))


def test_the_search_in_float32_proves_its_answer_on_an_even_cloud_and_not_among_duplicates(monkeypatch):
    """Else the tests above would show the pass in float64 only."""
    searched_again = []
    exactly = nearest._search_exactly
    monkeypatch.setattr(nearest, "_search_exactly", lambda *a: searched_again.append(len(a[3])) or exactly(*a))
    searched(cloud(3000, 200), cloud(50, 200, 1), 20)
    assert sum(searched_again) == 0
    searched(np.repeat(cloud(10, 30), 300, 0), cloud(50, 30, 1), 20)
    assert sum(searched_again) == 50


def test_the_bound_is_below_the_true_distance_and_close_to_it():
    """What is claimed of rows that were not kept, held against extended precision row by row."""
    train, queries = cloud(3000, 300) + np.float32(5), cloud(30, 300, 1) + np.float32(5)
    centre = train.mean(0, dtype=np.float64)
    with nearest.ThreadPoolExecutor(1) as pool:
        own = nearest._centred(train, centre, pool)
    centred = ((queries - centre) * own.scale).astype(np.float32)
    bound = own.bound + (-2 * centred) @ own.scaled.T + ((1 - own.e) * (centred.astype(float) ** 2).sum(1))[:, None]
    true = ((train.astype(np.longdouble)[None] - queries[:, None]) ** 2).sum(2) * own.scale**2
    assert (bound <= true).all()
    assert (bound >= true - 4 * own.e * (own.bound + (centred**2).sum(1)[:, None])).all()


def test_no_query_gives_no_row():
    assert searched(cloud(5, 3), np.empty((0, 3)), 2).shape == (0, 2)


@pytest.mark.parametrize(
    ("train", "queries", "k", "said"),
    [
        (cloud(5, 3), cloud(2, 3), 6, "k must be from 1 to the number of training rows, 5; received 6"),
        (cloud(5, 3), cloud(2, 3), 0, "received 0"),
        (cloud(5, 3), cloud(2, 4), 1, "one length, 1 or more; received 3 and 4"),
        (cloud(5, 3).astype(float), cloud(2, 3), 1, "train must be .* float64"),
        (cloud(5, 3), cloud(2, 3)[0], 1, "queries must be"),
        (np.where(np.eye(5, 3) > 0, np.nan, cloud(5, 3)).astype(np.float32), cloud(2, 3), 1, "finite"),
        (cloud(5, 3), np.full((2, 3), np.inf, np.float32), 1, "finite"),
    ],
)
def test_what_cannot_be_searched_is_said(train, queries, k, said):
    with pytest.raises(InputError, match=said):
        nearest_neighbours(train, queries, k)
