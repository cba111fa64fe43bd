"""What `claims.py` measures on: made-up vectors, and the real predictions of the NIH sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from remedy_worlds import (
    ATTRIBUTE,
    GROUPS,
    LEARNED_FROM,
    Films,
    Sizes,
    WorldKey,
    films_of,
    patients_of,
    rows_of,
    split_data_of,
)
from scipy import special

from biascxr.age_groups import age_group_names, cut_ages, parse_ages
from biascxr.config import SPLITS
from biascxr.containers import Attribute
from biascxr.mitigation import SplitData
from biascxr.phantom import draw_vectors

NIH = Path(__file__).parents[2] / "shared" / "data" / "nih"
PREDICTIONS, WHOLE_TABLE = "chexnet_predictions.csv.gz", "Data_Entry_2017_v2020.csv.gz"
AGE_EDGES = (0.0, 20.0, 40.0, 60.0, 80.0)  # BiasCXR's bins
SPLIT_SHARES = (0.6, 0.7, 0.8)  # of patients: train, validation, calibration; the rest is test
STREAM_PATIENTS, STREAM_SPLIT = 85, 86


@dataclass(frozen=True)
class ClaimData:
    """Films of one data set.

    Attributes:
        name: of the data set.
        films: to learn from.
        test: to be judged on, of the same law; its labels are the recorded ones, as in BiasCXR.
    """

    name: str
    films: Films
    test: SplitData


def phantom_data(mechanism: str, strength: float, seed: int, sizes: Sizes) -> ClaimData:
    """Draws a world of the linear family. Unlike in `remedies.py` the test films are as biased as the others."""
    key = WorldKey("linear", mechanism, strength, seed)
    world = draw_vectors(key.config(sizes))
    rng = np.random.default_rng([seed, STREAM_PATIENTS])
    parts = {}
    for split in SPLITS:
        patients = patients_of(world, split, getattr(sizes, split), rng)
        parts[split] = split_data_of(world, world.vectors, split, rows_of(world, split, patients))
    films = films_of({s: parts[s] for s in LEARNED_FROM}, (Attribute(ATTRIBUTE, GROUPS, True),))
    return ClaimData(key.name, films, parts["test"])


def nih_data(
    folder: Path, *, n_patients: int | None = None, age_edges: tuple[float, ...] = AGE_EDGES, test_fifth: int = 0
) -> ClaimData:
    """Reads 22,433 images of test patients, each with the 14 logits of a public CheXNet as its vector.

    No image of them trained that model. They are parted by patient into train, validation, calibration and test.

    Args:
        folder: of the sample.
        n_patients: take this many at random, to try things.
        age_edges: lower edges of the age groups, in years.
        test_fifth: which fifth of the patients is test; 0 to 4 judge each patient once.
    """
    table = pd.read_csv(folder / PREDICTIONS, dtype={"patient_id": str, "image_id": str})
    names = tuple(c.removeprefix("true_") for c in table if c.startswith("true_"))
    probabilities = np.clip(table[[f"prob_{name}" for name in names]].to_numpy(np.float64), 1e-6, 1 - 1e-6)
    vectors = special.logit(probabilities)
    vectors = ((vectors - vectors.mean(0)) / vectors.std(0)).astype(np.float32)
    attributes = pd.DataFrame({"sex": table["sex"], "age_group": cut_ages(parse_ages(table["age"]), age_edges)})
    rng = np.random.default_rng(STREAM_SPLIT)
    patients = rng.permutation(table["patient_id"].unique())[:n_patients]
    place = ((np.arange(len(patients)) + 0.5) / len(patients) + test_fifth / 5) % 1
    split_of = pd.Series(np.searchsorted(SPLIT_SHARES, place), index=patients)
    split = table["patient_id"].map(split_of).fillna(-1).to_numpy()

    def part(index: int) -> SplitData:
        rows = np.flatnonzero(split == index)
        return SplitData(
            split=SPLITS[index],
            vectors=vectors[rows],
            labels=table.loc[rows, [f"true_{name}" for name in names]].to_numpy(np.float32),
            attributes=attributes.iloc[rows].reset_index(drop=True).astype(object),
            patient_id=table["patient_id"].to_numpy(object)[rows],
            label_names=names,
            image_id=table["image_id"].to_numpy(object)[rows],
        )

    parts = {name: part(index) for index, name in enumerate(SPLITS)}
    known = (Attribute("sex", ("F", "M"), True), Attribute("age_group", tuple(age_group_names(age_edges)), False))
    return ClaimData("NIH sample", films_of({s: parts[s] for s in LEARNED_FROM}, known), parts["test"])


def nih_table(folder: Path) -> SplitData:
    """Reads the whole official table, 112,120 films, for what balancing does to group sizes; it has no vectors (all are 0)."""
    table = pd.read_csv(folder / WHOLE_TABLE)
    age = next(c for c in table if "Age" in c)
    sex = next(c for c in table if "Gender" in c or "Sex" in c)
    findings = table["Finding Labels"].str.get_dummies("|").drop(columns="No Finding")
    attributes = pd.DataFrame({"sex": table[sex], "age_group": cut_ages(parse_ages(table[age]), AGE_EDGES)})
    return SplitData(
        split="train",
        vectors=np.zeros((len(table), 1), np.float32),
        labels=findings.to_numpy(np.float32),
        attributes=attributes.astype(object),
        patient_id=table["Patient ID"].astype(str).to_numpy(object),
        label_names=tuple(findings),
        image_id=table["Image Index"].to_numpy(object),
    )
