"""What every slot shares: the rows it is fitted on, its settings, and its table of members."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import yaml

from biascxr.containers import UNKNOWN, Cohort, EmbeddingSet
from biascxr.errors import InputError, unknown_name


@dataclass(frozen=True)
class SplitData:
    """The rows of one split, aligned.

    Attributes:
        split: `"train"`, `"validation"`, `"calibration"` or `"test"`.
        vectors: `[n, d] float32`.
        labels: `[n, L] float32` in {0, 1, NaN}.
        attributes: `[n]` rows, one column per attribute; `"unknown"` where not recorded.
        patient_id: `[n]`.
        label_names: the L findings.
        image_id: `[n]`.
    """

    split: str
    vectors: np.ndarray
    labels: np.ndarray
    attributes: pd.DataFrame
    patient_id: np.ndarray
    label_names: tuple[str, ...]
    image_id: np.ndarray

    def __post_init__(self) -> None:
        lengths = {len(self.vectors), len(self.labels), len(self.attributes), len(self.patient_id), len(self.image_id)}
        if len(lengths) != 1:
            raise ValueError(f"SplitData needs parts of one length; got {sorted(lengths)}.")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> SplitData:
        """Returns these rows, in this order; a row may occur several times."""
        return dataclasses.replace(
            self,
            vectors=self.vectors[rows],
            labels=self.labels[rows],
            attributes=self.attributes.iloc[rows].reset_index(drop=True),
            patient_id=self.patient_id[rows],
            image_id=self.image_id[rows],
        )

    def refuse_test(self, what: str) -> None:
        """Raises ValueError when these are test rows: nothing is ever fitted on them."""
        if self.split == "test":
            raise ValueError(f"{what} was handed the test split to fit on; test rows are read once, by the audit.")


def split_data(cohort: Cohort, embeddings: EmbeddingSet, split: str) -> SplitData:
    """Joins the rows of one split with their vectors.

    Args:
        cohort: the rows of `embeddings`, in the same order.
        embeddings: one vector per row.
        split: the split wanted.
    """
    if not np.array_equal(cohort.table["image_id"].to_numpy(object), embeddings.image_id):
        raise ValueError("The cohort's rows and the embeddings' rows are not the same images in the same order.")
    rows = cohort.split_rows(split)
    return SplitData(
        split=split,
        vectors=np.asarray(embeddings.vectors[rows]),
        labels=cohort.labels[rows],
        attributes=cohort.table.iloc[rows][[a.name for a in cohort.attributes]].reset_index(drop=True),
        patient_id=cohort.table["patient_id"].to_numpy(object)[rows],
        label_names=cohort.label_names,
        image_id=embeddings.image_id[rows],
    )


@dataclass(frozen=True)
class NoSettings:
    """A method without settings."""


class Member:
    """A method in a slot.

    Attributes:
        name: key in its slot's table.
        Settings: frozen dataclass of its hyper-parameters.
    """

    name: ClassVar[str]
    Settings: ClassVar[type] = NoSettings

    def __init__(self, settings: object | None = None) -> None:
        self.settings = self.Settings() if settings is None else settings


def resolve(slot: str, table: Mapping[str, str], name: str) -> type[Member]:
    """Returns the class of a member from its slot's table `name -> "module:Class"`."""
    if name not in table:
        raise unknown_name(f"{slot} method", name, table)
    module, member = table[name].split(":")
    return getattr(importlib.import_module(module), member)


def read_setting(settings_class: type, method: str, name: str, text: str) -> object:
    """Reads one setting of a method from the command line.

    Args:
        settings_class: the method's `Settings`.
        method: its name, for messages.
        name: the setting.
        text: its value as typed; lists as `[512, 256]`.

    Raises:
        InputError: the method has no such setting, or the value is of another type.
    """
    fields = {f.name: f for f in dataclasses.fields(settings_class)}
    if name not in fields:
        if not fields:
            raise InputError(f"{method} has no settings; got {method}.{name}.")
        raise unknown_name(f"setting of {method}", name, fields)
    default = fields[name].default
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{method}.{name}={text}: the value cannot be read ({error}).") from error
    if isinstance(default, tuple) and isinstance(value, list):
        value = tuple(value)
    if isinstance(default, float) and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML reads 1e-3 as text
    if type(value) is not type(default):
        raise InputError(f"{method}.{name} must be {type(default).__name__}, like its default {default}; got {text!r}.")
    return value


def cell_codes(attributes: pd.DataFrame, names: tuple[str, ...]) -> tuple[np.ndarray, list[str]]:
    """Numbers the cells of crossed attributes (race x sex x age group).

    Args:
        attributes: one column per attribute.
        names: the attributes to cross; those not in the table are left out.

    Returns:
        `[n] int64` cell numbers, -1 where any of the attributes is unknown, and the cells' names.
    """
    used = [n for n in names if n in attributes]
    if not used or len(attributes) == 0:
        return np.full(len(attributes), -1), []
    known = (attributes[used] != UNKNOWN).all(axis=1).to_numpy()
    text = attributes[used].astype(str).agg(" / ".join, axis=1).to_numpy(object)
    cells, codes = np.unique(text[known].astype(str), return_inverse=True)
    numbered = np.full(len(attributes), -1)
    numbered[known] = codes
    return numbered, list(cells)
