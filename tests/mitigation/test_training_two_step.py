"""`two_step`: what its group head learns, as published and as an adversary; its edges."""

from __future__ import annotations

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from biascxr.errors import InputError
from biascxr.mitigation.training import Head
from biascxr.mitigation.training.erm import Erm
from biascxr.mitigation.training.two_step import TwoStep, TwoStepSettings
from biascxr.models import features_of

SMALL = {"hidden": (8,), "batch_size": 16, "max_epochs": 4}


def fit(member: TwoStep, train, validation, seed: int = 5) -> Head:
    return member.fit(train, np.ones(len(train), np.float32), validation, seed=seed)


def test_the_settings_are_the_published_ones_where_it_has_them():
    chosen = TwoStep().settings
    assert (chosen.dropout, chosen.batch_size, chosen.learning_rate, chosen.max_epochs) == (0.5, 32, 1e-3, 10)
    assert (chosen.finding_phase_weight, chosen.group_phase_weight, chosen.group_learning_rate) == (10, 1000, 1e-5)
    assert (chosen.group_phase_every, chosen.group_head) == (3, "reciprocal")


class TestTheFlaw:
    """A group that the vectors hold plainly (half of the rows moved by six deviations); the last epoch is kept."""

    @pytest.fixture(scope="class")
    def outcome(self, split_of):
        """By `group_head`: the group head's mean loss in the last ten epochs, its accuracy, and a fresh probe's."""
        race = np.array(["A", "B"])[np.random.default_rng(7).integers(0, 2, 120)]
        parts = [split_of(s, n=120, n_labels=1, race=race) for s in ("train", "validation")]
        moved = 6 * np.outer(race == "B", np.arange(16) == 1).astype(np.float32)  # [n, d]
        parts = [dataclasses.replace(part, vectors=np.array(part.vectors) + moved) for part in parts]
        return {name: self.run(name, *parts, (race == "B").astype(int)) for name in ("reciprocal", "adversary")}

    @staticmethod
    def run(group_head, train, validation, groups):
        member = TwoStep(
            TwoStepSettings(hidden=(16,), dropout=0.0, batch_size=16, learning_rate=3e-3, max_epochs=40, group_head=group_head)
        )
        epochs, trainers, make = itertools.count(), [], member._trainer
        member._criterion = lambda trainer: lambda *_: -next(epochs)
        member._trainer = lambda *given: trainers.append(make(*given)) or trainers[0]
        head = fit(member, train, validation)
        known, other = (keras.ops.convert_to_numpy(features_of(head.model)(p.vectors)) for p in (train, validation))
        own = keras.ops.convert_to_numpy(trainers[0].group_head(known)).argmax(axis=1)
        fresh = LogisticRegression(max_iter=2000).fit(known, groups).score(other, groups)
        return head.history["group_loss"].tail(10).mean(), (own == groups).mean(), fresh

    def test_as_published_the_group_head_learns_to_be_wrong_while_a_fresh_probe_reads_the_group(self, outcome):
        loss, accuracy, fresh = outcome["reciprocal"]
        assert loss > 4 * np.log(2)
        assert accuracy < fresh - 0.3
        assert fresh > 0.9

    def test_as_an_adversary_it_stays_near_what_guessing_costs(self, outcome):
        loss, accuracy, _ = outcome["adversary"]
        assert loss < 1.5 * np.log(2)
        assert accuracy >= 0.5


class TestEdges:
    def test_a_third_of_the_epochs_is_at_the_rate_and_the_loss_of_the_group_phase(self, split_of):
        train, validation = split_of(), split_of("validation")
        losses = fit(TwoStep(TwoStepSettings(**SMALL | {"max_epochs": 6})), train, validation).history["loss"]
        is_group_phase = losses > 300  # 1000 / log 2 is 1443, 10 / log 2 is 14
        assert is_group_phase.tolist() == [False, False, True] * 2

    @pytest.mark.parametrize("group_head", ["reciprocal", "adversary"])
    @pytest.mark.parametrize(("d", "feature_map"), [(16, ()), (96, (4, 4, 6))])
    def test_one_seed_gives_one_head_and_it_comes_back_from_disk(self, split_of, tmp_path, group_head, d, feature_map):
        train, validation, test = (split_of(s, d=d) for s in ("train", "validation", "test"))
        settings = TwoStepSettings(**SMALL, group_head=group_head, feature_map=feature_map, demographics=("sex",))
        first, again, other = (fit(TwoStep(settings), train, validation, seed) for seed in (5, 5, 6))
        scores = first.predict(test.vectors, test.attributes)
        assert np.isfinite(scores).all() and ((scores >= 0) & (scores <= 1)).all()
        # As an adversary it is not bound to the last digits on several threads: see its docstring.
        tolerance = 0 if group_head == "reciprocal" else 5e-3
        np.testing.assert_allclose(again.predict(test.vectors, test.attributes), scores, rtol=0, atol=tolerance)
        assert np.abs(scores - other.predict(test.vectors, test.attributes)).max() > 2 * 5e-3
        first.save(tmp_path)
        loaded = Head.load(tmp_path, first.demographics)
        np.testing.assert_array_equal(loaded.predict(test.vectors, test.attributes), scores)
        assert first.notes[1].startswith("group head on race (2 groups) minimises ")

    def test_with_fewer_than_two_groups_it_is_erm_and_says_so(self, split_of):
        train, validation, test = (split_of(s) for s in ("train", "validation", "test"))
        for attributes in (train.attributes[[]], train.attributes.assign(race="unknown"), train.attributes.assign(race="A")):
            part = dataclasses.replace(train, attributes=attributes)
            head = fit(TwoStep(TwoStepSettings(**SMALL)), part, validation)
            plain = fit(Erm(Erm.Settings(**SMALL, dropout=0.5)), part, validation)
            np.testing.assert_array_equal(head.predict(test.vectors), plain.predict(test.vectors))
            assert head.notes == ("fewer than two groups are known: trained as erm",)

    def test_crossed_attributes_are_one_softmax_over_their_cells(self, split_of):
        train = split_of()
        member = TwoStep(TwoStepSettings(**SMALL, attributes=("sex", "race")))
        cells = member._cells(train)
        trainer = member._trainer(member._build_head(train, cells, None), train, np.ones(60, np.float32), cells)
        assert trainer.group_head.dense.units == len(cells) == 4
        assert "sex x race (4 groups)" in member._notes(cells)[0]

    def test_settings_out_of_range_are_named(self):
        for wrong, message in (
            ({"hidden": ()}, "hidden must have a layer"),
            ({"group_learning_rate": 0.0}, "group_learning_rate must be above 0; got 0.0"),
            ({"finding_phase_weight": -1.0}, "finding_phase_weight must be at least 0; got -1.0"),
            ({"group_phase_weight": float("nan")}, "group_phase_weight must be at least 0; got nan"),
            ({"group_phase_every": 1}, "group_phase_every must be at least 2.*got 1"),
            ({"group_head": "adversay"}, "Unknown group_head 'adversay'.*adversary"),
        ):
            with pytest.raises(InputError, match=message):
                TwoStepSettings(**wrong)
