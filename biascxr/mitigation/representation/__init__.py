"""Representation slot: what a vector looks like."""

from biascxr.mitigation.representation.base import Representation

REPRESENTATION = {
    "none": "biascxr.mitigation.representation.none:NoRepresentation",
    "standardize": "biascxr.mitigation.representation.standardize:Standardize",
}

__all__ = ["REPRESENTATION", "Representation"]
