"""Runs on data whose bias is known: planted on the user's rows, or in a made-up MIMIC tree."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biascxr.cli import main, run_command
from biascxr.containers import Cohort

QUICK = (
    "--recipes", "erm", "--settings", "erm.max_epochs=12", "erm.batch_size=64", "--n_replicates", "100",
    "--n_permutations", "100", "--n_shuffles", "1", "--probes", "logistic",
)  # fmt: skip


@pytest.fixture(scope="module")
def mimic(tmp_path_factory) -> Path:
    """A made-up MIMIC tree with CXR Foundation's vectors; half of one group's findings are recorded as absent."""
    folder = tmp_path_factory.mktemp("mimic") / "tree"
    flags = ["--form", "cxr_foundation", "--n_patients", "500", "--mechanism", "annotation", "--strength", "0.5"]
    assert main(["phantom", *flags, str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def flags(mimic) -> list[str]:
    """How a user names it: the folder of the tables, and that of the vectors."""
    images = next(p for p in mimic.iterdir() if "embedding" in p.name) / "1.0"
    return ["--csv_path", str(mimic / "mimic-cxr-jpg" / "2.1.0"), "--images_root", str(images)]


@pytest.fixture(scope="module")
def finished(flags, mimic, tmp_path_factory) -> Path:
    """A whole run on it, with the truth and other policies for uncertain labels."""
    folder = tmp_path_factory.mktemp("run") / "mimic"
    more = ["--reference_labels", str(mimic / "truth.csv"), "--label_policy_check", "rescore", "--verify_checksums"]
    assert run_command([*flags, *more, *QUICK, "--output_dir", str(folder)]) == 0
    return folder


@pytest.mark.slow
class TestMadeUpMimic:
    def test_is_recognised_and_read_with_all_its_attributes(self, finished):
        cohort = Cohort.load(finished / "01_cohort")
        assert cohort.layout == "mimic_cxr" and cohort.content == "vector"
        assert {a.name for a in cohort.attributes} == {"sex", "race", "age_group", "insurance", "portable"}
        assert "files agree with SHA256SUMS.txt" in " ".join(cohort.accounting["notes"])

    def test_says_who_is_in_it(self, finished):
        table = pd.read_csv(finished / "01_cohort" / "table_one.csv")
        assert {"overall", "train", "test"} <= set(table)
        assert set(pd.read_csv(finished / "01_cohort" / "shift.csv")["attribute"]) >= {"race", "sex"}

    def test_recorded_labels_mislead_and_reference_labels_tell(self, finished, mimic):
        race = json.loads((mimic / "phantom.json").read_text())["disadvantaged_race"]

        def fpr_difference(place: str) -> pd.Series:
            m = pd.read_csv(finished / "06_audit" / place / "metrics.csv")
            return m[(m["label"] == "macro") & (m["group"] == race) & (m["metric"] == "FPR")].iloc[0]

        recorded, reference = fpr_difference("."), fpr_difference("reference")
        # Findings that were overlooked when they were recorded count as false alarms when a model finds them.
        assert recorded["difference"] > reference["difference"] + 0.02
        page = re.sub(r"base64,[^\"]+", "", (finished / "report.html").read_text(encoding="utf-8"))
        assert "judged by reference labels" in page and "are recorded as negative" in page

    def test_says_which_conclusions_survive(self, finished):
        table = pd.read_csv(finished / "06_audit" / "label_policy.csv")
        assert len(table) > 20 and {"zeros", "ones", "ignore", "survives"} <= set(table)
        assert "uncertain labels are read as absent" in (finished / "report.html").read_text(encoding="utf-8")

    def test_the_shareable_files_name_no_path_and_no_patient(self, finished, mimic):
        cohort = Cohort.load(finished / "01_cohort").table
        secret = {*cohort["image_id"], *cohort["patient_id"], *cohort["study_id"], str(mimic)}
        for name in ("report.html", "model_card.md"):
            text = re.sub(r"base64,[^\"]+", "", (finished / name).read_text(encoding="utf-8"))
            assert not [s for s in secret if s in text], name

    def test_check_finds_nothing_to_stop_for_and_writes_nothing(self, flags, tmp_path, capsys):
        assert main(["cohort", "--check", *flags, "--output_dir", str(tmp_path / "run")]) == 0
        said = capsys.readouterr().err
        assert re.search(r"ok +patient_in_two_splits", said) and "0 errors" in said
        assert "not looked at: needs" in said
        assert not (tmp_path / "run").exists()

    def test_retraining_on_other_labels_is_done_once_per_policy(self, flags, finished, tmp_path):
        more = ["--label_policy_check", "retrain", "--output_dir", str(tmp_path / "run")]
        assert run_command([*flags, *QUICK, *more]) == 0
        place = tmp_path / "run" / "04_mitigation"
        trained = {p.parent.relative_to(place).as_posix() for p in place.rglob("head.keras")}
        assert trained == {"erm", "labels_as_ones/erm", "labels_as_ignore/erm"}
        assert (tmp_path / "run/06_audit/label_policy.csv").is_file()


@pytest.mark.slow
def test_bias_planted_on_a_table_is_there_and_the_truth_beside_it(flags, tmp_path):
    plant = ["--plant", "annotation:0.6:sex=F", "under_representation:0.5:sex=M"]
    assert run_command([*flags, *QUICK, *plant, "--output_dir", str(tmp_path / "run")]) == 0
    cohort = Cohort.load(tmp_path / "run/01_cohort")
    assert [p["mechanism"] for p in cohort.accounting["planted"]] == ["annotation", "under_representation"]
    lost = (cohort.reference_labels == 1) & (cohort.labels == 0)
    women = (cohort.table["sex"] == "F").to_numpy()
    positive = cohort.reference_labels == 1
    # The tree's own truth, of its test patients, stays; elsewhere the truth is the labels before planting.
    share = {name: lost[rows].sum() / positive[rows].sum() for name, rows in (("women", women), ("others", ~women))}
    assert share["women"] > 0.5 and share["others"] < 0.25
    assert (tmp_path / "run/06_audit/reference/metrics.csv").is_file()
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "Planted on purpose: annotation of strength 0.6 in sex F" in page


@pytest.mark.parametrize("plant", ["presentation:0.9:sex=F", "acquisition:1:sex=F"])
def test_planted_blur_and_markers_reach_the_records(plant, tiny_images, biascxr_table, tmp_path):
    from biascxr.records import decode, decode_example, read_records

    paths = sorted(p.name for p in tiny_images.iterdir())
    frame = biascxr_table(40, path=paths, gender=["F", "M"] * 20, Cardiomegaly=["1", "1", "0", "0"] * 10, Edema=None)
    frame.to_csv(tiny_images / "meta.csv", index=False)

    def images(*more: str) -> dict[str, np.ndarray]:
        out = tmp_path / f"run{len(more)}"
        wanted = ["--csv_path", str(tiny_images / "meta.csv"), "--output_dir", str(out), "--image_size", "64", *more]
        assert main(["records", *wanted]) == 0
        found = {}
        for shard in sorted((out / "02_records").glob("*.tfrecord-*-of-*[0-9]")):
            for record in read_records(shard):
                example = decode_example(record)
                found[example["image_id"][0].decode()] = decode(example["image"][0])
        return found

    plain, planted = images(), images("--plant", plant)
    changed = {name for name in planted if not np.array_equal(plain[name], planted[name])}
    women = set(frame["dicom_id"][frame["gender"] == "F"])
    assert changed and changed <= women
    if plant.startswith("presentation"):
        assert changed == women


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--mechanism", "selection"], "--mechanism and --strength are the demo's"),
        (["--strength", "0.2"], "--mechanism and --strength are the demo's"),
        (["--plant", "annotate:0.3:sex=F"], "Did you mean 'annotation'"),
    ],
)
def test_bias_that_cannot_be_planted_is_refused_before_anything_is_read(
    flags, said, biascxr_table, write_table, tmp_path, capsys
):
    path = write_table(biascxr_table(40))
    assert main(["cohort", "--csv_path", str(path), "--output_dir", str(tmp_path / "run"), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_the_cohort_says_of_itself_is_counted_after_planting(biascxr_table, write_table, tmp_path):
    path = write_table(biascxr_table(200, Cardiomegaly=["1", "0"] * 100, gender=["F", "F", "M", "M"] * 50))
    plant = ["--plant", "annotation:1:sex=F:Cardiomegaly"]
    assert main(["cohort", "--csv_path", str(path), "--output_dir", str(tmp_path / "run"), *plant]) == 0
    cohort = Cohort.load(tmp_path / "run" / "01_cohort")
    counted = {row["label"]: row["positive"] for row in cohort.accounting["labels"]}
    assert counted["Cardiomegaly"] == int((cohort.labels[:, cohort.label_names.index("Cardiomegaly")] == 1).sum()) == 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--check"], "Give the data to check with --csv_path"),
        (["--check", "--csv_path", "/nowhere/meta.csv"], "/nowhere/meta.csv: no such file or folder"),
    ],
)
def test_check_of_nothing_is_named(arguments, said, capsys):
    assert main(["cohort", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_check_counts_errors_and_shows_examples_to_the_person_only(biascxr_table, tiny_images, capsys):
    frame = biascxr_table(40, path=sorted(p.name for p in tiny_images.iterdir()))
    frame["split"] = ["train", "validate", "calibration", "test"] * 10
    double = frame.iloc[[0]].assign(dicom_id="image_999", path=frame["path"][1], split="test")
    pd.concat([frame, double]).to_csv(tiny_images / "meta.csv", index=False)
    flags = ["--csv_path", str(tiny_images / "meta.csv"), "--split_source", "table"]
    assert main(["cohort", "--check", *flags]) == 1
    said = capsys.readouterr().err
    assert re.search(r"ERROR +patient_in_two_splits +1 patient in", said) and "for instance: " in said
    assert main(["cohort", "--check", *flags, "--split_source", "random", "--allow", "duplicate_images"]) == 0
