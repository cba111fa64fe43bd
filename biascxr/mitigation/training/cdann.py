"""`cdann`: the head's features learn to hide the group from an adversary that knows the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.training.dann import Dann, DannSettings, adversary_notes


@dataclass(frozen=True)
class CdannSettings(DannSettings):
    """Settings of `cdann`, beside those of `dann`.

    Attributes:
        balance: whether all groups weigh the same in the adversary's loss among the rows of one label value.
    """

    balance: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.adversary_hidden:
            raise InputError("adversary_hidden must have a layer: without one the adversary cannot look within a label.")


class Cdann(Dann):
    """Conditional domain-adversarial training: no adversary shall read more of the group than the labels say.

    `dann` with an adversary `a(f(x), y)`. For the best adversary its cross-entropy is `H(G | F, Y)`, largest where the
    features are independent of the group *given the labels* (`F` indep. `G | Y`); what goes through the labels stays. All L
    labels are given at once, and not one adversary for each label: where another finding's prevalence differs between
    groups, independence given one label alone would erase that finding, and even `F = Y` would break it; given all labels
    `F = Y` keeps it. A masked label is handed over as 0 with an indicator. Independence given `Y` is equalized odds for every
    decision on F (Madras et al., Learning adversarially fair and transferable representations, ICML 2018).

    `balance`: a row of group g counts `mean_l 1 / (K P(g | y_l))` in the adversary's loss, over its known labels, at most 10.
    For one label all groups then weigh the same within positives and within negatives, and the adversary gains nothing from
    group sizes; for several it is the mean over labels, as joint label patterns are too many to count. Weights of group
    and labels alone leave `P(F | G, Y)`, and so the goal, as it is; they decide how much small groups are heard.

    Groups, unknown ones, schedule and early stopping are as in `dann`; with fewer than two groups it is `erm`.

    Follows Li et al., Deep domain generalization via conditional invariant adversarial networks, ECCV 2018, whose loss takes
    the mean within each class and domain. Differs: one adversary that is given the label, not one for each class, as with 14
    findings there are 2^14 patterns; without their second, class prior-normalised adversary on the features alone. One
    gradient step for both players (the reversal of Ganin et al., JMLR 2016).

    When it helps, when it harms: as `dann`, but a difference in prevalence need not be hidden. It conditions on the
    *recorded* label: where labels are wrong in one group, it hides the wrong thing. Where the features are mostly label,
    nothing is left to hide.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.54), presentation (+0.17), annotation (+0.40), acquisition (+0.79) and selection (+0.64).
    """

    name: ClassVar[str] = "cdann"
    Settings: ClassVar[type] = CdannSettings

    def _trainer(self, head: object, train: SplitData, weights: object, cells: Cells) -> object:
        from biascxr.models.adversary import ConditionalAdversarialTrainer, balance_table

        if len(cells) < 2:
            return super()._trainer(head, train, weights, cells)
        table = None
        if self.settings.balance:
            table = balance_table(cells.codes(train.attributes), train.labels, weights, len(cells))
        return ConditionalAdversarialTrainer(head, self._adversary(train, cells), table)

    def _notes(self, cells: Cells) -> tuple[str, ...]:
        return adversary_notes(cells, "adversary that is given the labels")
