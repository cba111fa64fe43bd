"""A run from an embedding store: no image is read, rows without a vector are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biascxr.cli import parse_flags, run_command
from biascxr.cohort.generic import CHEXPERT_LABELS
from biascxr.containers import EmbeddingSet
from biascxr.errors import InputError
from biascxr.pipeline import run_stages
from biascxr.records import read_rejected

CARD = {"encoder": "mine", "weights": "mine", "is_trained": True, "trained_on": "films", "vector_length": 4, "fingerprint": "x"}
N = 160


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """A table whose images are not there."""
    folder = tmp_path_factory.mktemp("store_table")
    rng = np.random.default_rng(0)
    rows = [
        {"subject_id": f"{i // 2:04d}", "study_id": f"{i:05d}", "dicom_id": f"d{i}", "path": f"gone/{i}.png",
         "gender": "MF"[(i // 2) % 2], **dict.fromkeys(CHEXPERT_LABELS, 0.0), "Edema": float(rng.random() < 0.5)}
        for i in range(N)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "meta.csv", index=False)
    return folder / "meta.csv"


def make_store(folder: Path, ids: list[str]) -> EmbeddingSet:
    folder.mkdir()
    vectors = np.random.default_rng(1).normal(size=(len(ids), 4)).astype(np.float32)
    made = EmbeddingSet(np.array(ids, object), np.zeros(len(ids), np.int32), vectors, CARD)
    made.save(folder)
    return made


def flags(table: Path, store: Path, out: Path) -> list[str]:
    return ["--csv_path", str(table), "--embedding_store", str(store), "--output_dir", str(out), "--labels", "Edema"]


def test_vectors_are_those_of_the_store_in_the_tables_order_and_missing_ones_are_named(table, tmp_path):
    ids = [f"d{i}" for i in range(N)][::-1]
    made = make_store(tmp_path / "store", [*ids[3:], "elsewhere"])
    run = run_stages(parse_flags(flags(table, tmp_path / "store", tmp_path / "run")), until="embeddings")
    cohort, embeddings = run.embedded()
    assert len(embeddings) == N - 3
    of = dict(zip(made.image_id, made.vectors, strict=True))
    np.testing.assert_array_equal(embeddings.vectors, np.stack([of[i] for i in cohort.table["image_id"]]))
    rejected = read_rejected(run.stages["embeddings"])
    assert sorted(r["image_id"] for r in rejected) == ["d157", "d158", "d159"]
    assert {r["reason"] for r in rejected} == {"no vector in the embedding store"}
    assert "records" not in run.stages


def test_a_store_that_holds_just_these_images_is_linked_and_not_copied(table, tmp_path):
    run = run_stages(parse_flags(flags(table, _whole_store(table, tmp_path), tmp_path / "run")), until="embeddings")
    assert (run.stages["embeddings"] / "vectors.npy").samefile(tmp_path / "store" / "vectors.npy")


def test_a_float16_store_stays_one_and_a_float32_store_is_rounded_where_that_is_chosen(table, tmp_path):
    ids = [f"d{i}" for i in range(N)]
    full = make_store(tmp_path / "full", ids)
    rounded = full.vectors.astype(np.float16)
    (tmp_path / "half").mkdir()
    replace(full, vectors=rounded, card=CARD | {"store_precision": "float16"}).save(tmp_path / "half")
    for store, chosen in (("half", "float32"), ("half", "float16"), ("full", "float16")):
        out = tmp_path / f"{store} as {chosen}"
        wanted = [*flags(table, tmp_path / store, out), "--store_precision", chosen]
        cohort, made = run_stages(parse_flags(wanted), until="embeddings").embedded()
        order = [int(i[1:]) for i in cohort.table["image_id"]]
        assert made.vectors.dtype == np.float16 and made.card["store_precision"] == "float16"
        np.testing.assert_array_equal(made.vectors, rounded[order])
    (tmp_path / "half" / "card.json").write_text(json.dumps(CARD | {"store_precision": "float32"}))
    with pytest.raises(InputError, match=r"vectors of float16; card\.json says float32"):
        run_stages(parse_flags(flags(table, tmp_path / "half", tmp_path / "said")), until="embeddings")


def test_a_number_that_float16_cannot_hold_stops_the_rounding_of_a_store(table, tmp_path):
    made = make_store(tmp_path / "store", [f"d{i}" for i in range(N)])
    made.vectors[5, 1] = 3e5
    np.save(tmp_path / "store" / "vectors.npy", made.vectors)
    wanted = [*flags(table, tmp_path / "store", tmp_path / "run"), "--store_precision", "float16"]
    with pytest.raises(InputError, match="holds 300000, beyond float16's largest number") as error:
        run_stages(parse_flags(wanted), until="embeddings")
    assert error.value.examples == ("d5",)


@pytest.mark.slow
def test_a_run_from_a_float16_store_gives_what_one_from_the_same_numbers_in_float32_gives(table, tmp_path):
    """Sums in float16 would lose digits: these numbers are far from their deviation, and a sum of them is beyond float16."""
    made = make_store(tmp_path / "half", [f"d{i}" for i in range(N)])
    labels = pd.read_csv(table)["Edema"].to_numpy()[:, None]
    rounded = (1000 + 20 * made.vectors + 30 * labels).astype(np.float16)
    np.save(tmp_path / "half" / "vectors.npy", rounded)
    made.save(tmp_path / "half")
    (tmp_path / "full").mkdir()
    replace(made, vectors=rounded.astype(np.float32)).save(tmp_path / "full")
    recipes = "standardize+erm, cluster_downsample+erm, leace+pca+erm+group_youden"
    quick = ["--settings", "erm.max_epochs=3", "erm.hidden=[4]", "--n_replicates", "50", "--n_permutations", "0"]
    for name in ("half", "full"):
        wanted = [*flags(table, tmp_path / name, tmp_path / f"run_{name}"), "--recipes", recipes, *quick]
        assert run_command(wanted) == 0
    card = (tmp_path / "run_half" / "model_card.md").read_text()
    assert "stored as float16" in card and "float16" not in (tmp_path / "run_full" / "model_card.md").read_text()
    places = [p for p in (tmp_path / "run_half").glob("0[456]_*/**/*") if p.suffix in (".csv", ".parquet", ".h5", ".npz")]
    names = sorted(p.relative_to(tmp_path / "run_half") for p in places)
    assert [name.name for name in names].count("predictions.parquet") == 4 and Path("05_leakage/readings.csv") in names
    for name in names:
        assert (tmp_path / "run_half" / name).read_bytes() == (tmp_path / "run_full" / name).read_bytes(), name


def _whole_store(table: Path, tmp_path: Path) -> Path:
    made = run_stages(parse_flags(["--csv_path", str(table), "--output_dir", str(tmp_path / "order")]), until="cohort")
    make_store(tmp_path / "store", made.cohort().table["image_id"].tolist())
    return tmp_path / "store"


def test_a_store_inside_a_run_brings_its_cohort(table, tmp_path):
    first = run_stages(parse_flags(flags(table, _whole_store(table, tmp_path), tmp_path / "run")), until="embeddings")
    again = parse_flags(["--embedding_store", str(tmp_path / "run" / "03_embeddings"), "--output_dir", str(tmp_path / "two")])
    second = run_stages(again, until="embeddings")
    pd.testing.assert_frame_equal(second.cohort().table, first.cohort().table)
    np.testing.assert_array_equal(second.embedded()[1].vectors, first.embedded()[1].vectors)


def test_a_cohort_beside_a_store_may_be_written_by_hand(table, tmp_path):
    made = run_stages(parse_flags(flags(table, _whole_store(table, tmp_path), tmp_path / "run")), until="embeddings")
    cohort, embeddings = made.embedded()
    (tmp_path / "own" / "01_cohort").mkdir(parents=True)
    cohort.save(tmp_path / "own" / "01_cohort")
    (tmp_path / "own" / "03_embeddings").mkdir()
    embeddings.save(tmp_path / "own" / "03_embeddings")
    wanted = ["--embedding_store", str(tmp_path / "own" / "03_embeddings"), "--output_dir", str(tmp_path / "two")]
    first = run_stages(parse_flags(wanted), until="embeddings")
    pd.testing.assert_frame_equal(first.cohort().table, cohort.table)
    made_at = (first.stages["cohort"] / "manifest.json").stat().st_mtime_ns
    run_stages(parse_flags(wanted), until="embeddings")
    assert (first.stages["cohort"] / "manifest.json").stat().st_mtime_ns == made_at
    replace(cohort, labels=1 - cohort.labels).save(tmp_path / "own" / "01_cohort")
    changed = run_stages(parse_flags(wanted), until="embeddings")
    np.testing.assert_array_equal(changed.cohort().labels, 1 - cohort.labels)


def test_what_is_no_store_is_said_before_anything_is_done(table, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run_command(flags(table, tmp_path / "empty", tmp_path / "run")) == 2
    assert "lacks vectors.npy, index.parquet, card.json" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    store = make_store(tmp_path / "others", ["a", "b"])
    with pytest.raises(InputError, match="holds no vector of this table's images"):
        run_stages(parse_flags(flags(table, tmp_path / "others", tmp_path / "run")), until="embeddings")
    (tmp_path / "others" / "card.json").write_text(json.dumps({"encoder": "mine"}))
    with pytest.raises(InputError, match=r"card\.json lacks fingerprint, is_trained, trained_on, vector_length, weights"):
        run_stages(parse_flags(flags(table, tmp_path / "others", tmp_path / "run2")), until="embeddings")
    assert len(store) == 2
    with pytest.raises(InputError, match="Give a table with --csv_path"):
        run_stages(parse_flags(["--embedding_store", str(tmp_path / "others")]), until="embeddings")


def test_augmented_views_cannot_be_made_of_vectors(table, tmp_path):
    make_store(tmp_path / "store", [f"d{i}" for i in range(N)])
    wanted = [*flags(table, tmp_path / "store", tmp_path / "run"), "--recipes", "controlled_augmentation"]
    with pytest.raises(InputError, match="Name cell_interpolation instead"):
        run_stages(parse_flags(wanted), until="embeddings")
