"""Training slot: how the head learns."""

from biascxr.mitigation.training.base import Head, NetworkMethod, TrainingMethod
from biascxr.mitigation.training.demographics import DemographicInputs

TRAINING = {
    "erm": "biascxr.mitigation.training.erm:Erm",
    "linear": "biascxr.mitigation.training.linear:Linear",
    "focal": "biascxr.mitigation.training.focal:Focal",
    "mixup": "biascxr.mitigation.training.mixup:Mixup",
    "group_dro": "biascxr.mitigation.training.group_dro:GroupDro",
    "jtt": "biascxr.mitigation.training.jtt:Jtt",
    "dfr": "biascxr.mitigation.training.dfr:Dfr",
    "dann": "biascxr.mitigation.training.dann:Dann",
    "cdann": "biascxr.mitigation.training.cdann:Cdann",
    "domain_independent": "biascxr.mitigation.training.domain_independent:DomainIndependent",
    "label_noise": "biascxr.mitigation.training.label_noise:LabelNoise",
    "refusion": "biascxr.mitigation.training.refusion:RefusionMethod",
    "causal_noise": "biascxr.mitigation.training.causal_noise:CausalNoiseMethod",
    "two_step": "biascxr.mitigation.training.two_step:TwoStep",
}

__all__ = ["TRAINING", "DemographicInputs", "Head", "NetworkMethod", "TrainingMethod"]
