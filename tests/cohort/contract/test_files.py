"""Files are looked at as they are on disk: there or not, the same bytes or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from biascxr.cohort.contract import Evidence
from biascxr.cohort.contract.files import BLOCK, copied_files, missing_files


@pytest.fixture
def on_disk(make_cohort, tmp_path):
    """Function `(contents, splits) -> Evidence`: one file per content, None leaves it out."""

    def make(contents, splits):
        paths = [f"folder{i % 2}/{i}.png" for i in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            if content is not None:
                (tmp_path / path).write_bytes(content)
        cohort = make_cohort([f"i{i}" for i in range(len(contents))], paths, tmp_path, split=splits)
        return Evidence(cohort=cohort, look_at_files=True)

    return make


def large(change_at: int | None = None) -> bytes:
    """Bytes of several blocks, one of them changed."""
    content = np.random.default_rng(0).integers(0, 256, 5 * BLOCK, np.uint8)
    if change_at is not None:
        content[change_at] ^= 1
    return content.tobytes()


def test_one_byte_anywhere_makes_another_file(on_disk):
    contents = [large(), large(0), large(5 * BLOCK // 2), large(5 * BLOCK - 1), large()]
    (found,) = copied_files(on_disk(contents, ["train"] * 4 + ["test"]))
    assert found.is_error and found.count == 2
    assert set(found.examples) == {"folder0/0.png", "folder0/4.png"}


def test_each_kind_of_copy_is_counted_by_itself(on_disk):
    contents = [b"a", b"a", b"b", b"b", b"b", b"c", b"", b"", None, None]
    splits = ["train", "train", "train", "test", "test", "test", "train", "test", "train", "test"]
    across, within = copied_files(on_disk(contents, splits))
    assert (across.is_error, across.count) == (True, 3)
    assert (within.is_error, within.count) == (False, 2)


def test_files_are_opened_only_on_request(on_disk):
    evidence = on_disk([b"a", b"a"], ["train", "test"])
    assert copied_files(evidence) and copied_files(replace(evidence, look_at_files=False)) == []


def test_a_file_listed_twice_is_no_copy_of_itself(on_disk):
    evidence = on_disk([b"a", b"b"], ["train", "test"])
    table = evidence.cohort.table.assign(path="folder0/0.png")
    assert copied_files(replace(evidence, cohort=replace(evidence.cohort, table=table))) == []


def test_files_that_are_missing_are_counted_and_a_folder_is_no_file(on_disk, tmp_path):
    evidence = on_disk([b"a", None, b"c", None], ["train"] * 4)
    (tmp_path / "folder1/3.png").mkdir()
    (found,) = missing_files(evidence)
    assert (found.is_error, found.count) == (False, 2)
    assert found.examples == (str(tmp_path / "folder1/1.png"), str(tmp_path / "folder1/3.png"))
    (tmp_path / "folder1/3.png").rmdir()
    for name in ("1.png", "3.png"):
        (tmp_path / "folder1" / name).write_bytes(b"now there")
    assert missing_files(evidence) == []


def test_nothing_there_at_all_is_an_error(on_disk):
    (found,) = missing_files(on_disk([None] * 12, ["train"] * 12))
    assert found.is_error and found.count == 12 and "--images_root" in found.advice
