"""The files a phantom leaves."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from biascxr.phantom import LABELS, PhantomConfig, make_phantom

SMALL = {"n_patients": 40, "image_size": 64}
PATH_FORM = re.compile(r"files/p1\d/p1\d{7}/s5\d{7}/([0-9a-f]{8}-){4}[0-9a-f]{8}\.jpg")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "one"
    assert make_phantom(PhantomConfig(**SMALL), out, n_workers=1) == out / "meta.csv"
    return out


def test_the_same_configuration_gives_the_same_bytes_whatever_the_number_of_workers(folder, tmp_path):
    make_phantom(PhantomConfig(**SMALL), tmp_path / "two", n_workers=2)
    assert contents(folder) == contents(tmp_path / "two")


def test_another_seed_gives_other_films(folder, tmp_path):
    make_phantom(PhantomConfig(**SMALL, seed=1), tmp_path / "other", n_workers=1)
    shared = set(contents(folder).values()) & set(contents(tmp_path / "other").values())
    assert not shared


def test_columns_and_cells_have_the_form_of_the_layout(folder):
    rows = table(folder / "meta.csv")
    expected = ["subject_id", "study_id", "dicom_id", "path", "ViewPosition", "gender", "race", "age", "insurance"]
    assert list(rows[0]) == [*expected, *LABELS]
    for row in rows:
        assert row["ViewPosition"] in {"AP", "PA"} and row["gender"] in {"M", "F"}
        assert 18 <= int(row["age"]) <= 90
        assert {row[label] for label in LABELS} <= {"1.0", "0.0", "-1.0", ""}
    cells = [row[label] for row in rows for label in LABELS]
    assert 0 < cells.count("-1.0") < 0.05 * len(cells)
    assert cells.count("") > 0 and cells.count("0.0") > 0


def test_every_row_has_its_film_in_mimics_folders_and_no_film_is_left_over(folder):
    rows = table(folder / "meta.csv")
    for row in rows:
        assert PATH_FORM.fullmatch(row["path"])
        assert row["path"].endswith(f"p{row['subject_id']}/s{row['study_id']}/{row['dicom_id']}.jpg")
        assert cv2.imread(str(folder / row["path"]), cv2.IMREAD_UNCHANGED).shape == (64, 64)
    assert {row["path"] for row in rows} == {name for name in contents(folder) if name.endswith(".jpg")}


def test_the_truth_names_the_group_the_races_and_the_labels(folder):
    summary = json.loads((folder / "phantom.json").read_text())
    assert PhantomConfig(**summary["config"]) == PhantomConfig(**SMALL)
    assert summary["disadvantaged_race"] == summary["race_of_group"][str(summary["disadvantaged_group"])]
    rows, truth = table(folder / "meta.csv"), table(folder / summary["truth_file"])
    assert [row["dicom_id"] for row in rows] == [row["dicom_id"] for row in truth]
    for row, true in zip(rows, truth, strict=True):
        assert row["race"] in {"", summary["race_of_group"][true["group"]]}
        # Presentation records what is true; only "uncertain" and "not mentioned" stand between.
        for label in LABELS:
            if row[label] in {"1.0", "0.0"}:
                assert row[label] == true[label]


def test_presentation_lowers_contrast_in_the_disadvantaged_group_only(folder, tmp_path):
    make_phantom(PhantomConfig(**SMALL, strength=0.0), tmp_path / "fair", n_workers=1)
    make_phantom(PhantomConfig(**SMALL, strength=1.0), tmp_path / "unseen", n_workers=1)
    rows, truth = table(folder / "meta.csv"), table(folder / "truth.csv")
    dimmed = 0
    for row, true in zip(rows, truth, strict=True):
        fair, half, unseen = (
            cv2.imread(str(root / row["path"]), cv2.IMREAD_GRAYSCALE).astype(float)
            for root in (tmp_path / "fair", folder, tmp_path / "unseen")
        )
        has_something_drawn = any(true[label] == "1.0" for label in LABELS if label != "No Finding")
        if true["group"] == "1" and has_something_drawn:
            dimmed += 1
            # The film without findings is the yardstick: dimmed findings lie nearer to it than plain ones.
            assert np.abs(half - unseen).mean() < 0.9 * np.abs(fair - unseen).mean()
        else:
            np.testing.assert_array_equal(half, fair)
            np.testing.assert_array_equal(unseen, fair)
    assert dimmed >= 5


def test_strength_0_leaves_no_difference_between_mechanisms(tmp_path):
    for mechanism in ("presentation", "annotation"):
        make_phantom(PhantomConfig(**SMALL, mechanism=mechanism, strength=0.0), tmp_path / mechanism, n_workers=1)
    presentation, annotation = contents(tmp_path / "presentation"), contents(tmp_path / "annotation")
    # Only the summary tells them apart, because it names the mechanism.
    assert presentation.pop("phantom.json") != annotation.pop("phantom.json")
    assert presentation == annotation


def test_annotation_leaves_the_films_and_the_truth_alone(folder, tmp_path):
    make_phantom(PhantomConfig(**SMALL, strength=0.0), tmp_path / "fair", n_workers=1)
    make_phantom(PhantomConfig(**SMALL, mechanism="annotation", strength=0.8), tmp_path / "biased", n_workers=1)
    fair, biased = contents(tmp_path / "fair"), contents(tmp_path / "biased")
    assert {name for name in fair if fair[name] != biased[name]} == {"meta.csv", "phantom.json"}


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"`output_dir` must be a new or empty folder\. Received: .*"):
        make_phantom(PhantomConfig(**SMALL), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`n_workers` must be 1 or more.* Received: 0"):
        make_phantom(PhantomConfig(**SMALL), tmp_path / "new", n_workers=0)
    assert not (tmp_path / "new").exists()


def test_the_package_loads_neither_tensorflow_nor_pandas():
    code = "import sys, biascxr.phantom; print({'tensorflow', 'keras', 'pandas'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
