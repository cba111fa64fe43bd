"""Mitigation stage: remedies in four slots, joined into recipes."""

from biascxr.mitigation.base import Member, SplitData, resolve, split_data
from biascxr.mitigation.recipes import BASELINE, DEFAULTS, SLOTS, Recipe, parse_recipes
from biascxr.mitigation.run import balance_table, run_recipe

__all__ = [
    "BASELINE",
    "DEFAULTS",
    "SLOTS",
    "Member",
    "Recipe",
    "SplitData",
    "balance_table",
    "parse_recipes",
    "resolve",
    "run_recipe",
    "split_data",
]
