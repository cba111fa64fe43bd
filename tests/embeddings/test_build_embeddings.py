"""Embedding the records: the cohort's order, full batches, resumed by shard. A stand-in encoder keeps vectors plain."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

from biascxr.config import SPLITS, EmbeddingsConfig, RecordsConfig
from biascxr.containers import EmbeddingSet
from biascxr.embeddings import ENCODERS, Encoder, build, build_embeddings, find_encoder, store
from biascxr.embeddings.shards import EmbedJob, embed_shard
from biascxr.errors import InputError
from biascxr.records import build_records, read_grey, standardise

SIZE = 32


class Moments(Encoder):
    """Mean, deviation and first pixel of an image: a vector that says which image it is."""

    name = "moments"
    libraries = ("numpy",)
    vector_length = 3

    def __init__(self):
        self.batches = []

    def encode(self, images):
        self.batches.append(len(images))
        flat = images.reshape(len(images), -1).astype(np.float32)
        return np.stack([flat.mean(1), flat.std(1), flat[:, 0]], axis=1)

    def card(self):
        return {"encoder": self.name, "vector_length": 3, "fingerprint": "moments"}


@dataclass(frozen=True)
class Stands:
    """In the place of an `EncoderSpec`: builds the encoder that it holds."""

    encoder: Moments
    batch: int
    config: EmbeddingsConfig = field(default_factory=EmbeddingsConfig)
    graph: None = None

    def build(self):
        return self.encoder


def test_a_worker_that_finds_another_encoder_than_the_run_does_is_refused(cohort, records, tmp_path):
    class Others(Moments):
        def card(self):
            return super().card() | {"fingerprint": "other weights"}

    job = EmbedJob(next(records.glob("*train*")), tmp_path / "part.npz", Stands(Others(), 3), "a maker", "moments")
    with pytest.raises(InputError, match="finds other weights under --weights"):
        embed_shard(job)
    assert not job.part.exists()


def test_the_key_of_a_vector_holds_the_code_and_the_libraries_that_make_it(monkeypatch):
    card = {"fingerprint": "moments", "runtime": "keras"}
    made = store.made_by(card, ("numpy",))
    assert "keras" in made and f"numpy {np.__version__}" in made
    monkeypatch.setattr(store, "code_digest", lambda names: "0" * 64)
    assert store.made_by(card, ("numpy",)) != made
    assert store.row_key(b"image", made) != store.row_key(b"image", store.made_by(card, ("numpy",)))
    places = [build.__file__.replace("build.py", f"{name.split('/')[1]}.py") for name in store.COMPUTING]
    assert all(Path(place).is_file() for place in places)


@pytest.fixture
def cohort(tiny_images, make_cohort):
    """The splits take turns down the table, so that no shard holds neighbouring rows."""
    files = sorted(f.name for f in tiny_images.iterdir())
    return make_cohort([f.split(".")[0] for f in files], files, tiny_images, split=[SPLITS[i % 4] for i in range(40)])


@pytest.fixture
def records(cohort, tmp_path):
    (cohort.images_root / "image_007.jpg").write_bytes(b"")
    folder = tmp_path / "records"
    folder.mkdir()
    build_records(cohort, RecordsConfig(image_size=SIZE, rows_per_shard=4), folder, n_workers=1)
    return folder


def expected(cohort, image_ids):
    rows = cohort.table.set_index("image_id").loc[list(image_ids)]
    images = np.stack([standardise(read_grey(cohort.images_root / p), size=SIZE, equalize=True) for p in rows["path"]])
    return Moments().encode(images)


def embed(cohort, records, tmp_path, name="embeddings", batch=3, encoder=None, earlier=None):
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    made = build_embeddings(cohort, records, folder, Stands(encoder or Moments(), batch), earlier=earlier)
    return folder, made


def test_vectors_stand_in_the_cohorts_order_without_the_rejected(cohort, records, tmp_path):
    _, embeddings = embed(cohort, records, tmp_path)
    assert embeddings.image_id.tolist() == [i for i in cohort.table["image_id"] if i != "image_007"]
    assert (embeddings.view_id == 0).all()
    np.testing.assert_array_equal(embeddings.vectors, expected(cohort, embeddings.image_id))


def test_order_follows_the_cohort_not_the_records(cohort, records, tmp_path):
    turned = cohort.rows(cohort.table["image_id"].to_numpy()[::-1])
    _, embeddings = embed(turned, records, tmp_path)
    assert embeddings.image_id.tolist() == [i for i in turned.table["image_id"] if i != "image_007"]
    np.testing.assert_array_equal(embeddings.vectors, expected(cohort, embeddings.image_id))


@pytest.mark.parametrize("batch", [1, 3, 4, 16])
def test_batches_are_always_full(cohort, records, tmp_path, batch):
    encoder = Moments()
    _, embeddings = embed(cohort, records, tmp_path, batch=batch, encoder=encoder)
    assert set(encoder.batches) == {batch}
    np.testing.assert_array_equal(embeddings.vectors, expected(cohort, embeddings.image_id))


def test_the_store_is_loaded_as_it_was_made_and_nothing_else_is_left(cohort, records, tmp_path):
    folder, embeddings = embed(cohort, records, tmp_path)
    embeddings.save(folder)
    again = EmbeddingSet.load(folder)
    np.testing.assert_array_equal(again.vectors, embeddings.vectors)
    assert isinstance(again.vectors, np.memmap)
    assert again.image_id.tolist() == embeddings.image_id.tolist()
    assert again.card == embeddings.card
    assert sorted(f.name for f in folder.iterdir()) == ["card.json", "index.parquet", "keys.npy", "vectors.npy"]


def test_an_interrupted_build_goes_on_from_its_finished_shards(cohort, records, tmp_path):
    class Stops(Moments):
        def encode(self, images):
            if len(self.batches) == 5:
                raise KeyboardInterrupt
            return super().encode(images)

    with pytest.raises(KeyboardInterrupt):
        embed(cohort, records, tmp_path, batch=4, encoder=Stops())
    assert not (tmp_path / "embeddings" / "vectors.npy").exists()
    encoder = Moments()
    _, embeddings = embed(cohort, records, tmp_path, batch=4, encoder=encoder)
    _, whole = embed(cohort, records, tmp_path, name="whole", batch=4)
    assert len(encoder.batches) == 12 - 5  # twelve shards of at most four images
    assert (tmp_path / "embeddings" / "vectors.npy").read_bytes() == (tmp_path / "whole" / "vectors.npy").read_bytes()
    np.testing.assert_array_equal(embeddings.vectors, whole.vectors)


def test_one_changed_image_costs_one_vector_and_nothing_else_is_made_again(cohort, records, tmp_path):
    first, before = embed(cohort, records, tmp_path)
    changed = cohort.images_root / cohort.table["path"].iloc[11]
    cv2.imwrite(str(changed), 255 - read_grey(changed))
    again = tmp_path / "records_again"
    again.mkdir()
    build_records(cohort, RecordsConfig(image_size=SIZE, rows_per_shard=4), again, n_workers=1)
    encoder = Moments()
    folder, after = embed(cohort, again, tmp_path, name="again", encoder=encoder, earlier=first)
    assert encoder.batches == [3]  # a full batch, of one image
    np.testing.assert_array_equal(after.vectors, expected(cohort, after.image_id))
    is_other = (after.vectors != before.vectors).any(axis=1)
    assert after.image_id[is_other].tolist() == [cohort.table["image_id"].iloc[11]]

    encoder = Moments()
    whole, _ = embed(cohort, again, tmp_path, name="whole", encoder=encoder)
    assert len(encoder.batches) > 10
    for name in ("vectors.npy", "keys.npy"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_an_image_keeps_its_place_in_the_batch_whichever_others_are_known(cohort, records, tmp_path):
    class Placed(Moments):
        def encode(self, images):
            return super().encode(images) + np.arange(len(images), dtype=np.float32)[:, None]

    first, _ = embed(cohort.rows(cohort.table["image_id"].to_numpy()[::2]), records, tmp_path, encoder=Placed())
    kept = np.load(first / "keys.npy")[::3]  # a store that knows some of them, here and there
    np.save(first / "keys.npy", kept)
    np.save(first / "vectors.npy", np.load(first / "vectors.npy")[::3])
    encoder = Placed()
    folder, _ = embed(cohort, records, tmp_path, name="again", encoder=encoder, earlier=first)
    whole, _ = embed(cohort, records, tmp_path, name="whole", encoder=Placed())
    assert len(kept) > 0 and len(encoder.batches) > 0
    assert (folder / "vectors.npy").read_bytes() == (whole / "vectors.npy").read_bytes()


def test_a_run_stopped_between_its_last_shard_and_the_stages_end_embeds_nothing_again(cohort, records, tmp_path):
    folder, before = embed(cohort, records, tmp_path)
    kept = np.array(before.vectors)
    encoder = Moments()
    _, after = embed(cohort, records, tmp_path, encoder=encoder)
    assert encoder.batches == []
    np.testing.assert_array_equal(after.vectors, kept)
    assert sorted(path.name for path in folder.iterdir()) == ["keys.npy", "vectors.npy"]


def test_another_encoder_takes_nothing_over(cohort, records, tmp_path):
    class Others(Moments):
        def card(self):
            return super().card() | {"fingerprint": "other weights"}

    first, _ = embed(cohort, records, tmp_path)
    encoder = Others()
    embed(cohort, records, tmp_path, name="again", encoder=encoder, earlier=first)
    assert sum(encoder.batches) >= 39


def test_an_image_that_was_added_costs_one_vector_and_order_is_the_tables(cohort, records, tmp_path):
    fewer = cohort.rows(cohort.table["image_id"].to_numpy()[:39])
    first, _ = embed(fewer, records, tmp_path)
    encoder = Moments()
    _, after = embed(cohort, records, tmp_path, name="again", encoder=encoder, earlier=first)
    assert encoder.batches == [3]
    np.testing.assert_array_equal(after.vectors, expected(cohort, after.image_id))


def test_a_missing_shard_of_records_is_named_before_anything_is_embedded(cohort, records, tmp_path):
    gone = sorted(records.glob("*.tfrecord-*"))[2]
    gone.unlink()
    encoder = Moments()
    with pytest.raises(InputError, match=gone.name):
        embed(cohort, records, tmp_path, encoder=encoder)
    assert encoder.batches == []


def test_a_shard_without_images_gives_no_vectors(cohort, tmp_path):
    for path in cohort.table["path"][cohort.split_rows("validation")]:
        (cohort.images_root / path).unlink()
    records = tmp_path / "records"
    records.mkdir()
    build_records(cohort, RecordsConfig(image_size=SIZE), records, n_workers=1)
    _, embeddings = embed(cohort, records, tmp_path)
    kept = cohort.table["image_id"][cohort.table["split"] != "validation"]
    assert embeddings.image_id.tolist() == kept.tolist()
    np.testing.assert_array_equal(embeddings.vectors, expected(cohort, kept))


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_of_the_table_is_there(name, tmp_path):
    weights = {"keras_file": "mine.keras", "onnx": "mine.onnx", "saved_model": str(tmp_path)}.get(name, "random")
    (tmp_path / "saved_model.pb").touch()
    encoder = find_encoder(name, weights)
    assert issubclass(encoder, Encoder)
    assert encoder.name == name
    assert encoder.libraries


def test_a_misspelt_encoder_gets_the_nearest_one():
    with pytest.raises(InputError, match=r"Unknown encoder 'densenet12'.* Did you mean 'densenet121'"):
        find_encoder("densenet12", "random")
