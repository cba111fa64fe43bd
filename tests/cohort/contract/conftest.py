"""A data set against which nothing can be said, with its files, vectors and fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biascxr.cohort.base import ParsedTable
from biascxr.cohort.contract import Evidence, Fit
from biascxr.config import SPLITS
from biascxr.containers import Attribute, Cohort, EmbeddingSet

N = 600
NAMES = ("Edema", "Mass", "No Finding", "Support Devices")
TRAINED = {"encoder": "x", "is_trained": True, "trained_on": "ImageNet"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Six hundred small files, all of them different, twenty a folder."""
    root = tmp_path_factory.mktemp("images")
    for i in range(N):
        place = root / f"p{i // 20:02d}"
        place.mkdir(exist_ok=True)
        (place / f"{i}.png").write_bytes(b"%04d" % i + b"x" * (100 + i % 7))
    return root


@pytest.fixture(scope="session")
def clean(folder) -> Evidence:
    """A cohort, its vectors and its fits, against which nothing can be said."""
    rng = np.random.default_rng(0)
    patient = np.arange(N) // 2
    split = np.array(SPLITS)[np.arange(N // 2) * 4 // (N // 2)]
    rng.shuffle(split)
    labels = pd.DataFrame((rng.random((N, 4)) < 0.4).astype(float), columns=NAMES)
    labels["No Finding"] = (~(labels[["Edema", "Mass"]] == 1).any(axis=1)).astype(float)
    table = pd.DataFrame(
        {
            "image_id": [f"secretimage{i}" for i in range(N)], "study_id": [f"secretstudy{i}" for i in range(N)],
            "patient_id": [f"secretpatient{p}" for p in patient], "path": [f"p{i // 20:02d}/{i}.png" for i in range(N)],
            "view": "PA", "age": rng.integers(20, 90, N).astype(float), "split": split[patient],
            "sex": rng.permutation(np.repeat(["F", "M"], N // 4))[patient],
        }
    )  # fmt: skip
    cohort = Cohort(
        table, labels.to_numpy(np.float32), NAMES, (Attribute("sex", ("F", "M"), True),), "generic", "image", folder
    )
    vectors = np.maximum(rng.normal(1, 1, (N, 24)), 0).astype(np.float32)  # as after a ReLU: nothing below zero
    embeddings = EmbeddingSet(table["image_id"].to_numpy(object), np.zeros(N, np.int32), vectors, TRAINED)
    fits = (Fit("erm", "erm", frozenset(table["image_id"][table["split"] == "train"])),)
    return Evidence(ParsedTable(table, labels, folder), cohort, embeddings, fits, look_at_files=True, split_is_used=True)
