"""TFRecord files of `tf.train.Example`, read and written without TensorFlow.

TensorFlow takes four seconds to import, in every worker process; the format needs protobuf and a CRC only. The bytes are
those that `tf.io.TFRecordWriter` and `tf.train.Example.SerializeToString(deterministic=True)` would write (tested).

Format of a record (tensorflow/core/lib/io/record_writer.h), little-endian:
`uint64 length | uint32 masked crc of length | data | uint32 masked crc of data`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from biascxr.errors import InputError

Values = bytes | np.ndarray | list


class RecordError(InputError):
    """A file is not a TFRecord file, or is damaged; the message says where."""


def _example_class() -> type:
    """Builds the message class `Example` (tensorflow/core/example/example.proto) in a descriptor pool of its own."""
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="biascxr/example.proto", package="biascxr", syntax="proto3")

    def message(name: str, fields: list[tuple], parent=None):
        made = (parent.nested_type if parent else file.message_type).add(name=name)
        for number, (field_name, kind, repeated, type_name) in enumerate(fields, start=1):
            made.field.add(
                name=field_name,
                number=number,
                type=kind,
                label=field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL,
                type_name=type_name and f".biascxr.{type_name}",
            )
        return made

    message("BytesList", [("value", field_type.TYPE_BYTES, True, None)])
    message("FloatList", [("value", field_type.TYPE_FLOAT, True, None)])
    message("Int64List", [("value", field_type.TYPE_INT64, True, None)])
    kinds = [("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")]
    feature = message("Feature", [(name, field_type.TYPE_MESSAGE, False, kind) for name, kind in kinds])
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message("Features", [("feature", field_type.TYPE_MESSAGE, True, "Features.FeatureEntry")])
    entry = message(
        "FeatureEntry",
        [("key", field_type.TYPE_STRING, False, None), ("value", field_type.TYPE_MESSAGE, False, "Feature")],
        parent=features,
    )
    entry.options.map_entry = True
    message("Example", [("features", field_type.TYPE_MESSAGE, False, "Features")])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("biascxr.Example"))


Example = _example_class()


def encode_example(features: Mapping[str, bytes | str | float | int | np.ndarray]) -> bytes:
    """Serializes features, the same bytes each time.

    Args:
        features: per key a text or bytes, a float or float array, an int or int array.
    """
    example = Example()
    for key, value in features.items():
        feature = example.features.feature[key]
        if isinstance(value, (bytes, str)):
            feature.bytes_list.value.append(value.encode() if isinstance(value, str) else value)
            continue
        array = np.atleast_1d(np.asarray(value))
        if np.issubdtype(array.dtype, np.floating):
            feature.float_list.value.extend(array.tolist())
        elif np.issubdtype(array.dtype, np.integer):
            feature.int64_list.value.extend(array.tolist())
        else:
            raise TypeError(f"Feature {key!r} must be bytes, text, floats or integers; got {array.dtype}.")
    return example.SerializeToString(deterministic=True)


def decode_example(data: bytes) -> dict[str, Values]:
    """Parses one serialized Example.

    Returns:
        Per key a list of bytes, a `float32` array, or an `int64` array; `None` for a feature with no value of any kind.

    Raises:
        RecordError: the bytes are not an Example.
    """
    try:
        example = Example.FromString(data)
    except DecodeError as error:
        raise RecordError("the record is not a serialized tf.train.Example") from error
    return {key: _values(feature) for key, feature in example.features.feature.items()}


def _values(feature) -> Values | None:
    kind = feature.WhichOneof("kind")
    if kind is None:
        return None
    values = getattr(feature, kind).value
    if kind == "bytes_list":
        return list(values)
    return np.array(values, np.float32 if kind == "float_list" else np.int64)


def masked_crc(data: bytes) -> int:
    """Returns the CRC-32C of some bytes, rotated and shifted as the format asks."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@lru_cache(maxsize=4096)
def frame_of(length: int) -> bytes:
    """Returns the 12 bytes that stand before a record of this length: the length and its CRC."""
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", masked_crc(packed))


def write_record(file: BinaryIO, data: bytes) -> None:
    """Appends one record to a file opened for binary writing."""
    file.write(frame_of(len(data)) + data + struct.pack("<I", masked_crc(data)))


@dataclass(frozen=True)
class ScannedRecord:
    """One record of a file, or what is wrong at its place.

    Attributes:
        number: the record's number in the file, from 0.
        byte_offset: where it begins in the file.
        data: its bytes; None where it is damaged.
        reason: what is wrong; empty for a whole record.
    """

    number: int
    byte_offset: int
    data: bytes | None
    reason: str = ""


def scan_records(path: Path) -> Iterator[ScannedRecord]:
    """Yields every record of a file, and goes on after a damaged one where its length is intact.

    A length is intact where its CRC says so, or where the record of that length has the right CRC. After any other damage
    nobody knows where the next record begins, so that is the last one yielded.

    Raises:
        RecordError: the file does not begin as a TFRecord file does.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = number = 0
        while offset < size:
            head = file.read(12)
            if len(head) < 12:
                reason = f"cut off inside record {number}" if number else "not a TFRecord file (under 12 bytes)"
                if not number:
                    raise RecordError(reason)
                yield ScannedRecord(number, offset, None, reason)
                return
            length = int.from_bytes(head[:8], "little")
            is_sure = head[8:] == frame_of(length)[8:]
            fits = offset + 16 + length <= size
            data = file.read(length) if fits else b""  # a length beyond the file is never asked for
            tail = file.read(4)
            is_whole = fits and masked_crc(data) == int.from_bytes(tail, "little")
            if is_sure and is_whole:
                yield ScannedRecord(number, offset, data)
            elif is_sure and fits:
                yield ScannedRecord(number, offset, None, f"record {number} is damaged (CRC)")
            elif is_sure:
                yield ScannedRecord(number, offset, None, f"cut off inside record {number}")
                return
            elif number or (is_whole and length):
                yield ScannedRecord(number, offset, None, f"the length of record {number} is damaged (CRC)")
                if not (is_whole and length):
                    return
            else:
                raise RecordError(_no_header(head))
            offset += 16 + length
            number += 1


def _no_header(head: bytes) -> str:
    if head.startswith(b"\x1f\x8b"):
        return "not a TFRecord file but compressed with gzip; decompress it first (gzip -d)"
    return "not a TFRecord file (no valid header)"


def read_records(path: Path) -> Iterator[bytes]:
    """Yields the records of a file, each checked against its CRC.

    Raises:
        RecordError: not a TFRecord file, a CRC does not match, or the file ends inside a record.
    """
    for record in scan_records(path):
        if record.data is None:
            raise RecordError(record.reason)
        yield record.data
