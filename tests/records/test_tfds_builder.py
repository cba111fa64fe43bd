"""`tfds build` and `tfds.load` copy a run's records under TensorFlow Datasets' own paths: the same features, splits, bytes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from biascxr.config import SPLITS, RecordsConfig
from biascxr.errors import InputError
from biascxr.records import build_records, decode_example, read_records
from biascxr.records.shard_list import read_shard_list

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture(params=["png", "jpeg"])
def built(cohort, tmp_path, request):
    folder = tmp_path / "run" / "02_records"
    folder.mkdir(parents=True)
    build_records(cohort, RecordsConfig(image_size=32, rows_per_shard=8, image_format=request.param), folder, n_workers=1)
    return folder


def features_of(folder):
    return json.loads((folder / "features.json").read_text())


def held(folder, split):
    """What our own reader finds in a split, by image."""
    records = [decode_example(d) for s in read_shard_list(folder) if s.split == split for d in read_records(folder / s.name)]
    return {record["image_id"][0].decode(): record for record in records}


def require_the_same(folder, copy):
    """Compares a copy, which TensorFlow Datasets reads from its files alone, with the records that it was made from."""
    builder = tfds.builder_from_directory(copy)
    assert features_of(copy) == features_of(folder)
    assert set(builder.info.splits) == set(SPLITS)
    assert "written by biascxr" in builder.info.description
    for split in SPLITS:
        wanted = held(folder, split)
        found = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        found = {example["image_id"].decode(): example for example in tfds.as_numpy(found)}
        assert found.keys() == wanted.keys() and len(found) == builder.info.splits[split].num_examples
        for image_id, example in found.items():
            record = wanted[image_id]
            assert example["image"] == record["image"][0]  # the very bytes: a JPEG is not compressed twice
            assert all(example[name] == record[name][0] for name in ("study_id", "patient_id", "view", "sex"))
            np.testing.assert_array_equal(example["age"], record["age"][0])
            for name, value in example["labels"].items():
                np.testing.assert_array_equal(value, record[f"labels/{name}"][0])


def test_tfds_load_builds_a_copy_that_is_read_without_the_records(built, tmp_path):
    from biascxr.tfds_builder import RecordsFolder

    config = RecordsFolder(name="mine", folder=str(built))
    data = tfds.load("biascxr_records", data_dir=tmp_path / "data", split="train", builder_kwargs={"config": config})
    assert sorted(e["image_id"].decode() for e in tfds.as_numpy(data)) == sorted(held(built, "train"))
    require_the_same(built, tmp_path / "data" / "biascxr_records" / "mine" / "1.0.0")
    built.rename(tmp_path / "away")
    again = tfds.load("biascxr_records/mine", data_dir=tmp_path / "data", split="train")
    assert next(iter(tfds.as_numpy(again)))["image"].shape == (32, 32, 1)


@pytest.mark.parametrize("built", ["png"], indirect=True)
def test_tfds_build_does_so_from_the_command_line(built, tmp_path):
    # The command itself: its program, `tfds`, wants apache-beam before it looks at what it was asked for.
    from tensorflow_datasets.scripts.cli import build, cli_utils

    config = json.dumps({"name": "mine", "folder": str(built)})
    flags = ["--imports", "biascxr.tfds_builder", "--config", config, "--data_dir", str(tmp_path / "data")]
    cli_utils.make_flags_parser(build.Args, description="")(["tfds build", "biascxr_records", *flags]).execute()
    require_the_same(built, tmp_path / "data" / "biascxr_records" / "mine" / "1.0.0")


@pytest.mark.parametrize("built", ["png"], indirect=True)
def test_records_that_are_not_there_or_not_whole_are_said(built, tmp_path):
    from biascxr.tfds_builder import BiascxrRecords, RecordsFolder

    with pytest.raises(InputError, match=r"is no folder of records: it has no shards\.csv"):
        BiascxrRecords(config=RecordsFolder(name="none", folder=str(tmp_path / "none")), data_dir=tmp_path / "data")
    next(built.glob("*test*00001-of-00002")).unlink()
    with pytest.raises(InputError, match=r"1 of 7 shards cannot be used: .*-test.tfrecord-00001-of-00002 \(missing\)"):
        BiascxrRecords(config=RecordsFolder(name="mine", folder=str(built)), data_dir=tmp_path / "data")


def test_the_package_does_not_import_it():
    check = "import biascxr.records, biascxr.records.metadata, sys; sys.exit('tensorflow_datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
