"""The run: one short function per stage, in order.

meta.csv -> cohort -> records -> embeddings -> mitigation -> leakage -> audit -> report

A stage whose inputs, settings and code have not changed is reused; heavy libraries are imported inside the part that
builds, so a run that changes nothing loads no TensorFlow.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import biascxr
from biascxr.config import RunConfig, to_dict
from biascxr.errors import InputError
from biascxr.run_folder import STAGES, RunFolder, describe_run, file_digest, files_digest, log_to, outputs_digest, run_versions

logger = logging.getLogger("biascxr")

ORDER = tuple(name for name in STAGES if name != "phantom")
IMAGE_LIBRARIES = ("opencv-python-headless", "numpy")
TABLE_LIBRARIES = ("pandas", "numpy")


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
    """Runs the pipeline.

    Args:
        config: what to run on and how; `csv_path` or `demo` must be given.
        until: the last stage to run.

    Returns:
        The run's folder.

    Raises:
        InputError: something the user gave cannot be used.
    """
    from biascxr.embeddings import check_weights_path, find_encoder
    from biascxr.mitigation import parse_recipes

    if config.csv_path is None and not config.demo:
        raise InputError("Give a table with --csv_path meta.csv, or --demo for a made-up cohort.")
    if config.csv_path is not None and not config.csv_path.is_file():
        raise InputError(f"--csv_path {config.csv_path}: no such file.")
    # What can be found wrong in a second is found before the hours of work, not after them.
    find_encoder(config.embeddings.encoder, config.embeddings.weights)
    check_weights_path(config.embeddings.weights)
    recipes = parse_recipes(config.mitigation.recipes, config.mitigation.settings)
    current = Run(config, RunFolder(config.run_dir()), {})
    log_to(current.folder.path / "run.log")
    logger.info("biascxr %s: run in %s", biascxr.__version__, current.folder.path)
    if config.demo:
        phantom(current)
    describe_run(current.folder.path, config)
    cohort(current)
    check_audit(current)
    steps = {
        "records": records,
        "embeddings": embeddings,
        "mitigation": lambda r: [mitigation(r, recipe) for recipe in recipes],
        "leakage": leakage,
        "audit": lambda r: audit(r, recipes),
        "report": lambda r: report(r, recipes),
    }
    for name in ORDER[1 : ORDER.index(until) + 1]:
        steps[name](current)
    if until == "report":
        logger.info("report: %s", current.folder.path / "report.html")
    return current.folder.path


def phantom(run: Run) -> None:
    """The demo's cohort: films on disk in MIMIC-CXR's folder form and a meta.csv, with one planted bias."""
    from biascxr.phantom import PhantomConfig, make_phantom

    config = PhantomConfig(seed=run.config.seed)

    def build(folder: Path) -> None:
        for left_over in folder.iterdir():
            shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
        make_phantom(config, folder, n_workers=run.config.n_workers)

    run.stages["phantom"] = run.folder.stage(
        "phantom", build, inputs={}, settings=to_dict(config), code=("phantom",), libraries=IMAGE_LIBRARIES
    )
    run.config = replace(run.config, demo=False, csv_path=run.stages["phantom"] / "meta.csv")


def cohort(run: Run) -> None:
    """Table -> `Cohort`, with every row accounted for."""
    config = run.config
    images_root = config.images_root or config.csv_path.parent

    def build(folder: Path) -> None:
        from biascxr.cohort import build_cohort

        build_cohort(config.csv_path, images_root, config.cohort, seed=config.seed).save(folder)

    run.stages["cohort"] = run.folder.stage(
        "cohort",
        build,
        inputs={
            "csv": file_digest(config.csv_path),
            "images_root": str(images_root),
            # The NIH layout looks for its images in the archives' folders: unpacking them later changes the paths.
            "image_folders": sorted(p.name for p in images_root.glob("images*") if p.is_dir()),
        },
        settings=to_dict(config.cohort) | {"seed": config.seed},
        code=("cohort", "containers", "age_groups"),
        libraries=TABLE_LIBRARIES,
    )


def check_audit(run: Run) -> None:
    """Raises InputError for an audit that could not be done, as soon as the attributes are known."""
    from biascxr.audit import check_audit as check

    check(run.cohort(), run.config.audit)


def records(run: Run) -> None:
    """Images -> TFRecords; skipped where the table points to precomputed vectors."""
    cohort = run.cohort()
    if cohort.content == "vector":
        logger.info("records: skipped, the table points to precomputed vectors")
        return
    config = run.config.records

    def build(folder: Path) -> None:
        from biascxr.records import build_records

        build_records(cohort, config, folder, n_workers=run.config.n_workers)

    settings = to_dict(config)
    settings.pop("max_rejected_share")  # decides whether the run goes on, not what is written
    run.stages["records"] = run.folder.stage(
        "records",
        build,
        inputs=run.inputs_of("cohort") | {"images": files_digest(cohort.images_root, cohort.table["path"])},
        settings=settings,
        code=("records",),
        libraries=IMAGE_LIBRARIES,
    )
    check_rejected(run, "records", len(cohort))


def embeddings(run: Run) -> None:
    """Records, or files that hold a vector already -> `EmbeddingSet`."""
    cohort = run.cohort()
    config = run.config.embeddings
    if cohort.content == "vector":

        def build(folder: Path) -> None:
            from biascxr.embeddings import gather_vectors

            gather_vectors(cohort, folder, vector_length=config.vector_length).save(folder)

        run.stages["embeddings"] = run.folder.stage(
            "embeddings",
            build,
            inputs=run.inputs_of("cohort") | {"vectors": files_digest(cohort.images_root, cohort.table["path"])},
            settings={"vector_length": config.vector_length},
            code=("embeddings", "containers"),
        )
        check_rejected(run, "embeddings", len(cohort))
        return

    from biascxr.embeddings import build_embeddings, find_encoder

    encoder_class = find_encoder(config.encoder, config.weights)
    weights_file = Path(config.weights)

    def build(folder: Path) -> None:
        image_size = run.config.records.image_size
        encoder = encoder_class(config, image_size=image_size, seed=run.config.seed)
        build_embeddings(cohort, run.stages["records"], folder, encoder, batch=config.inference_batch).save(folder)

    run.stages["embeddings"] = run.folder.stage(
        "embeddings",
        build,
        inputs=run.inputs_of("cohort", "records")
        | {p.name: file_digest(p) for p in (weights_file, weights_file.with_suffix(".card.json")) if p.is_file()},
        settings=to_dict(config) | {"seed": run.config.seed if config.weights == "random" else None},
        code=("embeddings", "containers"),
        libraries=encoder_class.libraries,
    )


def mitigation(run: Run, recipe) -> None:
    """One recipe: train on the vectors, predict validation, calibration and test."""

    def build(folder: Path) -> None:
        from biascxr.mitigation import run_recipe

        log_dir = run.folder.path / "tensorboard" / recipe.name
        logger.info("mitigation %s: training", recipe.name)
        run_recipe(recipe, *run.embedded(), folder, seed=run.config.seed, log_dir=log_dir)

    run.stages[f"mitigation/{recipe.name}"] = run.folder.stage(
        "mitigation",
        build,
        member=recipe.name,
        inputs=run.inputs_of("cohort", "embeddings"),
        settings=recipe.describe() | {"seed": run.config.seed},
        code=("mitigation", "models", "metrics", "containers"),
        libraries=("keras", "tensorflow", "scikit-learn"),
    )


def leakage(run: Run) -> None:
    """Probes: can recorded race, sex or age group be read from the vectors?"""

    def build(folder: Path) -> None:
        from biascxr.leakage import measure_leakage

        table = measure_leakage(*run.embedded(), run.config.leakage, run.config.audit, seed=run.config.seed)
        table.to_csv(folder / "leakage.csv", index=False)

    run.stages["leakage"] = run.folder.stage(
        "leakage",
        build,
        inputs=run.inputs_of("cohort", "embeddings"),
        settings=to_dict(run.config.leakage) | to_dict(run.config.audit) | {"seed": run.config.seed},
        code=("leakage", "metrics", "containers"),
        libraries=("scikit-learn", "numpy"),
    )


def audit(run: Run, recipes: tuple) -> None:
    """Metrics, differences and gaps of each recipe, and each against `erm`, on the test split."""

    def build(folder: Path) -> None:
        from biascxr.audit import audit as audit_predictions

        predictions = [test_predictions(run, recipe) for recipe in recipes]
        audit_predictions(predictions, run.config.audit, seed=run.config.seed).save(folder)

    run.stages["audit"] = run.folder.stage(
        "audit",
        build,
        inputs=run.inputs_of("cohort") | predictions_inputs(run, recipes),
        settings=to_dict(run.config.audit) | {"seed": run.config.seed},
        code=("audit", "metrics", "containers"),
        libraries=("numpy", "scipy", "pandas", "numba"),
    )


def report(run: Run, recipes: tuple) -> None:
    """Charts, tables and `report.html`."""
    written = ("report.html", "model_card.md")
    config = to_dict(run.config)
    for name in ("config", "output_dir", "n_workers"):  # where and how fast it runs is not what the report says
        config.pop(name)

    def build(folder: Path) -> None:
        from biascxr.report import ReportInputs, build_report

        cohort, embedding_set = run.embedded()
        inputs = ReportInputs.gather(
            cohort=run.cohort(),
            used=cohort,
            card=embedding_set.card,
            predictions={r.name: test_predictions(run, r) for r in recipes},
            recipe_folders={r.name: run.stages[f"mitigation/{r.name}"] for r in recipes},
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
        code=("report", "metrics", "audit", "containers"),
        libraries=("matplotlib", "seaborn", "jinja2"),
    )
    for name in written:
        shutil.copyfile(run.stages["report"] / name, run.folder.path / name)


def test_predictions(run: Run, recipe):
    """Returns a recipe's predictions of the test split."""
    from biascxr.containers import Predictions

    path = run.stages[f"mitigation/{recipe.name}"] / "predictions.parquet"
    return Predictions.load(path, run.cohort().attributes).in_split("test")


def predictions_inputs(run: Run, recipes: tuple) -> dict[str, str]:
    """Returns the fingerprints of the recipes' predictions; `.keras` files carry a date and are left out."""
    return {
        f"mitigation/{r.name}": outputs_digest(
            run.stages[f"mitigation/{r.name}"], ("predictions.parquet", "balance.csv", "recipe.json")
        )
        for r in recipes
    }


def check_rejected(run: Run, stage: str, n_total: int) -> None:
    """Stops the run when too many files could not be used; the stage is kept, so a higher share goes on from it."""
    from biascxr.records import check_rejected as check

    check(run.stages[stage], n_total, run.config.records.max_rejected_share)
