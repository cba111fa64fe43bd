"""A whole set in one Parquet file: a column of image ids, and a column of lists or one column per number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from biascxr.embeddings.vectors.base import ID_NAMES, VECTOR_NAMES, VectorSource, as_ids, choose, wrong_length
from biascxr.errors import InputError

_ROWS_AT_ONCE = 256
_NUMBERED = re.compile(r"(.*?)(\d+)")


class ParquetVectors(VectorSource):
    """Rows are read in order, a few hundred at a time.

    Columns of single numbers are those of one name and a running number (`0`, `1`, ... or `emb_0`, `emb_1`, ...), in the order
    of their numbers, whatever order the file has; other columns (age, labels) are no part of a vector.
    """

    kind: ClassVar[str] = "parquet"

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        try:
            # both keep a row group, which may be the whole file, from being read at once
            self._file = pq.ParquetFile(path, memory_map=True, buffer_size=1 << 20)
            schema = self._file.schema_arrow
            ids = choose(schema.names, ID_NAMES, "column of image ids", self._path)
            self._columns, self._is_list = _vector_columns(schema, self._path)
            self.image_ids = as_ids(self._file.read(columns=[ids])[ids].to_numpy(), self._path)
        except InputError:
            raise
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise InputError(f"{path} cannot be read as a Parquet file of vectors: {' '.join(str(error).split())}.") from None
        self._next = -1
        self._stream: Iterator[list[np.ndarray | str]] = iter(())
        self._left: list[np.ndarray | str] = []

    def place(self, row: int) -> str:
        return self._path

    def _lengths(self) -> Iterator[int | str]:
        if not self._is_list:
            yield len(self._columns)
            return
        for rows in self._batches(0):
            for row in rows:
                yield row if isinstance(row, str) else len(row)

    def _rows(self, start: int, stop: int, into: np.ndarray) -> dict[int, str]:
        if start != self._next:
            self._stream, self._left = self._batches(start), []
        reasons: dict[int, str] = {}
        done = 0
        with np.errstate(over="ignore"):
            while done < stop - start:
                rows = self._left or next(self._stream)
                used, self._left = rows[: stop - start - done], rows[stop - start - done :]
                for place, row in enumerate(used, start=done):
                    if isinstance(row, str):
                        reasons[place] = row
                    elif len(row) != into.shape[1]:
                        reasons[place] = wrong_length(len(row), into.shape[1])
                    else:
                        into[place] = row
                done += len(used)
        self._next = stop
        return reasons

    def _batches(self, start: int) -> Iterator[list[np.ndarray | str]]:
        """Yields rows from `start` on, some at a time: each its numbers, or why it has none."""
        for group in range(self._file.num_row_groups):
            n_rows = self._file.metadata.row_group(group).num_rows
            skip, start = min(start, n_rows), max(0, start - n_rows)
            if skip == n_rows:
                continue
            done = 0
            try:
                for batch in self._file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=self._columns):
                    rows = _lists(batch.column(0)) if self._is_list else _across(batch, self._columns)
                    done += len(rows)
                    if done > skip:
                        yield rows[max(0, len(rows) - (done - skip)) :]
            except (pa.ArrowException, OSError):
                left = n_rows - max(done, skip)
                yield ["unreadable (the Parquet file is damaged here)"] * left


def _lists(column: pa.Array) -> list[np.ndarray | str]:
    """Returns each row of a column of lists as its numbers; nothing in it is NaN."""
    values = column.flatten().to_numpy(zero_copy_only=False)
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    is_null = column.is_null().to_numpy(zero_copy_only=False)
    return [
        "no vector (an empty cell)" if null else values[end - length : end]
        for null, end, length in zip(is_null, ends, lengths, strict=True)
    ]


def _across(batch: pa.RecordBatch, columns: list[str]) -> list[np.ndarray | str]:
    """Returns each row's numbers out of one column per number."""
    return list(np.stack([batch.column(name).to_numpy(zero_copy_only=False) for name in columns], axis=1))


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _vector_columns(schema: pa.Schema, path: str) -> tuple[list[str], bool]:
    """Returns the columns that hold the vectors, in the order of the numbers, and whether it is one column of lists."""
    lists = []
    families: dict[str, dict[int, str]] = {}
    for field in schema:
        kind = field.type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if is_list and _is_number(kind.value_type):
            lists.append(field.name)
        numbered = _NUMBERED.fullmatch(field.name)
        if numbered and _is_number(kind):
            families.setdefault(numbered[1], {})[int(numbered[2])] = field.name
    if lists:
        return [lists[0] if len(lists) == 1 else choose(lists, VECTOR_NAMES, "one column of vectors", path)], True
    whole = {name: f for name, f in families.items() if len(f) > 1 and max(f) - min(f) == len(f) - 1 and min(f) in (0, 1)}
    if len(whole) != 1:
        found = ", ".join(sorted(whole) or schema.names[:8])
        raise InputError(
            f"{path}: expected a column of lists of numbers, or one column per number, named alike and numbered from 0 or 1 "
            f"without a gap; found {found}."
        )
    family = next(iter(whole.values()))
    return [family[number] for number in sorted(family)], False
