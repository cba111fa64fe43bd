"""The encoder trained for the attribute is read by its own last layer, and only on patients whom it never saw."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pandas as pd
import pytest

from biascxr.cohort.contract import patient_digests
from biascxr.containers import Attribute, Cohort
from biascxr.errors import InputError
from biascxr.leakage.attribute_encoder import read_with_encoder, seed_table
from biascxr.records import encode_example, write_record
from biascxr.records.shard_list import Shard, ShardReport, write_shard_list

SIZE, N = 32, 36


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A cohort, its records, and a network as train-encoder writes it, but that its weights are the first ones."""
    from biascxr.embeddings.train.network import build_network

    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    films = rng.integers(0, 255, (N, SIZE, SIZE), dtype=np.uint8)
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(N)], "study_id": "s", "patient_id": [f"p{i // 2}" for i in range(N)],
            "path": "x", "view": "PA", "age": 50.0,
            "race": np.array(["White", "Black", "Asian", "unknown"])[np.arange(N) // 2 % 4],
            "split": np.array(["train", "validation", "test"])[np.arange(N) // 2 % 3],
        }
    )  # fmt: skip
    attributes = (Attribute("race", ("White", "Black", "Asian"), True),)
    cohort = Cohort(table, np.zeros((N, 1), np.float32), ("finding",), attributes, "x", "image", ".")
    with open(folder / "films.tfrecord", "wb") as file:
        for image, film in zip(table["image_id"], films, strict=True):
            write_record(file, encode_example({"image": cv2.imencode(".png", film)[1].tobytes(), "image_id": image}))
    size = (folder / "films.tfrecord").stat().st_size
    write_shard_list(folder, [ShardReport(Shard("films.tfrecord", "test", N, size, ""), "key", [])])
    network = build_network(
        "small", image_size=SIZE, n_classes=2, target="race", dropout=0.5, norm_momentum=0.9, seed=0
    )  # fmt: skip
    network.save(folder / "race.keras")
    return cohort, folder, films, network


def write_card(folder, cohort, *, splits=("train", "validation"), more=(), **changes):
    trained = cohort.table["patient_id"][cohort.table["split"].isin(splits)]
    card = {
        "target": "race", "classes": ["Black", "Asian"], "trained_on_patients": patient_digests([*trained, *more]),
        "validation_macro_auroc": 0.61,
    } | changes  # fmt: skip
    (folder / "race.card.json").write_text(json.dumps({k: v for k, v in card.items() if v is not None}))
    return folder / "race.keras"


def test_scores_are_the_networks_own_probabilities_on_the_test_films_whose_group_is_known(study):
    cohort, folder, films, network = study
    found = read_with_encoder(write_card(folder, cohort), cohort, folder)
    table = cohort.table
    expected = np.flatnonzero((table["split"] == "test") & (table["race"] != "unknown"))
    told = network.predict(films[expected][..., None].astype(np.float32) / 255, verbose=0)
    assert (found.rows == expected).all()
    assert found.scores[:, 1:] == pytest.approx(told, abs=1e-5)
    assert np.isnan(found.scores[:, 0]).all()  # it was not trained to tell White
    assert found.scores[:, 1:].sum(1) == pytest.approx(np.ones(len(expected)), abs=1e-5)
    assert (np.array(["White", "Black", "Asian"])[found.codes] == table["race"].to_numpy()[expected]).all()
    assert (found.patient_id == table["patient_id"].to_numpy()[expected]).all()
    assert (found.probe, found.validation_auroc) == ("encoder", 0.61)
    assert found.setting == "trained on this cohort's train patients"


def test_an_encoder_that_saw_a_test_patient_or_does_not_say_is_refused(study):
    cohort, folder, _, _ = study
    one = cohort.table["patient_id"][cohort.table["split"] == "test"].iloc[:1]
    with pytest.raises(InputError, match="it was trained on 1 of them"):
        read_with_encoder(write_card(folder, cohort, more=one), cohort, folder)
    with pytest.raises(InputError, match="trained_on_patients"):
        read_with_encoder(write_card(folder, cohort, trained_on_patients=None), cohort, folder)


def test_whom_it_learned_from_is_said(study):
    cohort, folder, _, _ = study
    mixed = read_with_encoder(write_card(folder, cohort, more=["elsewhere"]), cohort, folder)
    assert mixed.setting.endswith("and on others")
    strange = read_with_encoder(write_card(folder, cohort, splits=(), more=["elsewhere"]), cohort, folder)
    assert strange.setting == "trained on other patients than this cohort's"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target": "findings"}, "trained for findings"),
        ({"target": "sex"}, "recorded sex; this cohort has none"),
        ({"classes": ["Black", "Martian"]}, "it tells Martian too"),
        ({"classes": ["White", "Black", "Asian"]}, "a last layer of 3 groups"),
        ({"classes": None}, "with target and classes"),
    ],
)
def test_a_network_for_something_else_is_refused(study, changes, says):
    cohort, folder, _, _ = study
    with pytest.raises(InputError, match=says):
        read_with_encoder(write_card(folder, cohort, **changes), cohort, folder)


def test_a_file_without_its_card_is_refused(study, tmp_path):
    cohort, folder, _, _ = study
    with pytest.raises(InputError, match=r"alone\.card\.json"):
        read_with_encoder(tmp_path / "alone.keras", cohort, folder)


def test_the_table_has_the_seeds_form():
    rows = [
        {"representation": r, "attribute": a, "probe": p, "control": c, "group": g, "auroc": hash((r, a, p, c, g)) % 1000}
        for r in ("vectors", "standardize+erm")
        for a in ("race", "sex")
        for p in ("knn", "logistic", "encoder")
        for c in ("none", "shuffled")
        for g in ("White", "Black", "macro")
        if r == "vectors" or p != "encoder"
    ]
    table = seed_table(pd.DataFrame(rows))
    assert list(table.columns) == ["Dnet_race", "LR", "KNN"]
    assert list(table.index) == ["White", "Black"]
    assert table.loc["Black", "LR"] == hash(("vectors", "race", "logistic", "none", "Black")) % 1000
    assert table.loc["White", "Dnet_race"] == hash(("vectors", "race", "encoder", "none", "White")) % 1000
    assert list(seed_table(pd.DataFrame(rows), attribute="sex").columns) == ["Dnet_sex", "LR", "KNN"]
    assert seed_table(pd.DataFrame(rows), attribute="age_group").empty
