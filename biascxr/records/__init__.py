"""Records stage: images -> grey 256x256 -> histogram equalization -> sharded TFRecords; and back."""

from biascxr.records.build import build_records, check_rejected, read_rejected, write_rejected
from biascxr.records.image import ImageError, decode, read_grey, standardise
from biascxr.records.tfrecord import RecordError, decode_example, encode_example, read_records, write_record

__all__ = [
    "ImageError",
    "RecordError",
    "build_records",
    "check_rejected",
    "decode",
    "decode_example",
    "encode_example",
    "read_grey",
    "read_records",
    "read_rejected",
    "standardise",
    "write_record",
    "write_rejected",
]
