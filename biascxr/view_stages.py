"""Augmented views of training images: planned, recorded and embedded like images, for the recipes that sample them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from biascxr.config import RunConfig, to_dict
from biascxr.errors import InputError
from biascxr.run_folder import STAGES, files_digest

if TYPE_CHECKING:
    from biascxr.pipeline import Run

logger = logging.getLogger("biascxr")


def view_key(recipe) -> str | None:
    """Returns the name of a recipe's set of views, from the settings that they are planned from; None where it uses none."""
    settings = recipe.view_settings()
    if settings is None:
        return None
    text = json.dumps(dataclasses.asdict(settings), sort_keys=True)
    return f"views_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def has_given_vectors(config: RunConfig) -> bool:
    """Returns whether a run starts from vectors that its flags name."""
    return config.embeddings.embedding_store is not None or config.embeddings.vectors is not None


def check_views(run: Run, recipes: tuple) -> None:
    """Raises InputError for a recipe that samples augmented views of a table of vectors."""
    wanting = [recipe.name for recipe in recipes if recipe.view_settings() is not None]
    if wanting and (run.cohort().content == "vector" or has_given_vectors(run.config)):
        raise InputError(
            f"Recipe {wanting[0]} samples augmented views of images, and this run starts from vectors made elsewhere. "
            "Name cell_interpolation instead: it draws vectors towards others of their cell."
        )


def augmented_views(run: Run, recipes: tuple, build_with: Callable) -> None:
    """Plans, records and embeds the views that the recipes sample; does nothing where none does.

    Args:
        run: the run; its records and embeddings are finished.
        recipes: the recipes.
        build_with: `(cohort, records, folder, earlier) -> EmbeddingSet`, embeds records as the images' own were embedded.
    """
    settings = {view_key(recipe): recipe.view_settings() for recipe in recipes if recipe.view_settings() is not None}
    for key, chosen in settings.items():
        plan_and_embed(run, key, chosen, build_with)


def plan_and_embed(run: Run, key: str, chosen: object, build_with: Callable) -> None:
    """Makes one set of views: `01_cohort/<key>`, `02_records/<key>`, `03_embeddings/<key>`."""
    seed = run.config.seed

    def plan(folder: Path) -> None:
        from biascxr.cohort.views import plan_views

        made = plan_views(run.cohort(), **dataclasses.asdict(chosen), seed=seed)
        logger.info("controlled_augmentation: %s views of training images planned", f"{len(made):,}")
        made.save(folder)

    stages, config = run.stages, run.config
    stages[f"cohort/{key}"] = run.folder.stage(
        "cohort", plan, member=key, inputs=run.inputs_of("cohort"), settings=dataclasses.asdict(chosen) | {"seed": seed},
        code=("cohort", "containers"), libraries=("pandas", "numpy"),
    )  # fmt: skip
    views = planned_cohort(run, key)
    if len(views) == 0:
        return

    def record(folder: Path) -> None:
        from biascxr.records import build_records

        earlier = run.folder.path / STAGES["records"] / key
        build_records(views, config.records, folder, n_workers=config.n_workers, scheduler=config.scheduler, earlier=earlier)

    from biascxr.records.shards import reader_versions

    settings = to_dict(config.records) | {"readers": reader_versions()}
    settings.pop("max_rejected_share")
    stages[f"records/{key}"] = run.folder.stage(
        "records", record, member=key, settings=settings,
        inputs=run.inputs_of(f"cohort/{key}") | {"images": files_digest(views.images_root, views.table["path"])},
        code=("records",), libraries=("opencv-python-headless", "numpy"),
    )  # fmt: skip

    def embed(folder: Path) -> None:
        from biascxr.cohort.views import image_and_view

        made = build_with(views, stages[f"records/{key}"], folder, run.folder.path / STAGES["embeddings"] / key)
        image_id, view_id = image_and_view(made.image_id)
        dataclasses.replace(made, image_id=image_id, view_id=view_id).save(folder)

    stages[f"embeddings/{key}"] = run.folder.stage(
        "embeddings", embed, member=key, settings={},
        inputs=run.inputs_of(f"records/{key}", "embeddings"),
        code=("embeddings", "containers", "cohort"),
    )  # fmt: skip


def planned_cohort(run: Run, key: str):
    """Returns the planned views as a cohort."""
    from biascxr.cohort.views import views_as_cohort
    from biascxr.containers import ViewPlan

    return views_as_cohort(run.cohort(), ViewPlan.load(run.stages[f"cohort/{key}"]))


def recipe_views(run: Run, recipe):
    """Returns the vectors of the views that a recipe samples, of images that have a vector themselves; None without any."""
    from biascxr.containers import EmbeddingSet

    key = view_key(recipe)
    folder = run.stages.get(f"embeddings/{key}")
    return None if folder is None else EmbeddingSet.load(folder)
