"""What TFRecords look like: what was seen under each key, the forms that are known, and what disagrees with a form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from biascxr.records.image import ImageError, decode
from biascxr.records.tfrecord import RecordError

Schema = dict[str, tuple[str, tuple[int, ...]]]
"""Per key its type (bytes, float, int64, any) and the lengths it may have (none: any)."""


@dataclass(frozen=True)
class Form:
    """A kind of record that somebody writes.

    Attributes:
        name: what to call it.
        marks: keys that only such records have together.
        schema: keys that must be there.
        is_open: whether further keys belong to it (labels, attributes).
    """

    name: str
    marks: tuple[str, ...]
    schema: Schema
    is_open: bool = False


_TEXT = ("bytes", (1,))
KNOWN_FORMS = (
    # a vector, or ELIXR-C's map of 8x8x1376
    Form("CXR Foundation vectors", ("embedding",), {"embedding": ("float", (1376, 88064)), "image/id": _TEXT}),
    Form(
        "CXR Foundation input images",
        ("image/encoded", "image/id"),
        {"image/encoded": _TEXT, "image/format": _TEXT, "image/id": _TEXT},
        is_open=True,
    ),
    Form(
        "MIMIC Racial Fairness images",
        ("jpg_bytes",),
        {"jpg_bytes": _TEXT, "subject_id": ("any", (1,)), "study_id": ("any", (1,)), "ethnicity": ("int64", (1,))},
        is_open=True,
    ),
    Form(
        "biascxr records (features.json is not beside the file)",
        ("image", "image_id", "patient_id", "study_id", "view"),
        {"image": _TEXT, "image_id": _TEXT, "patient_id": _TEXT, "study_id": _TEXT, "view": _TEXT, "age": ("float", (1,))},
        is_open=True,
    ),
)
UNKNOWN_FORM = Form("no known form; compared with its own first record", (), {}, is_open=True)
_IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG")
_TFDS_TYPES = {"Image": _TEXT, "Text": _TEXT}


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

    @property
    def span(self) -> str:
        """The lengths seen: one, or the least and the greatest."""
        return f"{min(self.lengths)}" if len(self.lengths) == 1 else f"{min(self.lengths)} to {max(self.lengths)}"


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
        with np.errstate(all="ignore"):
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


def find_form(path: Path, keys: dict[str, KeySummary]) -> Form:
    """Returns the form of a file's records: the `features.json` beside it, else a known one by its keys.

    Raises:
        RecordError: the `features.json` beside the file is no schema.
    """
    beside = path.parent / "features.json"
    if beside.is_file():
        try:
            schema = dict(_tfds_schema(json.loads(beside.read_text(encoding="utf-8"))))
        except (ValueError, AttributeError) as error:
            raise RecordError(f"features.json beside the file cannot be read as a schema: {error}") from error
        return Form("TensorFlow Datasets (features.json beside the file)", (), schema)
    return next((form for form in KNOWN_FORMS if set(form.marks) <= set(keys)), UNKNOWN_FORM)


def _tfds_schema(node: dict, prefix: str = "") -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    """Yields the leaves of a `features.json`."""
    for key, child in node.get("featuresDict", {}).get("features", {}).items():
        name = f"{prefix}{key}"
        if "featuresDict" in child:
            yield from _tfds_schema(child, f"{name}/")
            continue
        kind = child.get("pythonClassName", "").rsplit(".", 1)[-1]
        dtype = child.get("tensor", {}).get("dtype", "")
        by_dtype = "float" if "float" in dtype else "int64" if "int" in dtype else "any"
        is_scalar = not child.get("tensor", {}).get("shape", {}).get("dimensions")
        yield name, _TFDS_TYPES.get(kind, (by_dtype, (1,) if is_scalar else ()))


def disagreements(keys: dict[str, KeySummary], form: Form, n_records: int) -> list[str]:
    """Returns what disagrees with a form, or among the records where the form says nothing."""
    if n_records == 0:
        return ["the file holds no record"]
    found = []
    for name, (kind, lengths) in form.schema.items():
        if name not in keys:
            found.append(f"{name}: expected by the schema, absent")
            continue
        summary = keys[name]
        if kind != "any" and summary.types != {kind}:
            found.append(f"{name}: expected {kind}, found {', '.join(sorted(summary.types))}")
        if lengths and not any(summary.lengths == {length} for length in lengths):
            found.append(f"{name}: expected length {' or '.join(map(str, lengths))}, found {summary.span}")
    for name, summary in keys.items():
        if not form.is_open and name not in form.schema:
            found.append(f"{name}: not in the schema")
        if summary.n_records < n_records:
            found.append(f"{name}: in {summary.n_records} of {n_records} records only")
        if name not in form.schema and len(summary.types) > 1:
            found.append(f"{name}: several types ({', '.join(sorted(summary.types))})")
        if name not in form.schema and len(summary.lengths) > 1:
            found.append(f"{name}: several lengths ({summary.span})")
        if summary.n_nonfinite:
            found.append(f"{name}: NaN or infinite values in {summary.n_nonfinite} records")
    return found
