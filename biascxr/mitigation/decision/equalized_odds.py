"""`equalized_odds`: TPR and FPR equal over groups, by thresholds mixed at random."""

from __future__ import annotations

from typing import ClassVar

from biascxr.mitigation.decision.threshold_optimizer import ThresholdOptimizerRule


class EqualizedOdds(ThresholdOptimizerRule):
    """Equalized odds by fairlearn's ThresholdOptimizer: on the fitting rows, in expectation, all groups share (FPR, TPR).

    The point is the best, by `objective`, under the lowest of the groups' ROC curves (their convex hulls); a group with a
    better curve reaches it by throwing decisions away at random (`p_ignore`). Hardt, Price and Srebro (NeurIPS 2016, 4.2).

    When it helps: errors differ between groups, and the labels can be trusted in all of them. When it harms: it levels down by
    construction: a group with a better curve is made as bad as the worst; a small group's curve is noise that binds everyone;
    it is randomised, so of two patients with the same score one is flagged; and it needs the group at prediction.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    annotation (+0.25); harms under prevalence (-0.96), presentation (-1.51), acquisition (-1.37) and selection (-1.79); costs
    0.021 of its loss where there is no bias.
    """

    name: ClassVar[str] = "equalized_odds"
    constraints: ClassVar[str] = "equalized_odds"
