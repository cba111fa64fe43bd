"""Sampling slot: which training rows count, and how often."""

from biascxr.mitigation.sampling.base import Sample, Sampler, sample_in_order

SAMPLING = {
    "none": "biascxr.mitigation.sampling.none:NoSampling",
    "median_balance": "biascxr.mitigation.sampling.median_balance:MedianBalance",
    "cluster_downsample": "biascxr.mitigation.sampling.cluster_downsample:ClusterDownsample",
}

__all__ = ["SAMPLING", "Sample", "Sampler", "sample_in_order"]
