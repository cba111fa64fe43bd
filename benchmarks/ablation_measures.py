"""What `ablations.py` measures of a line: the papers' own gaps between groups, and what decisions owe to what was recorded."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
from ablation_lines import Line
from ablation_worlds import AblationWorld, JudgedFilms

from biascxr.containers import UNKNOWN
from biascxr.metrics import auroc_replicates, rate_replicates
from biascxr.mitigation import TrainedRecipe, train_recipe
from biascxr.mitigation.flips import MACRO, attribute_flips

MIN_POSITIVES = 10  # films of a group; a TPR of three positives is noise


def fairness(
    labels: np.ndarray, scores: np.ndarray, decisions: np.ndarray, group: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The gaps that the papers report, under many weightings at once.

    - `delta_eo`: mean over findings of `max(max_g TPR - min_g TPR, max_g TNR - min_g TNR)` (FairREAD; Hardt et al., NeurIPS
      2016);
    - `delta_auc`: mean over findings of `max_g AUROC_g - min_g AUROC_g` (FairREAD; Zong et al., MEDFAIR, ICLR 2023);
    - `auroc`: mean over findings, all films together, also those whose group is unknown;
    - `bnsp_sd`: standard deviation over groups of P(score of a positive of g > score of a negative of another group), the mean
      over findings of each group first (Borkan et al., 2019; the causal paper pools findings, whose scores differ in level).

    Args:
        labels: `[n, L]` in {0, 1}.
        scores: `[n, L]`.
        decisions: `[n, L]` in {0, 1, NaN}.
        group: `[n]` texts; `"unknown"` is in no group.
        weights: `[R, n]`.

    Returns:
        `[R]` each; NaN where no finding has `MIN_POSITIVES` positive and negative films in every one of two groups or more.
    """
    names = [name for name in np.unique(group.astype(str)) if name != UNKNOWN]
    members = [np.flatnonzero(group.astype(str) == name) for name in names]
    known = np.concatenate(members) if members else np.zeros(0, int)
    counts = np.array(
        [[min((labels[own] == k).sum(axis=0)[j] for k in (0, 1)) for j in range(labels.shape[1])] for own in members]
    )
    measurable = np.flatnonzero((counts >= MIN_POSITIVES).all(axis=0)) if len(members) > 1 else np.zeros(0, int)
    found = {"auroc": _mean([auroc_replicates(y, s, weights) for y, s in zip(labels.T, scores.T, strict=True)], weights)}
    odds, gaps, crossed = [], [], []
    for j in measurable:
        y, s, d = labels[:, j], scores[:, j], decisions[:, j]
        rates = [np.stack([rate_replicates(r, y[own], d[own], weights[:, own]) for own in members]) for r in ("TPR", "FPR")]
        odds.append(np.max([np.ptp(of_groups, axis=0) for of_groups in rates], axis=0))  # the gap of FPR is that of TNR
        gaps.append(np.ptp([auroc_replicates(y[own], s[own], weights[:, own]) for own in members], axis=0))
        crossed.append([_crossed(y[known], s[known], np.isin(known, own), weights[:, known]) for own in members])
    found |= {"delta_eo": _mean(odds, weights), "delta_auc": _mean(gaps, weights)}
    nowhere = np.full(len(weights), np.nan)
    return found | {"bnsp_sd": np.mean(crossed, axis=0).std(axis=0) if crossed else nowhere}


def _crossed(y: np.ndarray, score: np.ndarray, in_group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC `[R]` of a group's positives against everyone else's negatives (`metrics.bnsp_auroc`)."""
    rows = np.where(y == 1, in_group, ~in_group)
    return auroc_replicates(y[rows], score[rows], weights[:, rows])


def _mean(values: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Mean over findings `[k][R] -> [R]` of those that are defined; NaN where none is."""
    table = np.array(values).reshape(len(values), len(weights))
    n = (~np.isnan(table)).sum(axis=0)
    return np.divide(np.nansum(table, axis=0), n, out=np.full(len(weights), np.nan), where=n > 0)


def once_per_patient(patient: np.ndarray) -> np.ndarray:
    """Returns weights `[1, n]`: one for each patient, shared by the patient's films."""
    _, of, counts = np.unique(patient.astype(str), return_inverse=True, return_counts=True)
    return 1.0 / counts[of][None]


def flip_rate(trained: TrainedRecipe, judged: JudgedFilms) -> float:
    """Share of decisions that change where a recorded attribute is another: the mean over findings, groups and attributes."""
    flips = attribute_flips(trained, judged.vectors, judged.attributes, judged.patient)
    own = flips[(flips["label"] == MACRO) & (flips["part"] == "all") & (flips["value"] != UNKNOWN)]
    return float(own["flip_rate"].mean()) if len(own) else 0.0


def trained_lines(world: AblationWorld, lines: list[Line]) -> Iterator[tuple[Line, TrainedRecipe, float]]:
    """Yields (line, trained recipe, seconds to train). Lines that differ in their rule share a head."""
    rows, heads = world.films.parts["calibration"], {}
    for line in lines:
        recipe = line.recipe(world.attributes)
        if line.head() not in heads:
            started = time.perf_counter()
            films = world.films
            trained, _ = train_recipe(recipe, films.cohort, films.parts["train"], films.parts, seed=world.key.seed)
            heads[line.head()] = trained, time.perf_counter() - started
        trained, seconds = heads[line.head()]
        (rule,) = recipe.members("decision")
        rule.fit(rows, trained.score(rows.vectors, rows.attributes))
        yield line, dataclasses.replace(trained, recipe=recipe, rule=rule), seconds


def measure(world: AblationWorld, lines: list[Line]) -> pd.DataFrame:
    """Returns a row for each line and set of films that it is judged on: who, the measures, `flips`, `notes`, `seconds`."""
    found = []
    for line, trained, seconds in trained_lines(world, lines):
        for judged, films in world.judged.items():
            scores = trained.score(films.vectors, films.attributes)
            decisions = trained.decide(scores, films.attributes)
            values = fairness(films.labels, scores, decisions, films.group, once_per_patient(films.patient))
            about = {"world": world.key.mechanism, "seed": world.key.seed, "judged": judged, "line": line.name}
            values = {name: float(value[0]) for name, value in values.items()}
            notes = "; ".join(trained.facts["notes"]["training"])
            found.append(about | values | {"flips": flip_rate(trained, films), "seconds": seconds, "notes": notes})
    return pd.DataFrame(found)
