"""`group_dro`: the worst group's loss is what is minimised."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.sampling.base import count_of
from biascxr.mitigation.training.base import Head, NetworkMethod, NetworkSettings, TrainingTask, judged_rows
from biascxr.mitigation.training.demographics import DemographicInputs


@dataclass(frozen=True)
class GroupDroSettings(NetworkSettings):
    """Settings of `group_dro`, beside the network's.

    Attributes:
        step_size: how fast the weights of the cells follow their losses; the paper's is 0.01.
        by_label: True: the cells are group x label value, for each finding its own, as the paper's groups are; False: the
            groups alone, with their mean loss over findings.
        adjustment: C of the generalisation adjustment `C / sqrt(n)`, which makes small cells count as worse than they look; 0
            for none. The paper tries 0 to 5.
        min_cell: early stopping looks at the cells that have so many validation rows; where none has, at the mean loss.
        criterion: `worst_group_loss`, the default: the largest mean validation loss of any cell, of any finding where the
            cells are by label; `loss`: the mean over all rows, no groups seen.
    """

    step_size: float = 0.01
    by_label: bool = True
    adjustment: float = 0.0
    min_cell: int = 10
    criterion: str = "worst_group_loss"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.step_size >= 0 or not self.adjustment >= 0:
            raise InputError(f"step_size and adjustment must be at least 0; got {self.step_size} and {self.adjustment}.")
        if self.min_cell < 1:
            raise InputError(f"min_cell must be at least 1; got {self.min_cell}.")


class GroupDro(NetworkMethod):
    """Distributionally robust optimisation over groups: `min over heads, max over cells c of (mean loss of c)`.

    Follows Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020, Algorithm 1: weights `q_c <-
    q_c exp(step_size x loss_c)`, normalised, and a gradient step on `sum_c q_c loss_c`; see `GroupDroTrainer`. Differs: with
    many findings each has cells and weights of its own and the loss is the mean over findings, so that one hopeless finding
    does not take all the weight; cells that a batch lacks keep their weight; batches are not balanced over the groups as
    theirs are (put `label_group_balance` before it for that); Adam with dropout and early stopping stand for their strong L2
    penalty, without which, they show, a network that fits every row gains nothing.

    Rows of unknown group are left out of the loss; without any known group it is `erm`, and says so.

    When it helps: a shortcut that agrees with the label in most rows and is wrong in the cells that are named to it. When it
    harms: average performance falls where the worst cell is simply hard (its labels are noisy: Oren et al., EMNLP 2019), all
    weight on a few rows is a noisy gradient, and the even weight of positives and negatives moves probabilities off the
    prevalence: calibrate them.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    annotation (+0.56) and acquisition (+0.59); unclear under prevalence, presentation and selection.
    """

    name: ClassVar[str] = "group_dro"
    Settings: ClassVar[type] = GroupDroSettings

    def _fit(self, task: TrainingTask) -> Head:
        head = super()._fit(task)
        cells = self._cells(task.train)
        if not len(cells):
            return dataclasses.replace(head, notes=(*head.notes, "no group is known: this is erm"))
        what = "group x label value, each finding its own" if self.settings.by_label else "groups, mean over findings"
        n_unknown = int((cells.codes(task.train.attributes) < 0).sum())
        note = f"{len(cells)} groups of {cells.title}; cells: {what}"
        note += f"; {count_of(n_unknown, 'training rows')} of unknown group left out" if n_unknown else ""
        return dataclasses.replace(head, notes=(*head.notes, note))

    def _trainer(self, head: object, train: SplitData, weights: np.ndarray, cells: Cells) -> object:
        from biascxr.models.group_dro import GroupDroTrainer, cell_sizes

        if not len(cells):
            return super()._trainer(head, train, weights, cells)
        chosen, groups = self.settings, cells.codes(train.attributes)
        return GroupDroTrainer(
            head,
            cell_sizes(train.labels, groups, weights, len(cells), is_by_label=chosen.by_label),
            step_size=chosen.step_size,
            adjustment=chosen.adjustment,
            is_by_label=chosen.by_label,
        )

    def _validation_rows(self, validation: SplitData, cells: Cells, demographics: DemographicInputs | None) -> object:
        """Rows whose groups are the method's own cells: `[n, L]` codes where they are by label, which index losses `[n, L]`."""
        rows = self._rows(validation, np.ones(len(validation), np.float32), cells, demographics)
        return judged_rows(rows, by_label=self.settings.by_label, min_rows=self.settings.min_cell)
