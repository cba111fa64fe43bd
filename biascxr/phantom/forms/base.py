"""The contract of a form: a made-up cohort in, an official tree out, and what a layout must make of that tree."""

from __future__ import annotations

import hashlib
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.phantom.draw import Phantom
from biascxr.phantom.labels import LABELS

UNKNOWN = "unknown"
STREAM_FORMS = 5  # the streams of draw.py are 1 to 4


@dataclass(frozen=True)
class ExpectedCohort:
    """What a layout must read from a tree, worked out from the phantom and never from the files. Rows are the films, in order.

    Attributes:
        table: `image_id, study_id, patient_id, path, view, split` as text, `age` in years, and the layout's attributes, with
            `"unknown"` where nothing, or several things, are recorded. `split` is the tree's own, by the
            words that the layout gives it; a tree that has no split has no such column.
        labels: `[n, L]` in {1, 0, -1, NaN}, one column per finding of the data set, as recorded.
        images_root: folder that `path` starts from, relative to the tree's; `"."` is the tree's own.
        reference_labels: `[n, L']` in {1, 0, NaN}, or None.
        conflicting: per attribute, the patients recorded with several values; the table holds `"unknown"` for them.
    """

    table: pd.DataFrame
    labels: pd.DataFrame
    images_root: str
    reference_labels: pd.DataFrame | None = None
    conflicting: dict[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, block in (("labels", self.labels), ("reference_labels", self.reference_labels)):
            if block is not None and len(block) != len(self.table):
                raise ValueError(f"ExpectedCohort.{name} must have {len(self.table)} rows; got {len(block)}.")

    def unknown(self, attribute: str) -> int:
        """Returns how many patients have a film on which an attribute is unknown."""
        return self.table["patient_id"][self.table[attribute] == UNKNOWN].nunique()


class Form(ABC):
    """A data set's files as they are after download.

    Attributes:
        name: key in `biascxr.phantom.forms.FORMS`.
        layout: name of the cohort layout that reads the tree.
        film_format: `"jpg"` or `"png"`; None where no film is drawn.
    """

    name: ClassVar[str]
    layout: ClassVar[str]
    film_format: ClassVar[str | None] = "jpg"

    @abstractmethod
    def film_path(self, phantom: Phantom, index: int) -> str:
        """Returns where a film lies, relative to the tree's folder."""

    def image_ids(self, phantom: Phantom) -> np.ndarray:
        """Returns the name by which the tree knows each film, `[n] str`."""
        return phantom.population.dicom_id

    def images_root(self, folder: Path) -> Path | None:
        """Returns what a user gives as `--images_root`, or None where the layout finds the images by itself."""
        return None

    @abstractmethod
    def write_tables(self, phantom: Phantom, folder: Path) -> Path:
        """Writes everything but the films; the same phantom gives the same bytes.

        Args:
            phantom: what to write.
            folder: the tree's folder; it is there.

        Returns:
            What a user gives as `--csv_path`.
        """

    @abstractmethod
    def expected(self, phantom: Phantom) -> ExpectedCohort:
        """Returns what the layout must read from the tree, under the default policies."""


def uniform(phantom: Phantom, purpose: str, of: np.ndarray) -> np.ndarray:
    """Draws a number in [0, 1) for each patient, study or film.

    Args:
        phantom: its seed drives the draw.
        purpose: what is decided by it; each has numbers of its own.
        of: `[n] int64`, numbers of patients, studies or films. Equal numbers get equal draws, and keep them when others leave
            the cohort.

    Returns:
        `[n] float64`.
    """
    rng = np.random.default_rng([phantom.config.seed, STREAM_FORMS, zlib.crc32(purpose.encode())])
    return rng.random(int(of.max()) + 1)[of]


def record_draw(phantom: Phantom, purpose: str, patient: int, nth: int) -> float:
    """Draws a number in [0, 1) for a patient's n-th record of a kind; it does not change when other patients leave."""
    key = f"{phantom.config.seed} {purpose} {patient} {nth}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=6).digest()) / 2**48


def pick(options: tuple, draws: np.ndarray) -> np.ndarray:
    """Turns draws in [0, 1) into options of equal chance, `[n] object`."""
    return np.array(options, dtype=object)[(draws * len(options)).astype(np.int64)]


def number_within(of: np.ndarray) -> np.ndarray:
    """Numbers the members of each run from 0: `[7, 7, 9]` gives `[0, 1, 0]`. Equal values stand together."""
    is_first = np.diff(of, prepend=of[0] - 1) != 0
    start = np.flatnonzero(is_first)
    return np.arange(len(of)) - start[np.cumsum(is_first) - 1]


def label_cells(values: np.ndarray) -> np.ndarray:
    """Writes labels in {1, 0, -1, NaN} as the official tables do: `1.0`, `0.0`, `-1.0`, blank."""
    return np.select([values == 1, values == 0, values == -1], ["1.0", "0.0", "-1.0"], "")


def reported_labels(phantom: Phantom, names: tuple[str, ...] = LABELS) -> pd.DataFrame:
    """Returns the reports' labels, `[n, L]` in {1, 0, -1, NaN}, in the order of `names`."""
    columns = [LABELS.index(name) for name in names]
    return pd.DataFrame(phantom.reported[:, columns].astype(np.float64), columns=list(names))
