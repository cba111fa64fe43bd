"""Whole sets of vectors, in every kind of file: each image gets its own vector, and every other image a reason."""

import csv
import struct

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from biascxr.embeddings.vectors import SOURCES, open_vectors, vector_files
from biascxr.embeddings.vectors.base import MAP_SHAPE
from biascxr.errors import InputError
from biascxr.records import read_rejected

IDS = [f"img-{i:03d}" for i in range(23)]


def npz(folder, ids, vectors, write):
    np.savez(folder / "set.npz", image_ids=np.array(ids), embeddings=vectors)
    return folder / "set.npz"


def compressed_npz(folder, ids, vectors, write):
    np.savez_compressed(folder / "set.npz", image_ids=np.array(ids), embeddings=vectors)
    return folder / "set.npz"


def hdf5(folder, ids, vectors, write):
    with h5py.File(folder / "set.h5", "w") as file:
        file["image_ids"] = np.array(ids, h5py.string_dtype())
        file.create_dataset("embeddings", data=vectors, chunks=(min(4, len(ids)), *vectors.shape[1:]), compression="gzip")
    return folder / "set.h5"


def parquet_of_lists(folder, ids, vectors, write):
    table = pa.table({"age": [1.0] * len(ids), "image_id": ids, "embedding": [v.ravel().tolist() for v in vectors]})
    pq.write_table(table, folder / "set.parquet", row_group_size=5)
    return folder / "set.parquet"


def parquet_of_columns(folder, ids, vectors, write):
    flat = vectors.reshape(len(vectors), -1)
    columns = {f"emb_{i}": flat[:, i] for i in sorted(range(flat.shape[1]), key=str)}  # emb_0, emb_1, emb_10, ...
    pd.DataFrame({"dicom_id": ids, "study_id": 7, "age": 50.0, **columns}).to_parquet(folder / "set.parquet")
    return folder / "set.parquet"


def shards(folder, ids, vectors, write):
    for k in range(3):
        rows = [{"embedding": v.ravel(), "image/id": f"gs://b/{i}.dcm"} for i, v in list(zip(ids, vectors, strict=True))[k::3]]
        write(folder / f"set.tfrecord-0000{k}-of-00003", *rows)
    return folder


def tree(folder, ids, vectors, write):
    for name, v in zip(ids, vectors, strict=True):
        write(folder / "files" / name[-1] / f"{name}.tfrecord", {"embedding": v.ravel(), "image/id": f"{name}.dcm"})
    return folder


def npy_folder(folder, ids, vectors, write):
    for name, v in zip(ids, vectors, strict=True):
        np.save(folder / f"{name}.npy", v)
    return folder


def two_files(folder, ids, vectors, write):
    half = 9 * len(ids) // 23
    for k, part in enumerate((slice(0, half), slice(half, None))):
        (folder / str(k)).mkdir()
        hdf5(folder / str(k), ids[part], vectors[part], write)
    return folder


FORMS = (npz, compressed_npz, hdf5, parquet_of_lists, parquet_of_columns, shards, tree, npy_folder, two_files)


@pytest.fixture(params=FORMS, ids=lambda f: f.__name__)
def form(request, tmp_path, write):
    folder = tmp_path / "source"
    folder.mkdir()
    return lambda ids, vectors: request.param(folder, ids, vectors, write)


@pytest.fixture
def vectors(vector):
    return np.stack([vector(i) for i in range(len(IDS))])


def test_each_image_gets_its_own_vector_in_the_cohorts_order(form, vectors, cohort_of, gather):
    order = np.random.default_rng(0).permutation(len(IDS))
    source = open_vectors(form([IDS[i] for i in order], vectors[order]))
    assert len(source) == len(IDS) and source.faults == () and source.kind in {*SOURCES, "files"}
    folder, made = gather(source, cohort_of(*IDS))
    assert made.image_id.tolist() == IDS
    np.testing.assert_array_equal(made.vectors, vectors)
    assert sorted(f.name for f in folder.iterdir()) == ["rejected.csv", "vectors.npy"]
    np.testing.assert_array_equal(np.load(folder / "vectors.npy"), vectors)  # the file, as anybody reads it


def test_rows_come_in_blocks_of_any_size_and_from_anywhere(form, vectors):
    source = open_vectors(form(IDS, vectors))
    row = {name.rsplit("/", 1)[-1].removesuffix(".dcm"): i for i, name in enumerate(source.image_ids)}
    expected = np.empty_like(vectors)
    expected[[row[name] for name in IDS]] = vectors
    for start, stop in [(0, 23), (7, 12), (0, 1), (22, 23), (3, 9), (9, 20)]:
        np.testing.assert_array_equal(source.read(start, stop, 16).vectors, expected[start:stop])


def test_images_without_a_vector_and_with_nan_are_named(form, vectors, cohort_of, gather, tmp_path):
    vectors[4, 2], vectors[6, 0] = np.nan, -np.inf
    folder, made = gather(open_vectors(form(IDS, vectors)), cohort_of("stranger", *IDS[:10]))
    reasons = {r["image_id"]: r["reason"] for r in read_rejected(folder)}
    nan = "NaN or infinite values in the vector"
    assert reasons == {"stranger": "no vector in the source", IDS[4]: nan, IDS[6]: nan}
    assert made.image_id.tolist() == [name for name in IDS[:10] if name not in reasons]
    np.testing.assert_array_equal(made.vectors, vectors[[0, 1, 2, 3, 5, 7, 8, 9]])


@pytest.mark.parametrize("make", [f for f in FORMS if f not in (tree, npy_folder)], ids=lambda f: f.__name__)
def test_an_image_that_two_vectors_name_has_none(make, vectors, cohort_of, gather, tmp_path, write):
    (tmp_path / "source").mkdir()
    source = open_vectors(make(tmp_path / "source", [*IDS[:-1], IDS[2]], vectors, write))
    folder, made = gather(source, cohort_of(*IDS[:5]))
    (row,) = read_rejected(folder)
    assert (row["image_id"], row["reason"]) == (IDS[2], "2 vectors of this image in the source")
    np.testing.assert_array_equal(made.vectors, vectors[[0, 1, 3, 4]])


def test_feature_maps_are_pooled_by_their_mean_and_the_card_says_so(form, cohort_of, gather, request):
    if "columns" in request.node.name:
        pytest.skip("88,064 columns are no table")
    maps = np.random.default_rng(0).normal(size=(3, *MAP_SHAPE)).astype(np.float32)
    _, made = gather(open_vectors(form(IDS[:3], maps)), cohort_of(*IDS[:3]))
    np.testing.assert_allclose(made.vectors, maps.mean(axis=(1, 2)), atol=1e-6)
    assert made.card["vector_length"] == 1376
    assert made.card["pooling"] == "mean over the 8x8 places of a 8x8x1376 feature map"


def test_feature_maps_stay_where_they_are_to_be_kept(form, cohort_of, gather, request):
    if "columns" in request.node.name:
        pytest.skip("88,064 columns are no table")
    maps = np.random.default_rng(0).normal(size=(3, *MAP_SHAPE)).astype(np.float32)
    source = form(IDS[:3], maps)
    for length in (None, 88064):
        _, made = gather(open_vectors(source), cohort_of(*IDS[:3]), vector_length=length, keep_maps=True)
        np.testing.assert_array_equal(made.vectors.reshape(3, *MAP_SHAPE), maps)
        assert (made.card["vector_length"], made.card["map_shape"]) == (88064, [8, 8, 1376])
        assert made.card["pooling"] == "as the source has it"


def test_vectors_stay_vectors_where_maps_are_to_be_kept(form, vectors, cohort_of, gather):
    _, made = gather(open_vectors(form(IDS, vectors)), cohort_of(*IDS), keep_maps=True)
    np.testing.assert_array_equal(made.vectors, vectors)
    assert made.card["map_shape"] is None


def test_maps_and_vectors_are_not_mixed(tmp_path, write, vector, cohort_of, gather):
    write(tmp_path / "a.tfrecord", *({"embedding": vector(i, 88064 if i == 1 else 1376), "image/id": IDS[i]} for i in range(3)))
    folder, made = gather(open_vectors(tmp_path / "a.tfrecord"), cohort_of(*IDS[:3]))
    assert [r["reason"] for r in read_rejected(folder)] == ["wrong length (88064; expected 1376)"]
    assert made.card["pooling"] == "as the source has it"


def test_a_required_length_is_required(form, vectors, cohort_of, gather):
    folder, made = gather(open_vectors(form(IDS, vectors)), cohort_of(*IDS[:4]), vector_length=17)
    assert made.vectors.shape == (0, 17)
    assert {r["reason"] for r in read_rejected(folder)} == {"wrong length (16; expected 17)"}


def test_ids_that_match_nothing_are_one_error(form, vectors, cohort_of, gather):
    with pytest.raises(InputError, match="None of the 23 vectors is of an image of this table") as error:
        gather(open_vectors(form(IDS, vectors)), cohort_of("x", "y"))
    assert "img-" not in str(error.value)  # ids are for the screen, not for the log


def test_half_precision_and_double_are_read_as_float32(tmp_path, vectors, write):
    for kind in (np.float16, np.float64, np.int16):
        source = open_vectors(npz(tmp_path, IDS, (100 * vectors).astype(kind), write))
        block = source.read(0, 23, 16)
        assert block.vectors.dtype == np.float32 and not block.reasons
        np.testing.assert_array_equal(block.vectors, (100 * vectors).astype(kind).astype(np.float32))


def test_a_number_beyond_float32_is_rejected(tmp_path, vectors, write):
    big = vectors.astype(np.float64)
    big[3, 3] = 1e300
    assert set(open_vectors(npz(tmp_path, IDS, big, write)).read(0, 23, 16).reasons) == {3}
    fine = np.full_like(vectors, 3e38)  # finite, though its sum is not
    assert open_vectors(npz(tmp_path, IDS, fine, write)).read(0, 23, 16).reasons == {}


class TestHostileFiles:
    def refused(self, path, pattern):
        with pytest.raises(InputError, match=pattern):
            open_vectors(path)

    def test_ids_of_another_count(self, tmp_path, vectors, write):
        for make in (npz, hdf5):
            self.refused(make(tmp_path, IDS[:-1], vectors, write), "22 image ids and 23 vectors; expected one id per vector")

    @pytest.mark.parametrize("make", [npz, compressed_npz, hdf5, parquet_of_lists], ids=lambda f: f.__name__)
    def test_cut_empty_and_text(self, make, tmp_path, vectors, write):
        path = make(tmp_path, IDS, vectors, write)
        data = path.read_bytes()
        for content in (data[: len(data) // 2], data[:-9], b"", b"image_id,vector\n1,2\n"):
            path.write_bytes(content)
            self.refused(path, "cannot be read as")

    def test_a_damaged_byte_in_an_npz_is_found_before_anything_is_used(self, tmp_path, vectors, write):
        path = npz(tmp_path, IDS, vectors, write)
        data = bytearray(path.read_bytes())
        data[data.index(vectors.tobytes()) + 100] ^= 1
        path.write_bytes(data)
        self.refused(path, "Bad CRC-32")

    def test_pickled_ids_are_not_loaded(self, tmp_path, vectors):
        np.savez(tmp_path / "a.npz", image_ids=np.array(IDS, object), embeddings=vectors)
        self.refused(tmp_path / "a.npz", "nothing that was pickled is loaded")

    def test_an_npz_whose_array_lies_about_its_size(self, tmp_path, vectors, write):
        path = npz(tmp_path, IDS, vectors, write)
        import io
        import zipfile

        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 16)})
        ids = io.BytesIO()
        np.save(ids, np.array(IDS))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("image_ids.npy", ids.getvalue())
            archive.writestr("embeddings.npy", head.getvalue() + vectors.tobytes())
        self.refused(path, r"says shape \(1099511627776, 16\) and is of another size")

    def test_columns_in_the_wrong_order_in_memory(self, tmp_path, vectors):
        np.savez(tmp_path / "a.npz", image_ids=np.array(IDS), embeddings=np.asfortranarray(vectors))
        self.refused(tmp_path / "a.npz", "ascontiguousarray")

    def test_other_shapes(self, tmp_path, vectors, write):
        for shape in ((23 * 16,), (23, 4, 4), (23, 8, 8, 3), (23, 0)):
            array = np.zeros(shape, np.float32)
            self.refused(npz(tmp_path, ["a"] * len(array), array, write), "vectors of shape .* expected")

    def test_names_that_are_not_there(self, tmp_path, vectors):
        np.savez(tmp_path / "a.npz", ids=np.array(IDS), embeddings=vectors)
        self.refused(tmp_path / "a.npz", "no array of image ids; expected one of image_ids, .*; found embeddings, ids")
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["image_ids"] = np.arange(23)
        self.refused(tmp_path / "a.h5", "no dataset of vectors")
        pd.DataFrame({"image_id": IDS, "age": 1.0}).to_parquet(tmp_path / "a.parquet")
        self.refused(tmp_path / "a.parquet", "expected a column of lists of numbers, or one column per number")

    def test_numbered_columns_with_a_gap(self, tmp_path):
        pd.DataFrame({"image_id": IDS, "e0": 1.0, "e1": 1.0, "e3": 1.0}).to_parquet(tmp_path / "a.parquet")
        self.refused(tmp_path / "a.parquet", "numbered from 0 or 1 without a gap")

    def test_an_hdf5_link_into_another_file_is_not_followed(self, tmp_path, vectors, write):
        secret = hdf5(tmp_path, IDS, vectors, write)
        with h5py.File(tmp_path / "b.h5", "w") as file:
            file["image_ids"] = np.array(IDS, h5py.string_dtype())
            file["embeddings"] = h5py.ExternalLink(str(secret), "embeddings")
        self.refused(tmp_path / "b.h5", "no dataset of vectors")

    def test_a_damaged_chunk_of_hdf5_costs_its_rows_only(self, tmp_path, vectors, cohort_of, gather):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file["image_ids"] = np.array(IDS, h5py.string_dtype())
            file.create_dataset("embeddings", data=vectors, chunks=(4, 16), fletcher32=True)
        data = bytearray(path.read_bytes())
        data[data.index(vectors[9].tobytes())] ^= 1
        path.write_bytes(data)
        folder, made = gather(open_vectors(path), cohort_of(*IDS))
        assert [r["image_id"] for r in read_rejected(folder)] == IDS[8:12]
        np.testing.assert_array_equal(made.vectors, np.delete(vectors, range(8, 12), axis=0))

    def test_ragged_and_empty_cells_of_parquet(self, tmp_path, cohort_of, gather):
        cells = [[1.0, 2.0], [3.0], None, [4.0, None], [5.0, 6.0]]
        pq.write_table(pa.table({"image_id": IDS[:5], "embedding": cells}), tmp_path / "a.parquet")
        folder, made = gather(open_vectors(tmp_path / "a.parquet"), cohort_of(*IDS[:5]))
        np.testing.assert_array_equal(made.vectors, [[1, 2], [5, 6]])
        assert [r["reason"] for r in read_rejected(folder)] == [
            "wrong length (1; expected 2)",
            "no vector (an empty cell)",
            "NaN or infinite values in the vector",
        ]

    def test_a_bad_file_among_good_ones_is_a_fault_and_no_stop(self, tmp_path, vectors, write, cohort_of, gather):
        (tmp_path / "source").mkdir()
        path = two_files(tmp_path / "source", IDS, vectors, write)
        (path / "0" / "set.h5").write_text("no HDF5")
        folder, made = gather(open_vectors(path), cohort_of(*IDS))
        np.testing.assert_array_equal(made.vectors, vectors[9:])
        with open(folder / "source_damage.csv", newline="") as file:
            (fault,) = csv.DictReader(file)
        assert fault["path"].endswith("0/set.h5") and "cannot be read as an HDF5 file" in fault["reason"]


class TestHostileRecords:
    """Each damage is named with its place, the other records are used, and the images that lost their vector are named."""

    @pytest.fixture
    def shard(self, tmp_path, write, record):
        return write(tmp_path / "a.tfrecord", *(record(i, IDS[i]) for i in range(6)))

    def gathered(self, path, cohort_of, gather):
        folder, made = gather(open_vectors(path), cohort_of(*IDS[:6]))
        with open(folder / "source_damage.csv", newline="") as file:
            return list(csv.DictReader(file)), made, {r["image_id"]: r["reason"] for r in read_rejected(folder)}

    def test_a_wrong_crc(self, shard, cohort_of, gather, vector):
        data = bytearray(shard.read_bytes())
        size = len(data) // 6
        data[2 * size + 40] ^= 1
        shard.write_bytes(data)
        faults, made, reasons = self.gathered(shard, cohort_of, gather)
        assert [(f["record"], f["byte_offset"], f["reason"]) for f in faults] == [
            ("2", str(2 * size), "record 2 is damaged (CRC)")
        ]
        assert reasons == {IDS[2]: "no vector in the source (it is damaged, and may have lost it there: source_damage.csv)"}
        np.testing.assert_array_equal(made.vectors, [vector(i) for i in (0, 1, 3, 4, 5)])

    def test_a_record_cut_in_the_middle(self, shard, cohort_of, gather):
        shard.write_bytes(shard.read_bytes()[:-30])
        faults, made, reasons = self.gathered(shard, cohort_of, gather)
        assert [f["reason"] for f in faults] == ["cut off inside record 5"]
        assert list(reasons) == [IDS[5]] and len(made) == 5

    @pytest.mark.parametrize(
        ("features", "reason"),
        [
            ({"embedding": np.ones(16, np.float32)}, "the record names no image (no image/id)"),
            (b"\xff\xff\xff", "the record is not a serialized tf.train.Example"),
        ],
    )
    def test_a_record_that_names_no_image(self, tmp_path, write, record, features, reason, cohort_of, gather):
        path = write(tmp_path / "a.tfrecord", record(0, IDS[0]), features, record(2, IDS[2]))
        faults, made, _ = self.gathered(path, cohort_of, gather)
        assert [(f["record"], f["reason"]) for f in faults] == [("1", reason)]
        assert made.image_id.tolist() == [IDS[0], IDS[2]]

    def test_a_float_less_and_no_floats_at_all(self, tmp_path, write, record, cohort_of, gather):
        other = {"embedding": "text", "image/id": IDS[2]}
        path = write(tmp_path / "a.tfrecord", *(record(i, IDS[i]) for i in (0, 3, 4)), record(1, IDS[1], 15), other)
        folder, made = gather(open_vectors(path), cohort_of(*IDS[:5]))
        assert [r["reason"] for r in read_rejected(folder)] == [
            "wrong length (15; expected 16)",
            "no float feature 'embedding' (found: embedding, image/id)",
        ]
        assert made.image_id.tolist() == [IDS[0], IDS[3], IDS[4]]

    def test_empty_and_text_files_beside_a_good_one(self, shard, cohort_of, gather):
        (shard.parent / "b.tfrecord").write_bytes(b"")
        (shard.parent / "c.tfrecord").write_text("subject_id,study_id\n")
        faults, made, reasons = self.gathered(shard.parent, cohort_of, gather)
        assert [f["reason"] for f in faults] == ["holds no record", "not a TFRecord file (no valid header)"]
        assert len(made) == 6 and reasons == {}

    def test_a_missing_shard(self, tmp_path, write, record, cohort_of, gather):
        for k in (0, 2):
            write(tmp_path / f"a.tfrecord-0000{k}-of-00003", record(k, IDS[k]))
        faults, _, reasons = self.gathered(tmp_path, cohort_of, gather)
        assert IDS[1] in reasons
        assert faults[0]["path"].endswith("a.tfrecord-00001-of-00003")
        assert faults[0]["reason"] == "missing shard (named by its siblings)"

    def test_a_length_that_asks_for_all_memory(self, tmp_path, write, record):
        path = write(tmp_path / "a.tfrecord", record(0, IDS[0]))
        from biascxr.records.tfrecord import frame_of

        path.write_bytes(path.read_bytes() + frame_of(2**62) + b"x" * 20)
        source = open_vectors(path)
        assert [f.reason for f in source.faults] == ["cut off inside record 1"] and len(source) == 1

    def test_nothing_but_damage_is_one_error(self, tmp_path):
        (tmp_path / "a.tfrecord").write_bytes(struct.pack("<QI", 5, 0) + b"12345")
        with pytest.raises(
            InputError, match="No record with a vector and an image/id in 1 TFRecord files; the last reason: not"
        ):
            open_vectors(tmp_path / "a.tfrecord")


def test_what_is_no_source_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        open_vectors(tmp_path / "none.npz")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(InputError, match=r"a file ending in '\.csv'; expected \.npz, \.h5"):
        open_vectors(tmp_path / "a.csv")
    with pytest.raises(InputError, match="no file of vectors in this folder"):
        open_vectors(tmp_path)
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.savez(tmp_path / "a.npz", x=1)
    with pytest.raises(InputError, match=r"a mixture of files, {.*npy.*}; give a folder of one kind"):
        open_vectors(tmp_path)


def test_files_of_a_source_are_listed_in_order_and_others_left_aside(tmp_path, write, record):
    for name in ("b/2.tfrecord", "a/1.tfrecord"):
        write(tmp_path / name, record(0, "a"))
    (tmp_path / "LICENSE.txt").write_text("x")
    assert [f.name for f in vector_files(tmp_path)] == ["1.tfrecord", "2.tfrecord"]


def test_every_declared_kind_can_be_resolved():
    import importlib

    for place in SOURCES.values():
        module, name = place.split(":")
        assert hasattr(importlib.import_module(module), name)


def test_vectors_and_a_store_are_not_both_given(tmp_path):
    from biascxr.config import EmbeddingsConfig

    assert EmbeddingsConfig(vectors=tmp_path).vectors == tmp_path
    with pytest.raises(InputError, match="--vectors and --embedding_store both say where the vectors are"):
        EmbeddingsConfig(vectors=tmp_path, embedding_store=tmp_path)
