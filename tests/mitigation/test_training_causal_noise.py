"""`causal_noise`: what it makes of recorded attributes, and that they end with training."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest

from biascxr.errors import InputError
from biascxr.metrics import auroc
from biascxr.mitigation.base import read_setting
from biascxr.mitigation.training.base import Head
from biascxr.mitigation.training.causal_noise import CausalNoiseMethod, CausalNoiseSettings, Concepts
from biascxr.models import HeadTrainer, features_of, predict_rows
from biascxr.models.batches import Rows
from biascxr.models.causal_trainer import CausalTrainer

SMALL = {"finding_units": 4, "mask_units": 6, "head_hidden": (8,), "learning_rate": 1e-2, "max_epochs": 2}
AGES = ("0-20", "20-40", "60-80", "100+")


def member(**settings) -> CausalNoiseMethod:
    return CausalNoiseMethod(CausalNoiseSettings(**SMALL | settings))


def fit(train, validation, **settings) -> Head:
    return member(**settings).fit(train, np.ones(len(train), np.float32), validation, seed=4)


def of_three(split_of, split: str, n: int = 60):
    """Rows of two sexes, three races and four age groups, some unknown; the race and the first label can be read."""
    part = split_of(split, n=n)
    rng = np.random.default_rng(len(split))
    table = part.attributes.assign(race=rng.choice(["A", "B", "C", "unknown"], n), age_group=rng.choice([*AGES, "unknown"], n))
    vectors = np.array(part.vectors)
    vectors[:, 1] += 3 * (table["race"] == "B").to_numpy()
    return dataclasses.replace(part, attributes=table, vectors=vectors)


@pytest.fixture(scope="module")
def trained(split_of) -> tuple:
    """Training rows, a head of them, and test rows."""
    train, test = of_three(split_of, "train", 200), of_three(split_of, "test", 200)
    return train, fit(train, of_three(split_of, "validation"), max_epochs=12), test


@pytest.fixture(scope="module")
def as_published(split_of) -> np.ndarray:
    """The training rows' scores with every switch as it stands."""
    train = of_three(split_of, "train")
    return fit(train, of_three(split_of, "validation")).predict(train.vectors)


class TestConcepts:
    TABLE = pd.DataFrame(
        {
            "age_group": ["100+", "0-20", "unknown", "20-40", "60-80"],
            "sex": ["F", "M", "unknown", "M", "F"],
            "race": ["A", "B", "C", "unknown", "A"],
            "site": ["X", "X", "unknown", "X", "X"],
        }
    )

    def test_two_groups_are_one_number_more_are_one_each_and_ages_are_ranks_in_the_order_of_years(self):
        concepts = Concepts.of(self.TABLE, ("age_group", "sex", "race", "site"))
        assert concepts.groups == {"sex": ("F", "M"), "race": ("A", "B", "C"), "age_group": AGES}
        assert concepts.attribute_blocks == (1, 3) and concepts.n_ordinals == 1
        x = np.nan
        expected = [[0, 1, 0, 0, 1], [1, 0, 1, 0, 0], [x, 0, 0, 1, x], [1, x, x, x, 1 / 3], [0, 1, 0, 0, 2 / 3]]
        np.testing.assert_allclose(concepts.encode(self.TABLE), np.array(expected), rtol=1e-6)

    def test_a_group_that_training_did_not_have_and_a_column_that_is_not_there_are_unknown(self):
        concepts = Concepts.of(self.TABLE, ("sex", "race"))
        values = concepts.encode(pd.DataFrame({"race": ["new", "C"]}))
        np.testing.assert_array_equal(values, [[np.nan] * 4, [np.nan, 0, 0, 1]])


class TestTraining:
    def test_it_learns_the_finding_and_its_graph_and_its_variances_have_moved(self, trained):
        _, head, test = trained
        assert auroc(test.labels[:, 0], head.predict(test.vectors)[:, 0]) > 0.9
        layer = head.model.get_layer("causal_noise")
        assert layer.attribute_blocks == (1, 3) and layer.n_ordinals == 1
        assert np.abs(keras.ops.convert_to_numpy(layer.graph)).max() > 1e-3
        assert (keras.ops.convert_to_numpy(layer.variance) > 0).all()
        assert head.notes == (
            "blocks for sex (2 groups), race (3 groups), age_group (4 groups, in order); unknown values are left out of their "
            "loss; predictions use the vector alone",
        )

    def test_no_attribute_is_taken_at_prediction(self, trained):
        _, head, test = trained
        assert head.demographics is None and not isinstance(head.model.input, dict)
        scores = head.predict(test.vectors)
        for attributes in (test.attributes, test.attributes.assign(race="C", sex="unknown"), test.attributes[[]]):
            np.testing.assert_array_equal(head.predict(test.vectors, attributes), scores)

    def test_one_seed_gives_one_head_and_it_comes_back_from_disk(self, split_of, as_published, tmp_path):
        train, validation = of_three(split_of, "train"), of_three(split_of, "validation")
        again = fit(train, validation)
        np.testing.assert_array_equal(again.predict(train.vectors), as_published)
        again.save(tmp_path)
        np.testing.assert_array_equal(Head.load(tmp_path).predict(train.vectors), as_published)

    def test_below_the_findings_stand_their_logits(self, trained):
        _, head, test = trained
        nothing = np.zeros((200, 1), np.float32)
        logits = predict_rows(features_of(head.model), Rows(test.vectors, nothing, nothing[:, 0], np.zeros(200, np.int32)))
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), head.predict(test.vectors), atol=1e-6)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "settings",
        [{"use_noise": False}, {"acyclicity": True}, {"finding_weight": 0.01}],
    )
    def test_what_is_switched_changes_what_is_learned_from_the_same_initial_weights(self, split_of, as_published, settings):
        train, validation = of_three(split_of, "train"), of_three(split_of, "validation")
        scores = fit(train, validation, **settings).predict(train.vectors)
        assert np.isfinite(scores).all()
        assert (scores != as_published).any()

    @pytest.mark.parametrize(
        ("settings", "there"),
        [
            ({}, {"graph", "masks", "label_masks"}),
            ({"supervise": False}, {"graph", "masks"}),
            ({"use_graph": False, "supervise": False}, set()),
        ],
    )
    def test_what_is_switched_off_has_no_weights(self, split_of, settings, there):
        layer = fit(split_of(), split_of("validation"), max_epochs=1, **settings).model.get_layer("causal_noise")
        assert {name for name in ("graph", "masks", "label_masks") if hasattr(layer, name)} == there

    def test_a_feature_map_is_its_mean(self, split_of):
        parts = [split_of(split, d=24) for split in ("train", "validation")]
        head = fit(*parts, feature_map=(2, 3, 4))
        maps = np.asarray(parts[0].vectors).reshape(60, 2, 3, 4)
        flat = np.broadcast_to(maps.mean(axis=(1, 2), keepdims=True), maps.shape).reshape(60, -1)
        np.testing.assert_allclose(head.predict(flat), head.predict(parts[0].vectors), atol=1e-5)
        with pytest.raises(InputError, match=r"causal_noise.feature_map=\[2, 3, 5\] holds 30 numbers; the vectors have 24"):
            fit(*parts, feature_map=(2, 3, 5))


class TestLoss:
    def test_it_is_the_weighted_findings_plus_supervision_plus_the_penalty_of_cycles(self, split_of):
        train = of_three(split_of, "train")
        losses = {}
        for name, settings in {
            "all": {"acyclicity": True},
            "supervised": {},
            "findings": {"supervise": False},
            "doubled": {"supervise": False, "finding_weight": 2.4},
        }.items():
            keras.utils.set_random_seed(0)
            chosen = member(**settings)
            cells = chosen._cells(train)
            trainer = chosen._trainer(chosen._build_head(train, cells, None), train, np.ones(60, np.float32), cells)
            trainer.layer.graph.assign(0.1 * np.random.default_rng(0).normal(size=trainer.layer.graph.shape))
            rows = chosen._rows(train, np.ones(60, np.float32), cells, None)
            x, y, weights = rows.batch(np.arange(60))
            losses[name] = float(
                trainer.compute_loss(x=x, y=y, y_pred=trainer(x, training=False), sample_weight=weights, training=False)
            )
            if name == "supervised":
                u = np.concatenate([y, x["demographics"]], axis=1)
                supervision = float(keras.ops.mean(trainer.layer.supervision_loss(u)))
            penalty = float(trainer.layer.acyclicity_penalty())
        assert supervision > 1 and penalty > 1e-3
        assert losses["supervised"] - losses["findings"] == pytest.approx(supervision, rel=1e-4)
        assert losses["all"] - losses["supervised"] == pytest.approx(penalty, rel=1e-2)
        assert losses["doubled"] == pytest.approx(2 * losses["findings"], rel=1e-5)


class TestEdges:
    @pytest.mark.parametrize("kind", ["no attributes", "one group", "nobody known"])
    def test_without_groups_it_is_plain_training_and_says_so(self, split_of, kind):
        columns = {"sex": (["F"] * 40 + ["unknown"] * 20) if kind == "one group" else ["unknown"] * 60}
        train = split_of(**columns)
        if kind == "no attributes":
            train = dataclasses.replace(train, attributes=train.attributes[[]])
        chosen = member()
        head = chosen.fit(train, np.ones(60, np.float32), split_of("validation"), seed=0)
        assert head.notes == ("no attribute with two known groups: no graph and no noise, trained as erm",)
        layer = head.model.get_layer("causal_noise")
        assert not layer.use_graph and not layer.use_noise and layer.n_attribute_dims == 0
        cells = chosen._cells(train)
        assert type(chosen._trainer(head.model, train, np.ones(60, np.float32), cells)) is HeadTrainer
        assert np.isfinite(head.predict(train.vectors)).all()

    def test_validation_rows_may_lack_the_attributes_and_one_label_will_do(self, split_of):
        validation = split_of("validation", n_labels=1)
        validation = dataclasses.replace(validation, attributes=validation.attributes[[]])
        head = fit(split_of(n_labels=1), validation)
        assert head.predict(validation.vectors).shape == (60, 1)

    def test_rows_of_unknown_attributes_learn_their_findings(self, split_of):
        train = of_three(split_of, "train")
        chosen = member()
        cells = chosen._cells(train)
        trainer = chosen._trainer(chosen._build_head(train, cells, None), train, np.ones(60, np.float32), cells)
        assert isinstance(trainer, CausalTrainer)
        unknown = dataclasses.replace(train, attributes=train.attributes.assign(sex="unknown", race="unknown", age_group="?"))
        x, y, _ = chosen._rows(unknown, np.ones(60, np.float32), cells, None).batch(np.arange(60))
        assert np.isnan(x["demographics"]).all()
        scores = trainer(x, training=False)
        expected = 1.2 * float(keras.ops.mean(trainer.row_losses(y, scores)))
        assert float(trainer.compute_loss(x=x, y=y, y_pred=scores)) == pytest.approx(expected, rel=1e-5)

    def test_an_attribute_that_is_not_there_is_named(self, split_of):
        with pytest.raises(InputError, match=r"causal_noise.attributes=\['site'\]: 'site' is not an attribute of this cohort"):
            fit(split_of(), split_of("validation"), attributes=("site",))

    def test_settings_out_of_range_are_named(self):
        for wrong, message in (
            ({"copies": 0}, "copies must be at least 1; got 0"),
            ({"finding_weight": 0.0}, "finding_weight must be above 0; got 0.0"),
            ({"clip_norm": -1.0}, "clip_norm must be at least 0; got -1.0"),
            ({"head_hidden": (0,)}, r"head_hidden must be whole numbers of units above 0; got \(0,\)"),
            ({"use_graph": False}, "set supervise=false too"),
            ({"batch_size": 0}, "batch_size must be at least 1"),
        ):
            with pytest.raises(InputError, match=message):
                CausalNoiseSettings(**wrong)

    def test_the_command_line_reads_its_switches_and_knows_no_setting_of_a_trunk(self):
        assert read_setting(CausalNoiseSettings, "causal_noise", "use_noise", "false") is False
        names = {field.name for field in dataclasses.fields(CausalNoiseSettings)}
        assert not names & {"hidden", "dropout", "demographics", "coding"}
