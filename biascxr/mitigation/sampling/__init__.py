"""Sampling slot: which training rows count, and how often."""

from biascxr.mitigation.sampling.base import Sample, Sampler, sample_in_order

SAMPLING = {
    "none": "biascxr.mitigation.sampling.none:NoSampling",
    "median_balance": "biascxr.mitigation.sampling.median_balance:MedianBalance",
    "cluster_downsample": "biascxr.mitigation.sampling.cluster_downsample:ClusterDownsample",
    "random_under": "biascxr.mitigation.sampling.random_under:RandomUnder",
    "random_over": "biascxr.mitigation.sampling.random_over:RandomOver",
    "cell_interpolation": "biascxr.mitigation.sampling.cell_interpolation:CellInterpolation",
    "sqrt_reweight": "biascxr.mitigation.sampling.sqrt_reweight:SqrtReweight",
    "reweigh": "biascxr.mitigation.sampling.reweigh:Reweigh",
    "label_group_balance": "biascxr.mitigation.sampling.label_group_balance:LabelGroupBalance",
    "controlled_augmentation": "biascxr.mitigation.sampling.controlled_augmentation:ControlledAugmentation",
}

__all__ = ["SAMPLING", "Sample", "Sampler", "sample_in_order"]
