"""Many runs: recipes x seeds x folds, in parallel and resumable; from them, a verdict on each method.

The stages up to the vectors are those of a single run and are made once; every training reads the one store of vectors.
"""

from __future__ import annotations

import functools
import json
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from biascxr.config import SweepConfig, to_dict, to_yaml
from biascxr.errors import InputError
from biascxr.run_folder import RunFolder, folder_name, run_versions

logger = logging.getLogger("biascxr")

PREDICTIONS = "predictions.parquet"
# One core for each training: two trainings side by side are faster than one on two cores, and what is trained does not
# depend on how many run at a time.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@dataclass(frozen=True)
class Training:
    """What one worker needs to train one recipe once.

    Attributes:
        run_folder: the run's folder.
        cohort: folder of the cohort stage.
        embeddings: folder of the embeddings stage.
        views: folder of the embedded views that the recipe samples; None for none.
        recipe: the recipe.
        seed: seed of the training.
        fold: which part of the patients is held out.
        n_folds: number of parts.
        split_seed: seed that divides the patients into parts.
        inputs: fingerprints of what it reads.
        keep_model: write the trained parts too.
    """

    run_folder: Path
    cohort: Path
    embeddings: Path
    views: Path | None
    recipe: object
    seed: int
    fold: int
    n_folds: int
    split_seed: int
    inputs: dict
    keep_model: bool

    @property
    def member(self) -> str:
        """Its folder under `08_sweep`."""
        return f"{folder_name(self.recipe.name)}/seed_{self.seed}_fold_{self.fold}_of_{self.n_folds}"


def sweep(config: SweepConfig) -> Path:
    """Trains every recipe with every seed in every fold, and says what that shows of each method.

    Args:
        config: what to run on, the recipes, the number of seeds and folds.

    Returns:
        `08_sweep` in the run's folder: `runs.csv`, `comparisons.csv`, `sweep.html`, and per training its predictions.

    Raises:
        InputError: something the user gave cannot be used.
    """
    from biascxr.audit import MIN_UNITS
    from biascxr.mitigation import parse_recipes
    from biascxr.pipeline import run_stages

    recipes = parse_recipes(config.mitigation.recipes, config.mitigation.settings)
    if len(recipes) < 2:
        raise InputError("A sweep compares recipes with erm: name at least one other in --recipes.")
    n_units = config.folds if config.folds > 1 else config.seeds
    if n_units < MIN_UNITS:
        what = "folds" if config.folds > 1 else "seeds"
        logger.warning("sweep: %d %s are too few for a verdict on a method; it takes %d", n_units, what, MIN_UNITS)
    if config.folds > 1 and any(recipe.view_settings() is not None for recipe in recipes):
        raise InputError("controlled_augmentation plans views of the run's own training patients: sweep it with --folds 1.")
    run = run_stages(config.run_config(), until="embeddings", own_config=False)
    embedded, _ = run.embedded()
    if config.folds > 1:
        fold_cohort(embedded, 0, config.folds, seed=config.seed)  # too few patients is said before anything is trained
    trainings = plan_trainings(run, recipes, config)
    folders = train_all(trainings, config.jobs or os.cpu_count() or 1)
    made = _compare(config, run, trainings, folders)
    logger.info("sweep: %s", made / "sweep.html")
    return made


def plan_trainings(run, recipes: tuple, config: SweepConfig) -> list[Training]:
    """Returns all trainings: those of one seed and fold together, so that an interrupted sweep has whole comparisons."""
    from biascxr.view_stages import view_key

    trainings = []
    for seed in range(config.seed, config.seed + config.seeds):
        for fold in range(config.folds):
            for recipe in recipes:
                views = f"embeddings/{view_key(recipe)}"
                names = ["cohort", "embeddings", *([views] if views in run.stages else [])]
                trainings.append(
                    Training(
                        run_folder=run.folder.path,
                        cohort=run.stages["cohort"],
                        embeddings=run.stages["embeddings"],
                        views=run.stages.get(views),
                        recipe=recipe,
                        seed=seed,
                        fold=fold,
                        n_folds=config.folds,
                        split_seed=config.seed,
                        inputs=run.inputs_of(*names),
                        keep_model=config.keep_models,
                    )
                )
    return trainings


def train_all(trainings: list[Training], n_jobs: int) -> dict[str, Path]:
    """Trains in parallel; finished trainings of an earlier, interrupted sweep are reused.

    Args:
        trainings: what to train.
        n_jobs: processes.

    Returns:
        Each training's folder, by its member name.
    """
    n_jobs = min(n_jobs, len(trainings))
    folders: dict[str, Path] = {}
    bar = tqdm(total=len(trainings), desc="sweep", unit="training", mininterval=0.5)
    # spawn: a forked copy of a process that has started TensorFlow's threads can hang
    context = multiprocessing.get_context("spawn")
    options = {"mp_context": context, "initializer": _end_with, "initargs": (os.getpid(),)}
    with _environment(ONE_THREAD), bar, ProcessPoolExecutor(n_jobs, **options) as pool:
        waiting = {pool.submit(train_one, training): training for training in trainings}
        try:
            for done in as_completed(waiting):
                folders[waiting[done].member] = done.result()
                bar.update()
        except InputError as error:
            pool.shutdown(wait=False, cancel_futures=True)
            raise InputError(f"{waiting[done].member}: {error} (finished trainings are kept)") from error
        except BrokenProcessPool as error:
            raise InputError("A training's process ended by itself, as when memory runs out: try fewer --jobs.") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return folders


def _end_with(parent: int) -> None:
    """Ends this worker when the sweep that started it is gone: nobody would take what it makes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def train_one(training: Training) -> Path:
    """Trains one recipe once, or finds it already trained; returns its folder."""

    def build(folder: Path) -> None:
        keras = _import_keras()
        from biascxr.containers import EmbeddingSet
        from biascxr.mitigation import run_recipe

        cohort, embeddings = _opened(training.cohort, training.embeddings)
        if training.n_folds > 1:
            cohort = fold_cohort(cohort, training.fold, training.n_folds, seed=training.split_seed)
        views = None if training.views is None else EmbeddingSet.load(training.views)
        run_recipe(
            training.recipe, cohort, embeddings, folder, seed=training.seed, fold=training.fold, views=views,
            keep_model=training.keep_model,
        )  # fmt: skip
        keras.backend.clear_session()  # a worker trains many models; their graphs would pile up

    return RunFolder(training.run_folder).stage(
        "sweep",
        build,
        member=training.member,
        inputs=training.inputs,
        settings=training.recipe.describe()
        | {"seed": training.seed, "fold": training.fold, "n_folds": training.n_folds, "split_seed": training.split_seed}
        | {"keep_model": training.keep_model, "backend": os.environ.get("KERAS_BACKEND", "tensorflow")},
        code=("mitigation", "models", "metrics", "containers", "cohort", "sweep"),
        libraries=("keras", "tensorflow", "scikit-learn"),
    )


@functools.lru_cache(maxsize=1)
def _import_keras():
    """Imports Keras without the start-up lines that TensorFlow's libraries write to stderr past every setting."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        import keras
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
    return keras


@functools.lru_cache(maxsize=1)
def _opened(cohort: Path, embeddings: Path) -> tuple:
    """Opens what all trainings of a worker share; the vectors stay on disk, in the one cache that all workers read from."""
    from biascxr.containers import Cohort, EmbeddingSet

    vectors = EmbeddingSet.load(embeddings)
    return Cohort.load(cohort).rows(vectors.image_id), vectors


def fold_cohort(cohort, fold: int, n_folds: int, *, seed: int):
    """Divides the patients outside the test split anew: one part for validation and calibration, the others for training.

    Args:
        cohort: the rows; its test split stays as it is, so that all runs are judged on the same patients.
        fold: which part is held out, from 0.
        n_folds: number of parts.
        seed: seed of the division, the same for all folds.

    Returns:
        The cohort with another split column: half of the held-out patients validate, half calibrate.

    Raises:
        InputError: fewer than four patients a part.
    """
    is_test = (cohort.table["split"] == "test").to_numpy()
    patients = np.unique(cohort.table["patient_id"][~is_test].astype(str))
    if len(patients) < 4 * n_folds:
        raise InputError(f"{len(patients)} patients outside the test split are too few for --folds {n_folds}: four a fold.")
    held_out = np.array_split(np.random.default_rng([seed, 83]).permutation(patients), n_folds)[fold]
    role = dict.fromkeys(patients, "train")
    role |= dict.fromkeys(held_out[: len(held_out) // 2], "validation")
    role |= dict.fromkeys(held_out[len(held_out) // 2 :], "calibration")
    of_patient = cohort.table["patient_id"].astype(str).map(role)
    return replace(cohort, table=cohort.table.assign(split=np.where(is_test, "test", of_patient)))


def _compare(config: SweepConfig, run, trainings: list[Training], folders: dict[str, Path]) -> Path:
    """Audits all runs and writes `runs.csv`, `comparisons.csv`, `sweep.json` and `sweep.html`."""
    from biascxr.audit import TrainedRun, compare_methods
    from biascxr.containers import Predictions
    from biascxr.report.sweep_page import write_sweep_page

    attributes = run.cohort().attributes
    runs: dict[str, list[TrainedRun]] = {}
    for training in trainings:
        path = folders[training.member] / PREDICTIONS

        def load(path: Path = path) -> Predictions:
            return Predictions.load(path, attributes).in_split("test")

        runs.setdefault(training.recipe.name, []).append(TrainedRun(training.seed, training.fold, load))
    made = compare_methods(
        runs, config.audit, seed=config.seed, progress=functools.partial(tqdm, desc="audit", unit="training", disable=None)
    )
    folder = run.folder.path / "08_sweep"
    made.runs.to_csv(folder / "runs.csv", index=False)
    made.comparisons.to_csv(folder / "comparisons.csv", index=False)
    described = {"seeds": config.seeds, "folds": config.folds, "seed": config.seed, "config": to_dict(config)}
    (folder / "sweep.json").write_text(json.dumps(described, indent=2), encoding="utf-8")
    (folder / "config.yaml").write_text(to_yaml(replace(config, output_dir=run.folder.path)), encoding="utf-8")
    cohort, embeddings = run.embedded()
    test = cohort.table[cohort.table["split"] == "test"]
    facts = {
        "truth": "phantom" in run.stages,
        "is_trained": embeddings.card["is_trained"],
        "encoder": f"{embeddings.card['encoder']} ({Path(str(embeddings.card['weights'])).name})",
        "n_images": len(test),
        "n_patients": test["patient_id"].nunique(),
        "layout": cohort.layout,
        "versions": run_versions(),
    }
    write_sweep_page(made, described, facts, folder)
    return folder


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets environment variables for the processes started inside, and puts back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
