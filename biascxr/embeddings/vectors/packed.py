"""CXR Foundation's record, found by comparing bytes in place of parsing a message: one file takes 10 microseconds.

A serialized Example that holds only `embedding` (d packed floats) and perhaps `image/id` (one name) is, apart from the
floats and the name, the same bytes whenever its size is the same. So the bytes that must be there are worked out once per
size, and a record either has exactly those, or is left to the full parse (unpacked floats, other keys, ...).
Wire format: https://protobuf.dev/programming-guides/encoding; a map entry is a message with its key as field 1, value as 2.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class _Layout:
    """Where things are in a record of one size; `name_head` is what precedes the image's name, in either order of features."""

    vector_head: bytes
    vector_head_at: int
    floats_at: int
    name_head: bytes
    name_head_at: int
    name_at: int
    name_end: int


def _varint(number: int) -> bytes:
    """Returns a number in base 128, lowest digit first, as protobuf writes lengths."""
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _head(tag: int, key: bytes, kind: int, n_bytes: int) -> bytes:
    """Returns what stands before the bytes of the one value of a feature, from its map entry on.

    Args:
        tag: the entry's tag in `Features`.
        key: the feature's name.
        kind: tag of the list in `Feature` (bytes_list 0x0a, float_list 0x12).
        n_bytes: length of the value.
    """
    values = b"\x0a" + _varint(n_bytes)
    feature = bytes([kind]) + _varint(len(values) + n_bytes) + values
    body = b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(feature) + n_bytes) + feature
    return bytes([tag]) + _varint(len(body) + n_bytes) + body


class PackedRecord:
    """Finds the floats and the image's name in serialized Examples of CXR Foundation's form.

    Args:
        raw_length: how many floats `embedding` must hold.
    """

    def __init__(self, raw_length: int) -> None:
        self.n_bytes = 4 * raw_length
        self._layouts: dict[int, tuple[_Layout, ...]] = {}

    def find(self, data: bytes, start: int, size: int) -> tuple[int, bytes | None] | None:
        """Returns where the floats begin in `data`, and the image's name (None where the record has none).

        Args:
            data: bytes with the record in them.
            start: where the record begins.
            size: its length in bytes.

        Returns:
            None for a record of any other form.
        """
        layouts = self._layouts.get(size)
        if layouts is None:
            layouts = self._layouts[size] = self._plan(size)
        for layout in layouts:
            if data.startswith(layout.vector_head, start + layout.vector_head_at) and data.startswith(
                layout.name_head, start + layout.name_head_at
            ):
                name = data[start + layout.name_at : start + layout.name_end] if layout.name_head else None
                return start + layout.floats_at, name
        return None

    def _plan(self, size: int) -> tuple[_Layout, ...]:
        outer = next((k for k in range(1, 6) if size > k and len(_varint(size - 1 - k)) == k), None)
        if outer is None:
            return ()
        example = b"\x0a" + _varint(size - 1 - outer)  # field 1 of Example, features
        vector = _head(0x0A, b"embedding", 0x12, self.n_bytes)
        after = size - len(example) - len(vector) - self.n_bytes  # bytes that are left for the name's feature
        begin = len(example)
        if after == 0:
            return (_Layout(example + vector, 0, begin + len(vector), b"", 0, 0, 0),)
        for length in range(max(0, after - 40), max(0, after)):
            name = _head(0x0A, b"image/id", 0x0A, length)
            if len(name) + length == after:
                break
        else:
            return ()
        end = begin + len(vector) + self.n_bytes
        vector_first = _Layout(example + vector, 0, begin + len(vector), name, end, end + len(name), size)
        name_first = _Layout(
            vector, begin + after, begin + after + len(vector), example + name, 0, begin + len(name), begin + after
        )
        return vector_first, name_first
