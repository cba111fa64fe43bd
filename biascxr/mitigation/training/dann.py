"""`dann`: the head's features learn to hide the group from an adversary, whatever the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.training.base import NetworkMethod, NetworkSettings


@dataclass(frozen=True)
class DannSettings(NetworkSettings):
    """Settings of `dann`, beside those of the network.

    Attributes:
        strength: lambda, what the reversed gradient is multiplied by; 0 trains the adversary and leaves the head as `erm`.
        ramp_epochs: epochs over which lambda rises from 0; early stopping chooses among the later ones (the last of all, where
            `max_epochs` ends within the rise). 0: at once.
        adversary_hidden: units of the adversary's hidden layers.
    """

    strength: float = 1.0
    ramp_epochs: int = 10
    adversary_hidden: tuple[int, ...] = (128,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strength >= 0 or self.ramp_epochs < 0:
            raise InputError(f"strength and ramp_epochs must be at least 0; got {self.strength} and {self.ramp_epochs}.")
        if not all(type(units) is int and units > 0 for units in self.adversary_hidden):
            raise InputError(f"adversary_hidden must be whole numbers of units above 0; got {self.adversary_hidden}.")
        if not self.hidden:
            raise InputError("hidden must have a layer: an adversary acts on the features of the last one; got none.")


class Dann(NetworkMethod):
    """Domain-adversarial training: no adversary shall read the group from the features that the last layer sees.

    `min_h min_a BCE(y, h(x)) + CE(g, a(f(x)))`, where f, the head up to its last layer, receives the gradient of the second
    term times `-lambda`, `lambda = strength (2 / (1 + exp(-10 p)) - 1)`, p the share of `ramp_epochs` that has passed. For
    the best adversary the second term is `H(G | F)`, so f is pushed towards features independent of the group.

    The domains are the groups of `attributes`, several attributes being crossed: one softmax over all cells (`race x sex`),
    since features may hide race and sex each and show the cell. A row with an unknown attribute is of no cell: it is left
    out of the adversary's loss and learns its labels as every row. With fewer than two groups it is `erm`.

    Follows Ganin et al., Domain-adversarial training of neural networks, JMLR 2016 (equations 8 and 9, the layer of section
    4.2, the schedule of section 5.2.2). Differs: every domain is labelled; the features are those of a head on frozen
    vectors; Adam instead of SGD with a falling rate; p runs over `ramp_epochs`, not the whole training, whose length early
    stopping decides; epochs within the rise are not chosen, as early stopping would prefer them for hiding nothing.

    When it helps, when it harms: it hides what the group adds to the vector (a scanner, a marker), also where that is a
    shortcut. Where prevalence differs between groups, independence costs accuracy by necessity: two groups' errors sum to at
    least the difference of their prevalences when decisions are independent of the group (Zhao and Gordon, Inherent tradeoffs
    in learning fair representations, NeurIPS 2019); `cdann` does not ask for that. Wrong labels stay wrong. An adversary
    that fails to read the group proves little: another may (the leakage stage trains fresh ones).

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.65), presentation (+0.17), annotation (+0.53), acquisition (+0.79) and selection (+0.70).
    """

    name: ClassVar[str] = "dann"
    Settings: ClassVar[type] = DannSettings

    def _trainer(self, head: object, train: SplitData, weights: object, cells: Cells) -> object:
        from biascxr.models.adversary import AdversarialTrainer

        if len(cells) < 2:
            return super()._trainer(head, train, weights, cells)
        return AdversarialTrainer(head, self._adversary(train, cells))

    def _adversary(self, train: SplitData, cells: Cells) -> object:
        from biascxr.models.adversary import AdversarySettings
        from biascxr.models.batches import Deal

        chosen = self.settings
        return AdversarySettings(
            n_groups=len(cells),
            hidden=chosen.adversary_hidden,
            strength=chosen.strength,
            ramp_epochs=chosen.ramp_epochs,
            steps_per_epoch=Deal.of(len(train), chosen.batch_size).n_steps,
        )

    def _first_epoch(self, trainer: object) -> int:
        from biascxr.models.adversary import AdversarialTrainer

        return self.settings.ramp_epochs if isinstance(trainer, AdversarialTrainer) else 0

    def _notes(self, cells: Cells) -> tuple[str, ...]:
        return adversary_notes(cells)


def adversary_notes(cells: Cells, adversary: str = "adversary") -> tuple[str, ...]:
    """Says whose groups an adversary reads, or that there are none to read."""
    if len(cells) < 2:
        return ("fewer than two groups are known: trained as erm",)
    return (f"{adversary} on {cells.title} ({len(cells)} groups); rows of unknown group are left out of its loss",)
