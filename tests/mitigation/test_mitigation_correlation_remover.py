"""`correlation_remover` against fairlearn's CorrelationRemover, and what it does where fairlearn has no answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fairlearn.preprocessing import CorrelationRemover as FairlearnRemover

from biascxr.errors import InputError
from biascxr.mitigation.representation.correlation_remover import CorrelationRemover, CorrelationRemoverSettings
from biascxr.mitigation.representation.leace import Leace

BOTH = ("sex", "race")


def grouped(split_of, split="train", n=120, unknown=0.0):
    """Rows whose mean differs between the groups of sex and of race, far from the origin; uneven groups that go together."""
    rng = np.random.default_rng([1, len(split)])
    race = rng.choice(["A", "B", "C"], n, p=[0.6, 0.3, 0.1])
    sex = np.where(rng.random(n) < np.where(race == "A", 0.7, 0.3), "F", "M")
    part = split_of(split, n=n, d=8, race=race.astype(object), sex=sex.astype(object))
    vectors = np.asarray(part.vectors) + 5 + 2 * (race == "B")[:, None] - 3 * (race == "C")[:, None] + (sex == "F")[:, None]
    attributes = part.attributes.mask(rng.random((n, 2)) < unknown, "unknown")
    return replace(part, vectors=vectors.astype(np.float32), attributes=attributes)


def one_hots(table):
    return pd.get_dummies(table[list(BOTH)]).to_numpy(np.float64)


def group_means(vectors, groups, weights=None):
    weights = np.ones(len(vectors)) if weights is None else weights
    return np.stack([np.average(vectors[groups == g], axis=0, weights=weights[groups == g]) for g in sorted(set(groups))])


@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.0])
def test_it_is_fairlearns_at_equal_weights(split_of, alpha):
    train, test = grouped(split_of), grouped(split_of, "test")
    settings = CorrelationRemoverSettings(attributes=BOTH, alpha=alpha)
    fitted = CorrelationRemover(settings).fit(train, np.ones(120, np.float32))
    mean = one_hots(train.attributes).mean(0)  # centred beforehand: releases up to 0.13 subtract one number from all columns
    peer = FairlearnRemover(sensitive_feature_ids=list(range(5)), alpha=alpha)
    peer.fit(np.c_[one_hots(train.attributes) - mean, np.asarray(train.vectors, np.float64)])
    expected = peer.transform(np.c_[one_hots(test.attributes) - mean, np.asarray(test.vectors, np.float64)])
    np.testing.assert_allclose(fitted.transform(test.vectors, test.attributes), expected, atol=1e-5)


@pytest.mark.parametrize("unknown", [0.0, 0.2])
def test_no_covariance_is_left_under_the_weights_over_the_rows_of_known_group(split_of, unknown):
    train = grouped(split_of, unknown=unknown)
    weights = np.random.default_rng(0).random(120).astype(np.float32) + 0.1
    fitted = CorrelationRemover(CorrelationRemoverSettings(attributes=BOTH)).fit(train, weights)
    out = fitted._transform(np.asarray(train.vectors, np.float64), train.attributes)
    for attribute in BOTH:
        groups = train.attributes[attribute].to_numpy()
        known = groups != "unknown"
        before = np.ptp(group_means(np.asarray(train.vectors)[known], groups[known], weights[known]), axis=0).max()
        # Jointly with the other attribute's: zero covariance is equal means for each attribute's own groups.
        assert np.ptp(group_means(out[known], groups[known], weights[known]), axis=0).max() < 1e-10 * before


def test_one_mean_for_all_sensitive_columns_leaves_the_groups_apart(split_of):
    """What fairlearn did up to 0.13: the reason why every column here has its own."""
    train = grouped(split_of)
    x, s = np.asarray(train.vectors, np.float64), pd.get_dummies(train.attributes["race"]).to_numpy(np.float64)
    race, apart = train.attributes["race"].to_numpy(), {}
    for name, centre in (("one number", s.mean()), ("each column's own", s.mean(0))):
        left = x - (s - centre) @ np.linalg.lstsq(s - centre, x, rcond=None)[0]
        apart[name] = np.ptp(group_means(left, race), axis=0).max()
    ours = CorrelationRemover().fit(train, np.ones(120, np.float32))._transform(x, train.attributes)
    assert max(np.ptp(group_means(ours, race), axis=0).max(), apart["each column's own"]) < 1e-10
    assert apart["one number"] > 0.5


def test_from_a_row_of_unknown_or_new_group_nothing_is_subtracted(split_of):
    train, ones = grouped(split_of), np.ones(120, np.float32)
    fitted = CorrelationRemover().fit(train, ones)
    vectors = np.asarray(train.vectors)
    for attributes in (train.attributes.assign(race="unknown"), train.attributes.assign(race="D"), train.attributes[["sex"]]):
        np.testing.assert_array_equal(fitted.transform(vectors, attributes), vectors)
    assert np.abs(fitted.transform(vectors, train.attributes) - vectors).max(axis=1).min() > 0.1


def test_of_two_attributes_the_known_one_counts(split_of):
    train, ones = grouped(split_of), np.ones(120, np.float32)
    fitted = CorrelationRemover(CorrelationRemoverSettings(attributes=BOTH)).fit(train, ones)
    vectors = np.asarray(train.vectors, np.float64)

    def subtracted(**unknown):
        return vectors - fitted._transform(vectors, train.attributes.assign(**unknown))

    parts = subtracted(sex="unknown") + subtracted(race="unknown")
    np.testing.assert_allclose(parts, subtracted(), atol=1e-12)
    assert np.abs(subtracted(sex="unknown")).min() > 0.1


def test_it_moves_the_training_vectors_less_than_any_map_without_attributes(split_of):
    train, ones = grouped(split_of), np.ones(120, np.float32)
    vectors = np.asarray(train.vectors, np.float64)
    with_attributes = CorrelationRemover().fit(train, ones)._transform(vectors, train.attributes)
    without = Leace().fit(train, ones)._transform(vectors, None)
    assert 0 < np.square(with_attributes - vectors).sum() < np.square(without - vectors).sum()


def test_it_comes_back_from_disk_with_its_groups(split_of, tmp_path):
    train, ones = grouped(split_of), np.ones(120, np.float32)
    for crossed in (False, True):
        settings = CorrelationRemoverSettings(attributes=BOTH, crossed=crossed)
        fitted = CorrelationRemover(settings).fit(train, ones)
        fitted.save(tmp_path / "r.npz")
        again = CorrelationRemover(settings).load(tmp_path / "r.npz")
        out = again.transform(train.vectors, train.attributes)
        np.testing.assert_array_equal(out, fitted.transform(train.vectors, train.attributes))
        assert len(fitted.state["groups"]) == (6 if crossed else 5)
    cells = (train.attributes["race"] + train.attributes["sex"]).to_numpy()
    np.testing.assert_allclose(np.ptp(group_means(out, cells), axis=0), 0, atol=1e-5)


def test_it_says_that_predictions_use_attributes_and_asks_for_them(split_of):
    train = grouped(split_of)
    fitted = CorrelationRemover().fit(train, np.ones(120, np.float32))
    assert fitted.uses_attributes and "predictions use these attributes" in fitted.notes[0]
    with pytest.raises(ValueError, match="correlation_remover uses attributes: hand them over"):
        fitted.transform(train.vectors)


def test_without_two_known_groups_no_bit_changes(split_of):
    train = replace(split_of(), attributes=pd.DataFrame({"race": ["A"] * 60}))
    fitted = CorrelationRemover().fit(train, np.ones(60, np.float32))
    np.testing.assert_array_equal(fitted.transform(train.vectors, train.attributes), train.vectors)
    assert "no attribute with two known groups" in fitted.notes[0]


def test_alpha_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"alpha must lie in \[0, 1\]; got 1.5"):
        CorrelationRemoverSettings(alpha=1.5)
