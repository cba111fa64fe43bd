"""Mitigation stage: one recipe, from vectors to predictions, through the four slots in order."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.cohort.contract import Evidence, Fit, check_contract, rules_about, settle_findings
from biascxr.containers import Cohort, EmbeddingSet, Predictions
from biascxr.errors import InputError
from biascxr.metrics import effective_n, gini_coefficient, normalized_entropy
from biascxr.mitigation.base import SplitData, split_data
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.decision import Calibrator, DecisionMember
from biascxr.mitigation.flips import attribute_flips
from biascxr.mitigation.recipes import Recipe
from biascxr.mitigation.representation.base import Representation
from biascxr.mitigation.sampling import Sample, sample_in_order
from biascxr.mitigation.trained import TrainedRecipe
from biascxr.mitigation.training import Head

logger = logging.getLogger("biascxr")

PREDICTED_SPLITS = ("validation", "calibration", "test")
ON_TRAINING_SCORES = (
    "fitted on the scores of the training films, as FairREAD's code does, to reproduce it; the head has learned from these "
    "films, so its errors elsewhere are others"
)


def run_recipe(
    recipe: Recipe,
    cohort: Cohort,
    embeddings: EmbeddingSet,
    folder: Path,
    *,
    seed: int,
    fold: int = 0,
    views: EmbeddingSet | None = None,
    log_dir: Path | None = None,
    keep_model: bool = True,
) -> Predictions:
    """Trains one recipe and predicts the validation, calibration and test splits.

    Args:
        recipe: the methods.
        cohort: rows of `embeddings`, in the same order.
        embeddings: one vector per row.
        folder: where the trained parts, the balance table and the predictions are written; for recipes whose decisions use
            attributes `flips.csv` too (`attribute_flips`, on test rows).
        seed: seed of everything random.
        fold: which part of the patients was held out, for the predictions' table; the cohort's split says what is what.
        views: vectors of augmented views of training images, for a sampler that chooses among them.
        log_dir: folder of the TensorBoard scalars; emptied first.
        keep_model: write the trained parts too, not only the predictions and the balance table.

    Raises:
        InputError: a split has no row left.
    """
    data = {split: split_data(cohort, embeddings, split) for split in PREDICTED_SPLITS}
    whole = split_data(cohort, embeddings, "train", views=views)
    empty = [split for split, part in ({"train": whole} | data).items() if len(part) == 0]
    if empty:
        raise InputError(f"No usable image is left in: {', '.join(empty)}.")
    if log_dir is not None:
        shutil.rmtree(log_dir, ignore_errors=True)

    trained, sample = train_recipe(recipe, cohort, whole, data, seed=seed, log_dir=log_dir)
    if keep_model:
        trained.save(folder)
    balance_table(whole, sample).to_csv(folder / "balance.csv", index=False)
    scores = {split: trained.score(part.vectors, part.attributes) for split, part in data.items()}
    predictions = _predictions(trained, cohort, data, scores, seed, fold)
    predictions.save(folder / "predictions.parquet")
    if trained.uses_attributes:  # counted, not fitted, on the rows that are reported
        test = data["test"]
        flips = attribute_flips(trained, test.vectors, test.attributes, test.patient_id)
        flips.to_csv(folder / "flips.csv", index=False)
    for notes in trained.facts["notes"].values():
        for note in notes:
            logger.info("mitigation %s: %s", recipe.name, note)
    return predictions


def train_recipe(
    recipe: Recipe, cohort: Cohort, whole: SplitData, data: dict[str, SplitData], *, seed: int, log_dir: Path | None = None
) -> tuple[TrainedRecipe, Sample]:
    """Fits the four slots in order.

    Args:
        recipe: the methods.
        cohort: what the rows are of; the contract asks it whether anything was fitted on a test row.
        whole: the training split, augmented views behind the images.
        data: validation and calibration splits, by name; others are not looked at.
        seed: seed of everything random.
        log_dir: folder of the TensorBoard scalars.
    """
    samplers = recipe.members("sampling")
    sample = sample_in_order(samplers, whole, seed=seed)
    train, validation, calibration = sample.of(whole), data["validation"], data["calibration"]
    fits = [Fit(recipe.name, s.name, frozenset(whole.image_id)) for s in samplers]
    notes = {"sampling": sample.notes, "representation": (), "training": ()}

    n_features = train.vectors.shape[1]
    representations = recipe.members("representation")
    for transform in representations:
        transform.fit(train, sample.weights, seed=seed)
        fits.append(Fit(recipe.name, transform.name, frozenset(train.image_id)))
        notes["representation"] += transform.notes
        train, validation, calibration = (transform.applied_to(part) for part in (train, validation, calibration))

    (method,) = recipe.members("training")
    refit = None
    if method.uses_calibration:  # thresholds fitted on rows that the head has learned from would be too sure of themselves
        refit, calibration = calibration.halves(seed=seed)
    head = method.fit(train, sample.weights, validation, seed=seed, calibration=refit, log_dir=log_dir)
    notes["training"] = head.notes
    learned_from = [train, validation, *([refit] if refit is not None else [])]
    fits.append(Fit(recipe.name, method.name, frozenset().union(*(part.image_id for part in learned_from))))

    *calibrators, rule = members = recipe.members("decision")
    on_training = _transformed(whole.images(), representations) if any(m.fitted_on == "train" for m in members) else None
    fits += [
        Fit(recipe.name, member.name, frozenset(part.image_id))
        for member, part in _fit_decision(members, head, calibration, on_training)
    ]
    notes["decision"] = tuple(f"{m.name}: {ON_TRAINING_SCORES}" for m in members if m.fitted_on == "train")
    # By the images themselves, whatever the parts were told: nothing was fitted on a test row.
    settle_findings(check_contract(Evidence(cohort=cohort, fits=tuple(fits)), rules=rules_about("fits")))
    facts = {"seed": seed, "notes": notes}
    parts = (representations, head, calibrators, rule)
    return TrainedRecipe(recipe, cohort.label_names, n_features, *parts, facts), sample


def _fit_decision(
    members: list[DecisionMember], head: Head, calibration: SplitData, train: SplitData | None
) -> list[tuple[DecisionMember, SplitData]]:
    """Fits calibrators and the rule behind them, each on what those before it make of the scores.

    Args:
        members: the calibrators, then the rule.
        head: the trained head.
        calibration: transformed calibration rows.
        train: transformed training rows, where a member is to be fitted on these.

    Returns:
        Each member and what it was fitted on.
    """
    parts = {"calibration": calibration} | ({} if train is None else {"train": train})
    scores = {split: head.predict(part.vectors, part.attributes) for split, part in parts.items()}
    for member in members:
        member.fit(parts[member.fitted_on], scores[member.fitted_on])
        if isinstance(member, Calibrator):
            scores = {s: member.calibrate(scores[s], part.attributes, part.label_names) for s, part in parts.items()}
    return [(member, parts[member.fitted_on]) for member in members]


def _transformed(part: SplitData, representations: list[Representation]) -> SplitData:
    for transform in representations:
        part = transform.applied_to(part)
    return part


def _predictions(trained: TrainedRecipe, cohort: Cohort, data: dict, scores: dict, seed: int, fold: int) -> Predictions:
    rows = np.concatenate([cohort.split_rows(split) for split in PREDICTED_SPLITS])
    attributes = [a.name for a in cohort.attributes]
    table = cohort.table.iloc[rows][["image_id", "study_id", "patient_id", "split", "view", *attributes]].reset_index(drop=True)
    table.insert(4, "recipe", trained.recipe.name)
    table.insert(5, "seed", seed)
    table.insert(6, "fold", fold)
    stacked = np.concatenate([scores[split] for split in PREDICTED_SPLITS])
    return Predictions(
        table=table,
        y_true=np.concatenate([data[split].labels for split in PREDICTED_SPLITS]),
        scores=stacked,
        label_names=cohort.label_names,
        attributes=cohort.attributes,
        decisions=trained.decide(stacked, table[attributes]),
    )


def balance_table(train: SplitData, sample: Sample) -> pd.DataFrame:
    """How even are the groups before and after sampling?

    Returns:
        Columns `attribute` (each attribute, then `all crossed`), `when` (before, after), `n_groups`, `n_rows`, `gini`,
        `normalized_entropy`, `effective_n` (Kish, of the training rows' total weights), `max_copies` (of one row or view),
        `n_unknown`. Rows count by their weights. Rows with an unknown value are left out of Gini and entropy. No row where
        there is no attribute.
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
    is_image = (train.view_id == 0).astype(np.int64)
    copies = {"before": is_image, "after": np.bincount(sample.rows, minlength=len(train))}
    names = list(train.attributes)
    rows = []
    for title, crossed in [*((n, (n,)) for n in names), *([("all crossed", tuple(names))] if len(names) > 1 else [])]:
        cells = Cells.of(train.attributes, crossed)
        codes = cells.codes(train.attributes)
        known = codes >= 0
        for when, weights in (("before", is_image.astype(np.float64)), ("after", times)):
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
                    "max_copies": int(copies[when].max()),
                    "n_unknown": float(weights[~known].sum()),
                }
            )
    return pd.DataFrame(rows, columns=columns)
