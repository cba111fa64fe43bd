"""From a table to vectors: an encoder trained on a run's records tells findings better than random weights in the next run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from biascxr.cli import main
from biascxr.config import CohortConfig, EmbeddingsConfig, RecordsConfig, RunConfig
from biascxr.containers import Cohort, EmbeddingSet
from biascxr.metrics import auroc
from biascxr.phantom import PhantomConfig, make_phantom
from biascxr.pipeline import run

FINDINGS = ("Cardiomegaly", "Pleural Effusion")  # large enough to be seen at 64 pixels


def probe_auroc(folder) -> float:
    """Mean AUROC over the findings on test, of a logistic regression fitted on train."""
    linear = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    embeddings = EmbeddingSet.load(folder / "03_embeddings")
    cohort = Cohort.load(folder / "01_cohort").rows(embeddings.image_id)
    train, test = cohort.split_rows("train"), cohort.split_rows("test")
    scale = preprocessing.StandardScaler().fit(embeddings.vectors[train])
    values = []
    for i in range(len(cohort.label_names)):
        known = train[~np.isnan(cohort.labels[train, i])]
        probe = linear.LogisticRegression(C=0.01, max_iter=500)
        probe.fit(scale.transform(embeddings.vectors[known]), cohort.labels[known, i])
        values.append(auroc(cohort.labels[test, i], probe.decision_function(scale.transform(embeddings.vectors[test]))))
    return float(np.mean(values))


@pytest.mark.slow
def test_an_encoder_trained_on_phantoms_beats_its_untrained_self(tmp_path):
    table = make_phantom(PhantomConfig(n_patients=250, seed=3, strength=0.0, image_size=64), tmp_path / "phantom", n_workers=1)

    def config(folder, weights="random", encoder="densenet121"):
        return RunConfig(
            csv_path=table,
            output_dir=tmp_path / folder,
            n_workers=1,
            cohort=CohortConfig(uncertain_policy="ignore", labels=FINDINGS, split_fractions=(0.55, 0.1, 0.05, 0.3)),
            records=RecordsConfig(image_size=64, rows_per_shard=64),
            embeddings=EmbeddingsConfig(encoder=encoder, weights=str(weights), inference_batch=16),
        )

    run(config("first"), until="records")
    flags = ["--run", str(tmp_path / "first"), "--architecture", "small", "--batch_size", "16"]
    for name, more in (("trained", ["--epochs", "12", "--learning_rate", "0.002"]), ("random", ["--epochs", "1"])):
        more += ["--learning_rate", "1e-9"] if name == "random" else []
        assert main(["train-encoder", *flags, *more, "--output", str(tmp_path / f"{name}.keras")]) == 0
    reached = {}
    for name in ("trained", "random"):
        run(config(name, tmp_path / f"{name}.keras"), until="embeddings")
        reached[name] = probe_auroc(tmp_path / name)
        findings = json.loads((tmp_path / name / "03_embeddings" / "findings.json").read_text())
        assert not [f for f in findings if f["rule"] == "encoder_saw_test_patients"]
    print(reached)
    assert reached["trained"] > reached["random"] + 0.05
    assert reached["trained"] > 0.75
