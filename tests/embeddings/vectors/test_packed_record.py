"""CXR Foundation's record found by its bytes: what it finds is what a parser finds, and all else is left to the parser."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.embeddings.vectors.packed import PackedRecord
from biascxr.embeddings.vectors.per_image import FilePerImage
from biascxr.records import encode_example


def found_in(data, length):
    found = PackedRecord(length).find(b"before" + data + b"behind", 6, len(data))
    if found is None:
        return None
    place, name = found
    return np.frombuffer((b"before" + data)[place : place + 4 * length], "<f4"), name


def map_entries(data):
    """The entries of an Example's feature map, as bytes."""
    example = data[1:]
    while example[0] > 127:
        example = example[1:]
    entries, rest = [], example[1:]
    while rest:
        size = shift = 0
        n_digits = 1
        while rest[n_digits] > 127:
            n_digits += 1
        for digit in rest[1 : 1 + n_digits]:
            size |= (digit & 127) << shift
            shift += 7
        end = 1 + n_digits + size
        entries.append(rest[:end])
        rest = rest[end:]
    return entries


def varint(number):
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=70),
    st.one_of(st.none(), st.binary(max_size=300)),
)
def test_floats_and_name_are_those_of_the_parser(values, name):
    features = {"embedding": np.array(values, np.float32)} | ({} if name is None else {"image/id": name})
    data = encode_example(features)
    floats, found = found_in(data, len(values))
    np.testing.assert_array_equal(floats, features["embedding"])
    assert found == name


@pytest.mark.parametrize("length", [1, 31, 32, 1376, 4096, 88064])
@pytest.mark.parametrize("n_name", [0, 1, 90, 127, 128, 129, 16383, 16384])
def test_every_width_of_the_lengths_is_met(length, n_name, vector):
    features = {"embedding": vector(0, length), "image/id": "x" * n_name}
    floats, name = found_in(encode_example(features), length)
    np.testing.assert_array_equal(floats, features["embedding"])
    assert name == b"x" * n_name


def test_features_in_the_other_order_are_found_too(record):
    data = encode_example(record(0, "a"))
    first, second = map_entries(data)
    turned = b"\x0a" + varint(len(first + second)) + second + first
    assert turned != data and len(turned) == len(data)
    floats, name = found_in(turned, 16)
    np.testing.assert_array_equal(floats, record(0, "a")["embedding"])
    assert name == b"gs://bucket/files/p10/a.dcm"


def test_a_record_written_by_tensorflow_is_found(vector):
    tf = pytest.importorskip("tensorflow")
    example = tf.train.Example()
    example.features.feature["embedding"].float_list.value.extend(vector(3, 1376).tolist())
    example.features.feature["image/id"].bytes_list.value.append(b"gs://b/abc.dcm")
    floats, name = found_in(example.SerializeToString(), 1376)
    np.testing.assert_array_equal(floats, vector(3, 1376))
    assert name == b"gs://b/abc.dcm"


def unpacked(values):
    """An Example whose floats each carry a tag, as proto2 writers make it."""
    floats = b"".join(b"\x0d" + struct.pack("<f", v) for v in values)
    feature = b"\x12" + varint(len(floats)) + floats
    entry = b"\x0a\x09embedding\x12" + varint(len(feature)) + feature
    return b"\x0a" + varint(len(entry) + 1 + len(varint(len(entry)))) + b"\x0a" + varint(len(entry)) + entry


OTHER_FORMS = {
    "unpacked floats": lambda v: unpacked(v),
    "another key": lambda v: encode_example({"vector": v, "image/id": "a.dcm"}),
    "a third feature": lambda v: encode_example({"embedding": v, "image/id": "a.dcm", "n": 1}),
    "one float less": lambda v: encode_example({"embedding": v[1:], "image/id": "a.dcm"}),
    "one float more": lambda v: encode_example({"embedding": np.append(v, v[0]), "image/id": "a.dcm"}),
    "integers": lambda v: encode_example({"embedding": np.arange(16), "image/id": "a.dcm"}),
    "only a name": lambda v: encode_example({"image/id": "a.dcm"}),
    "nothing": lambda v: b"",
    "no Example": lambda v: b"\xff" * 90,
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_any_other_form_is_left_to_the_parser(form, vector):
    assert found_in(OTHER_FORMS[form](vector(0)), 16) is None


def test_a_changed_byte_outside_floats_and_name_is_another_form(record):
    data = encode_example(record(0, "a"))
    floats = PackedRecord(16).find(data, 0, len(data))[0]
    name = data.index(b"gs://")
    for place in range(len(data)):
        if floats <= place < floats + 64 or place >= name:
            continue
        changed = bytearray(data)
        changed[place] ^= 1
        assert found_in(bytes(changed), 16) is None, place


@pytest.mark.parametrize("form", ["unpacked floats", "a third feature", "the other order", "CXR Foundation's"])
def test_files_of_every_form_give_the_same_vector(form, tmp_path, write, record, vector):
    data = encode_example(record(0, "a"))
    if form == "the other order":
        first, second = map_entries(data)
        data = b"\x0a" + varint(len(first + second)) + second + first
    elif form != "CXR Foundation's":
        data = OTHER_FORMS[form](vector(0))
    path = write(tmp_path / "a.tfrecord", data)
    block = FilePerImage([str(path)], np.array(["a"], object)).read(0, 1, 16)
    assert block.reasons == {}
    np.testing.assert_array_equal(block.vectors, [vector(0)])
