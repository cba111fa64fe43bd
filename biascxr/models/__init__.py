"""Keras 3 layers, losses, the classifier head and how it is trained. Only `keras.ops`, so every backend runs it."""

from biascxr.models.batches import Rows
from biascxr.models.causal_noise import CausalNoise
from biascxr.models.fit import CRITERIA, FitSettings, fit_head, predict_rows
from biascxr.models.gradient_reversal import GradientReversal
from biascxr.models.losses import MaskedBinaryCrossentropy, masked_binary_crossentropy
from biascxr.models.mlp import build_mlp, chain_affine, features_of
from biascxr.models.orthogonal import OrthogonalProjection, column_penalty, row_penalty, subspace_basis
from biascxr.models.refusion import Refusion
from biascxr.models.trainer import HeadTrainer

__all__ = [
    "CRITERIA",
    "CausalNoise",
    "FitSettings",
    "GradientReversal",
    "HeadTrainer",
    "MaskedBinaryCrossentropy",
    "OrthogonalProjection",
    "Refusion",
    "Rows",
    "build_mlp",
    "chain_affine",
    "column_penalty",
    "features_of",
    "fit_head",
    "masked_binary_crossentropy",
    "predict_rows",
    "row_penalty",
    "subspace_basis",
]
