"""Near copies are those that brute force finds, whatever the vectors look like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from biascxr.cohort.contract import near_copies as module
from biascxr.cohort.contract.near_copies import near_copies
from biascxr.cohort.contract.vectors import near_duplicate_vectors

COSINE = 0.999


def brute_force(vectors: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Every cosine in float64: `[n, 4]`, does the row have a near copy in that group?"""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    near = unit @ unit.T > COSINE
    return np.stack([(near & (group[None] == g) & (group[:, None] != g)).any(axis=1) for g in range(4)], axis=1)


def with_copies(rng, n, d, *, spectrum, shared=0.0) -> np.ndarray:
    """Vectors a tenth of which are copies of others, some near, some not near enough, by a noise that is drawn per copy."""
    vectors = rng.normal(size=(n, d)) * spectrum
    m = n // 10
    length = np.linalg.norm(spectrum)
    noise = rng.normal(size=(m, d)) * length / np.sqrt(d) * rng.uniform(0, 0.09, (m, 1))  # cosine 0.999 is at 0.045
    vectors[:m] = vectors[rng.choice(np.arange(m, n), m)] + noise
    return (vectors[rng.permutation(n)] + shared).astype(np.float32)


@pytest.mark.parametrize("shared", [0.0, 30.0])
@pytest.mark.parametrize(
    "spectrum",
    [np.ones(200), np.geomspace(3, 0.05, 200), np.geomspace(3, 0.05, 30), np.r_[30.0, np.ones(99)], np.ones(3)],
    ids=["isotropic", "decaying", "short", "one direction leads", "so few that many are near by chance"],
)
@pytest.mark.parametrize("seed", range(2))
def test_agrees_with_brute_force(monkeypatch, seed, spectrum, shared):
    monkeypatch.setattr(module, "N_BLOCK", 64)  # many blocks and tiles, also ragged ones
    monkeypatch.setattr(module, "N_TILE", 130)
    rng = np.random.default_rng(seed)
    vectors = with_copies(rng, 700, len(spectrum), spectrum=spectrum, shared=shared)
    group = rng.choice(4, 700, p=[0.6, 0.1, 0.1, 0.2])
    expected = brute_force(vectors, group)
    assert expected.any(axis=1).sum() > 10
    result = near_copies(vectors, group, n_groups=4, cosine=COSINE)
    np.testing.assert_array_equal(result.found, expected)
    assert all(group[a] != group[b] and expected[a, group[b]] for a, b in result.pairs)


@pytest.mark.slow
def test_agrees_with_brute_force_on_three_thousand_vectors_of_a_thousand():
    rng = np.random.default_rng(5)
    vectors = np.maximum(with_copies(rng, 3000, 1024, spectrum=np.geomspace(3, 0.02, 1024)) + 0.2, 0)
    group = rng.choice(4, 3000, p=[0.6, 0.1, 0.1, 0.2])
    expected = brute_force(vectors, group)
    assert 20 < expected.any(axis=1).sum() < 1000
    np.testing.assert_array_equal(near_copies(vectors, group, n_groups=4, cosine=COSINE).found, expected)


def test_only_the_rows_asked_for_are_compared():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 8)).astype(np.float32)
    vectors[40:] = vectors[:10]
    group = np.arange(40) % 2
    assert not near_copies(vectors, group, rows=np.arange(40), n_groups=2, cosine=COSINE).found.any()
    rows = np.r_[np.arange(39), 40]  # 40 is a copy of 0, and stands in an odd place
    assert np.flatnonzero(near_copies(vectors, group, rows=rows, n_groups=2, cosine=COSINE).found.any(axis=1)).tolist() == [
        0,
        39,
    ]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e6])
def test_vectors_that_are_all_the_same_have_no_direction(value):
    same = np.full((300, 7), value, np.float32)
    assert not near_copies(same, np.arange(300) % 4, n_groups=4, cosine=COSINE).found.any()


@pytest.mark.parametrize("n", [0, 1])
def test_one_vector_has_no_copy(n):
    assert near_copies(np.ones((n, 3), np.float32), np.zeros(n, int), n_groups=4, cosine=COSINE).found.shape == (n, 4)


def test_a_heap_of_copies_costs_few_looks():
    """Of 6,000 copies there are 13 million pairs across four groups; one partner per group is enough."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(8000, 40)).astype(np.float32)
    vectors[:6000] = vectors[0]
    group = rng.integers(0, 4, 8000)
    result = near_copies(vectors, group, n_groups=4, cosine=COSINE)
    others = np.arange(4)[None] != group[:6000, None]
    np.testing.assert_array_equal(result.found[:6000], others)
    assert not result.found[6000:].any()
    assert len(result.pairs) < 200_000


class TestTheRule:
    def test_without_the_mean_taken_off_everything_would_be_near(self, clean):
        vectors = clean.embeddings.vectors + 100.0
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        assert (unit @ unit.T).min() > COSINE
        assert near_duplicate_vectors(replace(clean, embeddings=replace(clean.embeddings, vectors=vectors))) == []

    def test_an_untrained_encoder_and_augmented_views_are_not_judged(self, clean):
        vectors = clean.embeddings.vectors.copy()
        a, b = clean.cohort.split_rows("train")[0], clean.cohort.split_rows("test")[0]
        vectors[b] = vectors[a]
        copied = replace(clean.embeddings, vectors=vectors)
        assert near_duplicate_vectors(replace(clean, embeddings=copied))
        untrained = replace(copied, card=copied.card | {"is_trained": False})
        assert near_duplicate_vectors(replace(clean, embeddings=untrained)) == []
        views = replace(copied, view_id=np.where(np.arange(len(copied)) == b, 1, 0).astype(np.int32))
        assert near_duplicate_vectors(replace(clean, embeddings=views)) == []

    def test_one_in_a_hundred_test_images_is_a_warning_and_more_an_error(self, clean):
        """Of 150 test images one copy is 0.7%, two are 1.3%."""
        train, test = clean.cohort.split_rows("train"), clean.cohort.split_rows("test")
        assert len(test) == 150
        for n, is_error in ((1, False), (2, True)):
            vectors = clean.embeddings.vectors.copy()
            vectors[test[:n]] = vectors[train[:n]]
            (found,) = near_duplicate_vectors(replace(clean, embeddings=replace(clean.embeddings, vectors=vectors)))
            assert (found.is_error, found.count) == (is_error, 2 * n)
            images = clean.embeddings.image_id
            assert {frozenset(e.split(" ~ ")) for e in found.examples} == {
                frozenset((images[a], images[b])) for a, b in zip(train[:n], test[:n], strict=True)
            }
