"""`standardize` against scikit-learn's StandardScaler."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.preprocessing import StandardScaler

from biascxr.mitigation.representation.standardize import Standardize


def test_it_is_scikit_learns_standard_scaler(split_of):
    train, test = split_of(d=40), split_of("test", d=40)
    fitted = Standardize().fit(train, np.ones(60, np.float32))
    peer = StandardScaler().fit(np.asarray(train.vectors, np.float64))
    np.testing.assert_allclose(fitted.transform(test.vectors), peer.transform(test.vectors), atol=1e-5)


def test_weights_are_those_of_scikit_learn(split_of):
    train = split_of(d=8)
    weights = np.random.default_rng(0).random(60).astype(np.float32) + 0.1
    peer = StandardScaler().fit(np.asarray(train.vectors, np.float64), sample_weight=weights)
    np.testing.assert_allclose(
        Standardize().fit(train, weights).transform(train.vectors), peer.transform(train.vectors), atol=1e-5
    )


def test_training_columns_have_mean_0_and_deviation_1_far_from_the_origin(split_of):
    train = split_of()
    shifted = replace(train, vectors=(np.asarray(train.vectors) * 0.5 + 300).astype(np.float32))
    out = Standardize().fit(shifted, np.ones(60, np.float32)).transform(shifted.vectors)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(out.std(0), 1, atol=1e-4)


def test_a_constant_column_becomes_0_and_not_rounding_noise(split_of):
    train = split_of()
    vectors = np.array(train.vectors)
    vectors[:, 1] = 0.1
    vectors[:, 2] = np.float32(1000) + np.random.default_rng(0).choice([0, 6e-5], 60)  # one step of float32
    vectors[:, 3] = 0
    out = Standardize().fit(replace(train, vectors=vectors), np.ones(60, np.float32)).transform(vectors)
    assert (out[:, [1, 2, 3]] == 0).all() and (out[:, 0] != 0).any()
