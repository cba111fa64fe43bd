"""A small made-up run: cohort, predictions of two recipes, and what every stage would hand to the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from leakage_tables import made_up_tables

from biascxr.audit import audit
from biascxr.config import AuditConfig, CohortConfig, EmbeddingsConfig, RunConfig, to_dict
from biascxr.containers import Attribute, Cohort, EmbeddingSet, Predictions
from biascxr.mitigation import balance_table, parse_recipes, split_data
from biascxr.mitigation.sampling import Sample
from biascxr.report import ReportInputs

LABELS = ("Edema", "Pleural Effusion")
SEX = Attribute("sex", ("F", "M"), True)
RACE = Attribute("race", ("WHITE", "BLACK", "ASIAN"), True)
N = 400
SPLITS = ("train", "validation", "calibration", "test")


def made_up_cohort(attributes: tuple[Attribute, ...]) -> Cohort:
    """400 images of 200 patients; ASIAN has 6 of them."""
    rng = np.random.default_rng(0)
    patient = np.arange(N) // 2
    race = np.where(np.arange(N // 2) % 34 == 0, "ASIAN", rng.choice(["WHITE", "BLACK", "unknown"], N // 2, p=[0.6, 0.3, 0.1]))
    table = pd.DataFrame(
        {
            "image_id": [f"secretimage{i:04d}" for i in range(N)],
            "study_id": [f"secretstudy{i:04d}" for i in range(N)],
            "patient_id": [f"secretpatient{p:04d}" for p in patient],
            "path": [f"secretfolder/file{i:04d}.jpg" for i in range(N)],
            "view": "PA",
            "split": rng.choice(SPLITS, N // 2, p=[0.4, 0.1, 0.1, 0.4])[patient],
            "age": rng.integers(20, 90, N).astype(float),
            "sex": rng.choice(SEX.groups, N // 2)[patient],
            "race": race[patient],
        }
    )
    labels = (rng.random((N, 2)) < [0.4, 0.25]).astype(np.float32)
    labels[::17, 1] = np.nan
    recorded = [
        {
            "label": name,
            "uncertain": 0,
            "blank": 0,
            "positive": int((labels[:, i] == 1).sum()),
            "negative": int((labels[:, i] == 0).sum()),
            "masked": int(np.isnan(labels[:, i]).sum()),
        }
        for i, name in enumerate(LABELS)
    ]
    accounting = {
        "rows_in_table": N + 7,
        "excluded": {"lateral view": 7},
        "rows_selected": N,
        "n_patients": N // 2,
        "uncertain_policy": "ignore",
        "blank_policy": "zeros",
        "labels": recorded,
        "masked_by_group": [],
        "notes": ["No insurance in this table: it is not audited."],
        "card": "A made-up table.",
    }
    return Cohort(
        table, labels, LABELS, attributes, "generic", "image", Path("/secretroot/images"), accounting
    )  # fmt: skip


def predictions_of(cohort: Cohort, recipe: str, *, seed: int) -> Predictions:
    """Scores that follow the labels, thresholds at .5."""
    keep = cohort.table["split"].to_numpy() == "test"
    y = cohort.labels[keep]
    noise = np.random.default_rng(seed).normal(0, 0.25, y.shape)
    scores = np.clip(np.where(np.isnan(y), 0.5, 0.35 + 0.3 * y) + noise, 0, 1).astype(np.float32)
    columns = ["image_id", "study_id", "patient_id", "split", *(a.name for a in cohort.attributes)]
    table = cohort.table.loc[keep, columns].reset_index(drop=True).assign(recipe=recipe, seed=0, fold=0)
    return Predictions(table, y, scores, LABELS, cohort.attributes, (scores >= 0.5).astype(np.float32))


def flips_table() -> pd.DataFrame:
    """What a recipe with a threshold per group would leave: 30 rows that were not F, and 4 that were not ASIAN."""
    rows = [
        {"label": label, "attribute": attribute, "value": value, "part": part, "n": 3 * n, "n_patients": n, "flip_rate": rate,
         "to_positive": rate, "to_negative": 0.0}
        for label in (*LABELS, "macro")
        for attribute, value, n in (("sex", "F", 30), ("race", "ASIAN", 4))
        for part, rate in (("scores", 0.0), ("thresholds", 0.125), ("all", 0.125))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def make_inputs(folder: Path, *, attributes=(SEX, RACE), recipes="erm, median_balance+erm", truth=None) -> ReportInputs:
    """Runs the light stages on the made-up cohort, writes what a run's folders hold, and gathers it."""
    cohort = made_up_cohort(attributes)
    vectors = np.random.default_rng(1).normal(size=(N, 4)).astype(np.float32)
    card = {"encoder": "densenet121", "weights": "random", "is_trained": False, "trained_on": "nothing", "vector_length": 4}
    embeddings = EmbeddingSet(cohort.table["image_id"].to_numpy(object), np.zeros(N, np.int32), vectors, card)
    config = RunConfig(
        csv_path=Path("/secretroot/meta.csv"),
        images_root=Path("/secretroot"),
        cohort=CohortConfig(
            companions=(Path("/secretroot/mimiciv"),),
            mapping=Path("/secretroot/m.yaml"),
            reference_labels=Path("/secretroot/r"),
        ),
        embeddings=EmbeddingsConfig(vectors=Path("/secretroot/v.npz")),
        audit=AuditConfig(n_replicates=60),
    )
    parsed = parse_recipes(recipes)
    predictions = {r.name: predictions_of(cohort, r.name, seed=i) for i, r in enumerate(parsed)}
    folders = {}
    train = split_data(cohort, embeddings, "train")
    for recipe in parsed:
        folders[recipe.name] = folder / "04_mitigation" / recipe.name
        folders[recipe.name].mkdir(parents=True)
        rows = np.arange(len(train)) if recipe.name == "erm" else np.arange(len(train)) // 2
        sample = Sample(rows, np.ones(len(train), np.float32))
        balance_table(train, sample).to_csv(folders[recipe.name] / "balance.csv", index=False)
        notes = {"sampling": ["target: 20 rows"], "representation": [], "training": ["took a second round"]}
        described = {"name": recipe.name, "slots": recipe.describe(), "seed": 0, "notes": notes}
        described["uses_attributes"] = recipe.name != "erm"
        if described["uses_attributes"]:
            flips_table().to_csv(folders[recipe.name] / "flips.csv", index=False)
        pd.Series(described).to_json(folders[recipe.name] / "recipe.json")
    for name in ("leakage", "audit", "records"):
        (folder / name).mkdir()
    made_up_tables(tuple(a.name for a in attributes), has_recipe=False).save(folder / "leakage")
    audit(list(predictions.values()), config.audit, seed=0).save(folder / "audit")
    (folder / "records" / "rejected.csv").write_text(
        "image_id,path,reason\nsecretimage9999,secretfolder/x.jpg,truncated (at 3)\n"
    )
    truth_file = None
    if truth is not None:
        truth_file = folder / "phantom.json"
        pd.Series(truth).to_json(truth_file)
    return ReportInputs.gather(
        cohort=cohort,
        used=cohort,
        card=card,
        predictions=predictions,
        recipe_folders=folders,
        leakage=folder / "leakage",
        audit=folder / "audit",
        rejected=folder / "records",
        truth=truth_file,
        config=to_dict(config),
        versions={"biascxr": "0", "python": "3"},
    )


@pytest.fixture(scope="session")
def make_report_inputs():
    """The function `make_inputs(folder, attributes=..., recipes=..., truth=...) -> ReportInputs`."""
    return make_inputs


@pytest.fixture(scope="session")
def report_inputs(tmp_path_factory) -> ReportInputs:
    """Inputs with two attributes and two recipes."""
    return make_inputs(tmp_path_factory.mktemp("run"))
