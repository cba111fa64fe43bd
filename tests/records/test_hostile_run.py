"""One table with every hostile image among whole ones, through the command line: each named, none in the way of the others."""

import re

import numpy as np
import pytest
from test_hostile_images import HOSTILE, png

from biascxr.cli import run_command
from biascxr.records import decode, decode_example, read_grey, read_records, read_rejected, standardise


def test_every_hostile_image_is_named_with_its_reason_and_the_others_are_in_the_records(biascxr_table, make_image, tmp_path):
    pytest.importorskip("pydicom")
    images = tmp_path / "images"
    images.mkdir()
    good = {f"good_{i}.png": make_image(i, (100 + i, 120)) for i in range(len(HOSTILE))}
    for name, pixels in good.items():
        (images / name).write_bytes(png(pixels))
    for name, (content, _) in HOSTILE.items():
        (images / name).write_bytes(content())
    names = [name for pair in zip(good, HOSTILE, strict=True) for name in pair] + ["not_there.png"]
    biascxr_table(len(names), path=names, dicom_id=names).to_csv(tmp_path / "meta.csv", index=False)
    flags = {"csv_path": tmp_path / "meta.csv", "images_root": images, "output_dir": tmp_path / "run", "n_workers": 1}
    flags |= {"image_size": 64, "rows_per_shard": 8, "max_rejected_share": 0.6}
    done = run_command([str(word) for name, value in flags.items() for word in (f"--{name}", value)], until="records")
    assert done == 0

    folder = tmp_path / "run" / "02_records"
    reasons = {row["image_id"]: row["reason"] for row in read_rejected(folder)}
    expected = {name: reason for name, (_, reason) in HOSTILE.items()} | {"not_there.png": "missing file"}
    assert reasons.keys() == expected.keys()
    assert {name: reason for name, reason in reasons.items() if not re.match(expected[name], reason)} == {}
    stored = {}
    for shard in folder.glob("*.tfrecord-*"):
        for data in read_records(shard):
            example = decode_example(data)
            stored[example["image_id"][0].decode()] = decode(example["image"][0])
    assert stored.keys() == good.keys()
    for name in good:
        np.testing.assert_array_equal(stored[name], standardise(read_grey(images / name), size=64, equalize=True))
