"""`mixup`: the head learns on the line between two rows, and is asked for the line between their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.training.base import NetworkMethod, NetworkSettings


@dataclass(frozen=True)
class MixupSettings(NetworkSettings):
    """Settings of `mixup`, beside the network's.

    Attributes:
        alpha: of the Beta(alpha, alpha) that shares are drawn from; small: nearly one row alone, 1: any share alike. The
            paper uses 0.1 to 0.4 on ImageNet, 1 on CIFAR.
        within: `all`: any two rows; `group`: two rows of one group, and rows of unknown group stay as they are. Neither is
            "fair mixup" (Chuang and Mroueh, ICLR 2021), which penalises how the prediction changes between two groups.
    """

    alpha: float = 0.2
    within: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0:
            raise InputError(f"alpha must be above 0; got {self.alpha}.")
        if self.within not in ("all", "group"):
            raise InputError(f"within must be all or group; got {self.within!r}.")


class Mixup(NetworkMethod):
    """Rows of a batch are drawn towards partners: `x = s x_i + (1 - s) x_j`, `y = s y_i + (1 - s) y_j`, s ~ Beta(alpha, alpha).

    Follows Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. Differs: a share for every row, not one for a
    batch (as in their code); and weighted rows, which the paper has none of: the partner is drawn from the batch with a chance
    in proportion to its weight and the pair has the weight of row i, so that what is expected is the same as if a row of weight
    2 stood there twice. A label that is masked in either row is masked; demographic inputs are mixed as vectors are.

    When it helps: few rows and a large network; scores become less sure of themselves between the classes. When it harms:
    nothing in it knows of groups; a vector between two patients need not be a vector of any patient, and soft labels make
    probabilities too modest, more so for large alpha.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    acquisition (+0.11); no effect under prevalence, presentation, annotation and selection.
    """

    name: ClassVar[str] = "mixup"
    Settings: ClassVar[type] = MixupSettings

    def _alter(self, cells: Cells) -> Callable | None:
        return self._mix if self.settings.within == "all" or len(cells) else None

    def _mix(self, batch: tuple, rng: np.random.Generator) -> tuple:
        """Mixes the rows of a batch `(x, y, weights)`."""
        x, y, weights = batch
        groups = x["group"] if self.settings.within == "group" else np.zeros(len(y), np.int32)
        partners = draw_partners(weights, groups, rng)
        if (partners == np.arange(len(y))).all():
            return batch
        shares = rng.beta(self.settings.alpha, self.settings.alpha, len(y)).astype(np.float32)
        shares[partners == np.arange(len(y))] = 1

        def mixed(values: np.ndarray) -> np.ndarray:
            share = shares.reshape(-1, 1)
            return share * values + (1 - share) * values[partners]

        inputs = {name: mixed(values) for name, values in x.items() if name != "group"}
        return x | inputs, mixed(y), weights

    def _notes(self, cells: Cells) -> tuple[str, ...]:
        if self.settings.within == "all":
            return ()
        if not len(cells):
            return ("no group is known: no row was mixed, which is erm",)
        return (f"mixed within groups of {cells.title}; rows of unknown group stayed as they are",)


def draw_partners(weights: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws a partner from its own group for every row, with a chance in proportion to the partner's weight.

    Args:
        weights: `[b]`, at least 0.
        groups: `[b]`; a row of group -1 is its own partner, as is one whose group has no weight in the batch.
        rng: where chance comes from.

    Returns:
        `[b] int64`, rows of the batch.
    """
    partners = np.arange(len(groups))
    for group in np.unique(groups[groups >= 0]):
        own = np.flatnonzero(groups == group)
        total = weights[own].sum(dtype=np.float64)
        if total > 0:
            partners[own] = rng.choice(own, len(own), p=weights[own].astype(np.float64) / total)
    return partners
