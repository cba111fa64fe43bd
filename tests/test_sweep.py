"""A sweep: folds of patients, trainings in parallel that can be taken up again, one page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biascxr.cli import main, parse_flags
from biascxr.cohort.generic import CHEXPERT_LABELS
from biascxr.config import SweepConfig
from biascxr.containers import Attribute, Cohort
from biascxr.errors import InputError
from biascxr.sweep import fold_cohort


def cohort_of(n_patients: int) -> Cohort:
    n = 2 * n_patients
    splits = np.repeat(np.random.default_rng(0).choice(["train", "validation", "calibration", "test"], n_patients), 2)
    table = pd.DataFrame(
        {"image_id": [f"i{i}" for i in range(n)], "study_id": "s", "patient_id": [f"p{i // 2}" for i in range(n)], "path": "x",
         "view": "PA", "split": splits, "age": 50.0, "sex": "F"}
    )  # fmt: skip
    labels = np.zeros((n, 1), np.float32)
    return Cohort(table, labels, ("x",), (Attribute("sex", ("F", "M"), True),), "generic", "image", Path("."))


class TestFolds:
    def test_every_patient_is_held_out_once_and_the_test_split_stays(self):
        cohort = cohort_of(200)
        is_test = (cohort.table["split"] == "test").to_numpy()
        held_out = []
        for fold in range(5):
            split = fold_cohort(cohort, fold, 5, seed=3).table["split"].to_numpy()
            np.testing.assert_array_equal(split == "test", is_test)
            held_out.append(np.isin(split, ["validation", "calibration"]))
            assert 0.7 < (split[~is_test] == "train").mean() < 0.9
            assert abs((split == "validation").sum() - (split == "calibration").sum()) <= 4
        np.testing.assert_array_equal(np.sum(held_out, axis=0), ~is_test)

    def test_the_division_is_the_seeds(self):
        cohort = cohort_of(100)
        first, again, other = (fold_cohort(cohort, 0, 4, seed=s).table["split"] for s in (1, 1, 2))
        assert first.equals(again) and not first.equals(other)

    def test_too_few_patients_are_refused(self):
        with pytest.raises(InputError, match=r"patients outside the test split are too few for --folds 50: four a fold"):
            fold_cohort(cohort_of(60), 0, 50, seed=0)


def test_a_sweep_has_the_flags_of_a_run_and_its_own():
    config = parse_flags(["--csv_path", "x.csv", "--seeds", "3", "--folds", "2", "--recipes", "erm, pca"], kind=SweepConfig)
    assert (config.seeds, config.folds, config.mitigation.recipes) == (3, 2, "erm, pca")
    demo = parse_flags(["--demo", "--seeds", "2"], kind=SweepConfig)
    assert demo.demo and demo.embeddings.weights.endswith("encoder.keras") and demo.run_config().demo
    with pytest.raises(SystemExit):
        parse_flags(["--seeds", "0"], kind=SweepConfig)


@pytest.fixture(scope="module")
def vector_table(tmp_path_factory) -> Path:
    """120 patients, two images each, whose vectors tell a finding."""
    folder = tmp_path_factory.mktemp("sweep_vectors")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(240):
        positive = rng.random() < 0.4
        np.save(folder / f"{i}.npy", (rng.normal(size=8) + 1.5 * positive).astype(np.float32))
        rows.append(
            {"subject_id": f"{i // 2:04d}", "study_id": f"{i:05d}", "dicom_id": f"d{i}", "path": f"{i}.npy",
             "gender": "MF"[(i // 2) % 2], **dict.fromkeys(CHEXPERT_LABELS, 0.0), "Edema": float(positive)}
        )  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "meta.csv", index=False)
    return folder / "meta.csv"


@pytest.mark.slow
def test_trainings_are_made_once_whatever_the_number_of_jobs_and_the_page_says_what_they_show(vector_table, tmp_path, capfd):
    flags = ["--csv_path", str(vector_table), "--output_dir", str(tmp_path / "run"), "--labels", "Edema", "--recipes",
             "erm, standardize+erm", "--seeds", "2", "--folds", "2", "--n_replicates", "50", "--settings", "erm.hidden=[4]",
             "erm.max_epochs=2"]  # fmt: skip
    assert main(["sweep", *flags, "--jobs", "2"]) == 0
    folder = tmp_path / "run" / "08_sweep"
    trainings = sorted(folder.glob("*/seed_*_fold_*"))
    assert len(trainings) == 8 and all((t / "predictions.parquet").is_file() for t in trainings)
    assert not list(folder.glob("**/*.keras")), "models are kept only where that is asked for"
    runs = pd.read_csv(folder / "runs.csv")
    overall = runs[(runs["attribute"] == "overall") & (runs["metric"] == "AUROC")]
    assert len(overall) == 8 and overall["value"].nunique() > 4
    assert set(pd.read_csv(folder / "comparisons.csv")["verdict"]) == {"no verdict: too few runs"}
    page = (folder / "sweep.html").read_text(encoding="utf-8")
    assert "2 seeds × 2 folds" in page and "too few for a verdict on a method" in page
    assert not re.search(r"\bd\d+\b|\b\d{4}\b/|\.npy", re.sub(r"data:image[^\"]*", "", page)), "no identifier and no path"

    before = {t: (t / "predictions.parquet").read_bytes() for t in trainings}
    times = {t: (t / "manifest.json").stat().st_mtime_ns for t in trainings[1:]}
    (trainings[0] / "manifest.json").unlink()  # as if the sweep had been killed there
    assert main(["sweep", *flags, "--jobs", "1"]) == 0
    assert {t: (t / "manifest.json").stat().st_mtime_ns for t in trainings[1:]} == times
    assert (trainings[0] / "predictions.parquet").read_bytes() == before[trainings[0]]


def test_a_sweep_of_the_baseline_alone_is_refused(vector_table, capsys):
    assert main(["sweep", "--csv_path", str(vector_table), "--recipes", "erm"]) == 2
    assert "name at least one other in --recipes" in capsys.readouterr().err
