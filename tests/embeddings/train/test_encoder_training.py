"""`biascxr train-encoder`: learns what is in the images, from train patients alone; killed, it goes on to the same weights."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from biascxr.cli import main
from biascxr.config import EmbeddingsConfig, RecordsConfig
from biascxr.containers import Attribute, Cohort, EmbeddingSet
from biascxr.errors import InputError
from biascxr.records import build_records, decode, decode_example, read_records
from biascxr.verb_config import TrainEncoderConfig

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from biascxr.cohort.contract import Evidence, check_contract  # noqa: E402
from biascxr.embeddings import find_encoder  # noqa: E402
from biascxr.embeddings.train import train_encoder  # noqa: E402
from biascxr.embeddings.train.batches import Batching, training_batches, validation_batches  # noqa: E402
from biascxr.embeddings.train.callbacks import best_epoch, judge_scores  # noqa: E402
from biascxr.embeddings.train.data import load_training_data  # noqa: E402
from biascxr.embeddings.train.network import build_network  # noqa: E402

SIZE = 32
SPLIT_SIZES = {"train": 96, "validation": 40, "calibration": 8, "test": 16}
EPOCHS = 3


def make_run(folder, *, image_format="png", seed=0):
    """A run's cohort and records: 160 noisy images, a bright disc where the finding is labelled, stripes for recorded sex M."""
    rng = np.random.default_rng(seed)
    split = np.repeat(list(SPLIT_SIZES), list(SPLIT_SIZES.values()))
    n = len(split)
    has_disc, is_male = rng.random(n) < 0.5, rng.random(n) < 0.5
    (folder / "images").mkdir(parents=True)
    for i in range(n):
        image = rng.normal(110, 25, (SIZE, SIZE))
        image[::4] += 40 * is_male[i]
        if has_disc[i]:
            cv2.circle(image, tuple(int(v) for v in rng.integers(10, 22, 2)), 6, 230.0, -1)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), np.clip(image, 0, 255).astype(np.uint8))
    sex = np.where(is_male, "M", "F").astype(object)
    sex[::10] = "unknown"
    table = pd.DataFrame(
        {
            "image_id": [f"image{i:04d}" for i in range(n)],
            "study_id": [f"study{i:04d}" for i in range(n)],
            "patient_id": [f"patient{i // 2:04d}" for i in range(n)],
            "path": [f"{i}.png" for i in range(n)],
            "view": "PA",
            "split": split,
            "age": 50.0,
            "sex": sex,
        }
    )
    labels = np.stack([has_disc, np.zeros(n)], axis=1).astype(np.float32)
    labels[5::20] = np.nan
    attributes = (Attribute("sex", ("F", "M"), True),)
    cohort = Cohort(table, labels, ("Disc", "Never"), attributes, "generic", "image", folder / "images")
    for name in ("01_cohort", "02_records"):
        (folder / name).mkdir()
    cohort.save(folder / "01_cohort")
    settings = RecordsConfig(image_size=SIZE, rows_per_shard=16, image_format=image_format, equalize=False)
    build_records(cohort, settings, folder / "02_records", n_workers=1)
    return folder, cohort


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run's folder and its cohort; its calibration and test shards hold no records, so that reading one is an error."""
    run, cohort = make_run(tmp_path_factory.mktemp("run") / "a")
    for split in ("calibration", "test"):
        for shard in (run / "02_records").glob(f"*-{split}.tfrecord*"):
            shard.write_text("never to be read")
    return run, cohort


@pytest.fixture(autouse=True)
def restore_log():
    """`main` sends the log to a stream that pytest closes and keeps it from pytest; undo both."""
    logger = logging.getLogger("biascxr")
    before = logger.propagate, logger.level, list(logger.handlers)
    yield
    logger.propagate, logger.level = before[:2]
    logger.handlers[:] = before[2]


@pytest.fixture
def copied(made, tmp_path):
    """A copy of that run, to be damaged."""
    return shutil.copytree(made[0], tmp_path / "copy")


def settings(run, output, **changes):
    chosen = {"run": run, "output": output, "architecture": "small", "epochs": EPOCHS, "batch_size": 16, "augment": True}
    return TrainEncoderConfig(**(chosen | {"max_shift": 0.1} | changes))


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory):
    """The file of an encoder trained on the findings in one go."""
    output = tmp_path_factory.mktemp("encoder") / "findings.keras"
    return train_encoder(settings(made[0], output))


def weights_of(path):
    return keras.models.load_model(path, compile=False, safe_mode=True).get_weights()


def assert_equal_weights(one, other):
    for a, b in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_array_equal(a, b)


# What it learns from


def test_only_train_and_validation_images_with_something_to_learn_are_taken(made, caplog):
    run, cohort = made
    with caplog.at_level("INFO", "biascxr"):
        data = load_training_data(run / "02_records", "findings")
    labelled = ~np.isnan(cohort.labels).all(axis=1)
    for split, part in (("train", data.train), ("validation", data.validation)):
        expected = cohort.table["image_id"][labelled & (cohort.table["split"] == split)]
        assert part.image_id.tolist() == expected.tolist()
    assert data.classes == ("Disc",)
    assert "left out, not both positive and negative in train: Never" in caplog.text
    assert "train: 91 images of 48 patients; 5 left out without a label" in caplog.text
    assert "image0" not in caplog.text and "patient0" not in caplog.text


def test_rows_without_the_recorded_attribute_are_left_out_and_counted(made, caplog):
    run, cohort = made
    with caplog.at_level("INFO", "biascxr"):
        data = load_training_data(run / "02_records", "sex")
    assert data.classes == ("F", "M")
    known = cohort.table.set_index("image_id")["sex"]
    assert [data.classes[i] for i in data.train.values.argmax(axis=1)] == known[data.train.image_id].tolist()
    assert "train: 86 images" in caplog.text and "10 left out without a recorded sex" in caplog.text


def test_an_epoch_holds_each_train_image_once_at_most_and_no_other(made):
    data = load_training_data(made[0] / "02_records", "findings")
    every = pairs([stored(data.train)])
    seen = [pairs(epoch) for epoch in epochs_of(data, Batching(16, 32, seed=0), 0, 2)]
    for epoch in seen:
        assert len(epoch) == len(set(epoch)) == 80  # 5 batches of 16; 11 of 91 are left out
        assert set(epoch) <= set(every)
    assert seen[0] != seen[1] and set(seen[0]) != set(seen[1])


def test_reading_an_epoch_again_gives_the_same(made):
    """Keras reads a batch before it trains, where something of the model is not built yet."""
    data = load_training_data(made[0] / "02_records", "findings")
    batches = training_batches(data, Batching(16, 32, seed=0), first_epoch=0, epochs=1)
    first, again = (next(iter(batches))[0].numpy() for _ in range(2))
    np.testing.assert_array_equal(first, again)


def epochs_of(data, batching, first, last):
    """Returns the batches of each epoch, as arrays."""
    batches = [(x.numpy(), y.numpy()) for x, y in training_batches(data, batching, first_epoch=first, epochs=last)]
    n = batching.n_steps(len(data.train))
    assert len(batches) == n * (last - first)
    return [batches[i : i + n] for i in range(0, len(batches), n)]


def stored(part):
    """Returns a part's images as the records have them, and its values."""
    examples = [decode_example(record) for file in part.files for record in read_records(file)]
    images = {e["image_id"][0].decode(): decode(e["image"][0]) for e in examples}
    return np.stack([images[i] for i in part.image_id])[..., None].astype(np.float32) / 255, part.values


def pairs(batches):
    """Returns every image and what it is said to be, as bytes that can be compared."""
    return [image.tobytes() + value.tobytes() for x, y in batches for image, value in zip(x, y, strict=True)]


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_pixels_are_those_that_encoders_are_given(tmp_path, image_format):
    run, _ = make_run(tmp_path / "run", image_format=image_format)
    data = load_training_data(run / "02_records", "findings")
    assert (data.image_size, data.image_format) == (SIZE, image_format)
    expected, _ = stored(data.validation)
    for images, rows in validation_batches(data, 16):
        np.testing.assert_array_equal(images.numpy(), expected[rows.numpy()])
    assert set(pairs(epochs_of(data, Batching(16, 8, seed=3), 0, 1)[0])) <= set(pairs([stored(data.train)]))


def test_an_epochs_batches_follow_from_seed_and_epoch_whatever_came_before(made):
    from biascxr.embeddings.train.augment import Limits

    data = load_training_data(made[0] / "02_records", "findings")
    batching = Batching(16, 32, seed=4, limits=Limits(15, 0.1, 0.1, 0.1))
    tf.random.set_seed(4)
    whole = epochs_of(data, batching, 0, 2)
    tf.random.set_seed(4)
    later = epochs_of(data, batching, 1, 2)
    for expected, epoch in zip(whole[1:], later, strict=True):
        for (x, y), (x2, y2) in zip(expected, epoch, strict=True):
            np.testing.assert_array_equal(x, x2)
            np.testing.assert_array_equal(y, y2)
    other = epochs_of(data, replace(batching, seed=5), 0, 1)
    assert not np.array_equal(whole[0][0][0], other[0][0][0])


# What is refused


def test_records_that_hold_only_test_images_are_refused(copied):
    shards = pd.read_csv(copied / "02_records" / "shards.csv")
    shards[shards["split"] == "test"].to_csv(copied / "02_records" / "shards.csv", index=False)
    with pytest.raises(InputError, match=r"has no train images \(it has: test\).*test patients are never read"):
        load_training_data(copied / "02_records", "findings")


def test_records_that_do_not_belong_to_the_cohort_beside_them_are_refused(copied, made):
    cohort = made[1]
    moved = cohort.table.assign(split=cohort.table["split"].replace({"calibration": "train"}))
    replace(cohort, table=moved).save(copied / "01_cohort")
    with pytest.raises(InputError, match=r"holds 96 train images; by the cohort and rejected.csv it should be 104"):
        load_training_data(copied / "02_records", "findings")
    made_from = {"fingerprint": "x", "made_from": {"inputs": {"cohort": "another"}}, "outputs": {}}
    for name in ("01_cohort", "02_records"):
        (copied / name / "manifest.json").write_text(json.dumps(made_from))
    with pytest.raises(InputError, match="was made from another cohort than the 01_cohort"):
        load_training_data(copied / "02_records", "findings")


@pytest.mark.parametrize(
    ("change", "target", "message"),
    [
        (
            lambda c: replace(c, labels=np.full_like(c.labels, np.nan)),
            "findings",
            "expected findings that are labelled positive",
        ),
        (lambda c: replace(c, labels=np.zeros_like(c.labels)), "findings", "got none among Disc, Never"),
        (lambda c: c, "race", "expected at least two known groups of recorded race; .* read as to: findings, sex"),
        (lambda c: c, "age", "two known groups of recorded age"),
        (
            lambda c: replace(c, table=c.table.assign(sex=c.table["sex"].mask(c.table["split"] == "train", "F"))),
            "sex",
            "expected at least two groups among the train patients; got F only",
        ),
        (
            lambda c: replace(c, table=c.table.assign(sex=c.table["sex"].mask(c.table["split"] == "validation", "unknown"))),
            "sex",
            "no validation image has a recorded sex",
        ),
    ],
)
def test_a_target_that_cannot_be_learned_is_named(copied, made, change, target, message):
    change(made[1]).save(copied / "01_cohort")
    with pytest.raises(InputError, match=message):
        load_training_data(copied / "02_records", target)


def test_folders_that_are_not_a_runs_are_named(copied, tmp_path):
    with pytest.raises(InputError, match=r"no shards.csv.*Expected the 02_records folder of a run"):
        load_training_data(tmp_path, "findings")
    (copied / "01_cohort").rename(copied / "elsewhere")
    with pytest.raises(InputError, match="holds no cohort"):
        load_training_data(copied / "02_records", "findings")
    next((copied / "02_records").glob("*-train.tfrecord-00001*")).unlink()
    with pytest.raises(InputError, match=r"lacks 1 shards, first .*train.tfrecord-00001"):
        load_training_data(copied / "02_records", "findings")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target", "rase"], "Unknown target 'rase'. Did you mean 'race'?"),
        (["--architecture", "densenet12"], "Did you mean 'densenet121'?"),
        (["--epochs", "0"], "epochs must be at least 1; got 0"),
        (["--batch_size", "1"], "batch_size must be at least 2; got 1"),
        (["--learning_rate", "2"], "learning_rate must lie in (0, 1); got 2.0"),
        (["--dropout", "1"], "dropout must be a share in [0, 1); got 1.0"),
        (["--max_rotation", "200"], "max_rotation must lie in [0, 180] degrees; got 200.0"),
        (["--output", "a.h5"], "output must be a file that ends in .keras; got a.h5"),
    ],
)
def test_a_setting_out_of_its_range_is_named(capsys, flags, message):
    with pytest.raises(SystemExit) as stopped:
        main(["train-encoder", *flags])
    assert stopped.value.code == 2
    assert message in " ".join("".join(capsys.readouterr()).replace("│", " ").split())


def test_what_only_the_data_show_to_be_wrong_ends_with_status_2(made, tmp_path, capsys):
    flags = ["train-encoder", "--run", str(made[0]), "--output", str(tmp_path / "x.keras"), "--architecture", "small"]
    assert main(["train-encoder"]) == 2
    assert "--records RUN/02_records, or the run with --run RUN; one of both" in capsys.readouterr().err
    assert main([*flags, "--batch_size", "500"]) == 2
    assert "batch_size must be at most the 91 train images that there are; got 500" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# The network


@pytest.mark.parametrize("target", ["findings", "sex"])
def test_first_weights_follow_from_the_seed_alone(target):
    def build(seed):
        return build_network(
            "small", image_size=SIZE, n_classes=3, target=target, dropout=0.5, norm_momentum=0.9, seed=seed
        )  # fmt: skip

    keras.utils.set_random_seed(1)
    one = build(0)
    keras.utils.set_random_seed(2)
    again, other = build(0), build(1)
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), again.get_weights(), strict=True))
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])
    assert one.get_layer("vector").output.shape == (None, 256)
    scores = np.asarray(one(np.random.default_rng(0).random((4, SIZE, SIZE, 1), np.float32)))
    assert np.allclose(scores.sum(axis=1), 1) == (target == "sex")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "length"), [("densenet121", 1024), ("densenet201", 1920)])
def test_the_densenets_are_keras_own_with_one_channel(name, length):
    model = build_network(name, image_size=32, n_classes=14, target="findings", dropout=0.5, norm_momentum=0.9, seed=0)
    kind = {"densenet121": keras.applications.DenseNet121, "densenet201": keras.applications.DenseNet201}[name]
    own = kind(include_top=False, weights=None, input_shape=(32, 32, 1), pooling="max")
    own.set_weights(model.get_weights()[:-2])
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    vectors = keras.Model(model.input, model.get_layer("vector").output)(images)
    assert vectors.shape == (2, length)
    np.testing.assert_allclose(vectors, own(images), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert {x.momentum for x in model.layers if isinstance(x, keras.layers.BatchNormalization)} == {0.9}


# The judge


def test_validation_loss_and_auroc_are_scikit_learns(made):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for target in ("findings", "sex"):
        data = load_training_data(made[0] / "02_records", target)
        values = data.validation.values
        scores = rng.random(values.shape).astype(np.float32)
        if data.is_exclusive:
            scores /= scores.sum(axis=1, keepdims=True)
        judged = judge_scores(data, scores)
        last = (values[:, -1], scores[:, -1])
        np.testing.assert_allclose(judged["val_loss"], metrics.log_loss(*last), rtol=1e-5)
        np.testing.assert_allclose(judged[f"val_auroc/{data.classes[-1]}"], metrics.roc_auc_score(*last))


def test_the_best_epoch_is_the_first_of_the_smallest_loss_or_the_largest_auroc():
    history = [{"val_loss": loss, "val_auroc": auroc} for loss, auroc in [(0.5, 0.6), (0.4, np.nan), (0.4, 0.6), (0.6, 0.7)]]
    assert best_epoch(history, "loss") == 2
    assert best_epoch(history, "auroc") == 4
    assert best_epoch(history[:1], "auroc") == best_epoch([{"val_loss": 1.0, "val_auroc": np.nan}], "auroc") == 1


# What it makes


def test_it_learns_what_is_in_the_images_and_keeps_the_best_epoch(trained):
    history = pd.read_csv(trained.with_suffix(".training") / "history.csv")
    card = json.loads(trained.with_suffix(".card.json").read_text())
    assert history["epoch"].tolist() == [1, 2, 3]
    assert card["best_epoch"] == 1 + history["val_loss"].argmin()
    assert history["val_auroc"].max() > 0.85


def test_the_file_is_plain_keras_and_is_read_at_its_vector(trained, made):
    model = keras.models.load_model(trained, compile=False, safe_mode=True)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    encoder = find_encoder("densenet121", str(trained))(
        EmbeddingsConfig(weights=str(trained), inference_batch=4), image_size=SIZE, seed=0
    )
    assert encoder.vector_length == 256
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE)).astype(np.uint8)
    expected = keras.Model(model.input, model.get_layer("vector").output)(images[..., None] / np.float32(255))
    np.testing.assert_allclose(encoder.encode(images), expected, rtol=1e-5, atol=1e-6)
    assert encoder.card()["trained_on"].startswith("generic: 91 images of 48 train patients, target findings")


def test_its_card_lets_the_contract_find_test_patients_that_it_knows(trained, made):
    card = json.loads(trained.with_suffix(".card.json").read_text())
    assert (card["n_patients"], card["n_images"], card["n_validation_patients"]) == (48, 91, 20)
    assert card["augmentation"]["max_shift"] == 0.1 and card["classes"] == ["Disc"]
    assert "patient0" not in json.dumps(card) and "image0" not in json.dumps(card)
    cohort = made[1]
    n = len(cohort)
    vectors = EmbeddingSet(cohort.table["image_id"].to_numpy(object), np.zeros(n, np.int32), np.eye(n, dtype=np.float32), card)

    def seen(split):
        evidence = Evidence(cohort=replace(cohort, table=cohort.table.assign(split=split)), embeddings=vectors)
        return [f.count for f in check_contract(evidence, rules=["encoder_saw_test_patients"])]

    own = cohort.table["split"]
    assert seen(own) == []
    assert seen(own.replace({"train": "test", "test": "train"})) == [48]
    assert seen(own.replace({"validation": "test", "test": "validation"})) == [20]


def test_the_split_is_part_of_the_fingerprint(made, copied):
    _, cohort = made
    before = load_training_data(made[0] / "02_records", "findings")
    # Two test patients change places with calibration: what is trained on stays, the split does not.
    places = cohort.table["split"].to_numpy().copy()
    rows = np.r_[cohort.split_rows("calibration")[:4], cohort.split_rows("test")[:4]]
    places[rows] = np.repeat(["test", "calibration"], 4)
    replace(cohort, table=cohort.table.assign(split=places)).save(copied / "01_cohort")
    after = load_training_data(copied / "02_records", "findings")
    assert before.train.image_id.tolist() == after.train.image_id.tolist()
    assert before.split_fingerprint != after.split_fingerprint and before.digest != after.digest


def test_tensorboard_holds_scalars_and_no_identifier(trained):
    files = list((trained.with_suffix(".training") / "tensorboard").rglob("events*"))
    everything = b"".join(f.read_bytes() for f in files)
    assert b"epoch_loss" in everything and b"epoch_auroc" in everything
    assert b"patient0" not in everything and b"image0" not in everything


def test_the_same_flags_again_do_nothing_and_others_are_refused(trained, made, caplog, tmp_path):
    before = trained.stat().st_mtime_ns
    assert train_encoder(settings(made[0], trained)) == trained
    assert trained.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="is there already and was not made by these settings"):
        train_encoder(settings(made[0], trained, seed=1))
    copy = tmp_path / "copy.keras"
    shutil.copy(trained, copy)
    train_encoder(settings(made[0], copy, target="sex", epochs=1, overwrite=True))
    assert json.loads(copy.with_suffix(".card.json").read_text())["classes"] == ["F", "M"]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["small", "densenet121"])
def test_a_network_is_written_to_the_same_bytes_whatever_the_process_has_built_before(architecture, tmp_path):
    from biascxr.embeddings.train.keras_archive import save_reproducibly

    for name in ("one", "two"):
        settings = {"image_size": 32, "n_classes": 2, "target": "findings", "dropout": 0.5, "norm_momentum": 0.9, "seed": 0}
        save_reproducibly(build_network(architecture, **settings), tmp_path / f"{name}.keras")
    one, two = (tmp_path / f"{name}.keras" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    image = np.random.default_rng(0).random((1, 32, 32, 1)).astype(np.float32)
    expected = build_network(architecture, **settings).predict(image, verbose=0)
    np.testing.assert_array_equal(keras.models.load_model(one).predict(image, verbose=0), expected)


# Killed and gone on with

KILLED = """
import os, signal, sys
from biascxr.embeddings.train import state as train_state
real, n = os.replace, [0]
def replace(source, target):
    n[0] += 1
    if n[0] == int(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
train_state.os.replace = replace
from biascxr.cli import main
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("at_file", [3, 4])  # 1, 2: best and state of epoch 1; 3: best of epoch 2, 4: its state
def test_killed_while_it_writes_it_goes_on_to_the_same_weights_bit_for_bit(trained, made, tmp_path, at_file):
    output = tmp_path / "killed.keras"
    flags = ["--run", str(made[0]), "--output", str(output), "--architecture", "small", "--epochs", str(EPOCHS)]
    flags += ["--batch_size", "16", "--augment", "--max_shift", "0.1"]
    command = [sys.executable, "-c", KILLED, str(at_file), "train-encoder", *flags]
    killed = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (output.with_suffix(".training") / "checkpoint" / "state.npz").is_file() and not output.exists()
    with pytest.raises(InputError, match=r"unfinished training with other settings .*batch_size: 16 there, 8 now"):
        train_encoder(settings(made[0], output, batch_size=8))
    keras.utils.set_random_seed(77)  # another history of the process
    train_encoder(settings(made[0], output))
    assert_equal_weights(output, trained)
    assert output.read_bytes() == trained.read_bytes()
    assert output.with_suffix(".card.json").read_bytes() == trained.with_suffix(".card.json").read_bytes()
    histories = [(p.with_suffix(".training") / "history.csv").read_text() for p in (output, trained)]
    assert histories[0] == histories[1]  # every digit of every epoch, the best or not
    assert not (output.with_suffix(".training") / "checkpoint").exists()


@pytest.mark.slow
def test_an_optimizers_scale_and_a_group_target_go_on_too(made, tmp_path, monkeypatch):
    chosen = {"target": "sex", "mixed_precision": "float16", "epochs": 2, "augment": False, "choose_by": "auroc"}
    whole = train_encoder(settings(made[0], tmp_path / "whole.keras", **chosen))
    from biascxr.embeddings.train import callbacks as train_callbacks

    save = train_callbacks.TrainingState.save

    def stop(self, *args):
        save(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train_callbacks.TrainingState, "save", stop)
        train_encoder(settings(made[0], tmp_path / "parts.keras", **chosen))
    assert keras.config.dtype_policy().name == "float32"
    assert_equal_weights(train_encoder(settings(made[0], tmp_path / "parts.keras", **chosen)), whole)
    model = keras.models.load_model(whole, compile=False)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


@pytest.mark.slow
def test_one_device_under_tf_distribute_learns_the_same(made, tmp_path):
    chosen = {"epochs": 1, "augment": False, "dropout": 0.0}
    alone = train_encoder(settings(made[0], tmp_path / "alone.keras", **chosen))
    mirrored = train_encoder(settings(made[0], tmp_path / "mirrored.keras", distribute="mirrored", **chosen))
    for a, b in zip(weights_of(alone), weights_of(mirrored), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_damaged_shard_is_named_and_not_trained_around(copied, tmp_path, capsys):
    shard = next((copied / "02_records").glob("*-train.tfrecord-00002*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    flags = ["--architecture", "small", "--epochs", "1", "--batch_size", "16", "--output", str(tmp_path / "x.keras")]
    assert main(["train-encoder", "--records", str(copied / "02_records"), *flags]) == 2
    assert "The records cannot be read to their end" in capsys.readouterr().err
    assert not (tmp_path / "x.keras").exists()
