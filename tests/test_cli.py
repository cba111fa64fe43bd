"""The command line: understood before anything heavy is loaded, and clear about what it cannot use."""

import logging
import subprocess
import sys

import pytest

from biascxr import cli
from biascxr.cli import STAGE_VERBS, main, parse_flags, run_command


@pytest.fixture(autouse=True)
def restore_log():
    """`log_to_console` keeps the log from pytest; undo it, and let go of a handler on a captured stream."""
    logger = logging.getLogger("biascxr")
    before = logger.propagate, logger.level, list(logger.handlers)
    logger.handlers[:] = []
    yield
    for handler in logger.handlers:
        handler.close()
    logger.propagate, logger.level = before[:2]
    logger.handlers[:] = before[2]


def modules_after(code):
    """Returns the names of the top modules loaded after running code in a new Python."""
    code += "\nimport sys; print('LOADED', *sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("LOADED")[1].split())


HEAVY = {"tensorflow", "keras", "tensorflow_datasets"}


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import biascxr", HEAVY | {"pandas", "numpy"}),
        ("import biascxr.config, biascxr.cli", HEAVY | {"pandas", "sklearn", "cv2"}),
        ("from biascxr.cli import main; assert main(['--help']) == 0", HEAVY | {"pandas", "sklearn", "cv2"}),
        (
            "from biascxr.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit as e: assert not e.code",
            HEAVY | {"pandas", "sklearn", "cv2"},
        ),
        ("import biascxr.metrics", HEAVY),
        ("import biascxr.audit", HEAVY),
        ("import biascxr.containers, biascxr.cohort, biascxr.records, biascxr.embeddings", HEAVY),
        ("import biascxr.mitigation, biascxr.leakage, biascxr.pipeline", HEAVY),
    ],
    ids=["biascxr", "config and cli", "--help", "run --help", "metrics", "audit", "early stages", "pipeline"],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code, forbidden):
    loaded = modules_after(code)
    assert "biascxr" in loaded
    assert not loaded & forbidden


def test_help_names_every_verb(capsys):
    for arguments in (["--help"], ["-h"], []):
        assert main(arguments) == 0
        said = capsys.readouterr().out
        assert all(verb in said for verb in cli.VERBS)


def test_a_misspelt_verb_gets_the_nearest_one(capsys):
    assert main(["inspct"]) == 2
    assert "Unknown verb 'inspct'. Did you mean 'inspect'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--uncertain_polcy", "ones"], "--uncertain_policy"),
        (["--csv_pth", "a.csv"], "--csv_path"),
        (["--image_sise", "64"], "--image_size"),
    ],
)
def test_a_misspelt_flag_gets_a_hint(capsys, arguments, hint):
    with pytest.raises(SystemExit) as exit_:
        parse_flags(arguments)
    assert exit_.value.code == 2
    assert hint in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image_size", "5"], "image_size must be at least 32 pixels; got 5"),
        (["--image_size", "big"], "--image_size"),
        (["--uncertain_policy", "maybe"], "invalid choice 'maybe' for argument '--uncertain_policy'"),
        (["--n_workers", "0"], "n_workers must be at least 1; got 0"),
        (["--demo", "--csv_path", "a.csv"], "give either --demo or"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(capsys, arguments, said):
    with pytest.raises(SystemExit) as exit_:
        parse_flags(arguments)
    assert exit_.value.code == 2
    assert said in " ".join("".join(capsys.readouterr()).split())


def test_flags_are_the_fields():
    config = parse_flags(
        [
            "--csv_path",
            "a.csv",
            "--labels",
            "Edema",
            "Pleural Effusion",
            "--no_equalize",
            "--age_bins",
            "0",
            "65",
            "--seed",
            "3",
        ]
    )
    assert str(config.csv_path) == "a.csv"
    assert config.cohort.labels == ("Edema", "Pleural Effusion")
    assert config.cohort.age_bins == (0, 65)
    assert config.records.equalize is False
    assert config.seed == 3


def test_the_demo_needs_no_network_and_its_settings_can_be_changed():
    assert parse_flags(["--demo"]) == cli.DEMO
    assert parse_flags(["--demo"]).embeddings.weights != "imagenet"
    assert parse_flags(["--demo", "--weights", "x.keras"]).embeddings.weights == "x.keras"


def log_of(capsys):
    return capsys.readouterr().err


def test_what_cannot_be_used_ends_with_status_2_and_no_traceback(capsys, tmp_path):
    assert run_command([]) == 2
    assert "Give a table with --csv_path meta.csv, or --demo" in log_of(capsys)
    assert run_command(["--csv_path", str(tmp_path / "none.csv")]) == 2
    assert "none.csv: no such file" in log_of(capsys)
    (tmp_path / "meta.csv").write_text("subject_id,path\n1,a.jpg\n")
    assert run_command(["--csv_path", str(tmp_path / "meta.csv"), "--output_dir", str(tmp_path / "run")]) == 2
    said = log_of(capsys)
    assert "generic lacks study_id, dicom_id" in said
    assert "Found: subject_id, path." in said
    assert "Traceback" not in said


def test_a_misspelt_recipe_or_setting_ends_before_any_work(capsys, tmp_path, biascxr_table, write_table):
    path = write_table(biascxr_table(40))
    for flags, said in (
        (["--recipes", "erm, standardise+erm"], "standardize"),
        (["--settings", "erm.batch_sise=3"], "batch_size"),
    ):
        assert run_command(["--csv_path", str(path), "--output_dir", str(tmp_path / "run"), *flags]) == 2
        assert said in log_of(capsys)
    assert not (tmp_path / "run" / "01_cohort").exists()


@pytest.mark.parametrize("verb", ["run", *STAGE_VERBS])
def test_a_verb_runs_until_its_stage(monkeypatch, verb):
    seen = []
    monkeypatch.setattr("biascxr.pipeline.run", lambda config, *, until: seen.append((config.seed, until)))
    assert main([verb, "--demo", "--seed", "4"]) == 0
    assert seen == [(4, "report" if verb == "run" else verb)]


def test_the_cohort_verb_leaves_the_cohort_and_nothing_further(tmp_path, biascxr_table, write_table):
    path = write_table(biascxr_table(40))
    assert main(["cohort", "--csv_path", str(path), "--output_dir", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "01_cohort" / "cohort.parquet").is_file()
    assert not (tmp_path / "run" / "02_records").exists()
    assert "cohort: 40 rows in the table" in (tmp_path / "run" / "run.log").read_text()


def test_an_interruption_says_that_work_is_kept(monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("biascxr.pipeline.run", interrupted)
    assert run_command(["--seed", "1"]) == 130
    assert "the same command goes on from them" in log_of(capsys)


def test_a_mistake_of_ours_is_not_hidden(monkeypatch):
    def wrong(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr("biascxr.pipeline.run", wrong)
    with pytest.raises(RuntimeError, match="a bug"):
        run_command(["--seed", "1"])


def test_inspect_is_a_verb(capsys, tmp_path):
    (tmp_path / "a.tfrecord").write_text("hello, this is text")
    assert main(["inspect", str(tmp_path / "a.tfrecord")]) == 1
    assert "not a TFRecord file" in capsys.readouterr().err
