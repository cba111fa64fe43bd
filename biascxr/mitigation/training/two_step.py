"""`two_step`: features that make a group softmax err, pressed harder in every third epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError, unknown_name
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.training.base import NetworkMethod
from biascxr.mitigation.training.demographics import DemographicInputs
from biascxr.mitigation.training.feature_maps import MapSettings

GROUP_HEADS = ("reciprocal", "adversary")


@dataclass(frozen=True)
class TwoStepSettings(MapSettings):
    """Settings of `two_step`, beside those of a network on vectors or maps.

    The published code has a DenseNet121 where this has `hidden` layers on frozen vectors, so `hidden` is this project's;
    dropout, batch_size, max_epochs and both learning rates (Adam's default) are the published ones.

    Attributes:
        dropout: share of units dropped after each hidden layer.
        learning_rate: of Adam in the finding phase.
        batch_size: rows a step.
        max_epochs: at most so many passes, those of both phases counted.
        group_learning_rate: of Adam in the group phase.
        finding_phase_weight: what 1 / CE(group) is multiplied by beside the findings' loss.
        group_phase_weight: what 1 / CE(group) is multiplied by where it stands alone. Adam takes the scale of a gradient out,
            so this changes next to nothing; `group_learning_rate` says how far the phase goes.
        group_phase_every: one epoch in so many is a group phase; 3: the third, the sixth, ...
        group_head: what the group head itself minimises: `reciprocal`, as published, the same 1 / CE(group) as the trunk;
            `adversary`, CE(group), against the trunk.
    """

    dropout: float = 0.5
    learning_rate: float = 1e-3
    batch_size: int = 32
    max_epochs: int = 10
    group_learning_rate: float = 1e-5
    finding_phase_weight: float = 10.0
    group_phase_weight: float = 1000.0
    group_phase_every: int = 3
    group_head: str = "reciprocal"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden:
            raise InputError("hidden must have a layer: the group head reads the features of the last one; got none.")
        if not self.group_learning_rate > 0:
            raise InputError(f"group_learning_rate must be above 0; got {self.group_learning_rate}.")
        for name in ("finding_phase_weight", "group_phase_weight"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must be at least 0; got {getattr(self, name)}.")
        if self.group_phase_every < 2:
            raise InputError(
                f"group_phase_every must be at least 2, or no epoch is left for the findings; got {self.group_phase_every}."
            )
        if self.group_head not in GROUP_HEADS:
            raise unknown_name("group_head", self.group_head, GROUP_HEADS)


class TwoStep(NetworkMethod):
    """Two-step optimisation: findings and group are told from one trunk, which learns to make the group's cross-entropy large.

    The finding phase minimises `BCE(y, h(x)) + 10 / CE(g, a(f(x)))`. The group phase, every third epoch, minimises `1000 / CE`
    of the same at a hundredth of the learning rate. f is the trunk, the head h up to its last layer, and a a softmax over the
    groups. Both phases move all the weights that their loss reaches, each with an Adam state of its own. The groups are the
    cells of `attributes`; rows of unknown group learn their findings and are left out of CE. On feature maps the trunk's layers
    act at each place, and the mean over places is what both heads read. With fewer than two groups it is `erm`.

    Follows the notebook of MIMIC Racial Fairness (Ryan Wang; no paper): both losses, weights, rates, batches, every third
    epoch, a trunk that ends in dropout of one half. Differs: the trunk is `hidden` layers on a frozen encoder's vectors; CE is
    the mean over the rows of known group, where theirs codes unknown as a group; below 0.001 the reciprocal goes on as its
    tangent, so that it stays finite; masked labels are left out; and the epoch of the lowest validation loss is kept, by the
    same criterion as of every method and whichever phase it was, where theirs keeps the last. That criterion does not see
    what the group head reads.

    Its flaw: the group head minimises `1 / CE` too (`group_head="reciprocal"`, the default, as published), so the cheapest way
    to a large cross-entropy is a head that names the wrong group. It says that with confidence while a fresh probe reads the
    group from the features as before: a large CE is no sign that they hide it. And the gradient, `-1 / CE^2` times that of CE,
    is tiny once CE is large, so the trunk is then left in peace, and huge where CE is near 0.

    `group_head="adversary"` lets the head minimise CE, on features that receive no gradient from it, and the trunk `1 / CE`,
    through a head that is held still: `dann` with the reciprocal in place of a reversed gradient, and an adversary of one
    layer. CE then moves about log K, the price of guessing, as one or the other is ahead. A head of one layer is soon led
    astray: where a group is plain in the vector, a fresh probe reads it after either. On TensorFlow with several threads two
    trainings of `adversary` from one seed were seen to differ (7 of 30, mostly in the last digits); with one thread, as in a
    sweep, none of 20 did.

    When it helps: as `dann`, where the group adds something to the vector that a finding leans on, and with
    `group_head="adversary"` rather. When it harms: as published it may change nothing but the group head; where prevalence
    differs between groups, hiding the group costs accuracy by necessity (see `dann`); and a third of few epochs teaches no
    finding. The leakage stage's fresh probes, not `group_loss` in the history, say what is still readable.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    acquisition (+0.37); harms under prevalence (-0.76), annotation (-0.23) and selection (-0.67); no effect under presentation;
    costs 0.011 of its loss where there is no bias.
    """

    name: ClassVar[str] = "two_step"
    Settings: ClassVar[type] = TwoStepSettings

    def _build_head(self, train: SplitData, cells: Cells, demographics: DemographicInputs | None) -> object:
        from biascxr.models.two_step import build_place_mlp

        chosen, n_features = self.settings, train.vectors.shape[1]
        chosen.check_length(self.name, n_features)
        if not chosen.feature_map:
            return super()._build_head(train, cells, demographics)
        return build_place_mlp(
            n_features,
            train.labels.shape[1],
            hidden=chosen.hidden,
            dropout=chosen.dropout,
            feature_map=chosen.feature_map,
            n_demographics=0 if demographics is None else demographics.n_columns,
        )

    def _trainer(self, head: object, train: SplitData, weights: np.ndarray, cells: Cells) -> object:
        from biascxr.models.two_step import TwoStepTrainer

        if len(cells) < 2:
            return super()._trainer(head, train, weights, cells)
        return TwoStepTrainer(
            head,
            n_groups=len(cells),
            finding_phase_weight=self.settings.finding_phase_weight,
            group_phase_weight=self.settings.group_phase_weight,
            group_head=self.settings.group_head,
        )

    def _callbacks(self, trainer: object) -> tuple:
        from biascxr.models.two_step import Phases, TwoStepTrainer

        if not isinstance(trainer, TwoStepTrainer):
            return ()
        chosen = self.settings
        return (
            Phases(
                trainer,
                every=chosen.group_phase_every,
                learning_rate=chosen.learning_rate,
                group_learning_rate=chosen.group_learning_rate,
            ),
        )

    def _notes(self, cells: Cells) -> tuple[str, ...]:
        if len(cells) < 2:
            return ("fewer than two groups are known: trained as erm",)
        chosen = self.settings
        aim = "1 / its cross-entropy, as the trunk" if chosen.group_head == "reciprocal" else "its cross-entropy"
        return (
            f"group head on {cells.title} ({len(cells)} groups) minimises {aim}; one epoch in {chosen.group_phase_every} is a "
            "group phase; rows of unknown group are left out of it",
        )
