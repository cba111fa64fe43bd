"""TensorFlow Datasets reads the records, of images and of augmented views, with no code of ours."""

import dataclasses
import json

import numpy as np
import pytest

from biascxr.cohort.views import plan_views, views_as_cohort
from biascxr.config import RecordsConfig
from biascxr.errors import InputError
from biascxr.records import build_records, decode, decode_example, link_for_tfds, read_records
from biascxr.records.shard_list import read_shard_list

tfds = pytest.importorskip("tensorflow_datasets")
SMALL = RecordsConfig(image_size=32, rows_per_shard=16)


@pytest.fixture
def cohort(tiny_images, make_cohort):
    files = sorted(f.name for f in tiny_images.iterdir())
    return make_cohort([f.split(".")[0] for f in files], files, tiny_images)


@pytest.fixture
def built(cohort, tmp_path):
    folder = tmp_path / "run" / "02_records"
    folder.mkdir(parents=True)
    build_records(cohort, SMALL, folder, n_workers=1)
    return folder


def test_tfds_load_reads_a_linked_folder(built, cohort, tmp_path):
    name = link_for_tfds(built, tmp_path / "tensorflow_datasets")
    assert name == "biascxr_generic:1.0.0"
    for asked in (name, "biascxr_generic"):
        data, info = tfds.load(asked, data_dir=tmp_path / "tensorflow_datasets", split="train", with_info=True)
        assert info.splits["train"].num_examples == len(cohort)
        assert sorted(e["image_id"].decode() for e in tfds.as_numpy(data)) == sorted(cohort.table["image_id"])
    assert link_for_tfds(built, tmp_path / "tensorflow_datasets") == name


def test_a_link_is_made_anew_where_its_run_is_gone_and_refused_where_other_records_are(built, tmp_path):
    place = tmp_path / "data" / "biascxr_generic" / "1.0.0"
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "gone")
    link_for_tfds(built, tmp_path / "data")
    assert place.samefile(built)
    place.unlink()
    place.mkdir()
    with pytest.raises(InputError, match="holds other records already"):
        link_for_tfds(built, tmp_path / "data")
    with pytest.raises(InputError, match=r"no folder of records: it has no dataset_info\.json"):
        link_for_tfds(tmp_path, tmp_path / "data")


def test_every_feature_is_documented(built):
    features = json.loads((built / "features.json").read_text())["featuresDict"]["features"]
    labels = features.pop("labels")["featuresDict"]["features"]
    for name, feature in (features | labels).items():
        assert feature.get("description"), name
    assert features["image"]["description"] == "8-bit grey radiograph, 32 x 32 by area, then histogram equalized"
    info = json.loads((built / "dataset_info.json").read_text())
    assert "32 x 32 by area, then histogram equalized" in info["description"]
    shards = read_shard_list(built)
    assert info["splits"][0]["shardLengths"] == [str(s.n_records) for s in shards]
    assert info["splits"][0]["numBytes"] == str(sum(s.n_bytes for s in shards))


def test_augmented_views_are_read_too(cohort, tmp_path):
    cohort = dataclasses.replace(cohort, table=cohort.table.assign(sex=["M"] * 10 + ["F"] * 30))
    plan = plan_views(
        cohort, attributes=("sex",), max_views=3, min_cell=1, max_rotation=15, max_shift=0.05, max_contrast=0.2,
        max_brightness=0.1, seed=0,
    )  # fmt: skip
    views = views_as_cohort(cohort, plan)
    assert len(views) > 0
    folder = tmp_path / "views"
    folder.mkdir()
    build_records(views, SMALL, folder, n_workers=1)
    ours = {}
    for shard in read_shard_list(folder):
        for data in read_records(folder / shard.name):
            record = decode_example(data)
            ours[record["image_id"][0].decode()] = decode(record["image"][0])
    read = {
        e["image_id"].decode(): e["image"][..., 0]
        for e in tfds.as_numpy(tfds.builder_from_directory(folder).as_dataset(split="train"))
    }
    assert read.keys() == ours.keys() == set(views.table["image_id"])
    assert all("#view" in name for name in read)
    for name in read:
        np.testing.assert_array_equal(read[name], ours[name])
