"""`refusion`: what depends on recorded attributes and what does not, its stages, and where there is nothing to disentangle."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from biascxr.errors import InputError
from biascxr.mitigation import TrainedRecipe
from biascxr.mitigation.decision.fixed_fpr import FixedFpr
from biascxr.mitigation.flips import attribute_flips
from biascxr.mitigation.training import DemographicInputs, Head
from biascxr.mitigation.training.erm import Erm
from biascxr.mitigation.training.refusion import RefusionMethod, RefusionSettings, column_names, labelled_by_attributes
from biascxr.mitigation.vector_table import VectorTable

SMALL = {"hidden": (8,), "max_epochs": 1, "batch_size": 32, "units": 16, "projection": 8, "blocks": 1}


def test_the_encoders_that_can_be_chosen_are_those_of_the_layer():
    from biascxr.mitigation.training.refusion import ENCODERS
    from biascxr.models.refusion import ENCODERS as OF_THE_LAYER

    assert set(ENCODERS) == set(OF_THE_LAYER)


def fit(train, validation, *, log_dir=None, **settings) -> Head:
    member = RefusionMethod(RefusionSettings(**{**SMALL, **settings}))
    return member.fit(train, np.ones(len(train), np.float32), validation, seed=4, log_dir=log_dir)


@pytest.fixture(scope="module")
def by_sex(split_of):
    """Train, validation and test rows of one finding that is common in one sex, rare in the other."""

    def labelled(split, n):
        part = split_of(split, n=n, n_labels=1)
        p = part.attributes["sex"].map({"F": 0.9, "M": 0.1, "unknown": 0.5}).to_numpy()[:, None]
        return dataclasses.replace(part, labels=(np.random.default_rng(n).random((n, 1)) < p).astype(np.float32))

    return labelled("train", 400), labelled("validation", 100), labelled("test", 60)


@pytest.fixture(scope="module")
def learned(by_sex):
    """A head of both stages that learned what the sex says of the finding."""
    return fit(*by_sex[:2], max_epochs=12, patience=12, learning_rate=1e-2)


def flips_of(head: Head, part, attributes) -> pd.DataFrame:
    rule = FixedFpr()
    rule.table = pd.DataFrame([
        {"label": "finding 0", "attribute": "", "group": "all", "n_positive": 9, "threshold": 0.5, "note": ""}
    ])  # fmt: skip
    trained = TrainedRecipe(SimpleNamespace(name="one"), ("finding 0",), 16, [], head, [], rule, {})
    return attribute_flips(trained, part.vectors, attributes, part.patient_id)


class TestAttributes:
    def test_a_recorded_sex_that_tells_of_the_finding_flips_decisions_the_way_it_tells(self, learned, by_sex):
        test = by_sex[2]
        flips = flips_of(learned, test, test.attributes).query("label == 'macro' and part == 'scores'").set_index("value")
        assert set(flips["attribute"]) == {"sex", "race"}
        assert flips.loc["F", "to_positive"] > 0.3 > flips.loc["F", "to_negative"]
        assert flips.loc["M", "to_negative"] > 0.3 > flips.loc["M", "to_positive"]

    def test_permuted_attributes_give_other_predictions_and_other_flips(self, learned, by_sex):
        test = by_sex[2]
        order = np.random.default_rng(0).permutation(len(test))
        permuted = test.attributes.iloc[order].reset_index(drop=True)
        assert np.abs(learned.predict(test.vectors, permuted) - learned.predict(test.vectors, test.attributes)).max() > 0.2
        ours, theirs = (flips_of(learned, test, table)["flip_rate"].to_numpy() for table in (test.attributes, permuted))
        assert not np.array_equal(ours, theirs)

    def test_unknown_new_and_missing_values_have_one_answer(self, learned, by_sex):
        test = by_sex[2]
        tables = [test.attributes.assign(sex=v, race=v) for v in ("unknown", "new")] + [test.attributes[[]]]
        unknown, new, missing = (learned.predict(test.vectors, table) for table in tables)
        assert np.isfinite(unknown).all()
        np.testing.assert_array_equal(unknown, new)
        np.testing.assert_array_equal(unknown, missing)
        with pytest.raises(ValueError, match="takes demographics as inputs"):
            learned.predict(test.vectors)

    def test_of_whom_nothing_is_known_the_image_still_counts(self, split_of):
        """`biascxr apply` meets cohorts that lack an attribute."""
        train, validation, test = (split_of(s, n=n) for s, n in (("train", 400), ("validation", 100), ("test", 100)))
        head = fit(train, validation, max_epochs=12, patience=12, learning_rate=1e-2)
        known = head.predict(test.vectors, test.attributes)[:, 0]
        unknown = head.predict(test.vectors, test.attributes[[]])[:, 0]
        assert unknown.std() > known.std() / 3 > 0.05

    def test_without_a_known_attribute_in_validation_the_first_model_stops_by_what_it_learns_from(self, by_sex):
        train, validation = by_sex[:2]
        nobody = dataclasses.replace(validation, attributes=validation.attributes.assign(sex="unknown", race="unknown"))
        history = fit(train, nobody, max_epochs=4, patience=4, learning_rate=1e-2).history
        assert (history.loc[history["stage"] == "sensitive", "val_loss"] > 0).all()

    def test_without_penalties_no_sensitive_model_is_trained_and_the_note_says_so(self, by_sex):
        head = fit(*by_sex[:2], column_weight=0.0, row_weight=0.0)
        assert set(head.history["stage"]) == {"disentangle", "refuse"}
        assert any("no penalty on z" in note for note in head.notes)

    def test_the_head_comes_back_from_disk_in_safe_mode(self, learned, by_sex, tmp_path):
        test = by_sex[2]
        learned.save(tmp_path)
        again = Head.load(tmp_path, learned.demographics)
        np.testing.assert_array_equal(
            again.predict(test.vectors, test.attributes), learned.predict(test.vectors, test.attributes)
        )


class TestStages:
    def test_each_says_what_it_was_and_the_first_alone_takes_no_attributes(self, by_sex, tmp_path):
        train, validation, test = by_sex
        head = fit(train, validation, stages="disentangle", log_dir=tmp_path)
        assert head.demographics is None and head.history["stage"].tolist() == ["sensitive", "disentangle"]
        assert flips_of(head, test, test.attributes).empty
        assert head.predict(test.vectors).shape == (60, 1)
        assert head.notes == (
            "stage 1: z penalised for what a sensitive model reads of race, sex, adversary alpha 0.1",
            "no stage 2: the head takes no attributes",
        )
        assert {path.name for path in tmp_path.iterdir()} >= {"sensitive", "train"}
        assert {"val_auroc/sex=F", "val_auroc/race=B", "val_auroc/finding 0", "adversary_loss"} <= set(head.history)

    def test_re_fusion_alone_has_a_plain_trunk_which_stays_as_it_is_if_frozen(self, by_sex, monkeypatch):
        stages = {}
        train = RefusionMethod._stage

        def kept(self, name, trainer, *others):
            history = train(self, name, trainer, *others)
            stages[name] = (trainer.adversary or trainer.projection, trainer.head.get_layer("hidden_0").get_weights()[0])
            return history

        monkeypatch.setattr(RefusionMethod, "_stage", kept)
        head = fit(*by_sex[:2], stages="refuse", freeze=True)
        assert stages["plain"][0] is None is stages["refuse"][0]
        np.testing.assert_array_equal(stages["plain"][1], stages["refuse"][1])
        assert head.notes[1:] == ("stage 1: trunk by plain cross-entropy", "stage 2: race, sex re-fused, trunk frozen")
        fit(*by_sex[:2], stages="refuse")
        assert stages["plain"][0] is None and stages["refuse"][0].name == "adversary"
        assert not np.array_equal(stages["plain"][1], stages["refuse"][1])

    def test_one_seed_gives_one_head(self, split_of):
        train, validation, test = (split_of(s) for s in ("train", "validation", "test"))
        first, again = (fit(train, validation, moving=True, encoder="deep", normalise=True) for _ in range(2))
        assert first.history["stage"].tolist() == ["sensitive", "disentangle", "refuse"]
        scores = first.predict(test.vectors, test.attributes)
        assert np.ptp(scores) > 0
        np.testing.assert_array_equal(scores, again.predict(test.vectors, test.attributes))

    def test_vectors_that_hold_maps_are_read_as_maps(self, split_of):
        train, validation, test = (split_of(s, d=24) for s in ("train", "validation", "test"))
        head = fit(train, validation, feature_map=(2, 3, 4))
        assert head.model.get_layer("refusion").cascade[0].bottleneck.convolutions[1].kernel.shape[:2] == (3, 3)
        assert head.predict(test.vectors, test.attributes).shape == (60, 3)
        with pytest.raises(InputError, match=r"refusion.feature_map=\[2, 2, 4\] holds 16 numbers; the vectors have 24"):
            fit(train, validation, feature_map=(2, 2, 4))


class TestNothingToDisentangle:
    def test_it_is_erm_to_the_last_bit_and_says_so(self, split_of):
        train, validation = split_of(sex=["F"] * 50 + ["unknown"] * 10), split_of("validation")
        head = fit(train, validation, dropout=0.3)
        settings = {name: getattr(RefusionSettings(**SMALL), name) for name in ("hidden", "max_epochs", "batch_size")}
        erm = Erm(Erm.Settings(**settings, dropout=0.3, learning_rate=1e-4, patience=10))
        theirs = erm.fit(train, np.ones(60, np.float32), validation, seed=4).model.get_weights()
        for ours, own in zip(head.model.get_weights(), theirs, strict=True):
            np.testing.assert_array_equal(ours, own)
        assert head.demographics is None and head.notes == (
            "no attribute with two known groups among its demographics (race, sex, age_group): trained as erm",
        )

    def test_without_attributes_maps_are_pooled(self, split_of):
        train, validation = (
            dataclasses.replace(p, attributes=p.attributes[[]]) for p in map(split_of, ("train", "validation"))
        )
        head = fit(train, validation, feature_map=(2, 2, 4))
        assert head.model.get_layer("hidden_0").kernel.shape == (4, 8) and "trained as erm" in head.notes[-1]

    def test_an_attribute_with_one_known_group_is_left_out_of_the_others(self, split_of):
        train = split_of()
        train = dataclasses.replace(train, attributes=train.attributes.assign(race="A"))
        assert RefusionMethod()._demographics(train).groups == {"sex": ("F", "M")}


def test_the_sensitive_model_learns_known_attributes_only(split_of):
    train = split_of()
    for coding, names in (("one_hot", ("sex=F", "sex=M")), ("binary", ("sex=M",))):
        demographics = DemographicInputs({"sex": ("F", "M")}, coding)
        part = labelled_by_attributes(train, demographics)
        assert part.label_names == names == column_names(demographics)
        is_unknown = (train.attributes["sex"] == "unknown").to_numpy()
        assert is_unknown.any() and (np.isnan(part.labels).all(axis=1) == is_unknown).all()
        np.testing.assert_array_equal(part.labels[~is_unknown, -1], train.attributes["sex"][~is_unknown] == "M")
        assert isinstance(part.vectors, VectorTable)


def test_two_group_coding_refuses_three_groups(split_of):
    train = split_of()
    train.attributes.loc[0, "race"] = "C"
    with pytest.raises(InputError, match="coding=binary takes attributes of two groups; race has 3: A, B, C"):
        fit(train, split_of("validation"), coding="binary")


def test_settings_out_of_range_are_named():
    for wrong, message in (
        ({"projection": 0}, "projection must be at least 1; got 0"),
        ({"alpha": -0.1}, "alpha must be at least 0; got -0.1"),
        ({"energy": 1.5}, r"energy must lie in \(0, 1\]; got 1.5"),
        ({"encoder": "flat"}, "Unknown encoder of refusion 'flat'"),
        ({"stages": "reuse"}, "Unknown stages of refusion 'reuse'. Did you mean 'refuse'"),
        ({"hidden": ()}, "hidden must have a layer"),
        ({"feature_map": (8, 8)}, "feature_map must be"),
    ):
        with pytest.raises(InputError, match=message):
            RefusionSettings(**wrong)
