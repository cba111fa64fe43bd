"""What a perturbation takes from a film is gone, what it leaves is there, and the weakest of each changes nothing."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from biascxr.containers import Attribute, EmbeddingSet
from biascxr.errors import InputError
from biascxr.leakage import find_probe
from biascxr.leakage.growth import Task
from biascxr.leakage.perturbations import AMOUNTS, low_passed, perturb, perturbed_vectors, read_perturbed
from biascxr.leakage.readout import Fold
from biascxr.records import encode_example, write_record
from biascxr.records.shard_list import Shard, ShardReport, write_shard_list

SIZE = 64


def some_films(n: int = 3, size: int = 256, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(n, size, size))
    smooth = ndimage.gaussian_filter(noise, (0, 1.5, 1.5))
    return np.clip(128 + 150 * smooth, 0, 255).astype(np.uint8)


def write_films(folder, image_id, films):
    """Writes records as the records stage does, in one shard."""
    with open(folder / "films.tfrecord", "wb") as file:
        for image, film in zip(image_id, films, strict=True):
            write_record(file, encode_example({"image": cv2.imencode(".png", film)[1].tobytes(), "image_id": image}))
    size = (folder / "films.tfrecord").stat().st_size
    write_shard_list(folder, [ShardReport(Shard("films.tfrecord", "test", len(films), size, ""), "key", [])])
    return folder


def spectrum(films: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy per frequency of whole DFTs, and each one's distance from the middle; an oracle apart from rfft."""
    centred = np.fft.fftshift(np.fft.fft2(films.astype(float)), axes=(1, 2))
    offset = np.arange(films.shape[1]) - films.shape[1] // 2
    return np.abs(centred) ** 2, np.hypot(offset[:, None], offset[None, :])


@pytest.mark.parametrize("kind", AMOUNTS)
def test_the_first_amount_of_each_kind_is_the_film_as_it_is(kind):
    films = some_films()
    assert (perturb(films, kind, amount=AMOUNTS[kind][0], seed=0) == films).all()


@pytest.mark.parametrize("diameter", AMOUNTS["low_pass"][1:])
def test_low_pass_leaves_nothing_above_the_cut_off_and_everything_below(diameter):
    films = some_films()
    before, distance = spectrum(films)
    after, _ = spectrum(low_passed(films.astype(float), diameter=diameter))
    above = distance > diameter / 2
    assert after[:, above].max() < 1e-16 * before.max()
    assert after[:, ~above] == pytest.approx(before[:, ~above], rel=1e-9, abs=1e-12 * before.max())
    # As whole grey values: rounding is white noise of variance 1/12, whose energy per frequency is size^2 / 12.
    rounded, _ = spectrum(perturb(films, "low_pass", amount=diameter, seed=0))
    assert rounded[:, above].mean() < 2 * 256**2 / 12
    assert before[:, distance > 50].mean() > 100 * rounded[:, distance > 50].mean() or diameter == 100


def test_a_cut_off_is_in_cycles_per_film_whatever_the_films_size():
    x = np.arange(64) / 64
    film = 128 + 50 * np.sin(2 * np.pi * 6 * x)[None, None, :] + np.zeros((1, 64, 1))
    assert np.ptp(low_passed(film, diameter=10)) < 1e-9  # six cycles lie outside a radius of five
    assert np.ptp(low_passed(film, diameter=12)) == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("amount", AMOUNTS["noise"][1:3])
def test_noise_has_the_deviation_asked_for_and_is_its_seeds(amount):
    grey = np.full((4, 256, 256), 128, np.uint8)
    one, same, other = (perturb(grey, "noise", amount=amount, seed=seed).astype(float) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one - 128).std() == pytest.approx(amount * 255, rel=0.02)
    assert abs((one - 128).mean()) < 0.5
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.01


def test_a_crop_is_the_centre_at_the_films_size():
    films = np.zeros((1, 256, 256), np.uint8)
    films[:, 64:192, 64:192] = 200
    assert (perturb(films, "crop", amount=0.5, seed=0) == 200).all()
    wider = perturb(films, "crop", amount=0.75, seed=0)
    assert wider.shape == films.shape
    assert (wider == 200).mean() == pytest.approx((0.5 / 0.75) ** 2, abs=0.02)
    assert (wider[0, :30] == 0).all()


@pytest.mark.parametrize(
    ("kind", "amount", "says"),
    [
        ("low_pass", 0, "diameter of 1"),
        ("noise", -0.1, "deviation of 0"),
        ("crop", 1.5, r"\(0, 1\]"),
        ("blur", 1, "Known: crop"),
    ],
)
def test_what_cannot_be_done_is_said(kind, amount, says):
    with pytest.raises(InputError, match=says):
        perturb(some_films(1), kind, amount=amount, seed=0)
    with pytest.raises(InputError, match=r"\[n, size, size\] uint8"):
        perturb(np.zeros((1, 4, 4)), "noise", amount=0.1, seed=0)


class Coarse:
    """Stand-in for an encoder: the film in 8 x 8 squares, its mean and deviation in each; takes four films at a time."""

    def card(self):
        return {"network": "coarse"}

    def encode(self, films):
        assert len(films) == 4
        squares = films.reshape(4, 8, SIZE // 8, 8, SIZE // 8).astype(np.float32)
        return np.concatenate([squares.mean((2, 4)).reshape(4, -1), squares.std((2, 4)).reshape(4, -1)], axis=1)


@pytest.fixture
def study(tmp_path):
    """60 films; the group is a fine pattern in the left half: nothing of it is coarse."""
    rng = np.random.default_rng(0)
    codes = np.arange(60) % 2
    films = 128 + 20 * ndimage.gaussian_filter(rng.normal(size=(60, SIZE, SIZE)), (0, 3, 3)) * 10
    stripes = 25 * np.sin(2 * np.pi * 24 * np.arange(SIZE) / SIZE)
    films[:, :, : SIZE // 2] += codes[:, None, None] * stripes[None, None, : SIZE // 2]
    films = np.clip(films, 0, 255).astype(np.uint8)
    image_id = np.array([f"i{i:02d}" for i in range(60)], object)
    records = write_films(tmp_path, image_id, films)
    vectors = perturbed_vectors(Coarse(), records, image_id=image_id, kind="crop", amount=1, batch=4, seed=0)
    part = np.arange(60) // 20

    def score(readout):
        value = roc_auc_score(readout.codes, readout.scores[:, 1])
        return [{"group": "macro", "auroc": value, "low": value, "high": value}]

    fold = Fold(*(np.flatnonzero(part == i) for i in range(3)))
    task = Task(find_probe("knn"), Attribute("sex", ("F", "M"), True), codes, image_id, (fold,), score)
    return task, EmbeddingSet(image_id, np.zeros(60, np.int32), vectors, {"network": "coarse"}), records


def test_vectors_are_in_the_order_asked_for_and_a_films_noise_is_its_own(study):
    _, embeddings, records = study
    some = np.array([41, 3, 17, 8, 30])
    common = {"records": records, "kind": "noise", "amount": 0.2, "batch": 4, "seed": 5}
    whole = perturbed_vectors(Coarse(), image_id=embeddings.image_id, **common)
    assert perturbed_vectors(Coarse(), image_id=embeddings.image_id[some], **common) == pytest.approx(whole[some])
    moved = whole - embeddings.vectors
    assert np.corrcoef(moved[:, :64])[np.triu_indices(60, 1)].max() < 0.7  # no two films have the same noise
    assert not np.allclose(perturbed_vectors(Coarse(), image_id=embeddings.image_id, **(common | {"seed": 6})), whole)


def test_a_fine_pattern_is_not_read_below_its_frequency_and_films_as_they_are_read_as_the_vectors_do(study):
    task, embeddings, records = study
    rows = read_perturbed(
        [task], embeddings, encoder=Coarse(), records=records, kind="low_pass", batch=4, amounts=(256, 60, 25)
    )
    auroc = {row["amount"]: row["auroc"] for row in rows}
    assert auroc[256] == task.score(task.read(embeddings.vectors))[0]["auroc"] > 0.95
    assert auroc[60] > 0.95  # 24 cycles lie within a diameter of 48
    assert auroc[25] < 0.75
    assert {(row["kind"], row["n_train_patients"]) for row in rows} == {("low_pass", 20)}


def test_perturbed_films_are_read_as_rows_of_their_own_beside_the_films_as_they_are(study):
    task, embeddings, records = study
    common = {"records": records, "kind": "noise", "batch": 4}
    made = perturbed_vectors(Coarse(), image_id=embeddings.image_id, amount=0.03, seed=task.seed, **common)
    fold = task.folds[0]
    twice = replace(
        task, codes=np.tile(task.codes, 2), patient_id=np.tile(task.patient_id, 2),
        folds=(replace(fold, test=fold.test + len(made)),),
    )  # fmt: skip
    expected = twice.read(np.concatenate([embeddings.vectors, made]))
    found = []
    task = replace(task, score=lambda readout: found.append(readout) or [])
    read_perturbed([task], embeddings, encoder=Coarse(), amounts=[0.03], **common)
    assert found[0].scores == pytest.approx(expected.scores)
    assert (found[0].rows == fold.test).all()


def test_a_probe_refitted_on_noisy_films_reads_what_the_noise_left(study):
    task, embeddings, records = study
    common = {"encoder": Coarse(), "records": records, "batch": 4, "is_refitted": True}
    rows = read_perturbed([task], embeddings, kind="noise", amounts=(0.0, 0.05), **common)
    auroc = {(row["kind"], row["amount"]): row["auroc"] for row in rows}
    assert auroc["noise", 0.0] == auroc["noise_refitted", 0.0]
    # Noise adds to every square's deviation: the probe that knows clean films is at a loss, the refitted one is not.
    assert auroc["noise_refitted", 0.05] > 0.95


def test_another_network_and_vectors_without_one_are_refused(study):
    task, embeddings, records = study
    other = EmbeddingSet(embeddings.image_id, embeddings.view_id, embeddings.vectors, {"network": "another"})
    with pytest.raises(InputError, match="the network that the vectors were made by"):
        read_perturbed([task], other, encoder=Coarse(), records=records, kind="crop", batch=4)
    with pytest.raises(InputError, match=r"ready made\. Leave noise out"):
        read_perturbed([task], embeddings, encoder=None, records=records, kind="noise", batch=4)
    with pytest.raises(InputError, match="1 of 2 are not in"):
        ids = np.array(["i00", "gone"], object)
        perturbed_vectors(Coarse(), records, image_id=ids, kind="noise", amount=0, batch=4, seed=0)
