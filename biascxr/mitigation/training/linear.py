"""`linear`: penalised logistic regression on the vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.training.base import NetworkMethod, NetworkSettings
from biascxr.mitigation.training.demographics import DemographicInputs


@dataclass(frozen=True)
class LinearSettings:
    """The penalty, and how long it learns. There are no hidden layers to set.

    Attributes:
        l2: strength of the L2 penalty; the minimum is that of scikit-learn's `LogisticRegression(C=1 / (l2 x n))` on n rows.
            The default is the one of its `SGDClassifier`.
        learning_rate: see `NetworkSettings`, as for all that follow.
        batch_size: rows a step.
        max_epochs: at most so many passes.
        patience: stop after so many epochs without a lower validation loss.
        demographics: attributes as inputs.
        coding: of demographics.
        attributes: whose groups early stopping looks at, if it does.
        criterion: `loss` or `worst_group_loss`.
    """

    l2: float = 1e-4
    learning_rate: float = 1e-3
    batch_size: int = 512
    max_epochs: int = 200
    patience: int = 15
    demographics: tuple[str, ...] = ()
    coding: str = "one_hot"
    attributes: tuple[str, ...] = ()
    criterion: str = "loss"

    # What the network has and a logistic regression has not: constants, not settings.
    hidden: ClassVar[tuple[int, ...]] = ()
    dropout: ClassVar[float] = 0.0
    weight_decay: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if not self.l2 >= 0:
            raise InputError(f"l2 must be at least 0; got {self.l2}.")
        NetworkSettings.__post_init__(self)


class Linear(NetworkMethod):
    """Logistic regression with an L2 penalty, one line for each finding.

    The minimum over w, b of `1 / W x sum_i weight_i x (binary cross-entropy of label i under sigmoid(w x_i + b)) +
    l2 / 2 x ||w||²`, W the sum of the weights, masked labels left out of the sum. It starts from zero and stops early on
    validation, so with few passes it is nearer to zero than the minimum. Vectors are taken as they are: where their columns
    differ much in scale, `standardize` before it makes the penalty fall alike on all and the descent fast.

    When it helps: few rows for the length of the vector, where a network's extra freedom is fitted to noise; its coefficients
    can be read. When it harms: a finding that no one line separates is underfitted, and the line goes where most rows are, so
    that the smaller group pays first. It acts on no group and removes no shortcut; unknown groups play no part.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    presentation (+0.51), annotation (+0.20), acquisition (+0.61) and selection (+0.59); unclear under prevalence.
    """

    name: ClassVar[str] = "linear"
    Settings: ClassVar[type] = LinearSettings

    def _build_head(self, train: SplitData, cells: Cells, demographics: DemographicInputs | None) -> object:
        head = super()._build_head(train, cells, demographics)
        head.set_weights([np.zeros_like(w) for w in head.get_weights()])  # convex: nothing is gained by a random start
        return head

    def _trainer(self, head: object, train: SplitData, weights: np.ndarray, cells: Cells) -> object:
        from biascxr.models.batches import Deal
        from biascxr.models.linear import PenalisedTrainer

        # A step's loss is a sum over the batch divided by its size, and a smaller batch is filled up with a row of weight 0:
        # the penalty is scaled so that over a pass it stands to the sum of the losses as in the formula.
        deal = Deal.of(len(train), self.settings.batch_size)
        seen = deal.n_steps * deal.batch_size
        return PenalisedTrainer(head, l2=self.settings.l2 * float(weights.sum(dtype=np.float64)) / seen)
