"""The attribute erased from the vectors and heads trained anew: what do they lose, what stays readable?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.containers import Attribute
from biascxr.errors import InputError, unknown_name
from biascxr.leakage import MACRO
from biascxr.leakage.base import ProbeRows
from biascxr.leakage.dependence.effects import Effect, auroc_of, deviations_of, group_differences, logit_of, towards_equality
from biascxr.leakage.dependence.rows import dependence_table, part_codes
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.representation.leace import Leace, LeaceSettings
from biascxr.mitigation.representation.standardize import Standardize
from biascxr.mitigation.training.base import NetworkSettings
from biascxr.mitigation.training.linear import LinearSettings

FORMS = ("linear", "mlp")
ERASURES = ("marginal", "conditional")
SMALL_NETWORK = NetworkSettings(hidden=(128,), max_epochs=60, patience=8)


def retrained(
    train: SplitData,
    validation: SplitData,
    test: SplitData,
    *,
    attribute: Attribute,
    recipe: str = "",
    forms: Sequence[str] = FORMS,
    probes: Sequence[str] = ("knn", "perceptron"),
    linear: LinearSettings | None = None,
    network: NetworkSettings = SMALL_NETWORK,
    confidence: float = 0.95,
    seed: int,
) -> pd.DataFrame:
    """Trains heads before and after the attribute is erased from standardised vectors, and reads what is left with probes.

    Two erasures, both LEACE fitted on the training rows: `marginal` (the attribute) and `conditional` (what of the attribute
    the labels do not explain). Two heads: `linear` (penalised logistic regression) and `mlp`.

    Why marginal linear erasure alone misleads, in both directions. It takes too much: where prevalence differs between
    groups, the directions along which a finding is read also tell the groups apart, are erased with them, and the AUROC of
    an innocent head falls; the conditional form keeps them. It takes too little: it leaves no *linear* trace, but a network
    or a neighbour search still reads an attribute that is coded by spreads or products of coordinates, and a network trained
    anew still uses it. So a fall of AUROC after marginal erasure is no proof of use, and its absence none of disuse. Read it
    beside the conditional form, the MLP and the probes; the verdict rests on `given_label` and `frozen_head`.

    Measures, per finding and macro, on the same test rows, with an interval over patients: `auroc_change_<erasure>`, after less
    before, and `group_difference_change_<erasure>`, by how much the groups' mean logits within a label value moved apart
    (above 0) or together (`effects.towards_equality`), each head's logits in units of their own deviation. It speaks of
    these trained heads: another training seed moves them too. And `readable_<probe>_before`, `readable_<probe>_<erasure>`:
    macro AUROC of the attribute from vectors, on test; these stand once, with the first form. `margin` is empty; `n`:
    patients.

    Args:
        train: rows to learn from.
        validation: rows for early stopping, and for the probes' settings.
        test: rows to judge; nothing is fitted on them.
        attribute: what is erased.
        recipe: whose vectors they are.
        forms: of `FORMS`.
        probes: keys of `biascxr.leakage.PROBES`; none is allowed.
        linear: settings of the linear head.
        network: settings of the MLP.
        confidence: level of the intervals.
        seed: of training and probes; all heads of one form begin alike.

    Returns:
        `dependence.csv` rows with evidence `retrained_linear` and `retrained_mlp`.

    Raises:
        InputError: an unknown form, or an attribute that the rows do not have.

    Reference: Ravfogel et al. 2020 and Belrose et al. 2023 (erasure); Elazar and Goldberg 2018 (a probe trained anew reads
        what an adversary removed); Glocker et al. 2023 (encoding is not use).
    """
    for form in forms:
        if form not in FORMS:
            raise unknown_name("form of head", form, FORMS)
    if attribute.name not in train.attributes:
        raise InputError(f"attribute must be one of the rows' {list(train.attributes)}; got {attribute.name!r}.")
    standard = Standardize().fit(train, _ones(train))
    train, validation, test = (standard.applied_to(part) for part in (train, validation, test))
    parts = {"before": (train, validation, test)}
    for erasure in ERASURES:
        settings = LeaceSettings(attributes=(attribute.name,), within_label=erasure == "conditional")
        eraser = Leace(settings).fit(train, _ones(train))
        parts[erasure] = tuple(eraser.applied_to(part) for part in (train, validation, test))

    table = []
    patient = np.unique(test.patient_id.astype(str), return_inverse=True)[1]
    common = {"recipe": recipe, "attribute": attribute.name, "group": MACRO}
    for form in forms:
        made = {}
        for erasure, (own_train, own_validation, own_test) in parts.items():
            method = _method(form, linear, network)
            head = method.fit(own_train, _ones(own_train), own_validation, seed=seed)
            made[erasure] = _measured(head.predict(own_test.vectors), test, part_codes(test, attribute), attribute)
        for erasure in ERASURES:
            for measure, changes in _changes(made["before"], made[erasure]).items():
                for label, change in zip((*test.label_names, MACRO), (*changes, Effect.mean(changes)), strict=True):
                    low, high = change.interval(patient, confidence)
                    row = common | {"evidence": f"retrained_{form}", "measure": f"{measure}_change_{erasure}", "label": label}
                    table.append(row | {"value": change.value, "low": low, "high": high, "n": int(patient.max(initial=-1)) + 1})
    for probe in probes if forms else ():
        for erasure, own in parts.items():
            row = common | {"evidence": f"retrained_{forms[0]}", "measure": f"readable_{probe}_{erasure}", "label": MACRO}
            table.append(row | _readable(probe, own, attribute, confidence=confidence, seed=seed))
    return dependence_table(table)


def _method(form: str, linear: LinearSettings | None, network: NetworkSettings):
    from biascxr.mitigation.training.erm import Erm
    from biascxr.mitigation.training.linear import Linear

    return Linear(linear) if form == "linear" else Erm(network)


@dataclass(frozen=True)
class _Judged:
    """A head's test scores, measured: per finding, and per finding and group."""

    aurocs: list[Effect]
    differences: list[list[Effect]]


def _measured(scores: np.ndarray, test: SplitData, codes: np.ndarray, attribute: Attribute) -> _Judged:
    logits, aurocs, differences = logit_of(scores), [], []
    for j, deviation in enumerate(deviations_of(logits)):
        label, logit = test.labels[:, j], logits[:, j]
        aurocs.append(auroc_of(label, logit, test.patient_id))
        own = group_differences(logit, label, codes, n_groups=len(attribute.groups))
        differences.append([effect.times(1 / deviation) for effect in own])
    return _Judged(aurocs, differences)


def _changes(before: _Judged, after: _Judged) -> dict[str, list[Effect]]:
    return {
        "auroc": [new.minus(old) for new, old in zip(after.aurocs, before.aurocs, strict=True)],
        "group_difference": [
            towards_equality(old, new) for old, new in zip(before.differences, after.differences, strict=True)
        ],
    }


def _readable(
    probe: str, parts: tuple[SplitData, SplitData, SplitData], attribute: Attribute, *, confidence: float, seed: int
) -> dict[str, float]:
    """Returns macro AUROC, interval and number of test patients of known group of what a probe reads."""
    from biascxr.leakage import find_probe

    scaler = Standardize().fit(parts[0], _ones(parts[0]))
    rows = []
    for part in parts:
        codes = part_codes(part, attribute)
        known = np.flatnonzero(codes >= 0)
        vectors = scaler.transform(np.asarray(part.vectors[known]))
        rows.append(ProbeRows(vectors, codes[known], part.patient_id[known]))
    train, validation, test = rows
    patient = np.unique(test.patient_id.astype(str), return_inverse=True)[1]
    n = int(patient.max(initial=-1)) + 1
    if len(np.unique(train.codes)) < 2 or len(np.unique(test.codes)) < 2:
        return {"n": n}
    k = len(attribute.groups)
    reading = find_probe(probe).read(
        train, [test.vectors], n_groups=k, validation=validation if len(validation) else None, seed=seed
    )
    scores = reading.scores[0]
    readable = [g for g in np.unique(test.codes) if not np.isnan(scores[:, g]).any()]
    effect = Effect.mean([auroc_of((test.codes == g).astype(float), scores[:, g], test.patient_id) for g in readable])
    low, high = effect.interval(patient, confidence)
    return {"value": effect.value, "low": low, "high": high, "n": n}


def _ones(part: SplitData) -> np.ndarray:
    return np.ones(len(part), np.float32)


__all__ = ["ERASURES", "FORMS", "SMALL_NETWORK", "retrained"]
