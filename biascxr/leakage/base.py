"""The contract of a probe: a plain classifier that tries to read an attribute from the vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.metrics import auroc


@dataclass(frozen=True)
class ProbeRows:
    """Rows whose group is known.

    Attributes:
        vectors: `[n, d] float32`, columns standardised by the training rows.
        codes: `[n] int64`, the group of each row, 0 to k - 1.
        patient_id: `[n]`.
    """

    vectors: np.ndarray
    codes: np.ndarray
    patient_id: np.ndarray

    def __post_init__(self) -> None:
        if len({len(self.vectors), len(self.codes), len(self.patient_id)}) != 1:
            raise ValueError(
                "ProbeRows needs a vector, a code and a patient per row; got "
                f"{len(self.vectors)}, {len(self.codes)} and {len(self.patient_id)}."
            )

    def __len__(self) -> int:
        return len(self.codes)

    def with_codes(self, codes: np.ndarray) -> ProbeRows:
        """Returns the same rows with other groups."""
        return ProbeRows(self.vectors, codes, self.patient_id)


@dataclass(frozen=True)
class Reading:
    """What a probe read.

    Attributes:
        scores: per array that was read `[m, k] float64`; the higher, the likelier that group. A column is NaN where no
            training row is of the group.
        setting: the setting that was chosen, a member of the probe's grid.
        validation_auroc: macro AUROC of that setting on the validation rows; NaN without any.
    """

    scores: tuple[np.ndarray, ...]
    setting: float | int | None
    validation_auroc: float


class Probe(ABC):
    """Reads a group from a vector.

    The base class weighs rows where groups are to count alike, tries the settings, and keeps the one with the highest macro
    AUROC on validation rows. A member writes `_scores`.

    Attributes:
        name: key in `biascxr.leakage.PROBES`.
        title: name for people.
        grid: settings to choose from on validation; the first one holds where there are no validation rows.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    grid: ClassVar[tuple[float | int | None, ...]] = (None,)

    def read(
        self,
        train: ProbeRows,
        parts: Sequence[np.ndarray],
        *,
        n_groups: int,
        validation: ProbeRows | None = None,
        grid: Sequence[float | int | None] | None = None,
        is_balanced: bool = False,
        seed: int,
    ) -> Reading:
        """Fits on train, chooses the setting on validation, and scores the parts.

        Args:
            train: rows to learn from, of two groups or more.
            parts: each `[m, d] float32`, standardised as `train.vectors`.
            n_groups: k; some groups may have no training row.
            validation: rows to choose the setting on.
            grid: settings to choose from; default: the probe's own.
            is_balanced: give every group the same total weight in training.
            seed: seed of anything random.

        Raises:
            ValueError: the training rows are of fewer than two groups, or vectors differ in length.
        """
        present, packed = np.unique(train.codes, return_inverse=True)
        if len(present) < 2:
            raise ValueError(f"A probe needs training rows of two groups; got {len(present)}.")
        widths = {train.vectors.shape[1], *(part.shape[1] for part in parts)}
        if len(widths) != 1:
            raise ValueError(f"Vectors to learn from and to read must be of one length; got {sorted(widths)}.")
        weights = np.ones(len(train))
        if is_balanced:
            weights = (len(train) / (len(present) * np.bincount(packed)))[packed]
        if validation is not None:
            own = np.isin(validation.codes, present)
            validation = ProbeRows(
                validation.vectors[own], np.searchsorted(present, validation.codes[own]), validation.patient_id[own]
            )
            if len(np.unique(validation.codes)) < 2:  # nothing to rank: as if there were none
                validation = None
        grid = self.grid if grid is None else grid
        grid = grid if validation is not None else grid[:1]
        wanted = [*parts] if validation is None else [*parts, validation.vectors]
        best: Reading | None = None
        found = self._scores(train.with_codes(packed), weights, wanted, grid, validation=validation, seed=seed)
        for setting, scores in zip(grid, found, strict=True):
            value = float("nan") if validation is None else macro_auroc(validation.codes, scores[-1])
            if best is None or value > best.validation_auroc:
                own = scores if validation is None else scores[:-1]
                best = Reading(tuple(_spread(s, present, n_groups) for s in own), setting, value)
        return best

    def words(self, setting: float | int | None) -> str:
        """Says a setting in words."""
        return "" if setting is None else f"{setting:g}"

    @abstractmethod
    def _scores(
        self,
        train: ProbeRows,
        weights: np.ndarray,
        parts: Sequence[np.ndarray],
        grid: Sequence[float | int | None],
        *,
        validation: ProbeRows | None,
        seed: int,
    ) -> Iterable[list[np.ndarray]]:
        """Fits on train and scores the parts, once per setting, in the order of the grid.

        Args:
            train: every group 0 to k - 1 has a row.
            weights: `[n] float64`, of the training rows, with mean 1.
            parts: each `[m, d] float32`.
            grid: the settings.
            validation: rows that training may stop by.
            seed: seed of anything random.

        Returns:
            Per setting, per part, `[m, k]`: a probability, or another score that is higher for a likelier group.
        """


def macro_auroc(codes: np.ndarray, scores: np.ndarray) -> float:
    """Returns the mean of the one-vs-rest AUROCs over groups that are among the codes `[n]`; scores are `[n, k]`."""
    values = [auroc((codes == g).astype(float), scores[:, g]) for g in np.unique(codes)]
    return float(np.mean(values))


def _spread(scores: np.ndarray, present: np.ndarray, n_groups: int) -> np.ndarray:
    full = np.full((len(scores), n_groups), np.nan)
    full[:, present] = scores
    return full
