"""Which files of a folder are TFRecords, and which shards that should be there are not, or are not whole.

TensorFlow Datasets says `Missing shard files` and no more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from biascxr.records.tfrecord import RecordError

_NAME = re.compile(r".+\.(tfrecords?|tfrec)(-\d+-of-\d+)?", re.IGNORECASE)
_SHARD = re.compile(r"(.*?)(\d+)-of-(\d+)(.*)")
INFO_FILE = "dataset_info.json"
MOST_SHARDS = 100_000  # a name that claims more is no shard's


def is_tfrecord_name(name: str) -> bool:
    """Returns whether a file of this name is a TFRecord file: `.tfrecord`, `.tfrecords`, `.tfrec`, shards of these."""
    return _NAME.fullmatch(name) is not None


def tfrecord_files(path: Path) -> list[Path]:
    """Returns a file itself, or the TFRecord files in and below a folder, by name.

    Raises:
        RecordError: a folder without any, and without a dataset's description that names some.
    """
    if not path.is_dir():
        return [path]
    files = sorted(f for f in path.rglob("*") if is_tfrecord_name(f.name) and f.is_file())
    if not files and not any(path.rglob(INFO_FILE)):
        raise RecordError("no TFRecord file in this folder (.tfrecord, .tfrecords, .tfrec, or shards of these)")
    return files


def expected_shards(folder: Path) -> dict[Path, int]:
    """Returns the shards that a TensorFlow Datasets folder must hold and their numbers of records.

    Args:
        folder: a folder with `dataset_info.json`; without one nothing is expected.

    Raises:
        RecordError: `dataset_info.json` is no such description.
    """
    path = folder / INFO_FILE
    if not path.is_file():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        expected: dict[Path, int] = {}
        for split in info.get("splits", []):
            lengths = [int(n) for n in split.get("shardLengths", [])]
            template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
            for index, length in enumerate(lengths):
                shard, count = f"{index:05d}", f"{len(lengths):05d}"
                values = {
                    "DATASET": info.get("name", ""),
                    "SPLIT": split.get("name", ""),
                    "FILEFORMAT": info.get("fileFormat") or "tfrecord",
                    "SHARD_INDEX": shard,
                    "NUM_SHARDS": count,
                    "SHARD_X_OF_Y": f"{shard}-of-{count}",
                }
                name = re.sub(r"\{(\w+)\}", lambda m, v=values: v.get(m[1], m[0]), template)
                expected[folder / Path(name).name] = length  # a description may not lead out of its folder
        return expected
    except (ValueError, AttributeError, TypeError) as error:
        raise RecordError(f"{INFO_FILE} beside the file cannot be read as a description of shards: {error}") from error


def missing_shards(files: Iterable[Path], *, folders: Iterable[Path] = ()) -> dict[Path, str]:
    """Returns which shards are not there, and by what it is known.

    Args:
        files: the files that are there; their folders' `dataset_info.json` says what else must be, and so does the name of a
            shard, `...-00003-of-00010`.
        folders: further folders whose description counts, though none of their shards may be there.

    Raises:
        RecordError: a `dataset_info.json` cannot be read.
    """
    present = {Path(file) for file in files}
    missing: dict[Path, str] = {}
    for folder in sorted({*(file.parent for file in present), *folders}):
        for path, length in expected_shards(folder).items():
            if path not in present and not path.exists():
                missing[path] = f"missing shard ({INFO_FILE} says {length:,} records)"
    families = {}  # one file for each set of shards
    for file in sorted(present):
        if shard := _SHARD.fullmatch(file.name):
            families.setdefault((file.parent, shard[1], len(shard[2]), shard[3], shard[4]), file)
    for folder, before, width, count, after in families:
        for index in range(int(count)) if int(count) <= MOST_SHARDS else ():
            path = folder / f"{before}{index:0{width}d}-of-{count}{after}"
            if path not in present and path not in missing and not path.exists():
                missing[path] = "missing shard (named by its siblings)"
    return missing


def short_shard(path: Path, n_records: int, expected: dict[Path, int], *, n_damaged: int = 0) -> str:
    """Returns what is wrong with a shard's number of records, or nothing.

    A shard that was cut off between two records has no damaged one; only its description tells that it is half a shard.

    Args:
        path: the shard.
        n_records: records that it holds, which is to say that can be read.
        expected: of its folder, see `expected_shards`.
        n_damaged: records that are there and cannot be read.
    """
    wanted = expected.get(path)
    if wanted is None or (n_records, n_damaged) == (wanted, 0):
        return ""
    damaged = f" and {n_damaged:,} damaged" if n_damaged else ""
    return f"holds {n_records:,}{damaged} of {wanted:,} records ({INFO_FILE})"
