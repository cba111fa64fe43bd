"""What every question about dependence is asked of: the scores, labels and recorded groups of rows that no fit has seen."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from biascxr.containers import Attribute
from biascxr.errors import InputError
from biascxr.leakage.result import COLUMNS
from biascxr.mitigation.base import SplitData


@dataclass(frozen=True)
class ScoredRows:
    """The rows that a head is judged on.

    Attributes:
        scores: `[n, L]`, probabilities.
        labels: `[n, L]` in {0, 1, NaN}.
        codes: `[n] int64`, number of the row's group in `attribute.groups`; -1 where it is not known.
        patient_id: `[n]`.
        label_names: the L findings.
        attribute: the attribute in question.
        covariates: what else to hold fixed, `name -> [n] int64` codes; -1, not known, is a cell of its own.
    """

    scores: np.ndarray
    labels: np.ndarray
    codes: np.ndarray
    patient_id: np.ndarray
    label_names: tuple[str, ...]
    attribute: Attribute
    covariates: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.codes), len(self.label_names))
        for name in ("scores", "labels"):
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"{name} must have one row per code and one column per finding, {shape}; got {getattr(self, name).shape}."
                )
        for name, values in {"patient_id": self.patient_id, **self.covariates}.items():
            if len(values) != shape[0]:
                raise InputError(f"{name} must have one value per row, {shape[0]}; got {len(values)}.")
        known = self.labels[~np.isnan(self.labels)]
        if not np.isin(known, (0, 1)).all():
            raise InputError("labels must be 0, 1 or NaN (not known); map uncertain labels to one of them first.")
        if np.isnan(self.scores).any():
            raise InputError("scores must hold no NaN: a missing score has no rank. Leave these rows out.")
        if self.codes.min(initial=-1) < -1 or self.codes.max(initial=-1) >= len(self.attribute.groups):
            raise InputError(
                f"codes must lie in -1 (not known) to {len(self.attribute.groups) - 1}, groups of {self.attribute.name}; got "
                f"{self.codes.min()} to {self.codes.max()}."
            )

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: np.ndarray) -> ScoredRows:
        """Returns these rows: row numbers, or a mask `[n] bool`."""
        return ScoredRows(
            self.scores[rows], self.labels[rows], self.codes[rows], self.patient_id[rows], self.label_names, self.attribute,
            {name: values[rows] for name, values in self.covariates.items()},
        )  # fmt: skip

    def of_constant_group(self) -> ScoredRows:
        """Returns the rows of known group, each patient's with the group of that patient's first such row.

        A patient can be permuted only as a whole. Where the group changes between images (age group), the images of the
        later groups are left out.
        """
        known = self.take(self.codes >= 0)
        _, first, patient = np.unique(known.patient_id.astype(str), return_index=True, return_inverse=True)
        return known.take(known.codes == known.codes[first][patient])


def part_codes(part: SplitData, attribute: Attribute) -> np.ndarray:
    """Returns the number of each row's group in `attribute.groups`, `[n] int64`; -1 where it is not known."""
    return pd.Categorical(part.attributes[attribute.name].to_numpy(object), attribute.groups).codes.astype(np.int64)


def dependence_table(rows: list[dict]) -> pd.DataFrame:
    """Makes `dependence.csv`'s table; what a row does not say is NaN, or empty where it is text."""
    text = dict.fromkeys(("recipe", "attribute", "evidence", "measure", "label", "group"), "")
    numbers = dict.fromkeys(COLUMNS["dependence"][len(text) :], np.nan)
    return pd.DataFrame([text | numbers | row for row in rows], columns=list(COLUMNS["dependence"]))
