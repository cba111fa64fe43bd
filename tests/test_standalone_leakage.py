"""`biascxr leakage --embeddings ... --table ...`: anybody's vectors, from the command line to the page."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from biascxr.cli import main
from biascxr.errors import InputError
from biascxr.leakage.result import LeakageResult
from biascxr.standalone_table import read_standalone

BINS = (0.0, 20.0, 40.0, 60.0, 80.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory, made_up_vectors):
    folder = tmp_path_factory.mktemp("anybody")
    table, vectors = made_up_vectors
    table.to_csv(folder / "meta.csv", index=False)
    np.savez(folder / "vectors.npz", image_ids=table["ImageID"].to_numpy(str), embeddings=vectors)
    return folder


@pytest.fixture(scope="module")
def made_up_vectors():
    """600 images of 200 patients; recorded sex moves a column, race does not; view goes with a finding."""
    rng = np.random.default_rng(0)
    patient = np.arange(600) // 3
    sex, race = rng.choice(["F", "M"], 200)[patient], rng.choice(["A", "B"], 200)[patient]
    finding = (rng.random(600) < 0.3).astype(int)
    table = pd.DataFrame(
        {
            "ImageID": [f"i{i}" for i in range(600)], "subject_id": patient, "sex": sex, "race": race,
            "age": rng.integers(18, 95, 200)[patient], "view": np.where(rng.random(600) < 0.2 + 0.6 * finding, "AP", "PA"),
            "true_Edema": finding, "prob_Edema": np.clip(0.3 * finding + 0.2 * (sex == "F") + rng.random(600) / 3, 0, 1),
        }
    )  # fmt: skip
    vectors = rng.normal(size=(600, 8)).astype(np.float32)
    vectors[:, 0] += 2 * (sex == "F")
    return table, vectors


@pytest.fixture(scope="module")
def result(files):
    flags = [
        "--embeddings",
        str(files / "vectors.npz"),
        "--table",
        str(files / "meta.csv"),
        "--attributes",
        "sex,race,age_group",
    ]
    assert main(["leakage", *flags, "--probes", "logistic", "--output_dir", str(files / "out"), "--n_shuffles", "3"]) == 0
    return LeakageResult.load(files / "out")


def macro(result: LeakageResult, attribute: str, control: str = "none") -> pd.Series:
    own = result.readings.query("representation == 'vectors' and attribute == @attribute and group == 'macro'")
    return own[own["control"] == control].iloc[0]


def test_what_is_in_the_vectors_is_read_and_what_is_not_is_not(result):
    assert macro(result, "sex")["low"] > 0.85 and macro(result, "sex")["p_value"] < 0.05
    race = macro(result, "race")
    assert race["low"] < 0.5 < race["high"] and race["p_value"] > 0.05
    assert macro(result, "sex", "shuffled")["high"] < 0.65


def test_every_row_is_judged_where_the_table_has_no_split(result):
    assert macro(result, "sex")["n"] == 600 and macro(result, "sex")["n_patients"] == 200


def test_scores_in_the_table_are_judged_too(result):
    verdicts = result.verdicts.set_index("attribute")["verdict"]
    assert verdicts["sex"] == "encoded, predictions depend on it"
    assert "depend" not in verdicts["race"] or verdicts["race"] == "encoded, no dependence found"


def test_the_page_holds_its_pictures_and_no_patient(files, result):
    page = (files / "out" / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64" in page and "Recorded sex" in page
    assert not (files / ".out.partial").exists()
    text = re.sub(r"data:image/png;base64,[^\"]*", "", page)
    assert not re.search(r"\bi\d{1,3}\b", text)  # image ids are i0 ... i599


def test_attributes_are_the_usual_ones_when_none_are_named(files):
    read = read_standalone(files / "meta.csv", age_bins=BINS, seed=0)
    assert [a.name for a in read.attributes] == ["sex", "race", "age_group"]
    assert {a.name: a.constant for a in read.attributes} == {"sex": True, "race": True, "age_group": False}
    assert not read.has_split and read.cohort.label_names == ("Edema",)


def test_the_view_can_be_read_where_it_is_asked_for(files):
    read = read_standalone(files / "meta.csv", attributes=("view",), age_bins=BINS, seed=0)
    assert [(a.name, a.groups) for a in read.attributes] == [("view", ("AP", "PA"))]


def test_a_table_s_own_split_is_kept(files, made_up_vectors, tmp_path):
    table, _ = made_up_vectors
    split = np.array(["train", "valid", "test"])[(table["subject_id"] % 10 > 5).astype(int) + (table["subject_id"] % 10 > 7)]
    table.assign(split=split).to_csv(tmp_path / "meta.csv", index=False)
    read = read_standalone(tmp_path / "meta.csv", age_bins=BINS, seed=0)
    assert read.has_split and set(read.cohort.table["split"]) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="ImageID"), "no column image_id"),
        (lambda t: t.drop(columns="subject_id"), "no column patient_id"),
        (lambda t: t.assign(split="somewhere").assign(split=lambda f: f["split"].where(f.index > 5, "train")), "'somewhere'"),
        (lambda t: t.assign(sex="F"), "fewer than two known groups"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(made_up_vectors, tmp_path, change, message):
    change(made_up_vectors[0]).to_csv(tmp_path / "meta.csv", index=False)
    with pytest.raises(InputError, match=message):
        read_standalone(tmp_path / "meta.csv", attributes=("sex",), age_bins=BINS, seed=0)


def test_a_classifier_s_scores_are_judged_on_test_rows_alone(made_up_vectors, tmp_path):
    table, _ = made_up_vectors
    split = np.where(table["subject_id"] % 3 == 0, "testing", np.where(table["subject_id"] % 3 == 1, "training", "val"))
    with pytest.raises(InputError, match="'testing'"):
        table.assign(split=split).to_csv(tmp_path / "meta.csv", index=False)
        read_standalone(tmp_path / "meta.csv", age_bins=BINS, seed=0)
    table.assign(split=np.where(split == "testing", "test", split)).to_csv(tmp_path / "meta.csv", index=False)
    read = read_standalone(tmp_path / "meta.csv", age_bins=BINS, seed=0)
    assert read.has_split, "training is train"
    assert set(read.predictions.table["split"]) == {"test"} and len(read.predictions.table) == (split == "testing").sum()


def test_a_patient_in_two_splits_is_refused(made_up_vectors, tmp_path):
    table = made_up_vectors[0].assign(split="train")
    table.loc[table.index % 3 == 0, "split"] = "test"
    table.to_csv(tmp_path / "meta.csv", index=False)
    with pytest.raises(InputError, match="200 patients into more than one split"):
        read_standalone(tmp_path / "meta.csv", age_bins=BINS, seed=0)


def test_age_itself_is_no_attribute(files):
    with pytest.raises(InputError, match="name age_group"):
        read_standalone(files / "meta.csv", attributes=("age",), age_bins=BINS, seed=0)


def test_vectors_of_other_images_are_refused_and_nothing_is_left(files, made_up_vectors, tmp_path, caplog):
    other = made_up_vectors[0].assign(ImageID=lambda t: "other" + t["ImageID"])
    other.to_csv(tmp_path / "meta.csv", index=False)
    flags = ["--embeddings", str(files / "vectors.npz"), "--table", str(tmp_path / "meta.csv")]
    assert main(["leakage", *flags, "--output_dir", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--table", "x.csv"], "Give vectors with --embeddings"),
        (["--embeddings", "x.npz", "--table", "x.csv", "--probes", "knm"], "knn"),
        (["--embeddings", "x.npz", "--table", "x.csv", "--where", "blocks"], "only vectors are here"),
    ],
)
def test_what_cannot_be_asked_is_said(flags, message, capsys):
    try:
        status = main(["leakage", *flags])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2 and message in capsys.readouterr().err
