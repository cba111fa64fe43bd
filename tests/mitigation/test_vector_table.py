"""A table of vectors is the array that it is read from: taken, joined, mixed and transformed rows are NumPy's."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from biascxr.mitigation import VectorTable, vector_table
from biascxr.mitigation.vector_table import (
    principal_axes,
    weighted_covariance,
    weighted_cross_covariance,
    weighted_mean,
    weighted_variance,
)

D = 5


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, D)).astype(np.float32)


@pytest.fixture
def table(array) -> VectorTable:
    return VectorTable.of(array)


@pytest.mark.parametrize(
    "index",
    [slice(3, 9), slice(None, None, -7), slice(50, 60), np.array([5, 5, 0]), np.array([-1, -40, 2]), [], 7, -1, np.int64(3)],
    ids=str,
)
def test_it_is_indexed_as_the_array_is(array, table, index):
    np.testing.assert_array_equal(table[index], array[index])
    # Whatever stands behind a row is not taken for one of its own.
    other = np.full((4, D), 9, np.float32)
    both = np.concatenate([array, other])
    np.testing.assert_array_equal(table.followed_by(VectorTable.of(other))[index], both[index])


def test_a_mask_chooses_rows_in_indexing_and_taking(array, table):
    mask = array[:, 0] > 0
    np.testing.assert_array_equal(table[mask], array[mask])
    np.testing.assert_array_equal(table.take(mask), array[mask])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (np.ones(39, bool), r"A mask over 40 rows must have one value for each; got shape \(39,\)"),
        (np.array([0, 40]), "Rows must lie in 0 to 39; got 0 to 40"),
        (np.array([-41]), "Rows must lie in 0 to 39"),
        (np.array([0.5]), "whole numbers or a mask; got float64"),
    ],
)
def test_rows_that_are_not_there_are_refused_and_taken_for_no_other(table, index, message):
    with pytest.raises(IndexError, match=message):
        table[index]
    with pytest.raises(IndexError, match=message):
        table.take(index)


def test_all_of_it_is_read_by_asarray_in_the_type_asked_for(array, table):
    assert table.shape == array.shape and len(table) == 40 and np.asarray(table).dtype == np.float32
    np.testing.assert_array_equal(np.asarray(table), array)
    np.testing.assert_array_equal(np.asarray(table, np.float64), array.astype(np.float64))
    with pytest.raises(ValueError, match="no array that needs no copy"):
        np.array(table, copy=False)


def test_chunks_are_all_rows_once_and_in_order(array, table):
    parts = list(table.chunks(size=7))
    assert [rows.start for rows, _ in parts] == [0, 7, 14, 21, 28, 35] and parts[-1][0].stop == 40
    np.testing.assert_array_equal(np.concatenate([chunk for _, chunk in parts]), array)


def test_rows_taken_from_taken_rows_are_those_rows(array, table):
    first, then = np.array([9, 3, 3, 30]), np.array([2, 0, 2])
    np.testing.assert_array_equal(table.take(first).take(then), array[first][then])


def test_rows_taken_stay_what_they_were_when_the_list_of_them_changes(array, table):
    rows = np.array([4, 5])
    taken = table.take(rows)
    rows[:] = 0
    np.testing.assert_array_equal(taken, array[[4, 5]])


def test_a_table_of_a_table_is_itself_and_other_types_become_float32(array, table):
    assert VectorTable.of(table) is table
    assert VectorTable.of(array.astype(np.float16))[:2].dtype == np.float32
    with pytest.raises(ValueError, match=r"Vectors must be \[n, d\]; got shape \(40,\)"):
        VectorTable.of(array[:, 0])


def test_rows_of_another_table_stand_behind_and_both_are_read_in_any_order(array, table):
    other = array[:6] + 100
    both, rows = table.followed_by(VectorTable.of(other)), np.array([45, 0, 40, 39, 40])
    assert both.shape == (46, D)
    np.testing.assert_array_equal(both[rows], np.concatenate([array, other])[rows])


def test_vectors_of_another_length_cannot_stand_behind(table):
    with pytest.raises(ValueError, match="these have 5 numbers, those to follow 4"):
        table.followed_by(VectorTable.of(np.zeros((2, 4), np.float32)))


def test_mixed_rows_lie_between_a_row_and_its_partner_and_the_source_stays(array, table):
    rng, before = np.random.default_rng(1), array.copy()
    partners, shares = rng.integers(0, 40, 40), rng.random(40).astype(np.float32)
    shares[::3] = 1
    mixed = table.mixed(partners, shares)
    expected = shares[:, None] * array + (1 - shares[:, None]) * array[partners]
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(mixed)[::3], array[::3])
    rows = np.array([8, 8, 1])
    np.testing.assert_array_equal(mixed[rows], np.asarray(mixed)[rows])
    np.testing.assert_array_equal(array, before)


def test_a_transformed_table_is_the_same_kept_and_made_anew(array, table, monkeypatch):
    def function(chunk, rows):
        return chunk[:, :2] * rows[:, None]

    expected = (array[:, :2] * np.arange(40)[:, None]).astype(np.float32)
    kept = table.transformed(function)
    monkeypatch.setattr(vector_table, "KEEP_IN_MEMORY", 40 * 2 * 4 - 1)
    lazy = table.transformed(function)
    for made in (kept, lazy, lazy.take(np.arange(40))):
        assert made.shape == (40, 2) and made[:3].dtype == np.float32
        np.testing.assert_array_equal(made, expected)
        np.testing.assert_array_equal(made[[7, 7, 2]], expected[[7, 7, 2]])


def test_a_small_transformed_table_is_made_once_and_a_large_one_at_every_reading(table, monkeypatch):
    calls = []

    def function(chunk, rows):
        calls.append(len(rows))
        return chunk

    kept = table.transformed(function)
    made = sum(calls)
    kept[:], kept[:]
    assert sum(calls) == made
    monkeypatch.setattr(vector_table, "KEEP_IN_MEMORY", 0)
    calls.clear()
    lazy = table.transformed(function)
    assert sum(calls) == 1  # to see how wide it is
    lazy[:5], lazy[:5]
    assert sum(calls) == 11


def test_a_memory_map_is_not_copied(tmp_path):
    path, n, d = tmp_path / "vectors.npy", 20_000, 64  # 5 MB
    np.save(path, np.zeros((n, d), np.float32))
    mapped = np.load(path, mmap_mode="r")
    tracemalloc.start()
    table = VectorTable.of(mapped).take(np.arange(0, n, 2)).followed_by(VectorTable.of(mapped))
    for _, chunk in table.chunks(size=256):
        assert chunk.shape[1] == d
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_500_000


def test_an_empty_table_is_read_joined_and_transformed(table):
    empty = table.take(np.array([], int))
    assert len(empty) == 0 and np.asarray(empty).shape == (0, D) and list(empty.chunks()) == []
    assert empty[[]].shape == (0, D) and empty.transformed(lambda chunk, rows: chunk[:, :3]).shape == (0, 3)
    assert empty.mixed(np.array([], int), np.array([])).shape == (0, D)
    np.testing.assert_array_equal(empty.followed_by(table), np.asarray(table))
    np.testing.assert_array_equal(table.followed_by(empty), np.asarray(table))


def test_weighted_moments_are_numpys_in_float64_far_from_the_origin(monkeypatch):
    rng = np.random.default_rng(2)
    spread = rng.normal(size=(3000, D)) @ rng.normal(size=(D, D)) * 1e-2
    array, weights = (spread + 1000).astype(np.float32), rng.random(3000).astype(np.float32)
    exact, table = array.astype(np.float64), VectorTable.of(array)
    monkeypatch.setattr(vector_table.VectorTable.chunks, "__defaults__", (700,))  # several chunks, the last one short
    mean = weighted_mean(table, weights)
    np.testing.assert_allclose(mean, np.average(exact, axis=0, weights=weights), rtol=1e-14)
    covariance = weighted_covariance(table, weights, mean)
    np.testing.assert_allclose(covariance, np.cov(exact.T, aweights=weights.astype(np.float64), ddof=0), rtol=1e-9)
    np.testing.assert_array_equal(covariance, covariance.T)
    np.testing.assert_allclose(weighted_variance(table, weights, mean), np.diag(covariance), rtol=1e-12)
    columns = rng.normal(size=(3000, 2))
    columns -= np.average(columns, axis=0, weights=weights)
    joint = np.cov(np.c_[exact, columns].T, aweights=weights.astype(np.float64), ddof=0)
    np.testing.assert_allclose(weighted_cross_covariance(table, columns, weights, mean), joint[:D, D:], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("n_rows", "weights"), [(40, np.ones(39)), (40, np.zeros(40)), (0, np.ones(0))])
def test_moments_of_nothing_are_refused(table, n_rows, weights):
    part = table.take(np.arange(n_rows))
    with pytest.raises(ValueError, match=f"one weight per row and a total above 0.*for {n_rows} rows"):
        weighted_mean(part, weights)
    with pytest.raises(ValueError, match="one weight per row"):
        weighted_covariance(part, weights, np.zeros(D))


@pytest.mark.parametrize("n", [200, 7, 3])
def test_principal_axes_are_those_of_the_weighted_covariance_with_few_rows_too(n):
    rng = np.random.default_rng(3)
    array, scale = (rng.normal(size=(n, 8)) * np.arange(1, 9) + 100).astype(np.float32), rng.random(8) + 0.5
    array[:, 2], array[:, 3], weights = array[:, 1], 0, rng.random(n).astype(np.float32) + 0.1
    table, exact = VectorTable.of(array), array.astype(np.float64) * scale
    mean = weighted_mean(table, weights)
    values, axes = principal_axes(table, weights, mean, scale)
    assert len(values) == min(n - 1, 6) and (np.diff(values) < 0).all()
    np.testing.assert_allclose(axes.T @ axes, np.eye(len(values)), atol=1e-12)
    covariance = np.cov(exact.T, aweights=weights.astype(np.float64), ddof=0)
    np.testing.assert_allclose((axes * values) @ axes.T, covariance, atol=1e-9)
    again, _ = principal_axes(VectorTable.of(exact), weights, mean * scale)
    np.testing.assert_allclose(again, values, rtol=1e-3)  # scaled beforehand, and rounded to float32
