"""`domain_independent`: one classifier a group, their mean for everyone."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from biascxr.errors import InputError
from biascxr.mitigation.training.domain_independent import DomainIndependent, DomainIndependentSettings
from biascxr.models.mlp import FINDINGS

SMALL = {"hidden": (8,), "max_epochs": 2, "batch_size": 16}


def fitted(train, validation, **settings):
    member = DomainIndependent(DomainIndependentSettings(**SMALL, **settings))
    return member.fit(train, np.ones(len(train), np.float32), validation, seed=0)


def test_groups_with_too_few_rows_have_no_classifier_and_are_named(split_of):
    race = np.array(["A"] * 30 + ["B"] * 20 + ["C"] * 6 + ["unknown"] * 4)
    head = fitted(split_of(race=race), split_of("validation"), min_cell=10)
    assert head.model.get_layer(FINDINGS).units == 2 * 3
    assert head.notes == (
        "groups of fewer than 10 training rows: C",
        "a classifier for each of race: A, B; predictions are their mean, without the attribute",
    )


def test_with_one_group_of_that_size_it_is_erm_and_says_so(split_of):
    head = fitted(split_of(), split_of("validation"), min_cell=1000)
    assert head.model.get_layer(FINDINGS).units == 3
    assert head.notes[-1] == "fewer than two groups are known and large enough: trained as erm"


@pytest.mark.parametrize("inference", ["mean_logits", "mean_probability"])
def test_the_saved_head_opens_in_plain_keras_and_asks_for_no_attribute(split_of, tmp_path, inference):
    head = fitted(split_of(), split_of("validation"), min_cell=5, inference=inference)
    head.save(tmp_path)
    vectors = np.asarray(split_of("test").vectors)
    again = keras.models.load_model(tmp_path / "head.keras", safe_mode=True)
    assert {type(layer).__module__.split(".")[0] for layer in again.layers} == {"keras"}
    np.testing.assert_allclose(again.predict(vectors, verbose=0), head.predict(vectors), atol=1e-6)


def test_settings_out_of_range_are_named():
    with pytest.raises(InputError, match=r"Unknown inference of domain_independent 'mean_logit'\. Did you mean 'mean_logits'"):
        DomainIndependentSettings(inference="mean_logit")
    with pytest.raises(InputError, match="min_cell must be at least 1; got 0"):
        DomainIndependentSettings(min_cell=0)
