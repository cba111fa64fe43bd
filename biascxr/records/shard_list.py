"""The list of a folder's shards: `shards.csv`, what each was made from, and whether all are there and whole.

`shards.csv` says what the shards are; it is the same wherever and whenever the same records are written. What they were made
from, the sizes and times of the image files among it, stands apart in `shard_keys.csv`: an image that was only touched
changes its shard's key, and nothing that a later stage reads.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from biascxr.errors import InputError
from biascxr.records.tfrecord import RecordError, read_records
from biascxr.run_folder import file_digest
from biascxr.work import written_whole

SHARDS = "shards.csv"
KEYS = "shard_keys.csv"
REJECTED = "rejected.csv"
REJECTED_COLUMNS = ("image_id", "path", "reason")


@dataclass(frozen=True)
class Shard:
    """One line of `shards.csv`.

    Attributes:
        name: the file's name.
        split: the split that all its rows belong to.
        n_records: number of its records.
        n_bytes: its size.
        sha256: of its bytes, in hexadecimal.
    """

    name: str
    split: str
    n_records: int
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardReport:
    """What came of a shard: its line of the list, its key (see `shards.shard_key`), and the images it could not use."""

    shard: Shard
    key: str
    rejected: list[dict]


@dataclass(frozen=True)
class ShardProblem:
    """A shard that cannot be used, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def write_shard_list(folder: Path, reports: Iterable[ShardReport]) -> None:
    """Writes `rejected.csv`, `shard_keys.csv` and, last, `shards.csv`: where that is, the others are whole."""
    reports = list(reports)
    write_rejected(folder, [row for report in reports for row in report.rejected])
    _write_rows(folder / KEYS, ("name", "key"), [(r.shard.name, r.key) for r in reports])
    columns = tuple(f.name for f in fields(Shard))
    _write_rows(folder / SHARDS, columns, [tuple(asdict(r.shard).values()) for r in reports])


def write_rejected(folder: Path, rows: list[dict]) -> None:
    """Writes `rejected.csv`: which files could not be used, and why."""
    _write_rows(folder / REJECTED, REJECTED_COLUMNS, [tuple(row[name] for name in REJECTED_COLUMNS) for row in rows])


def _write_rows(path: Path, columns: tuple[str, ...], rows: list[tuple]) -> None:
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def read_rejected(folder: Path) -> list[dict]:
    """Returns the rows of a stage's `rejected.csv`."""
    return _read_rows(folder / REJECTED)


def read_shard_list(folder: Path) -> list[Shard]:
    """Returns the shards of a folder of records, in order.

    Raises:
        InputError: `shards.csv` is missing, or is not such a list.
    """
    try:
        rows = _read_rows(folder / SHARDS)
    except OSError as error:
        raise InputError(f"{folder} is no folder of records: it has no {SHARDS}. Give the 02_records of a run.") from error
    try:
        return [Shard(r["name"], r["split"], int(r["n_records"]), int(r["n_bytes"]), r["sha256"]) for r in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / SHARDS} is not a list of shards (name, split, n_records, n_bytes, sha256): written by an earlier "
            "version, or cut off. Delete the folder and run again."
        ) from error


def _read_rows(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def reports_of(folder: Path) -> Callable[[str, list[str]], ShardReport | None]:
    """Returns what a finished folder of records knows of its shards; nothing where it is none.

    Returns:
        Function `(key, image_ids)` of a shard's key and rows: the report of the shard that was made from the same, or None.
    """
    try:
        keys = {row["key"]: row["name"] for row in _read_rows(folder / KEYS)}
        shards = {shard.name: shard for shard in read_shard_list(folder)}
        rejected = {row["image_id"]: row for row in read_rejected(folder)}
    except (OSError, InputError, KeyError):
        return lambda key, image_ids: None

    def find(key: str, image_ids: list[str]) -> ShardReport | None:
        shard = shards.get(keys.get(key))
        left_out = [rejected[image_id] for image_id in image_ids if image_id in rejected]
        whole = shard is not None and shard.n_records + len(left_out) == len(image_ids)
        return ShardReport(shard, key, left_out) if whole else None

    return find


def check_shards(folder: Path, *, thorough: bool = False) -> list[ShardProblem]:
    """Finds the shards that are missing or not whole, as `shards.csv` lists them.

    Args:
        folder: a folder of records.
        thorough: read every byte and compare its SHA-256, not only the size; reads all records once.

    Returns:
        What is wrong, in the order of the list; empty where nothing is.

    Raises:
        InputError: there is no list of shards.
    """
    found = ((shard.name, _problem(folder / shard.name, shard, thorough)) for shard in read_shard_list(folder))
    return [ShardProblem(name, reason) for name, reason in found if reason]


def _problem(path: Path, shard: Shard, thorough: bool) -> str:
    try:
        n_bytes = os.stat(path).st_size
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if n_bytes != shard.n_bytes:
        return f"{n_bytes:,} bytes instead of {shard.n_bytes:,}: {_state_of_records(path, shard)}"
    if thorough and file_digest(path) != shard.sha256:
        return f"other bytes than when it was written (SHA-256): {_state_of_records(path, shard)}"
    return ""


def _state_of_records(path: Path, shard: Shard) -> str:
    n_records = 0
    try:
        for _ in read_records(path):
            n_records += 1
    except RecordError as error:
        return str(error)
    return f"{n_records:,} whole records, listed {shard.n_records:,}"


def require_shards(folder: Path, *, thorough: bool = False) -> None:
    """Stops before records are read that are not all there.

    Raises:
        InputError: names the shards, what is wrong with each, and what to do.
    """
    problems = check_shards(folder, thorough=thorough)
    if problems:
        named = "; ".join(map(str, problems[:5]))
        more = f"; and {len(problems) - 5:,} more" if len(problems) > 5 else ""
        raise InputError(
            f"{folder}: {len(problems):,} of {len(read_shard_list(folder)):,} shards cannot be used: {named}{more}. Delete "
            f"{folder / 'manifest.json'} and run again: these are written anew from the images, the others are kept."
        )
