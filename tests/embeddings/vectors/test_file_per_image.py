"""One file per image, read as a block: damage of any kind costs that image alone, and is said as a full read says it."""

from pathlib import Path

import numpy as np
import pytest

from biascxr.embeddings.vectors import per_image
from biascxr.embeddings.vectors.base import VectorError
from biascxr.embeddings.vectors.per_image import FILE_READERS, FilePerImage, names_of, read_vector


def block_of(paths, ids, length=16):
    return FilePerImage([str(p) for p in paths], np.array(list(ids), object)).read(0, len(paths), length)


@pytest.fixture
def three(tmp_path, write, record):
    return [write(tmp_path / f"{name}.tfrecord", record(i, name)) for i, name in enumerate("abc")]


def test_whole_files_are_never_parsed(three, vector, monkeypatch):
    monkeypatch.setattr(per_image, "read_raw", lambda *_: pytest.fail("parsed"))
    block = block_of(three, "abc")
    assert block.reasons == {}
    np.testing.assert_array_equal(block.vectors, [vector(i) for i in range(3)])


def reason_of(path, image_id):
    try:
        read_vector(Path(path), image_id)
    except VectorError as error:
        return str(error)
    return None


def test_every_damaged_byte_costs_this_image_alone(three, vector):
    data = three[1].read_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        three[1].write_bytes(damaged)
        block = block_of(three, "abc")
        assert list(block.reasons) == [1], place
        assert block.reasons[1] == reason_of(three[1], "b")
        np.testing.assert_array_equal(block.vectors[[0, 2]], [vector(0), vector(2)])


def test_every_cut_and_every_byte_too_many_costs_this_image_alone(three):
    data = three[1].read_bytes()
    for content in [*(data[:n] for n in range(len(data))), data + b"\0", data + data]:
        three[1].write_bytes(content)
        assert list(block_of(three, "abc").reasons) == [1]


def test_other_images_nan_and_other_lengths(tmp_path, write, record, three):
    bad = record(5, "d")
    bad["embedding"][3] = np.nan
    paths = [*three, write(tmp_path / "d.tfrecord", bad), write(tmp_path / "e.tfrecord", record(0, "e", 15)), tmp_path]
    assert block_of(paths, ["a", "b", "x", "d", "e", "f"]).reasons == {
        2: "another image's vector (image/id disagrees with dicom_id)",
        3: "NaN or infinite values in the vector",
        4: "wrong length (15; expected 16)",
        5: "missing file",
    }


def test_a_list_of_1375_floats_among_1376(tmp_path, write, record):
    paths = [write(tmp_path / f"{i}.tfrecord", record(i, str(i), 1375 if i == 1 else 1376)) for i in range(3)]
    source = FilePerImage([str(p) for p in paths], np.array(["0", "1", "2"], object))
    assert source.raw_length() == 1376
    assert source.read(0, 3, 1376).reasons == {1: "wrong length (1375; expected 1376)"}


def test_npz_files_with_one_embedding(tmp_path, vector):
    np.savez(tmp_path / "a.npz", embedding=vector(0))
    np.savez(tmp_path / "b.npz", vector=vector(0))
    (tmp_path / "c.npz").write_text("no zip")
    np.savez(tmp_path / "d.npz", embedding=np.array([{"a": 1}], object))
    block = block_of([tmp_path / f"{n}.npz" for n in "abcd"], "abcd")
    np.testing.assert_array_equal(block.vectors[0], vector(0))
    assert block.reasons[1] == "no array 'embedding' in the .npz file"
    assert block.reasons[2].startswith("not a readable .npz file")
    assert "Object arrays cannot be loaded" in block.reasons[3]
    assert set(FILE_READERS) == {".npy", ".npz", ".tfrecord"}


@pytest.mark.parametrize("ending", ["npy", "npz", "tfrecord"])
@pytest.mark.parametrize("is_flat", [False, True])
def test_a_feature_map_is_pooled(tmp_path, write, ending, is_flat):
    values = np.random.default_rng(0).normal(size=(8, 8, 1376)).astype(np.float32)
    path, stored = tmp_path / f"a.{ending}", values.ravel() if is_flat or ending == "tfrecord" else values
    if ending == "tfrecord":
        write(path, {"embedding": stored, "image/id": "a.dcm"})
    else:
        np.save(path, stored) if ending == "npy" else np.savez(path, embedding=stored)
    np.testing.assert_allclose(read_vector(path, "a"), values.mean((0, 1)), atol=1e-6)
    np.testing.assert_array_equal(block_of([path], "a", 88064).vectors[0], read_vector(path, "a"))


def test_token_vectors_and_other_maps_are_no_vector(tmp_path):
    for shape in ((32, 768), (8, 8, 768), (7, 8, 1376)):
        np.save(tmp_path / "a.npy", np.zeros(shape, np.float32))
        with pytest.raises(VectorError, match="not one vector"):
            read_vector(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("name", "image_id", "is_it"),
    [
        ("d000", "d000", True),
        ("gs://bucket/files/d000.dcm", "d000", True),
        ("1.2.840.113619", "1.2.840.113619", True),
        ("1.2.840.113619.dcm", "1.2.840.113619", True),
        ("1.2.840.113619", "1.2.840", False),
        ("d000.flip", "d000", False),
        ("CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg", "patient00001/study1/view1_frontal", True),
        ("CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg", "patient00001/study1/view1_frontal.jpg", True),
        ("patient00001/study2/view1_frontal.jpg", "patient00001/study1/view1_frontal", False),
    ],
)
def test_a_name_stands_for_an_image_by_itself_without_a_files_ending_or_by_the_end_of_its_path(name, image_id, is_it):
    assert (image_id in list(names_of(name))) == is_it
