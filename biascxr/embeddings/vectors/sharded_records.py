"""TFRecord files with many records, each naming its image: `embedding` and `image/id`, CXR Foundation's form."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.embeddings.vectors.base import Fault, VectorError, VectorSource, raw_vector, wrong_length
from biascxr.embeddings.vectors.packed import PackedRecord
from biascxr.embeddings.vectors.per_image import floats_of
from biascxr.errors import InputError
from biascxr.records.shard_files import expected_shards, missing_shards, short_shard
from biascxr.records.tfrecord import RecordError, ScannedRecord, decode_example, scan_records

_PARSE = -1  # in place of the floats' offset: the record has another form, and is parsed


class RecordVectors(VectorSource):
    """An index is made first, with every CRC checked: which record is which image's, and where its floats lie.

    Args:
        files: the shards, or one file per image; a damaged record is a fault, and the rest of the file is used.
    """

    kind: ClassVar[str] = "tfrecord"

    def __init__(self, files: list[Path]) -> None:
        self._files = [str(path) for path in files]
        faults = [Fault(str(path), None, None, reason) for path, reason in missing_shards(files).items()]
        self._packed: PackedRecord | None = None
        image_ids: list[str] = []
        rows: list[tuple[int, int, int, int]] = []
        expected = {f: n for folder in {Path(p).parent for p in files} for f, n in expected_shards(folder).items()}
        for number, path in enumerate(self._files):
            n_records = 0
            try:
                for record in scan_records(Path(path)):
                    reason = record.reason
                    n_records += 1
                    if record.data is not None:
                        try:
                            floats_at, named = self._place(record)
                            image_ids.append(named)
                            rows.append((number, floats_at, record.byte_offset + 12, len(record.data)))
                            continue
                        except RecordError as error:
                            reason = str(error)
                    faults.append(Fault(path, record.number, record.byte_offset, reason))
            except (RecordError, OSError) as error:
                faults.append(Fault(path, None, None, getattr(error, "strerror", None) or str(error)))
                continue
            short = short_shard(Path(path), n_records, expected)
            if short or n_records == 0:
                faults.append(Fault(path, None, None, short or "holds no record"))
        if not rows:
            raise InputError(
                f"No record with a vector and an image/id in {len(files):,} TFRecord files; "
                f"the last reason: {faults[-1].reason if faults else 'they are empty'}."
            )
        self.image_ids = np.array(image_ids, object)
        self.faults = tuple(faults)
        self._index = np.array(rows, np.int64)  # file, floats' offset or _PARSE, record's offset, record's size

    def _place(self, record: ScannedRecord) -> tuple[int, str]:
        """Returns where a whole record's floats lie in the file (or `_PARSE`), and the name of its image."""
        found = self._packed.find(record.data, 0, len(record.data)) if self._packed else None
        if found is not None and found[1]:
            return record.byte_offset + 12 + found[0], found[1].decode(errors="replace")
        example = decode_example(record.data)
        named = example.get("image/id")
        if not isinstance(named, list) or not named or not named[0]:
            raise RecordError("the record names no image (no image/id)")
        values = example.get("embedding")
        if self._packed is None and isinstance(values, np.ndarray) and values.dtype == np.float32:
            self._packed = PackedRecord(len(values))
        return _PARSE, named[0].decode(errors="replace")

    def place(self, row: int) -> str:
        return self._files[self._index[row, 0]]

    def _lengths(self) -> Iterator[int | str]:
        for file, _, offset, size in self._index:
            try:
                yield len(self._parse(self._read(file, offset, size)))
            except VectorError as error:
                yield str(error)

    def _read(self, file: int, offset: int, size: int) -> bytes:
        with open(self._files[file], "rb") as stream:
            stream.seek(offset)
            return stream.read(size)

    @staticmethod
    def _parse(data: bytes) -> np.ndarray:
        try:
            return raw_vector(floats_of(decode_example(data)))
        except RecordError as error:
            raise VectorError(str(error)) from None

    def _rows(self, start: int, stop: int, into: np.ndarray) -> dict[int, str]:
        raw_length = into.shape[1]
        places = memoryview(into).cast("B")
        reasons: dict[int, str] = {}
        row_bytes = 4 * raw_length
        can_be_copied = self._packed is not None and self._packed.n_bytes == row_bytes
        index = self._index[start:stop]
        # Rows lie file by file, so each file is opened once a block.
        begins = np.flatnonzero(np.diff(index[:, 0], prepend=-1))
        for begin, end in zip(begins, [*begins[1:], len(index)], strict=True):
            with open(self._files[index[begin, 0]], "rb") as stream:
                for row, (_, floats_at, offset, size) in islice(enumerate(index.tolist()), begin, end):
                    if floats_at != _PARSE and can_be_copied:
                        stream.seek(floats_at)
                        if stream.readinto(places[row * row_bytes : (row + 1) * row_bytes]) == row_bytes:
                            continue
                    stream.seek(offset)
                    try:
                        values = self._parse(stream.read(size))
                        if len(values) != raw_length:
                            raise VectorError(wrong_length(len(values), raw_length))
                        into[row] = values
                    except VectorError as error:
                        reasons[row] = str(error)
        return reasons
