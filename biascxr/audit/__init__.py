"""Audit stage: how unfair are these predictions, and is a recipe fairer than `erm`? No TensorFlow here."""

from biascxr.audit.build import AuditResult, audit, choose_attributes
from biascxr.audit.cells import ALL, MACRO, METRICS, OVERALL
from biascxr.audit.compare import GAP

__all__ = ["ALL", "GAP", "MACRO", "METRICS", "OVERALL", "AuditResult", "audit", "choose_attributes"]
