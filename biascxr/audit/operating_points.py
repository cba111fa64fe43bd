"""Operating points: thresholds fitted on some patients and put to others, so that decisions are compared fairly.

At 0.5 a model that flags nobody looks perfectly fair, and a threshold fitted on the rows it is judged on looks better than
it is. So the rule is named, fitted on rows of its own, and refused on rows that share a patient with them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from biascxr.audit.groups import ALL
from biascxr.containers import Attribute, Predictions
from biascxr.errors import InputError, unknown_name
from biascxr.metrics.thresholds import THRESHOLD_RULES, shrink_threshold

FITS_NOTHING = "0.5"
# The setting that `target` stands for, and its default; the other rules have no target.
TARGETS: dict[str, tuple[str, float | None]] = {"fixed_fpr": ("fpr", 0.20), "fixed_tpr": ("tpr", None)}


@dataclass(frozen=True, eq=False)
class OperatingPoints:
    """Thresholds per label, and per group of one attribute if asked for.

    Attributes:
        table: columns `label, attribute, group, threshold, own_threshold, n_positive, n_negative, n_positive_patients,
            n_negative_patients, note`.
            Group `"all"` (attribute `""`) serves everyone without a threshold of their own. `own_threshold` is what the
            group's rows alone give, `threshold` is that drawn towards everyone's. NaN where none could be fitted. Both are
            numbers that float32 holds. Counts are of images, the last one of patients.
        rule: name in `THRESHOLD_RULES`.
        target: the FPR or TPR aimed at; None for rules without one.
        patients: ids, as text, of the patients it was fitted on; empty for the rule that fits nothing.
    """

    table: pd.DataFrame
    rule: str
    target: float | None
    patients: frozenset[str] = field(repr=False)

    def decide(self, predictions: Predictions) -> np.ndarray:
        """Turns scores into decisions.

        Args:
            predictions: rows of other patients than the thresholds were fitted on.

        Returns:
            `[n, L] float32` in {0, 1}, NaN where no threshold could be fitted. Rows whose group is unknown, or has no
            threshold of its own, get the threshold of everyone.

        Raises:
            InputError: a patient is in both sets of rows, a label was not fitted, or the attribute is missing.
        """
        self._refuse_shared_patients(predictions)
        decisions = np.empty(predictions.scores.shape, np.float32)
        for index, label in enumerate(predictions.label_names):
            rows = self.table[self.table["label"] == label]
            if rows.empty:
                raise unknown_name("label (no threshold was fitted for it)", label, self.table["label"].unique())
            threshold = np.full(len(decisions), rows.loc[rows["attribute"] == "", "threshold"].iloc[0], np.float32)
            for row in rows[rows["attribute"] != ""].itertuples():
                if row.attribute not in predictions.table:
                    raise unknown_name("column of the predictions' table", row.attribute, predictions.table.columns)
                threshold[_text(predictions, row.attribute) == row.group] = row.threshold
            # Both sides in float32: rounding keeps the order, so a score that was the threshold is flagged in any dtype.
            flagged = predictions.scores[:, index].astype(np.float32) >= threshold
            decisions[:, index] = np.where(np.isnan(threshold), np.nan, flagged)
        return decisions

    def _refuse_shared_patients(self, predictions: Predictions) -> None:
        if self.rule == FITS_NOTHING:
            return
        shared = self.patients & set(_text(predictions, "patient_id"))
        if shared:
            raise InputError(
                f"{len(shared)} of {predictions.table['patient_id'].nunique()} patients are among those that the "
                f"{self.rule!r} thresholds were fitted on, so their decisions would look better than they are. Fit on rows "
                f"of other patients, for instance the calibration split, or take the rule {FITS_NOTHING!r}, which fits nothing."
            )


def fit_thresholds(
    fit_on: Predictions,
    rule: str,
    *,
    target: float | None = None,
    attribute: str | None = None,
    shrinkage: float = 25.0,
) -> OperatingPoints:
    """Fits one threshold per label, and one per group of an attribute if asked for.

    Args:
        fit_on: rows to fit on, for instance those of the calibration split.
        rule: name in `THRESHOLD_RULES`.
        target: the FPR of `fixed_fpr` (default 0.20) or the TPR of `fixed_tpr`, in [0, 1]; None for the other rules.
        attribute: whose known groups get thresholds of their own; None: one threshold for everyone.
        shrinkage: patients at which a group's own threshold and everyone's count alike (see `shrink_threshold`): those with a
            positive image, or for `fixed_fpr`, which rests on them, with a negative one; patients, not images, since images
            of one patient say much the same. 0: the group's own as it is.

    Returns:
        The thresholds. A group without the class that the rule needs gets everyone's, and a note.

    Raises:
        InputError: no rows, an unknown rule or attribute, a target missing, out of range or without meaning.
    """
    settings = _settings(rule, target)
    if shrinkage < 0:
        raise InputError(f"shrinkage must be at least 0 patients; got {shrinkage}.")
    if len(fit_on.table) == 0:
        raise InputError("There is no row to fit thresholds on: the split is empty.")
    chosen = _attribute(fit_on, attribute)
    support = "n_negative_patients" if rule == "fixed_fpr" else "n_positive_patients"
    module, function = THRESHOLD_RULES[rule].split(":")
    fit = getattr(importlib.import_module(module), function)
    everyone = np.ones(len(fit_on.table), bool)
    rows = []
    for index, label in enumerate(fit_on.label_names):
        overall = _fit_rows(fit_on, index, everyone, fit, settings)
        threshold = overall["own_threshold"]
        note = "the class that the rule needs is missing: no threshold, no decision" if np.isnan(threshold) else ""
        rows.append({"label": label, "attribute": "", "group": ALL, "threshold": threshold, **overall, "note": note})
        for group in chosen.groups if chosen else ():
            own = _fit_rows(fit_on, index, _text(fit_on, chosen.name) == group, fit, settings)
            drawn = shrink_threshold(own["own_threshold"], threshold, own[support], shrinkage)
            rows.append(
                {
                    "label": label,
                    "attribute": chosen.name,
                    "group": group,
                    "threshold": float(np.float32(drawn)),
                    **own,
                    "note": _group_note(own, own[support], shrinkage),
                }
            )
    columns = ["label", "attribute", "group", "threshold", "own_threshold"]
    columns += ["n_positive", "n_negative", "n_positive_patients", "n_negative_patients", "note"]
    patients = frozenset() if rule == FITS_NOTHING else frozenset(_text(fit_on, "patient_id"))
    target = next(iter(settings.values()), None)
    return OperatingPoints(pd.DataFrame(rows, columns=columns), rule, target, patients)


def _text(predictions: Predictions, column: str) -> np.ndarray:
    """A column as text: a CSV gives ids and groups written as digits back as numbers."""
    return predictions.table[column].to_numpy(object).astype(str)


def _settings(rule: str, target: float | None) -> dict[str, float]:
    if rule not in THRESHOLD_RULES:
        raise unknown_name("threshold rule", rule, THRESHOLD_RULES)
    if rule not in TARGETS:
        if target is not None:
            raise InputError(f"The rule {rule!r} has no target; got {target}. Rules with one: {', '.join(TARGETS)}.")
        return {}
    name, default = TARGETS[rule]
    target = default if target is None else target
    if target is None:
        raise InputError(f"The rule {rule!r} needs a target: the {name.upper()} to reach, in [0, 1], for instance 0.9.")
    if not 0 <= target <= 1:
        raise InputError(f"The target of {rule!r} must lie in [0, 1]; got {target}. Give a fraction, not percent.")
    return {name: target}


def _attribute(fit_on: Predictions, name: str | None) -> Attribute | None:
    if name is None:
        return None
    by_name = {a.name: a for a in fit_on.attributes}
    if name not in by_name:
        raise unknown_name("attribute", name, by_name)
    return by_name[name]


def _fit_rows(fit_on: Predictions, index: int, rows: np.ndarray, fit: Callable[..., float], settings: dict) -> dict:
    """The threshold of some rows, and what it rests on."""
    y_true, patients = fit_on.y_true[rows, index], _text(fit_on, "patient_id")[rows]
    # Fitted in float32, the dtype it is put to (see `OperatingPoints.decide`).
    own = fit(y_true, fit_on.scores[rows, index].astype(np.float32), None, **settings)
    return {
        "own_threshold": float(own),
        "n_positive": int((y_true == 1).sum()),
        "n_negative": int((y_true == 0).sum()),
        "n_positive_patients": len(np.unique(patients[y_true == 1])),
        "n_negative_patients": len(np.unique(patients[y_true == 0])),
    }


def _group_note(own: dict, n_patients: int, shrinkage: float) -> str:
    if np.isnan(own["own_threshold"]):
        return "the class that the rule needs is missing: threshold of everyone"
    if n_patients == 0:
        return "no patient of the class that the rule rests on: threshold of everyone"
    if n_patients < shrinkage:
        return "few patients of the class that the rule rests on: nearer to the threshold of everyone than to its own"
    return ""
