"""The leakage stage alone, of anybody's vectors: `biascxr leakage --embeddings vectors.npz --table meta.csv`."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from biascxr.config import to_dict
from biascxr.containers import Cohort, EmbeddingSet
from biascxr.embedding_store import STORE_FILES, check_store, open_store
from biascxr.errors import InputError
from biascxr.leakage import find_probe
from biascxr.leakage.build import measure_leakage
from biascxr.leakage.recipes import ScoredModel
from biascxr.run_folder import run_versions
from biascxr.standalone_table import StandaloneTable, read_standalone
from biascxr.verb_config import StandaloneLeakageConfig

FOLDS = 5  # of the patients, where the table does not tell train from test


def leakage_files(config: StandaloneLeakageConfig) -> Path:
    """Reads vectors and table, measures, writes tables, figures and page; files of an earlier call there are replaced.

    Returns:
        The folder.

    Raises:
        InputError: vectors or table cannot be read, or have no image in common.
    """
    from biascxr.report import write_leakage
    from biascxr.report.page import hide_few

    for name in ("embeddings", "table"):
        if getattr(config, name) is None:
            raise InputError("Give vectors with --embeddings vectors.npz and their table with --table meta.csv.")
    for name in config.probes:
        find_probe(name)  # a wrong name is said before anything long begins
    read = read_standalone(
        config.table, attributes=config.attributes, labels=config.labels, age_bins=config.age_bins, seed=config.seed
    )
    asked = config if read.has_split or config.leakage_folds > 1 else replace(config, leakage_folds=FOLDS)
    notes = list(read.notes)
    if asked is not config:
        notes.append(f"The table does not tell train from test: every row is judged once, in {FOLDS} folds of the patients.")
    with tempfile.TemporaryDirectory() as gathered:
        vectors = vectors_of(config.embeddings, read.cohort, Path(gathered))
        cohort = read.cohort.rows(vectors.image_id)
        if len(cohort) < len(read.cohort):
            notes.append(f"{len(read.cohort) - len(cohort):,} of {len(read.cohort):,} rows have no vector and are left out.")
        result = measure_leakage(
            cohort, vectors, asked, confidence=config.confidence, attributes=read.attributes,
            models=scored_models(read, vectors.image_id), seed=config.seed,
        )  # fmt: skip
        width = vectors.vectors.shape[1]
        del vectors  # its file goes with the folder
    folder = config.run_dir()
    facts = {
        "table": config.table.name,
        "vectors": config.embeddings.name,
        "numbers in a vector": width,
        "images": len(cohort),
        "patients": int(cohort.table["patient_id"].nunique()),
        "judged on": "the test rows"
        if asked.leakage_folds == 1
        else f"every row, in {asked.leakage_folds} folds of the patients",
    }
    if notes:
        facts["about the table"] = hide_few(" ".join(dict.fromkeys(notes)))
    write_leakage(result, folder, title=f"Leakage: {config.table.name}", facts=facts)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")
    (folder / "versions.json").write_text(json.dumps(run_versions(), indent=2), encoding="utf-8")
    return folder


def scored_models(read: StandaloneTable, image_id: np.ndarray) -> list[ScoredModel]:
    """Returns the classifier whose scores the table holds, if any, on the rows that have a vector."""
    if read.predictions is None:
        return []
    there = np.isin(read.predictions.table["image_id"].to_numpy(object), image_id)
    return [ScoredModel("scores of the table", read.predictions.rows(there))]


def vectors_of(path: Path, cohort: Cohort, folder: Path) -> EmbeddingSet:
    """Returns the vectors of the cohort's images, in its order; images without one are left out.

    Args:
        path: a store's folder, or whatever `biascxr.embeddings.vectors.open_vectors` reads.
        cohort: gives the images.
        folder: where they are gathered.

    Raises:
        InputError: they cannot be read, or are of other images.
    """
    path = Path(path)
    if path.is_dir() and any((path / name).is_file() for name in STORE_FILES[1:]):
        check_store(path)
        return open_store(path, cohort, folder)
    from biascxr.embeddings.precomputed import gather_from
    from biascxr.embeddings.vectors import open_vectors

    return gather_from(open_vectors(path), cohort, folder)
