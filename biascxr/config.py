"""The configuration of a run: one tree of frozen dataclasses, checked when built, to and from YAML.

Every field is also a flag of the command line (`--csv_path`, `--uncertain_policy`, ...), so field names are unique over
the whole tree. Settings of single methods (a sampler's `max_copies`, the head's `batch_size`) live with the method, in its
own file, and are reached by `--settings METHOD.NAME=VALUE`. Defaults are the seeds' where the seeds agree.
This module imports neither TensorFlow nor pandas.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from biascxr.errors import InputError

SPLITS = ("train", "validation", "calibration", "test")


@dataclass(frozen=True)
class CohortConfig:
    """Which rows of the table are used, and how labels and groups are read."""

    layout: str = "auto"
    """Data set, a name in biascxr.cohort.LAYOUTS: mimic_cxr, chexpert, nih, midrc, generic, ...; auto recognises it by the
    names and headers of its files."""
    companions: tuple[Path, ...] = ()
    """Further files or folders a layout needs and does not find beside the table: MIMIC-IV and MIMIC-IV-ED for mimic_cxr,
    CHEXPERT DEMO.xlsx for chexpert."""
    mapping: Path | None = None
    """YAML file that says which column of any table is what (layout generic)."""
    reference_labels: Path | None = None
    """CSV of reference labels (the truth, where it is known): image_id, dicom_id or study_id, and columns named as findings.
    mimic_cxr finds its radiologists' labels by itself."""
    labeler: Literal["chexpert", "negbio"] = "chexpert"
    """Which software's labels of MIMIC-CXR are used."""
    hispanic_policy: Literal["separate", "combined"] = "separate"
    """Race and Hispanic ethnicity recorded apart (CheXpert): separate keeps two attributes; combined makes Hispanic patients
    a race group of their own, as MIMIC's tables do."""
    conflict_policy: Literal["unknown", "majority", "first", "drop"] = "unknown"
    """A patient recorded with several values of what does not change (race, sex): treated as unknown, the most frequent
    value, the first one, or left out. Counted either way."""
    image_files: Literal["auto", "jpg", "dcm", "tfrecord"] = "auto"
    """Which files MIMIC-CXR's rows point to: images (jpg, dcm) or CXR Foundation's vectors (tfrecord); auto looks."""
    verify_checksums: bool = False
    """Compare every file with the data set's own SHA256SUMS.txt before anything else; reads all of them."""
    allow: tuple[str, ...] = ()
    """Rules of the contract (biascxr cohort --check lists them) whose errors are only warned about."""
    labels: tuple[str, ...] = ()
    """Only these findings (default: all that the layout knows and the table holds)."""
    uncertain_policy: Literal["zeros", "ones", "ignore"] = "zeros"
    """What an uncertain label (-1) becomes; ignore masks it in the loss and in the metrics."""
    blank_policy: Literal["zeros", "ignore"] = "zeros"
    """What a blank label becomes; ignore masks it."""
    age_bins: tuple[float, ...] = (0.0, 20.0, 40.0, 60.0, 80.0)
    """Lower edges of the age groups, in years; the last group is open."""
    against_rest: tuple[str, ...] = ()
    """Attributes of which one group stands against all others, ATTRIBUTE=GROUP: race=WHITE makes the groups "WHITE" and
    "not WHITE", as FairREAD has them."""
    frontal_only: bool = True
    """Keep frontal views (AP, PA) only; rows without a view are kept and counted."""
    split_source: Literal["auto", "table", "random"] = "auto"
    """Where the test part comes from: the table's split column, or drawn at random by patient. auto takes the table's
    if its test part has at least 1,000 patients."""
    split_fractions: tuple[float, float, float, float] = (0.6, 0.1, 0.1, 0.2)
    """Shares of patients in train, validation, calibration and test."""

    def __post_init__(self) -> None:
        edges = self.age_bins
        if len(edges) < 1 or list(edges) != sorted(set(edges)) or edges[0] < 0:
            raise InputError(f"age_bins must be rising lower edges in years, at least one, none negative; got {edges}.")
        shares = self.split_fractions
        if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise InputError(f"split_fractions must be four shares above 0 that sum to 1; got {shares}.")


@dataclass(frozen=True)
class BiasConfig:
    """Bias that is put in on purpose: into the demo's films, or into the rows of any table."""

    mechanism: str = "presentation"
    """How the demo treats one group worse: prevalence, presentation, annotation, acquisition, selection or
    under_representation."""
    strength: float = 0.75
    """How much of it, a fraction in [0, 1]; 0 plants nothing."""
    plant: tuple[str, ...] = ()
    """Plants bias on the table's rows, MECHANISM:STRENGTH:ATTRIBUTE=GROUP[:FINDING], for instance annotation:0.3:sex=F; the
    labels as they were become the reference labels."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise InputError(f"strength must be a fraction from 0 to 1; got {self.strength}.")


@dataclass(frozen=True)
class RecordsConfig:
    """How images become TFRecords."""

    image_size: int = 256
    """Height and width of the stored image, in pixels."""
    equalize: bool = True
    """Histogram equalization after resizing, as the MIMIC Racial Fairness code does."""
    image_format: Literal["png", "jpeg"] = "png"
    """Codec inside the record: png keeps every grey level; jpeg (quality 95) is about a third of the size."""
    rows_per_shard: int = 256
    """Images per shard, the unit of parallel work and of resuming; the last shard of a split holds what is left."""
    max_rejected_share: float = 0.05
    """The run stops when more than this share of the files cannot be used."""

    def __post_init__(self) -> None:
        if self.image_size < 32:
            raise InputError(f"image_size must be at least 32 pixels; got {self.image_size}.")
        if self.rows_per_shard < 1:
            raise InputError(f"rows_per_shard must be at least 1; got {self.rows_per_shard}.")
        if not 0 <= self.max_rejected_share <= 1:
            raise InputError(f"max_rejected_share must be a share between 0 and 1; got {self.max_rejected_share}.")


@dataclass(frozen=True)
class EmbeddingsConfig:
    """How images become vectors (unused when the table points to precomputed vectors)."""

    encoder: str = "densenet121"
    """Network that turns an image into a vector."""
    weights: str = "imagenet"
    """imagenet (downloaded by Keras), random (no scientific meaning), or a file: .keras, .weights.h5, PyTorch tensors
    (.safetensors, .pth, .pt, .ckpt), .onnx, or the folder of a TensorFlow SavedModel."""
    weights_source: Literal["auto", "imagenet", "unit_range", "torchvision", "chexnet", "torchxrayvision"] = "auto"
    """How the weights want their pixels (size, range, normalisation), by the name of those who trained them; auto tells it
    from the weights where they tell it."""
    layer: str | None = None
    """Layer of a .keras model (densenet121/relu: inside a nested one), or output of an ONNX file or a SavedModel, that is the
    vector (default: the last global pooling or the only vector); a map is pooled as pooling says."""
    pooling: Literal["max", "avg", "none"] = "max"
    """Global pooling of the last feature map; max as the MIMIC Racial Fairness code does. none keeps the map, flattened row by
    row, for training methods with a feature_map (CXR Foundation's 8x8x1376 map among given vectors is kept too)."""
    runtime: Literal["auto", "keras", "onnxruntime"] = "auto"
    """What computes a Keras network: auto takes ONNX Runtime where it is installed and there is no GPU (2.3 times as fast on
    two cores, benchmarks/embedding_speed.py; checked against Keras before it is used)."""
    inference_batch: int = 4
    """Images per forward pass of Keras, over all devices; part of the encoder's fingerprint, since it moves the last digits. It
    is not tuned to the machine: on two cores 1 to 8 are about equally fast and 16 is slower; a GPU, not measured, wants more.
    ONNX Runtime takes one image at a time, in one process per core."""
    mixed_precision: Literal["off", "float16", "bfloat16"] = "off"
    """Type of a Keras encoder's arithmetic (Keras's mixed policies, for GPUs); its weights and its vectors are float32. Part of
    the fingerprint."""
    distribute: Literal["off", "mirrored"] = "off"
    """mirrored computes a Keras encoder on all GPUs of this machine (tf.distribute.MirroredStrategy), an equal part of each
    batch on each. Part of the fingerprint."""
    embedding_store: Path | None = None
    """Folder with vectors that are there already (vectors.npy, index.parquet, card.json: the 03_embeddings of a run): records
    and embeddings are skipped. Without --csv_path the cohort is that of the run the store belongs to."""
    vectors: Path | None = None
    """File or folder with vectors that are there already and name their images: .npz or HDF5 (image_ids, embeddings), Parquet
    (a column of ids; a column of lists or one column per number), TFRecord (image/id, embedding), or a folder of these;
    records are skipped."""
    vector_length: int | None = None
    """Length that precomputed vectors must have (default: what most of them have; CXR Foundation's is 1376)."""
    store_precision: Literal["float32", "float16"] = "float32"
    """Type of the numbers in vectors.npy. float16 halves the file: three digits, from 6e-5 up to 65504; a vector that it
    cannot hold stops the run. What is computed from them is computed in float32. A float16 --embedding_store stays float16."""

    def __post_init__(self) -> None:
        if self.inference_batch < 1:
            raise InputError(f"inference_batch must be at least 1; got {self.inference_batch}.")
        for name in ("mixed_precision", "distribute"):
            if self.runtime == "onnxruntime" and getattr(self, name) != "off":
                raise InputError(
                    f"--{name} {getattr(self, name)} is Keras's; --runtime onnxruntime is fp32, one image at a time."
                )
        if self.vectors is not None and self.embedding_store is not None:
            raise InputError("--vectors and --embedding_store both say where the vectors are; give one of them.")
        if self.vector_length is not None and self.vector_length < 1:
            raise InputError(f"vector_length must be at least 1; got {self.vector_length}.")


@dataclass(frozen=True)
class MitigationConfig:
    """Which recipes are trained. A recipe joins slot members with +; what it does not name stays as in erm."""

    recipes: str = "erm, standardize+erm, median_balance+erm, cluster_downsample+erm, erm+group_youden"
    """Comma-separated recipes; erm is always among them."""
    settings: tuple[str, ...] = ()
    """Settings of single methods, METHOD.NAME=VALUE, for instance erm.batch_size=16 median_balance.max_copies=5."""


@dataclass(frozen=True)
class LeakageConfig:
    """Whether a probe can read the attributes from the vectors, and whether predictions depend on them."""

    probes: tuple[str, ...] = ("knn", "logistic")
    """Probes to fit on train, choose on validation and score on test: knn, logistic, linear_svm, perceptron."""
    leakage_attributes: tuple[str, ...] = ()
    """What to read (default: every attribute that the cohort has, and the view where there are two)."""
    leakage_folds: int = 1
    """1 keeps the run's split; 3 or more judge every row once, in folds of the patients: for small tables."""
    balance_groups: bool = False
    """Give every group the same total weight when a probe learns."""
    n_shuffles: int = 5
    """Repetitions of each probe with attributes shuffled among the patients of each part, the control."""
    leakage_margin: float = 0.55
    """An attribute is called not detected where the upper limit of every probe's macro AUROC lies below this."""
    dependence: Literal["off", "frozen", "full"] = "frozen"
    """Do predictions depend on the attribute? frozen asks the trained heads and their scores; full also trains heads anew on
    vectors that the attribute was erased from, and along a range of encoding strengths."""
    curves: bool = False
    """Also: how does what is read grow with training patients and with principal components?"""
    where: tuple[Literal["blocks", "low_pass", "noise", "crop"], ...] = ()
    """Also from the images, anew: blocks (each dense block of the encoder), low_pass, noise, crop (films made worse)."""
    attribute_encoders: tuple[Path, ...] = ()
    """Networks trained for an attribute itself on this run's records (biascxr train-encoder --target race): what they read is
    the upper bound beside the frozen vectors."""
    tsne: bool = False
    """Also a t-SNE panel beside the principal components; minutes for more than 10,000 images."""

    def __post_init__(self) -> None:
        if self.n_shuffles < 1:
            raise InputError(f"n_shuffles must be at least 1; got {self.n_shuffles}.")
        if self.leakage_folds != 1 and self.leakage_folds < 3:
            raise InputError(
                f"leakage_folds must be 1 (the split that there is), or 3 or more; got {self.leakage_folds}. One fold is "
                "judged, one chooses settings, the others are learned from."
            )
        if not 0.5 < self.leakage_margin < 1:
            raise InputError(f"leakage_margin must lie above 0.5 and below 1; got {self.leakage_margin}.")


@dataclass(frozen=True)
class AuditConfig:
    """How fairness is measured."""

    attributes: tuple[str, ...] = ()
    """Attributes to compare groups by (default: all that the cohort has)."""
    crossings: tuple[str, ...] = ()
    """Crossings of attributes to compare groups by as well, for instance "race x sex"."""
    metrics: tuple[str, ...] = ("AUROC", "AUPRC", "TPR", "FPR", "FNR", "PPV", "selection_rate", "Brier", "ECE", "ECE_debiased")
    """Metrics per group; all is every one there is."""
    weight: Literal["image", "patient"] = "image"
    """What counts once: an image, or a patient (whose images then share a weight of one)."""
    adjust: tuple[str, ...] = ()
    """Compare like with like: reweight groups to a common standard of these, for instance age_group view label."""
    n_replicates: int = 1000
    """Patient resamples behind each interval."""
    n_permutations: int = 1000
    """Permutations behind the tests of equal rates; 0 for none."""
    confidence: float = 0.95
    """Level of the intervals."""
    min_patients: int = 25
    """A group or class with fewer patients is flagged as small."""

    def __post_init__(self) -> None:
        if self.n_replicates < 50:
            raise InputError(f"n_replicates must be at least 50; got {self.n_replicates}.")
        if self.n_permutations < 0:
            raise InputError(f"n_permutations must be 0 or more; got {self.n_permutations}.")
        if not 0.5 <= self.confidence < 1:
            raise InputError(f"confidence must lie in [0.5, 1); got {self.confidence}.")


@dataclass(frozen=True)
class RunConfig:
    """One run of biascxr: from a table of chest X-rays to output/<run>/report.html."""

    csv_path: Path | None = None
    """Table of X-rays: a data set's official table, or the folder it was downloaded to (MIMIC-CXR, CheXpert, NIH, MIDRC), or
    the BiasCXR form (subject_id, study_id, dicom_id, path, ...)."""
    images_root: Path | None = None
    """Folder that relative paths start from (default: the data set's own folder)."""
    output_dir: Path | None = None
    """Folder of this run (default: output/<name of the table>)."""
    demo: bool = False
    """Run on a made-up cohort with one planted bias: no data and no network needed."""
    config: Path | None = None
    """YAML file with any of these settings; flags given beside it win."""
    seed: int = 0
    """Seed of everything random."""
    n_workers: int | None = None
    """Processes that read images (default: one per core)."""
    scheduler: str | None = None
    """Dask scheduler whose workers read and embed images instead of this machine's processes: its address (tcp://host:8786),
    or the .json file that dask scheduler --scheduler-file wrote. Workers need the same files under the same paths."""
    label_policy_check: Literal["off", "rescore", "retrain"] = "off"
    """Does each conclusion survive another policy for uncertain labels (zeros, ones, ignore)? rescore puts the trained models
    to the other labels, retrain also trains them on those."""
    cohort: CohortConfig = field(default_factory=CohortConfig)
    bias: BiasConfig = field(default_factory=BiasConfig)
    records: RecordsConfig = field(default_factory=RecordsConfig)
    embeddings: EmbeddingsConfig = field(default_factory=EmbeddingsConfig)
    mitigation: MitigationConfig = field(default_factory=MitigationConfig)
    leakage: LeakageConfig = field(default_factory=LeakageConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more; got {self.seed}.")
        if self.n_workers is not None and self.n_workers < 1:
            raise InputError(f"n_workers must be at least 1; got {self.n_workers}.")
        if self.scheduler is not None and not (":" in self.scheduler or self.scheduler.endswith(".json")):
            raise InputError(
                "scheduler must be an address with its port (tcp://host:8786) or a scheduler file (.json); got "
                f"{self.scheduler!r}."
            )
        if self.demo and self.csv_path is not None:
            raise InputError("--demo makes its own table; give either --demo or --csv_path, not both.")

    def run_dir(self) -> Path:
        """Returns the folder of this run."""
        if self.output_dir is not None:
            return self.output_dir
        if self.demo:
            return Path("output/demo")
        if self.csv_path is None and self.embeddings.embedding_store is not None:
            return Path("output") / f"{self.embeddings.embedding_store.absolute().parent.name}_again"
        place = self.csv_path.absolute()
        if place.is_dir() and place.name[:1].isdigit():  # PhysioNet's folders end in a version: mimic-cxr-jpg/2.1.0
            place = place.parent
        return Path("output") / place.name.split(".")[0]


@dataclass(frozen=True)
class SweepConfig(RunConfig):
    """Many runs: every recipe with several seeds and folds, in parallel; only from these comes a verdict on a method."""

    seeds: int = 5
    """Training runs of each recipe in each fold, with seeds that count up from --seed."""
    folds: int = 1
    """Parts that the patients outside the test split are divided into: each in turn is held out for validation and
    calibration. 1 keeps the run's own split."""
    jobs: int | None = None
    """Trainings at the same time, each on one core (default: one per core)."""
    keep_models: bool = False
    """Keep every trained model, not only its predictions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds < 1 or self.folds < 1 or (self.jobs is not None and self.jobs < 1):
            raise InputError(f"seeds, folds and jobs must be at least 1; got {self.seeds}, {self.folds} and {self.jobs}.")

    def run_config(self) -> RunConfig:
        """Returns the part that a single run takes."""
        return RunConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(RunConfig)})


def to_dict(config: object) -> dict:
    """Returns a config dataclass as plain YAML and JSON types (paths as text, tuples as lists)."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def to_yaml(config: RunConfig) -> str:
    """Returns the YAML text from which `yaml_to_flags` gives the same run again."""
    tree = to_dict(config)
    tree.pop("config")  # a file that names itself would be read twice
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def yaml_to_flags(path: Path) -> list[str]:
    """Turns a YAML file into command-line flags, so that one parser checks both.

    Nested sections and flat keys are both accepted, since field names are unique over the tree.

    Args:
        path: the YAML file.

    Returns:
        Flags such as `["--uncertain_policy", "ignore", "--no_equalize"]`.

    Raises:
        InputError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} is not valid YAML: {error}") from error
    if tree is None:
        return []
    if not isinstance(tree, dict):
        raise InputError(f"--config {path} must hold `name: value` lines; got a {type(tree).__name__}.")
    sections = {f.name for f in dataclasses.fields(RunConfig) if dataclasses.is_dataclass(f.default_factory)}
    flags: list[str] = []
    for name, value in tree.items():
        if name in sections and value is None:  # a section whose lines are all comments
            continue
        inner = value if name in sections and isinstance(value, dict) else {name: value}
        for key, item in inner.items():
            flags += _flag(str(key), item)
    return flags


def _flag(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no_{name}"]
    if isinstance(value, (list, tuple)):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", str(value)]
