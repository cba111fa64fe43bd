"""`.safetensors` files read without PyTorch.

Format (huggingface.co/docs/safetensors, "Format"): `uint64 N, little-endian | N bytes of JSON | data`. The JSON maps each
name to `dtype, shape, data_offsets [begin, end)` in the data, and `__metadata__` to texts. The data are the tensors one
after the other, C order, little-endian, with no holes.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np

from biascxr.errors import InputError

MAX_HEADER = 100_000_000  # bytes; the format's own limit
_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a `.safetensors` file.

    Args:
        path: the file.

    Returns:
        Name -> array, in the order of the data; BF16 as float32, everything else in its own type.

    Raises:
        InputError: not this format, cut off, or with holes, overlaps or a type that is not known here.
    """
    data = path.read_bytes()
    header, start = _read_header(data, path)
    header.pop("__metadata__", None)
    entries = sorted(((name, _entry(name, value, path)) for name, value in header.items()), key=lambda e: (e[1][2], e[1][3]))
    tensors, expected = {}, 0
    for name, (kind, shape, begin, end) in entries:
        if begin != expected:
            raise _damaged(path, f"tensor {name!r} begins at byte {begin} of the data; expected {expected}")
        if start + end > len(data):
            raise _damaged(path, f"cut off inside tensor {name!r}")
        values = np.frombuffer(data, _TYPES[kind], math.prod(shape), start + begin).reshape(shape)
        # bfloat16 is the upper half of a float32.
        tensors[name] = (values.astype("<u4") << 16).view("<f4") if kind == "BF16" else values
        expected = end
    if start + expected != len(data):
        raise _damaged(path, f"{len(data) - start - expected} bytes after the last tensor")
    return tensors


def _read_header(data: bytes, path: Path) -> tuple[dict, int]:
    """Returns the header and where the data begin."""
    if len(data) < 8:
        raise _damaged(path, "under 8 bytes")
    length = struct.unpack("<Q", data[:8])[0]
    if length > min(MAX_HEADER, len(data) - 8):
        raise _damaged(path, f"a header of {length} bytes in a file of {len(data)}")
    try:
        header = json.loads(data[8 : 8 + length].decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    return header, 8 + length


def _without_repeats(pairs: list[tuple]) -> dict:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a name stands in it twice")
    return dict(pairs)


def _entry(name: str, value: object, path: Path) -> tuple[str, tuple[int, ...], int, int]:
    """Returns type, shape, begin and end of one tensor, checked against each other."""
    try:
        kind, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        is_whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        raise _damaged(path, f"tensor {name!r} has no dtype, shape and data_offsets") from None
    if kind not in _TYPES:
        raise _damaged(path, f"tensor {name!r} has type {kind!r}; known are {', '.join(_TYPES)}")
    if not is_whole or end - begin != math.prod(shape) * np.dtype(_TYPES[kind]).itemsize:
        raise _damaged(path, f"tensor {name!r} has shape {list(shape)} of {kind} and bytes {begin} to {end}, which disagree")
    return kind, shape, begin, end


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"--weights {path} is not a whole .safetensors file: {reason}.")
