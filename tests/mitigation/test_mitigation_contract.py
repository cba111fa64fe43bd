"""What every member of every slot keeps; a new line in a slot's table is covered on arrival."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from biascxr.errors import InputError
from biascxr.mitigation import DEFAULTS, SLOTS, Member, resolve
from biascxr.mitigation.decision import DECISION, DecisionRule
from biascxr.mitigation.representation import REPRESENTATION, Representation
from biascxr.mitigation.sampling import SAMPLING, Sampler
from biascxr.mitigation.training import TRAINING, Head, TrainingMethod

CONTRACTS = {"sampling": Sampler, "representation": Representation, "training": TrainingMethod, "decision": DecisionRule}
EVERY = [(slot, name) for slot, table in SLOTS.items() for name in table]
# Settings that keep a test small, where a member has them.
SMALL = {"hidden": (8,), "max_epochs": 2, "batch_size": 16, "min_positive": 3, "min_cell": 3}
SHAPES = [(d, n_labels) for d in (16, 1376) for n_labels in (1, 14)]


def small_member(slot: str, name: str) -> Member:
    kind = resolve(slot, SLOTS[slot], name)
    fields = {f.name for f in dataclasses.fields(kind.Settings)}
    return kind(kind.Settings(**{k: v for k, v in SMALL.items() if k in fields}))


@pytest.mark.parametrize(("slot", "name"), EVERY)
def test_a_name_leads_to_its_class(slot, name):
    kind = resolve(slot, SLOTS[slot], name)
    assert issubclass(kind, CONTRACTS[slot]) and kind.name == name
    assert kind.__doc__ and kind.__module__.startswith(f"biascxr.mitigation.{slot}.")


@pytest.mark.parametrize(("slot", "name"), EVERY)
def test_settings_are_frozen_have_defaults_and_say_what_they_are(slot, name):
    settings = resolve(slot, SLOTS[slot], name)().settings
    assert dataclasses.is_dataclass(settings) and settings.__dataclass_params__.frozen
    documented = "".join(kind.__doc__ or "" for kind in type(settings).__mro__)
    for field in dataclasses.fields(settings):
        assert f"{field.name}:" in documented, f"{name}.{field.name} is not described"


def test_every_slot_has_its_default_and_its_contract():
    assert set(CONTRACTS) == set(SLOTS) == set(DEFAULTS)
    assert all(DEFAULTS[slot] in table for slot, table in SLOTS.items())


def test_names_are_unique_over_the_slots_but_for_none():
    names = [name for _, name in EVERY if name != "none"]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("slot", SLOTS)
def test_an_unknown_name_gets_the_known_ones(slot):
    with pytest.raises(InputError, match=f"Unknown {slot} method 'nosuch'.*Known: "):
        resolve(slot, SLOTS[slot], "nosuch")


class TestSampling:
    @pytest.mark.parametrize("name", SAMPLING)
    @pytest.mark.parametrize(("d", "n_labels"), SHAPES)
    def test_rows_are_rows_of_the_split_and_the_same_for_the_same_seed(self, split_of, name, d, n_labels):
        train = split_of(d=d, n_labels=n_labels, n=80)
        first, again = (small_member("sampling", name).sample(train, seed=3) for _ in range(2))
        np.testing.assert_array_equal(first.rows, again.rows)
        np.testing.assert_array_equal(first.weights, again.weights)
        assert first.rows.dtype == np.int64 and first.rows.min() >= 0 and first.rows.max() < len(train)
        assert first.weights.dtype == np.float32 and first.weights.shape == first.rows.shape and (first.weights > 0).all()
        taken = train.take(first.rows)
        np.testing.assert_array_equal(taken.patient_id, train.patient_id[first.rows])
        np.testing.assert_array_equal(taken.vectors, train.vectors[first.rows])

    @pytest.mark.parametrize("name", SAMPLING)
    def test_rows_with_an_unknown_attribute_stay(self, split_of, name):
        train = split_of(n=80)
        unknown = np.flatnonzero(train.attributes["sex"] == "unknown")
        assert len(unknown) and set(unknown) <= set(small_member("sampling", name).sample(train, seed=0).rows)

    @pytest.mark.parametrize("name", SAMPLING)
    def test_without_attributes_or_with_one_group_every_row_is_kept_once(self, split_of, name):
        for train in (split_of(sex=["F"] * 60), dataclasses.replace(split_of(), attributes=split_of().attributes[[]])):
            np.testing.assert_array_equal(small_member("sampling", name).sample(train, seed=0).rows, np.arange(60))

    @pytest.mark.parametrize("name", SAMPLING)
    def test_the_training_split_is_left_as_it_was(self, split_of, name):
        train, copy = split_of(n=80), split_of(n=80)
        small_member("sampling", name).sample(train, seed=0)
        np.testing.assert_array_equal(train.vectors, copy.vectors)
        np.testing.assert_array_equal(train.labels, copy.labels)

    @pytest.mark.parametrize("name", SAMPLING)
    def test_the_test_split_is_refused(self, split_of, name):
        with pytest.raises(ValueError, match=f"{name} was handed the test split"):
            small_member("sampling", name).sample(split_of("test"), seed=0)


class TestRepresentation:
    @pytest.mark.parametrize("name", REPRESENTATION)
    @pytest.mark.parametrize(("d", "n_labels"), SHAPES)
    def test_vectors_stay_finite_float32_and_come_back_from_disk(self, split_of, name, d, n_labels, tmp_path):
        train = split_of(d=d, n_labels=n_labels)
        weights = np.ones(len(train), np.float32)
        fitted = small_member("representation", name).fit(train, weights)
        out = fitted.transform(split_of("test", d=d, n_labels=n_labels).vectors)
        assert out.dtype == np.float32 and out.shape[0] == 60 and np.isfinite(out).all()
        fitted.save(tmp_path / "r.npz")
        again = small_member("representation", name).load(tmp_path / "r.npz")
        np.testing.assert_array_equal(again.transform(train.vectors), fitted.transform(train.vectors))
        refitted = small_member("representation", name).fit(train, weights)
        np.testing.assert_array_equal(refitted.transform(train.vectors), fitted.transform(train.vectors))

    @pytest.mark.parametrize("name", REPRESENTATION)
    def test_a_row_is_transformed_the_same_alone_and_among_others(self, split_of, name):
        train = split_of()
        fitted = small_member("representation", name).fit(train, np.ones(len(train), np.float32))
        together = fitted.transform(train.vectors)
        np.testing.assert_allclose(fitted.transform(train.vectors[7:8]), together[7:8], rtol=1e-6)

    @pytest.mark.parametrize("name", REPRESENTATION)
    def test_the_test_split_is_refused(self, split_of, name):
        with pytest.raises(ValueError, match=f"{name} was handed the test split"):
            small_member("representation", name).fit(split_of("test"), np.ones(60, np.float32))


class TestTraining:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", TRAINING)
    @pytest.mark.parametrize(("d", "n_labels"), SHAPES)
    def test_one_seed_gives_one_head_and_it_comes_back_from_disk(self, split_of, name, d, n_labels, tmp_path):
        train, validation = split_of(d=d, n_labels=n_labels), split_of("validation", d=d, n_labels=n_labels)
        weights = np.ones(len(train), np.float32)
        vectors = split_of("test", d=d, n_labels=n_labels).vectors
        first, again = (small_member("training", name).fit(train, weights, validation, seed=5) for _ in range(2))
        scores = first.predict(vectors)
        assert scores.dtype == np.float32 and scores.shape == (60, n_labels)
        assert ((scores >= 0) & (scores <= 1)).all()
        np.testing.assert_array_equal(scores, again.predict(vectors))
        first.save(tmp_path)
        loaded = Head.load(tmp_path)
        np.testing.assert_array_equal(loaded.predict(vectors), scores)
        assert len(loaded.history) == len(first.history) > 0

    @pytest.mark.parametrize("name", TRAINING)
    def test_the_test_split_is_refused_for_fitting_and_for_early_stopping(self, split_of, name):
        member, weights = small_member("training", name), np.ones(60, np.float32)
        with pytest.raises(ValueError, match=f"{name} was handed the test split"):
            member.fit(split_of("test"), weights, split_of("validation"), seed=0)
        with pytest.raises(ValueError, match=f"{name} was handed the test split"):
            member.fit(split_of(), weights, split_of("test"), seed=0)

    @pytest.mark.parametrize("name", TRAINING)
    def test_a_weight_for_every_row_is_required(self, split_of, name):
        with pytest.raises(ValueError, match=r"one weight per training row; got \(59,\) for 60 rows"):
            small_member("training", name).fit(split_of(), np.ones(59, np.float32), split_of("validation"), seed=0)


class TestDecision:
    @pytest.mark.parametrize("name", DECISION)
    @pytest.mark.parametrize(("d", "n_labels"), SHAPES)
    def test_decisions_are_yes_no_or_undefined_and_the_same_again(self, split_of, name, d, n_labels):
        calibration, test = (split_of(s, d=d, n_labels=n_labels) for s in ("calibration", "test"))
        scores = {s: np.random.default_rng(1).random((60, n_labels)).astype(np.float32) for s in ("calibration", "test")}
        made = []
        for _ in range(2):
            rule = small_member("decision", name).fit(calibration, scores["calibration"])
            made.append(rule.decide(scores["test"], test.attributes, test.label_names))
        np.testing.assert_array_equal(*made)
        assert made[0].shape == (60, n_labels) and made[0].dtype == np.float32
        assert np.isin(made[0][~np.isnan(made[0])], (0, 1)).all()
        # Undefined for a whole finding, or for none of its rows, whatever a row's group.
        assert set(np.isnan(made[0]).mean(axis=0)) <= {0, 1}

    @pytest.mark.parametrize("name", DECISION)
    def test_every_finding_has_a_threshold_for_all(self, split_of, name):
        calibration = split_of("calibration")
        rule = small_member("decision", name).fit(calibration, np.random.default_rng(0).random((60, 3)))
        table = rule.table
        assert table.loc[table["group"] == "all", "label"].tolist() == list(calibration.label_names)
        assert "unknown" not in set(table["group"])

    @pytest.mark.parametrize("name", DECISION)
    def test_a_group_that_calibration_did_not_have_gets_the_threshold_for_all(self, split_of, name):
        calibration, scores = split_of("calibration"), np.random.default_rng(0).random((60, 3))
        rule = small_member("decision", name).fit(calibration, scores)
        new, unknown = (
            rule.decide(scores, calibration.attributes.assign(sex=g, race=g), calibration.label_names)
            for g in ("new", "unknown")
        )
        np.testing.assert_array_equal(new, unknown)

    @pytest.mark.parametrize("name", DECISION)
    def test_the_test_split_and_scores_of_another_shape_are_refused(self, split_of, name):
        with pytest.raises(ValueError, match=f"{name} was handed the test split"):
            small_member("decision", name).fit(split_of("test"), np.zeros((60, 3)))
        with pytest.raises(ValueError, match=r"needs scores \(60, 3\); got \(60, 2\)"):
            small_member("decision", name).fit(split_of("calibration"), np.zeros((60, 2)))
