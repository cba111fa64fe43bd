"""Small split data for the four slots."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biascxr.mitigation import SplitData


def make_split(split: str = "train", *, n: int = 60, d: int = 16, n_labels: int = 3, seed: int = 0, **attributes) -> SplitData:
    """Rows whose labels can be read from the vectors; some attributes unknown, some labels masked.

    With more than one label the last one has no positive at all.
    """
    rng = np.random.default_rng([seed, len(split)])
    labels = (rng.random((n, n_labels)) < 0.4).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    if n_labels > 1:
        labels[:, -1] = 0
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    vectors[:, 0] += 3 * np.nan_to_num(labels[:, 0])
    columns = {
        "sex": rng.choice(["F", "M", "unknown"], n, p=[0.5, 0.4, 0.1]),
        "race": rng.choice(["A", "B", "unknown"], n, p=[0.6, 0.2, 0.2]),
    }
    return SplitData(
        split=split,
        vectors=vectors,
        labels=labels,
        attributes=pd.DataFrame(attributes or columns),
        patient_id=np.array([f"{split}{i // 2}" for i in range(n)], object),
        label_names=tuple(f"finding {i}" for i in range(n_labels)),
        image_id=np.array([f"{split} image {i}" for i in range(n)], object),
    )


@pytest.fixture(scope="session")
def split_of():
    """The function `make_split(split, n=..., d=..., n_labels=..., seed=..., **attribute columns) -> SplitData`."""
    return make_split
