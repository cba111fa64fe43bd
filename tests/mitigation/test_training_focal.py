"""`focal` is `erm` at gamma 0, and other settings change what is learned."""

from __future__ import annotations

import numpy as np
import pytest

from biascxr.errors import InputError
from biascxr.mitigation.training.base import NetworkSettings
from biascxr.mitigation.training.erm import Erm
from biascxr.mitigation.training.focal import Focal, FocalSettings

SMALL = {"hidden": (4,), "max_epochs": 3, "batch_size": 16, "learning_rate": 0.01}


def test_without_focus_and_class_weights_it_is_erm(split_of):
    train, validation, weights = split_of(), split_of("validation"), np.linspace(0.5, 2, 60).astype(np.float32)
    erm = Erm(NetworkSettings(**SMALL)).fit(train, weights, validation, seed=2)
    focal = Focal(FocalSettings(gamma=0.0, **SMALL)).fit(train, weights, validation, seed=2)
    np.testing.assert_allclose(focal.history["loss"], erm.history["loss"], rtol=1e-5)
    np.testing.assert_allclose(focal.predict(train.vectors), erm.predict(train.vectors), atol=1e-5)


def test_its_settings_reach_the_loss(split_of):
    train, member = split_of(), Focal(FocalSettings(gamma=3.0, alpha=0.1, **SMALL))
    cells = member._cells(train)
    trainer = member._trainer(member._build_head(train, cells, None), train, np.ones(60, np.float32), cells)
    loss = float(trainer.compute_loss(y=np.ones((1, 1), np.float32), y_pred=np.full((1, 1), 0.2, np.float32)))
    assert loss == pytest.approx(-0.1 * 0.8**3 * np.log(0.2), rel=1e-5)


@pytest.mark.parametrize(("name", "value"), [("gamma", -1.0), ("alpha", 1.0), ("alpha", -0.1), ("dropout", 1.0)])
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(InputError, match=f"{name}.* in |{name} must be"):
        FocalSettings(**{name: value})
