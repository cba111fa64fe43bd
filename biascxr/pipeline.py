"""The run: one short function per stage, in order.

meta.csv -> cohort -> records -> embeddings -> mitigation -> leakage -> audit -> report

A stage whose inputs, settings and code have not changed is reused; heavy libraries are imported inside the part that
builds, so a run that changes nothing loads no TensorFlow.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import biascxr
from biascxr.config import RunConfig, to_dict
from biascxr.embedding_stage import embed_records, embeddings, films_behind
from biascxr.embedding_store import cohort_digests, cohort_of_store, copy_cohort
from biascxr.mitigation_stage import mitigation, predictions_inputs, recipe_stage, test_predictions
from biascxr.run_checks import check_audit, check_files, check_leakage, check_rejected, check_request
from biascxr.run_folder import (
    STAGES,
    RunFolder,
    describe_run,
    file_digest,
    files_digest,
    log_to,
    outputs_digest,
    run_versions,
)
from biascxr.view_stages import augmented_views, check_views

logger = logging.getLogger("biascxr")

ORDER = tuple(name for name in STAGES if name not in ("phantom", "sweep"))
IMAGE_LIBRARIES = ("opencv-python-headless", "numpy")
TABLE_LIBRARIES = ("pandas", "numpy", "openpyxl")
LABEL_POLICIES = ("zeros", "ones", "ignore")


@dataclass
class Run:
    """What the stages of one run share.

    Attributes:
        config: the configuration, with `csv_path` set.
        folder: the run's folder.
        stages: the finished stages' folders, by stage name; recipes by `mitigation/<recipe>`.
    """

    config: RunConfig
    folder: RunFolder
    stages: dict[str, Path]

    def cohort(self):
        """Returns the cohort, as the cohort stage left it."""
        from biascxr.containers import Cohort

        return Cohort.load(self.stages["cohort"])

    def embedded(self):
        """Returns the rows that have a vector, as a cohort, and their vectors."""
        from biascxr.containers import EmbeddingSet

        embeddings = EmbeddingSet.load(self.stages["embeddings"])
        return self.cohort().rows(embeddings.image_id), embeddings

    def inputs_of(self, *names: str) -> dict[str, str]:
        """Returns the fingerprints of what these stages wrote."""
        return {name: outputs_digest(self.stages[name]) for name in names}


def run(config: RunConfig, *, until: str = "report") -> Path:
    """Runs the pipeline; as `run_stages`, but returns the run's folder."""
    return run_stages(config, until=until).folder.path


def run_stages(config: RunConfig, *, until: str = "report", own_config: bool = True) -> Run:
    """Runs the pipeline.

    Args:
        config: what to run on and how; `csv_path` or `demo` must be given.
        until: the last stage to run.
        own_config: write `config.yaml`; a sweep writes its own and leaves that of a run in the same folder.

    Returns:
        The run, with its finished stages.

    Raises:
        InputError: something the user gave cannot be used.
    """
    recipes = check_request(config)
    current = Run(config, RunFolder(config.run_dir()), {})
    log_to(current.folder.path / "run.log")
    logger.info("biascxr %s: run in %s", biascxr.__version__, current.folder.path)
    if config.demo:
        phantom(current)
    if own_config:
        describe_run(current.folder.path, config)
    cohort(current)
    check_audit(current)
    check_leakage(current)
    check_views(current, recipes)
    steps = {
        "records": records,
        "embeddings": lambda r: (embeddings(r), augmented_views(r, recipes, partial(embed_records, r))),
        "mitigation": lambda r: [mitigation(r, recipe) for recipe in recipes],
        "leakage": lambda r: leakage(r, recipes),
        "audit": lambda r: audit(r, recipes),
        "report": lambda r: report(r, recipes),
    }
    for name in ORDER[1 : ORDER.index(until) + 1]:
        steps[name](current)
    if until == "report":
        logger.info("report: %s", current.folder.path / "report.html")
    return current


def phantom(run: Run) -> None:
    """The demo's cohort: films on disk in MIMIC-CXR's folder form and a meta.csv, with one planted bias."""
    from biascxr.phantom import META_FILE, TRUTH_FILE, PhantomConfig, make_phantom

    bias = run.config.bias
    config = PhantomConfig(seed=run.config.seed, mechanism=bias.mechanism, strength=bias.strength)

    def build(folder: Path) -> None:
        for left_over in folder.iterdir():
            shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
        make_phantom(config, folder, n_workers=run.config.n_workers)

    run.stages["phantom"] = run.folder.stage(
        "phantom", build, inputs={}, settings=to_dict(config), code=("phantom",), libraries=IMAGE_LIBRARIES
    )
    made = run.stages["phantom"]
    # Some mechanisms act on what is learned from only, so the phantom's own split is kept; and here the truth is known.
    cohort = run.config.cohort
    source = "table" if cohort.split_source == "auto" else cohort.split_source
    own = replace(cohort, split_source=source, reference_labels=cohort.reference_labels or made / TRUTH_FILE)
    run.config = replace(run.config, demo=False, csv_path=made / META_FILE, cohort=own)


def cohort(run: Run) -> None:
    """Official files -> `Cohort`, with every row accounted for; bias is planted on it where that is asked for."""
    config = run.config
    if config.csv_path is None:
        source = cohort_of_store(config.embeddings.embedding_store)
        run.stages["cohort"] = run.folder.stage(
            "cohort", lambda folder: copy_cohort(source, folder), inputs=cohort_digests(source), settings={}, code=()
        )
        return

    from biascxr.cohort import find_layout

    layout, source = find_layout(config.csv_path, config.images_root, config.cohort)
    given = (config.cohort.reference_labels, config.cohort.mapping)

    def build(folder: Path) -> None:
        from biascxr.cohort import build_cohort, group_shift, recount, table_one

        made = build_cohort(
            config.csv_path, config.images_root, config.cohort, seed=config.seed, min_patients=config.audit.min_patients
        )
        if config.bias.plant:
            from biascxr.phantom.plant import plant_on_rows

            made = plant_on_rows(made, config.bias.plant, seed=config.seed)
            made = recount(made, config.cohort, min_patients=config.audit.min_patients)
        made.save(folder)
        table_one(made).to_csv(folder / "table_one.csv", index=False)
        for attribute in made.attributes:
            table_one(made, by=attribute.name).to_csv(
                folder / f"table_one_by_{attribute.name.replace('/', '_')}.csv", index=False
            )
        group_shift(made, min_patients=config.audit.min_patients).to_csv(folder / "shift.csv", index=False)

    run.stages["cohort"] = run.folder.stage(
        "cohort",
        build,
        inputs=layout.fingerprint(source)
        | {"images_root": str(config.images_root), "given": [file_digest(f) for f in given if f is not None]},
        settings=to_dict(config.cohort)
        | {"seed": config.seed, "plant": config.bias.plant, "min_patients": config.audit.min_patients},
        code=("cohort", "containers", "age_groups", "phantom", "metrics"),
        libraries=TABLE_LIBRARIES,
    )


def records(run: Run) -> None:
    """Images -> TFRecords; skipped where the table points to precomputed vectors."""
    cohort = run.cohort()
    given = run.config.embeddings
    if given.embedding_store is not None or given.vectors is not None:
        flag = "--embedding_store" if given.vectors is None else "--vectors"
        logger.info("records: skipped, the vectors are there already (%s)", flag)
        return
    if cohort.content == "vector":
        logger.info("records: skipped, the table points to precomputed vectors")
        return
    check_files(run, cohort)
    config = run.config.records

    def build(folder: Path) -> None:
        from biascxr.records import build_records

        build_records(
            cohort, config, folder, n_workers=run.config.n_workers, scheduler=run.config.scheduler,
            earlier=run.folder.path / STAGES["records"],
        )  # fmt: skip

    from biascxr.records.shards import reader_versions

    settings = to_dict(config) | {"readers": reader_versions()}
    settings.pop("max_rejected_share")  # decides whether the run goes on, not what is written
    run.stages["records"] = run.folder.stage(
        "records",
        build,
        inputs=run.inputs_of("cohort") | {"images": files_digest(cohort.images_root, cohort.table["path"])},
        settings=settings,
        code=("records",),
        libraries=IMAGE_LIBRARIES,
    )
    check_rejected(run, "records")


def leakage(run: Run, recipes: tuple) -> None:
    """Can recorded race, sex or age group be read from the vectors, and do the recipes' predictions depend on it?"""
    config = run.config.leakage
    stages = [recipe_stage(run, recipe) for recipe in recipes]
    films_are_read = bool(config.where or config.attribute_encoders)

    def build(folder: Path) -> None:
        from biascxr.leakage.build import measure_leakage
        from biascxr.leakage.recipes import open_recipe

        cohort, vectors = run.embedded()
        measure_leakage(
            cohort, vectors, config, confidence=run.config.audit.confidence,
            models=(open_recipe(run.stages[stage], cohort, vectors) for stage in stages),
            films=films_behind(run) if films_are_read else None, seed=run.config.seed,
        ).save(folder)  # fmt: skip

    inputs = run.inputs_of("cohort", "embeddings") | predictions_inputs(run, recipes)
    code = ("leakage", "metrics", "containers", "mitigation", "models")
    if films_are_read:
        from biascxr.embeddings.base import card_path

        files = [file for path in config.attribute_encoders for file in (path, card_path(path)) if file.is_file()]
        inputs |= run.inputs_of("records") | {"attribute_encoders": [file_digest(file) for file in files]}
        code += ("embeddings", "records", "cohort")
    run.stages["leakage"] = run.folder.stage(
        "leakage",
        build,
        inputs=inputs,
        settings=to_dict(config) | {"seed": run.config.seed, "confidence": run.config.audit.confidence},
        code=code,
        libraries=("scikit-learn", "numpy", "numba", "scipy", "keras"),
    )


def audit(run: Run, recipes: tuple) -> None:
    """Metrics, differences and gaps of each recipe, and each against `erm`, on the test split.

    Also on the reference labels, where there are any, and under other policies for uncertain labels, where asked for.
    """
    config, check = run.config.audit, run.config.label_policy_check
    policies = LABEL_POLICIES if check == "retrain" else (None,)
    for policy in policies:
        for recipe in recipes:
            mitigation(run, recipe, policy)

    def build(folder: Path) -> None:
        from biascxr.audit import audit as audit_predictions
        from biascxr.label_checks import audit_on_reference, check_label_policy

        cohort = run.cohort()
        predictions = [test_predictions(run, recipe) for recipe in recipes]
        audit_predictions(predictions, config, seed=run.config.seed).save(folder)
        audit_on_reference(cohort, predictions, config, folder, seed=run.config.seed)
        if check != "off":
            trained_on = {p: p if check == "retrain" else None for p in LABEL_POLICIES}
            judged = {p: [test_predictions(run, recipe, trained_on[p]) for recipe in recipes] for p in LABEL_POLICIES}
            check_label_policy(cohort, judged, config, folder, seed=run.config.seed)

    run.stages["audit"] = run.folder.stage(
        "audit",
        build,
        inputs=run.inputs_of("cohort") | predictions_inputs(run, recipes, policies),
        settings=to_dict(config) | {"seed": run.config.seed, "label_policy_check": check},
        code=("audit", "metrics", "containers", "label_checks"),
        libraries=("numpy", "scipy", "pandas", "numba"),
    )


def report(run: Run, recipes: tuple) -> None:
    """Charts, tables and `report.html`."""
    written = ("report.html", "model_card.md")
    config = to_dict(run.config)
    for name in ("config", "output_dir", "n_workers", "scheduler"):  # where and how fast it runs is not what the report says
        config.pop(name)

    def build(folder: Path) -> None:
        from biascxr.report import ReportInputs, build_report

        cohort, embedding_set = run.embedded()
        inputs = ReportInputs.gather(
            cohort=run.cohort(),
            used=cohort,
            card=embedding_set.card,
            predictions={r.name: test_predictions(run, r) for r in recipes},
            recipe_folders={r.name: run.stages[recipe_stage(run, r)] for r in recipes},
            leakage=run.stages["leakage"],
            audit=run.stages["audit"],
            rejected=run.stages["records" if "records" in run.stages else "embeddings"],
            truth=run.stages["phantom"] / "phantom.json" if "phantom" in run.stages else None,
            config=config,
            versions=run_versions(),
        )
        build_report(inputs, folder)

    inputs = run.inputs_of("cohort", "embeddings", "leakage", "audit") | predictions_inputs(run, recipes)
    run.stages["report"] = run.folder.stage(
        "report",
        build,
        inputs=inputs,
        settings={"config": config, "versions": run_versions()},
        code=("report", "metrics", "audit", "containers", "cohort"),
        libraries=("matplotlib", "seaborn", "jinja2"),
    )
    for name in written:
        shutil.copyfile(run.stages["report"] / name, run.folder.path / name)
