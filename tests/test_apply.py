"""`biascxr apply`: a run's trained recipes on another table. Nothing is fitted, and whom the run learned from is left out."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biascxr.apply import apply_run, settings_of
from biascxr.apply.evaluated import as_the_run_knows, choose_rows, shared_labels
from biascxr.apply.home import load_recipe, read_home
from biascxr.apply.settings import check_settings
from biascxr.apply.stages import check_fingerprint, check_weights_file
from biascxr.cli import main, parse_flags
from biascxr.containers import Attribute, Cohort, Predictions
from biascxr.errors import InputError
from biascxr.pipeline import run

LENGTH = 12
PER_GROUP = "standardize+erm+group_youden"
LABELS = ("Cardiomegaly", "Edema", "Pneumonia", "No Finding")
QUICK = ("--settings", "erm.max_epochs=4", "erm.batch_size=32", "erm.hidden=[16]")
LEAN = ("--n_replicates", "50", "--n_permutations", "0", "--metrics", "AUROC", "TPR", "FPR", "Brier")


def write_site(folder: Path, *, seed: int, n: int, races: dict[str, float], labels=LABELS[:3], prefix="", first=0) -> Path:
    """A BiasCXR-form table whose paths are vectors; the findings shift the vector alike at every site."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    directions = np.eye(LENGTH)[: len(LABELS)]
    rows = []
    for i in range(first, first + n):
        y = dict(zip(LABELS, rng.random(len(LABELS)) < 0.4, strict=True))
        race = rng.choice(list(races), p=list(races.values()))
        vector = 2.2 * np.array(list(y.values()), float) @ directions + rng.normal(size=LENGTH)
        np.save(folder / f"{i}.npy", (vector + 0.8 * (race == "ASIAN")).astype(np.float32))
        rows.append({
            "subject_id": f"{prefix}patient{i:04d}", "study_id": f"{prefix}study{i:04d}", "dicom_id": f"{prefix}image{i:04d}",
            "path": f"{i}.npy", "gender": rng.choice(["M", "F"]), "race": race, **{k: float(y[k]) for k in labels},
        })  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "meta.csv", index=False)
    return folder / "meta.csv"


HOME_RACES = {"WHITE": 0.4, "BLACK/AFRICAN AMERICAN": 0.3, "ASIAN": 0.3}


@pytest.fixture(scope="module")
def home_table(tmp_path_factory) -> Path:
    """A table of 360 patients, an image each."""
    return write_site(tmp_path_factory.mktemp("home"), seed=0, n=360, races=HOME_RACES)


@pytest.fixture(scope="module")
def home(home_table, tmp_path_factory) -> Path:
    """A run, finished up to its recipes."""
    folder = tmp_path_factory.mktemp("run") / "secretrun"
    flags = ["--csv_path", str(home_table), "--output_dir", str(folder), "--recipes", f"erm, {PER_GROUP}", *QUICK, *LEAN]
    return run(parse_flags(flags), until="mitigation")


@pytest.fixture(scope="module")
def other_table(tmp_path_factory) -> Path:
    """Other patients, one finding less and one more, other words for a race."""
    races = {"WHITE": 0.5, "ASIAN": 0.27, "Black": 0.2, "Rare": 0.03}
    labels = ("No Finding", "Edema", "Cardiomegaly")
    return write_site(tmp_path_factory.mktemp("other"), seed=1, n=240, races=races, labels=labels, prefix="other")


def apply(home: Path, table: Path, out: Path, *flags: str) -> int:
    return main(["apply", "--run", str(home), "--csv_path", str(table), "--output_dir", str(out), *flags])


@pytest.fixture(scope="module")
def applied(home, other_table, tmp_path_factory) -> Path:
    """The run's recipes on the other table."""
    folder = tmp_path_factory.mktemp("applied") / "out"
    assert apply(home, other_table, folder) == 0
    return folder


def predictions(folder: Path, recipe: str) -> Predictions:
    place = folder / "04_mitigation" / recipe / "predictions.parquet"
    return Predictions.load(place, Cohort.load(folder / "01_cohort").attributes)


class TestAnotherSite:
    def test_it_leaves_tables_predictions_and_a_page(self, applied):
        for name in (
            "report.html", "config.yaml", "versions.json", "run.log", "06_audit/metrics.csv", "06_audit/external.csv",
            "06_audit/in_distribution/metrics.csv", "06_audit/external_effects.csv", f"04_mitigation/{PER_GROUP}/applied.json",
        ):  # fmt: skip
            assert (applied / name).stat().st_size > 0, name
        assert not (applied / "04_mitigation" / "erm" / "head.keras").exists()  # nothing was trained

    def test_findings_are_those_of_both_in_the_runs_order_and_the_others_are_named(self, applied):
        assert predictions(applied, "erm").label_names == ("Cardiomegaly", "Edema")
        log = (applied / "run.log").read_text()
        assert "not in the table: Pneumonia" in log and "not in the run: No Finding" in log
        assert set(pd.read_csv(applied / "06_audit" / "in_distribution" / "metrics.csv")["label"]) == {
            "Cardiomegaly", "Edema", "macro", "micro",
        }  # fmt: skip

    def test_every_image_is_evaluated_whatever_the_split(self, applied):
        made = predictions(applied, "erm")
        assert len(made.table) == 240 and set(made.table["split"]) == {"test"}

    def test_scores_and_thresholds_are_the_runs_and_a_new_group_is_an_unknown_one(self, applied, home, other_table):
        made, table = predictions(applied, PER_GROUP), pd.read_csv(other_table)
        vectors = np.stack([np.load(other_table.parent / p) for p in table["path"]])
        trained = load_recipe(read_home(home), PER_GROUP)
        race = table["race"].where(table["race"].isin(HOME_RACES), "unknown")
        attributes = pd.DataFrame({"race": race, "sex": table["gender"]})
        scores = trained.score(vectors, attributes)
        decisions = trained.decide(scores, attributes)
        order = pd.Index(made.table["image_id"]).get_indexer(table["dicom_id"])
        np.testing.assert_allclose(made.scores[order], scores[:, :2], atol=1e-6)
        np.testing.assert_array_equal(made.decisions[order], decisions[:, :2])
        as_asian = trained.decide(scores, attributes.assign(race="ASIAN"))
        assert (as_asian != decisions).any()  # the group matters, so the answer for unknown is one

    def test_groups_that_the_run_did_not_have_are_counted(self, applied, other_table):
        table = pd.read_csv(other_table)
        facts = json.loads((applied / "04_mitigation" / PER_GROUP / "applied.json").read_text())
        assert facts["uses"] == ["race"]
        assert facts["unseen"] == {"race": table["race"].value_counts()[["Black", "Rare"]].to_dict()}
        assert facts["n_images_unseen"] == table["race"].isin(["Black", "Rare"]).sum()
        assert json.loads((applied / "04_mitigation" / "erm" / "applied.json").read_text())["uses"] == []

    def test_both_sides_stand_beside_each_other_with_the_change(self, applied, home):
        table = pd.read_csv(applied / "06_audit" / "external.csv")
        row = table[(table["label"] == "Edema") & (table["attribute"] == "overall") & (table["metric"] == "TPR")].iloc[0]
        away, own = predictions(applied, "erm"), predictions(home, "erm").in_split("test")
        for side, p in (("in", own), ("out", away)):
            i = p.label_names.index("Edema")
            assert row[f"value_{side}"] == pytest.approx(p.decisions[p.y_true[:, i] == 1, i].mean(dtype=float))
            assert row[f"n_{side}"] == len(p.table)
        assert row["change"] == pytest.approx(row["value_out"] - row["value_in"])
        assert set(table.loc[table["attribute"] == "race", "group"]) <= {"WHITE", "ASIAN", "gap"}
        effects = pd.read_csv(applied / "06_audit" / "external_effects.csv")
        assert set(effects["recipe"]) == {PER_GROUP} and {"verdict_in", "verdict_out", "transfer"} <= set(effects)

    def test_what_may_be_shared_holds_no_identifier_no_path_and_no_small_group(self, applied, home, other_table):
        page = (applied / "report.html").read_text(encoding="utf-8")
        text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
        table = pd.read_csv(other_table, dtype=str)
        secret = [*table["dicom_id"], *table["subject_id"], *table["study_id"], str(other_table.parent), "secretrun"]
        assert not [s for s in secret if s in text]
        assert not [s for s in secret[:-2] if s in (applied / "run.log").read_text()]
        n_rare = (table["race"] == "Rare").sum()
        assert 0 < n_rare < 10
        row = text[text.index("<td>Rare</td>") :].split("</tr>")[0]
        assert "&lt;10" in row and f">{n_rare}<" not in row

    def test_a_second_time_nothing_is_done_again(self, applied):
        before = {p: p.stat().st_mtime_ns for p in applied.rglob("manifest.json")}
        assert main(["apply", "--config", str(applied / "config.yaml")]) == 0
        assert {p: p.stat().st_mtime_ns for p in applied.rglob("manifest.json")} == before

    @pytest.mark.slow
    def test_the_audit_may_be_asked_otherwise_and_only_it_is_done_again(self, applied, home, other_table, tmp_path):
        shutil.copytree(applied, tmp_path / "copy")
        assert apply(home, other_table, tmp_path / "copy", "--attributes", "sex", "--n_replicates", "60") == 0
        log = (tmp_path / "copy" / "run.log").read_text().rsplit("applied, in", 1)[1]
        assert f"mitigation {PER_GROUP}: unchanged, reused" in log and "audit: done" in log
        assert set(pd.read_csv(tmp_path / "copy" / "06_audit" / "external.csv")["attribute"]) == {"overall", "sex"}


class TestTheSamePatients:
    @pytest.mark.slow
    def test_on_its_own_table_only_test_patients_are_left_with_equal_predictions(self, home, home_table, tmp_path):
        assert apply(home, home_table, tmp_path / "own") == 0
        for recipe in ("erm", PER_GROUP):
            made, own = predictions(tmp_path / "own", recipe), predictions(home, recipe).in_split("test")
            pd.testing.assert_frame_equal(made.table, own.table)
            np.testing.assert_array_equal(made.scores, own.scores)
            np.testing.assert_array_equal(made.decisions, own.decisions)
        assert (pd.read_csv(tmp_path / "own" / "06_audit" / "external.csv")["change"].dropna() == 0).all()
        facts = json.loads((tmp_path / "own" / "01_cohort" / "evaluated" / "evaluated.json").read_text())
        assert facts["n_patients_left_out"] == 360 - len(own.table) and facts["n_test_patients_in_both"] == len(own.table)

    def test_patients_are_left_out_where_an_image_is_in_both(self, home):
        here = read_home(home)
        own = here.cohort
        mixed = own.table.copy()
        mixed.loc[20:, "image_id"] = [f"new{i}" for i in range(len(mixed) - 20)]  # later films of the same people
        kept, facts = choose_rows(replace(own, table=mixed), here, "auto", min_patients=1)
        assert set(kept.table["patient_id"]) == set(own.table.loc[own.table["split"] == "test", "patient_id"])
        assert facts.n_images_in_both == 20 and facts.are_same_patients
        assert kept.accounting["excluded"]["patient that the run learned from"] == len(own) - len(kept)

    def test_equal_numbers_without_an_image_in_both_are_other_people_unless_the_user_knows_better(self, home):
        here = read_home(home)
        later = replace(here.cohort, table=here.cohort.table.assign(image_id=[f"new{i}" for i in range(len(here.cohort))]))
        kept, facts = choose_rows(later, here, "auto", min_patients=1)
        assert len(kept) == len(later) and facts.n_patient_ids_in_both == 360 and not facts.are_same_patients
        kept, facts = choose_rows(later, here, "yes", min_patients=1)
        assert len(kept) == (here.cohort.table["split"] == "test").sum() and facts.are_same_patients
        kept, _ = choose_rows(here.cohort, here, "no", min_patients=1)
        assert len(kept) == 360

    def test_nothing_left_is_an_error(self, home):
        here = read_home(home)
        train = here.cohort.rows(here.cohort.table.loc[here.cohort.table["split"] == "train", "image_id"].to_numpy(object))
        with pytest.raises(InputError, match="learned from every patient of the table"):
            choose_rows(train, here, "auto", min_patients=1)


class TestFindingsAndGroups:
    def test_findings_are_matched_whatever_their_case_and_underscores(self):
        assert shared_labels(("Edema", "Pleural_Thickening", "Mass"), ("pleural thickening", "Edema")) == [(0, 1), (1, 0)]

    def test_no_finding_in_common_names_both_lists(self, home):
        here = read_home(home)
        other = replace(here.cohort, label_names=("Mass", "Nodule", "Hernia"))
        with pytest.raises(InputError, match=r"knows: Cardiomegaly, Edema, Pneumonia\. The table has: Mass, Nodule, Hernia"):
            choose_rows(other, here, "auto", min_patients=1)

    def test_what_the_run_never_saw_is_unknown_to_it(self):
        table = pd.DataFrame({"race": ["WHITE", "White", "unknown"]})
        attributes = (Attribute("race", ("WHITE", "ASIAN"), True), Attribute("sex", ("F", "M"), True))
        known = as_the_run_knows(table, attributes)
        assert known["race"].tolist() == ["WHITE", "unknown", "unknown"] and set(known["sex"]) == {"unknown"}


class TestRefusals:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--pooling", "avg"], "--pooling cannot be avg here: the run"),
            (["--image_size", "64"], "its recipes take vectors that are made exactly so"),
            (["--uncertain_policy", "ones"], "the two would not be comparable"),
            (["--recipes", "leace+erm"], "all its trained recipes are applied, as they are"),
            (["--split_source", "table"], "every image is evaluated"),
            (["--n_shuffles", "2"], "fits no probe"),
            (["--attributes", "insurance"], "insurance"),
            (["--csv_path", "nowhere.csv"], "nowhere.csv: no such file"),
        ],
    )
    def test_what_the_run_fixes_cannot_be_changed(self, flags, message, home, other_table, tmp_path, capfd):
        assert apply(home, other_table, tmp_path / "out", *flags) == 2
        said = capfd.readouterr().err
        assert message in said and "Traceback" not in said

    def test_a_run_is_asked_for(self, other_table, home, applied, tmp_path, capfd):
        assert main(["apply", "--csv_path", str(other_table)]) == 2
        assert "Name the finished run" in capfd.readouterr().err
        for folder, message in (
            (tmp_path / "nowhere", "no such folder"), (tmp_path, "it holds no config.yaml"),
            (applied, f"name that run, --run {home}"),
        ):  # fmt: skip
            assert apply(folder, other_table, tmp_path / "out") == 2
            assert message in capfd.readouterr().err

    def test_its_own_folder_or_another_runs_is_not_written_into(self, home, other_table, tmp_path, capfd):
        assert apply(home, other_table, home) == 2
        shutil.copytree(home, tmp_path / "run")
        assert apply(home, other_table, tmp_path / "run") == 2
        said = capfd.readouterr().err
        assert "is the run itself" in said and "holds a run of its own" in said

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda run: shutil.rmtree(run / "04_mitigation" / PER_GROUP), "is not trained. Finish it first: python main.py"),
            (lambda run: shutil.rmtree(run / "03_embeddings"), "its embeddings stage is not there"),
            (lambda run: edit(run / "config.yaml", "erm.max_epochs=4", "erm.max_epochs=5"), "trained with other settings"),
            (lambda run: edit(run / "config.yaml", "seed: 0", "sead: 0"), "cannot be read by biascxr"),
            (lambda run: edit(run / "01_cohort" / "manifest.json", '"cohort.json": "', '"cohort.json": "0'), "made again"),
            (lambda run: edit(recipe_file(run), '"group_youden"', '"group_ouden"'), "cannot be loaded (trained by biascxr"),
            (lambda run: (recipe_file(run).parent / "head.keras").write_bytes(b"nothing"), "cannot be loaded (trained by"),
        ],
    )
    def test_an_unfinished_or_broken_run_is_named_as_such(self, spoil, message, home, other_table, tmp_path, capfd):
        shutil.copytree(home, tmp_path / "run")
        spoil(tmp_path / "run")
        assert apply(tmp_path / "run", other_table, tmp_path / "out") == 2
        said = capfd.readouterr().err
        assert message in said and "Traceback" not in said

    def test_vectors_of_another_length_are_refused(self, home, other_table, tmp_path, capfd):
        folder = tmp_path / "long"
        shutil.copytree(other_table.parent, folder)
        for path in folder.glob("*.npy"):
            np.save(path, np.zeros(LENGTH + 1, np.float32) + np.load(path).sum())
        assert apply(home, folder / "meta.csv", tmp_path / "out") == 2
        assert f"trained on vectors of {LENGTH} numbers; the table's have {LENGTH + 1}" in capfd.readouterr().err

    def test_images_are_refused_where_nobody_knows_the_encoder(self, home, other_table, tmp_path, capfd):
        table = pd.read_csv(other_table)
        table.assign(path="x.png").to_csv(tmp_path / "images.csv", index=False)
        assert apply(home, tmp_path / "images.csv", tmp_path / "out", "--allow", "duplicate_images") == 2
        assert "made elsewhere, and the table points to images" in capfd.readouterr().err

    def test_an_encoder_that_has_moved_may_be_named_where_it_is_now(self, home, other_table, tmp_path):
        shutil.copytree(home, tmp_path / "run")
        edit(tmp_path / "run" / "config.yaml", "weights: imagenet", "weights: /nowhere/mine.keras")
        own = replace(settings_of(tmp_path / "run"), csv_path=other_table, output_dir=tmp_path / "out")
        with pytest.raises(InputError, match="say where it is now with --weights FILE"):
            check_weights_file(own)
        (tmp_path / "mine.keras").touch()
        moved = replace(own, embeddings=replace(own.embeddings, weights=str(tmp_path / "mine.keras")))
        check_settings(moved, own)
        check_weights_file(moved)
        with pytest.raises(InputError, match="--weights cannot be imagenet"):  # while the run's own is where it was
            check_settings(replace(own, embeddings=replace(own.embeddings, weights="imagenet")), moved)

    def test_another_encoder_is_refused(self, home):
        card = {"encoder": "keras_file", "weights": "mine.keras", "fingerprint": "a"}
        here = read_home(home)
        check_fingerprint(card, replace(here, card={"fingerprint": "a"}))
        with pytest.raises(InputError, match="not the one that the run"):
            check_fingerprint(card, replace(here, card={"fingerprint": "b"}))

    def test_the_same_network_may_be_computed_otherwise_but_for_its_precision(self, home):
        card = {"encoder": "keras_file", "weights": "mine.keras", "network": "a", "mixed_precision": "off"}
        here = replace(read_home(home), card=card | {"fingerprint": "a on ONNX Runtime"})
        check_fingerprint(card | {"fingerprint": "a in batches of 4"}, here)
        for other, reason in (
            ({"network": "b"}, "not the one that the run"),
            ({"mixed_precision": "float16"}, "computed with mixed_precision off, these with float16"),
        ):
            with pytest.raises(InputError, match=reason):
                check_fingerprint(card | {"fingerprint": "a on ONNX Runtime"} | other, here)


@pytest.mark.slow
def test_an_attribute_of_the_runs_audit_that_the_table_lacks_is_left_out_and_said(home, other_table, tmp_path):
    shutil.copytree(home, tmp_path / "run")
    edit(tmp_path / "run" / "config.yaml", "  attributes: []", "  attributes: [race, sex]")
    table = pd.read_csv(other_table).drop(columns="race")
    table.to_csv(other_table.parent / "no_race.csv", index=False)
    assert apply(tmp_path / "run", other_table.parent / "no_race.csv", tmp_path / "out") == 0
    log = (tmp_path / "out" / "run.log").read_text()
    assert "the run's audit looks at race; the table does not have it" in log
    assert f"{PER_GROUP} uses race, which the table does not have" in log
    assert set(pd.read_csv(tmp_path / "out" / "06_audit" / "external.csv")["attribute"]) == {"overall", "sex"}
    facts = json.loads((tmp_path / "out" / "04_mitigation" / PER_GROUP / "applied.json").read_text())
    assert facts["not_recorded"] == ["race"] and facts["n_images_unknown"] == 240


def test_what_is_about_the_runs_own_table_starts_anew(home, tmp_path):
    shutil.copytree(home, tmp_path / "run")
    for before, after in (
        ("labels: []", "labels: [Edema]"), ("mapping: null", "mapping: m.yaml"), ("plant: []", "plant: ['annotation:1:sex=F']"),
        ("blank_policy: zeros", "blank_policy: ignore"), ("frontal_only: true", "frontal_only: false"),
    ):  # fmt: skip
        edit(tmp_path / "run" / "config.yaml", before, after)
    made = settings_of(tmp_path / "run")
    assert made.cohort.labels == () and made.cohort.mapping is None and made.bias.plant == () and made.csv_path is None
    assert made.cohort.blank_policy == "ignore" and not made.cohort.frontal_only
    assert made.mitigation.settings == QUICK[1:] and made.audit.n_replicates == 50


def test_from_python_it_is_one_call(home, other_table, tmp_path):
    config = replace(settings_of(home), csv_path=other_table, output_dir=tmp_path / "out")
    assert config.cohort.labels == () and config.mitigation.recipes == f"erm, {PER_GROUP}"
    unnamed = replace(config, output_dir=None)
    assert unnamed.run_dir() == Path("output/secretrun_on_meta")
    with pytest.raises(InputError, match="--csv_path"):
        apply_run(replace(config, csv_path=None))


def edit(path: Path, before: str, after: str) -> None:
    """Replaces a text in a file; it must be there."""
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def recipe_file(run: Path) -> Path:
    return run / "04_mitigation" / PER_GROUP / "recipe.json"
