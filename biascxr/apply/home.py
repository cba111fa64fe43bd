"""The finished run whose recipes are applied: read, and checked to be whole."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import biascxr
from biascxr.apply.settings import CONFIG, ApplyConfig, read_config, settings_elsewhere
from biascxr.errors import InputError
from biascxr.run_folder import STAGES, folder_name, manifest_of, outputs_digest

PREDICTIONS = "predictions.parquet"


@dataclass(frozen=True)
class Home:
    """Where the recipes were trained.

    Attributes:
        folder: the run's folder.
        settings: its settings, for use elsewhere.
        recipes: its recipes, the baseline first.
        cohort: its cohort, splits included.
        card: the card of its vectors.
        is_demo: whether its films are made up.
    """

    folder: Path
    settings: ApplyConfig
    recipes: tuple
    cohort: object
    card: dict
    is_demo: bool

    @property
    def has_precomputed_vectors(self) -> bool:
        """Whether its vectors were made elsewhere, by an encoder that is not known here."""
        return self.cohort.content == "vector" or self.card["encoder"] == "precomputed"

    def recipe_folder(self, name: str) -> Path:
        """Returns where a trained recipe lies."""
        return self.folder / STAGES["mitigation"] / folder_name(name)

    def digest(self, stage: str, names: tuple[str, ...] | None = None) -> str:
        """Returns the fingerprint of what a stage (`"cohort"`, `"mitigation/erm"`) wrote."""
        name, _, member = stage.partition("/")
        return outputs_digest(self.folder / STAGES[name] / member, names)

    def test_predictions(self, name: str):
        """Returns a recipe's predictions of the run's own test rows."""
        from biascxr.containers import Predictions

        return Predictions.load(self.recipe_folder(name) / PREDICTIONS, self.cohort.attributes).in_split("test")


def read_home(run: Path) -> Home:
    """Reads a finished run.

    Raises:
        InputError: it is no run, is not finished up to its recipes, or is of a version that this one cannot read.
    """
    from biascxr.containers import Cohort
    from biascxr.mitigation import parse_recipes

    config = read_config(run)
    for stage in ("cohort", "embeddings"):
        if not manifest_of(run / STAGES[stage]):
            raise _unfinished(run, f"its {stage} stage is not there")
    recipes = parse_recipes(config.mitigation.recipes, config.mitigation.settings)
    for recipe in recipes:
        _check_recipe(run, recipe)
    card = json.loads((run / STAGES["embeddings"] / "card.json").read_text(encoding="utf-8"))
    return Home(run, settings_elsewhere(run, config), recipes, Cohort.load(run / STAGES["cohort"]), card, config.demo)


def _check_recipe(run: Path, recipe) -> None:
    """Raises InputError unless the recipe that lies there is the one that the run's configuration and data would give."""
    from biascxr.mitigation import Recipe
    from biascxr.mitigation.trained import RECIPE_FILE

    place = run / STAGES["mitigation"] / folder_name(recipe.name)
    manifest = manifest_of(place)
    if not manifest or not (place / RECIPE_FILE).is_file():
        raise _unfinished(run, f"recipe {recipe.name} is not trained")
    try:
        described = json.loads((place / RECIPE_FILE).read_text(encoding="utf-8"))
        trained = Recipe.from_description(recipe.name, described["slots"]).describe()
    except (KeyError, TypeError, ValueError) as error:
        raise _not_loadable(run, recipe.name, error) from error
    if trained != recipe.describe():
        raise _unfinished(run, f"recipe {recipe.name} was trained with other settings than its {CONFIG} says")
    made_from = manifest["made_from"]["inputs"]
    for stage in ("cohort", "embeddings"):
        if made_from.get(stage) != outputs_digest(run / STAGES[stage]):
            raise _unfinished(run, f"recipe {recipe.name} was trained before its {stage} stage was made again")


def load_recipe(home: Home, name: str):
    """Returns a trained recipe of the run.

    Raises:
        InputError: a part is missing or broken, or was written by a version whose parts are others.
    """
    from biascxr.mitigation import TrainedRecipe

    try:
        return TrainedRecipe.load(home.recipe_folder(name))
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise _not_loadable(home.folder, name, error) from error


def _unfinished(run: Path, what: str) -> InputError:
    return InputError(f"--run {run} is not finished: {what}. Finish it first: python main.py --config {run / CONFIG}")


def _not_loadable(run: Path, name: str, error: Exception) -> InputError:
    versions = run / "versions.json"
    made_by = json.loads(versions.read_text(encoding="utf-8")).get("biascxr", "?") if versions.is_file() else "?"
    return InputError(
        f"Recipe {name} of {run} cannot be loaded (trained by biascxr {made_by}, this is {biascxr.__version__}): "
        f"{type(error).__name__}: {error}. Train it again: python main.py --config {run / CONFIG}"
    )
