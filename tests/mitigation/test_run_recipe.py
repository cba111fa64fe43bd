"""One recipe from vectors to predictions, on a cohort whose labels can be read from the vectors."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from biascxr.containers import Attribute, Cohort, EmbeddingSet, Predictions
from biascxr.errors import InputError
from biascxr.metrics import auroc, false_positive_rate
from biascxr.mitigation import parse_recipes, run_recipe, split_data

SPLITS = ("train", "validation", "calibration", "test")
SETTINGS = ("erm.hidden=[16]", "erm.max_epochs=15", "erm.batch_size=32", "erm.learning_rate=0.01")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    n = 480
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)], "study_id": [f"s{i}" for i in range(n)],
            "patient_id": [f"p{i // 2}" for i in range(n)], "path": "x.jpg", "view": "PA",
            "split": np.repeat(rng.choice(SPLITS, n // 2, p=[0.5, 0.1, 0.2, 0.2]), 2), "age": 50.0,
            "sex": rng.choice(["F", "M", "unknown"], n, p=[0.6, 0.3, 0.1]), "race": rng.choice(["A", "B"], n),
        }
    )  # fmt: skip
    attributes = (Attribute("sex", ("F", "M"), True), Attribute("race", ("A", "B"), True))
    labels = (rng.random((n, 2)) < 0.4).astype(np.float32)
    return Cohort(table, labels, ("x", "y"), attributes, "generic", "image", ".")


@pytest.fixture(scope="module")
def embeddings(cohort) -> EmbeddingSet:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(cohort), 8)).astype(np.float32)
    vectors[:, 0] += 2 * cohort.labels[:, 0]
    ids = cohort.table["image_id"].to_numpy(object)
    return EmbeddingSet(ids, np.zeros(len(ids), np.int32), vectors, {"encoder": "test"})


@pytest.fixture(scope="module")
def made(cohort, embeddings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    recipe = parse_recipes("median_balance+standardize+erm", SETTINGS)[1]
    return run_recipe(recipe, cohort, embeddings, folder, seed=0), folder


def test_what_is_learned_is_learned_and_what_is_not_there_is_not(made):
    test = made[0].in_split("test")
    assert auroc(test.y_true[:, 0], test.scores[:, 0]) > 0.8
    assert 0.3 < auroc(test.y_true[:, 1], test.scores[:, 1]) < 0.7


def test_the_training_rows_are_not_among_the_predictions_and_the_rest_is_whole(made, cohort):
    predictions = made[0]
    expected = cohort.table.loc[cohort.table["split"] != "train", "image_id"]
    assert sorted(predictions.table["image_id"]) == sorted(expected)
    labels = pd.DataFrame(cohort.labels, index=cohort.table["image_id"]).loc[predictions.table["image_id"]]
    np.testing.assert_array_equal(predictions.y_true, labels)


def test_thresholds_are_fitted_on_calibration_and_on_no_other_split(made):
    predictions = made[0]
    in_calibration = predictions.in_split("calibration")
    reached = false_positive_rate(in_calibration.y_true[:, 0], in_calibration.decisions[:, 0])
    assert 0.15 < reached <= 0.2
    elsewhere = predictions.in_split("test")
    assert false_positive_rate(elsewhere.y_true[:, 0], elsewhere.decisions[:, 0]) != reached


def test_the_folder_holds_what_is_needed_to_repeat_it(made):
    predictions, folder = made
    for name in ("head.keras", "head.weights.h5", "history.csv", "balance.csv", "thresholds.csv", "recipe.json",
                 "representation_0_standardize.npz"):  # fmt: skip
        assert (folder / name).is_file(), name
    again = Predictions.load(folder / "predictions.parquet", predictions.attributes)
    np.testing.assert_array_equal(again.scores, predictions.scores)
    np.testing.assert_array_equal(again.decisions, predictions.decisions)
    described = json.loads((folder / "recipe.json").read_text())
    assert described["slots"]["sampling"][0]["method"] == "median_balance" and described["notes"]["sampling"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_predictions_and_another_seed_others(made, cohort, embeddings, tmp_path):
    recipe = parse_recipes("median_balance+standardize+erm", SETTINGS)[1]
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        again = run_recipe(recipe, cohort, embeddings, tmp_path / str(seed), seed=seed)
        assert np.array_equal(again.scores, made[0].scores) == (seed == 0)


def test_an_empty_split_and_other_images_are_refused(cohort, embeddings, tmp_path):
    (erm,) = parse_recipes("erm", SETTINGS)
    keep = np.flatnonzero((cohort.table["split"] != "calibration").to_numpy())
    smaller = cohort.rows(cohort.table["image_id"].to_numpy(object)[keep])
    fewer = EmbeddingSet(embeddings.image_id[keep], embeddings.view_id[keep], embeddings.vectors[keep], {})
    with pytest.raises(InputError, match="No usable image is left in: calibration"):
        run_recipe(erm, smaller, fewer, tmp_path, seed=0)
    with pytest.raises(ValueError, match="not the same images in the same order"):
        split_data(smaller, embeddings, "train")


def test_thresholds_on_training_scores_are_those_of_the_training_films_and_the_recipe_says_so(cohort, embeddings, tmp_path):
    rules = ("group_min_gap(attributes=[race], shrinkage=0)", "group_min_gap(attributes=[race], shrinkage=0, fitted_on=train)")
    tables = {}
    for rule in rules:
        recipe = parse_recipes(f"platt+erm+{rule}", SETTINGS)[1]
        folder = tmp_path / rule[-6:-1]
        folder.mkdir()
        run_recipe(recipe, cohort, embeddings, folder, seed=0)
        tables[rule] = pd.read_csv(folder / "thresholds.csv")
        notes = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))["notes"]["decision"]
        assert [note.split(":")[0] for note in notes] == (["group_min_gap"] if "train" in rule else [])
    usual, reproduced = (tables[rule] for rule in rules)
    for table, splits in ((usual, ["calibration"]), (reproduced, ["train"])):
        rows = cohort.table["split"].isin(splits) & (cohort.table["race"] == "A")
        n_positive = table[(table["group"] == "A") & (table["label"] == "x")]["n_positive"].item()
        assert n_positive == cohort.labels[rows, 0].sum()
    assert not np.allclose(usual["threshold"], reproduced["threshold"])


def test_an_unknown_split_to_fit_on_gets_the_known_ones():
    with pytest.raises(InputError, match=r"Unknown split in fitted_on 'test'.*calibration, train"):
        parse_recipes("erm+group_min_gap(fitted_on=test)")
