"""Training slot: how the head learns."""

from biascxr.mitigation.training.base import DemographicInputs, Head, NetworkMethod, TrainingMethod

TRAINING = {"erm": "biascxr.mitigation.training.erm:Erm"}

__all__ = ["TRAINING", "DemographicInputs", "Head", "NetworkMethod", "TrainingMethod"]
