"""`group_dro`: erm without groups, unknown groups left out, early stopping on its own cells."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from biascxr.errors import InputError
from biascxr.mitigation.training.base import NetworkSettings
from biascxr.mitigation.training.erm import Erm
from biascxr.mitigation.training.group_dro import GroupDro, GroupDroSettings
from biascxr.models import CRITERIA

SMALL = {"hidden": (4,), "max_epochs": 2, "batch_size": 16}
ONES = np.ones(60, np.float32)


@pytest.mark.parametrize("sex", [["unknown"] * 60, None], ids=["unknown", "no attribute"])
def test_without_a_known_group_it_is_erm_and_says_so(split_of, sex):
    parts = [split_of(s, sex=sex or ["F"] * 60) for s in ("train", "validation")]
    if sex is None:
        parts = [dataclasses.replace(part, attributes=part.attributes[[]]) for part in parts]
    erm = Erm(NetworkSettings(**SMALL)).fit(parts[0], ONES, parts[1], seed=1)
    head = GroupDro(GroupDroSettings(**SMALL)).fit(parts[0], ONES, parts[1], seed=1)
    np.testing.assert_array_equal(head.predict(parts[0].vectors), erm.predict(parts[0].vectors))
    assert head.notes == ("no group is known: this is erm",)


def test_rows_of_unknown_group_are_counted_and_change_nothing(split_of):
    train, validation = split_of(), split_of("validation")
    unknown = (train.attributes["race"] == "unknown").to_numpy()
    labels = train.labels.copy()
    labels[unknown] = 1 - labels[unknown]
    heads = [
        GroupDro(GroupDroSettings(**SMALL)).fit(dataclasses.replace(train, labels=y), ONES, validation, seed=1)
        for y in (train.labels, labels)
    ]
    np.testing.assert_array_equal(*(head.predict(train.vectors) for head in heads))
    cells = "2 groups of race; cells: group x label value, each finding its own"
    assert heads[0].notes == (f"{cells}; {unknown.sum()} training rows of unknown group left out",)


def test_early_stopping_looks_at_the_worst_cell_of_group_and_label_value(split_of):
    member, validation = GroupDro(GroupDroSettings(min_cell=3)), split_of("validation")
    cells = member._cells(split_of())
    rows = member._validation_rows(validation, cells, None)
    scores = np.random.default_rng(0).uniform(0.1, 0.9, validation.labels.shape)
    race = validation.attributes["race"].to_numpy()
    losses = -np.where(validation.labels == 1, np.log(scores), np.log(1 - scores))
    means = [
        losses[own, label].mean()
        for label in range(3)
        for group in ("A", "B")
        for value in (0, 1)
        for own in [(race == group) & (validation.labels[:, label] == value)]
        if own.sum() >= 3
    ]
    assert len(means) >= 8
    assert CRITERIA["worst_group_loss"](rows.labels, scores, rows.groups) == pytest.approx(max(means), rel=1e-6)


def test_small_validation_cells_are_not_looked_at_and_the_mean_is_where_all_are_small(split_of):
    validation = split_of("validation")
    cells = GroupDro()._cells(split_of())
    few = GroupDro(GroupDroSettings(min_cell=20))._validation_rows(validation, cells, None).groups
    codes, counts = np.unique(few[few >= 0], return_counts=True)
    assert len(codes) and (counts >= 20).all()
    none = GroupDro(GroupDroSettings(min_cell=1000))._validation_rows(validation, cells, None).groups
    assert (none == -1).all()
    scores = np.full(validation.labels.shape, 0.3)
    assert CRITERIA["worst_group_loss"](validation.labels, scores, none) == CRITERIA["loss"](validation.labels, scores, none)


def test_several_attributes_are_crossed_and_no_group_is_merged(split_of):
    head = GroupDro(GroupDroSettings(attributes=("sex", "race"), **SMALL)).fit(split_of(), ONES, split_of("validation"), seed=0)
    assert head.notes[0].startswith("4 groups of sex x race;") and np.isfinite(head.history["loss"]).all()


@pytest.mark.parametrize(("name", "value"), [("step_size", -0.1), ("adjustment", -1.0), ("min_cell", 0), ("patience", 0)])
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(InputError, match=f"{name}.* must be"):
        GroupDroSettings(**{name: value})
