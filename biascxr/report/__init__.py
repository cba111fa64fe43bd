"""Report stage: plots, tables, `report.html`, `model_card.md`; and the pages of anybody's predictions and vectors."""

from biascxr.report.audit_page import build_audit_report, write_audit
from biascxr.report.inputs import ReportInputs
from biascxr.report.leakage_page import build_leakage_page, write_leakage
from biascxr.report.page import build_report

__all__ = ["ReportInputs", "build_audit_report", "build_leakage_page", "build_report", "write_audit", "write_leakage"]
