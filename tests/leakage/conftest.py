"""A made-up cohort in which race moves one column of the vectors and sex moves nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biascxr.containers import Attribute, Cohort, EmbeddingSet

N = 900


@pytest.fixture(scope="session")
def made_up():
    """Function `(seed, strength=..., identity=..., n=...) -> (Cohort, EmbeddingSet)`.

    Three images a patient; race moves the first column by `strength`, sex moves nothing; 8 % unknown race. A finding of
    prevalence one third moves the second column. `identity` is the size of a patient's own fingerprint in the vectors.
    """

    def make(seed: int = 0, *, strength: float = 2.0, identity: float = 0.0, n: int = N) -> tuple[Cohort, EmbeddingSet]:
        rng = np.random.default_rng(seed)
        patient = np.arange(n) // 3
        race = rng.choice(["A", "B", "C", "unknown"], n // 3, p=[0.5, 0.27, 0.15, 0.08])[patient]
        sex = rng.choice(["F", "M"], n // 3)[patient]
        table = pd.DataFrame(
            {
                "image_id": [f"i{i}" for i in range(n)], "study_id": "s", "patient_id": [f"p{p}" for p in patient],
                "path": "x.jpg", "view": rng.choice(["AP", "PA"], n), "race": race, "sex": sex,
                "age": rng.uniform(20, 90, n // 3)[patient],
                "split": rng.choice(["train", "validation", "test"], n // 3, p=[0.6, 0.1, 0.3])[patient],
            }
        )  # fmt: skip
        labels = (rng.random((n, 1)) < 1 / 3).astype(np.float32)
        vectors = rng.normal(size=(n, 6)) + identity * rng.normal(size=(n // 3, 6))[patient]
        vectors[:, 0] += strength * (race == "B") - strength * (race == "C")
        vectors[:, 1] += 1.5 * labels[:, 0]
        attributes = (Attribute("race", ("A", "B", "C"), True), Attribute("sex", ("F", "M"), True))
        cohort = Cohort(table, labels, ("x",), attributes, "generic", "image", ".")
        ids = table["image_id"].to_numpy(object)
        return cohort, EmbeddingSet(ids, np.zeros(n, np.int32), vectors.astype(np.float32), {})

    return make
