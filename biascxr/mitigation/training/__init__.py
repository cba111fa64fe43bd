"""Training slot: how the head learns."""

from biascxr.mitigation.training.base import Head, TrainingMethod

TRAINING = {"erm": "biascxr.mitigation.training.erm:Erm"}

__all__ = ["TRAINING", "Head", "TrainingMethod"]
