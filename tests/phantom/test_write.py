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

from biascxr.phantom import FINDINGS, LABELS, MECHANISMS, PhantomConfig, make_phantom

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
    expected = ["subject_id", "study_id", "dicom_id", "path", "ViewPosition", "gender", "race", "age", "insurance", "split"]
    assert list(rows[0]) == [*expected, *LABELS]
    for row in rows:
        assert row["ViewPosition"] in {"AP", "PA"} and row["gender"] in {"M", "F"}
        assert 18 <= int(row["age"]) <= 90
        assert row["split"] in {"train", "validation", "calibration", "test"}
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
    assert list(truth[0])[:4] == ["dicom_id", "image_id", "group", "marker"]
    assert list(truth[0])[4:] == [*LABELS, *(f"severity of {name}" for name in FINDINGS)]
    assert [row["dicom_id"] for row in rows] == [row["dicom_id"] for row in truth] == [row["image_id"] for row in truth]
    assert summary["n_films"] == len(rows) == sum(summary["n_films_of_group"].values())
    assert summary["n_patients"] == len({row["subject_id"] for row in rows}) == SMALL["n_patients"]
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


def drawn_once(monkeypatch) -> None:
    """Each film's specification in place of its pixels: the files differ exactly where the films would."""
    monkeypatch.setattr("biascxr.phantom.write.draw_film", repr)
    monkeypatch.setattr("biascxr.phantom.write.encode_film", str.encode)


@pytest.mark.parametrize("mechanism", sorted(set(MECHANISMS) - {"presentation"}))
def test_strength_0_leaves_no_difference_between_mechanisms(tmp_path, monkeypatch, mechanism):
    drawn_once(monkeypatch)
    for name in ("presentation", mechanism):
        make_phantom(PhantomConfig(**SMALL, mechanism=name, strength=0.0), tmp_path / name, n_workers=1)
    first, second = contents(tmp_path / "presentation"), contents(tmp_path / mechanism)
    # Only the summary tells them apart, because it names the mechanism.
    assert first.pop("phantom.json") != second.pop("phantom.json")
    assert first == second


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_film_of_another_group_keeps_its_bytes_and_a_film_that_leaves_has_no_file(tmp_path, monkeypatch, mechanism):
    drawn_once(monkeypatch)
    for name, strength in (("fair", 0.0), ("biased", 0.9)):
        config = PhantomConfig(n_patients=200, image_size=64, mechanism=mechanism, strength=strength)
        make_phantom(config, tmp_path / name, n_workers=1)
    fair, biased = contents(tmp_path / "fair"), contents(tmp_path / "biased")
    truth = {row["dicom_id"]: row for row in table(tmp_path / "fair" / "truth.csv")}
    films = {Path(name).stem: name for name in fair if name.endswith(".jpg")}
    assert set(films) == set(truth)
    others = {name for image, name in films.items() if truth[image]["group"] != "1"}
    assert len(others) > 100
    assert {name: biased[name] for name in others} == {name: fair[name] for name in others}
    written = {name for name in biased if name.endswith(".jpg")}
    assert written == {row["path"] for row in table(tmp_path / "biased" / "meta.csv")}
    changed = {name for name in films.values() if biased.get(name) != fair[name]}
    assert bool(changed) == (mechanism != "annotation")


def test_acquisition_marks_films_and_says_so_in_the_truth_only(tmp_path, monkeypatch):
    drawn_once(monkeypatch)
    config = PhantomConfig(n_patients=200, image_size=64, mechanism="acquisition", strength=1.0, marked_finding="Edema")
    folder = make_phantom(config, tmp_path / "one", n_workers=1).parent
    truth, rows = table(folder / "truth.csv"), table(folder / "meta.csv")
    assert "marker" not in rows[0]
    for row, true in zip(rows, truth, strict=True):
        assert ("marker=True" in (folder / row["path"]).read_text()) == (true["marker"] == "1")
        if row["split"] != "test":
            assert (true["marker"] == "1") == (true["Edema"] == "1.0" and true["group"] == "1")
    assert {row["marker"] for row in truth} == {"0", "1"}


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


def test_the_command_takes_mechanism_strength_and_form(tmp_path, capsys):
    from biascxr.cli import main

    out = tmp_path / "one"
    flags = ["--mechanism", "annotation", "--strength", "0.3", "--form", "generic", "--n_patients", "12"]
    assert main(["phantom", *flags, "--image_size", "64", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"python main.py --csv_path {out / 'meta.csv'} --split_source table\n" in said and str(out / "truth.csv") in said
    config = json.loads((out / "phantom.json").read_text())["config"]
    assert PhantomConfig(**config) == PhantomConfig(mechanism="annotation", strength=0.3, n_patients=12, image_size=64)


def test_the_commands_help_names_every_mechanism_and_an_unknown_one_is_refused(tmp_path, capsys):
    from biascxr.cli import main

    with pytest.raises(SystemExit):
        main(["phantom", "--help"])
    shown = capsys.readouterr().out
    assert [name for name in MECHANISMS if name not in shown] == []
    with pytest.raises(SystemExit) as stopped:
        main(["phantom", "--mechanism", "anotation", str(tmp_path / "one")])
    assert stopped.value.code == 2
    assert "Did you mean 'annotation'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "one").exists()


class OneFolder:
    """A form that keeps its films in one folder, under names of its own."""

    def __init__(self, film_format: str | None) -> None:
        self.film_format = film_format

    def film_path(self, phantom, index):
        return f"images/{index:04d}.{self.film_format}"

    def image_ids(self, phantom):
        return np.array([f"{index:04d}" for index in range(len(phantom))])

    def write_tables(self, phantom, folder):
        # The truth and the summary are there before the table that makes the folder whole.
        assert (folder / "truth.csv").is_file() and (folder / "phantom.json").is_file()
        (folder / "main.csv").write_text("x\n")
        return folder / "main.csv"


@pytest.mark.parametrize("film_format", ["png", "jpg", None])
def test_a_form_names_its_films_and_their_format_or_has_none(tmp_path, monkeypatch, film_format):
    monkeypatch.setattr("biascxr.phantom.write.find_form", lambda name: OneFolder(film_format))
    out = tmp_path / "one"
    assert make_phantom(PhantomConfig(n_patients=5, image_size=64), out, n_workers=1) == out / "main.csv"
    names = [row["image_id"] for row in table(out / "truth.csv")]
    films = {f"images/{name}.{film_format}" for name in names} if film_format else set()
    assert set(contents(out)) == films | {"main.csv", "truth.csv", "phantom.json"}
    start = {"png": b"\x89PNG", "jpg": b"\xff\xd8\xff"}.get(film_format)
    assert all((out / name).read_bytes().startswith(start) for name in films)
