"""Records stage: images -> grey 256x256 -> histogram equalization -> sharded TFRecords; and back."""

from biascxr.records.build import build_records, check_rejected
from biascxr.records.image import ImageError, decode, read_grey, standardise
from biascxr.records.metadata import link_for_tfds
from biascxr.records.shard_list import check_shards, read_rejected, require_shards, write_rejected
from biascxr.records.tfrecord import RecordError, decode_example, encode_example, read_records, write_record

__all__ = [
    "ImageError",
    "RecordError",
    "build_records",
    "check_rejected",
    "check_shards",
    "decode",
    "decode_example",
    "encode_example",
    "link_for_tfds",
    "read_grey",
    "read_records",
    "read_rejected",
    "require_shards",
    "standardise",
    "write_record",
    "write_rejected",
]
