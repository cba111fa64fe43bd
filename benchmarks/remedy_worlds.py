"""The worlds of `remedies.py`: a biased data set, an unbiased one of equal size, and unbiased test films with true labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.containers import Attribute, Cohort
from biascxr.mitigation import SplitData
from biascxr.phantom import GROUP_SHARES, VectorConfig, VectorPhantom, draw_vectors
from biascxr.phantom.bayes import MARKER_SHIFT
from biascxr.phantom.vectors import GROUP_CORNERS, Mixing

DIMENSIONS, N_LABELS = 32, 6
SEPARABILITY = 0.95  # two groups are told apart from the vector with an AUROC of .975
NOTHING = "nothing_planted"
LEARNED_FROM = ("train", "validation", "calibration")
# The members' default attribute; the groups are the phantom's neutral ones.
ATTRIBUTE = "race"
GROUPS = tuple(f"group {g}" for g in range(len(GROUP_SHARES)))
LABEL_NAMES = tuple(f"finding {i}" for i in range(N_LABELS))
# Each purpose has a generator of its own.
STREAM_PATIENTS, STREAM_SIZE, STREAM_MARKER = 81, 82, 83


@dataclass(frozen=True)
class Sizes:
    """Patients (about 2.1 films each) whose films are learned from and judged.

    Attributes:
        train: as many as a small hospital's cohort has; a training takes seconds.
        validation: for early stopping.
        calibration: twice the default share, so that last-layer refits and groups' thresholds get a fair chance.
        test: many, so that a loss is known far better than it is learned.
    """

    train: int = 3000
    validation: int = 500
    calibration: int = 1000
    test: int = 4000

    def scaled(self, share: float) -> Sizes:
        """Returns sizes multiplied by a share, at least 20 patients each."""
        return Sizes(**{name: max(20, round(share * n)) for name, n in vars(self).items()})

    @property
    def drawn(self) -> int:
        """Patients to draw, of whom the phantom puts 60, 10, 10 and 20% into the splits; some to spare for its chance."""
        parts = (self.train / 0.6, self.validation / 0.1, self.calibration / 0.1, self.test / 0.2)
        return int(np.ceil(1.05 * max(parts))) + 50


@dataclass(frozen=True)
class WorldKey:
    """Which world.

    Attributes:
        family: `linear` or `nonlinear`.
        mechanism: of the phantom, or `nothing_planted`.
        strength: of the mechanism, in [0, 1].
        seed: of everything random in it, initial weights included.
    """

    family: str
    mechanism: str
    strength: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.family}-{self.mechanism}-{self.strength:g}-{self.seed}"

    def config(self, sizes: Sizes) -> VectorConfig:
        """Returns the phantom's settings."""
        is_plain = self.mechanism == NOTHING
        return VectorConfig(
            n_patients=sizes.drawn,
            seed=self.seed,
            mechanism="presentation" if is_plain else self.mechanism,
            strength=0.0 if is_plain else self.strength,
            separability=SEPARABILITY,
            family=self.family,
            dimensions=DIMENSIONS,
            n_labels=N_LABELS,
        )


@dataclass(frozen=True)
class Films:
    """Rows to learn from.

    Attributes:
        cohort: their table; labels are the recorded ones.
        parts: by split, the rows with their vectors.
    """

    cohort: Cohort
    parts: dict[str, SplitData]


@dataclass(frozen=True)
class Judged:
    """Rows to be judged on.

    Attributes:
        vectors: `[n, d] float32`.
        attributes: `[n]` rows with the recorded group.
        labels: `[n, L] float32`, what is true.
        patient: `[n] int64`.
        in_group: `[n] bool`, of the group that the mechanism acts on.
        bayes_scores: `[n, L]`, the best scores there are.
    """

    vectors: np.ndarray
    attributes: pd.DataFrame
    labels: np.ndarray
    patient: np.ndarray
    in_group: np.ndarray
    bayes_scores: np.ndarray


@dataclass(frozen=True)
class RemedyWorld:
    """One world.

    Attributes:
        key: which.
        biased: films to learn from.
        unbiased: as many films without the bias.
        judged: unbiased test films.
    """

    key: WorldKey
    biased: Films
    unbiased: Films
    judged: Judged


def draw_world(key: WorldKey, sizes: Sizes) -> RemedyWorld:
    """Draws a world. The unbiased films are of the same patients as the biased ones, as far as these are there.

    Args:
        key: which.
        sizes: how many patients.
    """
    config = key.config(sizes)
    biased, fair = draw_vectors(config), draw_vectors(replace(config, strength=0.0))
    rng = np.random.default_rng([key.seed, STREAM_PATIENTS])
    chosen = {s: patients_of(fair, s, getattr(sizes, s), rng) for s in (*LEARNED_FROM, "test")}
    biased_rows = {s: rows_of(biased, s, chosen[s]) for s in LEARNED_FROM}
    # As many rows as the biased data have: what counts is what is in them, not how many they are.
    rng = np.random.default_rng([key.seed, STREAM_SIZE])
    fair_rows = {s: _first_rows(fair, s, chosen[s], len(biased_rows[s]), rng) for s in LEARNED_FROM}
    judged = biased if key.mechanism == "acquisition" else fair
    return RemedyWorld(
        key,
        _films(biased, biased.vectors, biased_rows),
        _films(fair, _marked_by_chance(fair, biased) if key.mechanism == "acquisition" else fair.vectors, fair_rows),
        _judged(judged, rows_of(judged, "test", chosen["test"])),
    )


def patients_of(world: VectorPhantom, split: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws patients of a split, all of them where there are fewer than `n`."""
    found = np.unique(world.patient[world.split == split])
    return rng.permutation(found)[:n]


def rows_of(world: VectorPhantom, split: str, patients: np.ndarray) -> np.ndarray:
    """Returns the rows of these patients in a split."""
    return np.flatnonzero((world.split == split) & np.isin(world.patient, patients))


def _first_rows(world: VectorPhantom, split: str, patients: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of patients in random order, until there are n; all patients' rows, in their own order, where there are n."""
    rows = rows_of(world, split, patients)
    if len(rows) == n:
        return rows
    position = dict(zip(rng.permutation(patients).tolist(), range(len(patients)), strict=True))
    order = np.argsort([position[p] for p in world.patient[rows].tolist()], kind="stable")
    return np.sort(rows[order[:n]])


def _marked_by_chance(fair: VectorPhantom, biased: VectorPhantom) -> np.ndarray:
    """Vectors of the fair world with markers on the group's films as frequent as on the test films, and as meaningless."""
    config = biased.config
    in_group = biased.group == config.disadvantaged_group
    share = biased.marker[in_group & (biased.split == "test")].mean()
    rng = np.random.default_rng([config.seed, STREAM_MARKER])
    is_marked = (rng.random(len(fair)) < share) & (fair.group == config.disadvantaged_group)
    mixing, vectors = Mixing(config), fair.vectors.copy()
    coordinates = mixing.unmix(vectors[is_marked]).astype(np.float32)
    coordinates[:, config.n_labels + GROUP_CORNERS.shape[1]] += np.float32(MARKER_SHIFT)
    mixing.mix(coordinates)
    vectors[is_marked] = coordinates
    return vectors


def _films(world: VectorPhantom, vectors: np.ndarray, rows: dict[str, np.ndarray]) -> Films:
    parts = {s: split_data_of(world, vectors, s, own) for s, own in rows.items()}
    return films_of(parts, (Attribute(ATTRIBUTE, GROUPS, True),))


def films_of(parts: dict[str, SplitData], attributes: tuple[Attribute, ...]) -> Films:
    """Returns rows by split with the cohort that they are of, as `train_recipe` takes them."""
    tables = [p.attributes.assign(image_id=p.image_id, patient_id=p.patient_id, split=p.split) for p in parts.values()]
    table = pd.concat(tables, ignore_index=True).assign(view="PA", age=np.nan, path="")
    cohort = Cohort(
        table=table.assign(study_id=table["image_id"]),
        labels=np.concatenate([part.labels for part in parts.values()]),
        label_names=next(iter(parts.values())).label_names,
        attributes=attributes,
        layout="generic",
        content="vector",
        images_root=Path(),
    )
    return Films(cohort, parts)


def split_data_of(world: VectorPhantom, vectors: np.ndarray, split: str, rows: np.ndarray) -> SplitData:
    """Returns rows of a world with their *recorded* labels, and these vectors in place of the world's own."""
    return SplitData(
        split=split,
        vectors=vectors[rows],
        labels=world.recorded[rows].astype(np.float32),
        attributes=_attributes(world, rows),
        patient_id=world.patient[rows].astype(str).astype(object),
        label_names=LABEL_NAMES,
        image_id=world.image[rows].astype(str).astype(object),
    )


def _attributes(world: VectorPhantom, rows: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({ATTRIBUTE: np.array(GROUPS, object)[world.group[rows]]})


def _judged(world: VectorPhantom, rows: np.ndarray) -> Judged:
    return Judged(
        vectors=world.vectors[rows],
        attributes=_attributes(world, rows),
        labels=world.labels[rows].astype(np.float32),
        patient=world.patient[rows],
        in_group=world.group[rows] == world.config.disadvantaged_group,
        bayes_scores=world.bayes_scores[rows],
    )
