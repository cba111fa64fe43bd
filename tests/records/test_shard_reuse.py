"""What changed is written again, and nothing else: one image costs one shard, an appended row the last of its split."""

import dataclasses
import os
import shutil

import pytest

from biascxr.config import RecordsConfig
from biascxr.errors import InputError
from biascxr.records import build_records, check_shards, read_rejected, shards
from biascxr.records.shard_list import KEYS, SHARDS, read_shard_list
from biascxr.run_folder import RunFolder

SMALL = RecordsConfig(image_size=32, rows_per_shard=8)


@pytest.fixture
def read(monkeypatch):
    """The images that were read since the start of the test."""
    read_once, names = shards.read_prepared, []

    def noting(path, alteration, **settings):
        names.append(path.name)
        return read_once(path, alteration, **settings)

    monkeypatch.setattr(shards, "read_prepared", noting)
    return names


@pytest.fixture
def make(cohort, tmp_path):
    def build(name, *, of=cohort, config=SMALL, **options):
        folder = tmp_path / name
        folder.mkdir()
        build_records(of, config, folder, n_workers=1, **options)
        assert check_shards(folder, thorough=True) == []
        return folder

    return build


def contents(folder, but=()):
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name not in but}


def shard_of(cohort, folder, image):
    """The name of the shard that holds an image, and the images it holds."""
    for job in shards.plan_shards(cohort, SMALL, folder):
        if image in job.image_paths:
            return job.path.name, job.image_paths
    raise AssertionError(image)


def test_with_nothing_changed_no_image_is_read_and_the_files_are_links(make, read):
    first = make("first")
    del read[:]
    second = make("second", earlier=first)
    assert read == []
    assert contents(second) == contents(first)
    for shard in read_shard_list(first):
        assert (second / shard.name).samefile(first / shard.name)


def test_one_changed_image_costs_its_shard_only(make, cohort, read, make_image):
    import cv2

    first = make("first")
    del read[:]
    name, of_shard = shard_of(cohort, first, "image_009.jpg")
    cv2.imwrite(str(cohort.images_root / "image_009.jpg"), make_image(77, (64, 64)))
    second = make("second", earlier=first)
    assert read == of_shard and len(of_shard) == 8
    assert contents(second) == contents(make("from nothing"))
    changed = {n for n, data in contents(second).items() if data != contents(first).get(n)}
    assert {n for n in changed if ".tfrecord" in n} == {name}


def test_a_touched_image_costs_its_shard_and_changes_nothing_that_a_later_stage_reads(make, cohort, read):
    first = make("first")
    del read[:]
    os.utime(cohort.images_root / "image_009.jpg", ns=(1, 1))
    second = make("second", earlier=first)
    assert len(read) == 8
    assert contents(second, but=[KEYS]) == contents(first, but=[KEYS])
    assert (second / KEYS).read_bytes() != (first / KEYS).read_bytes()


def test_a_changed_label_attribute_or_age_costs_its_shard_only(make, cohort, read):
    first = make("first")
    labels = cohort.labels.copy()
    labels[9, 0] = 1 - labels[9, 0]
    for name, other in (
        ("labels", dataclasses.replace(cohort, labels=labels)),
        ("sex", dataclasses.replace(cohort, table=cohort.table.assign(sex=["M", *cohort.table["sex"][1:]]))),
        ("age", dataclasses.replace(cohort, table=cohort.table.assign(age=[44.0, *cohort.table["age"][1:]]))),
    ):
        del read[:]
        made = make(name, of=other, earlier=first)
        assert len(read) == 8, name
        assert contents(made) == contents(make(f"{name} from nothing", of=other))


@pytest.mark.parametrize(
    "config",
    [
        RecordsConfig(image_size=33, rows_per_shard=8),
        RecordsConfig(image_size=32, rows_per_shard=8, equalize=False),
        RecordsConfig(image_size=32, rows_per_shard=8, image_format="jpeg"),
    ],
    ids=["size", "equalize", "format"],
)
def test_another_setting_writes_all_of_it_again(make, cohort, read, config):
    first = make("first")
    del read[:]
    make("second", config=config, earlier=first)
    assert len(read) == len(cohort)


@pytest.mark.parametrize(("name", "one", "other"), [("rows_per_shard", 20, 40), ("max_rejected_share", 0.05, 0.5)])
def test_a_setting_that_decides_no_byte_writes_nothing_again(make, read, name, one, other):
    # no split has more than 20 rows: one shard each, with 20 rows a shard and with 40
    first = make("first", config=dataclasses.replace(SMALL, **{name: one}))
    del read[:]
    second = make("second", config=dataclasses.replace(SMALL, **{name: other}), earlier=first)
    assert read == []
    assert contents(second) == contents(first)


@pytest.fixture
def make_rows(tiny_images, make_cohort):
    """Function `(n_train, n_appended)`: so many train rows, six of validation, and then rows appended to the table."""
    files = sorted(f.name for f in tiny_images.iterdir())

    def rows(n_train, n_appended=0, split="train"):
        splits = ["train"] * n_train + ["validation"] * 6 + [split] * n_appended
        names = files[: len(splits)]
        return make_cohort([f.split(".")[0] for f in names], names, tiny_images, split=splits)

    return rows


@pytest.mark.parametrize(
    ("n_train", "n_read", "n_shards"), [(20, 5, 3), (23, 8, 3), (24, 1, 4)], ids=["put into", "fills", "begins a shard"]
)
def test_an_appended_row_costs_the_last_shard_of_its_split(make, make_rows, read, n_train, n_read, n_shards):
    first = make("first", of=make_rows(n_train))
    del read[:]
    second = make("second", of=make_rows(n_train, 1), earlier=first)
    assert len(read) == n_read
    *kept, last, of_validation = read_shard_list(second)
    assert len(kept) == n_shards - 1 and last.split == "train" and last.n_records == n_read
    formers = {shard.sha256: first / shard.name for shard in read_shard_list(first)}
    for shard in (*kept, of_validation):  # under another name, where their number grew
        assert (second / shard.name).samefile(formers[shard.sha256])
    assert last.sha256 not in formers
    assert contents(second) == contents(make("from nothing", of=make_rows(n_train, 1)))


def test_a_shard_taken_over_under_another_name_still_says_what_was_rejected(make, make_rows, read, tiny_images):
    (tiny_images / "image_009.jpg").write_text("no image")
    first = make("first", of=make_rows(16))
    del read[:]
    second = make("second", of=make_rows(16, 1), earlier=first)
    assert len(read) == 1
    assert [row["image_id"] for row in read_rejected(second)] == ["image_009"]
    assert [shard.n_records for shard in read_shard_list(second)] == [8, 7, 1, 6]


def test_a_split_that_appears_leaves_the_shards_of_the_others(make, make_rows, read):
    first = make("first", of=make_rows(12))
    del read[:]
    make("second", of=make_rows(12, 3, split="test"), earlier=first)
    assert len(read) == 3


def test_other_code_or_another_library_writes_all_of_it_again(make, cohort, read, monkeypatch):
    first = make("first")
    for name, other in (("code_digest", lambda names: "other"), ("version", lambda name: "0.1")):
        del read[:]
        with monkeypatch.context() as patch:
            patch.setattr(shards, name, other)
            make(name, earlier=first)
        assert len(read) == len(cohort), name


def test_images_under_another_root_are_read_anew(make, cohort, read, tmp_path):
    first = make("first")
    shutil.copytree(cohort.images_root, tmp_path / "moved")  # equal names, sizes and times
    n_before = len(read)
    make("again", of=dataclasses.replace(cohort, images_root=tmp_path / "moved"), earlier=first)
    assert len(read) == 2 * n_before


def test_a_worker_that_sees_other_images_than_the_plan_stops_the_run_and_rejects_none(cohort, tmp_path):
    (job, *_) = shards.plan_shards(cohort, SMALL, tmp_path)
    (cohort.images_root / job.image_paths[2]).unlink()
    with pytest.raises(InputError, match="the images of a shard are others than where the run was started"):
        shards.write_shard(job)
    assert not job.path.exists()


def test_an_altered_row_costs_its_shard_only(make, cohort, read):
    plain = dataclasses.replace(cohort, table=cohort.table.assign(marker=False))
    marked = dataclasses.replace(cohort, table=cohort.table.assign(marker=[i == 9 for i in range(len(cohort))]))
    first = make("first", of=plain)
    del read[:]
    second = make("second", of=marked, earlier=first)
    assert len(read) == 8
    assert contents(second) == contents(make("from nothing", of=marked))


def test_what_was_rejected_is_still_said(make, cohort, read):
    (cohort.images_root / "image_009.jpg").write_text("no image")
    (cohort.images_root / "image_030.png").unlink()
    first = make("first")
    del read[:]
    second = make("second", earlier=first)
    assert read == []
    assert [r["image_id"] for r in read_rejected(second)] == ["image_009", "image_030"]
    assert contents(second) == contents(first)


def test_an_image_that_appears_is_read(make, cohort, read, tmp_path):
    shutil.move(cohort.images_root / "image_009.jpg", tmp_path / "away")
    first = make("first")
    shutil.move(tmp_path / "away", cohort.images_root / "image_009.jpg")
    del read[:]
    second = make("second", earlier=first)
    assert len(read) == 8 and read_rejected(second) == []


def test_a_former_shard_that_is_damaged_is_not_taken_over(make, cohort, read):
    first = make("first")
    whole = contents(first)
    names = [shard.name for shard in read_shard_list(first)]
    damaged = bytearray(whole[names[1]])
    damaged[len(damaged) // 2] ^= 1
    (first / names[1]).write_bytes(damaged)
    (first / names[4]).unlink()
    (first / names[5]).write_bytes(whole[names[5]][:-10])
    del read[:]
    second = make("second", earlier=first)
    assert len(read) == sum(s.n_records for s in read_shard_list(first) if s.name in (names[1], names[4], names[5]))
    assert contents(second) == whole


@pytest.mark.parametrize("harm", ["empty", "no keys", "old list", "cut list"])
def test_a_former_folder_that_says_too_little_is_as_none(make, cohort, read, harm):
    first = make("first")
    if harm == "empty":
        for path in first.iterdir():
            path.unlink()
    elif harm == "no keys":
        (first / KEYS).unlink()
    elif harm == "old list":
        (first / SHARDS).write_text("name,split,n_records,sha256\na,train,3,abc\n")
    else:
        (first / SHARDS).write_bytes((first / SHARDS).read_bytes()[:60])
    del read[:]
    make("second", earlier=first)
    assert len(read) == len(cohort)


def test_where_no_link_can_be_made_the_shard_is_copied(make, read, monkeypatch):
    first = make("first")
    del read[:]
    monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError("no links here")))
    second = make("second", earlier=first)
    assert read == []
    assert contents(second) == contents(first)
    assert not any((second / s.name).samefile(first / s.name) for s in read_shard_list(first))


def test_a_run_stopped_after_its_last_shard_reads_nothing_again(make, cohort, read):
    folder = make("first")
    wanted = contents(folder)
    del read[:]
    build_records(cohort, SMALL, folder, n_workers=1)  # the markers of finished shards are gone by then
    assert read == []
    assert contents(folder) == wanted


def test_a_stage_takes_over_from_the_folder_that_it_replaces(cohort, read, tmp_path):
    run = RunFolder(tmp_path / "run")

    def stage(key):
        return run.stage(
            "records",
            lambda folder: build_records(cohort, SMALL, folder, n_workers=1, earlier=run.path / "02_records"),
            inputs={"key": key},
            settings={},
            code=("records",),
        )

    first = contents(stage(1), but=["manifest.json"])
    del read[:]
    assert contents(stage(2), but=["manifest.json"]) == first
    assert read == []
    (run.path / "02_records" / "manifest.json").unlink()  # what `require_shards` says to do about a damaged shard
    name = read_shard_list(run.path / "02_records")[2].name
    (run.path / "02_records" / name).unlink()
    assert contents(stage(2), but=["manifest.json"]) == first
    assert len(read) == 4
