"""Vectors that exist already: read as they are, or rejected by name and reason; never padded, never zero."""

import contextlib
import json

import numpy as np
import pytest

from biascxr.embeddings import gather_vectors, read_vector
from biascxr.embeddings.precomputed import VectorError
from biascxr.errors import InputError
from biascxr.records import encode_example, read_rejected, write_record

LENGTH = 1376


def vector_of(seed, length=LENGTH):
    return np.random.default_rng(seed).normal(size=length).astype(np.float32)


def write_vector(path, *records):
    with open(path, "wb") as file:
        for features in records:
            write_record(file, encode_example(features))
    return path


def foundation(seed, image_id, length=LENGTH):
    return {"embedding": vector_of(seed, length), "image/id": f"gs://bucket/files/p10/{image_id}.dcm"}


class TestReadVector:
    @pytest.mark.parametrize("shape", [(LENGTH,), (1, LENGTH), (1, 1, LENGTH)])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
    def test_npy(self, tmp_path, shape, dtype):
        values = vector_of(0).astype(dtype)
        np.save(tmp_path / "a.npy", values.reshape(shape))
        vector = read_vector(tmp_path / "a.npy")
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, values.astype(np.float32))

    def test_tfrecord_in_cxr_foundations_form(self, tmp_path):
        path = write_vector(tmp_path / "a.tfrecord", foundation(1, "abc"))
        np.testing.assert_array_equal(read_vector(path, "abc"), vector_of(1))

    def test_tfrecord_written_by_tensorflow(self, tmp_path):
        tf = pytest.importorskip("tensorflow")
        example = tf.train.Example()
        example.features.feature["embedding"].float_list.value.extend(vector_of(1).tolist())
        example.features.feature["image/id"].bytes_list.value.append(b"abc.dcm")
        with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
            writer.write(example.SerializeToString())
        np.testing.assert_array_equal(read_vector(tmp_path / "a.tfrecord", "abc"), vector_of(1))

    def test_a_record_that_names_no_image_is_taken(self, tmp_path):
        path = write_vector(tmp_path / "a.tfrecord", {"embedding": vector_of(1)})
        assert len(read_vector(path, "abc")) == LENGTH

    @pytest.mark.parametrize("named", ["abc", "abc.dcm", "abc.png", "gs://b/abc.dcm", "files/p10/abc"])
    def test_an_image_id_is_told_by_its_file_name(self, tmp_path, named):
        path = write_vector(tmp_path / "a.tfrecord", {"embedding": vector_of(1), "image/id": named})
        assert len(read_vector(path, "abc")) == LENGTH

    @pytest.mark.parametrize("named", ["1.2.840.113", "1.2.840.113.dcm"])
    def test_an_image_id_may_hold_dots(self, tmp_path, named):
        path = write_vector(tmp_path / "a.tfrecord", {"embedding": vector_of(1), "image/id": named})
        assert len(read_vector(path, "1.2.840.113")) == LENGTH

    @pytest.mark.parametrize(
        ("records", "reason"),
        [
            ([foundation(1, "other")], r"another image's vector \(image/id disagrees with dicom_id\)"),
            ([foundation(1, "abc"), foundation(2, "abc")], r"not one record \(2 in the file\)"),
            ([{"vector": vector_of(1)}], r"no float feature 'embedding' \(found: vector\)"),
            ([{"embedding": "text", "image/id": "abc"}], r"no float feature 'embedding' \(found: embedding, image/id\)"),
            ([{"embedding": np.array([1.0, np.nan])}], "NaN or infinite"),
            ([{"embedding": np.array([1.0, np.inf])}], "NaN or infinite"),
            ([{"embedding": np.zeros(0, np.float32)}], "not one vector"),
        ],
    )
    def test_a_tfrecord_of_something_else(self, tmp_path, records, reason):
        with pytest.raises(VectorError, match=f"^{reason}"):
            read_vector(write_vector(tmp_path / "a.tfrecord", *records), "abc")

    @pytest.mark.parametrize(
        ("array", "reason"),
        [
            (np.zeros((2, 3)), r"not one vector \(shape \(2, 3\), float64\)"),
            (np.zeros((8, 8, 4), np.float32), r"not one vector \(shape \(8, 8, 4\)"),
            (np.zeros(0), r"not one vector \(shape \(0,\)"),
            (np.array(["a", "b"]), "not one vector"),
            (np.array([True, False]), "not one vector"),
            (np.array([1.0, np.nan]), "NaN or infinite"),
            (np.array([{"a": 1}, None]), r"not a readable \.npy array \(Object arrays cannot be loaded"),
        ],
    )
    def test_an_npy_of_something_else(self, tmp_path, array, reason):
        np.save(tmp_path / "a.npy", array, allow_pickle=True)
        with pytest.raises(VectorError, match=f"^{reason}"):
            read_vector(tmp_path / "a.npy")

    def test_a_renamed_npz_or_a_pickle_is_not_opened(self, tmp_path):
        import pickle

        np.savez(tmp_path / "a.npz", embedding=vector_of(0))
        (tmp_path / "a.npz").rename(tmp_path / "a.npy")
        (tmp_path / "b.npy").write_bytes(pickle.dumps(vector_of(0)))
        for name in ("a.npy", "b.npy"):
            with pytest.raises(VectorError, match=r"not a readable \.npy array"):
                read_vector(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.npy", "a.tfrecord"])
    def test_missing_empty_cut_and_text(self, tmp_path, name):
        path = tmp_path / name
        with pytest.raises(VectorError, match=r"^missing file$"):
            read_vector(path)
        path.write_bytes(b"")
        with pytest.raises(VectorError, match=r"^empty file"):
            read_vector(path)
        path.write_text("subject_id,study_id,dicom_id,path\n")
        with pytest.raises(VectorError, match="not a"):
            read_vector(path)
        if name == "a.npy":
            np.save(path, vector_of(0, 9))
        else:
            write_vector(path, foundation(0, "a", 9))
        data = path.read_bytes()
        for length in range(1, len(data)):
            path.write_bytes(data[:length])
            with pytest.raises(VectorError):
                read_vector(path)

    def test_an_npy_with_a_damaged_header(self, tmp_path):
        path = tmp_path / "a.npy"
        np.save(path, vector_of(0, 5))
        data = path.read_bytes()
        for place in range(10, 80):
            for value in b"({'\n\0x9":
                path.write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
                with contextlib.suppress(VectorError):  # either a vector or its reason, never another error
                    assert len(read_vector(path)) > 0


class TestGatherVectors:
    def cohort(self, make_cohort, folder, endings):
        image_ids = [f"image_{i}" for i in range(len(endings))]
        for i, (image_id, ending) in enumerate(zip(image_ids, endings, strict=True)):
            if ending == "npy":
                np.save(folder / f"{image_id}.npy", vector_of(i))
            else:
                write_vector(folder / f"{image_id}.tfrecord", foundation(i, image_id))
        paths = [f"{i}.{e}" for i, e in zip(image_ids, endings, strict=True)]
        return make_cohort(image_ids, paths, folder, content="vector")

    def gather(self, cohort, tmp_path, vector_length=None):
        folder = tmp_path / "store"
        folder.mkdir()
        return folder, gather_vectors(cohort, folder, vector_length=vector_length)

    @pytest.fixture
    def ten(self, make_cohort, tmp_path):
        source = tmp_path / "vectors"
        source.mkdir()
        return self.cohort(make_cohort, source, ["npy", "tfrecord"] * 5)

    def test_all_vectors_in_the_tables_order(self, ten, tmp_path):
        folder, embeddings = self.gather(ten, tmp_path)
        assert embeddings.image_id.tolist() == ten.table["image_id"].tolist()
        np.testing.assert_array_equal(embeddings.vectors, [vector_of(i) for i in range(10)])
        assert read_rejected(folder) == []
        assert sorted(f.name for f in folder.iterdir()) == ["rejected.csv", "vectors.npy"]
        json.dumps(embeddings.card)

    def test_bad_ones_are_left_out_by_name_and_reason(self, ten, tmp_path):
        root = ten.images_root
        np.save(root / "image_0.npy", vector_of(0, 512))
        write_vector(root / "image_1.tfrecord", foundation(1, "image_3"))
        np.save(root / "image_2.npy", np.full(LENGTH, np.nan))
        (root / "image_4.npy").unlink()
        folder, embeddings = self.gather(ten, tmp_path)
        assert {r["image_id"]: r["reason"] for r in read_rejected(folder)} == {
            "image_0": "wrong length (512; expected 1376)",
            "image_1": "another image's vector (image/id disagrees with dicom_id)",
            "image_2": "NaN or infinite values in the vector",
            "image_4": "missing file",
        }
        assert embeddings.image_id.tolist() == [f"image_{i}" for i in (3, 5, 6, 7, 8, 9)]
        np.testing.assert_array_equal(embeddings.vectors, [vector_of(i) for i in (3, 5, 6, 7, 8, 9)])

    def test_a_required_length_is_required(self, ten, tmp_path):
        np.save(ten.images_root / "image_0.npy", vector_of(0, 512))
        folder, embeddings = self.gather(ten, tmp_path, vector_length=512)
        assert embeddings.image_id.tolist() == ["image_0"]
        assert {r["reason"] for r in read_rejected(folder)} == {"wrong length (1376; expected 512)"}

    def test_with_no_vector_of_the_required_length_all_are_listed(self, ten, tmp_path):
        folder, embeddings = self.gather(ten, tmp_path, vector_length=7)
        assert embeddings.vectors.shape == (0, 7)
        assert len(read_rejected(folder)) == 10

    def test_when_none_can_be_read_the_reason_is_said(self, ten, tmp_path):
        for path in ten.images_root.iterdir():
            path.unlink()
        with pytest.raises(InputError, match="None of the 10 vector files can be read; the last reason: missing file"):
            self.gather(ten, tmp_path)
