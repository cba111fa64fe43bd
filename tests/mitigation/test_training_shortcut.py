"""Made-up rows whose group is a shortcut, or shows through the label only: what each remedy must do, as theory says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biascxr.metrics import log_loss
from biascxr.mitigation import SplitData, resolve
from biascxr.mitigation.training import TRAINING

SMALL = {"hidden": (16,), "batch_size": 100, "learning_rate": 5e-3, "dropout": 0.0, "patience": 20, "max_epochs": 20}


def world(split: str, *, mark: float, prevalence: float, seed: int, n: int = 1200) -> SplitData:
    """One label that column 0 tells of; a mark of the group in column 1; prevalences `p` and `1 - p`."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["F", "M", "unknown"], n, p=[0.45, 0.45, 0.1])
    label = rng.random(n) < np.where(group == "F", prevalence, 1 - prevalence)
    vectors = rng.normal(size=(n, 6)).astype(np.float32)
    vectors[:, 0] += 1.5 * label
    vectors[:, 1] += mark * (group == "F")
    numbers = np.arange(n).astype(str).astype(object)
    table = pd.DataFrame({"sex": group})
    return SplitData(split, vectors, label[:, None].astype(np.float32), table, numbers, ("x",), numbers)


def fit(name: str, *, mark: float, prevalence: float, **settings):
    train = world("train", mark=mark, prevalence=prevalence, seed=0)
    validation = world("validation", mark=mark, prevalence=prevalence, seed=1, n=300)
    kind = resolve("training", TRAINING, name)
    return kind(kind.Settings(**SMALL, **settings)).fit(train, np.ones(len(train), np.float32), validation, seed=0)


def lean_on_group(head: object, test: SplitData) -> float:
    """Difference of mean scores between groups within a label, over that between labels within a group."""
    scores, group, y = head.predict(test.vectors)[:, 0], test.attributes["sex"].to_numpy(), test.labels[:, 0]
    mean = {(g, k): scores[(group == g) & (y == k)].mean() for g in "FM" for k in (0, 1)}
    return float(sum(mean["F", k] - mean["M", k] for k in (0, 1)) / sum(mean[g, 1] - mean[g, 0] for g in "FM"))


@pytest.fixture(scope="module")
def marked() -> dict:
    """Heads trained where the group's mark is a shortcut."""
    names = {"erm": {}, "dann": {"ramp_epochs": 5}, "cdann": {"ramp_epochs": 5}, "domain_independent": {}}
    return {name: fit(name, mark=3.0, prevalence=0.8, **settings) for name, settings in names.items()}


@pytest.mark.slow
class TestMark:
    def test_each_leans_on_it_less_than_erm(self, marked):
        test = world("test", mark=3.0, prevalence=0.5, seed=2, n=1500)
        lean = {name: lean_on_group(head, test) for name, head in marked.items()}
        assert lean["erm"] > 0.6
        assert abs(lean["dann"]) < lean["erm"] / 2  # the features hide it
        assert abs(lean["cdann"]) < 0.65 * lean["erm"]
        assert abs(lean["domain_independent"]) < lean["erm"] / 2  # within a group it tells nothing

    @pytest.mark.parametrize("name", ["dann", "cdann"])
    def test_an_adversarys_best_epoch_comes_after_the_rise_and_the_head_is_that_epochs(self, marked, name):
        validation = world("validation", mark=3.0, prevalence=0.8, seed=1, n=300)
        history = marked[name].history
        best = history.loc[history["is_best"]]
        assert best["epoch"].item() > 5
        assert best["val_loss"].item() == history.loc[history["epoch"] > 5, "val_loss"].min()
        loss = log_loss(validation.labels[:, 0], marked[name].predict(validation.vectors)[:, 0])
        assert loss == pytest.approx(best["val_loss"].item(), rel=1e-4)

    def test_the_adversarys_loss_is_in_the_history(self, marked):
        assert marked["dann"].history["adversary_loss"].iloc[-5:].between(0.4, 2).all()  # chance: log 2
        assert marked["dann"].notes == ("adversary on sex (2 groups); rows of unknown group are left out of its loss",)


@pytest.mark.slow
def test_where_the_group_shows_only_through_the_label_cdann_keeps_the_label_and_dann_must_not():
    """Independence of the group costs what differing prevalence tells; independence within the label costs nothing."""
    shared, strong = {"mark": 0.0, "prevalence": 0.9}, {"strength": 5.0, "ramp_epochs": 2}
    test = world("test", seed=2, n=1500, **shared)
    loss = {
        name: log_loss(test.labels[:, 0], fit(name, **shared, **settings).predict(test.vectors)[:, 0])
        for name, settings in (("erm", {}), ("dann", strong), ("cdann", strong))
    }
    assert loss["cdann"] < loss["erm"] + 0.03 < loss["dann"]
