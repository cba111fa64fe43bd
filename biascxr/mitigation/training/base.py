"""Training slot: how the head learns. Exactly one member in a recipe."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.errors import InputError, unknown_name
from biascxr.mitigation.base import Member, SplitData
from biascxr.mitigation.cells import COMMON, Cells, chosen_attributes
from biascxr.mitigation.training.demographics import CODINGS, DemographicInputs, demographic_notes
from biascxr.mitigation.vector_table import VectorTable

MIN_VALIDATION_ROWS = 10


@dataclass(frozen=True)
class Head:
    """A trained head.

    Attributes:
        model: the Keras model, vectors `[n, d]` (and demographics) -> probabilities `[n, L]`.
        history: one row per epoch: losses and validation AUROC.
        demographics: the attributes it takes as inputs, if any.
        notes: what the method did, in words, for the report.
    """

    model: object
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    demographics: DemographicInputs | None = None
    notes: tuple[str, ...] = ()

    def predict(self, vectors: np.ndarray | VectorTable, attributes: pd.DataFrame | None = None) -> np.ndarray:
        """Returns probabilities.

        Args:
            vectors: `[n, d]`.
            attributes: `[n]` rows; needed by a head that takes demographics.

        Returns:
            `[n, L] float32`.

        Raises:
            ValueError: a head that takes demographics was given none.
        """
        from biascxr.models import Rows, predict_rows

        if self.demographics is not None and attributes is None:
            raise ValueError("This head takes demographics as inputs: hand the attributes over with the vectors.")
        n = len(vectors)
        encoded = None if self.demographics is None else self.demographics.encode(attributes)
        nothing = np.zeros((n, 1), np.float32)
        rows = Rows(VectorTable.of(vectors), nothing, nothing[:, 0], np.full(n, -1, np.int32), encoded)
        return np.asarray(predict_rows(self.model, rows), np.float32)

    def save(self, folder: Path) -> None:
        """Writes `head.keras`, `head.weights.h5` and `history.csv`."""
        self.model.save(folder / "head.keras")
        self.model.save_weights(folder / "head.weights.h5")
        self.history.to_csv(folder / "history.csv", index=False)

    @classmethod
    def load(cls, folder: Path, demographics: DemographicInputs | None = None) -> Head:
        """Reads what `save` wrote, in Keras's safe mode."""
        import keras

        import biascxr.models  # noqa: F401  registers the layers that a head may hold

        model = keras.models.load_model(folder / "head.keras", compile=False, safe_mode=True)
        return cls(model, pd.read_csv(folder / "history.csv"), demographics)


@dataclass(frozen=True)
class TrainingTask:
    """What a head is fitted on.

    Attributes:
        train: sampled and transformed training rows.
        weights: `[n] float32`, one per training row.
        validation: transformed validation rows.
        calibration: transformed calibration rows, for a method that uses them; None for others.
        seed: seed of initial weights, dropout and order.
        log_dir: folder of the TensorBoard scalars; None for none.
    """

    train: SplitData
    weights: np.ndarray
    validation: SplitData
    calibration: SplitData | None
    seed: int
    log_dir: Path | None


class TrainingMethod(Member):
    """Fits a head on training rows, with validation rows for early stopping.

    Attributes:
        uses_calibration: whether it also learns from calibration rows. It is then given those of one half of the calibration
            patients, and thresholds are fitted on the other half.
    """

    uses_calibration: ClassVar[bool] = False

    def fit(
        self,
        train: SplitData,
        weights: np.ndarray,
        validation: SplitData,
        *,
        seed: int,
        calibration: SplitData | None = None,
        log_dir: Path | None = None,
    ) -> Head:
        """Fits a head.

        Args:
            train: sampled and transformed training rows.
            weights: `[n] float32`, one per row.
            validation: transformed validation rows.
            seed: seed of initial weights, dropout and order.
            calibration: transformed calibration rows, for a method that uses them.
            log_dir: folder of the TensorBoard scalars; none if not given.

        Raises:
            ValueError: handed the test split, weights of another length, or no calibration rows where they are used.
        """
        parts = [train, validation, *([calibration] if calibration is not None else [])]
        for part in parts:
            part.refuse_test(self.name)
        if weights.shape != (len(train),):
            raise ValueError(f"{self.name} needs one weight per training row; got {weights.shape} for {len(train)} rows.")
        if self.uses_calibration and calibration is None:
            raise ValueError(f"{self.name} learns from calibration rows too; it was given none.")
        used = calibration if self.uses_calibration else None
        return self._fit(TrainingTask(train, weights, validation, used, seed, log_dir))

    @abstractmethod
    def _fit(self, task: TrainingTask) -> Head:
        """The method's own training."""


@dataclass(frozen=True)
class NetworkSettings:
    """The network, and how long it learns.

    Attributes:
        hidden: units of the hidden layers.
        dropout: share of units dropped after each hidden layer.
        learning_rate: of Adam.
        batch_size: rows a step; BiasCXR's is 16.
        max_epochs: at most so many passes; BiasCXR's is 1.
        patience: stop after so many epochs without a lower validation loss, and go back to the best.
        weight_decay: decoupled weight decay (AdamW); 0 for none.
        demographics: attributes that the head takes as inputs, as in BiasCXR; none by default, and those the cohort lacks are
            left out. Its predictions then depend on what was recorded about the patient; an unknown value has a defined
            answer (all its columns are 0).
        coding: of demographics as numbers: `one_hot`, a column for each group, or `binary`, one for each attribute, which then
            must have two groups.
        attributes: whose groups (of their crossing) the method acts on; empty: race where the cohort has it, else its first
            attribute. Methods that act on no groups use them for early stopping only.
        criterion: what early stopping looks at on the validation split: `loss` sees no groups, `worst_group_loss` does.
    """

    hidden: tuple[int, ...] = (512, 256)
    dropout: float = 0.3
    learning_rate: float = 1e-3
    batch_size: int = 512
    max_epochs: int = 200
    patience: int = 15
    weight_decay: float = 0.0
    demographics: tuple[str, ...] = ()
    coding: str = "one_hot"
    attributes: tuple[str, ...] = ()
    criterion: str = "loss"

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_epochs", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must lie in [0, 1); got {self.dropout}.")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate must be above 0; got {self.learning_rate}.")
        if not all(type(units) is int and units > 0 for units in self.hidden):
            raise InputError(f"hidden must be whole numbers of units above 0; got {self.hidden}.")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay must be at least 0; got {self.weight_decay}.")
        if self.criterion not in ("loss", "worst_group_loss"):
            raise InputError(f"criterion must be loss or worst_group_loss; got {self.criterion!r}.")
        if self.coding not in CODINGS:
            raise unknown_name("coding of demographics", self.coding, CODINGS)


class NetworkMethod(TrainingMethod):
    """A method that trains the multi-layer perceptron. A member overrides the hooks it differs in; `erm` overrides none."""

    Settings: ClassVar[type] = NetworkSettings

    def _fit(self, task: TrainingTask) -> Head:
        import keras

        keras.utils.set_random_seed(task.seed)
        demographics, cells = self._demographics(task.train), self._cells(task.train)
        head = self._build_head(task.train, cells, demographics)
        history = self._train(self._trainer(head, task.train, task.weights, cells), task, cells, demographics)
        return Head(head, history, demographics, (*demographic_notes(demographics), *self._notes(cells)))

    def _train(self, trainer: object, task: TrainingTask, cells: Cells, demographics: DemographicInputs | None) -> pd.DataFrame:
        """Trains in place and returns the history."""
        from biascxr.models import fit_head

        return fit_head(
            trainer,
            self._rows(task.train, task.weights, cells, demographics),
            self._validation_rows(task.validation, cells, demographics),
            label_names=task.train.label_names,
            settings=self._fit_settings(),
            seed=task.seed,
            criterion=self._criterion(trainer),
            first_epoch=self._first_epoch(trainer),
            alter=self._alter(cells),
            callbacks=self._callbacks(trainer),
            log_dir=task.log_dir,
        )

    def _fit_settings(self) -> object:
        """How long and how fast, as `biascxr.models.FitSettings`."""
        from biascxr.models import FitSettings

        chosen = {f.name: getattr(self.settings, f.name, f.default) for f in fields(FitSettings)}
        return FitSettings(**chosen)

    def _rows(self, part: SplitData, weights: np.ndarray, cells: Cells, demographics: DemographicInputs | None) -> object:
        from biascxr.models import Rows

        encoded = None if demographics is None else demographics.encode(part.attributes)
        groups = cells.codes(part.attributes).astype(np.int32)
        return Rows(part.vectors, part.labels, np.asarray(weights, np.float32), groups, encoded)

    def _validation_rows(self, validation: SplitData, cells: Cells, demographics: DemographicInputs | None) -> object:
        """The rows that early stopping looks at; a method may tell it of other groups than its own."""
        rows = self._rows(validation, np.ones(len(validation), np.float32), cells, demographics)
        return judged_rows(rows, by_label=False, min_rows=MIN_VALIDATION_ROWS)

    def _demographics(self, train: SplitData) -> DemographicInputs | None:
        wanted = self.settings.demographics
        odd = [name for name in wanted if name not in train.attributes and name not in COMMON]
        if odd:
            known = list(train.attributes)
            raise InputError(f"{self.name}.demographics: {odd[0]!r} is not an attribute of this cohort: {known}.")
        names = tuple(name for name in wanted if name in train.attributes)
        return DemographicInputs.of(train.attributes, names, self.settings.coding) if names else None

    def _cells(self, train: SplitData) -> Cells:
        """The groups the method acts on."""
        names = chosen_attributes(self.name, self.settings.attributes, list(train.attributes))
        return Cells.of(train.attributes, names)

    def _build_head(self, train: SplitData, cells: Cells, demographics: DemographicInputs | None) -> object:
        """The head that is saved: vectors (and demographics) -> probabilities."""
        from biascxr.models import build_mlp

        return build_mlp(
            train.vectors.shape[1],
            train.labels.shape[1],
            hidden=self.settings.hidden,
            dropout=self.settings.dropout,
            n_demographics=0 if demographics is None else demographics.n_columns,
        )

    def _trainer(self, head: object, train: SplitData, weights: np.ndarray, cells: Cells) -> object:
        """What the method minimises: a `HeadTrainer` around the head."""
        from biascxr.models import HeadTrainer

        return HeadTrainer(head)

    def _criterion(self, trainer: object) -> object:
        """What early stopping looks at: a key of `biascxr.models.CRITERIA`, or a function as those are."""
        return self.settings.criterion

    def _first_epoch(self, trainer: object) -> int:
        """The first epoch, from 0, that early stopping may choose."""
        return 0

    def _alter(self, cells: Cells) -> Callable | None:
        """What changes a batch as it is made, `(batch, rng) -> batch`, where a method mixes rows; None where it does not."""
        return None

    def _callbacks(self, trainer: object) -> tuple:
        """What is done between epochs: Keras callbacks."""
        return ()

    def _notes(self, cells: Cells) -> tuple[str, ...]:
        """What the method did, in words, for the report."""
        return ()


def judged_rows(rows: object, *, by_label: bool, min_rows: int) -> object:
    """Tells early stopping which validation rows belong together.

    A group or cell of fewer than `min_rows` is as unknown: one row would decide which epoch is the best.

    Args:
        rows: `biascxr.models.Rows`, with groups `[n]`.
        by_label: group x label value, each finding its own, in place of groups.
        min_rows: the fewest rows that are looked at.

    Returns:
        The rows, with groups `[n]`, or cells `[n, L]`, which index losses `[n, L]`.
    """
    from biascxr.models.group_dro import label_cells

    codes = rows.groups
    if by_label:
        codes = label_cells(rows.labels, codes)
        codes = np.where(codes >= 0, codes * codes.shape[1] + np.arange(codes.shape[1]), -1)
    found, counts = np.unique(codes, return_counts=True)
    is_enough = np.isin(codes, found[counts >= min_rows])
    return replace(rows, groups=np.where(is_enough, codes, -1).astype(np.int32))
