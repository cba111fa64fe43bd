"""`biascxr doctor`: what is wrong with a run's files is named, and nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from biascxr.cli import main, parse_flags
from biascxr.doctor import examine
from biascxr.errors import InputError
from biascxr.pipeline import run_stages

N, SIZE = 24, 32


@pytest.fixture(scope="module")
def films(tmp_path_factory, biascxr_table) -> Path:
    """A table of small films, and a small network."""
    import keras

    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    for i in range(N):
        cv2.imwrite(str(folder / f"image_{i:03d}.png"), rng.integers(0, 256, (40, 40)).astype(np.uint8))
    edema = [str(int(i % 3 == 0)) for i in range(N)]
    biascxr_table(N, ending="png", Edema=edema, Cardiomegaly=None).to_csv(folder / "meta.csv", index=False)
    image = keras.Input((SIZE, SIZE, 1))
    maps = keras.layers.Conv2D(4, 3, kernel_initializer=keras.initializers.RandomNormal(seed=0))(image)
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(maps)).save(folder / "network.keras")
    return folder


@pytest.fixture
def run(films, tmp_path) -> Path:
    flags = ["--csv_path", str(films / "meta.csv"), "--weights", str(films / "network.keras"), "--image_size", str(SIZE),
             "--labels", "Edema", "--allow", "near_duplicate_vectors",
             "--output_dir", str(tmp_path / "run"), "--n_workers", "1"]  # fmt: skip
    run_stages(parse_flags(flags), until="embeddings")
    return tmp_path / "run"


def problems(run: Path, **how) -> list[str]:
    return [str(problem) for problem in examine(run, **how)]


@pytest.mark.slow
def test_a_run_as_it_was_left_has_no_problem_and_its_vectors_come_out_again(run, capsys):
    assert problems(run, thorough=True, recompute=5) == []
    assert main(["doctor", str(run)]) == 0
    assert main(["doctor"]) == 0
    assert "onnxruntime" in capsys.readouterr().err


def test_a_vector_that_is_not_a_number_and_a_file_that_changed_are_named(run):
    path = run / "03_embeddings" / "vectors.npy"
    vectors = np.load(path)
    vectors[3] = np.nan
    np.save(path, vectors)
    assert [text.split(": ")[1].split(";")[0] for text in problems(run)] == [f"1 of {N} vectors hold NaN or infinity"]
    assert any("has changed since it was written" in text for text in problems(run, thorough=True))


def test_a_float16_store_is_whole_too_and_one_whose_card_says_otherwise_is_named(run, films):
    flags = ["--config", str(run / "config.yaml"), "--output_dir", str(run), "--store_precision", "float16"]
    made = run_stages(parse_flags(flags), until="embeddings")
    vectors = np.load(run / "03_embeddings" / "vectors.npy")
    assert vectors.dtype == np.float16 and (made.stages["embeddings"] / "card.json").is_file()
    assert problems(run, thorough=True, recompute=N) == []
    np.save(run / "03_embeddings" / "vectors.npy", vectors.astype(np.float32))
    assert any("vectors of float32, where its card says float16" in text for text in problems(run))
    np.save(run / "03_embeddings" / "vectors.npy", vectors * np.float16(1.01))
    assert any("come out differently" in text for text in problems(run, recompute=N))


@pytest.mark.slow
def test_vectors_of_mixed_precision_and_several_devices_are_made_again_on_one(run, monkeypatch):
    flags = ["--config", str(run / "config.yaml"), "--output_dir", str(run)]
    flags += ["--mixed_precision", "bfloat16", "--distribute", "mirrored"]
    made = run_stages(parse_flags(flags), until="embeddings").embedded()[1]
    assert (made.card["mixed_precision"], made.card["distribute"]) == ("bfloat16", "mirrored over 1 device")
    monkeypatch.setattr("biascxr.embeddings.keras_encoder.Replicas", None)  # this machine has other devices
    assert problems(run, thorough=True, recompute=5) == []
    np.save(run / "03_embeddings" / "vectors.npy", made.vectors * np.float32(1.2))
    assert any("come out differently" in text for text in problems(run, recompute=N))


def test_a_vector_of_another_image_is_found_by_its_key_and_by_making_it_again(run):
    path = run / "03_embeddings" / "vectors.npy"
    vectors = np.load(path)
    np.save(path, vectors[::-1])
    assert any("come out differently" in text for text in problems(run, recompute=N))
    keys = np.load(run / "03_embeddings" / "keys.npy")
    np.save(run / "03_embeddings" / "keys.npy", keys[::-1])
    assert any(f"{N} vectors were made from other images" in text for text in problems(run, thorough=True))


def test_damage_of_any_kind_is_a_line_and_no_crash(run):
    damages = {
        "03_embeddings/keys.npy": b"no array", "03_embeddings/card.json": b"[]", "03_embeddings/vectors.npy": b"x",
    }  # fmt: skip
    for name, content in damages.items():
        kept = (run / name).read_bytes()
        (run / name).write_bytes(content)
        found = problems(run, thorough=True, recompute=2)
        assert any("03_embeddings" in text for text in found), name
        (run / name).write_bytes(kept)
    shard = max((run / "02_records").glob("*.tfrecord-*"), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:200])
    assert any(shard.name in text for text in problems(run, thorough=True, recompute=2))
    assert main(["doctor", str(run), "--recompute", "2"]) == 1


def test_an_interrupted_a_stale_and_a_missing_stage_are_named(run, films):
    (run / ".04_mitigation-0123456789ab.partial").mkdir()
    assert any("left by a run that was interrupted" in text for text in problems(run))
    (run / ".04_mitigation-0123456789ab.partial").rmdir()
    flags = ["--csv_path", str(films / "meta.csv"), "--weights", str(films / "network.keras"), "--image_size", str(SIZE),
             "--labels", "Edema", "--allow", "near_duplicate_vectors",
             "--output_dir", str(run), "--n_workers", "1", "--no_equalize"]  # fmt: skip
    run_stages(parse_flags(flags), until="records")
    assert any("was made from another 02_records" in text for text in problems(run))
    run_stages(parse_flags(flags), until="embeddings")
    assert problems(run, thorough=True) == []


def test_a_stage_of_several_parts_is_there_and_one_that_is_gone_is_named(run):
    for place in ("04_mitigation/erm", "05_leakage"):
        (run / place).mkdir(parents=True)
        (run / place / "manifest.json").write_text('{"outputs": {}}')
    assert problems(run, thorough=True) == []
    shutil.rmtree(run / "04_mitigation")
    (found,) = problems(run)
    assert "04_mitigation: is not there, while later stages are" in found


def test_vectors_that_were_given_are_not_compared_with_records_that_lie_there_from_before(run, films, tmp_path):
    ids = [f"image_{i:03d}" for i in range(N)]
    np.savez(tmp_path / "set.npz", image_ids=np.array(ids), embeddings=np.random.default_rng(0).normal(size=(N, 4)))
    flags = ["--csv_path", str(films / "meta.csv"), "--vectors", str(tmp_path / "set.npz"), "--labels", "Edema",
             "--output_dir", str(run)]  # fmt: skip
    run_stages(parse_flags(flags), until="embeddings")
    assert problems(run, thorough=True, recompute=3) == []


def test_a_missing_shard_and_a_missing_file_are_named(run):
    gone = sorted((run / "02_records").glob("*.tfrecord-*"))[0]
    gone.unlink()
    (run / "01_cohort" / "shift.csv").unlink()
    found = problems(run)
    assert any(gone.name in text for text in found) and any("shift.csv: is gone" in text for text in found)


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(InputError, match="holds no finished stage of a run"):
        list(examine(tmp_path))
    assert main(["doctor", str(tmp_path)]) == 2
