"""A store of float16: the float32 numbers rounded, in half the space; what they cannot be rounded from is made anew."""

import numpy as np
import pytest

from biascxr.config import EmbeddingsConfig, RecordsConfig
from biascxr.containers import EmbeddingSet
from biascxr.embeddings import Encoder, build_embeddings, open_vectors, precomputed
from biascxr.embeddings.row_file import RowFile
from biascxr.embeddings.store import KnownVectors, in_precision
from biascxr.errors import InputError
from biascxr.records import build_records, read_rejected

SIZE, N = 32, 40


class Scaled(Encoder):
    """Moments of an image times a factor: numbers that float16 has to round, or cannot hold."""

    name = "scaled"
    libraries = ("numpy",)
    vector_length = 3

    def __init__(self, factor=1.0):
        self.factor, self.n_batches = np.float32(factor), 0

    def encode(self, images):
        self.n_batches += 1
        flat = images.reshape(len(images), -1).astype(np.float32)
        return self.factor * np.stack([flat.mean(1), flat.std(1), flat[:, 0] / 3], axis=1)

    def card(self):
        return {"encoder": self.name, "vector_length": 3, "fingerprint": "scaled"}


class Stands:
    """In the place of an `EncoderSpec`."""

    batch, graph = 4, None

    def __init__(self, encoder, precision):
        self.encoder, self.config = encoder, EmbeddingsConfig(store_precision=precision)

    def build(self):
        return self.encoder


@pytest.fixture
def embed(tiny_images, make_cohort, tmp_path):
    """Function `(name, precision, factor=1.0, earlier=None) -> (folder, EmbeddingSet, number of batches)`, of 40 images."""
    files = sorted(f.name for f in tiny_images.iterdir())
    cohort = make_cohort([f.split(".")[0] for f in files], files, tiny_images)
    records = tmp_path / "records"
    records.mkdir()
    build_records(cohort, RecordsConfig(image_size=SIZE, rows_per_shard=9), records, n_workers=1)

    def run(name, precision, factor=1.0, earlier=None):
        folder, encoder = tmp_path / name, Scaled(factor)
        folder.mkdir()
        made = build_embeddings(cohort, records, folder, Stands(encoder, precision), earlier=earlier)
        return folder, made, encoder.n_batches

    return run


class TestRounding:
    def test_is_numpys_to_the_nearest_and_float32_stays_what_it_is(self):
        vectors = np.random.default_rng(0).normal(0, 1000, (50, 7)).astype(np.float32)
        vectors[3], vectors[4, 0] = 0, 65504
        ids = [f"image {i}" for i in range(50)]
        np.testing.assert_array_equal(in_precision(vectors, "float16", ids), vectors.astype(np.float16))
        assert in_precision(vectors, "float32", ids) is vectors

    def test_a_number_beyond_float16_is_an_error_that_names_the_largest_and_its_image(self):
        vectors = np.ones((4, 3), np.float32)
        vectors[1, 2], vectors[2, 0] = 70_000, -81_234
        with pytest.raises(
            InputError, match=r"holds 81234, beyond float16's largest number 65504. Use --store_precision"
        ) as error:
            in_precision(vectors, "float16", list("abcd"))
        assert error.value.examples == ("c",)

    def test_a_vector_of_nothing_but_tiny_numbers_is_an_error_and_a_tiny_number_among_others_is_not(self):
        vectors = np.array([[1.0, 1e-7], [0.0, 2e-6]], np.float32)
        with pytest.raises(InputError, match="has no number above 2e-06, where float16 loses its digits") as error:
            in_precision(vectors, "float16", ["a", "b"])
        assert error.value.examples == ("b",)
        assert in_precision(vectors[:1], "float16", ["a"])[0, 0] == 1


class TestOfRecords:
    def test_is_the_float32_store_rounded_with_the_same_keys_in_half_the_space(self, embed):
        whole, full, _ = embed("float32", "float32")
        folder, half, _ = embed("float16", "float16")
        assert half.vectors.dtype == np.float16 and half.card == full.card | {"store_precision": "float16"}
        assert full.card["store_precision"] == "float32"
        np.testing.assert_array_equal(half.vectors, np.asarray(full.vectors).astype(np.float16))
        assert (half.vectors != full.vectors).any()
        assert (folder / "keys.npy").read_bytes() == (whole / "keys.npy").read_bytes()
        sizes = [(place / "vectors.npy").stat().st_size for place in (folder, whole)]
        assert sizes == [128 + 2 * N * 3, 128 + 4 * N * 3]
        half.save(folder)
        assert EmbeddingSet.load(folder).vectors.dtype == np.float16

    def test_takes_over_what_a_float32_store_knows_and_what_a_float16_one_does_to_the_bytes_of_computing(self, embed):
        anew, _, n_anew = embed("anew", "float16")
        first, *_ = embed("float32", "float32")
        second, _, n_of_float32 = embed("second", "float16", earlier=first)
        third, _, n_of_float16 = embed("third", "float16", earlier=second)
        assert n_anew > 0 and n_of_float32 == n_of_float16 == 0
        for name in ("vectors.npy", "keys.npy"):
            assert (anew / name).read_bytes() == (second / name).read_bytes() == (third / name).read_bytes()

    def test_a_float32_store_is_never_filled_from_float16(self, embed):
        half, *_ = embed("half", "float16")
        _, full, n_batches = embed("full", "float32", earlier=half)
        _, anew, n_anew = embed("anew", "float32")
        assert n_batches == n_anew > 0
        np.testing.assert_array_equal(full.vectors, anew.vectors)
        key = np.load(half / "keys.npy")[0].tobytes()
        assert KnownVectors(half).get(key) is None
        assert KnownVectors(half, "float16").get(key).dtype == np.float32

    def test_what_float16_cannot_hold_stops_the_run_and_nothing_infinite_is_left(self, embed, tmp_path):
        with pytest.raises(InputError, match=r"--store_precision float16: the vector of one image holds .*, beyond float16's"):
            embed("half", "float16", factor=1000.0)
        assert not (tmp_path / "half" / "vectors.npy").exists()
        embed("full", "float32", factor=1000.0)


class TestOfVectorsThatAreThere:
    IDS = tuple(f"img-{i:03d}" for i in range(23))

    @pytest.fixture
    def source(self, tmp_path):
        """A set of 23 vectors, one of them broken, 20 of whose images are in the cohort."""
        self.vectors = np.random.default_rng(0).normal(0, 50, (23, 16)).astype(np.float32)
        self.vectors[5, 2] = np.nan
        np.savez(tmp_path / "set.npz", image_ids=np.array(self.IDS), embeddings=self.vectors)
        return tmp_path / "set.npz"

    @pytest.fixture
    def cohort(self, make_cohort, tmp_path):
        ids = self.IDS[:1:-1]
        return make_cohort(ids, [f"{i}.jpg" for i in ids], tmp_path)

    def gather(self, source, cohort, folder, precision):
        folder.mkdir(exist_ok=True)
        return precomputed.gather_from(open_vectors(source), cohort, folder, precision=precision)

    def test_is_rounded_and_what_cannot_be_used_is_named_as_ever(self, source, cohort, tmp_path):
        full = self.gather(source, cohort, tmp_path / "full", "float32")
        half = self.gather(source, cohort, tmp_path / "half", "float16")
        assert half.vectors.dtype == np.float16 and half.card["store_precision"] == "float16"
        np.testing.assert_array_equal(half.vectors, np.asarray(full.vectors).astype(np.float16))
        assert [row["image_id"] for row in read_rejected(tmp_path / "half")] == ["img-005"]
        assert half.image_id.tolist() == full.image_id.tolist() and len(half) == 20

    def test_goes_on_where_it_was_stopped_to_the_same_bytes(self, source, cohort, tmp_path, monkeypatch):
        monkeypatch.setattr(precomputed, "BLOCK_ROWS", 6)
        monkeypatch.setattr(precomputed, "STEP_BYTES", 4 * 64)
        self.gather(source, cohort, tmp_path / "whole", "float16")
        gather_block, blocks = precomputed._gather_block, []

        def stop_at_third(*args):
            blocks.append(args[3])
            if len(blocks) == 3:
                raise KeyboardInterrupt
            return gather_block(*args)

        monkeypatch.setattr(precomputed, "_gather_block", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            self.gather(source, cohort, tmp_path / "parts", "float16")
        self.gather(source, cohort, tmp_path / "parts", "float16")
        assert blocks == [(0, 6), (6, 12), (12, 18), (12, 18), (18, 23)]  # the first two are there, and are known to be
        for name in ("vectors.npy", "rejected.csv"):
            assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    def test_what_float16_cannot_hold_is_an_error_unless_the_cohort_does_not_want_it(self, source, cohort, tmp_path):
        self.vectors[0, 3] = 1e6  # of an image that is not in the cohort
        np.savez(source, image_ids=np.array(self.IDS), embeddings=self.vectors)
        self.gather(source, cohort, tmp_path / "others", "float16")
        self.vectors[7, 3] = 1e6
        np.savez(source, image_ids=np.array(self.IDS), embeddings=self.vectors)
        with pytest.raises(InputError, match=r"holds 1e\+06, beyond float16's largest number 65504") as error:
            self.gather(source, cohort, tmp_path / "own", "float16")
        assert error.value.examples == ("img-007",)
        assert not (tmp_path / "own" / "vectors.npy").exists()


def test_a_row_file_of_the_other_type_is_begun_anew(tmp_path):
    rows = np.arange(4)
    with RowFile(tmp_path / "a.npy", (4, 8)) as file:
        file.write(rows, np.ones((4, 8), np.float32))
    with RowFile(tmp_path / "a.npy", (4, 8), "float16") as file:
        assert file.is_new and not file.read(rows).any()
        file.write(rows[::-1], np.full((4, 8), 1.5, np.float16))
        assert file.read(rows).dtype == np.float16
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.full((4, 8), 1.5, np.float16))
