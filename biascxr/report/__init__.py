"""Report stage: plots, tables, `report.html`, `model_card.md`; and the page of an audit of anybody's predictions."""

from biascxr.report.audit_page import build_audit_report, write_audit
from biascxr.report.inputs import ReportInputs
from biascxr.report.page import build_report

__all__ = ["ReportInputs", "build_audit_report", "build_report", "write_audit"]
