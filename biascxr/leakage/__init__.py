"""Leakage stage: can recorded race, sex or age group be read from the vectors, and do predictions depend on it?"""

from __future__ import annotations

import importlib

from biascxr.errors import unknown_name
from biascxr.leakage.base import Probe, ProbeRows, Reading

PROBES = {
    "knn": "biascxr.leakage.knn:Knn",
    "logistic": "biascxr.leakage.logistic:Logistic",
    "linear_svm": "biascxr.leakage.linear_svm:LinearSvm",
    "perceptron": "biascxr.leakage.perceptron:Perceptron",
}
MACRO = "macro"
VECTORS = "vectors"


def find_probe(name: str) -> Probe:
    """Returns the probe of that name. Raises InputError for an unknown one, naming the nearest."""
    if name not in PROBES:
        raise unknown_name("probe", name, PROBES)
    module, member = PROBES[name].split(":")
    return getattr(importlib.import_module(module), member)()


__all__ = ["MACRO", "PROBES", "VECTORS", "Probe", "ProbeRows", "Reading", "find_probe"]
