"""Plants bias on the rows of any cohort, real ones included: relabels, resamples or degrades; the truth is kept.

`annotation:0.3:sex=F` records 30% of the women's findings as absent and keeps the labels as they were as reference labels.
On real films a finding cannot be taken away or faded alone, so `prevalence` leaves out films that have it, and
`presentation` blurs all films of the group. FairREAD's data inflation (a finding more common in one race; arXiv 2412.16373)
is `prevalence` for one finding in the other groups.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from biascxr.cohort.chexpert_labels import NO_FINDING, SUPPORT_DEVICES
from biascxr.containers import Cohort
from biascxr.errors import InputError, unknown_name
from biascxr.phantom.mechanisms import MECHANISMS, Effect

FORM = "MECHANISM:STRENGTH:ATTRIBUTE=GROUP[:FINDING]"
STREAM_PLANT = 31


@dataclass(frozen=True)
class Planting:
    """One bias to plant.

    Attributes:
        mechanism: key in `MECHANISMS`.
        strength: fraction in [0, 1].
        attribute: attribute of the cohort.
        group: the group that is treated worse.
        finding: the one finding it is about; None for all (and for `acquisition` the most frequent one).
    """

    mechanism: str
    strength: float
    attribute: str
    group: str
    finding: str | None = None

    @classmethod
    def parse(cls, text: str) -> Planting:
        """Reads `MECHANISM:STRENGTH:ATTRIBUTE=GROUP[:FINDING]`.

        Raises:
            InputError: the text is not of this form, the mechanism unknown, or the strength no fraction.
        """
        parts = text.split(":")
        if len(parts) not in (3, 4) or "=" not in parts[2]:
            raise InputError(f"--plant {text!r} is not of the form {FORM}, for instance annotation:0.3:sex=F.")
        if parts[0] not in MECHANISMS:
            raise unknown_name("mechanism", parts[0], MECHANISMS)
        try:
            strength = float(parts[1])
        except ValueError:
            strength = float("nan")
        if not 0 <= strength <= 1:
            raise InputError(f"--plant {text!r}: the strength must be a fraction from 0 to 1; got {parts[1]!r}.")
        attribute, group = parts[2].split("=", 1)
        return cls(parts[0], strength, attribute, group, parts[3] if len(parts) == 4 else None)


def plant_on_rows(cohort: Cohort, plantings: tuple[str | Planting, ...], *, seed: int) -> Cohort:
    """Plants biases one after the other.

    Args:
        cohort: any cohort; its splits stay as they are.
        plantings: what to plant, as text or parsed.
        seed: decides which rows; a larger strength takes the same rows and more.

    Returns:
        The cohort with changed labels, fewer rows, or columns `degradation` and `marker` that the records stage carries out.
        `reference_labels` are those there are, and elsewhere the labels as they were. What was done stands in
        `accounting["planted"]`.

    Raises:
        InputError: an attribute, group or finding is not in the cohort, or vectors cannot be degraded or marked.
    """
    parsed = [Planting.parse(p) if isinstance(p, str) else p for p in plantings]
    known = cohort.reference_labels
    truth = cohort.labels.copy() if known is None else np.where(np.isnan(known), cohort.labels, known)
    cohort = replace(cohort, reference_labels=truth, accounting=cohort.accounting | {"planted": []})
    for index, planting in enumerate(parsed):
        cohort = _plant(cohort, planting, np.random.default_rng([seed, STREAM_PLANT, index]))
    return cohort


def _plant(cohort: Cohort, planting: Planting, rng: np.random.Generator) -> Cohort:
    in_group = _rows_of_group(cohort, planting)
    effect = MECHANISMS[planting.mechanism].effect(planting.strength)
    findings = _findings(cohort, planting, effect)
    if cohort.content == "vector" and (effect.fade or effect.marked):
        raise InputError(
            f"--plant {planting.mechanism} changes images, and this table points to precomputed vectors. Plant annotation, "
            "prevalence, selection or under_representation, or start from the images."
        )
    # One draw per study and finding, and per patient, whatever the strength: views of a study agree, a larger strength
    # takes the same ones and more.
    study, studies = pd.factorize(cohort.table["study_id"])
    patient, patients = pd.factorize(cohort.table["patient_id"])
    of_cell = rng.random((len(studies), len(cohort.label_names)))[study]
    of_sick = rng.random((len(studies), len(cohort.label_names)))[study]
    of_study, of_patient = rng.random(len(studies))[study], rng.random(len(patients))[patient]

    has = cohort.labels[:, findings] == 1
    learned = (cohort.table["split"] != "test").to_numpy()
    sick = _any_of(has, study)
    leaves = in_group & (
        (sick & (of_study < effect.absent))
        | (learned & _any_of(has & (of_sick[:, findings] < effect.sick_left_out), study))
        | (learned & (of_patient < effect.left_out))
    )
    overlooked = np.zeros(cohort.labels.shape, bool)
    overlooked[:, findings] = has & in_group[:, None] & (of_cell[:, findings] < effect.overlooked)
    changed = {"findings overlooked": int(overlooked.sum()), "images left out": int(leaves.sum())}
    if overlooked.any():
        cohort = _overlook(cohort, overlooked)
    if effect.fade:
        before = cohort.table.get("degradation", 0.0)
        cohort = _with_column(cohort, "degradation", np.maximum(before, np.where(in_group, effect.fade, 0.0)))
        changed["images blurred"] = int(in_group.sum())
    if effect.marked:
        # Where it is judged the marker is as frequent, and says nothing.
        rate = effect.marked * (sick & in_group & learned).sum() / max(1, (in_group & learned).sum())
        marked = in_group & np.where(learned, sick & (of_study < effect.marked), of_study < rate)
        cohort = _with_column(cohort, "marker", marked | np.asarray(cohort.table.get("marker", False), bool))
        changed["images marked"] = int(marked.sum())
    if leaves.any():
        cohort = _without(cohort, leaves, planting)
    done = vars(planting) | {name: n for name, n in changed.items() if n}
    return replace(cohort, accounting=cohort.accounting | {"planted": [*cohort.accounting["planted"], done]})


def _rows_of_group(cohort: Cohort, planting: Planting) -> np.ndarray:
    groups = {a.name: a.groups for a in cohort.attributes}
    if planting.attribute not in groups:
        raise unknown_name("attribute", planting.attribute, groups)
    if planting.group not in groups[planting.attribute]:
        raise unknown_name(f"group of {planting.attribute}", planting.group, groups[planting.attribute])
    return (cohort.table[planting.attribute] == planting.group).to_numpy()


def _findings(cohort: Cohort, planting: Planting, effect: Effect) -> np.ndarray:
    """Returns the columns of the findings that a planting is about."""
    names = cohort.label_names
    if planting.finding is not None:
        if planting.finding not in names:
            raise unknown_name("finding", planting.finding, names)
        if planting.finding == NO_FINDING:
            raise InputError(f"--plant takes a finding, and {NO_FINDING} is the absence of all: it follows from the others.")
        return np.array([names.index(planting.finding)])
    # A tube is not a disease, and No Finding is the absence of the others.
    diseases = np.array([i for i, name in enumerate(names) if name not in (NO_FINDING, SUPPORT_DEVICES)], int)
    if len(diseases) == 0:
        raise InputError(f"--plant needs a finding; the table has {', '.join(names)} only.")
    if effect.marked:
        return diseases[[np.argmax((cohort.labels[:, diseases] == 1).sum(0))]]
    return diseases


def _any_of(has: np.ndarray, study: np.ndarray) -> np.ndarray:
    """Returns whether any image of each row's study has any of the findings, `[n] bool`."""
    return np.bincount(study, weights=has.any(axis=1))[study] > 0


def _overlook(cohort: Cohort, overlooked: np.ndarray) -> Cohort:
    """Records findings as absent; a film whose diseases were all overlooked is recorded as No Finding."""
    labels = np.where(overlooked, np.float32(0), cohort.labels)
    recorded = None if cohort.recorded is None else np.where(overlooked, np.float32(0), cohort.recorded)
    if NO_FINDING in cohort.label_names:
        column = cohort.label_names.index(NO_FINDING)
        diseases = [i for i, name in enumerate(cohort.label_names) if name not in (NO_FINDING, SUPPORT_DEVICES)]
        # An uncertain disease is a mention: such a film is not labelled No Finding.
        left = labels if recorded is None else recorded
        cleared = overlooked[:, diseases].any(axis=1) & ~np.isin(left[:, diseases], (1.0, -1.0)).any(axis=1)
        for block in (labels, recorded):
            if block is not None:
                block[cleared, column] = 1.0
    return replace(cohort, labels=labels, recorded=recorded)


def _with_column(cohort: Cohort, name: str, values: np.ndarray) -> Cohort:
    return replace(cohort, table=cohort.table.assign(**{name: np.asarray(values)}))


def _without(cohort: Cohort, leaves: np.ndarray, planting: Planting) -> Cohort:
    reason = f"planted: {planting.mechanism} in {planting.attribute} {planting.group}"
    excluded = cohort.accounting.get("excluded", {})
    excluded = excluded | {reason: excluded.get(reason, 0) + int(leaves.sum())}
    kept = cohort.rows(cohort.table["image_id"][~leaves].to_numpy(object))
    empty = {"train", "validation", "calibration", "test"} - set(kept.table["split"])
    if empty:
        raise InputError(f"--plant {planting.mechanism} leaves no row in {', '.join(sorted(empty))}; use a smaller strength.")
    attributes = tuple(
        replace(a, groups=tuple(g for g in a.groups if (kept.table[a.name] == g).any())) for a in kept.attributes
    )
    accounting = kept.accounting | {
        "excluded": excluded,
        "rows_selected": len(kept),
        "n_patients": int(kept.table["patient_id"].nunique()),
    }
    return replace(kept, attributes=attributes, accounting=accounting)
