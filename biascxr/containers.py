"""What stages hand each other: Cohort, ViewPlan, EmbeddingSet, Predictions.

Frozen, checked once when built, saved and loaded without pickle. No TensorFlow here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.config import SPLITS
from biascxr.errors import InputError

UNKNOWN = "unknown"
ID_COLUMNS = ("image_id", "study_id", "patient_id")
# Options of read_csv that keep every digit. From pandas 3.1 on it always does, and the option is deprecated.
EXACT_DIGITS = {"float_precision": "round_trip"} if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1) else {}
# The [n, L] arrays of a cohort, and the prefix of their columns on disk.
BLOCKS = {"labels": "label", "recorded": "recorded", "reference_labels": "reference"}
VIEW_COLUMNS = ("rotation", "shift_x", "shift_y", "contrast", "brightness")
PREDICTION_COLUMNS = (*ID_COLUMNS, "split", "recipe", "seed", "fold")


@dataclass(frozen=True)
class Attribute:
    """A way of grouping patients.

    Attributes:
        name: column of the cohort's table, for instance `"race"`.
        groups: the known groups in display order; `UNKNOWN` is not one of them.
        constant: whether a patient keeps one value (recorded sex, recorded race) or may change (age group).
    """

    name: str
    groups: tuple[str, ...]
    constant: bool


def _check_labels(labels: np.ndarray, shape: tuple[int, int], what: str) -> None:
    if labels.shape != shape:
        raise ValueError(f"{what} must have shape {shape}; got {labels.shape}.")
    if not np.isin(labels[~np.isnan(labels)], (0.0, 1.0)).all():
        raise ValueError(f"{what} must hold 0, 1 or NaN only.")


@dataclass(frozen=True)
class Cohort:
    """One row per image.

    Attributes:
        table: columns `image_id, study_id, patient_id, path, view, split, age`, then one column per attribute, where an
            unknown value is the text `"unknown"`. `age` is in years, NaN where unknown. Planted bias adds `degradation` (share
            of sharpness that the image loses, in [0, 1]) and `marker` (bool: a marker is stamped on the image).
        labels: `[n, L] float32` in {0, 1, NaN}; NaN is masked in losses and metrics.
        label_names: the L findings.
        attributes: the attributes that have at least two known groups.
        layout: name of the layout that read the table.
        content: `"image"` or `"vector"`: what `path` points to.
        images_root: folder that relative paths start from.
        accounting: what happened to the rows of the table and what the policies did, for the report.
        recorded: optional `[n, L] float32` in {1, 0, -1, NaN}: the labels before policies; -1 is uncertain, NaN blank.
        reference_labels: optional `[n, L] float32` in {0, 1, NaN}: the truth where it is known, NaN elsewhere.
    """

    table: pd.DataFrame
    labels: np.ndarray
    label_names: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    layout: str
    content: str
    images_root: Path
    accounting: dict = field(default_factory=dict)
    recorded: np.ndarray | None = None
    reference_labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        wanted = (*ID_COLUMNS, "path", "view", "split", "age", *(a.name for a in self.attributes))
        missing = [c for c in wanted if c not in self.table]
        if missing:
            raise ValueError(f"Cohort.table lacks the columns {missing}.")
        if self.table["image_id"].duplicated().any():
            raise ValueError("Cohort.table holds an image_id twice.")
        shape = (len(self.table), len(self.label_names))
        _check_labels(self.labels, shape, "Cohort.labels")
        if self.reference_labels is not None:
            _check_labels(self.reference_labels, shape, "Cohort.reference_labels")
        if self.recorded is not None and self.recorded.shape != shape:
            raise ValueError(f"Cohort.recorded must have shape {shape}; got {self.recorded.shape}.")
        for attribute in self.attributes:
            unexpected = set(self.table[attribute.name]) - {*attribute.groups, UNKNOWN}
            if unexpected:
                raise ValueError(f"Attribute {attribute.name!r} has values outside its groups: {sorted(unexpected)}.")
        if not set(self.table["split"]) <= set(SPLITS):
            raise ValueError(f"Cohort splits must be among {SPLITS}; got {sorted(set(self.table['split']))}.")
        if self.table.groupby("patient_id")["split"].nunique().max() > 1:
            raise ValueError("A patient is in more than one split.")

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, image_ids: np.ndarray) -> Cohort:
        """Returns the cohort of these images, in this order. Raises KeyError for an image that it does not hold."""
        position = pd.Index(self.table["image_id"]).get_indexer(image_ids)
        if (position < 0).any():
            raise KeyError(f"{int((position < 0).sum())} image_ids are not in the cohort.")
        return replace(
            self,
            table=self.table.iloc[position].reset_index(drop=True),
            **{name: block[position] for name, block in self._blocks().items()},
        )

    def _blocks(self) -> dict[str, np.ndarray]:
        """Returns the `[n, L]` arrays there are, by the names of their fields."""
        blocks = {name: getattr(self, name) for name in BLOCKS}
        return {name: block for name, block in blocks.items() if block is not None}

    def split_rows(self, split: str) -> np.ndarray:
        """Returns the row numbers of one split, `[m] int64`."""
        return np.flatnonzero((self.table["split"] == split).to_numpy())

    def save(self, folder: Path) -> None:
        """Writes `cohort.parquet` (table and labels) and `cohort.json` (everything else)."""
        columns = {
            f"{prefix}/{name}": block[:, index]
            for field_name, block in self._blocks().items()
            for prefix in (BLOCKS[field_name],)
            for index, name in enumerate(self.label_names)
        }
        frame = pd.concat([self.table, pd.DataFrame(columns, index=self.table.index)], axis=1)
        frame.to_parquet(folder / "cohort.parquet", index=False)
        header = {
            "label_names": self.label_names,
            "attributes": [vars(a) for a in self.attributes],
            "layout": self.layout,
            "content": self.content,
            "images_root": str(self.images_root),
            "accounting": self.accounting,
        }
        (folder / "cohort.json").write_text(json.dumps(header, indent=2, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Cohort:
        """Reads what `save` wrote."""
        header = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
        frame = pd.read_parquet(folder / "cohort.parquet")
        columns = {
            field_name: [f"{prefix}/{name}" for name in header["label_names"]]
            for field_name, prefix in BLOCKS.items()
            if f"{prefix}/{header['label_names'][0]}" in frame
        }
        return cls(
            table=frame.drop(columns=[c for own in columns.values() for c in own]),
            **{name: frame[own].to_numpy(np.float32) for name, own in columns.items()},
            label_names=tuple(header["label_names"]),
            attributes=tuple(Attribute(a["name"], tuple(a["groups"]), a["constant"]) for a in header["attributes"]),
            layout=header["layout"],
            content=header["content"],
            images_root=Path(header["images_root"]),
            accounting=header["accounting"],
        )


@dataclass(frozen=True)
class ViewPlan:
    """Which augmented views of which images are made: it follows from the cohort's table and a seed alone.

    Attributes:
        table: one row per view: `image_id`, `view_id` (from 1 for each image), `rotation` (degrees, counter-clockwise),
            `shift_x`, `shift_y` (shares of the side), `contrast` (factor about the mean grey level), `brightness` (grey levels
            added, a share of the range).
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        missing = [c for c in ("image_id", "view_id", *VIEW_COLUMNS) if c not in self.table]
        if missing:
            raise ValueError(f"ViewPlan.table lacks the columns {missing}.")
        if self.table.duplicated(["image_id", "view_id"]).any() or (self.table["view_id"] < 1).any():
            raise ValueError("ViewPlan needs each view once, numbered from 1.")

    def __len__(self) -> int:
        return len(self.table)

    def save(self, folder: Path) -> None:
        """Writes `views.parquet`."""
        self.table.to_parquet(folder / "views.parquet", index=False)

    @classmethod
    def load(cls, folder: Path) -> ViewPlan:
        """Reads what `save` wrote."""
        return cls(pd.read_parquet(folder / "views.parquet"))


@dataclass(frozen=True)
class EmbeddingSet:
    """One vector per image (and view).

    Attributes:
        image_id: `[n] object`, in the cohort's order.
        view_id: `[n] int32`; 0 is the image itself, augmented views count from 1.
        vectors: `[n, d] float32`, or `float16` where a run chose so (`--store_precision`); memory-mapped when read from a
            store. Whoever computes with them turns them to float32 first: sums in float16 lose digits and overflow.
        card: what made the vectors: `encoder`, `weights`, `fingerprint`, `trained_on`, `is_trained`.
    """

    image_id: np.ndarray
    view_id: np.ndarray
    vectors: np.ndarray
    card: dict

    def __post_init__(self) -> None:
        n = len(self.image_id)
        if self.vectors.ndim != 2 or len(self.vectors) != n or self.view_id.shape != (n,):
            raise ValueError(
                f"EmbeddingSet needs vectors [n, d] and view_id [n] for n = {n} image_ids; "
                f"got {self.vectors.shape} and {self.view_id.shape}."
            )
        if self.vectors.dtype not in (np.float32, np.float16):
            raise ValueError(f"EmbeddingSet.vectors must be float32 or float16; got {self.vectors.dtype}.")

    def __len__(self) -> int:
        return len(self.image_id)

    def save(self, folder: Path) -> None:
        """Writes `vectors.npy`, `index.parquet` and `card.json` into the folder; keeps a `vectors.npy` already there."""
        if not (folder / "vectors.npy").exists():
            np.save(folder / "vectors.npy", self.vectors)
        index = pd.DataFrame({"image_id": self.image_id, "view_id": self.view_id})
        index.to_parquet(folder / "index.parquet", index=False)
        (folder / "card.json").write_text(json.dumps(self.card, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> EmbeddingSet:
        """Opens what `save` wrote; the vectors stay on disk until they are read."""
        index = pd.read_parquet(folder / "index.parquet")
        return cls(
            image_id=index["image_id"].to_numpy(object),
            view_id=index["view_id"].to_numpy(np.int32),
            vectors=np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False),
            card=json.loads((folder / "card.json").read_text(encoding="utf-8")),
        )


@dataclass(frozen=True)
class Predictions:
    """What a classifier said about each image: the hand-over to the audit, readable and writable as CSV or Parquet.

    Attributes:
        table: `image_id, study_id, patient_id, split, recipe, seed, fold` and one column per attribute.
        y_true: `[n, L] float32` in {0, 1, NaN}.
        scores: `[n, L] float32` or `float64`, probabilities; those of a CSV file are float64, its own digits.
        label_names: the L findings.
        attributes: the attributes to compare groups by.
        decisions: optional `[n, L] float32` in {0, 1, NaN}; NaN where no threshold could be fitted.
    """

    table: pd.DataFrame
    y_true: np.ndarray
    scores: np.ndarray
    label_names: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    decisions: np.ndarray | None = None

    def __post_init__(self) -> None:
        missing = [a.name for a in self.attributes if a.name not in self.table]
        if missing:
            raise ValueError(f"Predictions.table lacks the columns {missing}.")
        shape = (len(self.table), len(self.label_names))
        _check_labels(self.y_true, shape, "Predictions.y_true")
        if self.scores.shape != shape:
            raise ValueError(f"Predictions.scores must have shape {shape}; got {self.scores.shape}.")
        if self.scores.dtype not in (np.float32, np.float64):
            raise ValueError(f"Predictions.scores must be float32 or float64; got {self.scores.dtype}.")
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise ValueError("Predictions.scores must be probabilities in [0, 1], none of them NaN.")
        if self.decisions is not None:
            _check_labels(self.decisions, shape, "Predictions.decisions")

    def rows(self, chosen: np.ndarray) -> Predictions:
        """Returns some of the rows.

        Args:
            chosen: `[n] bool`, or row numbers in the order wanted.
        """
        return replace(
            self,
            table=self.table.iloc[np.flatnonzero(chosen) if chosen.dtype == bool else chosen].reset_index(drop=True),
            y_true=self.y_true[chosen],
            scores=self.scores[chosen],
            decisions=None if self.decisions is None else self.decisions[chosen],
        )

    def in_split(self, split: str) -> Predictions:
        """Returns the predictions of one split."""
        return self.rows((self.table["split"] == split).to_numpy(bool))

    def save(self, path: Path) -> None:
        """Writes one row per image: the table, then `true_<label>`, `prob_<label>` and `decision_<label>` columns."""
        is_parquet = path.suffix == ".parquet"
        # A CSV has no float32: the shortest digits of a float32 would come back as another number.
        scores = self.scores if is_parquet else self.scores.astype(np.float64)
        blocks = {"true": self.y_true, "prob": scores, "decision": self.decisions}
        columns = {
            f"{prefix}_{name}": values[:, index]
            for prefix, values in blocks.items()
            if values is not None
            for index, name in enumerate(self.label_names)
        }
        frame = pd.concat([self.table, pd.DataFrame(columns, index=self.table.index)], axis=1)
        if is_parquet:
            frame.to_parquet(path, index=False)
        else:
            frame.to_csv(path, index=False)

    @classmethod
    def load(cls, path: Path, attributes: tuple[Attribute, ...]) -> Predictions:
        """Reads what `save` wrote; scores of a CSV file become float64, those of Parquet keep their type.

        Args:
            path: a .csv or .parquet file.
            attributes: the attributes among its columns.

        Raises:
            InputError: the file has no `true_<label>` and `prob_<label>` columns that match.
        """
        is_parquet = path.suffix == ".parquet"
        text = dict.fromkeys(ID_COLUMNS, str)
        frame = pd.read_parquet(path) if is_parquet else pd.read_csv(path, dtype=text, **EXACT_DIGITS)
        names = tuple(c.removeprefix("true_") for c in frame if c.startswith("true_"))
        missing = [f"prob_{name}" for name in names if f"prob_{name}" not in frame]
        if not names or missing:
            raise InputError(f"{path.name} needs pairs of true_<label> and prob_<label> columns; lacking: {missing}.")

        def block(prefix: str) -> np.ndarray:
            values = frame[[f"{prefix}_{name}" for name in names]].to_numpy()
            keeps_float64 = prefix == "prob" and values.dtype != np.float32
            return values.astype(np.float64 if keeps_float64 else np.float32)

        value_columns = [c for c in frame if c.split("_")[0] in ("true", "prob", "decision")]
        return cls(
            table=frame.drop(columns=value_columns),
            y_true=block("true"),
            scores=block("prob"),
            label_names=names,
            attributes=attributes,
            decisions=block("decision") if f"decision_{names[0]}" in frame else None,
        )
