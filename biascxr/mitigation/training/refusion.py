"""`refusion`: FairREAD's training; features learn to hide the attributes, which are then put back in on purpose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.errors import InputError, unknown_name
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.training.base import Head, NetworkMethod, TrainingTask
from biascxr.mitigation.training.demographics import DemographicInputs, demographic_notes
from biascxr.mitigation.training.feature_maps import MapSettings

STAGES = ("both", "disentangle", "refuse")
ENCODERS = ("simple", "deep")


@dataclass(frozen=True)
class RefusionSettings(MapSettings):
    """Settings of `refusion`, beside the network's; dropout, rate and batches are the paper's.

    Its ten epochs at most (patience 3) are not: there a trained DenseNet goes on learning, here each stage's layers begin anew.
    On the demo's 1,373 training films (`biascxr sweep --demo`) ten epochs gave an AUROC of .71 over five seeds, and until it
    stops by itself .87 over two, where `erm` has .89.

    `demographics` are what the sensitive model and the adversary read, and what is re-fused. `coding=binary` is the paper's,
    for attributes of two groups. `attributes` are looked at by early stopping only. A setting of a stage that `stages` leaves
    out changes nothing.

    Attributes:
        projection: stage 1, as are the next six: length of z, the normalised representation of the sensitive and of the target
            model.
        energy: share of the sensitive representation's squared singular values that its space holds, in (0, 1].
        moving: the space follows the training batches (an eigen-decomposition each step) instead of being that of all rows.
        column_weight: of the penalty on what z shows within the sensitive space.
        row_weight: of the penalty on what z and the sensitive z have in common over the rows of a batch.
        margin: what either penalty lets pass.
        conditional: penalties within each value of each label; else over all rows.
        alpha: what the trunk unlearns of the adversary's gradient, in either stage; 0 for no adversary. The paper has 0.1 for
            cardiomegaly, 0 elsewhere.
        units: stage 2, as are the next five: length of mean and std that the attributes give.
        blocks: of the cascade that they rescale.
        encoder: of the attributes: `simple` (one layer) or `deep` (three).
        normalise: pooled features have norm 1 before mean and std come in.
        reduction: by what a bottleneck divides the channels.
        freeze: the trunk stays as stage 1 left it; there is then no adversary in stage 2.
        stages: `both`; `disentangle` for stage 1 only, whose classifier takes no attributes; `refuse` for stage 2 on the trunk
            of a network that was trained by plain cross-entropy.
    """

    dropout: float = 0.1
    learning_rate: float = 1e-4
    batch_size: int = 64
    max_epochs: int = 100
    patience: int = 10
    demographics: tuple[str, ...] = ("race", "sex", "age_group")
    projection: int = 128
    energy: float = 0.99
    moving: bool = False
    column_weight: float = 1.0
    row_weight: float = 1.0
    margin: float = 0.0
    conditional: bool = True
    alpha: float = 0.1
    units: int = 256
    blocks: int = 2
    encoder: str = "simple"
    normalise: bool = False
    reduction: int = 8
    freeze: bool = False
    stages: str = "both"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("projection", "units", "blocks", "reduction"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("column_weight", "row_weight", "margin", "alpha"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must be at least 0; got {getattr(self, name)}.")
        if not 0 < self.energy <= 1:
            raise InputError(f"energy must lie in (0, 1]; got {self.energy}.")
        if self.encoder not in ENCODERS:
            raise unknown_name("encoder of refusion", self.encoder, ENCODERS)
        if self.stages not in STAGES:
            raise unknown_name("stages of refusion", self.stages, STAGES)
        if not self.hidden:
            raise InputError("hidden must have a layer: the stages share it, and an adversary acts on it; got none.")


class RefusionMethod(NetworkMethod):
    """FairREAD: features are kept out of the space of the recorded attributes, and the attributes rescale them afterwards.

    Stage 0, the sensitive model, predicts the attributes; its z_A, of norm 1, spans the sensitive space U. Stage 1 minimises
    `BCE + column_weight ||z U||^2 / n + row_weight ||z^T z_A||^2 / k^2 + BCE(attributes, adversary)`, the adversary's gradient
    reaching the trunk times `-alpha`. z is a linear probe of the trunk: the penalties constrain what z shows. Stage 2 goes on
    from the trunk, not from z: `Refusion` turns the attributes to a mean and a std that rescale its channels, under `BCE +
    BCE(attributes, adversary)`; the adversary reads the trunk *before* attributes enter. An unknown attribute is left out of
    what is read, and enters as zeros (`binary`: 0.5). Where no validation row has a known one, stage 0 stops by its training
    loss. An attribute with fewer than two known groups is left out; with none left it is `erm`.

    Follows Gao, Hao and Zhou, FairREAD, arXiv 2412.16373, and for stage 1 Deng et al., IPMI 2023. Differs: the adversary
    learns to read (`DisentanglingTrainer` says what the published code does); one head for all findings; a trunk of Dense
    layers on frozen vectors or maps; one sensitive basis for all label values (`OrthogonalProjection`); early stopping sees
    the cross-entropy alone; thresholds are another slot's, and are not fitted on training rows.

    When it helps: groups differ in presentation or prevalence, and one wants that difference used openly, in one place, where
    it can be switched off (`attribute_flips` counts what it decides). When it harms: predictions depend on what was recorded,
    so that a wrong record harms, and its use needs review; a finding that lies in the sensitive space is partly lost in stage
    1; few rows of a group give a noisy scale. Low penalties are no proof that attributes are gone (`OrthogonalProjection`); the
    leakage stage tells.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    prevalence (-1.75), presentation (-1.05), annotation (-1.02) and selection (-3.47); unclear under acquisition; costs 0.013
    of its loss where there is no bias.
    """

    name: ClassVar[str] = "refusion"
    Settings: ClassVar[type] = RefusionSettings

    def _fit(self, task: TrainingTask) -> Head:
        import keras

        keras.utils.set_random_seed(task.seed)
        self.settings.check_length(self.name, task.train.vectors.shape[1])
        demographics, cells = self._demographics(task.train), self._cells(task.train)
        if demographics is None:
            return super()._fit(task)
        head, trunk, history = self._first(task, cells, demographics)
        if self.settings.stages == "disentangle":
            return Head(head, history, None, self._stage_notes(demographics))
        head, last = self._refused(task, cells, demographics, trunk)
        notes = (*demographic_notes(demographics), *self._stage_notes(demographics))
        return Head(head, pd.concat([history, last], ignore_index=True), demographics, notes)

    def _demographics(self, train: SplitData) -> DemographicInputs | None:
        """Those with two known groups or more: there is nothing to read, to hide or to re-fuse in another."""
        found = super()._demographics(train)
        groups = {} if found is None else {name: own for name, own in found.groups.items() if len(own) > 1}
        return replace(found, groups=groups) if groups else None

    def _build_head(self, train: SplitData, cells: Cells, demographics: DemographicInputs | None) -> object:
        """The plain head, for where there is nothing to disentangle."""
        from biascxr.models.disentangle import build_plain

        return build_plain(self._trunk(train), train.labels.shape[1])

    def _notes(self, cells: Cells) -> tuple[str, ...]:
        wanted = ", ".join(self.settings.demographics) or "none"
        return (f"no attribute with two known groups among its demographics ({wanted}): trained as erm",)

    def _stage_notes(self, demographics: DemographicInputs) -> tuple[str, ...]:
        chosen, names = self.settings, ", ".join(demographics.groups)
        adversary = f", adversary alpha {chosen.alpha:g}" if chosen.alpha else ""
        first = f"stage 1: z penalised for what a sensitive model reads of {names}{adversary}"
        if not self._has_penalty:
            first = f"stage 1: no penalty on z{adversary}"
        if chosen.stages == "refuse":
            first = "stage 1: trunk by plain cross-entropy"
        if chosen.stages == "disentangle":
            return (first, "no stage 2: the head takes no attributes")
        return first, f"stage 2: {names} re-fused" + (", trunk frozen" if chosen.freeze else adversary)

    @property
    def _has_penalty(self) -> bool:
        """Whether stage 1 needs to know the sensitive space."""
        return self.settings.column_weight > 0 or self.settings.row_weight > 0

    def _trunk(self, train: SplitData) -> object:
        from biascxr.models.disentangle import build_trunk

        chosen = self.settings
        return build_trunk(train.vectors.shape[1], hidden=chosen.hidden, dropout=chosen.dropout, feature_map=chosen.feature_map)

    def _stage(self, name: str, trainer: object, task: TrainingTask, cells: Cells, demographics: object) -> pd.DataFrame:
        """Trains one stage; its epochs say so in a column of their own."""
        history = self._train(trainer, task, cells, demographics)
        history.insert(0, "stage", name)
        return history

    def _first(self, task: TrainingTask, cells: Cells, demographics: DemographicInputs) -> tuple:
        """Returns the head of stage 1, its trunk, and the history of stages 0 and 1."""
        from biascxr.models.disentangle import DisentanglingTrainer, build_plain, build_projected

        chosen, terms, history, name = self.settings, {}, [], "plain"
        trunk, n_labels = self._trunk(task.train), task.train.labels.shape[1]
        if chosen.stages == "refuse":
            head = build_plain(trunk, n_labels)
        else:
            name = "disentangle"
            head = build_projected(trunk, n_labels, projection=chosen.projection)
            terms["adversary"] = self._adversary(demographics)
        if chosen.stages != "refuse" and self._has_penalty:
            terms["sensitive"], terms["projection"], epochs = self._sensitive(task, cells, demographics)
            history.append(epochs)
        own = task if chosen.stages == "disentangle" else within(task, name)
        history.append(self._stage(name, DisentanglingTrainer(head, trunk, **terms), own, cells, demographics))
        return head, trunk, pd.concat(history, ignore_index=True)

    def _sensitive(self, task: TrainingTask, cells: Cells, demographics: DemographicInputs) -> tuple:
        """Returns stage 0: the model vectors -> z_A, what knows its space, and the history."""
        from biascxr.models import HeadTrainer, OrthogonalProjection, features_of, predict_rows
        from biascxr.models.disentangle import build_projected

        chosen = self.settings
        train, validation = (labelled_by_attributes(part, demographics) for part in (task.train, task.validation))
        if np.isnan(validation.labels).all():  # nothing to judge its epochs by but what it learns from
            validation = train
        about_attributes = replace(within(task, "sensitive"), train=train, validation=validation)
        head = build_projected(self._trunk(task.train), demographics.n_columns, projection=chosen.projection)
        history = self._stage("sensitive", HeadTrainer(head), about_attributes, cells, None)
        sensitive = features_of(head)
        names = ("energy", "column_weight", "row_weight", "margin", "conditional", "moving")
        projection = OrthogonalProjection(**{name: getattr(chosen, name) for name in names})
        if chosen.moving:
            projection.build((None, chosen.projection))
        else:
            projection.adapt(predict_rows(sensitive, self._rows(task.train, task.weights, cells, None)))
        return sensitive, projection, history

    def _adversary(self, demographics: DemographicInputs) -> object | None:
        from biascxr.models.disentangle import AttributeAdversary

        chosen = self.settings
        return AttributeAdversary(widths_of(demographics), chosen.alpha, chosen.reduction) if chosen.alpha else None

    def _refused(self, task: TrainingTask, cells: Cells, demographics: DemographicInputs, trunk: object) -> tuple:
        """Returns stage 2: head and history."""
        from biascxr.models import Refusion
        from biascxr.models.disentangle import DisentanglingTrainer, build_refused

        chosen = self.settings
        names = ("units", "blocks", "dropout", "reduction", "encoder", "normalise")
        refusion = Refusion(**{name: getattr(chosen, name) for name in names}, name="refusion")
        trunk.trainable = not chosen.freeze
        head = build_refused(trunk, demographics.n_columns, task.train.labels.shape[1], refusion=refusion)
        adversary = None if chosen.freeze else self._adversary(demographics)
        trainer = DisentanglingTrainer(head, trunk, adversary=adversary)
        return head, self._stage("refuse", trainer, task, cells, demographics)


def widths_of(demographics: DemographicInputs) -> tuple[int, ...]:
    """Returns how many columns each attribute has."""
    return tuple(len(own) if demographics.coding == "one_hot" else 1 for own in demographics.groups.values())


def column_names(demographics: DemographicInputs) -> tuple[str, ...]:
    """Returns `race=A, race=B, ...`, or where an attribute is one column, `sex=M`, the group that is 1."""
    first = 0 if demographics.coding == "one_hot" else 1
    return tuple(f"{name}={group}" for name, own in demographics.groups.items() for group in own[first:])


def labelled_by_attributes(part: SplitData, demographics: DemographicInputs) -> SplitData:
    """Returns the rows with the attribute columns in place of findings; unknown is masked."""
    import keras

    from biascxr.models.disentangle import attribute_targets

    targets = attribute_targets(demographics.encode(part.attributes), widths_of(demographics))
    labels = np.array(keras.ops.convert_to_numpy(targets), np.float32)
    return replace(part, labels=labels, label_names=column_names(demographics))


def within(task: TrainingTask, stage: str) -> TrainingTask:
    """Returns the task with TensorBoard's scalars in a sub-folder of the last stage's."""
    return replace(task, log_dir=None if task.log_dir is None else Path(task.log_dir) / stage)
