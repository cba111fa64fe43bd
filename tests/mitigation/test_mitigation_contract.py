"""What every member of every slot keeps; a new line in a slot's table is covered on arrival."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from biascxr.errors import InputError
from biascxr.mitigation import DEFAULTS, SLOTS, Member, resolve
from biascxr.mitigation.decision import CALIBRATORS, DECISION, RULES, DecisionMember, DecisionRule
from biascxr.mitigation.representation import REPRESENTATION, Representation
from biascxr.mitigation.representation.base import AffineRepresentation
from biascxr.mitigation.sampling import SAMPLING, Sampler
from biascxr.mitigation.training import TRAINING, Head, TrainingMethod

CONTRACTS = {"sampling": Sampler, "representation": Representation, "training": TrainingMethod, "decision": DecisionMember}
EVERY = [(slot, name) for slot, table in SLOTS.items() for name in table]
# Settings that keep a test small, where a member has them.
SMALL = {"hidden": (8,), "max_epochs": 2, "batch_size": 16, "min_positive": 3, "min_cell": 3}
SHAPES = [(d, n_labels) for d in (16, 1376) for n_labels in (1, 14)]


def setting_names(slot: str, name: str) -> set[str]:
    return {f.name for f in dataclasses.fields(resolve(slot, SLOTS[slot], name).Settings)}


def small_member(slot: str, name: str, **chosen) -> Member:
    kind, known = resolve(slot, SLOTS[slot], name), setting_names(slot, name)
    return kind(kind.Settings(**{k: v for k, v in SMALL.items() if k in known}, **chosen))


ON_MAPS = [name for name in TRAINING if "feature_map" in setting_names("training", name)]
FEATURE_MAP = (4, 4, 6)
# Members with layers or a state of their own; each is fitted on Keras's other backend too, where it is installed.
ON_JAX = [name for name in ("refusion", "causal_noise", "two_step") if name in TRAINING]
FIT_ON_JAX = f"""
import sys
from dataclasses import fields

sys.path.insert(0, {str(Path(__file__).parent)!r})
import keras
import numpy as np
from conftest import make_split

from biascxr.mitigation import resolve
from biascxr.mitigation.training import TRAINING

assert keras.backend.backend() == "jax"
for name in {ON_JAX}:
    kind = resolve("training", TRAINING, name)
    for d, feature_map in ((16, ()), (96, {FEATURE_MAP})):
        parts = [make_split(split, d=d) for split in ("train", "validation", "calibration", "test")]
        small = dict(hidden=(8,), max_epochs=4, batch_size=16, feature_map=feature_map)
        member = kind(kind.Settings(**{{n: v for n, v in small.items() if n in [f.name for f in fields(kind.Settings)]}}))
        weights = np.ones(len(parts[0]), np.float32)
        first, again = (member.fit(parts[0], weights, parts[1], seed=5, calibration=parts[2]) for _ in range(2))
        scores = first.predict(parts[3].vectors, parts[3].attributes)
        assert scores.shape == (60, 3) and np.isfinite(scores).all() and ((scores >= 0) & (scores <= 1)).all(), name
        np.testing.assert_array_equal(scores, again.predict(parts[3].vectors, parts[3].attributes))
    print("fitted", name)
"""


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
        np.testing.assert_array_equal(first.of(train).vectors, again.of(train).vectors)
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
            sample = small_member("sampling", name).sample(train, seed=0)
            np.testing.assert_array_equal(sample.rows, np.arange(60))
            np.testing.assert_array_equal(sample.weights, np.ones(60))
            assert sample.partners is None

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
    @staticmethod
    def outcome(fitted, part):
        """The vectors of a split, transformed; attributes are handed only to a member that uses them."""
        return fitted.transform(part.vectors, part.attributes if fitted.uses_attributes else None)

    @staticmethod
    def fit(name, part):
        return small_member("representation", name).fit(part, np.ones(len(part), np.float32))

    @pytest.mark.parametrize("name", REPRESENTATION)
    @pytest.mark.parametrize(("d", "n_labels"), SHAPES)
    def test_vectors_stay_finite_float32_and_come_back_from_disk(self, split_of, name, d, n_labels, tmp_path):
        train, test = (split_of(s, d=d, n_labels=n_labels) for s in ("train", "test"))
        fitted, again = (self.fit(name, train) for _ in range(2))
        out = self.outcome(fitted, test)
        assert out.dtype == np.float32 and out.shape[0] == 60 and np.isfinite(out).all()
        fitted.save(tmp_path / "r.npz")
        loaded = small_member("representation", name).load(tmp_path / "r.npz")
        for other in (loaded, again):
            np.testing.assert_array_equal(self.outcome(other, test), out)

    @pytest.mark.parametrize("name", REPRESENTATION)
    def test_a_row_is_transformed_the_same_alone_and_among_others_and_as_part_of_a_table(self, split_of, name):
        train = split_of()
        fitted, alone = self.fit(name, train), train.take(np.array([7]))
        together = self.outcome(fitted, train)
        np.testing.assert_allclose(self.outcome(fitted, alone), together[7:8], rtol=1e-5, atol=1e-6)
        part = fitted.applied_to(train)
        np.testing.assert_allclose(part.vectors, together, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(part.patient_id, train.patient_id)

    @pytest.mark.parametrize("name", [n for n in REPRESENTATION if n not in ("none", "correlation_remover")])
    def test_an_affine_member_is_its_matrix(self, split_of, name):
        train, test = split_of(), split_of("test")
        fitted = self.fit(name, train)
        matrix, offset = fitted.as_matrix()
        out = self.outcome(fitted, test)
        assert isinstance(fitted, AffineRepresentation) and matrix.shape == (16, out.shape[1])
        np.testing.assert_allclose(np.asarray(test.vectors, np.float64) @ matrix + offset, out, atol=1e-5)

    @pytest.mark.parametrize("name", REPRESENTATION)
    def test_only_a_member_that_says_so_uses_attributes_and_it_asks_for_them(self, split_of, name):
        train, test = split_of(n=200), split_of("test")
        fitted = self.fit(name, train)
        swapped = test.attributes.assign(race=test.attributes["race"].map({"A": "B", "B": "A", "unknown": "unknown"}))
        changed = fitted.transform(test.vectors, swapped) != fitted.transform(test.vectors, test.attributes)
        assert changed.any() == fitted.uses_attributes
        if fitted.uses_attributes:
            with pytest.raises(ValueError, match=f"{name} uses attributes"):
                fitted.transform(test.vectors)

    @pytest.mark.parametrize("name", REPRESENTATION)
    def test_unknown_new_and_missing_groups_and_groups_of_one_row_are_transformed_too(self, split_of, name):
        train, test = split_of(), split_of("test")
        race = np.where(np.arange(60) == 3, "one row", np.where(np.arange(60) % 3 == 0, "unknown", "A"))
        fitted = self.fit(name, dataclasses.replace(train, attributes=train.attributes.assign(race=race)))
        for attributes in (
            test.attributes.assign(race="unknown", sex="unknown"),
            test.attributes.assign(race="new", sex="new"),
            test.attributes[[]],  # another cohort may not have recorded them at all
        ):
            out = self.outcome(fitted, dataclasses.replace(test, attributes=attributes))
            assert len(out) == 60 and np.isfinite(out).all()

    @pytest.mark.parametrize("name", REPRESENTATION)
    def test_without_a_known_group_vectors_stay_finite_and_a_member_that_needs_groups_changes_none(self, split_of, name):
        train, test = split_of(), split_of("test")
        needs_groups = "attributes" in {f.name for f in dataclasses.fields(small_member("representation", name).settings)}
        for attributes in (
            train.attributes[[]],
            train.attributes.assign(race="unknown", sex="unknown"),
            train.attributes.assign(race="A"),
        ):
            fitted = self.fit(name, dataclasses.replace(train, attributes=attributes))
            out = self.outcome(fitted, test)
            assert np.isfinite(out).all()
            if needs_groups:
                np.testing.assert_array_equal(out, test.vectors)
                assert fitted.notes == (f"{name}: no attribute with two known groups: vectors are left as they are",)

    @pytest.mark.parametrize("name", REPRESENTATION)
    def test_masked_labels_and_constant_columns_are_no_obstacle(self, split_of, name):
        train = split_of(n_labels=14)
        train.labels[:, 0], train.labels[:, 1], train.labels[:30, 2] = np.nan, 1, np.nan
        vectors = np.array(train.vectors)
        vectors[:, 3], vectors[:, 4] = 0, vectors[:, 5]
        out = self.outcome(self.fit(name, dataclasses.replace(train, vectors=vectors)), split_of("test", n_labels=14))
        assert np.isfinite(out).all()

    @pytest.mark.parametrize("name", REPRESENTATION)
    def test_a_weight_for_every_row_is_required(self, split_of, name):
        with pytest.raises(ValueError, match=r"one weight per training row; got \(59,\) for 60 rows"):
            small_member("representation", name).fit(split_of(), np.ones(59, np.float32))

    @pytest.mark.parametrize("name", REPRESENTATION)
    def test_the_test_split_is_refused(self, split_of, name):
        with pytest.raises(ValueError, match=f"{name} was handed the test split"):
            self.fit(name, split_of("test"))


class TestTraining:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", TRAINING)
    @pytest.mark.parametrize(("d", "n_labels"), [(1024, 14), (1376, 1)])
    def test_one_seed_gives_one_head_and_it_comes_back_from_disk(self, split_of, name, d, n_labels, tmp_path):
        train, validation = split_of(d=d, n_labels=n_labels), split_of("validation", d=d, n_labels=n_labels)
        weights = np.ones(len(train), np.float32)
        test = split_of("test", d=d, n_labels=n_labels)
        seen = test.vectors, test.attributes  # attributes are read only by a head that takes them
        calibration = split_of("calibration", d=d, n_labels=n_labels)
        first, again = (
            small_member("training", name).fit(train, weights, validation, seed=5, calibration=calibration) for _ in range(2)
        )
        scores = first.predict(*seen)
        assert scores.dtype == np.float32 and scores.shape == (60, n_labels)
        assert ((scores >= 0) & (scores <= 1)).all()
        np.testing.assert_array_equal(scores, again.predict(*seen))
        first.save(tmp_path)
        loaded = Head.load(tmp_path, first.demographics)
        np.testing.assert_array_equal(loaded.predict(*seen), scores)
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


class TestTrainingOnMaps:
    """Members that take flattened feature maps `[h, w, c]` as well as vectors."""

    @pytest.mark.parametrize("name", ON_MAPS)
    def test_one_seed_gives_one_head_and_it_comes_back_from_disk(self, split_of, name, tmp_path):
        train, validation, calibration, test = (split_of(s, d=96) for s in ("train", "validation", "calibration", "test"))
        member, weights = small_member("training", name, feature_map=FEATURE_MAP), np.ones(len(train), np.float32)
        first, again = (member.fit(train, weights, validation, seed=5, calibration=calibration) for _ in range(2))
        scores = first.predict(test.vectors, test.attributes)
        assert scores.dtype == np.float32 and scores.shape == (60, 3)
        assert ((scores >= 0) & (scores <= 1)).all()
        np.testing.assert_array_equal(scores, again.predict(test.vectors, test.attributes))
        first.save(tmp_path)
        loaded = Head.load(tmp_path, first.demographics)
        np.testing.assert_array_equal(loaded.predict(test.vectors, test.attributes), scores)
        assert "map" in [layer.name for layer in first.model.layers]

    @pytest.mark.parametrize("name", ON_MAPS)
    def test_without_a_known_group_it_is_fitted_all_the_same_and_says_so(self, split_of, name):
        train, validation, test = (split_of(s, d=96) for s in ("train", "validation", "test"))
        train = dataclasses.replace(train, attributes=train.attributes[[]])
        member, weights = small_member("training", name, feature_map=FEATURE_MAP), np.ones(len(train), np.float32)
        head = member.fit(train, weights, validation, seed=5, calibration=split_of("calibration", d=96))
        assert np.isfinite(head.predict(test.vectors)).all() and head.notes

    @pytest.mark.parametrize("name", ON_MAPS)
    def test_vectors_that_hold_no_such_map_are_refused(self, split_of, name):
        member = small_member("training", name, feature_map=(4, 4, 5))
        message = rf"{name}\.feature_map=\[4, 4, 5\] holds 80 numbers; the vectors have 96\. Maps are kept by --pooling none"
        with pytest.raises(InputError, match=message):
            member.fit(split_of(d=96), np.ones(60, np.float32), split_of("validation", d=96), seed=0)

    @pytest.mark.parametrize("name", ON_MAPS)
    @pytest.mark.parametrize("wrong", [(4, 24), (4, 4, 0)])
    def test_what_is_no_map_is_refused(self, name, wrong):
        with pytest.raises(InputError, match=r"feature_map must be \[height, width, channels\], whole numbers above 0; got"):
            small_member("training", name, feature_map=wrong)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_members_with_layers_of_their_own_are_fitted_on_jax_too():
    done = subprocess.run(
        [sys.executable, "-c", FIT_ON_JAX],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("fitted")] == [f"fitted {name}" for name in ON_JAX]


class TestDecision:
    @staticmethod
    def outcome(member, scores, part):
        """What a member of the slot returns: decisions, or calibrated scores."""
        put = member.decide if isinstance(member, DecisionRule) else member.calibrate
        return put(scores, part.attributes, part.label_names)

    def test_calibrators_and_rules_are_the_members_there_are(self):
        assert CALIBRATORS | RULES == DECISION and not set(CALIBRATORS) & set(RULES)
        for name in DECISION:
            assert issubclass(resolve("decision", DECISION, name), DecisionRule) == (name in RULES)

    @pytest.mark.parametrize("name", DECISION)
    @pytest.mark.parametrize("n_labels", [1, 14])
    def test_the_same_fit_gives_the_same_outcome_and_it_comes_back_from_disk(self, split_of, name, n_labels, tmp_path):
        calibration, test = (split_of(s, n_labels=n_labels) for s in ("calibration", "test"))
        scores = {s: np.random.default_rng(1).random((60, n_labels)).astype(np.float32) for s in ("calibration", "test")}
        first, again = (small_member("decision", name).fit(calibration, scores["calibration"]) for _ in range(2))
        first.save(tmp_path / "fitted.csv")
        loaded = small_member("decision", name).load(tmp_path / "fitted.csv")
        made, *others = (self.outcome(member, scores["test"], test) for member in (first, again, loaded))
        for other in others:
            np.testing.assert_array_equal(made, other)
        assert made.shape == (60, n_labels) and made.dtype == np.float32
        if name in CALIBRATORS:
            assert ((made >= 0) & (made <= 1)).all()
        else:
            assert np.isin(made[~np.isnan(made)], (0, 1)).all()
            # Undefined for a whole finding, or for none of its rows, whatever a row's group.
            assert set(np.isnan(made).mean(axis=0)) <= {0, 1}

    @pytest.mark.parametrize("name", DECISION)
    def test_every_finding_has_a_fit_for_all(self, split_of, name):
        calibration = split_of("calibration")
        rule = small_member("decision", name).fit(calibration, np.random.default_rng(0).random((60, 3)))
        for_all = rule.table[rule.table["attribute"] == ""]
        assert for_all["label"].drop_duplicates().tolist() == list(calibration.label_names)
        assert set(for_all["group"]) == {"all"} and "unknown" not in set(rule.table["group"])
        assert (len(rule.table) > len(for_all)) == rule.is_per_group == (len(rule.fitted_cells) > 0)

    @pytest.mark.parametrize("name", DECISION)
    def test_a_group_that_calibration_did_not_have_gets_the_fit_for_all(self, split_of, name):
        calibration, scores = split_of("calibration"), np.random.default_rng(0).random((60, 3))
        member = small_member("decision", name).fit(calibration, scores)
        everyone = small_member("decision", name)
        everyone.table = member.table[member.table["attribute"] == ""]
        expected = self.outcome(everyone, scores, calibration)
        for attributes in (
            calibration.attributes.assign(sex="new", race="new"),
            calibration.attributes.assign(sex="unknown", race="unknown"),
            calibration.attributes[[]],  # another cohort may not have recorded them at all
        ):
            np.testing.assert_array_equal(
                self.outcome(member, scores, dataclasses.replace(calibration, attributes=attributes)), expected
            )

    @pytest.mark.parametrize("name", DECISION)
    def test_a_row_alone_has_the_outcome_that_it_has_among_others(self, split_of, name):
        calibration, scores = split_of("calibration"), np.random.default_rng(0).random((60, 3)).astype(np.float32)
        member = small_member("decision", name).fit(calibration, scores)
        together = self.outcome(member, scores, calibration)
        for row in range(0, 60, 7):
            alone = self.outcome(member, scores[row : row + 1], calibration.take(np.array([row])))
            np.testing.assert_array_equal(alone[0], together[row])

    @pytest.mark.parametrize("name", DECISION)
    def test_groups_of_one_row_or_one_class_and_masked_labels_are_no_obstacle(self, split_of, name):
        calibration, scores = split_of("calibration", n_labels=14), np.random.default_rng(0).random((60, 14)).astype(np.float32)
        calibration.labels[:, 1], calibration.labels[:, 2], calibration.labels[:, 3] = np.nan, 1, 0
        calibration.labels[:30, 4] = np.nan
        race = np.where(np.arange(60) == 5, "one row", np.where(calibration.labels[:, 0] == 1, "positives only", "the rest"))
        for attributes in (calibration.attributes.assign(race=race), calibration.attributes.assign(race="unknown")):
            part = dataclasses.replace(calibration, attributes=attributes)
            member = small_member("decision", name).fit(part, scores)
            made = self.outcome(member, scores, part)
            # Masked, all positive, all negative: scores as they are, and no threshold where the rule needs a class.
            if name in CALIBRATORS:
                np.testing.assert_array_equal(made[:, 1:4], scores[:, 1:4])
            else:
                assert np.isnan(made[:, 1]).all() or name == "threshold_0.5"
            assert not np.isnan(made[:, [0, *range(4, 13)]]).any()

    @pytest.mark.parametrize("name", DECISION)
    def test_the_test_split_and_scores_of_another_shape_are_refused(self, split_of, name):
        with pytest.raises(ValueError, match=f"{name} was handed the test split"):
            small_member("decision", name).fit(split_of("test"), np.zeros((60, 3)))
        with pytest.raises(ValueError, match=r"needs scores \(60, 3\); got \(60, 2\)"):
            small_member("decision", name).fit(split_of("calibration"), np.zeros((60, 2)))
