"""`biascxr select` and `biascxr power`: which of many models to take, and which gap could be seen at all."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.audit.build import check_alike, match_rows
from biascxr.audit.cells import Cells, measure_cells
from biascxr.audit.groups import ALL, OVERALL, find_groups
from biascxr.audit.operating_points import fit_thresholds
from biascxr.audit.power_tables import power_from_sizes, power_table
from biascxr.audit.read import PredictionFile, parse_predictions, read_predictions
from biascxr.audit.read_table import read_table
from biascxr.audit.selection import SelectionResult, regret_elsewhere, selection_table
from biascxr.audit.tables import compared_groups, macro_labels, macro_values
from biascxr.config import SPLITS, AuditConfig
from biascxr.containers import Predictions
from biascxr.errors import InputError, unknown_name
from biascxr.metrics.base import METRICS
from biascxr.metrics.resampling import resample_patients
from biascxr.verb_config import PowerConfig, SelectConfig

logger = logging.getLogger("biascxr")

_, VALIDATION, CALIBRATION, TEST = SPLITS


def select_files(config: SelectConfig) -> tuple[SelectionResult, pd.DataFrame | None]:
    """Chooses on validation rows, where there are any (else on all), and measures the regret on test rows.

    Raises:
        InputError: fewer than two candidates, a metric that does not serve, an attribute that is not there,
            candidates that are not about the same images and labels.
    """
    if not config.predictions or not config.attribute:
        raise InputError("Give candidates and an attribute: --predictions a.csv b.csv --attribute sex.")
    if config.metric not in METRICS:
        raise unknown_name("metric", config.metric, METRICS)
    if METRICS[config.metric].better != "higher" or METRICS[config.metric].of_group:
        known = [m for m, metric in METRICS.items() if metric.better == "higher" and not metric.of_group]
        raise InputError(f"--metric must be one where higher is better: {', '.join(known)}; got {config.metric}.")
    candidates: dict[str, Predictions] = {}
    for path in config.predictions:
        read = read_predictions(path, attributes=(config.attribute,), labels=config.labels)
        _tell(read, path)
        for name, p in read.predictions.items():
            key = name if name not in candidates else f"{name} ({path.name})"
            candidates[key] = match_rows(p, next(iter(candidates.values()))) if candidates else p
    if len(candidates) < 2:
        raise InputError(
            f"There is one candidate only ({', '.join(candidates)}): give several files, or one with a recipe column."
        )
    check_alike(candidates)
    leakage = _leakage(config.leakage)
    splits = set(next(iter(candidates.values())).table["split"])
    choose_on = VALIDATION if VALIDATION in splits else None
    values = _values(candidates, choose_on, config)
    made = selection_table(values, attribute=config.attribute, leakage=leakage)
    if choose_on is None or TEST not in splits:
        return made, None
    return made, regret_elsewhere(made.chosen, _values(candidates, TEST, config), leakage=leakage)


def _leakage(path: Path | None) -> dict[str, float] | None:
    if path is None:
        return None
    frame = read_table(path)
    if not {"candidate", "value"} <= set(frame):
        raise InputError(f"--leakage {path.name} needs the columns candidate and value; it has {', '.join(frame)}.")
    return dict(zip(frame["candidate"].astype(str), frame["value"].astype(float), strict=True))


def _values(candidates: dict[str, Predictions], split: str | None, config: SelectConfig) -> pd.DataFrame:
    """Returns `candidate, attribute, group, value`: averages over the findings that all groups can be measured on."""
    audit = AuditConfig(min_patients=config.min_patients)
    measured: dict[str, Cells] = {}
    for name, predictions in candidates.items():
        own = predictions if split is None else predictions.in_split(split)
        if METRICS[config.metric].reads == "decision" and own.decisions is None:
            if CALIBRATION not in set(predictions.table["split"]):
                raise InputError(
                    f"{config.metric} needs decisions: give decision_<label> columns, or rows of a calibration split."
                )
            own = replace(own, decisions=fit_thresholds(predictions.in_split(CALIBRATION), "fixed_fpr").decide(own))
        attribute = own.attributes[0]
        groups = find_groups(own, (attribute,))
        resamples = resample_patients(own.table["patient_id"], 0, seed=0)
        measured[name] = measure_cells(own, groups, resamples, (config.metric,))
    # The same groups and findings for all: what a metric rests on can depend on the decisions (a PPV's flagged patients).
    shared = [set(compared_groups(cells, groups, attribute, config.metric, audit)) for cells in measured.values()]
    names = [g for g in attribute.groups if all(g in own for own in shared)]
    if len(names) < 2:
        raise InputError(
            f"Fewer than two groups of {config.attribute} have {config.min_patients} patients: nothing to compare."
        )
    columns = [groups.index(OVERALL, ALL), *(groups.index(attribute.name, g) for g in names)]
    labels = np.logical_and.reduce([macro_labels(cells, config.metric, columns) for cells in measured.values()])
    return pd.DataFrame(
        {"candidate": name, "attribute": where, "group": group, "value": value}
        for name, cells in measured.items()
        for (where, group), value in zip(
            [(OVERALL, ALL), *((attribute.name, g) for g in names)],
            macro_values(cells, config.metric, labels, columns)[:, 0],
            strict=True,
        )
    )


def _tell(read: PredictionFile, path: Path) -> None:
    """Says what was derived or left out of a table, and what to look into."""
    for line in (*read.notes, *read.warnings):
        logger.info("%s: %s", path.name, line)


def power_of_config(config: PowerConfig) -> pd.DataFrame:
    """Returns the table of `power_table` or `power_from_sizes`.

    Raises:
        InputError: neither a table nor sizes, or they cannot be used.
    """
    shared = {
        "rates": {"TPR": config.tpr, "FPR": config.fpr, "AUROC": config.auroc}, "icc": config.icc, "power": config.power,
        "alpha": config.alpha,
    }  # fmt: skip
    if config.table is None:
        if not config.sizes:
            raise InputError("Give a table (--table meta.csv --attributes sex) or group sizes (--sizes WHITE=900 BLACK=150).")
        return power_from_sizes(
            _sizes(config.sizes), config.prevalence, images_per_patient=config.images_per_patient,
            n_tests=config.n_tests or 1, **shared,
        )  # fmt: skip
    frame = read_table(config.table)
    labels = [c for c in frame if c.startswith("true_")]
    if not labels:
        raise InputError(f"{config.table.name} needs true_<label> columns with 0, 1 or blank.")
    for label in labels:  # scores are not needed to plan; the reader wants a column
        frame[label.replace("true_", "prob_", 1)] = np.where(frame[label].isna(), np.nan, 0.5)
    frame = frame.drop(columns=[c for c in frame if c.startswith(("decision_", "recipe", "seed", "fold"))])
    read = parse_predictions(frame, attributes=config.attributes, age_bins=config.age_bins, duplicates="first")
    _tell(read, config.table)
    (rows,) = read.predictions.values()
    table = rows.table.assign(**{f"true_{name}": rows.y_true[:, i] for i, name in enumerate(rows.label_names)})
    return power_table(table, attributes=[a.name for a in rows.attributes], n_tests=config.n_tests, **shared)


def _sizes(texts: tuple[str, ...]) -> dict[str, int]:
    sizes = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not name or not number.strip().isdigit():
            raise InputError(f"--sizes takes GROUP=PATIENTS, for instance WHITE=900; got {text!r}.")
        sizes[name.strip()] = int(number)
    return sizes
