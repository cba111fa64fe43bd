"""Decision slot: how a score becomes a yes or no."""

from biascxr.mitigation.decision.base import DecisionRule, Thresholds

DECISION = {
    "fixed_fpr": "biascxr.mitigation.decision.fixed_fpr:FixedFpr",
    "threshold_0.5": "biascxr.mitigation.decision.half:Half",
    "youden": "biascxr.mitigation.decision.youden:Youden",
    "group_youden": "biascxr.mitigation.decision.group_youden:GroupYouden",
}

__all__ = ["DECISION", "DecisionRule", "Thresholds"]
