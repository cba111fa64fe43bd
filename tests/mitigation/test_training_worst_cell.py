"""On a strong shortcut, `group_dro`, `dfr` and `jtt` beat `erm` in the worst cell of group and label value."""

from __future__ import annotations

import numpy as np
import pytest

from biascxr.mitigation import SplitData
from biascxr.mitigation.training.base import NetworkSettings
from biascxr.mitigation.training.dfr import Dfr, DfrSettings
from biascxr.mitigation.training.erm import Erm
from biascxr.mitigation.training.group_dro import GroupDro, GroupDroSettings
from biascxr.mitigation.training.jtt import Jtt, JttSettings

SMALL = {"hidden": (8,), "dropout": 0.0, "learning_rate": 0.01, "batch_size": 64, "max_epochs": 16, "patience": 5}


def shortcut(split_of, split: str, n: int, agreement: float) -> SplitData:
    """One finding, read with noise from one direction, and a group that a cleaner one shows; they agree in a share of rows."""
    rng = np.random.default_rng([n, len(split)])
    y = rng.integers(0, 2, n)
    group = np.where(rng.random(n) < agreement, y, 1 - y)
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    vectors[:, 0] += 2 * y - 1
    vectors[:, 1] = 1.5 * (2 * group - 1) + 0.5 * vectors[:, 1]
    part = split_of(split, n=n, n_labels=1, sex=np.array(["F", "M"], object)[group])
    return SplitData(
        split=split,
        vectors=vectors,
        labels=y[:, None].astype(np.float32),
        attributes=part.attributes,
        patient_id=part.patient_id,
        label_names=part.label_names,
        image_id=part.image_id,
    )


def accuracy(method, split_of) -> tuple[float, float]:
    """Trains where 95% agree; returns accuracy in the worst of the four cells and their mean, on rows where half agree."""
    train, validation, calibration = (
        shortcut(split_of, split, n, 0.95) for split, n in (("train", 960), ("validation", 600), ("calibration", 1200))
    )
    head = method.fit(train, np.ones(960, np.float32), validation, seed=0, calibration=calibration)
    test = shortcut(split_of, "test", 2000, 0.5)
    is_right = (head.predict(test.vectors)[:, 0] >= 0.5) == (test.labels[:, 0] == 1)
    cells = [
        is_right[(test.labels[:, 0] == value) & (test.attributes["sex"] == group).to_numpy()].mean()
        for value in (0, 1)
        for group in ("F", "M")
    ]
    return min(cells), float(np.mean(cells))


@pytest.mark.slow
def test_group_dro_dfr_and_jtt_beat_erm_in_the_worst_cell(split_of):
    erm = accuracy(Erm(NetworkSettings(**SMALL)), split_of)
    group_dro = accuracy(GroupDro(GroupDroSettings(**SMALL)), split_of)
    dfr = accuracy(Dfr(DfrSettings(**SMALL)), split_of)
    assert erm[0] < 0.5  # the shortcut is one
    jtt = accuracy(Jtt(JttSettings(**SMALL, first_epochs=3, up_weight=20.0)), split_of)
    for worst, mean in (group_dro, dfr, jtt):
        assert worst > erm[0] + 0.2 and mean > erm[1] + 0.05
    assert group_dro[0] > 0.65 and dfr[0] > 0.65
