"""Decision slot: how a score becomes a probability and a yes or no. Any number of calibrators, then one rule."""

from biascxr.mitigation.decision.base import Calibrator, DecisionMember, DecisionRule

CALIBRATORS = {
    "platt": "biascxr.mitigation.decision.platt:Platt",
    "group_platt": "biascxr.mitigation.decision.platt:GroupPlatt",
    "isotonic": "biascxr.mitigation.decision.isotonic:Isotonic",
    "group_isotonic": "biascxr.mitigation.decision.isotonic:GroupIsotonic",
    "temperature": "biascxr.mitigation.decision.temperature:Temperature",
    "group_temperature": "biascxr.mitigation.decision.temperature:GroupTemperature",
}

RULES = {
    "fixed_fpr": "biascxr.mitigation.decision.fixed_fpr:FixedFpr",
    "group_fixed_fpr": "biascxr.mitigation.decision.fixed_fpr:GroupFixedFpr",
    "threshold_0.5": "biascxr.mitigation.decision.half:Half",
    "youden": "biascxr.mitigation.decision.youden:Youden",
    "group_youden": "biascxr.mitigation.decision.youden:GroupYouden",
    "gmean": "biascxr.mitigation.decision.gmean:GMean",
    "group_gmean": "biascxr.mitigation.decision.gmean:GroupGMean",
    "min_gap": "biascxr.mitigation.decision.min_gap:MinGap",
    "group_min_gap": "biascxr.mitigation.decision.min_gap:GroupMinGap",
    "f1": "biascxr.mitigation.decision.f1:F1",
    "group_f1": "biascxr.mitigation.decision.f1:GroupF1",
    "equalized_odds": "biascxr.mitigation.decision.equalized_odds:EqualizedOdds",
    "demographic_parity": "biascxr.mitigation.decision.demographic_parity:DemographicParity",
}

DECISION = CALIBRATORS | RULES

__all__ = ["CALIBRATORS", "DECISION", "RULES", "Calibrator", "DecisionMember", "DecisionRule"]
