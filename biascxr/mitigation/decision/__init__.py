"""Decision slot: how a score becomes a probability and a yes or no. Any number of calibrators, then one rule."""

from biascxr.mitigation.decision.base import Calibrator, DecisionMember, DecisionRule

CALIBRATORS: dict[str, str] = {}

RULES = {
    "fixed_fpr": "biascxr.mitigation.decision.fixed_fpr:FixedFpr",
    "group_fixed_fpr": "biascxr.mitigation.decision.fixed_fpr:GroupFixedFpr",
    "threshold_0.5": "biascxr.mitigation.decision.half:Half",
    "youden": "biascxr.mitigation.decision.youden:Youden",
    "group_youden": "biascxr.mitigation.decision.youden:GroupYouden",
}

DECISION = CALIBRATORS | RULES

__all__ = ["CALIBRATORS", "DECISION", "RULES", "Calibrator", "DecisionMember", "DecisionRule"]
