"""A run from vectors that were made elsewhere and name their images (`--vectors`): no image is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biascxr.cli import parse_flags, run_command
from biascxr.errors import InputError
from biascxr.pipeline import run_stages
from biascxr.records import read_rejected

N = 40


@pytest.fixture
def table(tmp_path, biascxr_table) -> Path:
    """A table whose images are not there."""
    edema = [str(int(i % 3 == 0)) for i in range(N)]
    biascxr_table(N, ending="png", Edema=edema, Cardiomegaly=None).to_csv(tmp_path / "meta.csv", index=False)
    return tmp_path / "meta.csv"


def write(kind: str, folder: Path, ids: list[str], vectors: np.ndarray) -> Path:
    path = folder / f"set.{kind}"
    if kind == "npz":
        np.savez(path, image_ids=np.array(ids), embeddings=vectors)
    elif kind == "parquet":
        pd.DataFrame({"image_id": ids, "embedding": list(vectors)}).to_parquet(path)
    else:
        import h5py

        with h5py.File(path, "w") as file:
            file["image_ids"], file["embeddings"] = ids, vectors
    return path


def flags(table: Path, *more: str) -> list[str]:
    return ["--csv_path", str(table), "--output_dir", str(table.parent / "run"), "--labels", "Edema", *more]


@pytest.mark.parametrize("kind", ["npz", "h5", "parquet"])
def test_a_set_of_vectors_is_gathered_in_the_tables_order_and_missing_ones_are_named(kind, table, tmp_path):
    ids = [f"image_{i:03d}" for i in range(N)][::-1][2:]
    vectors = np.random.default_rng(0).normal(size=(len(ids), 6)).astype(np.float32)
    source = write(kind, tmp_path, [*ids, "elsewhere"], np.concatenate([vectors, vectors[:1]]))
    run = run_stages(parse_flags(flags(table, "--vectors", str(source), "--max_rejected_share", "0.1")), until="embeddings")
    cohort, made = run.embedded()
    of = dict(zip(ids, vectors, strict=True))
    np.testing.assert_array_equal(made.vectors, np.stack([of[i] for i in cohort.table["image_id"]]))
    assert sorted(r["image_id"] for r in read_rejected(run.stages["embeddings"])) == ["image_038", "image_039"]
    assert "records" not in run.stages


def test_pooling_none_keeps_the_maps_of_a_set_and_they_are_gathered_again_without_it(table, tmp_path):
    ids = [f"image_{i:03d}" for i in range(N)]
    maps = np.random.default_rng(0).normal(size=(N, 8, 8, 1376)).astype(np.float32)
    source = write("npz", tmp_path, ids, maps)
    for more, shape in ((["--pooling", "none"], [8, 8, 1376]), ([], None)):
        run = run_stages(parse_flags(flags(table, "--vectors", str(source), *more)), until="embeddings")
        cohort, made = run.embedded()
        own = maps[[ids.index(i) for i in cohort.table["image_id"]]]
        expected = own.reshape(N, -1) if shape else own.mean((1, 2))
        np.testing.assert_allclose(made.vectors, expected, atol=1e-6)
        assert made.card["map_shape"] == shape


def test_a_changed_set_is_gathered_again_and_an_unchanged_one_is_not(table, tmp_path):
    ids = [f"image_{i:03d}" for i in range(N)]
    source = write("npz", tmp_path, ids, np.random.default_rng(0).normal(size=(N, 4)))
    first = run_stages(parse_flags(flags(table, "--vectors", str(source))), until="embeddings")
    manifest = first.stages["embeddings"] / "manifest.json"
    made_at = manifest.stat().st_mtime_ns
    run_stages(parse_flags(flags(table, "--vectors", str(source))), until="embeddings")
    assert manifest.stat().st_mtime_ns == made_at
    source = write("npz", tmp_path, ids, np.random.default_rng(1).normal(size=(N, 5)))
    assert run_stages(parse_flags(flags(table, "--vectors", str(source))), until="embeddings").embedded()[1].vectors.shape == (
        N,
        5,
    )


def test_what_cannot_be_done_is_said_in_a_line(table, tmp_path, capfd):
    assert run_command(flags(table, "--vectors", str(tmp_path / "nowhere.npz"))) == 2
    assert "nowhere.npz" in capfd.readouterr().err
    source = write("npz", tmp_path, [f"image_{i:03d}" for i in range(N)], np.zeros((N, 4), np.float32))
    with pytest.raises(InputError, match="Name cell_interpolation instead"):
        run_stages(
            parse_flags(flags(table, "--vectors", str(source), "--recipes", "controlled_augmentation")), until="embeddings"
        )
