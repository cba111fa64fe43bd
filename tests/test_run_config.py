"""The configuration: checked when built, every field one flag, and YAML gives the same run again."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.cli import parse_flags
from biascxr.config import (
    AuditConfig,
    BiasConfig,
    CohortConfig,
    EmbeddingsConfig,
    LeakageConfig,
    MitigationConfig,
    RecordsConfig,
    RunConfig,
    to_dict,
    to_yaml,
    yaml_to_flags,
)
from biascxr.errors import InputError
from biascxr.verb_config import PowerConfig, SelectConfig, StandaloneConfig


def fields_of(config_class):
    """Yields (section, name) of every leaf field."""
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(field.default_factory):
            yield from ((field.name, name) for _, name in fields_of(field.default_factory))
        else:
            yield "", field.name


def again(config, folder):
    """Writes a configuration as YAML and reads it as `--config` does."""
    path = folder / "run.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    return dataclasses.replace(parse_flags(["--config", str(path)]), config=None)


def test_every_field_is_one_flag_of_its_own():
    names = [name for _, name in fields_of(RunConfig)]
    assert len(names) == len(set(names))
    sections = {section for section, _ in fields_of(RunConfig)} - {""}
    assert not sections & set(names)


def test_every_field_is_explained():
    for config_class in (
        RunConfig,
        CohortConfig,
        BiasConfig,
        RecordsConfig,
        EmbeddingsConfig,
        MitigationConfig,
        LeakageConfig,
        AuditConfig,
        StandaloneConfig,
        SelectConfig,
        PowerConfig,
    ):
        source = Path(__import__(config_class.__module__, fromlist=["x"]).__file__).read_text()
        body = source[source.index(f"class {config_class.__name__}") :]
        inherited = {f.name for base in config_class.__mro__[1:-1] for f in dataclasses.fields(base)}
        for field in dataclasses.fields(config_class):
            if dataclasses.is_dataclass(field.default_factory) or field.name in inherited:
                continue
            after = body[body.index(f"    {field.name}: ") :].split("\n")[1].strip()
            assert after.startswith('"""'), f"{config_class.__name__}.{field.name} has no docstring"


CHANGED = RunConfig(
    csv_path=Path("data/my table.csv"),
    images_root=Path("/data"),
    output_dir=Path("output/x"),
    seed=7,
    n_workers=3,
    scheduler="tcp://10.0.0.1:8786",
    label_policy_check="rescore",
    cohort=CohortConfig(
        layout="generic",
        labels=("Pleural Effusion", "Edema"),
        uncertain_policy="ignore",
        blank_policy="ignore",
        age_bins=(18, 44.5, 65),
        against_rest=("race=WHITE", "age_group=65+"),
        frontal_only=False,
        split_source="random",
        split_fractions=(0.4, 0.2, 0.2, 0.2),
        companions=(Path("/data/mimic iv"), Path("CHEXPERT DEMO.xlsx")),
        mapping=Path("map.yaml"),
        reference_labels=Path("truth.csv"),
        labeler="negbio",
        hispanic_policy="combined",
        conflict_policy="majority",
        image_files="dcm",
        verify_checksums=True,
        allow=("copied_files",),
    ),
    bias=BiasConfig(
        mechanism="annotation", strength=0.25, plant=("annotation:0.3:sex=F", "prevalence:1:race=A B:Lung Opacity")
    ),
    records=RecordsConfig(image_size=64, equalize=False, image_format="jpeg", rows_per_shard=9, max_rejected_share=0.5),
    embeddings=EmbeddingsConfig(
        weights="a b.keras",
        weights_source="chexnet",
        layer="pool 2",
        runtime="keras",
        pooling="avg",
        inference_batch=2,
        vector_length=1376,
        store_precision="float16",
        mixed_precision="bfloat16",
        distribute="mirrored",
        embedding_store=Path("a store"),
    ),
    mitigation=MitigationConfig(
        recipes="erm, median_balance+erm", settings=("erm.batch_size=16", "median_balance.max_copies=5")
    ),
    leakage=LeakageConfig(
        probes=("knn",),
        leakage_attributes=("sex",),
        leakage_folds=5,
        balance_groups=True,
        n_shuffles=2,
        leakage_margin=0.6,
        dependence="full",
        curves=True,
        where=("blocks", "crop"),
        attribute_encoders=(Path("race.keras"),),
        tsne=True,
    ),
    audit=AuditConfig(
        attributes=("sex",),
        crossings=("sex x race",),
        metrics=("AUROC",),
        weight="patient",
        adjust=("view",),
        n_replicates=50,
        n_permutations=0,
        confidence=0.9,
        min_patients=3,
    ),
)


@pytest.mark.parametrize(
    "config",
    [RunConfig(), RunConfig(demo=True), CHANGED],
    ids=["defaults", "demo", "everything changed"],
)
def test_yaml_gives_the_same_run_again(config, tmp_path):
    assert again(config, tmp_path) == config


def test_the_changed_run_above_changes_every_field_but_these():
    default, changed = to_dict(RunConfig()), to_dict(CHANGED)
    same = {
        name
        for section, name in fields_of(RunConfig)
        if (default[section] if section else default)[name] == (changed[section] if section else changed)[name]
    }
    assert same == {"demo", "config", "encoder", "vectors"}


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    edges=st.lists(st.integers(0, 110), min_size=1, max_size=5, unique=True).map(sorted),
    share=st.floats(0, 1),
    labels=st.lists(st.sampled_from(["Edema", "Lung Opacity", "No Finding"]), unique=True),
    equalize=st.booleans(),
)
def test_any_configuration_survives_yaml(tmp_path_factory, seed, edges, share, labels, equalize):
    config = RunConfig(
        seed=seed,
        cohort=CohortConfig(age_bins=tuple(edges), labels=tuple(labels)),
        records=RecordsConfig(max_rejected_share=share, equalize=equalize),
    )
    assert again(config, tmp_path_factory.mktemp("yaml")) == config


class TestYaml:
    def parse(self, tmp_path, text, *flags):
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return parse_flags(["--config", str(path), *flags])

    def test_flat_and_nested_say_the_same(self, tmp_path):
        flat = self.parse(tmp_path, "uncertain_policy: ones\nimage_size: 64\n")
        nested = self.parse(tmp_path, "cohort:\n  uncertain_policy: ones\nrecords:\n  image_size: 64\n")
        assert flat == nested
        assert flat.cohort.uncertain_policy == "ones"

    def test_flags_win_over_the_file(self, tmp_path):
        config = self.parse(tmp_path, "seed: 3\nuncertain_policy: ones\n", "--seed", "9")
        assert (config.seed, config.cohort.uncertain_policy) == (9, "ones")

    def test_a_list_of_nothing_and_an_emptied_section_change_nothing(self, tmp_path):
        config = self.parse(tmp_path, "labels: []\ncohort:\n  # frontal_only: false\nseed: 3\n")
        assert dataclasses.replace(config, config=None) == RunConfig(seed=3)

    def test_an_empty_file_changes_nothing(self, tmp_path):
        assert dataclasses.replace(self.parse(tmp_path, "# nothing\n"), config=None) == RunConfig()

    def test_demo_in_the_file_brings_the_demos_settings(self, tmp_path):
        config = self.parse(tmp_path, "demo: true\n")
        assert config.demo
        assert dataclasses.replace(config, config=None) == parse_flags(["--demo"])

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"- a\n- b\n", "must hold `name: value` lines; got a list"),
            (b"seed: [1\n", "is not valid YAML"),
            (b"seed: 3 # caf\xe9\n", "is not valid YAML"),
            (b"seed: 3\x00\n", "is not valid YAML"),
        ],
    )
    def test_a_file_that_is_no_settings_is_named(self, tmp_path, content, message):
        path = tmp_path / "run.yaml"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"--config .*run\.yaml {message}"):
            yaml_to_flags(path)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"--config .*none\.yaml: No such file or directory"):
            parse_flags([f"--config={tmp_path / 'none.yaml'}"])

    def test_a_misspelt_name_gets_a_hint_and_the_files_name(self, tmp_path, capsys):
        with pytest.raises(SystemExit) as exit_:
            self.parse(tmp_path, "uncertain_polcy: ones\n")
        assert exit_.value.code == 2
        said = "".join(capsys.readouterr())
        assert "--uncertain_policy" in said
        assert "run.yaml" in said

    def test_no_object_is_made_from_yaml(self, tmp_path):
        path = tmp_path / "run.yaml"
        path.write_text("seed: !!python/object/apply:os.getcwd []\n")
        with pytest.raises(InputError, match="is not valid YAML"):
            yaml_to_flags(path)

    def test_the_yaml_is_plain(self):
        tree = yaml.safe_load(to_yaml(CHANGED))
        assert tree["csv_path"] == "data/my table.csv"
        assert tree["cohort"]["labels"] == ["Pleural Effusion", "Edema"]
        assert "config" not in tree


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CohortConfig(age_bins=(40, 20)), r"age_bins must be rising lower edges in years.*got \(40, 20\)"),
        (lambda: CohortConfig(age_bins=(20, 20)), "age_bins must be rising"),
        (lambda: CohortConfig(age_bins=(-5, 20)), "none negative"),
        (lambda: CohortConfig(age_bins=()), "at least one"),
        (lambda: CohortConfig(split_fractions=(0.5, 0.2, 0.2, 0.2)), "four shares above 0 that sum to 1"),
        (lambda: CohortConfig(split_fractions=(0.8, 0.0, 0.1, 0.1)), "four shares above 0"),
        (lambda: RecordsConfig(image_size=31), "image_size must be at least 32 pixels; got 31"),
        (lambda: RecordsConfig(rows_per_shard=0), "rows_per_shard must be at least 1; got 0"),
        (lambda: RecordsConfig(max_rejected_share=5), "max_rejected_share must be a share between 0 and 1; got 5"),
        (lambda: EmbeddingsConfig(inference_batch=0), "inference_batch must be at least 1; got 0"),
        (lambda: EmbeddingsConfig(vector_length=0), "vector_length must be at least 1; got 0"),
        (lambda: LeakageConfig(n_shuffles=0), "n_shuffles must be at least 1; got 0"),
        (lambda: LeakageConfig(leakage_folds=2), "leakage_folds must be 1 .* or 3 or more; got 2"),
        (lambda: LeakageConfig(leakage_margin=0.5), "leakage_margin must lie above 0.5 and below 1; got 0.5"),
        (lambda: AuditConfig(n_replicates=10), "n_replicates must be at least 50; got 10"),
        (lambda: AuditConfig(confidence=95), r"confidence must lie in \[0\.5, 1\); got 95"),
        (lambda: RunConfig(n_workers=0), "n_workers must be at least 1; got 0"),
        (lambda: RunConfig(scheduler="localhost"), "scheduler must be an address with its port"),
        (lambda: RunConfig(seed=-1), "seed must be 0 or more; got -1"),
        (lambda: RunConfig(demo=True, csv_path=Path("a.csv")), "give either --demo or --csv_path, not both"),
    ],
)
def test_a_value_out_of_its_range_is_named(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_a_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 3


@pytest.mark.parametrize(
    ("config", "folder"),
    [
        (RunConfig(csv_path=Path("a/meta.csv.gz")), "output/meta"),
        (RunConfig(demo=True), "output/demo"),
        (RunConfig(csv_path=Path("a.csv"), output_dir=Path("x/y")), "x/y"),
    ],
)
def test_the_runs_folder(config, folder):
    assert config.run_dir() == Path(folder)
