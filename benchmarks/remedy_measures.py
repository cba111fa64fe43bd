"""One world of `remedies.py`: every method is trained on its biased films and judged on its unbiased ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from remedy_losses import (
    Loss,
    balanced_errors,
    calibration,
    difference,
    leakage,
    log_losses,
    logits,
    macro_auroc,
    paired_covariance,
)
from remedy_methods import DECISION, ERM, LOG_LOSS, RECALIBRATED, Method
from remedy_worlds import N_LABELS, NOTHING, Films, Judged, RemedyWorld, WorldKey

from biascxr.metrics import decide, fixed_fpr_threshold
from biascxr.mitigation import SplitData, TrainedRecipe, train_recipe

LOSSES = (LOG_LOSS, RECALIBRATED, DECISION)
UNBIASED, BAYES = "erm on unbiased data", "Bayes"
ALL, MARKED = "all findings", "marked finding"
MARKED_LABEL = 0


@dataclass(frozen=True)
class Outcome:
    """What a method says of the films that are judged.

    Attributes:
        scores: `[n, L]`, its probabilities.
        recalibrated: `[n, L]`, after one global Platt scaling; a calibrator's own where that is the method.
        flagged: `[n, L]`, the chance that its rule flags a film.
        vectors: `[n, d']`, what its head is given, where it changes that.
        seconds: to fit.
    """

    scores: np.ndarray
    recalibrated: np.ndarray
    flagged: np.ndarray
    vectors: np.ndarray | None
    seconds: float


def findings_of(key: WorldKey) -> dict[str, list[int]]:
    """Returns which findings a world is judged on: under `acquisition` the marked one, as its marker goes with no other."""
    both = {ALL: list(range(N_LABELS)), MARKED: [MARKED_LABEL]}
    if key.mechanism == NOTHING:
        return both
    return {MARKED: both[MARKED]} if key.mechanism == "acquisition" else {ALL: both[ALL]}


def trained_outcome(method: Method, films: Films, judged: Judged, seed: int) -> tuple[Outcome, TrainedRecipe]:
    """Trains a method of the first three slots."""
    started = time.perf_counter()
    trained, _ = train_recipe(method.recipe(), films.cohort, films.parts["train"], films.parts, seed=seed)
    seconds = time.perf_counter() - started
    raw = trained.raw_scores(judged.vectors, judged.attributes)
    recalibrated = trained.calibrate(raw, judged.attributes)
    flagged = trained.rule.flag_probability(recalibrated, judged.attributes, trained.label_names)
    vectors = judged.vectors
    for transform in trained.representations:
        vectors = transform.transform(vectors, judged.attributes)
    return Outcome(raw, recalibrated, flagged, vectors if method.slot == "representation" else None, seconds), trained


def decided_outcome(method: Method, calibration_rows: SplitData, of_erm: np.ndarray, erm: Outcome, judged: Judged) -> Outcome:
    """Fits a method of the decision slot to the scores of `erm`.

    Args:
        method: a calibrator or a rule.
        calibration_rows: the biased calibration films.
        of_erm: `[m, L]`, the scores of `erm` on them.
        erm: what `erm` says of the films that are judged.
        judged: those films.
    """
    started = time.perf_counter()
    *calibrators, rule = method.recipe().members("decision")
    fitted, scores, names = of_erm, erm.scores, calibration_rows.label_names
    for calibrator in calibrators:
        fitted = calibrator.fit(calibration_rows, fitted).calibrate(fitted, calibration_rows.attributes, names)
        scores = calibrator.calibrate(scores, judged.attributes, names)
    rule.fit(calibration_rows, fitted)
    flagged = rule.flag_probability(scores, judged.attributes, names)
    recalibrated = scores if calibrators else erm.recalibrated
    return Outcome(scores, recalibrated, flagged, None, time.perf_counter() - started)


def outcomes(world: RemedyWorld, methods: list[Method]) -> Iterator[tuple[Method, str, Outcome]]:
    """Yields (method, its name in the table, what it says), `erm` on biased and on unbiased films first."""
    judged, seed = world.judged, world.key.seed
    plain, trained = trained_outcome(ERM, world.biased, judged, seed)
    yield ERM, ERM.name, plain
    if world.key.mechanism != NOTHING:
        yield ERM, UNBIASED, trained_outcome(ERM, world.unbiased, judged, seed)[0]
    rows = world.biased.parts["calibration"]
    of_erm = trained.raw_scores(rows.vectors, rows.attributes)
    for method in methods:
        if method.slot == "decision":
            yield method, method.name, decided_outcome(method, rows, of_erm, plain, judged)
        else:
            yield method, method.name, trained_outcome(method, world.biased, judged, seed)[0]


def measure(world: RemedyWorld, methods: list[Method]) -> pd.DataFrame:
    """Returns a row for each method and set of findings.

    Columns, beside who and where: the three losses in the group and, with `others_` before them, in everyone else; for each
    loss `var_gain_`, `var_excess_` and `cov_`, the variances and covariance, over samples of patients, of what the method
    gains on `erm` and of what `erm` on unbiased data does; `auroc`, `citl`, `ece` (of the group), `leak_scores`,
    `leak_vectors`, `seconds`.
    """
    judged, found = world.judged, []
    reference: dict[str, dict[str, dict[str, Loss]]] = {}
    for method, name, outcome in outcomes(world, methods):
        leaks = {"leak_scores": leakage(logits(outcome.scores), judged.in_group, judged.patient, seed=world.key.seed)}
        vectors = judged.vectors if name == ERM.name else outcome.vectors
        if vectors is not None:
            leaks["leak_vectors"] = leakage(vectors, judged.in_group, judged.patient, seed=world.key.seed)
        for title, findings in findings_of(world.key).items():
            losses = {loss: _loss(loss, outcome, judged, findings, judged.in_group) for loss in LOSSES}
            others = {loss: _loss(loss, outcome, judged, findings, ~judged.in_group).value for loss in LOSSES}
            if name in (ERM.name, UNBIASED):
                reference.setdefault(title, {})[name] = losses
            found.append(
                _who(world.key, name, method, title)
                | {loss: losses[loss].value for loss in LOSSES}
                | {f"others_{loss}": value for loss, value in others.items()}
                | _spreads(losses, reference[title])
                | _quality(outcome, judged, findings)
                | leaks
                | {"seconds": outcome.seconds}
            )
    for title, findings in findings_of(world.key).items():
        found.append(_who(world.key, BAYES, ERM, title) | _bayes(judged, findings))
    return pd.DataFrame(found)


def _who(key: WorldKey, name: str, method: Method, findings: str) -> dict:
    return vars(key) | {"findings": findings, "method": name, "slot": method.slot}


def _loss(loss: str, outcome: Outcome, judged: Judged, findings: list[int], rows: np.ndarray) -> Loss:
    labels, patient = judged.labels[np.ix_(rows, findings)], judged.patient[rows]
    if loss == DECISION:
        return balanced_errors(labels, outcome.flagged[np.ix_(rows, findings)], patient)
    scores = outcome.scores if loss == LOG_LOSS else outcome.recalibrated
    return log_losses(labels, scores[np.ix_(rows, findings)], patient)


def _spreads(losses: dict[str, Loss], reference: dict[str, dict[str, Loss]]) -> dict[str, float]:
    spreads = {}
    for loss, own in losses.items():
        gain = difference(reference[ERM.name][loss], own)
        excess = difference(reference[ERM.name][loss], reference.get(UNBIASED, reference[ERM.name])[loss])
        spreads |= {
            f"var_gain_{loss}": paired_covariance(gain, gain),
            f"var_excess_{loss}": paired_covariance(excess, excess),
            f"cov_{loss}": paired_covariance(gain, excess),
        }
    return spreads


def _quality(outcome: Outcome, judged: Judged, findings: list[int]) -> dict[str, float]:
    auroc = macro_auroc(judged.labels[:, findings], outcome.scores[:, findings], judged.patient)
    rows = np.ix_(judged.in_group, findings)
    large, ece = calibration(judged.labels[rows], outcome.scores[rows], judged.patient[judged.in_group])
    return {"auroc": auroc, "citl": large, "ece": ece}


def _bayes(judged: Judged, findings: list[int]) -> dict[str, float]:
    """The losses of the best scores there are, at an overall FPR of 0.20 on these films: what nobody can close."""
    thresholds = [fixed_fpr_threshold(y, s, fpr=0.20) for y, s in zip(judged.labels.T, judged.bayes_scores.T, strict=True)]
    best = Outcome(judged.bayes_scores, judged.bayes_scores, decide(judged.bayes_scores, np.array(thresholds)), None, 0.0)
    own = {loss: _loss(loss, best, judged, findings, judged.in_group).value for loss in LOSSES}
    others = {f"others_{loss}": _loss(loss, best, judged, findings, ~judged.in_group).value for loss in LOSSES}
    return own | others | _quality(best, judged, findings)
