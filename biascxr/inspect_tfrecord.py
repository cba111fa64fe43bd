"""What is in these TFRecords? `python -m biascxr.inspect_tfrecord FILE_OR_FOLDER...`

Prints keys, types, shapes, counts, one sample, and what disagrees with the schema, for records of biascxr and of anyone
else. The schema is the `features.json` of TensorFlow Datasets where one lies beside the file, a known form where the keys
are one's (CXR Foundation, MIMIC Racial Fairness, biascxr), and otherwise what the first record looks like. A folder stands for
its shards; a shard that is missing or half is named. No TensorFlow is loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from biascxr.errors import ends_with_its_reader
from biascxr.records.forms import KeySummary, disagreements, find_form
from biascxr.records.shard_files import INFO_FILE, expected_shards, missing_shards, short_shard, tfrecord_files
from biascxr.records.tfrecord import RecordError, decode_example, scan_records


@dataclass(frozen=True)
class Damage:
    """A record that cannot be read: its number in the file (from 0), where it begins, and what is wrong."""

    record: int
    byte_offset: int
    reason: str


@dataclass
class FileSummary:
    """The answer for one file.

    Attributes:
        path: the file.
        n_bytes: its size.
        n_records: records that it holds: whole ones, that can be read.
        form: what they were compared with.
        keys: what was seen, by key.
        disagreements: with the form, and among the records.
        damage: records that are damaged, and not counted in `n_records`; only looked for when asked to verify.
        shortfall: how many of the records that the dataset's own description says it holds; empty where it holds all.
    """

    path: Path
    n_bytes: int
    n_records: int
    form: str
    keys: dict[str, KeySummary]
    disagreements: list[str]
    damage: list[Damage] = field(default_factory=list)
    shortfall: str = ""

    @property
    def is_whole(self) -> bool:
        return not self.damage and not self.shortfall


def inspect_file(path: Path, *, verify: bool = False) -> FileSummary:
    """Reads a whole TFRecord file, checking every CRC.

    Args:
        path: the file.
        verify: list every damaged record, going on after it where its length is intact; otherwise the first is an error.

    Raises:
        RecordError: the file cannot be read, is not a TFRecord file, is damaged, or does not hold Examples.
    """
    path = Path(path)
    keys: dict[str, KeySummary] = {}
    n_records = 0
    damage = []
    try:
        for record in scan_records(path):
            reason = record.reason
            if record.data is not None:
                try:
                    example = decode_example(record.data)
                except RecordError as error:
                    reason = str(error)
            if reason:
                if not verify:
                    raise RecordError(reason)
                damage.append(Damage(record.number, record.byte_offset, reason))
                continue
            for key, value in example.items():
                keys.setdefault(key, KeySummary()).add(value)
            n_records += 1
        n_bytes = path.stat().st_size
    except OSError as error:
        raise RecordError(error.strerror or str(error)) from error
    keys = dict(sorted(keys.items()))
    form = find_form(path, keys)
    short = short_shard(path, n_records, expected_shards(path.parent), n_damaged=len(damage))
    return FileSummary(path, n_bytes, n_records, form.name, keys, disagreements(keys, form, n_records), damage, short)


def inspect_all(paths: list[Path], *, verify: bool = False) -> Iterator[FileSummary | tuple[Path, str]]:
    """Yields an answer for each file, or its path and the reason why there is none; a folder stands for all files below it.

    Args:
        paths: files and folders.
        verify: see `inspect_file`.
    """
    for path in paths:
        try:
            files = tfrecord_files(path)
            # A shard's siblings are looked for only where the whole set was asked for.
            missing = missing_shards(files, folders=[f.parent for f in path.rglob(INFO_FILE)]) if path.is_dir() else {}
        except (RecordError, OSError) as error:
            yield path, str(error)
            continue
        for file in sorted({*files, *missing}):
            if file in missing:
                yield file, missing[file]
                continue
            try:
                yield inspect_file(file, verify=verify)
            except RecordError as error:
                yield file, str(error)


def format_summary(summary: FileSummary) -> str:
    """Returns the answer for one file as text."""
    rows = [("key", "type", "shape", "records", "sample (first record)")]
    rows += [(name, "/".join(sorted(s.types)), f"[{s.span}]", f"{s.n_records:,}", s.sample) for name, s in summary.keys.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    table = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows]
    damaged = f" and {len(summary.damage):,} damaged" if summary.damage else ""
    whole = "" if summary.damage else ", every CRC correct"
    lines = [
        f"{summary.path}",
        f"  {summary.n_records:,} record{'' if summary.n_records == 1 else 's'}{damaged}, {summary.n_bytes:,} bytes{whole}",
        f"  schema: {summary.form}",
        *(f"  {line}" for line in table),
    ]
    if summary.disagreements:
        lines += ["  disagrees with the schema:", *(f"    - {line}" for line in summary.disagreements)]
    else:
        lines.append("  agrees with the schema")
    if summary.damage:
        lines += ["  damaged:", *(f"    - {d.reason}, at byte {d.byte_offset:,}" for d in summary.damage)]
    if summary.shortfall:
        lines.append(f"  not a whole shard: {summary.shortfall}")
    return "\n".join(lines)


def to_json(answer: FileSummary | tuple[Path, str]) -> str:
    """Returns the answer for one file as one line of JSON.

    Its keys are always the same: `path`, `status` (whole, damaged, unreadable), `error`, `n_bytes`, `n_records`, `form`, `keys`
    (per key `types`, `lengths`, `n_records`, `n_nonfinite`, `sample`), `disagreements`, `damaged` (`record`, `byte_offset`,
    `reason`), `shortfall`.
    """
    if not isinstance(answer, FileSummary):
        path, error = answer
        made = {"path": str(path), "status": "unreadable", "error": error, "n_bytes": None, "n_records": None, "form": None}
        return json.dumps({**made, "keys": {}, "disagreements": [], "damaged": [], "shortfall": ""})
    keys = {
        name: {
            "types": sorted(s.types),
            "lengths": sorted(s.lengths),
            "n_records": s.n_records,
            "n_nonfinite": s.n_nonfinite,
            "sample": s.sample,
        }
        for name, s in answer.keys.items()
    }
    return json.dumps(
        {
            "path": str(answer.path),
            "status": "whole" if answer.is_whole else "damaged",
            "error": "",
            "n_bytes": answer.n_bytes,
            "n_records": answer.n_records,
            "form": answer.form,
            "keys": keys,
            "disagreements": answer.disagreements,
            "damaged": [vars(d) for d in answer.damage],
            "shortfall": answer.shortfall,
        }
    )


@ends_with_its_reader
def main(arguments: list[str] | None = None) -> int:
    """Inspects the files named on the command line; returns 0, or 1 if one of them cannot be read or is not whole."""
    parser = argparse.ArgumentParser(
        prog="python -m biascxr.inspect_tfrecord",
        description="Prints what TFRecord files hold: keys, types, shapes, counts, a sample, disagreements.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a file, or a folder: its shards, all below it")
    parser.add_argument("--verify", action="store_true", help="name every damaged record, with its number and byte offset")
    parser.add_argument("--json", action="store_true", help="one JSON object per file, one a line, and nothing else")
    flags = parser.parse_args(arguments)
    failed = False
    for answer in inspect_all(flags.files, verify=flags.verify):
        is_answered = isinstance(answer, FileSummary)
        failed |= not (is_answered and answer.is_whole)
        if flags.json:
            print(to_json(answer), flush=True)
        elif is_answered:
            print(format_summary(answer), flush=True)
        else:
            print(f"{answer[0]}: {answer[1]}", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
