"""Audit stage: how unfair are these predictions, and is a recipe fairer than `erm`? No TensorFlow here.

`audit(predictions)` and `compare(before, after)` take anybody's predictions and return tidy tables.
"""

from biascxr.audit.build import AuditResult, audit, compare, match_rows
from biascxr.audit.cells import MACRO, MICRO
from biascxr.audit.choices import check_audit, choose_attributes
from biascxr.audit.comparisons import EQUALIZED_ODDS, GAP
from biascxr.audit.groups import ALL, OVERALL
from biascxr.audit.methods import MIN_UNITS, MethodComparison, TrainedRun, compare_methods
from biascxr.audit.operating_points import OperatingPoints, fit_thresholds
from biascxr.audit.power_tables import power_from_sizes, power_table
from biascxr.audit.read import PredictionFile, parse_predictions, read_predictions
from biascxr.audit.selection import SELECTION_RULES, regret_elsewhere, selection_table

__all__ = [
    "ALL",
    "EQUALIZED_ODDS",
    "GAP",
    "MACRO",
    "MICRO",
    "MIN_UNITS",
    "OVERALL",
    "SELECTION_RULES",
    "AuditResult",
    "MethodComparison",
    "OperatingPoints",
    "PredictionFile",
    "TrainedRun",
    "audit",
    "check_audit",
    "choose_attributes",
    "compare",
    "compare_methods",
    "fit_thresholds",
    "match_rows",
    "parse_predictions",
    "power_from_sizes",
    "power_table",
    "read_predictions",
    "regret_elsewhere",
    "selection_table",
]
