"""What is handed from slot to slot: weights, halves of calibration, calibrated scores; and what comes back from disk."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest

from biascxr.cohort.contract import Evidence
from biascxr.containers import Attribute, Cohort, EmbeddingSet
from biascxr.metrics import false_positive_rate
from biascxr.mitigation import TrainedRecipe, parse_recipes, run, run_recipe, split_data, train_recipe
from biascxr.mitigation.decision.base import DecisionMember
from biascxr.mitigation.representation.base import Representation
from biascxr.mitigation.training.dfr import Dfr

SMALL = tuple(f"{m}.{s}" for m in ("erm", "dfr") for s in ("hidden=[8]", "max_epochs=6", "batch_size=32", "learning_rate=0.01"))
TEXT = "reweigh(attributes=[sex])+standardize+leace(attributes=[race])+dfr(min_cell=3)+platt+group_youden(attributes=[sex])"


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    n = 600
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)], "study_id": [f"s{i}" for i in range(n)],
            "patient_id": [f"p{i // 2}" for i in range(n)], "path": "x.jpg", "view": "PA",
            "split": np.repeat(rng.choice(["train", "validation", "calibration", "test"], n // 2, p=[0.4, 0.1, 0.3, 0.2]), 2),
            "age": 50.0, "sex": rng.choice(["F", "M", "unknown"], n, p=[0.6, 0.3, 0.1]), "race": rng.choice(["A", "B"], n),
        }
    )  # fmt: skip
    attributes = (Attribute("sex", ("F", "M"), True), Attribute("race", ("A", "B"), True))
    labels = (rng.random((n, 2)) < 0.4).astype(np.float32)
    return Cohort(table, labels, ("x", "y"), attributes, "generic", "vector", ".")


@pytest.fixture(scope="module")
def embeddings(cohort) -> EmbeddingSet:
    """Columns far from the origin, where float32 has few digits to lose."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(100, 0.01, size=(len(cohort), 8)).astype(np.float32)
    vectors[:, :2] += (0.02 * cohort.labels).astype(np.float32)
    ids = cohort.table["image_id"].to_numpy(object)
    return EmbeddingSet(ids, np.zeros(len(ids), np.int32), vectors, {"encoder": "test"})


@pytest.fixture(scope="module")
def made(cohort, embeddings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wired")
    recipe = parse_recipes(TEXT, SMALL)[1]
    return run_recipe(recipe, cohort, embeddings, folder, seed=0), folder


def test_a_recipe_of_all_slots_is_loaded_with_equal_scores_and_decisions(made, cohort, embeddings):
    predictions, folder = made
    trained = TrainedRecipe.load(folder)
    test = cohort.split_rows("test")
    scores = trained.score(embeddings.vectors[test], cohort.table.iloc[test])
    expected = predictions.in_split("test")
    np.testing.assert_array_equal(scores, expected.scores)
    np.testing.assert_array_equal(trained.decide(scores, cohort.table.iloc[test]), expected.decisions)
    assert trained.uses_attributes and not trained.score_uses_attributes


def test_the_plain_keras_model_takes_the_encoders_vectors_and_gives_the_heads_scores(made, cohort, embeddings):
    trained = TrainedRecipe.load(made[1])
    plain = keras.models.load_model(made[1] / "classifier.keras", compile=False)
    assert {type(layer).__module__.split(".")[0] for layer in plain.layers} == {"keras"}
    scores = plain.predict(embeddings.vectors, verbose=0)
    raw = trained.raw_scores(embeddings.vectors, cohort.table)
    assert raw.std() > 0.01
    np.testing.assert_allclose(scores, raw, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("training", ["refusion", "causal_noise"])
def test_networks_with_layers_of_their_own_come_back_whole_behind_representations(cohort, embeddings, tmp_path, training):
    settings = tuple(f"{training}.{text}" for text in ("max_epochs=2", "batch_size=32"))
    recipe = parse_recipes(f"standardize + leace + {training} + group_min_gap(attributes=[race, sex])", settings)[1]
    expected = run_recipe(recipe, cohort, embeddings, tmp_path, seed=0).in_split("test")
    trained, rows = TrainedRecipe.load(tmp_path), cohort.table.iloc[cohort.split_rows("test")]
    vectors = embeddings.vectors[cohort.split_rows("test")]
    scores = trained.score(vectors, rows)
    np.testing.assert_array_equal(scores, expected.scores)
    np.testing.assert_array_equal(trained.decide(scores, rows), expected.decisions)
    whole = keras.models.load_model(tmp_path / "classifier.keras", compile=False, safe_mode=True)
    given = {"vector": vectors, "demographics": trained.head.demographics.encode(rows)} if training == "refusion" else vectors
    np.testing.assert_allclose(whole.predict(given, verbose=0), scores, atol=1e-5)


def test_decisions_are_made_on_the_scores_that_thresholds_were_fitted_to(cohort, embeddings, tmp_path):
    recipe = parse_recipes("standardize+erm+platt+fixed_fpr", SMALL)[1]
    predictions = run_recipe(recipe, cohort, embeddings, tmp_path, seed=0)
    own = predictions.in_split("calibration")
    for label in range(2):
        assert 0.15 < false_positive_rate(own.y_true[:, label], own.decisions[:, label]) <= 0.2


def test_who_learns_from_which_rows_and_weights(cohort, embeddings, monkeypatch):
    seen, evidence = {}, []

    def spy(kind, name, what):
        original = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *a, **k: (what(self, *a), original(self, *a, **k))[1])

    spy(Dfr, "_fit", lambda self, task: seen.update(refit=set(task.calibration.image_id)))
    spy(DecisionMember, "fit", lambda self, calibration, scores: seen.setdefault(self.name, set(calibration.image_id)))
    spy(Representation, "fit", lambda self, train, weights: seen.setdefault(f"weights of {self.name}", weights))
    monkeypatch.setattr(run, "check_contract", lambda found, rules: evidence.append(found) or [])
    data = {split: split_data(cohort, embeddings, split) for split in ("validation", "calibration")}
    whole = split_data(cohort, embeddings, "train")
    trained, sample = train_recipe(parse_recipes(TEXT, SMALL)[1], cohort, whole, data, seed=0)

    assert not seen["refit"] & seen["group_youden"] and seen["platt"] == seen["group_youden"]
    assert seen["refit"] | seen["platt"] == set(data["calibration"].image_id)
    patients = dict(zip(cohort.table["image_id"], cohort.table["patient_id"], strict=True))
    assert not {patients[i] for i in seen["refit"]} & {patients[i] for i in seen["platt"]}
    for name in ("standardize", "leace"):
        np.testing.assert_array_equal(seen[f"weights of {name}"], sample.weights)
    assert np.ptp(sample.weights) > 0.01
    (found,) = evidence
    assert isinstance(found, Evidence)
    told = {fit.part: fit.image_ids for fit in found.fits}
    assert told["group_youden"] == told["platt"] == frozenset(seen["platt"])
    assert seen["refit"] <= told["dfr"] and set(whole.image_id) <= told["standardize"] and trained.facts["seed"] == 0


def test_one_calibration_patient_leaves_dfr_its_layer_and_says_so(cohort, embeddings):
    data = {split: split_data(cohort, embeddings, split) for split in ("validation", "calibration")}
    first = data["calibration"].patient_id[0]
    data["calibration"] = data["calibration"].take(data["calibration"].patient_id == first)
    trained, _ = train_recipe(parse_recipes("dfr", SMALL)[1], cohort, split_data(cohort, embeddings, "train"), data, seed=0)
    assert any("last layer as in erm" in note for note in trained.head.notes)
