"""`dann` and `cdann`: whose groups they hide, and what they refuse. What they do to a shortcut: `test_training_shortcut.py`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from biascxr.errors import InputError
from biascxr.mitigation.training.cdann import Cdann, CdannSettings
from biascxr.mitigation.training.dann import Dann, DannSettings


@pytest.mark.parametrize("kind", [Dann, Cdann])
class TestEdges:
    def test_crossed_attributes_are_one_adversary_over_their_cells(self, split_of, kind):
        train = split_of()
        member = kind(dataclasses.replace(kind().settings, attributes=("sex", "race"), hidden=(4,), batch_size=16))
        cells = member._cells(train)
        trainer = member._trainer(member._build_head(train, cells, None), train, np.ones(60, np.float32), cells)
        assert len(cells) == 4 == trainer.adversary.dense[-1].units
        assert member._notes(cells)[0].endswith("on sex x race (4 groups); rows of unknown group are left out of its loss")
        assert trainer.chosen.steps_per_epoch == 4  # 60 rows in batches of 16

    def test_settings_out_of_range_are_named(self, kind):
        for wrong, message in (
            ({"strength": -1.0}, "strength and ramp_epochs must be at least 0; got -1.0 and 10"),
            ({"ramp_epochs": -1}, "got 1.0 and -1"),
            ({"adversary_hidden": (0,)}, r"adversary_hidden must be whole numbers of units above 0; got \(0,\)"),
            ({"hidden": ()}, "hidden must have a layer"),
            ({"batch_size": 0}, "batch_size"),
        ):
            with pytest.raises(InputError, match=message):
                kind.Settings(**wrong)


def test_an_adversary_without_a_hidden_layer_cannot_look_within_a_label():
    DannSettings(adversary_hidden=())
    with pytest.raises(InputError, match="adversary_hidden must have a layer"):
        CdannSettings(adversary_hidden=())
