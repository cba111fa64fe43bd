"""`pca` against scikit-learn's PCA."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from biascxr.errors import InputError
from biascxr.mitigation.representation.pca import Pca, PcaSettings


def correlated(split_of, n=120, d=12, seed=0):
    train = split_of(n=n, d=d, seed=seed)
    mix = np.random.default_rng(3).normal(size=(d, d)) * np.logspace(0, -2, d)[:, None]
    return replace(train, vectors=(np.asarray(train.vectors) @ mix + 50).astype(np.float32))


def same_signs(ours, peer):
    return ours * np.sign((ours * peer).sum(axis=0))


@pytest.mark.parametrize(("n", "d"), [(120, 12), (20, 40)])
@pytest.mark.parametrize(
    "settings", [{"variance": 0.9}, {"variance": 0.99}, {"n_components": 5}, {"variance": 0.95, "whiten": True}]
)
def test_it_is_scikit_learns_pca_up_to_sign(split_of, settings, n, d):
    train, test = correlated(split_of, n, d), correlated(split_of, 60, d, seed=7)
    fitted = Pca(PcaSettings(**settings)).fit(train, np.ones(n, np.float32))
    kept, whiten = settings.get("n_components", settings.get("variance")), settings.get("whiten", False)
    peer = PCA(kept, whiten=whiten, svd_solver="full").fit(np.asarray(train.vectors, np.float64))
    expected = peer.transform(test.vectors) * (np.sqrt(n / (n - 1)) if whiten else 1)  # the divisor is n, not n - 1
    ours = fitted.transform(test.vectors)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(same_signs(ours, expected), expected, atol=1e-4)


def test_a_weight_of_two_is_a_row_that_is_there_twice(split_of):
    train, times = correlated(split_of), np.random.default_rng(0).integers(1, 4, 120)
    weighted = Pca().fit(train, times.astype(np.float32)).transform(train.vectors)
    repeated = Pca().fit(train.take(np.repeat(np.arange(120), times)), np.ones(times.sum(), np.float32))
    np.testing.assert_allclose(weighted, repeated.transform(train.vectors), atol=1e-4)
    assert (
        np.abs(weighted - Pca().fit(train, np.ones(120, np.float32)).transform(train.vectors)[:, : weighted.shape[1]]).max()
        > 0.01
    )


def test_whitened_training_rows_have_unit_covariance(split_of):
    train, weights = correlated(split_of), np.random.default_rng(0).random(120).astype(np.float32) + 0.1
    out = Pca(PcaSettings(whiten=True)).fit(train, weights).transform(train.vectors)
    np.testing.assert_allclose(np.cov(out.T, aweights=weights, ddof=0), np.eye(out.shape[1]), atol=1e-4)


def test_the_largest_loading_of_every_component_is_positive(split_of):
    loadings = Pca(PcaSettings(n_components=12)).fit(correlated(split_of), np.ones(120, np.float32)).state["matrix"]
    assert (loadings[np.abs(loadings).argmax(axis=0), np.arange(loadings.shape[1])] > 0).all()


def test_no_more_components_than_the_rows_have_and_one_at_least(split_of):
    few = correlated(split_of, 6, 12)
    weights = np.ones(6, np.float32)
    for settings in (PcaSettings(n_components=10), PcaSettings(variance=1.0), PcaSettings(variance=1.0, whiten=True)):
        fitted = Pca(settings).fit(few, weights)
        assert fitted.transform(few.vectors).shape == (6, 5) and fitted.notes == (
            "pca: 5 of 12 components, 100.0% of the variance",
        )
    constant = replace(few, vectors=np.zeros((6, 12), np.float32))
    np.testing.assert_array_equal(
        Pca(PcaSettings(whiten=True)).fit(constant, weights).transform(constant.vectors), np.zeros((6, 1))
    )


@pytest.mark.parametrize(
    ("settings", "message"), [({"variance": 0.0}, "variance must lie"), ({"n_components": -1}, "n_components must")]
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        PcaSettings(**settings)
