"""What every slot shares: the rows it is fitted on, its settings, and its table of members."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import yaml

from biascxr.containers import Cohort, EmbeddingSet
from biascxr.errors import InputError, unknown_name
from biascxr.mitigation.vector_table import VectorTable


@dataclass(frozen=True)
class SplitData:
    """The rows of one split, aligned.

    Attributes:
        split: `"train"`, `"validation"`, `"calibration"` or `"test"`.
        vectors: `[n, d] float32`, a table that is read by rows; an array is wrapped.
        labels: `[n, L] float32` in {0, 1, NaN}.
        attributes: `[n]` rows, one column per attribute; `"unknown"` where not recorded.
        patient_id: `[n]`.
        label_names: the L findings.
        image_id: `[n]`.
        view_id: `[n] int32`; 0 is the image itself, augmented views count from 1 and stand behind all images. Default: all 0.
    """

    split: str
    vectors: VectorTable
    labels: np.ndarray
    attributes: pd.DataFrame
    patient_id: np.ndarray
    label_names: tuple[str, ...]
    image_id: np.ndarray
    view_id: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", VectorTable.of(self.vectors))
        if self.view_id is None:
            object.__setattr__(self, "view_id", np.zeros(len(self.labels), np.int32))
        parts = (self.vectors, self.labels, self.attributes, self.patient_id, self.image_id, self.view_id)
        if len({len(part) for part in parts}) != 1:
            raise ValueError(f"SplitData needs parts of one length; got {[len(part) for part in parts]}.")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> SplitData:
        """Returns these rows, in this order; a row may occur several times. Vectors are not copied."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return dataclasses.replace(
            self,
            vectors=self.vectors.take(rows),
            labels=self.labels[rows],
            attributes=self.attributes.iloc[rows].reset_index(drop=True),
            patient_id=self.patient_id[rows],
            image_id=self.image_id[rows],
            view_id=self.view_id[rows],
        )

    def images(self) -> SplitData:
        """Returns the images themselves, without augmented views."""
        return self.take(np.flatnonzero(self.view_id == 0)) if self.view_id.any() else self

    def halves(self, *, seed: int) -> tuple[SplitData, SplitData]:
        """Divides the rows at random into two halves of the patients."""
        patients = np.unique(self.patient_id.astype(str))
        chosen = np.random.default_rng(seed).permutation(patients)[: len(patients) // 2]
        is_first = np.isin(self.patient_id.astype(str), chosen)
        return self.take(is_first), self.take(~is_first)

    def refuse_test(self, what: str) -> None:
        """Raises ValueError when these are test rows: nothing is ever fitted on them."""
        if self.split == "test":
            raise ValueError(f"{what} was handed the test split to fit on; test rows are read once, by the audit.")


def split_data(cohort: Cohort, embeddings: EmbeddingSet, split: str, *, views: EmbeddingSet | None = None) -> SplitData:
    """Joins the rows of one split with their vectors; the vectors stay where they are until they are read.

    Args:
        cohort: the rows of `embeddings`, in the same order.
        embeddings: one vector per row.
        split: the split wanted.
        views: vectors of augmented views of the cohort's images; those of this split stand behind its images.
    """
    if not np.array_equal(cohort.table["image_id"].to_numpy(object), embeddings.image_id):
        raise ValueError("The cohort's rows and the embeddings' rows are not the same images in the same order.")
    rows = cohort.split_rows(split)
    vectors, view_id = VectorTable.of(embeddings.vectors).take(rows), np.zeros(len(rows), np.int32)
    if views is not None:
        position = pd.Index(cohort.table["image_id"]).get_indexer(views.image_id)
        own = np.flatnonzero((position >= 0) & np.isin(position, rows))
        vectors = vectors.followed_by(VectorTable.of(views.vectors).take(own))
        rows, view_id = np.r_[rows, position[own]], np.r_[view_id, views.view_id[own]]
    return SplitData(
        split=split,
        vectors=vectors,
        labels=cohort.labels[rows],
        attributes=cohort.table.iloc[rows][[a.name for a in cohort.attributes]].reset_index(drop=True),
        patient_id=cohort.table["patient_id"].to_numpy(object)[rows],
        label_names=cohort.label_names,
        image_id=embeddings.image_id[rows],
        view_id=view_id,
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
        kind = type(default[0]) if default else str
        odd = [v for v in value if type(v) is not kind]
        if odd:
            wanted = f"{method}.{name} must be a list of {kind.__name__}"
            raise InputError(f"{wanted}, quoted where YAML reads another; got {odd[0]!r}.")
        if kind is str and len(set(value)) < len(value):
            raise InputError(f"{method}.{name} names something twice: {text}.")
    if isinstance(default, float) and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML reads 1e-3 as text
    if type(value) is not type(default):
        quoted = ' (quote it: "...")' if isinstance(default, str) else ""
        raise InputError(f"{method}.{name} must be {type(default).__name__}, like its default {default}; got {text!r}{quoted}.")
    if (isinstance(value, float) and not math.isfinite(value)) or (type(value) is int and abs(value) > 2**31):
        raise InputError(f"{method}.{name} must be a finite number within +-2^31; got {text!r}.")
    return value
