"""A missing or half shard is found and named, and quickly."""

import time

import pytest

from biascxr.config import RecordsConfig
from biascxr.errors import InputError
from biascxr.records import build_records, check_shards, require_shards, shard_list
from biascxr.records.shard_list import SHARDS, Shard, ShardProblem, ShardReport, read_shard_list, write_shard_list


@pytest.fixture
def built(tiny_images, make_cohort, tmp_path):
    files = sorted(f.name for f in tiny_images.iterdir())
    folder = tmp_path / "records"
    folder.mkdir()
    cohort = make_cohort([f.split(".")[0] for f in files], files, tiny_images)
    build_records(cohort, RecordsConfig(image_size=32, rows_per_shard=5), folder, n_workers=1)
    return folder


def test_whole_records_have_no_problem(built):
    assert check_shards(built) == check_shards(built, thorough=True) == []
    require_shards(built, thorough=True)


def test_missing_half_and_damaged_shards_are_named_with_what_is_wrong(built):
    names = [shard.name for shard in read_shard_list(built)]
    assert len(names) == 8
    (built / names[0]).unlink()
    data = (built / names[3]).read_bytes()
    (built / names[3]).write_bytes(data[: len(data) // 2])
    (built / names[5]).write_bytes((built / names[5]).read_bytes() * 2)
    data = bytearray((built / names[6]).read_bytes())
    data[-20] ^= 1
    (built / names[6]).write_bytes(data)
    (built / names[7]).write_bytes(b"")

    found = {problem.name: problem.reason for problem in check_shards(built)}
    assert list(found) == [names[i] for i in (0, 3, 5, 7)]  # the changed bit is seen by its checksum only
    assert found[names[0]] == "missing"
    assert "bytes instead of" in found[names[3]] and "cut off inside record 2" in found[names[3]]
    assert found[names[5]].endswith("10 whole records, listed 5")
    assert found[names[7]].startswith("0 bytes instead of") and found[names[7]].endswith("0 whole records, listed 5")

    thorough = check_shards(built, thorough=True)
    assert [p.name for p in thorough] == [names[i] for i in (0, 3, 5, 6, 7)]
    assert thorough[3] == ShardProblem(names[6], "other bytes than when it was written (SHA-256): record 4 is damaged (CRC)")

    with pytest.raises(InputError, match=r"4 of 8 shards cannot be used") as error:
        require_shards(built)
    assert all(names[i] in str(error.value) for i in (0, 3, 5, 7))
    assert f"Delete {built / 'manifest.json'} and run again" in str(error.value)


def test_a_long_list_of_problems_is_cut(built):
    for shard in read_shard_list(built):
        (built / shard.name).unlink()
    with pytest.raises(InputError, match=r"8 of 8 shards .*; and 3 more"):
        require_shards(built)


def test_a_folder_without_a_list_or_with_a_broken_one_is_said(built):
    with pytest.raises(InputError, match=r"is no folder of records: it has no shards\.csv"):
        check_shards(built / "nowhere")
    (built / SHARDS).write_text("name,split,n_records,sha256\na,train,3,abc\n")
    with pytest.raises(InputError, match=r"is not a list of shards \(name, split"):
        check_shards(built)
    (built / SHARDS).write_text("name,split,n_records,n_bytes,sha256\na,train,many,3,abc\n")
    with pytest.raises(InputError, match="is not a list of shards"):
        check_shards(built)


def test_the_quick_check_reads_no_shard(built, monkeypatch):
    monkeypatch.setattr(shard_list, "file_digest", None)
    monkeypatch.setattr(shard_list, "read_records", None)
    assert check_shards(built) == []


def test_shards_of_a_quarter_of_a_million_images_are_checked_in_a_second(tmp_path):
    reports = []
    for i in range(1000):
        (tmp_path / f"shard-{i}").write_bytes(b"1234")
        reports.append(ShardReport(Shard(f"shard-{i}", "train", 256, 4, "0" * 64), str(i), []))
    write_shard_list(tmp_path, reports)
    start = time.perf_counter()
    assert check_shards(tmp_path) == []
    assert time.perf_counter() - start < 1
