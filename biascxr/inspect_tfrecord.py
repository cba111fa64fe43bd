"""What is in these TFRecords? `python -m biascxr.inspect_tfrecord FILE...`

Prints keys, types, shapes, counts, one sample, and what disagrees with the schema, for records of biascxr and of anyone
else. The schema is the `features.json` of TensorFlow Datasets where one lies beside the file, a known form where the keys
are one's (CXR Foundation, MIMIC Racial Fairness), and otherwise what the first record looks like. No TensorFlow is loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from biascxr.records.image import ImageError, decode
from biascxr.records.tfrecord import RecordError, decode_example, read_records

KNOWN_FORMS = {
    "CXR Foundation vectors": {"embedding": ("float", 1376), "image/id": ("bytes", 1)},
    "MIMIC Racial Fairness images": {
        "jpg_bytes": ("bytes", 1),
        "subject_id": ("any", 1),
        "study_id": ("any", 1),
        "ethnicity": ("int64", 1),
    },
}
_IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG")
_TFDS_TYPES = {
    "Image": ("bytes", 1),
    "Text": ("bytes", 1),
}


@dataclass
class KeySummary:
    """What was seen under one key: in how many records, with which types and lengths, and one sample."""

    n_records: int = 0
    types: set[str] = field(default_factory=set)
    lengths: set[int] = field(default_factory=set)
    n_nonfinite: int = 0
    sample: str = ""

    def add(self, value: list[bytes] | np.ndarray | None) -> None:
        """Counts one record's value."""
        self.n_records += 1
        self.types.add(_type_of(value))
        self.lengths.add(0 if value is None else len(value))
        if isinstance(value, np.ndarray) and value.dtype == np.float32 and len(value) > 1:
            self.n_nonfinite += int(not np.isfinite(value).all())
        if not self.sample:
            self.sample = _describe(value)


@dataclass
class FileSummary:
    """The answer for one file."""

    path: Path
    n_bytes: int
    n_records: int
    form: str
    keys: dict[str, KeySummary]
    disagreements: list[str]


def inspect_file(path: Path) -> FileSummary:
    """Reads a whole TFRecord file, checking every CRC.

    Raises:
        RecordError: the file cannot be read, is not a TFRecord file, is damaged, or does not hold Examples.
    """
    path = Path(path)
    keys: dict[str, KeySummary] = {}
    n_records = 0
    try:
        for data in read_records(path):
            for key, value in decode_example(data).items():
                keys.setdefault(key, KeySummary()).add(value)
            n_records += 1
    except OSError as error:
        raise RecordError(error.strerror or str(error)) from error
    form, schema = _find_schema(path, keys)
    return FileSummary(
        path, path.stat().st_size, n_records, form, dict(sorted(keys.items())), _disagreements(keys, schema, n_records)
    )


def _type_of(value: list[bytes] | np.ndarray | None) -> str:
    if value is None:
        return "empty"
    if isinstance(value, list):
        return "bytes"
    return "float" if value.dtype == np.float32 else "int64"


def _describe(value: list[bytes] | np.ndarray | None) -> str:
    if value is None or len(value) == 0:
        return "(nothing)"
    if isinstance(value, np.ndarray):
        if len(value) == 1:
            return f"{value[0]:g}" if value.dtype == np.float32 else str(value[0])  # an id keeps all its digits
        return f"[{' '.join(f'{v:.4g}' for v in value[:4])} ...] mean {value.mean():.4g}, sd {value.std():.4g}"
    data = value[0]
    if data.startswith(_IMAGE_MAGIC):
        try:
            image = decode(data)
        except ImageError:
            return f"image that cannot be decoded, {len(data):,} bytes"
        kind = "PNG" if data.startswith(b"\x89PNG") else "JPEG"
        return f"{kind} {image.shape[0]}x{image.shape[1]}, pixels {image.min()} to {image.max()}, {len(data):,} bytes"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"{len(data):,} bytes"
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _find_schema(path: Path, keys: dict[str, KeySummary]) -> tuple[str, dict[str, tuple[str, int]]]:
    beside = path.parent / "features.json"
    if beside.is_file():
        try:
            content = json.loads(beside.read_text(encoding="utf-8"))
            return "TensorFlow Datasets (features.json beside the file)", dict(_tfds_schema(content))
        except (ValueError, AttributeError) as error:
            raise RecordError(f"features.json beside the file cannot be read as a schema: {error}") from error
    for form, schema in KNOWN_FORMS.items():
        if next(iter(schema)) in keys:
            return form, schema
    return "no known form; compared with its own first record", {}


def _tfds_schema(node: dict, prefix: str = ""):
    """Yields (key, (type, length)) for the leaves of a `features.json`; length -1 is any."""
    for key, child in node.get("featuresDict", {}).get("features", {}).items():
        name = f"{prefix}{key}"
        if "featuresDict" in child:
            yield from _tfds_schema(child, f"{name}/")
            continue
        kind = child.get("pythonClassName", "").rsplit(".", 1)[-1]
        dtype = child.get("tensor", {}).get("dtype", "")
        by_dtype = "float" if "float" in dtype else "int64" if "int" in dtype else "any"
        is_scalar = not child.get("tensor", {}).get("shape", {}).get("dimensions")
        yield name, _TFDS_TYPES.get(kind, (by_dtype, 1 if is_scalar else -1))


def _disagreements(keys: dict[str, KeySummary], schema: dict[str, tuple[str, int]], n_records: int) -> list[str]:
    found = []
    if n_records == 0:
        found.append("the file holds no record")
    for name, (kind, length) in schema.items() if n_records else ():
        if name not in keys:
            found.append(f"{name}: expected by the schema, absent")
            continue
        summary = keys[name]
        if kind != "any" and summary.types != {kind}:
            found.append(f"{name}: expected {kind}, found {', '.join(sorted(summary.types))}")
        if length >= 0 and summary.lengths != {length}:
            found.append(f"{name}: expected length {length}, found {_span(summary.lengths)}")
    for name, summary in keys.items():
        if schema and name not in schema:
            found.append(f"{name}: not in the schema")
        if summary.n_records < n_records:
            found.append(f"{name}: in {summary.n_records} of {n_records} records only")
        if name not in schema and len(summary.types) > 1:
            found.append(f"{name}: several types ({', '.join(sorted(summary.types))})")
        if name not in schema and len(summary.lengths) > 1:
            found.append(f"{name}: several lengths ({_span(summary.lengths)})")
        if summary.n_nonfinite:
            found.append(f"{name}: NaN or infinite values in {summary.n_nonfinite} records")
    return found


def _span(lengths: set[int]) -> str:
    return f"{min(lengths)}" if len(lengths) == 1 else f"{min(lengths)} to {max(lengths)}"


def format_summary(summary: FileSummary) -> str:
    """Returns the answer for one file as text."""
    rows = [("key", "type", "shape", "records", "sample (first record)")]
    rows += [
        (name, "/".join(sorted(s.types)), f"[{_span(s.lengths)}]", f"{s.n_records:,}", s.sample)
        for name, s in summary.keys.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    table = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows]
    lines = [
        f"{summary.path}",
        f"  {summary.n_records:,} record{'' if summary.n_records == 1 else 's'}, {summary.n_bytes:,} bytes, every CRC correct",
        f"  schema: {summary.form}",
        *(f"  {line}" for line in table),
    ]
    if summary.disagreements:
        lines += ["  disagrees with the schema:", *(f"    - {line}" for line in summary.disagreements)]
    else:
        lines.append("  agrees with the schema")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Inspects the files named on the command line; returns 0, or 1 if one of them cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m biascxr.inspect_tfrecord",
        description="Prints what TFRecord files hold: keys, types, shapes, counts, a sample, disagreements.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    failed = False
    for path in parser.parse_args(arguments).files:
        try:
            print(format_summary(inspect_file(path)), flush=True)
        except RecordError as error:
            print(f"{path}: {error}", file=sys.stderr, flush=True)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
