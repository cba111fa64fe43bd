"""Shards: the same bytes whatever the number of workers, resumed where they stopped, every image accounted for."""

import csv
import hashlib
import json
import re

import numpy as np
import pytest

from biascxr.cli import parse_flags
from biascxr.config import SPLITS, RecordsConfig
from biascxr.errors import InputError
from biascxr.records import (
    build_records,
    check_rejected,
    decode,
    decode_example,
    read_grey,
    read_records,
    read_rejected,
    shards,
    standardise,
    write_rejected,
)

SMALL = RecordsConfig(image_size=32, rows_per_shard=8)


def contents(folder):
    return {f.name: f.read_bytes() for f in sorted(folder.iterdir()) if f.is_file()}


def records_of(folder, name):
    return [decode_example(data) for data in read_records(folder / name)]


def listed(folder):
    with open(folder / "shards.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def built(cohort, tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    build_records(cohort, SMALL, folder, n_workers=1)
    return folder


def new_folder(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_shards_are_named_in_the_tfds_form_and_listed(built):
    names = [row["name"] for row in listed(built)]
    assert names[0] == "biascxr_generic-train.tfrecord-00000-of-00003"
    assert [int(row["n_records"]) for row in listed(built)] == [8, 8, 4, 6, 4, 8, 2]  # full blocks, and what is left
    assert all(re.fullmatch(r"biascxr_generic-\w+\.tfrecord-\d{5}-of-\d{5}", name) for name in names)
    assert sorted(names) == sorted(f.name for f in built.iterdir() if ".tfrecord" in f.name)
    for row in listed(built):
        assert row["sha256"] == hashlib.sha256((built / row["name"]).read_bytes()).hexdigest()
        assert int(row["n_records"]) == len(records_of(built, row["name"]))


def test_records_hold_the_rows_in_the_tables_order(built, cohort):
    records = [record for row in listed(built) for record in records_of(built, row["name"])]
    assert [r["image_id"][0].decode() for r in records] == cohort.table["image_id"].tolist()
    for row, record in enumerate(records):
        path = cohort.images_root / cohort.table["path"][row]
        np.testing.assert_array_equal(
            decode(record["image"][0]), standardise(read_grey(path), size=SMALL.image_size, equalize=True)
        )
        assert record["sex"][0].decode() == cohort.table["sex"][row]
        np.testing.assert_array_equal(record["age"], np.float32([cohort.table["age"][row]]))
        labels = [record[f"labels/{name}"][0] for name in cohort.label_names]
        np.testing.assert_array_equal(labels, cohort.labels[row])


def test_two_workers_and_a_rerun_write_the_same_bytes(built, cohort, tmp_path):
    again, parallel = new_folder(tmp_path, "again"), new_folder(tmp_path, "parallel")
    build_records(cohort, SMALL, again, n_workers=1)
    build_records(cohort, SMALL, parallel, n_workers=2)
    assert contents(again) == contents(built)
    assert contents(parallel) == contents(built)


def test_an_interrupted_build_keeps_finished_shards_and_redoes_the_rest(built, cohort, tmp_path, monkeypatch):
    folder = new_folder(tmp_path, "resumed")
    read_once = shards.read_prepared
    seen = []

    def stop_after_ten(path, alteration, **settings):
        if len(seen) == 10:
            raise KeyboardInterrupt
        seen.append(path)
        return read_once(path, alteration, **settings)

    monkeypatch.setattr(shards, "read_prepared", stop_after_ten)
    with pytest.raises(KeyboardInterrupt):
        build_records(cohort, SMALL, folder, n_workers=1)
    first = listed(built)[0]
    assert [f.name for f in folder.iterdir() if re.search(r"-of-\d+$", f.name)] == [first["name"]]
    written = (folder / first["name"]).stat().st_mtime_ns

    monkeypatch.setattr(shards, "read_prepared", lambda path, a, **s: seen.append(path) or read_once(path, a, **s))
    del seen[:]
    build_records(cohort, SMALL, folder, n_workers=1)
    assert len(seen) == len(cohort) - int(first["n_records"])
    assert (folder / first["name"]).stat().st_mtime_ns == written
    assert contents(folder) == contents(built)


def test_a_shard_that_changed_since_it_was_finished_is_done_again(built, cohort, tmp_path):
    folder = new_folder(tmp_path, "damaged")
    job = shards.plan_shards(cohort, SMALL, folder)[0]
    report = shards.write_shard(job)
    whole = job.path.read_bytes()
    job.path.write_bytes(whole[:100])
    assert shards.write_shard(job) == report
    assert job.path.read_bytes() == whole


@pytest.fixture
def four_bad(tiny_images):
    """The fault test's four: truncated, zero bytes, missing, text as jpg; and one of 16 bits."""
    data = (tiny_images / "image_001.jpg").read_bytes()
    (tiny_images / "image_001.jpg").write_bytes(data[: len(data) // 2])
    (tiny_images / "image_003.jpg").write_bytes(b"")
    (tiny_images / "image_005.jpg").write_text("not an image")
    return {"image_001": "truncated or damaged jpeg", "image_003": "empty file", "image_005": "not an image"}


def test_bad_images_are_rejected_by_name_and_reason_and_all_else_is_unharmed(built, cohort, tmp_path, four_bad):
    (cohort.images_root / "image_030.png").unlink()
    wanted = four_bad | {"image_030": "missing file"}
    folder = new_folder(tmp_path, "with_bad")
    build_records(cohort, SMALL, folder, n_workers=2)
    rejected = read_rejected(folder)
    assert [r["image_id"] for r in rejected] == sorted(wanted)
    for row in rejected:
        assert row["reason"].startswith(wanted[row["image_id"]])
        assert row["path"].endswith(cohort.table.set_index("image_id")["path"][row["image_id"]])
    good = {
        r["image_id"][0]: r
        for row in listed(built)
        for r in records_of(built, row["name"])
        if r["image_id"][0].decode() not in wanted
    }
    found = {r["image_id"][0]: r for row in listed(folder) for r in records_of(folder, row["name"])}
    assert found.keys() == good.keys()
    assert all(found[image_id]["image"] == good[image_id]["image"] for image_id in good)


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_tfds_reads_the_same_pixels_and_labels_with_no_code_of_ours(cohort, tmp_path, image_format):
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = new_folder(tmp_path, "tfds")
    build_records(cohort, RecordsConfig(image_size=32, rows_per_shard=8, image_format=image_format), folder, n_workers=1)
    builder = tfds.builder_from_directory(folder)
    assert {s: info.num_examples for s, info in builder.info.splits.items()} == dict(zip(SPLITS, (20, 6, 4, 10), strict=True))
    seen = 0
    for split in SPLITS:
        rows = cohort.split_rows(split)
        for row, example in zip(rows, tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)), strict=True):
            path = cohort.images_root / cohort.table["path"][row]
            pixels = standardise(read_grey(path), size=32, equalize=True)
            assert example["image"].shape == (32, 32, 1)
            difference = np.abs(example["image"][..., 0].astype(int) - pixels)
            # TensorFlow decodes JPEG by a faster, coarser cosine transform than OpenCV; PNG is exact.
            assert difference.mean() == 0 if image_format == "png" else 0 < difference.mean() < 5
            np.testing.assert_array_equal([example["labels"][name] for name in cohort.label_names], cohort.labels[row])
            np.testing.assert_array_equal(example["age"], np.float32(cohort.table["age"][row]))
            for name in ("image_id", "study_id", "patient_id", "view", "sex"):
                assert example[name].decode() == cohort.table[name][row]
            seen += 1
    assert seen == len(cohort)


def test_a_shard_whose_images_are_all_rejected_is_empty_and_the_rest_is_read(cohort, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    for path in cohort.table["path"][cohort.split_rows("train")[:8]]:
        (cohort.images_root / path).unlink()
    folder = new_folder(tmp_path, "empty_shard")
    build_records(cohort, SMALL, folder, n_workers=1)
    assert [int(r["n_records"]) for r in listed(folder) if r["split"] == "train"] == [0, 8, 4]
    assert len(read_rejected(folder)) == 8
    builder = tfds.builder_from_directory(folder)
    read = [e["image_id"].decode() for e in tfds.as_numpy(builder.as_dataset(split="train"))]
    assert sorted(read) == cohort.table["image_id"][cohort.split_rows("train")[8:]].tolist()


def test_metadata_says_what_the_features_are(built):
    content = json.loads((built / "features.json").read_text())["featuresDict"]["features"]
    assert {"image", "image_id", "study_id", "patient_id", "view", "sex", "age", "labels"} == set(content)
    assert set(content["labels"]["featuresDict"]["features"]) == {"Edema", "Pleural Effusion"}


def test_equalization_is_an_option(cohort, tmp_path):
    folder = new_folder(tmp_path, "plain")
    build_records(cohort, RecordsConfig(image_size=32, rows_per_shard=40, equalize=False), folder, n_workers=1)
    record = records_of(folder, listed(folder)[0]["name"])[0]
    plain = standardise(read_grey(cohort.images_root / cohort.table["path"][0]), size=32, equalize=False)
    np.testing.assert_array_equal(decode(record["image"][0]), plain)


def reject(folder, names):
    """Writes a `rejected.csv`: all files are missing but the first, which is empty."""
    rows = [
        {"image_id": n, "path": f"{n}.jpg", "reason": "missing file" if i else "empty file (x)"} for i, n in enumerate(names)
    ]
    write_rejected(folder, rows)


class TestTheShareOfBadFiles:
    @pytest.fixture
    def hundred(self, make_cohort, tmp_path):
        names = [str(i) for i in range(100)]
        return make_cohort(names, names, tmp_path)

    def test_up_to_the_share_the_run_goes_on(self, tmp_path, hundred):
        reject(tmp_path, hundred.table["image_id"][:5])
        check_rejected(tmp_path, hundred, 0.05)
        reject(tmp_path, [])
        check_rejected(tmp_path, hundred, 0.0)

    def test_over_the_share_the_run_stops_and_says_why(self, tmp_path, hundred):
        reject(tmp_path, hundred.table["image_id"][:6])
        with pytest.raises(InputError, match=r"6 of 100 files \(6\.0%\) cannot be used: 5 missing file; 1 empty") as error:
            check_rejected(tmp_path, hundred, 0.05)
        assert "--max_rejected_share 0.05" in str(error.value)
        assert "--images_root" in str(error.value)
        assert str(tmp_path / "rejected.csv") in str(error.value)

    def test_with_no_file_left_no_share_lets_it_go_on(self, tmp_path, hundred):
        reject(tmp_path, hundred.table["image_id"])
        with pytest.raises(InputError, match=r"100 of 100 files \(100\.0%\) cannot be used"):
            check_rejected(tmp_path, hundred, 1.0)


class TestASplitThatIsLost:
    def names(self, cohort, split):
        return cohort.table["image_id"][cohort.table["split"] == split].tolist()

    def test_the_run_stops_and_names_it_with_the_reasons(self, cohort, tmp_path):
        reject(tmp_path, [*self.names(cohort, "calibration"), *self.names(cohort, "train")[:3]])
        with pytest.raises(
            InputError, match=r" calibration: all 4 of its files were rejected \(3 missing file; 1 empty file\)\. See"
        ) as error:
            check_rejected(tmp_path, cohort, 0.5)
        assert "train" not in str(error.value) and "image_" not in str(error.value)
        assert str(tmp_path / "rejected.csv") in str(error.value) and "--split_source" not in str(error.value)

    def test_two_are_both_named(self, cohort, tmp_path):
        reject(tmp_path, [*self.names(cohort, "calibration"), *self.names(cohort, "test")])
        for share in (0.5, 0.0):  # also where the share alone would stop it: no share helps
            with pytest.raises(InputError, match=r" calibration: all 4 of .*; test: all 10 of its files were .*source random"):
                check_rejected(tmp_path, cohort, share)

    def test_with_one_image_left_the_run_goes_on(self, cohort, tmp_path):
        reject(tmp_path, self.names(cohort, "calibration")[:3])
        check_rejected(tmp_path, cohort, 0.5)

    def test_a_split_that_was_empty_before_is_not_missed(self, make_cohort, tmp_path):
        names = [f"i{i}" for i in range(10)]
        cohort = make_cohort(names, names, tmp_path, split=["train"] * 8 + ["test"] * 2)
        reject(tmp_path, names[:2])
        check_rejected(tmp_path, cohort, 0.5)

    def test_a_run_says_so_at_the_end_of_the_records_stage(self, tiny_images, biascxr_table):
        from biascxr.pipeline import run_stages

        split = np.repeat(SPLITS, (20, 6, 4, 10))
        paths = sorted(f.name for f in tiny_images.iterdir())
        biascxr_table(40, path=paths, split=split).to_csv(tiny_images / "meta.csv", index=False)
        for name in np.array(paths)[split == "calibration"]:
            (tiny_images / name).write_text("no image")
        flags = ["--csv_path", str(tiny_images / "meta.csv"), "--image_size", "32", "--n_workers", "1", "--weights", "random"]
        flags += ["--max_rejected_share", "0.5", "--split_source", "table", "--output_dir", str(tiny_images / "run")]
        with pytest.raises(InputError, match=r"calibration: all 4 of its files were rejected \(4 not an image\)"):
            run_stages(parse_flags(flags), until="records")
        assert len(read_rejected(tiny_images / "run" / "02_records")) == 4  # the stage is kept
