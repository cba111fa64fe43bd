"""`erm`: empirical risk minimisation, the plain case that every remedy is compared with."""

from __future__ import annotations

from typing import ClassVar

from biascxr.mitigation.training.base import NetworkMethod


class Erm(NetworkMethod):
    """BiasCXR's network: d -> 512 ReLU -> dropout -> 256 ReLU -> dropout -> L sigmoid, binary cross-entropy, Adam.

    Differs from BiasCXR: early stopping instead of one epoch, masked labels leave the loss, no demographics as inputs
    unless they are asked for.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): With
    demographics=[race]: harms under prevalence (-1.28), presentation (-0.42), annotation (-1.01), acquisition (-0.38) and
    selection (-2.41). With criterion=worst_group_loss: no effect under prevalence, annotation and selection; unclear under
    presentation and acquisition.
    """

    name: ClassVar[str] = "erm"
