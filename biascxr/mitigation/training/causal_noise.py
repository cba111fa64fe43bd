"""`causal_noise`: concepts as blocks joined by a learned graph; those of attributes are blurred while it learns."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN
from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells, chosen_attributes
from biascxr.mitigation.training.base import NetworkMethod
from biascxr.mitigation.training.demographics import DemographicInputs
from biascxr.mitigation.training.feature_maps import MapSettings

PUBLISHED = ("sex", "race", "age_group")
ORDINAL = "age_group"


@dataclass(frozen=True)
class CausalNoiseSettings(MapSettings):
    """Settings of `causal_noise`; the defaults are the published ones. There is no network before the blocks to set.

    Attributes:
        learning_rate: of Adam.
        batch_size: rows a step.
        max_epochs: at most so many passes.
        patience: epochs without a lower validation loss before it stops.
        weight_decay: decoupled weight decay.
        clip_norm: all gradients together are scaled down to this norm; 0 for never.
        attributes: recorded attributes that get blocks; empty: those of sex, race and age_group that the cohort has. Under
            `criterion=worst_group_loss` early stopping looks at their crossing.
        finding_units: dims of a finding's block.
        attribute_units: dims of a block of a group (one block for an attribute of two groups, else one for each group).
        age_units: dims of the block of age_group, a number from 0 (youngest) to 1.
        mask_units: hidden units of the network that rebuilds a block from its causes.
        head_hidden: units of the hidden layers of the classifier on all blocks; the published code leaves it open. With none
            the copies are no more than one copy of less noise.
        copies: noisy copies of a row in training.
        finding_weight: of the findings' loss; terms of attributes weigh 1.
        use_graph: whether blocks are joined by the graph; without it take `supervise=false` too.
        use_noise: whether the attributes' blocks are blurred in training.
        supervise: whether recorded attributes and labels are sent through the graph and asked to come back.
        acyclicity: whether cycles of the graph cost; it makes a step several times as slow.
    """

    learning_rate: float = 1e-4
    batch_size: int = 32
    max_epochs: int = 25
    patience: int = 3
    weight_decay: float = 1e-5
    clip_norm: float = 5.0
    finding_units: int = 30
    attribute_units: int = 9
    age_units: int = 8
    mask_units: int = 128
    head_hidden: tuple[int, ...] = (128,)
    copies: int = 10
    finding_weight: float = 1.2
    use_graph: bool = True
    use_noise: bool = True
    supervise: bool = True
    acyclicity: bool = False

    # What the network has and this head has not: constants, not settings.
    hidden: ClassVar[tuple[int, ...]] = ()
    dropout: ClassVar[float] = 0.0
    demographics: ClassVar[tuple[str, ...]] = ()
    coding: ClassVar[str] = "one_hot"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("finding_units", "attribute_units", "age_units", "mask_units", "copies"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if not all(type(units) is int and units > 0 for units in self.head_hidden):
            raise InputError(f"head_hidden must be whole numbers of units above 0; got {self.head_hidden}.")
        if not self.finding_weight > 0:
            raise InputError(f"finding_weight must be above 0; got {self.finding_weight}.")
        if not self.clip_norm >= 0:
            raise InputError(f"clip_norm must be at least 0; got {self.clip_norm}.")
        if not self.use_graph and (self.supervise or self.acyclicity):
            raise InputError("use_graph=false leaves no graph to supervise or to keep from cycles: set supervise=false too.")


@dataclass(frozen=True)
class Concepts:
    """Recorded attributes as the values of concepts.

    Attributes:
        groups: per attribute its groups, at least two: attributes in the order of the blocks, age_group, if there, last and in
            the order of its lower edges.
    """

    groups: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, table: pd.DataFrame, names: tuple[str, ...]) -> Concepts:
        """Finds the groups of these attributes in a table; an attribute of fewer than two is none."""
        found = {name: set(table[name].astype(str)) - {UNKNOWN} for name in sorted(names, key=lambda name: name == ORDINAL)}
        return cls({n: tuple(sorted(g, key=_lower_edge if n == ORDINAL else None)) for n, g in found.items() if len(g) > 1})

    @property
    def attribute_blocks(self) -> tuple[int, ...]:
        """Number of blocks of each attribute without an order."""
        return tuple(1 if len(own) == 2 else len(own) for name, own in self.groups.items() if name != ORDINAL)

    @property
    def n_ordinals(self) -> int:
        """1 with age_group, else 0."""
        return int(ORDINAL in self.groups)

    def encode(self, table: pd.DataFrame) -> np.ndarray:
        """Returns `[n, concepts] float32`, NaN where unknown, not in the table, or a group that training did not have.

        Two groups are 0 and 1 in one column, more have a column of 0 and 1 each, age groups are `rank / (number - 1)`.
        """
        columns = []
        for name, own in self.groups.items():
            texts = table[name].astype(str) if name in table else np.full(len(table), UNKNOWN)
            codes = pd.Index(own).get_indexer(texts).astype(np.float32)[:, None]
            values = codes / (len(own) - 1) if len(own) == 2 or name == ORDINAL else codes == np.arange(len(own))
            columns.append(np.where(codes < 0, np.float32(np.nan), values))
        return np.concatenate(columns, axis=1, dtype=np.float32) if columns else np.zeros((len(table), 0), np.float32)


def _lower_edge(group: str) -> tuple[float, str]:
    """Orders `"0-20", "20-40", ..., "100+"`; a name without a number stands behind them."""
    found = re.search(r"\d+(\.\d+)?", group)
    return (float(found[0]) if found else np.inf), group


class CausalNoiseMethod(NetworkMethod):
    """The causal module of Causal Fairness on the vector: blocks of concepts, a graph between them, noise on attributes.

    `biascxr.models.CausalNoise` has the equations: a linear map makes a block for each finding and attribute; `z = e (I -
    A)^-1`; `z' = f(z A) + e`; in training ten copies of z' with noise on the attributes' blocks are classified and their logits
    averaged. The loss is `1.2 BCE(findings) + BCE(sex) + BCE(race) + L1(age)`, the last three on recorded attributes and labels
    sent through the same graph (`CausalNoise.supervision_loss`). Prediction takes the vector alone, and there is no noise.

    A value that is not recorded enters the graph as 0 and is not asked for. An attribute of fewer than two known groups gets
    no block; with none left, the head is the plain form of the layer (linear blocks and classifier; no graph, no noise),
    trained as `erm` trains its network.

    Follows "Improving Fairness in Medical Imaging Through Causal Learning" (NCBI). Its repository does not define the classes
    of the graph and of the classifier; they are made from the equations here. Differs: it sits on frozen vectors, where theirs
    trains DenseNet201 or a residual VAE with it; any attributes, of any number of groups; no block for "no competing finding";
    masked labels stay masked, where theirs takes uncertain as positive and blank as negative; early stopping on validation
    loss after each epoch, where theirs looks at AUROC every 400 steps; age in the order of its groups, not in years.

    When it helps, when it harms: noise teaches the classifier to lean less on the attributes' blocks, which helps so far as
    what marks the attribute lies in those. But no term of the published loss puts it there: recorded attributes shape A alone,
    and noise does not pass along the graph, so a shortcut may stay in the findings' blocks untouched. Noise grows with the
    *variance*: on vectors of large spread it drowns the attributes' blocks, on small ones it does nothing, so `standardize`
    before it changes what it does. Where A has an eigenvalue near 1, `(I - A)^-1` blows small differences up; `acyclicity` and
    `clip_norm` stand against that. Its map, graph and networks are some 900,000 weights for a vector of 1,024, 14 findings
    and three attributes: with few rows they fit noise.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.29) and selection (+0.43); no effect under presentation and annotation; unclear under acquisition.
    """

    name: ClassVar[str] = "causal_noise"
    Settings: ClassVar[type] = CausalNoiseSettings

    def _concept_names(self, train: SplitData) -> tuple[str, ...]:
        if self.settings.attributes:
            return chosen_attributes(self.name, self.settings.attributes, list(train.attributes))
        return tuple(name for name in PUBLISHED if name in train.attributes)

    def _cells(self, train: SplitData) -> Cells:
        return Cells.of(train.attributes, tuple(Concepts.of(train.attributes, self._concept_names(train)).groups))

    def _build_head(self, train: SplitData, cells: Cells, demographics: DemographicInputs | None) -> object:
        from biascxr.models import CausalNoise
        from biascxr.models.causal_trainer import build_causal_head

        chosen, n_inputs = self.settings, train.vectors.shape[1]
        chosen.check_length(self.name, n_inputs)
        self._concepts = Concepts.of(train.attributes, self._concept_names(train))
        has_groups = bool(self._concepts.groups)
        layer = CausalNoise(
            train.labels.shape[1],
            self._concepts.attribute_blocks,
            n_ordinals=self._concepts.n_ordinals,
            finding_units=chosen.finding_units,
            attribute_units=chosen.attribute_units,
            ordinal_units=chosen.age_units,
            mask_units=chosen.mask_units,
            head_hidden=chosen.head_hidden,
            copies=chosen.copies,
            use_graph=chosen.use_graph and has_groups,
            use_noise=chosen.use_noise and has_groups,
            supervised=chosen.supervise and has_groups,
            name=self.name,
        )
        return build_causal_head(n_inputs, layer, feature_map=chosen.feature_map)

    def _trainer(self, head: object, train: SplitData, weights: np.ndarray, cells: Cells) -> object:
        from biascxr.models.causal_trainer import CausalTrainer

        if not self._concepts.groups:
            return super()._trainer(head, train, weights, cells)
        layer, chosen = head.get_layer(self.name), self.settings
        return CausalTrainer(head, layer, finding_weight=chosen.finding_weight, penalise_cycles=chosen.acyclicity)

    def _rows(self, part: SplitData, weights: np.ndarray, cells: Cells, demographics: DemographicInputs | None) -> object:
        """The rows, with concepts where a head's demographics would be: they reach the trainer's loss, never the head."""
        rows = super()._rows(part, weights, cells, demographics)
        return dataclasses.replace(rows, demographics=self._concepts.encode(part.attributes)) if self._concepts.groups else rows

    def _notes(self, cells: Cells) -> tuple[str, ...]:
        groups = self._concepts.groups
        if not groups:
            return ("no attribute with two known groups: no graph and no noise, trained as erm",)
        said = ", ".join(f"{name} ({len(own)} groups{', in order' if name == ORDINAL else ''})" for name, own in groups.items())
        return (f"blocks for {said}; unknown values are left out of their loss; predictions use the vector alone",)
