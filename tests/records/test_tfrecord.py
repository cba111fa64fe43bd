"""TFRecords without TensorFlow: the same bytes as TensorFlow's, and damage is found and placed."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.records import RecordError, decode_example, encode_example, read_records, write_record

FEATURES = {
    "image": b"\x89PNG\x00\xff",
    "image_id": "Bild_ä",
    "empty": b"",
    "age": 58.5,
    "unknown": math.nan,
    "labels/Pleural Effusion": 1.0,
    "embedding": np.linspace(-1, 1, 7, dtype=np.float32),
    "ethnicity": 3,
    "ids": np.array([-1, 0, 2**62]),
}


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


def tf_example(tf, features):
    def feature(value):
        if isinstance(value, (bytes, str)):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode() if isinstance(value, str) else value]))
        values = np.atleast_1d(value).tolist()
        if isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    return tf.train.Example(features=tf.train.Features(feature={k: feature(v) for k, v in features.items()}))


def write(path, records):
    with open(path, "wb") as file:
        for record in records:
            write_record(file, record)
    return path


def test_bytes_are_those_of_tensorflow(tf, tmp_path):
    mixed = [FEATURES, {k: FEATURES[k] for k in reversed(FEATURES)}, {"a": 1}]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs.tfrecord")) as writer:
        for features in mixed:
            writer.write(tf_example(tf, features).SerializeToString(deterministic=True))
    ours = write(tmp_path / "ours.tfrecord", [encode_example(features) for features in mixed])
    assert ours.read_bytes() == (tmp_path / "theirs.tfrecord").read_bytes()


def test_tensorflow_reads_ours(tf, tmp_path):
    path = write(tmp_path / "a.tfrecord", [encode_example(FEATURES)])
    (record,) = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    without_nan = {key: value for key, value in FEATURES.items() if key != "unknown"}  # NaN equals nothing
    theirs = tf.train.Example.FromString(record)
    assert math.isnan(theirs.features.feature.pop("unknown").float_list.value[0])
    assert theirs == tf_example(tf, without_nan)
    parsed = tf.io.parse_single_example(
        record, {"embedding": tf.io.FixedLenFeature([7], tf.float32), "image_id": tf.io.FixedLenFeature([], tf.string)}
    )
    np.testing.assert_array_equal(parsed["embedding"], FEATURES["embedding"])
    assert parsed["image_id"].numpy().decode() == FEATURES["image_id"]


def test_we_read_tensorflows(tf, tmp_path):
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(tf_example(tf, FEATURES).SerializeToString())
    (record,) = read_records(path)
    features = decode_example(record)
    assert set(features) == set(FEATURES)
    assert features["image"] == [FEATURES["image"]]
    assert features["image_id"] == [FEATURES["image_id"].encode()]
    assert features["embedding"].dtype == np.float32
    np.testing.assert_array_equal(features["embedding"], FEATURES["embedding"])
    assert features["ids"].dtype == np.int64
    np.testing.assert_array_equal(features["ids"], FEATURES["ids"])
    assert math.isnan(features["unknown"][0])


def test_a_feature_without_any_value_is_none(tf):
    example = tf.train.Example()
    example.features.feature["nothing"].SetInParent()
    example.features.feature["no_floats"].float_list.SetInParent()
    features = decode_example(example.SerializeToString())
    assert features["nothing"] is None
    assert features["no_floats"].shape == (0,)


def test_what_is_no_feature_is_an_error():
    with pytest.raises(TypeError, match="Feature 'flag' must be bytes, text, floats or integers; got bool"):
        encode_example({"flag": True})


values = st.one_of(
    st.binary(max_size=20),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5).map(lambda v: np.array(v, np.int64)),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5).map(lambda v: np.array(v, np.float32)),
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=10), values, max_size=5))
def test_what_is_written_is_read_back(features):
    data = encode_example(features)
    assert data == encode_example(dict(reversed(features.items())))
    read = decode_example(data)
    assert set(read) == set(features)
    for key, value in features.items():
        np.testing.assert_array_equal(read[key], [value] if isinstance(value, bytes) else value)


@pytest.fixture
def three_records(tmp_path):
    return write(tmp_path / "three.tfrecord", [encode_example({"n": n, "pad": b"x" * 50}) for n in range(3)])


def read_until_error(path):
    records = []
    with pytest.raises(RecordError) as error:
        for record in read_records(path):
            records.append(record)
    return len(records), str(error.value)


def test_every_single_damaged_byte_is_found(three_records):
    data = three_records.read_bytes()
    size = len(data) // 3
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        three_records.write_bytes(damaged)
        n_read, message = read_until_error(three_records)
        assert n_read == place // size
        if place % size >= 12:
            assert message == f"record {place // size} is damaged (CRC)"
        elif n_read or place % size >= 8:  # the length is right where the record of that length is whole
            assert message == f"the length of record {n_read} is damaged (CRC)"
        else:
            assert message == "not a TFRecord file (no valid header)"


def test_every_cut_is_found_except_between_records(three_records):
    data = three_records.read_bytes()
    size = len(data) // 3
    for length in range(1, len(data)):
        three_records.write_bytes(data[:length])
        if length % size == 0:
            assert len(list(read_records(three_records))) == length // size
            continue
        n_read, message = read_until_error(three_records)
        assert n_read == length // size
        expected = "not a TFRecord file (under 12 bytes)" if length < 12 else f"cut off inside record {n_read}"
        assert message == expected


def test_a_text_file_is_not_a_tfrecord_file(tmp_path):
    path = tmp_path / "notes.tfrecord"
    path.write_text("subject_id,study_id\n" * 10)
    assert read_until_error(path) == (0, "not a TFRecord file (no valid header)")


def test_an_empty_file_holds_no_record(tmp_path):
    assert list(read_records(write(tmp_path / "a.tfrecord", []))) == []


def test_a_record_that_is_no_example_is_an_error():
    with pytest.raises(RecordError, match="not a serialized tf\\.train\\.Example"):
        decode_example(struct.pack("<Q", 2**63) + b"\xff" * 9)
