"""The command line: `python main.py FLAGS`, and `biascxr VERB FLAGS` for single stages and helpers.

Flags are built from the configuration's dataclasses by tyro. A YAML file is turned into flags, so that one parser checks
both. Neither TensorFlow nor pandas is imported before the flags are understood.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro

from biascxr.config import EmbeddingsConfig, MitigationConfig, RunConfig, SweepConfig, yaml_to_flags
from biascxr.errors import InputError, ends_with_its_reader
from biascxr.run_folder import PACKAGE, STAGES
from biascxr.verb_config import PowerConfig, SelectConfig, StandaloneConfig, StandaloneLeakageConfig, TrainEncoderConfig

STAGE_VERBS = tuple(name for name in STAGES if name not in ("phantom", "sweep"))
VERBS = ("run", *STAGE_VERBS, "sweep", "apply", "select", "power", "train-encoder", "inspect", "doctor", "phantom")

# What --demo sets where the user does not: no network, so the small encoder that comes with the package (trained on other
# made-up films); a small cohort, so small batches.
DEMO = RunConfig(
    demo=True,
    embeddings=EmbeddingsConfig(weights=str(PACKAGE / "phantom" / "encoder.keras"), inference_batch=16),
    mitigation=MitigationConfig(settings=("erm.batch_size=64",)),
)


def parse_flags(
    arguments: Sequence[str],
    *,
    prog: str = "python main.py",
    kind: type[RunConfig] = RunConfig,
    default: RunConfig | None = None,
) -> RunConfig:
    """Reads flags, and the YAML file named by `--config` beneath them.

    Args:
        arguments: flags without the program's name.
        prog: how the user called it, for messages.
        kind: the configuration wanted: `RunConfig`, or one with more flags.
        default: what holds where nothing is given; default: what `kind` says, or the demo's settings.

    Raises:
        InputError: the YAML file cannot be read.
        SystemExit: an unknown flag, a value of the wrong type or out of its range (tyro prints why), or `--help`.
    """
    settings = {"prog": prog, "use_underscores": True, "config": (tyro.conf.OmitArgPrefixes,)}
    is_given = default is not None
    if not is_given:
        default = demo_default(kind) if "--demo" in arguments else kind()
    path = _path_after("--config", arguments)
    if path is not None:
        flags = yaml_to_flags(path)
        if "--demo" in flags and not is_given:
            default = demo_default(kind)
        try:
            default = tyro.cli(kind, args=flags, default=default, **settings)
        except SystemExit:
            print(f"(the line above is about {path})", file=sys.stderr)
            raise
    return tyro.cli(kind, args=list(arguments), default=default, **settings)


def demo_default(kind: type[RunConfig]) -> RunConfig:
    """Returns what `--demo` sets, as a configuration of this kind."""
    return kind(**{field.name: getattr(DEMO, field.name) for field in dataclasses.fields(RunConfig)})


def _path_after(flag: str, arguments: Sequence[str]) -> Path | None:
    for index, argument in enumerate(arguments):
        if argument == flag and index + 1 < len(arguments):
            return Path(arguments[index + 1])
        if argument.startswith(f"{flag}="):
            return Path(argument.split("=", 1)[1])
    return None


def answer(action: Callable[[], object], *, stopped: str) -> int:
    """Does what was asked for and returns the exit status: 2 where something given cannot be used, 130 where it was stopped.

    Args:
        action: does it.
        stopped: what to say when it is interrupted.
    """
    log_to_console()
    try:
        action()
    except InputError as error:
        say_error(error)
        return 2
    except KeyboardInterrupt:
        logging.getLogger("biascxr").error("stopped; %s", stopped)
        return 130
    return 0


STAGES_KEPT = "finished stages and shards are kept, the same command goes on from them"


@ends_with_its_reader
def run_command(arguments: Sequence[str] | None = None, *, until: str = "report", prog: str = "python main.py") -> int:
    """Runs the pipeline from the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments

    def action() -> None:
        config = parse_flags(arguments, prog=prog)
        from biascxr.pipeline import run

        run(config, until=until)

    return answer(action, stopped=STAGES_KEPT)


def sweep_command(arguments: Sequence[str]) -> int:
    """`biascxr sweep`; returns the exit status."""

    def action() -> None:
        from biascxr.sweep import sweep

        sweep(parse_flags(arguments, prog="biascxr sweep", kind=SweepConfig))

    return answer(action, stopped="finished trainings are kept, the same command goes on from them")


def apply_command(arguments: Sequence[str]) -> int:
    """`biascxr apply`; the settings of the run named by --run stand beneath the flags. Returns the exit status."""

    def action() -> None:
        from biascxr.apply import ApplyConfig, apply_run, settings_of

        path = _path_after("--config", arguments)
        run = _path_after("--run", [*arguments, *(yaml_to_flags(path) if path else [])])
        default = ApplyConfig() if run is None else settings_of(run)
        apply_run(parse_flags(arguments, prog="biascxr apply", kind=ApplyConfig, default=default))

    return answer(action, stopped=STAGES_KEPT)


def say_error(error: InputError) -> None:
    """Logs what is wrong, and shows examples to the person at the machine only."""
    logging.getLogger("biascxr").error("%s", error)
    if error.examples:
        print(f"for instance: {', '.join(error.examples)}", file=sys.stderr)


def check_command(arguments: Sequence[str]) -> int:
    """`biascxr cohort --check`; returns the exit status (1: the data break a rule, 2: they cannot be read)."""
    log_to_console()
    try:
        config = parse_flags(arguments, prog="biascxr cohort --check")
        from biascxr.check import check_data

        return int(any(finding.is_error for finding in check_data(config)))
    except InputError as error:
        say_error(error)
        return 2


def log_to_console() -> None:
    """Shows the log a person can follow, and keeps TensorFlow's start-up lines out of it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logger = logging.getLogger("biascxr")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for left_over in [h for h in logger.handlers if type(h) is logging.StreamHandler]:
        logger.removeHandler(left_over)  # it may write to a stderr that is gone
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)


def helper_command(function: Callable, arguments: Sequence[str], verb: str, *, stopped: str = "nothing was written") -> int:
    """Runs a helper whose flags are its parameters, or those of its one dataclass; returns the exit status."""

    def action() -> None:
        tyro.cli(
            function,
            prog=f"biascxr {verb}",
            args=list(arguments),
            use_underscores=True,
            config=(tyro.conf.OmitArgPrefixes,),
        )

    return answer(action, stopped=stopped)


def audit_predictions(config: StandaloneConfig) -> None:
    """Audits anybody's table of predictions: tables as CSV, figures and report.html. Nothing is trained.

    (With --csv_path or --demo in place of --predictions this verb is the run up to its audit stage.)
    """
    from biascxr.audit.standalone import audit_files
    from biascxr.report import write_audit

    write_audit(audit_files(config), config)


def leakage_of_vectors(config: StandaloneLeakageConfig) -> None:
    """Can recorded race, sex or age group be read from anybody's vectors? Tables as CSV, figures and report.html.

    (With --csv_path or --demo in place of --embeddings this verb is the run up to its leakage stage.)
    """
    from biascxr.standalone_leakage import leakage_files

    leakage_files(config)


def select_model(config: SelectConfig) -> None:
    """Chooses among many candidate models by every rule there is; nothing is trained."""
    from biascxr.audit.commands import select_files

    made, elsewhere = select_files(config)
    folder = config.output_dir or Path("output") / f"select_{config.predictions[0].name.split('.')[0]}"
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"candidates": made.candidates, "chosen": made.chosen}
    if elsewhere is not None:
        tables["regret_on_test"] = elsewhere
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    say = logging.getLogger("biascxr").info
    say("%s", made.chosen.drop(columns="attribute").to_string(index=False, float_format="%.4f", na_rep="-"))
    say("regret of each candidate under each rule:")
    regrets = made.candidates[["candidate", *(c for c in made.candidates if c.startswith("regret_"))]]
    say("%s", regrets.to_string(index=False, float_format="%.4f", na_rep="-"))
    if elsewhere is None:
        say("Chosen on all rows: without validation and test rows in a split column, what the choice is worth is not known.")
    else:
        columns = ["rule", "candidate", "best_candidate", "regret"]
        say("chosen on validation, regret on test:")
        say("%s", elsewhere[columns].to_string(index=False, float_format="%.4f", na_rep="-"))
    say("tables: %s", folder)


def plan_power(config: PowerConfig) -> None:
    """The smallest gap that could be seen with these groups, before anyone trains anything."""
    from biascxr.audit.commands import power_of_config

    table = power_of_config(config)
    if config.output is not None:
        config.output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(config.output, index=False)
    hidden = [c for c in table if c.startswith("design_effect") or c in ("images_per_patient", "n_tests")]
    shown = table.drop(columns=hidden + (["note"] if not table["note"].any() else []))
    names = {
        c: c.replace("detectable_", "").replace("_adjusted", "*").replace("_patients", "").replace("_", " ") for c in shown
    }
    say = logging.getLogger("biascxr").info
    say("patients of each group, and its smallest difference from everyone else that is seen with power %g", config.power)
    say("(* at the level of %d tests):", table["n_tests"].iloc[0])
    say("%s", shown.rename(columns=names).to_string(index=False, float_format="%.3f", na_rep="-"))


def train_encoder(config: TrainEncoderConfig) -> None:
    """Trains an encoder on the records of a run, for --weights of the next one: on findings, or on a recorded attribute.

    It learns from the train patients of the run's split, the validation patients choose the epoch, and no other image is read.
    Interrupted and called again with the same flags, it goes on and ends with the same weights.
    """
    from biascxr.embeddings.train import train_encoder as train

    train(config)


def doctor_command(arguments: Sequence[str]) -> int:
    """`biascxr doctor`; returns the exit status (1: something of the run is not as it was left, 2: it is no run)."""
    found: list = []

    def doctor(run: Path | None = None, /, *, thorough: bool = False, recompute: int = 0) -> None:
        """Says what this machine can do and, of a run, whether what it left is whole. Nothing is written or mended.

        Args:
            run: folder of a run, for instance output/demo.
            thorough: compare every file with its digest, and every vector with the record that it was made from.
            recompute: so many vectors, evenly spaced, are made anew and compared.
        """
        from biascxr.doctor import describe_machine, examine

        say = logging.getLogger("biascxr")
        for line in describe_machine():
            say.info("%s", line)
        if run is None:
            return
        for problem in examine(run, thorough=thorough, recompute=recompute):
            found.append(problem)
            say.error("%s", problem)
        if not found:
            looked = (
                "every file compared with its digest" if thorough else "files and vectors are there; --thorough compares them"
            )
            say.info("%s: nothing is wrong (%s)", run, looked)

    return helper_command(doctor, arguments, "doctor") or int(bool(found))


def _is_pipeline(arguments: Sequence[str]) -> bool:
    return any(a.split("=")[0] in ("--csv_path", "--demo", "--config", "--embedding_store") for a in arguments)


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """The `biascxr` command: `biascxr VERB FLAGS`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if verb in ("-h", "--help"):
        print(
            "usage: biascxr VERB [FLAGS]\n\n"
            "  run         the whole run, as python main.py does\n"
            f"  {', '.join(STAGE_VERBS)}\n"
            "              the run up to and including that stage\n"
            "  cohort      with --check: what would a run find wrong with these data? Nothing is written\n"
            "  audit       with --predictions: the audit alone, of anybody's table of predictions\n"
            "  leakage     with --embeddings: the leakage stage alone, of anybody's vectors and table\n"
            "  sweep       every recipe with several seeds and folds, in parallel: a verdict on methods\n"
            "  apply       a finished run's trained recipes on another cohort or site: external evaluation\n"
            "  select      which of many candidate models to take, by every rule\n"
            "  power       which gap could be seen with these groups, before training\n"
            "  train-encoder\n"
            "              train an encoder on a run's records, for --weights of the next run\n"
            "  inspect     what is in these TFRecord files? --verify: is every record whole?\n"
            "  doctor      what can this machine do, and is what a run left whole?\n"
            "  phantom     write a made-up cohort with one planted bias\n\n"
            "biascxr VERB --help shows the flags of a verb."
        )
        return 0
    if verb == "inspect":
        from biascxr.inspect_tfrecord import main as inspect

        return inspect(rest)
    if verb == "phantom":
        from biascxr.phantom.command import write_phantom

        return helper_command(write_phantom, rest, verb)
    if verb == "doctor":
        return doctor_command(rest)
    if verb == "train-encoder":
        kept = "finished epochs are kept, the same command goes on from them"
        return helper_command(train_encoder, rest, verb, stopped=kept)
    alone = {"audit": audit_predictions, "leakage": leakage_of_vectors}
    if verb in alone and not _is_pipeline(rest):
        return helper_command(alone[verb], rest, verb)
    if verb in ("select", "power"):
        return helper_command({"select": select_model, "power": plan_power}[verb], rest, verb)
    if verb in ("sweep", "apply"):
        return {"sweep": sweep_command, "apply": apply_command}[verb](rest)
    if verb == "cohort" and "--check" in rest:
        return check_command([a for a in rest if a != "--check"])
    if verb == "run" or verb in STAGE_VERBS:
        return run_command(rest, until="report" if verb == "run" else verb, prog=f"biascxr {verb}")
    from biascxr.errors import unknown_name

    print(unknown_name("verb", verb, VERBS), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
