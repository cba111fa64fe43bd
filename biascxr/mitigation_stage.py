"""The mitigation stage of a run: a recipe trained, its folder among the stages, and what later stages read of it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from biascxr.run_folder import folder_name, outputs_digest
from biascxr.view_stages import recipe_views, view_key

if TYPE_CHECKING:
    from biascxr.pipeline import Run

logger = logging.getLogger("biascxr")


def mitigation(run: Run, recipe, policy: str | None = None) -> None:
    """One recipe: train on the vectors, predict validation, calibration and test.

    Args:
        run: the run.
        recipe: what to train.
        policy: train on the labels of this policy for uncertain ones; default: the run's own.
    """
    stage = recipe_stage(run, recipe, policy)
    if stage in run.stages:
        return
    member = stage.removeprefix("mitigation/")

    def build(folder: Path) -> None:
        from biascxr.cohort import relabel
        from biascxr.mitigation import run_recipe

        cohort, vectors = run.embedded()
        cohort = cohort if policy is None else relabel(cohort, uncertain=policy)
        logger.info("mitigation %s: training", member)
        run_recipe(
            recipe, cohort, vectors, folder, seed=run.config.seed, views=recipe_views(run, recipe),
            log_dir=run.folder.path / "tensorboard" / member,
        )  # fmt: skip

    run.stages[stage] = run.folder.stage(
        "mitigation",
        build,
        member=member,
        inputs=run.inputs_of("cohort", "embeddings", *view_stages_of(run, recipe)),
        settings=recipe.describe() | {"seed": run.config.seed, "backend": keras_backend()},
        code=("mitigation", "models", "metrics", "containers", "cohort"),
        libraries=("keras", "tensorflow", "scikit-learn"),
    )


def keras_backend() -> str:
    """Returns the backend that Keras will train on, without importing it."""
    return os.environ.get("KERAS_BACKEND", "tensorflow")


def view_stages_of(run: Run, recipe) -> list[str]:
    """Returns the key in `run.stages` of the views that a recipe samples, where it does."""
    return [name for name in (f"embeddings/{view_key(recipe)}",) if name in run.stages]


def recipe_stage(run: Run, recipe, policy: str | None = None) -> str:
    """Returns the key in `run.stages` of a recipe trained on the labels of a policy for uncertain ones."""
    own = policy in (None, run.config.cohort.uncertain_policy)
    folder = folder_name(recipe.name)
    return f"mitigation/{folder}" if own else f"mitigation/labels_as_{policy}/{folder}"


def test_predictions(run: Run, recipe, policy: str | None = None):
    """Returns a recipe's predictions of the test split."""
    from biascxr.containers import Predictions

    path = run.stages[recipe_stage(run, recipe, policy)] / "predictions.parquet"
    return Predictions.load(path, run.cohort().attributes).in_split("test")


def predictions_inputs(run: Run, recipes: tuple, policies: tuple = (None,)) -> dict[str, str]:
    """Returns the fingerprints of the recipes' predictions; `.keras` files carry a date and are left out."""
    stages = [recipe_stage(run, recipe, policy) for policy in policies for recipe in recipes]
    read = ("predictions.parquet", "balance.csv", "recipe.json", "flips.csv")  # the last only of recipes that use attributes
    return {name: outputs_digest(run.stages[name], [f for f in read if (run.stages[name] / f).is_file()]) for name in stages}
