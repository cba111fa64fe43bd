"""Audit stage: predictions of several recipes on the same patients -> tidy tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from biascxr.audit.adjust import Adjustment
from biascxr.audit.adjusted import adjusted_table
from biascxr.audit.cells import MACRO, Cells, is_worth_compiling, measure_cells
from biascxr.audit.choices import choose_attributes, choose_metrics
from biascxr.audit.comparisons import COLUMNS as COMPARISON_COLUMNS
from biascxr.audit.comparisons import EQUALIZED_ODDS, GAP, comparison_table
from biascxr.audit.cross_auroc import cross_auroc_table
from biascxr.audit.equality import equality_table
from biascxr.audit.groups import find_groups
from biascxr.audit.read import parse_predictions
from biascxr.audit.tables import gaps_table, metrics_table
from biascxr.audit.verdicts import verdict
from biascxr.config import AuditConfig
from biascxr.containers import EXACT_DIGITS, Predictions
from biascxr.errors import InputError
from biascxr.metrics.base import METRICS
from biascxr.metrics.resampling import resample_patients
from biascxr.metrics.significance import adjust_p_values

logger = logging.getLogger("biascxr")

TABLES = ("metrics", "gaps", "tests", "comparisons", "cross_auroc", "adjusted")


@dataclass(frozen=True)
class AuditResult:
    """Tidy tables, one row per recipe, label, attribute, group and metric.

    Attributes:
        metrics: value, interval, signed difference from everyone else (see `tables.metrics_table`).
        gaps: max-min gap per attribute, with interval and the gap expected from noise (see `tables.gaps_table`).
        tests: of equal AUROC, TPR and FPR, corrected for their number (see `equality.equality_table`).
        comparisons: each recipe against the first one, paired, with verdicts (see `comparisons.comparison_table`).
        cross_auroc: pairwise xAUC (see `cross_auroc.cross_auroc_table`).
        adjusted: like with like: metrics of groups reweighted to a common standard (see `adjusted.adjusted_table`).
        estimand: what the numbers are about, in words.
    """

    metrics: pd.DataFrame
    gaps: pd.DataFrame
    tests: pd.DataFrame
    comparisons: pd.DataFrame
    cross_auroc: pd.DataFrame
    adjusted: pd.DataFrame
    estimand: str = field(default="")

    def save(self, folder: Path) -> None:
        """Writes one CSV per table, and `estimand.json`."""
        for name in TABLES:
            getattr(self, name).to_csv(folder / f"{name}.csv", index=False)
        (folder / "estimand.json").write_text(json.dumps({"estimand": self.estimand}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> AuditResult:
        """Reads what `save` wrote."""
        text = dict.fromkeys(
            ("recipe", "label", "group", "attribute", "known_as", "lowest_group", "highest_group", "levelling", "verdict",
             "positives_of", "negatives_of", "adjusted_for", "note"), str,
        )  # fmt: skip
        frames = {}
        for name in TABLES:
            # Only an empty cell is missing: a group may be called "None" or "NA".
            frame = pd.read_csv(folder / f"{name}.csv", dtype=text, keep_default_na=False, na_values=[""], **EXACT_DIGITS)
            frames[name] = frame.fillna({column: "" for column in text if column in frame})
        return cls(**frames, estimand=json.loads((folder / "estimand.json").read_text(encoding="utf-8"))["estimand"])


def audit(
    predictions: Predictions | pd.DataFrame | Iterable[Predictions] | Mapping[str, Predictions],
    config: AuditConfig | None = None,
    *,
    seed: int = 0,
) -> AuditResult:
    """Audits sets of predictions on the same images; the first one is the baseline of the comparisons.

    Args:
        predictions: one per recipe, rows of the test patients only; a DataFrame is read by `parse_predictions`. Without
            decisions (see `operating_points`), TPR and the like are left out.
        config: attributes, metrics, replicates, level, smallest group; default: `AuditConfig()`.
        seed: seed of the resamples and permutations, which all recipes share.

    Returns:
        The tables. `result.metrics` has columns recipe, label, attribute, group, metric, value, low, high, difference, ...,
        n, n_positive, n_patients.

    Raises:
        InputError: no rows, or the recipes are not about the same images in the same order, with the same labels.
    """
    config = config or AuditConfig()
    named = _named(predictions, config)
    first = next(iter(named.values()))
    check_alike(named)
    has_decisions = all(p.decisions is not None for p in named.values())
    metrics = choose_metrics(config.metrics, has_decisions=has_decisions)
    if not metrics:
        raise InputError(f"None of {', '.join(config.metrics)} can be measured without decisions: give thresholds.")
    attributes = choose_attributes(first.attributes, config.attributes)
    groups = find_groups(first, attributes, config.crossings)
    weight = patient_share(first) if config.weight == "patient" else None
    resamples = resample_patients(first.table["patient_id"], config.n_replicates, seed=seed)
    adjustment = None
    if config.adjust:
        adjustment = Adjustment(first, groups, resamples, config.adjust, weight, config.min_patients)
    is_compiled = is_worth_compiling(first, groups, resamples, len(named))
    collected: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    cells: dict[str, Cells] = {}
    baseline_gaps = None
    for name, current in tqdm(named.items(), desc="audit", unit="recipe", disable=None):
        cells[name] = measure_cells(
            current, groups, resamples, metrics, weight=weight, with_micro=True, is_compiled=is_compiled
        )
        made = {
            "metrics": metrics_table(cells[name], groups, current.label_names, metrics, config),
            "gaps": gaps_table(cells[name], groups, current.label_names, metrics, config, seed=seed),
            "cross_auroc": cross_auroc_table(current, groups, config, weight=weight),
        }
        if adjustment is not None:
            made["adjusted"] = adjusted_table(current, adjustment, metrics, config)
        if baseline_gaps is None:
            baseline_gaps = made["gaps"].set_index(["label", "attribute", "metric"])["low"]
        else:
            made["comparisons"] = comparison_table(
                cells[next(iter(named))], cells[name], groups, current.label_names,
                metrics, config, gap_lows=baseline_gaps,
            )  # fmt: skip
        for key, table in made.items():
            table.insert(0, "recipe", name)
            collected[key].append(table)
    tables = {key: pd.concat(parts, ignore_index=True) for key, parts in collected.items() if parts}
    tables.setdefault("comparisons", pd.DataFrame(columns=["recipe", *COMPARISON_COLUMNS]))
    tables.setdefault("adjusted", tables["metrics"].iloc[:0].assign(adjusted_for="", dropped_share=np.nan, note=""))
    tables["tests"] = equality_table(named, cells, groups, config, seed=seed, weight=weight)
    tables["comparisons"] = with_verdicts(tables["comparisons"], config)
    _log_undefined(tables["metrics"])
    return AuditResult(**tables, estimand=estimand(first, config))


def compare(
    before: Predictions | pd.DataFrame,
    after: Predictions | pd.DataFrame,
    config: AuditConfig | None = None,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Is `after` fairer than `before`? Paired changes on the same patients; see `comparisons.comparison_table`.

    Rows are matched by image, so the two may be in different orders.

    Args:
        before: the baseline.
        after: the other predictions, of the same images.
        config: as of `audit`.
        seed: seed of the resamples.

    Raises:
        InputError: they are not about the same images, or one of them holds several recipes.
    """
    config = config or AuditConfig()
    a, b = (_only_one(_named(p, config)) for p in (before, after))
    names = [str(p.table["recipe"].iloc[0]) for p in (a, b)]
    if names[0] == names[1]:
        names = [f"{names[0]} (before)", f"{names[1]} (after)"]
    return audit({names[0]: a, names[1]: match_rows(b, a)}, config, seed=seed).comparisons


def match_rows(predictions: Predictions, like: Predictions) -> Predictions:
    """Returns predictions in the row order of others.

    Raises:
        InputError: an image is in only one of them or is repeated, or the findings differ.
    """
    images, wanted = (p.table["image_id"].astype(str) for p in (predictions, like))
    n_repeated = int(images.duplicated().sum() + wanted.duplicated().sum())
    if n_repeated:
        raise InputError(f"Rows cannot be matched by image: {n_repeated} rows repeat an image_id. Keep one row of each image.")
    position = pd.Index(images).get_indexer(wanted)
    n_missing = int((position < 0).sum())
    if n_missing or len(predictions.table) != len(like.table):
        raise InputError(
            f"Predictions of different images cannot be compared: {n_missing} of {len(like.table)} images are missing from "
            f"the second, which has {len(predictions.table)}. Give both the same images."
        )
    missing = [name for name in like.label_names if name not in predictions.label_names]
    if missing:
        raise InputError(f"Predictions with different findings cannot be compared; the second lacks {', '.join(missing)}.")
    columns = [predictions.label_names.index(name) for name in like.label_names]
    matched = predictions.rows(position)
    return replace(
        matched,
        y_true=matched.y_true[:, columns],
        scores=matched.scores[:, columns],
        decisions=None if matched.decisions is None else matched.decisions[:, columns],
        label_names=like.label_names,
    )


def patient_share(predictions: Predictions) -> np.ndarray:
    """Returns `[n]`, one over the number of the patient's images: each patient weighs one."""
    patient = predictions.table["patient_id"].astype(str)
    return 1 / patient.groupby(patient).transform("size").to_numpy(np.float64)


def estimand(predictions: Predictions, config: AuditConfig) -> str:
    """Returns in words what the numbers are about."""
    table = predictions.table
    per_patient = table.groupby("patient_id").size().sort_values(ascending=False)
    tenth = per_patient.head(max(1, len(per_patient) // 10)).sum() / len(table)
    what = {"image": "an image drawn from these", "patient": "an image drawn from those of a patient drawn from these"}
    return (
        f"Each number is about {what[config.weight]}: {len(table):,} rows of {len(per_patient):,} patients, of whom the tenth "
        f"with the most rows hold {tenth:.0%} of them. Intervals say how it would vary with other patients of this kind."
    )


def with_verdicts(comparisons: pd.DataFrame, config: AuditConfig) -> pd.DataFrame:
    """Adds `p_holm`, `p_benjamini_hochberg` and `verdict` to comparisons.

    A family of tests, named beforehand, is one metric over all recipes, attributes and findings, separately for gaps and for
    groups, and for the macro average and for single findings: a claim about the average does not pay for 14 others. A change
    is better or worse where its interval does not hold 0 and Holm's p-value is below 1 - confidence.
    """
    made = comparisons.assign(p_holm=np.nan, p_benjamini_hochberg=np.nan)
    family = [made["metric"], made["group"] == GAP, made["label"] == MACRO]
    for _, own in made.groupby(family, sort=False):
        p = own["p_value"].to_numpy(float)
        made.loc[own.index, "p_holm"] = adjust_p_values(p, "holm")
        made.loc[own.index, "p_benjamini_hochberg"] = adjust_p_values(p, "benjamini_hochberg")
    made["verdict"] = [
        verdict(row.low, row.high, better=_better(row), p_value=row.p_holm, alpha=1 - config.confidence)
        for row in made.itertuples()
    ]
    return made


def _better(row) -> str:
    """Which way is better for a row of the comparisons: a gap is better smaller, whatever its metric."""
    return "lower" if row.group == GAP or row.metric == EQUALIZED_ODDS else METRICS[row.metric].better


def _named(predictions, config: AuditConfig) -> dict[str, Predictions]:
    """Returns the predictions by name, whatever form they were given in."""
    if isinstance(predictions, pd.DataFrame):
        read = parse_predictions(predictions, attributes=config.attributes, keep=config.adjust)
        for line in (*read.notes, *read.warnings):  # what is left out is said, to a caller in Python too
            logger.info("audit: %s", line)
        return read.predictions
    if isinstance(predictions, Mapping):
        named = dict(predictions)
        if not named:
            raise InputError("There are no predictions to audit.")
        return named
    many = [predictions] if isinstance(predictions, Predictions) else list(predictions)
    if not many:
        raise InputError("There are no predictions to audit.")
    if any(len(p.table) == 0 for p in many):
        raise InputError("There is no row to audit.")
    names = [str(p.table["recipe"].iloc[0]) for p in many]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"Several predictions are of the recipe {', '.join(map(repr, repeated))}, so their results cannot be told apart. "
            'Give a mapping instead, for instance {"erm, seed 0": ..., "erm, seed 1": ...}.'
        )
    return dict(zip(names, many, strict=True))


def _only_one(named: dict[str, Predictions]) -> Predictions:
    if len(named) > 1:
        raise InputError(f"Two sets of predictions are compared; one side holds {len(named)}: {', '.join(named)}. Use audit.")
    return next(iter(named.values()))


def check_alike(named: Mapping[str, Predictions]) -> None:
    """Raises InputError unless all predictions are of the same images, patients, findings and labels, in the same order."""
    first = next(iter(named.values()))
    if len(first.table) == 0:
        raise InputError("There is no row to audit.")
    for other in list(named.values())[1:]:
        if not np.array_equal(first.table["image_id"].astype(str), other.table["image_id"].astype(str)):
            raise InputError("Predictions of different images, or in another order, cannot be compared.")
        if not np.array_equal(first.table["patient_id"].astype(str), other.table["patient_id"].astype(str)):
            raise InputError("Predictions that name other patients for the same images cannot be compared.")
        if first.label_names != other.label_names or not np.array_equal(first.y_true, other.y_true, equal_nan=True):
            raise InputError("Predictions with different findings or labels (y_true) cannot be compared.")


def _log_undefined(metrics: pd.DataFrame) -> None:
    n = int(np.isnan(metrics["value"]).sum())
    if n:
        logger.info("audit: %d of %d cells are undefined (one class only) and stay NaN", n, len(metrics))
