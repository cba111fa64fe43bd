"""Keras 3 layers, losses, the classifier head and how it is trained. Only `keras.ops`, so every backend runs it."""

from biascxr.models.fit import ValidationAuroc, fit_model
from biascxr.models.losses import MaskedBinaryCrossentropy
from biascxr.models.mlp import build_mlp

__all__ = ["MaskedBinaryCrossentropy", "ValidationAuroc", "build_mlp", "fit_model"]
