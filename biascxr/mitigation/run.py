"""Mitigation stage: one recipe, from vectors to predictions, through the four slots in order."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.cohort.contract import Evidence, Fit, check_contract, rules_about, settle_findings
from biascxr.containers import UNKNOWN, Cohort, EmbeddingSet, Predictions
from biascxr.errors import InputError
from biascxr.metrics import effective_n, gini_coefficient, normalized_entropy
from biascxr.mitigation.base import SplitData, cell_codes, split_data
from biascxr.mitigation.recipes import Recipe
from biascxr.mitigation.sampling import Sample

logger = logging.getLogger("biascxr")

PREDICTED_SPLITS = ("validation", "calibration", "test")


def run_recipe(
    recipe: Recipe, cohort: Cohort, embeddings: EmbeddingSet, folder: Path, *, seed: int, log_dir: Path | None = None
) -> Predictions:
    """Trains one recipe and predicts the validation, calibration and test splits.

    Args:
        recipe: the methods.
        cohort: rows of `embeddings`, in the same order.
        embeddings: one vector per row.
        folder: where the trained parts, the balance table and the predictions are written.
        seed: seed of everything random.
        log_dir: folder of the TensorBoard scalars; emptied first.

    Raises:
        InputError: a split has no row left.
    """
    data = {split: split_data(cohort, embeddings, split) for split in ("train", *PREDICTED_SPLITS)}
    empty = [split for split, part in data.items() if len(part) == 0]
    if empty:
        raise InputError(f"No usable image is left in: {', '.join(empty)}.")

    (sampler,) = recipe.members("sampling")
    sample = sampler.sample(data["train"], seed=seed)
    balance_table(data["train"], sample).to_csv(folder / "balance.csv", index=False)
    train = data["train"].take(sample.rows)

    fits = [Fit(recipe.name, sampler.name, frozenset(train.image_id))]
    for index, transform in enumerate(recipe.members("representation")):
        transform.fit(train, sample.weights)
        fits.append(Fit(recipe.name, transform.name, frozenset(train.image_id)))
        transform.save(folder / f"representation_{index}_{transform.name}.npz")
        train = _transformed(train, transform)
        data = {split: _transformed(part, transform) for split, part in data.items()}

    (method,) = recipe.members("training")
    if log_dir is not None:
        shutil.rmtree(log_dir, ignore_errors=True)
    head = method.fit(train, sample.weights, data["validation"], seed=seed, log_dir=log_dir)
    head.save(folder)

    learned_from = frozenset(train.image_id) | frozenset(data["validation"].image_id)
    fits += [Fit(recipe.name, method.name, learned_from)]
    scores = {split: head.predict(data[split].vectors) for split in PREDICTED_SPLITS}
    (rule,) = recipe.members("decision")
    rule.fit(data["calibration"], scores["calibration"])
    rule.thresholds.table.to_csv(folder / "thresholds.csv", index=False)
    fits.append(Fit(recipe.name, rule.name, frozenset(data["calibration"].image_id)))
    # By the images themselves, whatever the parts were told: nothing was fitted on a test row.
    settle_findings(check_contract(Evidence(cohort=cohort, fits=tuple(fits)), rules=rules_about("fits")))

    predictions = _predictions(recipe, cohort, data, scores, rule, seed)
    predictions.save(folder / "predictions.parquet")
    described = {"name": recipe.name, "slots": recipe.describe(), "seed": seed, "notes": {"sampling": sample.notes}}
    (folder / "recipe.json").write_text(json.dumps(described, indent=2), encoding="utf-8")
    for note in sample.notes:
        logger.info("mitigation %s: %s", recipe.name, note)
    return predictions


def _transformed(part: SplitData, transform) -> SplitData:
    return SplitData(**{**vars(part), "vectors": transform.transform(part.vectors)})


def _predictions(recipe: Recipe, cohort: Cohort, data: dict, scores: dict, rule, seed: int) -> Predictions:
    rows = np.concatenate([cohort.split_rows(split) for split in PREDICTED_SPLITS])
    attributes = [a.name for a in cohort.attributes]
    table = cohort.table.iloc[rows][["image_id", "study_id", "patient_id", "split", "view", *attributes]].reset_index(drop=True)
    table.insert(4, "recipe", recipe.name)
    table.insert(5, "seed", seed)
    table.insert(6, "fold", 0)
    stacked = np.concatenate([scores[split] for split in PREDICTED_SPLITS])
    return Predictions(
        table=table,
        y_true=np.concatenate([data[split].labels for split in PREDICTED_SPLITS]),
        scores=np.clip(stacked, 0.0, 1.0),
        label_names=cohort.label_names,
        attributes=cohort.attributes,
        decisions=rule.decide(stacked, table[attributes], cohort.label_names),
    )


def balance_table(train: SplitData, sample: Sample) -> pd.DataFrame:
    """How even are the groups before and after sampling?

    Returns:
        Columns `attribute` (each attribute, then `all crossed`), `when` (before, after), `n_groups`, `n_rows`, `gini`,
        `normalized_entropy`, `effective_n` (Kish, of the training rows' total weights), `max_copies`. Rows with an
        unknown value are left out of Gini and entropy. No row where there is no attribute.
    """
    columns = [
        "attribute",
        "when",
        "n_groups",
        "n_rows",
        "gini",
        "normalized_entropy",
        "effective_n",
        "max_copies",
        "n_unknown",
    ]
    times = np.bincount(sample.rows, weights=sample.weights, minlength=len(train))
    names = list(train.attributes)
    rows = []
    for title, crossed in [*((n, (n,)) for n in names), *([("all crossed", tuple(names))] if len(names) > 1 else [])]:
        codes, cells = cell_codes(train.attributes, crossed)
        known = codes >= 0
        for when, weights in (("before", np.ones(len(train))), ("after", times)):
            sizes = np.bincount(codes[known], weights=weights[known], minlength=len(cells))
            rows.append(
                {
                    "attribute": title,
                    "when": when,
                    "n_groups": len(cells),
                    "n_rows": float(weights.sum()),
                    "gini": gini_coefficient(sizes) if len(cells) else float("nan"),
                    "normalized_entropy": normalized_entropy(sizes),
                    "effective_n": effective_n(weights),
                    "max_copies": float(weights.max()),
                    "n_unknown": int((train.attributes[list(crossed)] == UNKNOWN).any(axis=1).sum()),
                }
            )
    return pd.DataFrame(rows, columns=columns)
