"""`label_noise`: with the right rates, scores come nearer to those learned from the true labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import special

from biascxr.errors import InputError
from biascxr.mitigation import SplitData, parse_recipes
from biascxr.mitigation.training.erm import Erm
from biascxr.mitigation.training.label_noise import LabelNoise, LabelNoiseSettings

SMALL = {"hidden": (8,), "batch_size": 200, "learning_rate": 0.01, "dropout": 0.0, "patience": 10, "max_epochs": 30}


def world(split: str, *, missed: float, seed: int, n: int = 2000) -> SplitData:
    """One label; a share of group B's positives is recorded as negative."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["A", "B", "unknown"], n, p=[0.55, 0.35, 0.1])
    vectors = rng.normal(size=(n, 4)).astype(np.float32)
    vectors[:, 1] += 2 * (group == "B")
    true = rng.random(n) < special.expit(2 * vectors[:, 0])
    recorded = true & ~((group == "B") & (rng.random(n) < missed))
    numbers = np.arange(n).astype(str).astype(object)
    table = pd.DataFrame({"race": group})
    return SplitData(split, vectors, recorded[:, None].astype(np.float32), table, numbers, ("x",), numbers)


def fit(member: object, missed: float):
    train, validation = world("train", missed=missed, seed=0), world("validation", missed=missed, seed=1, n=500)
    return member.fit(train, np.ones(len(train), np.float32), validation, seed=0)


@pytest.fixture(scope="module")
def heads() -> dict:
    given = LabelNoiseSettings(**SMALL, rates="given", false_negative_rate=("B=0.5",))
    return {
        "clean": fit(Erm(Erm.Settings(**SMALL)), 0.0),
        "noisy": fit(Erm(Erm.Settings(**SMALL)), 0.5),
        "given": fit(LabelNoise(given), 0.5),
        "estimated": fit(LabelNoise(LabelNoiseSettings(**SMALL)), 0.5),
    }


@pytest.mark.slow
class TestFlippedGroup:
    @pytest.mark.parametrize("rates", ["given", "estimated"])
    def test_its_scores_come_nearer_to_those_from_true_labels_and_the_others_stay_near(self, heads, rates):
        test = world("test", missed=0.0, seed=2)
        is_b = (test.attributes["race"] == "B").to_numpy()
        scores = {name: head.predict(test.vectors)[:, 0] for name, head in heads.items()}

        def distance(name: str, rows: np.ndarray) -> float:
            return float(np.abs(scores[name] - scores["clean"])[rows].mean())

        assert distance("noisy", is_b) > 0.1
        assert distance(rates, is_b) < distance("noisy", is_b) / 2
        assert distance(rates, ~is_b) < 0.05

    def test_the_rates_are_told_and_so_is_what_they_rest_on(self, heads):
        assert heads["given"].notes == ("rates of wrong labels as given", "B: false negative rate x 0.50")
        assumed, found = heads["estimated"].notes
        assert "as if those of A were right" in assumed and "looks the same as one whose findings are missed" in assumed
        assert found.startswith("B: false negative rate x 0.") and 0.3 < float(found.split()[-1]) < 0.6


def test_the_reference_is_the_largest_group_or_the_one_named(split_of):
    race = np.array(["A"] * 25 + ["B"] * 30 + ["unknown"] * 5)
    train = split_of(race=race)
    for settings, name in ((LabelNoiseSettings(), "B"), (LabelNoiseSettings(reference="A"), "A")):
        member = LabelNoise(settings)
        rates, said = member._find_rates(train, member._cells(train), 0)
        assert f"as if those of {name} were right" in said[0] and not rates.any  # too few rows to correct any
    member = LabelNoise(LabelNoiseSettings(reference="Z"))
    with pytest.raises(InputError, match=r"Unknown group in label_noise.reference 'Z'.*Known: A, B"):
        member._find_rates(train, member._cells(train), 0)


def test_given_rates_correct_a_single_group_too_and_a_cohort_without_attributes_is_left_alone(split_of):
    member = LabelNoise(LabelNoiseSettings(rates="given", false_negative_rate=("F=0.3",)))
    train = split_of(sex=["F"] * 60)
    rates, _ = member._find_rates(train, member._cells(train), 0)
    np.testing.assert_allclose(rates.false_negative, 0.3)
    bare = dataclasses.replace(train, attributes=train.attributes[[]])
    assert not member._find_rates(bare, member._cells(bare), 0)[0].any


def test_rates_are_read_from_the_command_line():
    text = "label_noise(rates=given, false_negative_rate=[BLACK=0.3, BLACK@Edema=0.4], false_positive_rate=[WHITE=0.1])"
    settings = parse_recipes(text)[1].members("training")[0].settings
    assert settings.false_negative_rate == ("BLACK=0.3", "BLACK@Edema=0.4") and settings.false_positive_rate == ("WHITE=0.1",)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rates": "guess"}, "Unknown rates of label_noise 'guess'"),
        ({"rates": "given"}, "rates=given needs false_negative_rate or false_positive_rate"),
        ({"false_negative_rate": ("A=0.1",)}, "rates=estimate takes neither; got rates=estimate"),
        ({"rates": "given", "false_negative_rate": ("A",)}, "label_noise.false_negative_rate takes GROUP=RATE"),
        ({"caution": -1.0}, "caution must be at least 0, min_positive at least 1; got -1.0, 30"),
        ({"min_positive": 0}, "min_positive at least 1; got 1.0, 0"),
    ],
)
def test_settings_out_of_range_are_named(wrong, message):
    with pytest.raises(InputError, match=message):
        LabelNoiseSettings(**wrong)
