"""`mixup` puts rows on the line between two, labels likewise; masked stays masked, weights are as copies, groups stay apart."""

from __future__ import annotations

import numpy as np
import pytest

from biascxr.errors import InputError
from biascxr.mitigation.training.base import NetworkSettings
from biascxr.mitigation.training.erm import Erm
from biascxr.mitigation.training.mixup import Mixup, MixupSettings, draw_partners

B = 400


@pytest.fixture
def batch():
    """Each vector is its row's number and the first finding's label, so that a mixed row tells where it comes from."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (B, 3)).astype(np.float32)
    y[rng.random(B) < 0.2, 1] = np.nan
    vectors = np.stack([np.arange(B), y[:, 0]], axis=1).astype(np.float32)
    group = rng.integers(-1, 2, B).astype(np.int32)
    x = {"vector": vectors, "group": group, "demographics": np.eye(2, dtype=np.float32)[group.clip(0)]}
    return x, y, np.ones(B, np.float32)


def altered(batch, seed: int = 0, **settings):
    return Mixup(MixupSettings(alpha=1.0, **settings))._mix(batch, np.random.default_rng(seed))


def test_labels_are_mixed_as_their_vectors_are(batch):
    x, y, weights = altered(batch)
    np.testing.assert_allclose(x["vector"][:, 1], y[:, 0], atol=1e-6)
    assert ((y[:, 0] > 0.01) & (y[:, 0] < 0.99)).mean() > 0.3
    assert np.abs(x["vector"][:, 0] - np.arange(B)).mean() > 20
    assert x["vector"].dtype == y.dtype == weights.dtype == np.float32
    np.testing.assert_allclose(x["demographics"].sum(axis=1), 1, rtol=1e-5)


def test_a_label_that_is_masked_in_either_row_is_masked(batch):
    _, y, _ = altered(batch)
    was = np.isnan(batch[1][:, 1])
    assert np.isnan(y[was, 1]).all()
    share = np.isnan(y[:, 1]).mean()
    assert share == pytest.approx(1 - (1 - was.mean()) ** 2, abs=0.05)
    assert not np.isnan(y[:, [0, 2]]).any()


def test_the_batch_it_was_given_is_left_as_it_was(batch):
    before = batch[1].copy()
    altered(batch)
    np.testing.assert_array_equal(batch[1], before)


def test_the_mean_stays_where_it_was(batch):
    """Each row is drawn as a partner as often as any: over many draws the vicinal mean is the mean."""
    means = [altered(batch, seed)[0]["vector"].mean(axis=0) for seed in range(50)]
    np.testing.assert_allclose(np.mean(means, axis=0), batch[0]["vector"].mean(axis=0), rtol=0.03)


def test_a_row_of_twice_the_weight_is_a_partner_twice_as_often_and_a_filler_never():
    weights = np.repeat([1.0, 2.0, 0.0], 100).astype(np.float32)
    rng = np.random.default_rng(0)
    drawn = np.concatenate([draw_partners(weights, np.zeros(300, int), rng) for _ in range(40)])
    counts = np.bincount(drawn // 100, minlength=3)
    assert counts[2] == 0
    assert counts[1] / counts[0] == pytest.approx(2, rel=0.05)


def test_within_groups_no_row_meets_another_group_and_unknown_rows_stay(batch):
    marked = (batch[0] | {"vector": batch[0]["group"][:, None].astype(np.float32)}, *batch[1:])
    np.testing.assert_allclose(altered(marked, within="group")[0]["vector"], marked[0]["vector"], atol=1e-6)
    assert not np.allclose(altered(marked)[0]["vector"], marked[0]["vector"])
    unknown = batch[0]["group"] == -1
    x, y, _ = altered(batch, within="group")
    np.testing.assert_array_equal(x["vector"][unknown], batch[0]["vector"][unknown])
    np.testing.assert_array_equal(y[unknown], batch[1][unknown])
    assert not np.array_equal(x["vector"][~unknown], batch[0]["vector"][~unknown])


def test_where_no_group_is_known_mixing_within_groups_is_erm_and_says_so(split_of):
    train, validation = split_of(sex=["unknown"] * 60), split_of("validation", sex=["unknown"] * 60)
    ones, small = np.ones(60, np.float32), {"hidden": (4,), "max_epochs": 2, "batch_size": 16}
    erm = Erm(NetworkSettings(**small)).fit(train, ones, validation, seed=1)
    within = Mixup(MixupSettings(within="group", **small)).fit(train, ones, validation, seed=1)
    over = Mixup(MixupSettings(**small)).fit(train, ones, validation, seed=1)
    np.testing.assert_array_equal(within.predict(train.vectors), erm.predict(train.vectors))
    assert within.notes == ("no group is known: no row was mixed, which is erm",)
    assert np.abs(over.predict(train.vectors) - erm.predict(train.vectors)).max() > 1e-3
    assert np.isfinite(over.history["loss"]).all()


@pytest.mark.parametrize(("name", "value"), [("alpha", 0.0), ("within", "sex")])
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(InputError, match=f"{name} must be"):
        MixupSettings(**{name: value})
