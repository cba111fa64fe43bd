"""Leakage stage: can a probe read recorded race, sex or age group from the vectors?"""

from biascxr.leakage.build import MACRO, PROBES, find_probe, measure_leakage

__all__ = ["MACRO", "PROBES", "find_probe", "measure_leakage"]
