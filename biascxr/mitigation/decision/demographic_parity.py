"""`demographic_parity`: as many flagged in every group, by thresholds mixed at random."""

from __future__ import annotations

from typing import ClassVar

from biascxr.mitigation.decision.threshold_optimizer import ThresholdOptimizerRule


class DemographicParity(ThresholdOptimizerRule):
    """Demographic parity by fairlearn's ThresholdOptimizer: on the fitting rows, in expectation, one selection rate.

    Per group, the mixture of two thresholds that gives the common selection rate; the rate is the best by `objective`,
    averaged over groups by their size. The mixture is Hardt, Price and Srebro's (NeurIPS 2016), the criterion Dwork et al.'s
    (ITCS 2012).

    When it helps: groups have a finding equally often and it is overlooked in the labels of one of them. When it harms:
    prevalence really differs: then a perfect classifier violates it, and meeting it means missed findings in the one group or
    false alarms in the other (Hardt et al. 2016, section 1).

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    annotation (+0.40); harms under presentation (-0.50) and selection (-0.66); unclear under prevalence and acquisition.
    """

    name: ClassVar[str] = "demographic_parity"
    constraints: ClassVar[str] = "demographic_parity"
