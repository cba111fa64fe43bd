"""The audit alone, on anybody's predictions: files in, tables out (`biascxr audit --predictions preds.csv`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.audit.build import AuditResult, audit, match_rows
from biascxr.audit.conclusions import changed_conclusions
from biascxr.audit.operating_points import FITS_NOTHING, OperatingPoints, fit_thresholds
from biascxr.audit.read import PredictionFile, read_predictions
from biascxr.audit.underdiagnosis import add_derived_no_finding
from biascxr.config import SPLITS
from biascxr.containers import Predictions
from biascxr.errors import InputError
from biascxr.verb_config import StandaloneConfig

_, _, CALIBRATION, TEST = SPLITS


@dataclass(frozen=True)
class StandaloneAudit:
    """What an audit of somebody's predictions found.

    Attributes:
        result: the tables.
        predictions: the audited rows per recipe, with decisions; the first is what others are compared with.
        subject: whose audit it is: the first set of `--predictions`, also where a baseline stands before it.
        thresholds: fitted thresholds: `recipe, fitted_on, label, attribute, group, threshold, ...`; empty where the table
            came with decisions.
        operating_point: in words, how decisions were made.
        notes: what was derived or left out, with counts.
        warnings: what a reader should look into.
        sensitivity: one line per other estimand: do the conclusions change?
    """

    result: AuditResult
    predictions: dict[str, Predictions]
    subject: str
    thresholds: pd.DataFrame
    operating_point: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    sensitivity: tuple[str, ...]


def audit_files(config: StandaloneConfig) -> StandaloneAudit:
    """Reads predictions, decides, audits.

    Raises:
        InputError: a file, column, attribute or label cannot be used; see `read_predictions`.
    """
    if config.predictions is None:
        raise InputError("Give a table of predictions with --predictions preds.csv.")
    decided = _decided(config, config.unit)
    result = audit(decided.predictions, config.audit_config(), seed=config.seed)
    sensitivity = _sensitivity(config, decided) if config.check_estimand else ()
    return StandaloneAudit(
        result,
        decided.predictions,
        decided.subject,
        decided.thresholds,
        decided.operating_point,
        decided.notes,
        decided.warnings,
        sensitivity,
    )


@dataclass(frozen=True)
class _Decided:
    predictions: dict[str, Predictions]
    subject: str
    thresholds: pd.DataFrame
    operating_point: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def _read(path: Path, config: StandaloneConfig, unit: str) -> PredictionFile:
    file = read_predictions(
        path, attributes=config.attributes, labels=config.labels, age_bins=config.age_bins, unit=unit,
        duplicates=config.duplicates, keep=config.adjust,
    )  # fmt: skip
    return replace(file, predictions={name: add_derived_no_finding(p) for name, p in file.predictions.items()})


def _decided(config: StandaloneConfig, unit: str) -> _Decided:
    sources = [(config.predictions, config.thresholds_from)]
    if config.baseline is not None:
        sources.insert(0, (config.baseline, config.baseline_thresholds_from))
    collected: dict[str, Predictions] = {}
    subject = None
    thresholds, notes, warnings, words = [], [], [], []
    for path, other in sources:
        file = _read(path, config, unit)
        prefix = f"{path.name}: " if len(sources) > 1 else ""
        notes += [prefix + note for note in file.notes]
        warnings += [prefix + warning for warning in file.warnings]
        fit_on = None
        if other is not None:
            given = _read(other, config, unit)
            fit_on = given.predictions
            notes += [f"{other.name}: {note}" for note in given.notes]
            warnings += [f"{other.name}: {warning}" for warning in given.warnings]
        for name, predictions in file.predictions.items():
            splits = sorted(set(predictions.table["split"]))
            if TEST not in splits:
                warnings.append(
                    f"{prefix}no row is of split {TEST!r} (there are {', '.join(splits)}), so all are audited: a model looks "
                    "better on what it was trained on."
                )
            made, points, how = _decide(predictions, name, fit_on, config)
            if name in collected:
                name = f"{name} (new)"  # a baseline and its successor under one name
            if path is config.predictions and subject is None:
                subject = name
            first = next(iter(collected.values()), None)
            collected[name] = made if first is None else match_rows(made, first)
            thresholds += [p.table.assign(recipe=name, fitted_on=source) for source, p in points]
            words.append(how)
    table = pd.concat(thresholds, ignore_index=True) if thresholds else pd.DataFrame(columns=["recipe", "fitted_on"])
    table = table[["recipe", "fitted_on", *(c for c in table if c not in ("recipe", "fitted_on"))]]
    named = {name: replace(p, table=p.table.assign(recipe=name)) for name, p in collected.items()}
    return _Decided(
        named, subject, table, " ".join(dict.fromkeys(words)), tuple(dict.fromkeys(notes)), tuple(dict.fromkeys(warnings))
    )


def _decide(
    predictions: Predictions, name: str, fit_on: dict[str, Predictions] | None, config: StandaloneConfig
) -> tuple[Predictions, list[tuple[str, OperatingPoints]], str]:
    """Returns the rows to audit with their decisions, the thresholds by where they were fitted, and how, in words."""
    splits = set(predictions.table["split"])
    test = predictions.in_split(TEST) if TEST in splits else predictions
    if predictions.decisions is not None and fit_on is None:
        return test, [], "Decisions are those of the table (decision_<label>)."
    test = replace(test, decisions=None)
    target = {"fixed_fpr": "FPR", "fixed_tpr": "TPR"}.get(config.threshold_rule)
    value = 0.20 if config.threshold_target is None and target == "FPR" else config.threshold_target
    rule = f"rule {config.threshold_rule}" + (f" ({target} {value:g} over everyone)" if target and value is not None else "")
    if config.threshold_attribute:
        rule += f", one per group of {config.threshold_attribute}"

    def fit(rows: Predictions) -> OperatingPoints:
        return fit_thresholds(rows, config.threshold_rule, target=config.threshold_target, attribute=config.threshold_attribute)

    if config.threshold_rule == FITS_NOTHING:
        points = fit(test)
        return replace(test, decisions=points.decide(test)), [("nothing", points)], "Flagged at a score of 0.5 or more."
    if fit_on is not None:
        if name not in fit_on and len(fit_on) > 1:
            raise InputError(f"--thresholds_from holds {', '.join(fit_on)}, but not {name!r}: thresholds are a recipe's own.")
        points = fit(fit_on.get(name, next(iter(fit_on.values()))))
        words = f"Thresholds were fitted on other patients, those of the table given for it: {rule}."
        return replace(test, decisions=points.decide(test)), [("other table", points)], words
    if CALIBRATION in splits and TEST in splits:
        points = fit(predictions.in_split(CALIBRATION))
        words = f"Thresholds were fitted on the calibration split: {rule}."
        return replace(test, decisions=points.decide(test)), [(CALIBRATION, points)], words
    return _cross_fitted(test, fit, rule, config.seed)


def _cross_fitted(test: Predictions, fit, rule: str, seed: int):
    """Each half of the patients is decided by thresholds fitted on the other: every row is audited, none decides itself."""
    patient, names = pd.factorize(test.table["patient_id"].astype(str))
    if len(names) < 2:
        raise InputError("Thresholds need other patients than those they are put to; the table has one patient.")
    in_first = np.zeros(len(names), bool)
    in_first[np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]] = True
    halves = [in_first[patient], ~in_first[patient]]
    decisions = np.full(test.scores.shape, np.nan, np.float32)
    points = []
    for i, own in enumerate(halves):
        fitted = fit(test.rows(~own))
        decisions[own] = fitted.decide(test.rows(own))
        points.append((f"half {2 - i} of the patients", fitted))
    words = f"Thresholds: two halves of the patients, each decided by thresholds fitted on the other half: {rule}."
    return replace(test, decisions=decisions), points, words


def _sensitivity(config: StandaloneConfig, decided: _Decided) -> tuple[str, ...]:
    """Audits again under the other estimands, tests only, and says which conclusions change."""
    lean = {
        "metrics": ("AUROC", "TPR", "FPR"),
        "n_permutations": 0,
        "adjust": (),
        "n_replicates": max(50, config.n_replicates // 4),
    }
    here = audit(decided.predictions, config.audit_config(**lean), seed=config.seed)
    other = {"image": "patient", "patient": "image"}[config.weight]
    weighed = audit(decided.predictions, config.audit_config(**lean, weight=other), seed=config.seed)
    lines = [f"If each {other} weighed the same instead: {changed_conclusions(here, weighed, config.confidence)}"]
    table = next(iter(decided.predictions.values())).table
    if config.unit == "image" and table["study_id"].nunique() < len(table):
        by_study = audit(_decided(config, "study").predictions, config.audit_config(**lean), seed=config.seed)
        lines.append(f"If studies were audited instead of images: {changed_conclusions(here, by_study, config.confidence)}")
    return tuple(lines)
