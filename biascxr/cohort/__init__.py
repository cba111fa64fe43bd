"""Cohort stage: a table of X-rays -> `Cohort`, with every row accounted for."""

from biascxr.cohort.build import LAYOUTS, build_cohort, find_layout, read_table

__all__ = ["LAYOUTS", "build_cohort", "find_layout", "read_table"]
