"""Small predictions to audit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biascxr.containers import Attribute, Predictions

SEX = Attribute("sex", ("F", "M"), True)
RACE = Attribute("race", ("A", "B", "C"), True)


def predict(
    y_true, scores, *, attributes=(SEX,), recipe="erm", decisions=None, patient_id=None, label_names=None, **groups
) -> Predictions:
    """Builds test predictions from arrays `[n, L]`; decisions default to a threshold of .5, every image is a patient."""
    y_true, scores = np.asarray(y_true, np.float32), np.asarray(scores, np.float32)
    n, n_labels = y_true.shape
    patient_id = np.arange(n).astype(str) if patient_id is None else patient_id
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)], "study_id": [f"s{i}" for i in range(n)], "patient_id": patient_id,
            "split": "test", "recipe": recipe, "seed": 0, "fold": 0, **groups,
        }
    )  # fmt: skip
    return Predictions(
        table=table,
        y_true=y_true,
        scores=scores,
        label_names=label_names or tuple(f"finding {i}" for i in range(n_labels)),
        attributes=attributes,
        decisions=(scores >= 0.5).astype(np.float32) if decisions is None else np.asarray(decisions, np.float32),
    )


@pytest.fixture(scope="session")
def make_predictions():
    """The function `predict(y_true, scores, attributes=..., **group columns) -> Predictions`."""
    return predict


@pytest.fixture(scope="session")
def random_predictions():
    """Function `(seed, n=..., ...) -> Predictions` with two findings, two attributes, two images a patient, masked labels."""

    def make(seed: int = 0, n: int = 600, **options) -> Predictions:
        rng = np.random.default_rng(seed)
        y = (rng.random((n, 2)) < [0.3, 0.4]).astype(float)
        scores = np.clip(rng.normal(0.35 + 0.3 * y, 0.2), 0, 1)
        y[rng.random((n, 2)) < 0.05] = np.nan
        patient = np.arange(n) // 2
        options = {
            "attributes": (SEX, RACE),
            "patient_id": patient.astype(str),
            "sex": rng.choice(["F", "M", "unknown"], n // 2, p=[0.5, 0.4, 0.1])[patient],
            "race": rng.choice(["A", "B", "C"], n // 2, p=[0.6, 0.3, 0.1])[patient],
        } | options
        return predict(y, scores, **options)

    return make


@pytest.fixture(scope="session")
def unequal_predictions():
    """Function `(seed, n_patients=..., signal=..., ...) -> Predictions`: groups A, B, C of two images a patient, one finding.

    `signal` is how far positives of A, B, C score above negatives, in standard deviations; the threshold is .5.
    """

    def make(seed: int = 0, n_patients: int = 900, *, signal=(2.0, 2.0, 1.0), prevalence=(0.4, 0.4, 0.4), **options):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(n_patients), 2)
        group = rng.choice(3, n_patients, p=[0.4, 0.3, 0.3])[patient]
        y = (rng.random(len(patient)) < np.array(prevalence)[group]).astype(float)
        tendency = rng.normal(0, 0.5, n_patients)[patient]
        score = np.array(signal)[group] * y - 1.0 + tendency + rng.normal(0, np.sqrt(0.75), len(patient))
        options = {"race": np.array(["A", "B", "C"])[group], "patient_id": patient.astype(str), "attributes": (RACE,)} | options
        return predict(y[:, None], 1 / (1 + np.exp(-score))[:, None], **options)

    return make
