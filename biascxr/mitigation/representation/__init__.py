"""Representation slot: what a vector looks like."""

from biascxr.mitigation.representation.base import Representation

REPRESENTATION = {
    "correlation_remover": "biascxr.mitigation.representation.correlation_remover:CorrelationRemover",
    "inlp": "biascxr.mitigation.representation.inlp:Inlp",
    "leace": "biascxr.mitigation.representation.leace:Leace",
    "none": "biascxr.mitigation.representation.none:NoRepresentation",
    "pca": "biascxr.mitigation.representation.pca:Pca",
    "standardize": "biascxr.mitigation.representation.standardize:Standardize",
}

__all__ = ["REPRESENTATION", "Representation"]
