"""`python -m biascxr.inspect_tfrecord FILE...`: an answer for our records and anyone else's, an error for what is none."""

import subprocess
import sys

import numpy as np
import pytest

from biascxr.config import RecordsConfig
from biascxr.inspect_tfrecord import inspect_file, main
from biascxr.records import RecordError, build_records, encode_example, write_record
from biascxr.records.image import encode


def write(path, *records):
    with open(path, "wb") as file:
        for features in records:
            write_record(file, encode_example(features))
    return path


@pytest.fixture
def our_shard(tiny_images, make_cohort, tmp_path):
    files = sorted(f.name for f in tiny_images.iterdir())
    split = ["train"] * 25 + ["validation", "calibration", "test"] * 5
    cohort = make_cohort([f.split(".")[0] for f in files], files, tiny_images, split=split)
    folder = tmp_path / "records"
    folder.mkdir()
    build_records(cohort, RecordsConfig(image_size=48), folder, n_workers=1)
    return folder / "biascxr_generic-train.tfrecord-00000-of-00001"


def foundation(seed, length=1376):
    vector = np.random.default_rng(seed).normal(size=length).astype(np.float32)
    return {"embedding": vector, "image/id": f"gs://bucket/{seed}.dcm"}


def test_our_shard_agrees_with_its_schema(our_shard, capsys):
    assert main([str(our_shard)]) == 0
    answer = capsys.readouterr().out
    assert "25 records" in answer
    assert "schema: TensorFlow Datasets (features.json beside the file)" in answer
    assert "agrees with the schema" in answer
    assert "disagrees" not in answer
    assert "PNG 48x48, pixels 0 to 255" in answer
    for key in ("age", "image", "image_id", "labels/Edema", "labels/Pleural Effusion", "patient_id", "sex", "study_id", "view"):
        assert f"\n  {key} " in answer


def test_our_shard_key_by_key(our_shard):
    summary = inspect_file(our_shard)
    assert summary.n_records == 25
    assert summary.n_bytes == our_shard.stat().st_size
    assert {key: next(iter(s.types)) for key, s in summary.keys.items()} == {
        **dict.fromkeys(["image", "image_id", "patient_id", "sex", "study_id", "view"], "bytes"),
        **dict.fromkeys(["age", "labels/Edema", "labels/Pleural Effusion"], "float"),
    }
    assert all(s.n_records == 25 and s.lengths == {1} for s in summary.keys.values())
    assert summary.keys["image_id"].sample == "'image_000'"
    assert summary.disagreements == []


def test_what_disagrees_with_our_schema_is_said(our_shard):
    write(our_shard, {"image_id": "a", "age": 3, "extra": 1.0, "sex": "F", "view": "AP", "study_id": "s", "patient_id": "p"})
    found = inspect_file(our_shard).disagreements
    assert "image: expected by the schema, absent" in found
    assert "labels/Edema: expected by the schema, absent" in found
    assert "age: expected float, found int64" in found
    assert "extra: not in the schema" in found
    assert not any(line.startswith(("sex", "view", "image_id")) for line in found)


def test_a_cxr_foundation_file(tmp_path, capsys):
    path = write(tmp_path / "a.tfrecord", foundation(1))
    assert main([str(path)]) == 0
    answer = capsys.readouterr().out
    assert "1 record" in answer
    assert "schema: CXR Foundation vectors" in answer
    assert "[1376]" in answer
    assert "'gs://bucket/1.dcm'" in answer
    assert "agrees with the schema" in answer


def test_a_cxr_foundation_file_of_another_length_or_with_nan_disagrees(tmp_path):
    bad = foundation(2)
    bad["embedding"][5] = np.nan
    assert inspect_file(write(tmp_path / "a.tfrecord", foundation(1, 512))).disagreements == [
        "embedding: expected length 1376, found 512"
    ]
    assert inspect_file(write(tmp_path / "b.tfrecord", foundation(1), bad)).disagreements == [
        "embedding: NaN or infinite values in 1 records"
    ]
    assert inspect_file(write(tmp_path / "c.tfrecord", {"embedding": foundation(1)["embedding"]})).disagreements == [
        "image/id: expected by the schema, absent"
    ]


def test_mimic_racial_fairness_records(tmp_path, make_image):
    record = {"jpg_bytes": encode(make_image(0), "jpeg"), "subject_id": 10000032, "study_id": 50414267, "ethnicity": 0}
    summary = inspect_file(write(tmp_path / "a.tfrecord", record, {**record, "ethnicity": 3}))
    assert summary.form == "MIMIC Racial Fairness images"
    assert summary.keys["jpg_bytes"].sample.startswith("JPEG 90x70, pixels ")
    assert summary.keys["subject_id"].sample == "10000032"  # every digit of an identifier


def test_someone_elses_records_are_compared_with_each_other(tmp_path):
    path = write(
        tmp_path / "a.tfrecord",
        {"x": np.zeros(3, np.float32), "y": 1, "note": "a"},
        {"x": np.zeros(4, np.float32), "y": "text"},
    )
    summary = inspect_file(path)
    assert summary.form.startswith("no known form")
    assert set(summary.disagreements) == {
        "note: in 1 of 2 records only",
        "x: several lengths (3 to 4)",
        "y: several types (bytes, int64)",
    }


def test_records_written_by_tensorflow_datasets_agree_with_their_metadata(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(8, 8, 1)), "v": tfds.features.Tensor(shape=(4,), dtype=np.float32), "n": np.int64}
    )
    path = tmp_path / "toy-train.tfrecord-00000-of-00001"
    with open(path, "wb") as file:
        for n in range(3):
            example = {"image": np.full((8, 8, 1), n, np.uint8), "v": np.ones(4, np.float32), "n": n}
            write_record(file, features.serialize_example(features.encode_example(example)))
    features.save_config(str(tmp_path))
    summary = inspect_file(path)
    assert summary.n_records == 3
    assert summary.form.startswith("TensorFlow Datasets")
    assert summary.disagreements == []


def test_a_text_file_renamed_is_one_clear_error(tmp_path, capsys):
    path = tmp_path / "notes.tfrecord"
    path.write_text("subject_id,study_id,dicom_id,path\n1,2,3,a.jpg\n")
    assert main([str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{path}: not a TFRecord file (no valid header)\n"


def test_one_bad_file_does_not_hide_the_others(tmp_path, capsys):
    good = write(tmp_path / "good.tfrecord", foundation(1))
    bad = tmp_path / "bad.tfrecord"
    bad.write_bytes(good.read_bytes()[:-7])
    assert main([str(bad), str(tmp_path / "none.tfrecord"), str(tmp_path), str(good)]) == 1
    out, err = capsys.readouterr()
    assert str(good) in out
    assert f"{bad}: cut off inside record 0" in err
    assert "none.tfrecord: No such file or directory" in err
    assert f"{tmp_path}: Is a directory" in err


def test_a_file_without_records_says_so(tmp_path):
    summary = inspect_file(write(tmp_path / "a.tfrecord"))
    assert summary.n_records == 0
    assert summary.disagreements == ["the file holds no record"]


def test_records_that_hold_no_examples_are_an_error(tmp_path):
    path = tmp_path / "a.tfrecord"
    with open(path, "wb") as file:
        write_record(file, b"\xff\xff\xff\xff")
    with pytest.raises(RecordError, match="not a serialized"):
        inspect_file(path)


@pytest.mark.parametrize("content", ["{not json", "[1, 2]"])
def test_a_features_json_that_is_none_is_an_error_not_a_guess(tmp_path, content):
    path = write(tmp_path / "a.tfrecord", foundation(1))
    (tmp_path / "features.json").write_text(content)
    with pytest.raises(RecordError, match=r"features\.json beside the file cannot be read as a schema"):
        inspect_file(path)


def test_as_a_command_it_answers_and_loads_no_tensorflow(tmp_path):
    path = write(tmp_path / "a.tfrecord", foundation(1))
    code = (
        "import sys; from biascxr.inspect_tfrecord import main; status = main(sys.argv[1:]); "
        "sys.exit(status or 3 * ('tensorflow' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-m", "biascxr.inspect_tfrecord", str(path)], capture_output=True, text=True)
    assert done.returncode == 0
    assert "CXR Foundation vectors" in done.stdout
