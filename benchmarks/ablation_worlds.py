"""The worlds of `ablations.py`: films to learn from, and films to be judged on, unbiased ones and ones of the same law."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from ablation_lines import NIH, NOTHING, SAME_LAW, UNBIASED
from claim_data import NIH as NIH_FOLDER
from claim_data import nih_data, phantom_data
from remedy_worlds import ATTRIBUTE, LEARNED_FROM, Films, Sizes, WorldKey, draw_world

from biascxr.containers import UNKNOWN
from biascxr.mitigation import SplitData

STRENGTH, NIH_STRENGTH = 0.8, 0.3
HIDDEN_FROM = "F"  # whose recorded positives are hidden on the NIH sample
AGE_EDGES = (0.0, 60.0)  # as in FairREAD
N_NIH_PATIENTS, N_NIH_FIFTHS = 6187, 5
STREAM_HIDDEN = 87


@dataclass(frozen=True)
class JudgedFilms:
    """Rows to be judged on.

    Attributes:
        vectors: `[n, d] float32`.
        attributes: `[n]` rows, one column per attribute.
        labels: `[n, L]` in {0, 1}.
        group: `[n]` texts, of all attributes crossed; `"unknown"` where one is.
        patient: `[n]`.
    """

    vectors: np.ndarray
    attributes: pd.DataFrame
    labels: np.ndarray
    group: np.ndarray
    patient: np.ndarray


@dataclass(frozen=True)
class AblationWorld:
    """One world.

    Attributes:
        key: which.
        films: to learn from, biased.
        judged: `unbiased` or `same_law` -> films to be judged on.
    """

    key: WorldKey
    films: Films
    judged: dict[str, JudgedFilms]

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes that there are."""
        return tuple(a.name for a in self.films.cohort.attributes)


def key_of(world: str, seed: int) -> WorldKey:
    """Returns the key of a world: a mechanism of the phantom, `nothing_planted` or `nih`."""
    strength = {NOTHING: 0.0, NIH: NIH_STRENGTH}.get(world, STRENGTH)
    return WorldKey("real" if world == NIH else "linear", world, strength, seed)


def draw(key: WorldKey, sizes: Sizes, nih: Path = NIH_FOLDER) -> AblationWorld:
    """Draws a world.

    Args:
        key: which.
        sizes: how many patients; of the NIH sample the same share as of a phantom's training patients.
        nih: folder of the NIH sample.
    """
    if key.mechanism == NIH:
        return _nih_world(key, sizes, nih)
    world = draw_world(key, sizes)
    own = world.judged
    group = own.attributes[ATTRIBUTE].to_numpy(object)
    judged = {UNBIASED: JudgedFilms(own.vectors, own.attributes, own.labels, group, own.patient)}
    if key.mechanism != NOTHING:
        judged[SAME_LAW] = judged_films(phantom_data(key.mechanism, key.strength, key.seed, sizes).test)
    return AblationWorld(key, world.biased, judged)


def _nih_world(key: WorldKey, sizes: Sizes, nih: Path) -> AblationWorld:
    """A seed is a fifth of the patients to be judged on, initial weights, and whose findings were hidden."""
    n_patients = min(N_NIH_PATIENTS, round(N_NIH_PATIENTS * sizes.train / Sizes().train))
    data = nih_data(nih, n_patients=n_patients, age_edges=AGE_EDGES, test_fifth=(key.seed - 1) % N_NIH_FIFTHS)
    rng = np.random.default_rng([key.seed, STREAM_HIDDEN])
    parts = {name: with_hidden_positives(data.films.parts[name], key.strength, rng) for name in LEARNED_FROM}
    labels = np.concatenate([parts[name].labels for name in data.films.parts])
    films = Films(dataclasses.replace(data.films.cohort, labels=labels), parts)
    return AblationWorld(key, films, {UNBIASED: judged_films(data.test)})


def with_hidden_positives(part: SplitData, share: float, rng: np.random.Generator) -> SplitData:
    """Returns the rows with this share of the women's positive labels recorded as negative, each on its own."""
    is_hidden = (rng.random(part.labels.shape) < share) & (part.attributes["sex"] == HIDDEN_FROM).to_numpy()[:, None]
    return dataclasses.replace(part, labels=np.where(is_hidden & (part.labels == 1), np.float32(0), part.labels))


def judged_films(test: SplitData) -> JudgedFilms:
    """Returns test rows with the groups of all their attributes crossed."""
    return JudgedFilms(np.asarray(test.vectors), test.attributes, test.labels, joint_groups(test.attributes), test.patient_id)


def joint_groups(attributes: pd.DataFrame) -> np.ndarray:
    """Returns each row's group of all attributes crossed, `[n]` texts; `"unknown"` where one is."""
    texts = attributes.astype(str)
    joined = texts.agg(" / ".join, axis=1).to_numpy(object)
    return np.where((texts == UNKNOWN).any(axis=1).to_numpy(), UNKNOWN, joined)
