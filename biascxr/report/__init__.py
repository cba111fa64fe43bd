"""Report stage: plots, tables, `report.html`, `model_card.md`."""

from biascxr.report.inputs import ReportInputs
from biascxr.report.page import build_report

__all__ = ["ReportInputs", "build_report"]
