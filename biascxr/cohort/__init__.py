"""Cohort stage: a data set on disk -> `Cohort`, with every row accounted for."""

from biascxr.cohort.build import LAYOUTS, build_cohort, find_layout, load_layout, recount
from biascxr.cohort.labels import relabel
from biascxr.cohort.shift import group_shift
from biascxr.cohort.table_one import table_one
from biascxr.cohort.tables import read_table

__all__ = [
    "LAYOUTS",
    "build_cohort",
    "find_layout",
    "group_shift",
    "load_layout",
    "read_table",
    "recount",
    "relabel",
    "table_one",
]
