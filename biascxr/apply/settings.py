"""What a run fixes for those who apply its recipes elsewhere, and what starts anew with the other table."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import yaml

from biascxr.config import LeakageConfig, RunConfig
from biascxr.errors import InputError

CONFIG = "config.yaml"
# Cohort settings that are about one table, and say nothing about another.
ABOUT_THE_TABLE = (
    "layout",
    "companions",
    "mapping",
    "reference_labels",
    "image_files",
    "verify_checksums",
    "allow",
    "labels",
)
# Why a flag cannot be given beside --run: what the recipes were trained with, or what applying them does not do.
FIXED = {
    "its recipes take vectors that are made exactly so": (
        "embeddings.encoder",
        "embeddings.weights",
        "embeddings.weights_source",
        "embeddings.layer",
        "embeddings.pooling",
        "embeddings.inference_batch",
        "embeddings.mixed_precision",
        "embeddings.vector_length",
        "records.image_size",
        "records.equalize",
        "records.image_format",
    ),
    "its labels and groups were made so; made otherwise here, the two would not be comparable": (
        "cohort.uncertain_policy",
        "cohort.blank_policy",
        "cohort.age_bins",
        "cohort.against_rest",
    ),
    "all its trained recipes are applied, as they are": ("mitigation.recipes", "mitigation.settings"),
    "every image is evaluated, whatever its split": ("cohort.split_source", "cohort.split_fractions"),
    "applying recipes fits no probe": tuple(f"leakage.{field.name}" for field in fields(LeakageConfig)),
    "applying recipes does not repeat the audit under other policies": ("label_policy_check",),
    "applying recipes needs a table: biascxr phantom writes a made-up one": ("demo", "bias.mechanism", "bias.strength"),
}


@dataclass(frozen=True)
class ApplyConfig(RunConfig):
    """A finished run's trained recipes on another cohort or site: in distribution and out, side by side. Nothing is fitted.

    Encoder, image preparation, label policies and recipes are the run's. Flags about the new table and about the audit may be
    given; one that would change what the recipes were trained with is refused.
    """

    run: Path | None = None
    """Folder of the finished run, for instance output/demo."""
    same_patients: Literal["auto", "yes", "no"] = "auto"
    """Whether a patient number of the table and the same number in the run are one person. Patients that the run learned from
    are then left out. auto: yes where an image is in both; say yes for new images of the same hospital."""

    def run_dir(self) -> Path:
        """Returns the folder of this evaluation."""
        if self.output_dir is not None:
            return self.output_dir
        return Path("output") / f"{self.run.absolute().name}_on_{super().run_dir().name}"


def read_config(run: Path) -> RunConfig:
    """Returns the configuration that a run left.

    Raises:
        InputError: the folder is not there, is no run's, or is of a version whose flags are others.
    """
    if not run.is_dir():
        raise InputError(f"--run {run}: no such folder. Name the folder of a finished run, for instance output/demo.")
    if not (run / CONFIG).is_file():
        raise InputError(f"--run {run} is not the folder of a run: it holds no {CONFIG}.")
    applied = run_named_in(run)
    if applied is not None:
        raise InputError(f"--run {run} is an evaluation of another run's recipes: name that run, --run {applied}.")
    from biascxr.cli import parse_flags

    try:
        return parse_flags(["--config", str(run / CONFIG)], prog="biascxr apply")
    except SystemExit as error:
        raise InputError(
            f"--run {run}: its {CONFIG} cannot be read by biascxr {_version()} (the lines above say why): it is not a run's, "
            "or of another version. Run it again with this one."
        ) from error


def run_named_in(folder: Path) -> str | None:
    """Returns the run whose recipes were applied in a folder, or None: it is a run's own folder, or nothing yet."""
    if not (folder / CONFIG).is_file():
        return None
    try:
        tree = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    return tree.get("run") if isinstance(tree, dict) else None


def settings_of(run: Path) -> ApplyConfig:
    """Returns a run's settings for use elsewhere: what is about its own table has its default again.

    Raises:
        InputError: see `read_config`.
    """
    return settings_elsewhere(run, read_config(run))


def settings_elsewhere(run: Path, own: RunConfig) -> ApplyConfig:
    """As `settings_of`, from the configuration that was read already."""
    fresh = RunConfig()
    return ApplyConfig(
        run=run,
        seed=own.seed,
        cohort=replace(
            own.cohort,
            split_source="random",  # the stage wants a split; nothing looks at it
            split_fractions=fresh.cohort.split_fractions,
            **{name: getattr(fresh.cohort, name) for name in ABOUT_THE_TABLE},
        ),
        records=own.records,
        embeddings=replace(own.embeddings, vector_length=None, embedding_store=None, vectors=None),
        mitigation=own.mitigation,
        leakage=own.leakage,
        audit=own.audit,
    )


def check_settings(config: ApplyConfig, own: ApplyConfig) -> None:
    """Refuses what cannot be changed.

    Args:
        config: what was asked for.
        own: what `settings_of` says of the run.

    Raises:
        InputError: no table, no such table, or a setting that the run fixes.
    """
    if config.csv_path is None and not config.demo:
        raise InputError("Give the other cohort's table with --csv_path meta.csv (or its data set's folder).")
    for why, names in FIXED.items():
        for name in names:
            given, trained = (functools.reduce(getattr, name.split("."), c) for c in (config, own))
            if given != trained and not _is_moved_file(name, trained):
                raise InputError(
                    f"--{name.split('.')[-1]} cannot be {_text(given)} here: the run {own.run} has {_text(trained)}, and {why}."
                )
    if own.embeddings.weights == "random" and config.seed != own.seed:
        raise InputError(f"--seed must be {own.seed}, as in the run {own.run}: its encoder's random weights are drawn from it.")
    if not config.csv_path.exists():
        raise InputError(f"--csv_path {config.csv_path}: no such file or folder.")
    if config.run_dir().exists():
        out = config.run_dir()
        if out.resolve() == config.run.resolve():
            raise InputError(f"--output_dir {out} is the run itself; what is found elsewhere goes into another folder.")
        if (out / CONFIG).is_file() and run_named_in(out) is None:
            raise InputError(f"--output_dir {out} holds a run of its own, which would be overwritten; name another folder.")


def _is_moved_file(name: str, trained: object) -> bool:
    """Whether a run's weights file is no longer where it was: --weights may then name it; its fingerprint is compared."""
    from biascxr.embeddings.base import NAMED_WEIGHTS

    return name == "embeddings.weights" and trained not in NAMED_WEIGHTS and not Path(str(trained)).exists()


def _text(value: object) -> str:
    return " ".join(map(str, value)) or "nothing" if isinstance(value, tuple) else str(value)


def _version() -> str:
    import biascxr

    return biascxr.__version__
