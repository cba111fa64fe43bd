"""Mitigation stage: remedies in four slots, joined into recipes."""

from biascxr.mitigation.base import Member, SplitData, resolve, split_data
from biascxr.mitigation.recipes import BASELINE, DEFAULTS, PRESETS, SLOTS, Recipe, parse_recipes
from biascxr.mitigation.run import balance_table, run_recipe, train_recipe
from biascxr.mitigation.trained import TrainedRecipe
from biascxr.mitigation.vector_table import VectorTable

__all__ = [
    "BASELINE",
    "DEFAULTS",
    "PRESETS",
    "SLOTS",
    "Member",
    "Recipe",
    "SplitData",
    "TrainedRecipe",
    "VectorTable",
    "balance_table",
    "parse_recipes",
    "resolve",
    "run_recipe",
    "split_data",
    "train_recipe",
]
