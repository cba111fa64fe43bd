"""`erm`: empirical risk minimisation, the plain case that every remedy is compared with."""

from __future__ import annotations

from typing import ClassVar

from biascxr.mitigation.training.base import NetworkMethod


class Erm(NetworkMethod):
    """BiasCXR's network: d -> 512 ReLU -> dropout -> 256 ReLU -> dropout -> L sigmoid, binary cross-entropy, Adam.

    Differs from BiasCXR: early stopping instead of one epoch, masked labels leave the loss, no demographics as inputs
    unless they are asked for.
    """

    name: ClassVar[str] = "erm"
