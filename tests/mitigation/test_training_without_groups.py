"""Methods that act on groups are `erm`, to the last bit, where there are no groups to act on; and they say so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from biascxr.mitigation import resolve
from biascxr.mitigation.training import TRAINING
from biascxr.models import HeadTrainer

METHODS = ("dann", "cdann", "domain_independent", "label_noise")


def fit(name: str, train, validation):
    kind = resolve("training", TRAINING, name)
    weights = np.random.default_rng(0).random(len(train)).astype(np.float32)
    return kind(kind.Settings(hidden=(4,), max_epochs=1, batch_size=32)).fit(train, weights, validation, seed=3)


@pytest.mark.slow
def test_with_one_group_it_is_erm_to_the_last_bit_and_says_so(split_of):
    train, validation = split_of(sex=["F"] * 50 + ["unknown"] * 10), split_of("validation")
    erm = fit("erm", train, validation).model.get_weights()
    for name in METHODS:
        head = fit(name, train, validation)
        for ours, theirs in zip(head.model.get_weights(), erm, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert "trained as erm" in head.notes[-1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["no attributes", "nobody known"])
def test_without_groups_what_it_minimises_is_erms(split_of, name, kind):
    train = split_of(sex=["unknown"] * 60)
    if kind == "no attributes":
        train = dataclasses.replace(train, attributes=train.attributes[[]])
    member = resolve("training", TRAINING, name)()
    cells = member._cells(train)
    if name == "label_noise":
        member._rates, member._said = member._find_rates(train, cells, 0)
    head = member._build_head(train, cells, None)
    assert type(member._trainer(head, train, np.ones(60, np.float32), cells)) is HeadTrainer
    assert [type(layer).__name__ for layer in head.layers].count("Dense") == 3
    assert "trained as erm" in member._notes(cells)[-1]
