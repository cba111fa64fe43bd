"""One table with every hostile vector among whole ones, through the command line: each named, none in the way of the others."""

import csv
import io
import re

import numpy as np
import pytest

from biascxr.cli import run_command
from biascxr.containers import EmbeddingSet
from biascxr.records import encode_example, read_rejected, write_record

LENGTH = 1376


def vector(seed, length=LENGTH):
    return np.random.default_rng(seed).normal(size=length).astype(np.float32)


def example(seed, name, length=LENGTH, **more):
    return {"embedding": vector(seed, length), "image/id": f"gs://bucket/files/p10/{name}.dcm", **more}


def framed(*records):
    buffer = io.BytesIO()
    for record in records:
        write_record(buffer, encode_example(record))
    return buffer.getvalue()


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def with_a_byte_changed(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def nan(name):
    return framed(example(0, name) | {"embedding": np.append(vector(0, LENGTH - 1), np.float32(np.nan))})


# what the file is called -> its bytes, from its name without the ending; and the reason for which it is refused
HOSTILE = {
    "empty.tfrecord": (lambda name: b"", r"empty file \(zero bytes\)"),
    "empty.npy": (lambda name: b"", r"empty file \(zero bytes\)"),
    "wrong_crc.tfrecord": (lambda name: with_a_byte_changed(framed(example(0, name)), 2000), r"record 0 is damaged \(CRC\)"),
    "wrong_crc_of_length.tfrecord": (
        lambda name: with_a_byte_changed(framed(example(0, name)), 8),
        "the length of record 0 is damaged",
    ),
    "cut_in_the_middle.tfrecord": (lambda name: framed(example(0, name))[:3000], "cut off inside record 0"),
    "cut_in_the_middle.npy": (lambda name: npy(vector(0))[:3000], r"not a readable \.npy array"),
    "a_float_less.tfrecord": (lambda name: framed(example(0, name, LENGTH - 1)), r"wrong length \(1375; expected 1376\)"),
    "a_float_less.npy": (lambda name: npy(vector(0, LENGTH - 1)), r"wrong length \(1375; expected 1376\)"),
    "nan.tfrecord": (nan, "NaN or infinite values in the vector"),
    "infinite.npy": (lambda name: npy(np.full(LENGTH, np.inf, np.float32)), "NaN or infinite values in the vector"),
    "of_another.tfrecord": (lambda name: framed(example(0, "other")), "another image's vector"),
    "two_records.tfrecord": (lambda name: framed(example(0, name), example(1, name)), r"not one record \(2 in the file\)"),
    "texts.tfrecord": (lambda name: framed({"embedding": "text", "image/id": name}), "no float feature 'embedding'"),
    "two_rows.npy": (lambda name: npy(np.stack([vector(0), vector(1)])), r"not one vector \(shape \(2, 1376\)"),
    "a_text.tfrecord": (lambda name: b"subject_id,study_id,dicom_id,path\n" * 9, "not a TFRecord file"),
    "an_npz.npy": (lambda name: npz(embedding=vector(0)), r"not a readable \.npy array"),
    "an_npy.tfrecord": (lambda name: npy(vector(0)), "not a TFRecord file"),
    "another_name.npz": (lambda name: npz(other=vector(0)), r"no array 'embedding' in the \.npz file"),
}


@pytest.fixture
def run(biascxr_table, tmp_path):
    """Function `(names, paths, **flags) -> (stage's folder, reasons by image, vectors by image)`: up to the embeddings."""

    def make(names, paths, **flags):
        biascxr_table(len(names), dicom_id=names, path=paths).to_csv(tmp_path / "meta.csv", index=False)
        flags |= {"csv_path": tmp_path / "meta.csv", "output_dir": tmp_path / "run", "max_rejected_share": 0.6}
        words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
        assert run_command(words, until="embeddings") == 0
        folder = tmp_path / "run" / "03_embeddings"
        made = EmbeddingSet.load(folder)
        reasons = {row["image_id"]: row["reason"] for row in read_rejected(folder)}
        return folder, reasons, dict(zip(made.image_id, made.vectors, strict=True))

    return make


def test_every_hostile_file_is_named_with_its_reason_and_the_others_are_in_the_store(run, tmp_path):
    files = tmp_path / "vectors"
    files.mkdir()
    good = {f"good_{i}": f"good_{i}.{('npy', 'tfrecord')[i % 2]}" for i in range(len(HOSTILE))}
    for seed, (name, path) in enumerate(good.items()):
        (files / path).write_bytes(npy(vector(seed)) if path.endswith("npy") else framed(example(seed, name)))
    hostile = {path.replace(".", "_"): path for path in HOSTILE}
    for name, path in hostile.items():
        (files / path).write_bytes(HOSTILE[path][0](name))
    names = [name for pair in zip(good, hostile, strict=True) for name in pair] + ["not_there"]
    _, reasons, vectors = run(names, [(good | hostile).get(n, "not_there.npy") for n in names], images_root=files)
    expected = {name: HOSTILE[path][1] for name, path in hostile.items()} | {"not_there": "missing file"}
    assert reasons.keys() == expected.keys()
    assert {name: reason for name, reason in reasons.items() if not re.match(expected[name], reason)} == {}
    assert vectors.keys() == good.keys()
    for seed, name in enumerate(good):
        np.testing.assert_array_equal(vectors[name], vector(seed))


def test_a_set_with_every_damage_gives_what_is_whole_in_it_and_names_the_rest(run, tmp_path):
    files = tmp_path / "set"
    files.mkdir()
    names = [f"image_{i}" for i in range(24)]
    parts = [framed(example(i, name)) for i, name in enumerate(names)]
    parts[3] = with_a_byte_changed(parts[3], 2000)
    parts[5] = framed(example(5, names[5], LENGTH - 1))
    parts[7] = nan(names[7])
    parts[9] = framed({"embedding": "text", "image/id": names[9]})
    parts[11] = framed({"embedding": vector(11)})
    parts[13] += parts[13]  # twice the same image
    (files / "a.tfrecord-00000-of-00003").write_bytes(b"".join(parts[:12]))
    (files / "a.tfrecord-00001-of-00003").write_bytes(b"".join(parts[12:20])[:-3000])  # image 19 is cut in the middle
    (files / "b.tfrecord").write_bytes(b"".join(parts[20:23]))  # image 23 and the third shard are not there
    (files / "c.tfrecord").write_bytes(b"")
    (files / "d.tfrecord").write_text("a note, no records" * 9)
    folder, reasons, vectors = run(names, [f"{name}.png" for name in names], vectors=files)

    lost = "no vector in the source (it is damaged, and may have lost it there: source_damage.csv)"
    assert reasons == dict.fromkeys((names[i] for i in (3, 11, 19, 23)), lost) | {
        names[5]: "wrong length (1375; expected 1376)",
        names[7]: "NaN or infinite values in the vector",
        names[9]: "no float feature 'embedding' (found: embedding, image/id)",
        names[13]: "2 vectors of this image in the source",
    }
    with open(folder / "source_damage.csv", newline="", encoding="utf-8") as file:
        damage = {(row["path"].rsplit("/", 1)[1], row["reason"]) for row in csv.DictReader(file)}
    assert damage == {
        ("a.tfrecord-00000-of-00003", "record 3 is damaged (CRC)"),
        ("a.tfrecord-00000-of-00003", "the record names no image (no image/id)"),
        ("a.tfrecord-00001-of-00003", "cut off inside record 8"),
        ("a.tfrecord-00002-of-00003", "missing shard (named by its siblings)"),
        ("c.tfrecord", "holds no record"),
        ("d.tfrecord", "not a TFRecord file (no valid header)"),
    }
    assert vectors.keys() == set(names) - reasons.keys()
    for seed, name in enumerate(names):
        if name in vectors:
            np.testing.assert_array_equal(vectors[name], vector(seed))
