"""Configurations of verbs that make no run: `audit --predictions`, `leakage --embeddings`, `select`, `power`, `train-encoder`.

As in `config`, fields are flags. This module imports neither TensorFlow nor pandas.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from biascxr.config import AuditConfig, LeakageConfig
from biascxr.errors import InputError, unknown_name


def split_commas(values: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the parts of texts that may be separated by commas, blanks around them taken off."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


@dataclass(frozen=True)
class StandaloneConfig(AuditConfig):
    """An audit of anybody's predictions. Lists may be separated by commas."""

    predictions: Path | None = None
    """Table with patient_id, true_<label> and prob_<label> columns and attributes; .csv, .csv.gz or .parquet. Optional:
    image_id, study_id, split, recipe, seed, fold, decision_<label>."""
    baseline: Path | None = None
    """Other predictions of the same images: is --predictions fairer than these?"""
    output_dir: Path | None = None
    """Where tables and report go (default: output/audit_<name of the table>)."""
    labels: tuple[str, ...] = ()
    """Only these findings."""
    unit: Literal["image", "study"] = "image"
    """What a row is: an image, or a study (mean score of its images)."""
    thresholds_from: Path | None = None
    """Predictions of other patients that thresholds are fitted on (default: rows whose split is calibration; without any,
    two halves of the patients, each decided by thresholds fitted on the other)."""
    baseline_thresholds_from: Path | None = None
    """The same for --baseline."""
    threshold_rule: Literal["fixed_fpr", "0.5", "youden", "g_mean", "min_gap", "f1", "fixed_tpr"] = "fixed_fpr"
    """How a score becomes a decision; not used where the table has decision_<label> columns."""
    threshold_target: float | None = None
    """FPR of fixed_fpr (default 0.20) or TPR of fixed_tpr."""
    threshold_attribute: str | None = None
    """Attribute whose groups get thresholds of their own, drawn towards everyone's where positive patients are few."""
    age_bins: tuple[float, ...] = (0.0, 20.0, 40.0, 60.0, 80.0)
    """Lower edges of age groups, in years."""
    duplicates: Literal["error", "first"] = "error"
    """What to do with an image that is there twice."""
    check_estimand: bool = True
    """Also audit with patients (or images) weighing the same, and studies for images where there are any, and say which
    conclusions would change."""
    seed: int = 0
    """Seed of resamples, permutations and halves."""

    def __post_init__(self) -> None:
        for name in ("attributes", "crossings", "metrics", "adjust", "labels"):
            object.__setattr__(self, name, split_commas(getattr(self, name)))
        super().__post_init__()
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more; got {self.seed}.")

    def run_dir(self) -> Path:
        """Returns the folder of results."""
        return self.output_dir or Path("output") / f"audit_{self.predictions.name.split('.')[0]}"

    def audit_config(self, **changes) -> AuditConfig:
        """Returns the part that `audit` takes."""
        names = AuditConfig.__dataclass_fields__
        return replace(AuditConfig(**{name: getattr(self, name) for name in names}), **changes)


@dataclass(frozen=True)
class StandaloneLeakageConfig(LeakageConfig):
    """Can recorded race, sex or age group be read from anybody's vectors? Nothing else of a run is needed. Lists may be
    separated by commas."""

    embeddings: Path | None = None
    """Vectors that name their images: .npz or HDF5 (image_ids, embeddings), Parquet, TFRecord, a folder of these or of .npy
    files; or the 03_embeddings folder of a run."""
    table: Path | None = None
    """A data set's official table, or one with image_id, patient_id and attributes (.csv, .csv.gz, .parquet). Optional: age,
    view, portable, study_id, split, true_<label>, and prob_<label> of a classifier: then also whether its scores depend on
    the attribute."""
    attributes: tuple[str, ...] = ()
    """Columns to read from the vectors; age_group is cut from age (default: sex, race, age_group, insurance, ethnicity, as far
    as they are there)."""
    labels: tuple[str, ...] = ()
    """Findings: of an official table those to use; of another its columns in {0, 1, blank} whose names do not begin with
    true_."""
    output_dir: Path | None = None
    """Where tables and report go (default: output/leakage_<name of the table>)."""
    age_bins: tuple[float, ...] = (0.0, 20.0, 40.0, 60.0, 80.0)
    """Lower edges of age groups, in years."""
    confidence: float = 0.95
    """Level of the intervals."""
    seed: int = 0
    """Seed of folds, shuffles, permutations and probes."""

    def __post_init__(self) -> None:
        for name in ("attributes", "labels", "probes", "leakage_attributes"):
            object.__setattr__(self, name, split_commas(getattr(self, name)))
        object.__setattr__(self, "attributes", self.attributes or self.leakage_attributes)
        super().__post_init__()
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more; got {self.seed}.")
        if not 0.5 <= self.confidence < 1:
            raise InputError(f"confidence must lie in [0.5, 1); got {self.confidence}.")
        if self.where or self.attribute_encoders:
            raise InputError(
                "--where and --attribute_encoders look at images, and only vectors are here; they belong to a run."
            )

    def run_dir(self) -> Path:
        """Returns the folder of results."""
        return self.output_dir or Path("output") / f"leakage_{self.table.name.split('.')[0]}"


@dataclass(frozen=True)
class SelectConfig:
    """Chooses among candidate models by every rule there is, and says what each choice costs under the others."""

    predictions: tuple[Path, ...] = ()
    """Tables of predictions of the same images; each recipe, seed or file is a candidate."""
    attribute: str = ""
    """Attribute whose groups are compared."""
    metric: str = "AUROC"
    """Metric, averaged over findings; one where higher is better."""
    labels: tuple[str, ...] = ()
    """Only these findings."""
    leakage: Path | None = None
    """CSV with columns candidate and value: how well groups can be read from each candidate's vectors."""
    output_dir: Path | None = None
    """Where candidates.csv, chosen.csv and regret_on_test.csv go (default: output/select_<name of the first table>)."""
    min_patients: int = 25
    """Groups with fewer patients are left out."""


@dataclass(frozen=True)
class PowerConfig:
    """The smallest difference of a group from everyone else that could be seen, before anyone trains anything."""

    table: Path | None = None
    """Table with patient_id, attributes and true_<label> columns, for instance predictions, or planned test rows."""
    attributes: tuple[str, ...] = ()
    """Attributes of the table to compare groups by."""
    sizes: tuple[str, ...] = ()
    """Without a table: patients per group, for instance WHITE=900 BLACK=150 ASIAN=60."""
    prevalence: float = 0.1
    """Without a table: share of patients with the finding."""
    images_per_patient: float = 1.0
    """Without a table: images per patient."""
    tpr: float = 0.80
    """TPR of everyone else."""
    fpr: float = 0.20
    """FPR of everyone else."""
    auroc: float = 0.85
    """AUROC of everyone else."""
    icc: float = 0.5
    """Correlation between two images of a patient."""
    power: float = 0.8
    """Chance of seeing the difference."""
    alpha: float = 0.05
    """Level of the test, two-sided."""
    n_tests: int | None = None
    """How many tests the adjusted columns stand for (default: findings x attributes of the table; 1 without one)."""
    age_bins: tuple[float, ...] = (0.0, 20.0, 40.0, 60.0, 80.0)
    """Lower edges of age groups, in years."""
    output: Path | None = None
    """CSV to write (default: printed only)."""

    def __post_init__(self) -> None:
        for name in ("attributes", "sizes"):
            object.__setattr__(self, name, split_commas(getattr(self, name)))


TARGETS = ("findings", "race", "sex", "age")
ARCHITECTURES = ("densenet121", "densenet201", "small")


@dataclass(frozen=True)
class TrainEncoderConfig:
    """Trains an encoder on the records of a run, for --weights of the next one: on findings, or on a recorded attribute.

    Learns from the train patients of the cohort's split; the validation patients choose the epoch; no other patient's image
    is read. Interrupted and called again with the same flags, it goes on and ends with the same weights.
    """

    target: str = "findings"
    """What it learns to tell: findings, race, sex or age (its groups); rows without it are left out and counted."""
    records: Path | None = None
    """The 02_records folder of a run; the run's 01_cohort lies beside it."""
    run: Path | None = None
    """The run's folder, in place of --records."""
    architecture: str = "densenet121"
    """densenet121, densenet201, or small (a convolutional network of 0.4 million parameters, for laptops)."""
    output: Path | None = None
    """The .keras file to write (default: output/encoders/<run>_<target>_<architecture>.keras); <name>.card.json goes beside it,
    checkpoints and TensorBoard's scalars into the folder <name>.training."""
    overwrite: bool = False
    """Replace an encoder or an unfinished training with other settings that is at --output."""
    epochs: int = 10
    """Passes over the training images; the best epoch's weights are kept."""
    batch_size: int = 32
    """Images a step, over all devices."""
    learning_rate: float = 1e-3
    """Of Adam."""
    dropout: float = 0.5
    """Share of the vector that is dropped in training."""
    norm_momentum: float = 0.9
    """Of batch normalisation's moving averages. Keras's own 0.99 forgets its first values only over hundreds of steps, an
    epoch or more of a small cohort; 0.9 is PyTorch's."""
    choose_by: Literal["loss", "auroc"] = "loss"
    """What chooses the epoch: the smallest validation loss, or the largest macro AUROC."""
    augment: bool = False
    """Turn, move and light each training image anew in each epoch, within the next four limits."""
    max_rotation: float = 15.0
    """Degrees, either way."""
    max_shift: float = 0.03
    """Share of the image's side, along both axes."""
    max_contrast: float = 0.15
    """Change of contrast, a share."""
    max_brightness: float = 0.1
    """Change of brightness, a share of the grey range."""
    mixed_precision: Literal["off", "float16", "bfloat16"] = "off"
    """Type of the layers' arithmetic; weights stay float32, and so does the encoder that is written."""
    distribute: Literal["off", "mirrored"] = "off"
    """mirrored trains on all GPUs of this machine (tf.distribute.MirroredStrategy), a part of each batch on each."""
    shuffle_buffer: int = 2048
    """Compressed records out of which the next is drawn, after the shards were put in a new order."""
    seed: int = 0
    """Seed of first weights, order, augmentation and dropout."""

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise unknown_name("target", self.target, TARGETS)
        if self.architecture not in ARCHITECTURES:
            raise unknown_name("architecture", self.architecture, ARCHITECTURES)
        if self.output is not None and self.output.suffix != ".keras":
            raise InputError(f"output must be a file that ends in .keras; got {self.output}.")
        for name, low in (("epochs", 1), ("batch_size", 2), ("shuffle_buffer", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise InputError(f"{name} must be at least {low}; got {getattr(self, name)}.")
        if not 0 < self.learning_rate < 1:
            raise InputError(f"learning_rate must lie in (0, 1); got {self.learning_rate}.")
        for name in ("dropout", "norm_momentum", "max_shift", "max_contrast", "max_brightness"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be a share in [0, 1); got {getattr(self, name)}.")
        if not 0 <= self.max_rotation <= 180:
            raise InputError(f"max_rotation must lie in [0, 180] degrees; got {self.max_rotation}.")

    def records_dir(self) -> Path:
        """Returns the folder of the records.

        Raises:
            InputError: neither or both of --records and --run are given.
        """
        if (self.records is None) == (self.run is None):
            raise InputError(
                "Give the records to learn from with --records RUN/02_records, or the run with --run RUN; one of both."
            )
        return self.records if self.records is not None else self.run / "02_records"

    def encoder_path(self) -> Path:
        """Returns the file that is written."""
        if self.output is not None:
            return self.output
        name = self.records_dir().absolute().parent.name
        return Path("output") / "encoders" / f"{name}_{self.target}_{self.architecture}.keras"
