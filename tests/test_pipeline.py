"""The run as a whole: what goes in, what it leaves, what a second run does again."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biascxr.cli import parse_flags, run_command
from biascxr.cohort.generic import CHEXPERT_LABELS
from biascxr.config import AuditConfig, RunConfig
from biascxr.containers import Predictions
from biascxr.errors import InputError
from biascxr.pipeline import run
from biascxr.records import decode_example, encode_example, read_records, read_rejected, write_record

N_PATIENTS, LENGTH = 300, 1376
QUICK = ("--settings", "erm.max_epochs=15", "erm.batch_size=64", "--n_replicates", "100", "--n_shuffles", "1")


@pytest.fixture(scope="module")
def vector_table(tmp_path_factory) -> Path:
    """A BiasCXR-form table whose paths are 1376-d single-record .tfrecord files, two of them unusable."""
    folder = tmp_path_factory.mktemp("vectors")
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(4, LENGTH)) / np.sqrt(LENGTH)
    rows = []
    for i in range(N_PATIENTS):
        labels = rng.random(3) < 0.4
        image_id, path = f"dicom{i:04d}", folder / f"{i:04d}.tfrecord"
        race = rng.choice(["WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN"], p=[0.5, 0.3, 0.2])
        signal = 14 * labels @ directions[:3] + 8 * (race == "ASIAN") * directions[3]
        vector = (signal + rng.normal(size=LENGTH)).astype(np.float32)
        with open(path, "wb") as file:
            write_record(file, encode_example({"embedding": vector, "image/id": f"gs://x/{image_id}.dcm"}))
        rows.append(
            {
                "subject_id": f"1{i:07d}", "study_id": f"5{i:07d}", "dicom_id": image_id, "path": path.name,
                "gender": rng.choice(["M", "F"]), "race": race, "anchor_age": int(rng.integers(20, 90)),
                **{name: float(labels[k]) if k < 3 else 0.0 for k, name in enumerate(CHEXPERT_LABELS)},
            }
        )  # fmt: skip
    (folder / "0007.tfrecord").write_text("not a record")
    (folder / "0008.tfrecord").unlink()
    pd.DataFrame(rows).to_csv(folder / "meta.csv", index=False)
    return folder / "meta.csv"


@pytest.fixture(scope="module")
def vector_run(vector_table, tmp_path_factory) -> Path:
    """A finished run on precomputed vectors."""
    folder = tmp_path_factory.mktemp("run") / "vectors"
    flags = ["--csv_path", str(vector_table), "--output_dir", str(folder), "--recipes", "median_balance+erm+youden", *QUICK]
    assert run_command(flags) == 0
    return folder


class TestPrecomputedVectors:
    def test_records_are_skipped_and_everything_else_is_there(self, vector_run):
        assert not (vector_run / "02_records").exists()
        for name in ("report.html", "model_card.md", "config.yaml", "versions.json", "run.log", "06_audit/metrics.csv"):
            assert (vector_run / name).stat().st_size > 0

    def test_unusable_files_are_named_with_their_reason_and_the_rest_is_used(self, vector_run):
        reasons = {row["image_id"]: row["reason"] for row in read_rejected(vector_run / "03_embeddings")}
        assert reasons.keys() == {"dicom0007", "dicom0008"}
        assert reasons["dicom0007"].startswith("not a TFRecord file")
        assert reasons["dicom0008"] == "missing file"
        assert len(pd.read_parquet(vector_run / "03_embeddings" / "index.parquet")) == N_PATIENTS - 2

    def test_findings_without_a_positive_are_left_out_and_said(self, vector_run):
        assert "Support Devices: one class only (no positive), left out." in (vector_run / "run.log").read_text()

    def test_erm_is_run_though_it_was_not_named_and_learns(self, vector_run):
        metrics = pd.read_csv(vector_run / "06_audit" / "metrics.csv")
        assert list(metrics["recipe"].unique()) == ["erm", "median_balance+erm+youden"]
        macro = metrics[(metrics["label"] == "macro") & (metrics["attribute"] == "overall") & (metrics["metric"] == "AUROC")]
        assert macro["value"].min() > 0.8

    def test_the_planted_group_signal_is_readable_and_sex_is_not(self, vector_run):
        readings = pd.read_csv(vector_run / "05_leakage" / "readings.csv")
        own = readings.query("representation == 'vectors' and probe == 'logistic' and control == 'none'")
        probe = own.set_index(["attribute", "group"])
        assert probe.loc[("race", "ASIAN"), "auroc"] > 0.95 and probe.loc[("race", "ASIAN"), "low"] > 0.6  # of 11 patients
        assert probe.loc[("sex", "macro"), "low"] < 0.5 < probe.loc[("sex", "macro"), "high"]

    def test_what_each_recipe_s_last_layer_takes_is_read_and_opened(self, vector_run):
        readings = pd.read_csv(vector_run / "05_leakage" / "readings.csv")
        assert list(readings["representation"].unique()) == ["vectors", "erm", "median_balance+erm+youden"]
        dependence = pd.read_csv(vector_run / "05_leakage" / "dependence.csv")
        assert set(dependence["evidence"]) == {"given_label", "given_label_and_covariates", "frozen_head"}
        verdicts = pd.read_csv(vector_run / "05_leakage" / "verdicts.csv")
        assert len(verdicts) == verdicts.groupby(["recipe", "attribute"]).ngroups == 2 * readings["attribute"].nunique()

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--probes", "knm"], "knn"),
            (["--leakage_attributes", "rase"], "race"),
            (["--where", "noise"], "--where looks at the films again"),
            (["--attribute_encoders", "race.keras"], "race.keras: no such file"),
        ],
    )
    def test_what_the_leakage_stage_cannot_do_is_said_before_anything_is_trained(
        self, vector_table, tmp_path, capfd, flags, message
    ):
        assert run_command(["--csv_path", str(vector_table), "--output_dir", str(tmp_path), *flags, *QUICK]) == 2
        assert message in capfd.readouterr().err and not (tmp_path / "04_mitigation").exists()

    def test_the_shareable_files_hold_no_identifier_and_no_path(self, vector_run, vector_table):
        table = pd.read_csv(vector_table, dtype=str)
        secret = [*table["dicom_id"], *table["subject_id"], *table["study_id"], *table["path"], str(vector_table.parent)]
        for name in ("report.html", "model_card.md", "run.log"):
            text = (vector_run / name).read_text(encoding="utf-8")
            without_pictures = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)
            assert not [s for s in secret if s in without_pictures], name

    def test_a_second_run_reuses_every_stage_and_imports_no_tensorflow(self, vector_run):
        before = {p: p.stat().st_mtime_ns for p in vector_run.rglob("manifest.json")}
        code = (
            "import sys; from biascxr.cli import run_command;"
            f"assert run_command(['--config', {str(vector_run / 'config.yaml')!r}]) == 0;"
            "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip().splitlines()[-1] == "[]"
        assert {p: p.stat().st_mtime_ns for p in vector_run.rglob("manifest.json")} == before

    def test_the_same_seed_gives_the_same_bytes(self, vector_run, vector_table, tmp_path):
        config = parse_flags(["--config", str(vector_run / "config.yaml")])
        run(replace(config, output_dir=tmp_path / "again"), until="mitigation")
        for recipe in ("erm", "median_balance+erm+youden"):
            for name in ("predictions.parquet", "head.weights.h5", "thresholds.csv", "balance.csv"):
                first, second = (f / "04_mitigation" / recipe / name for f in (vector_run, tmp_path / "again"))
                assert first.read_bytes() == second.read_bytes(), f"{recipe}/{name}"

    def test_only_what_changed_is_done_again(self, vector_run, tmp_path):
        shutil.copytree(vector_run, tmp_path / "copy")
        flags = ["--config", str(vector_run / "config.yaml"), "--output_dir", str(tmp_path / "copy"), "--n_replicates", "60"]
        assert run_command(flags) == 0
        last = (tmp_path / "copy" / "run.log").read_text().rsplit(": run in ", 1)[1]
        assert "mitigation erm: unchanged, reused" in last and "embeddings: unchanged, reused" in last
        assert "audit: done" in last and "report: done" in last

    def test_test_patients_are_in_no_other_split(self, vector_run):
        from biascxr.containers import Cohort

        cohort = Cohort.load(vector_run / "01_cohort")
        path = vector_run / "04_mitigation" / "erm" / "predictions.parquet"
        predictions = Predictions.load(path, cohort.attributes).in_split("test")
        fitted = cohort.table.loc[cohort.table["split"] != "test", "patient_id"]
        assert not set(predictions.table["patient_id"]) & set(fitted)


def test_a_table_with_one_group_only_runs_all_default_recipes_to_a_report_that_says_so(vector_table, tmp_path):
    table = pd.read_csv(vector_table, dtype=str).drop(columns=["anchor_age", "gender"]).assign(race="WHITE")
    table.to_csv(vector_table.parent / "one_group.csv", index=False)
    flags = ["--csv_path", str(vector_table.parent / "one_group.csv"), "--output_dir", str(tmp_path)]
    assert run_command([*flags, *QUICK]) == 0
    assert "race: fewer than two known groups (WHITE); not audited." in (tmp_path / "run.log").read_text()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No attribute has two known groups, so groups cannot be compared." in page
    assert "leakage was not measured" in page
    thresholds = pd.read_csv(tmp_path / "04_mitigation" / "erm+group_youden" / "thresholds.csv")
    assert thresholds["note"].str.startswith("no attribute has two known groups").all()


class TestBadInput:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ([], "Give a table with --csv_path"),
            (["--csv_path", "nowhere.csv"], "nowhere.csv: no such file"),
            (["--recipes", "median_balanse+erm"], "Did you mean 'median_balance'?"),
            (["--settings", "erm.bach_size=16"], "Did you mean 'batch_size'?"),
            (["--weights", "imagnet"], "--weights must be"),
            (["--encoder", "densnet121"], "Did you mean 'densenet121'?"),
            (["--labels", "Pneumonea"], "Did you mean 'Pneumonia'?"),
        ],
    )
    def test_is_one_clear_line_and_exit_status_2(self, flags, message, vector_table, tmp_path, capfd):
        table = [] if not flags or "--csv_path" in flags else ["--csv_path", str(vector_table)]
        assert run_command([*table, *flags, "--output_dir", str(tmp_path)]) == 2
        captured = capfd.readouterr()
        assert message in captured.err
        assert "Traceback" not in captured.err

    def test_an_attribute_that_is_not_there_is_refused(self, vector_run, tmp_path):
        shutil.copytree(vector_run, tmp_path / "copy")
        config = parse_flags(["--config", str(vector_run / "config.yaml")])
        audit = replace(config.audit, attributes=("insurance",))
        with pytest.raises(InputError, match="insurance"):
            run(replace(config, output_dir=tmp_path / "copy", audit=audit))


@pytest.mark.slow
def test_four_bad_files_among_the_nih_images_harm_nothing_else(nih_folder, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(nih_folder / "images", images)
    names = sorted(p.name for p in images.iterdir())
    truncated, empty, missing, text = (images / names[i] for i in (10, 200, 500, 900))
    for path in (truncated, empty, text):
        path.chmod(0o644)
    truncated.write_bytes(truncated.read_bytes()[:20_000])
    empty.write_bytes(b"")
    missing.unlink()
    text.write_text("this is no image")

    def records(root: Path, folder: Path) -> dict[str, bytes]:
        table = nih_folder / "Data_Entry_subset.csv"
        config = parse_flags(["--csv_path", str(table), "--images_root", str(root), "--output_dir", str(folder)])
        run(config, until="records")
        found = {}
        for shard in (folder / "02_records").glob("*.tfrecord-*"):
            for data in read_records(shard):
                found[decode_example(data)["image_id"][0].decode()] = data
        return found

    whole, harmed = records(nih_folder / "images", tmp_path / "whole"), records(images, tmp_path / "harmed")
    reasons = {row["image_id"]: row["reason"] for row in read_rejected(tmp_path / "harmed" / "02_records")}
    assert reasons.keys() == {p.stem for p in (truncated, empty, missing, text)}
    assert reasons[truncated.stem].startswith("truncated or damaged jpeg")
    assert reasons[empty.stem] == "empty file (zero bytes)"
    assert reasons[missing.stem] == "missing file"
    assert reasons[text.stem].startswith("not an image")
    assert len(whole) == 1049
    assert harmed == {image_id: data for image_id, data in whole.items() if image_id not in reasons}


def test_images_unpacked_after_a_first_run_are_found_by_the_second(nih_folder, tmp_path):
    table = tmp_path / "Data_Entry.csv"
    table.write_text("".join((nih_folder / "Data_Entry_subset.csv").read_text().splitlines(keepends=True)[:121]))
    config = parse_flags(["--csv_path", str(table), "--output_dir", str(tmp_path / "run")])
    with pytest.raises(InputError, match=r"missing_files: None of the 120 files .* --images_root"):
        run(config, until="records")
    (tmp_path / "images_001" / "images").mkdir(parents=True)
    for name in pd.read_csv(table, index_col=False)["Image Index"]:
        shutil.copy(nih_folder / "images" / name, tmp_path / "images_001" / "images")
    run(config, until="records")
    assert read_rejected(tmp_path / "run" / "02_records") == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (AuditConfig(attributes=("rase",)), "Did you mean 'race'"),
        (AuditConfig(metrics=("AURC",)), "Did you mean 'AUROC'"),
        (AuditConfig(crossings=("race x sexs",)), "Did you mean 'sex'"),
        (AuditConfig(adjust=("veiw",)), "Did you mean 'view'"),
    ],
)
def test_an_audit_that_cannot_be_done_is_refused_before_anything_is_trained(wrong, message, biascxr_table, tmp_path):
    biascxr_table().to_csv(tmp_path / "meta.csv", index=False)
    config = RunConfig(csv_path=tmp_path / "meta.csv", output_dir=tmp_path / "out", audit=wrong)
    with pytest.raises(InputError, match=message):
        run(config)
    assert {p.name for p in (tmp_path / "out").iterdir() if p.name[:2].isdigit()} == {"01_cohort"}
