"""How far logits or scores moved, in ranking, in fit and between groups; each with what a row adds, hence with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from biascxr.leakage.stratified import stratified_auroc

NEGLIGIBLE = 1e-12  # a change below it is rounding


@dataclass(frozen=True)
class Effect:
    """A value and each row's influence on it.

    Attributes:
        value: NaN where it is not defined.
        influence: `[n]`, sums to 0.
    """

    value: float
    influence: np.ndarray

    @classmethod
    def mean(cls, effects: Sequence[Effect]) -> Effect:
        """Returns the mean of those that are defined."""
        own = [e for e in effects if np.isfinite(e.value)]
        if not own:
            return cls(float("nan"), np.full(len(effects[0].influence), np.nan))
        return cls(float(np.mean([e.value for e in own])), np.mean([e.influence for e in own], axis=0))

    def times(self, factor: float) -> Effect:
        """Returns the value in another unit."""
        return Effect(self.value * factor, self.influence * factor)

    def minus(self, other: Effect) -> Effect:
        """Returns the difference of two values on the same rows."""
        return Effect(self.value - other.value, self.influence - other.influence)

    def interval(self, patient: np.ndarray, confidence: float) -> tuple[float, float]:
        """Returns value +- t x standard error, the sums within patients (`[n]`, 0 to P - 1) being independent."""
        sums = np.bincount(patient, self.influence)
        n_patients = len(sums)
        if n_patients < 2:
            return float("nan"), float("nan")
        error = np.sqrt(n_patients / (n_patients - 1) * sums @ sums)
        half = float(stats.t.ppf((1 + confidence) / 2, n_patients - 1) * error)
        return self.value - half, self.value + half


def rms_change(before: np.ndarray, after: np.ndarray) -> Effect:
    """Root mean square change of a logit over rows, in units of the logit's own deviation: 0 nothing, 1 as large as itself."""
    n, squares = len(before), np.square(after - before)
    centred = np.square(before - before.mean())
    mean, variance = squares.mean(), centred.mean()
    if not variance > 0:
        return Effect(float("nan"), np.full(n, np.nan))
    value = float(np.sqrt(mean / variance))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(mean > 0, squares / mean - 1, 0.0) - (centred / variance - 1)
    return Effect(value, value * relative / (2 * n))


def auroc_of(label: np.ndarray, score: np.ndarray, patient_id: np.ndarray) -> Effect:
    """AUROC of a score for a label `[n]` in {0, 1, NaN}."""
    known = (~np.isnan(label)).astype(float)
    found = stratified_auroc(label == 1, score, patient_id=patient_id, strata=np.zeros(len(score), np.int64), weight=known)
    return Effect(found.value, found.influence)


def log_loss_of(label: np.ndarray, logit: np.ndarray) -> Effect:
    """Mean binary cross-entropy of a logit for a label `[n]` in {0, 1, NaN}."""
    known = ~np.isnan(label)
    losses = np.where(known, np.logaddexp(0, logit) - np.nan_to_num(label) * logit, 0.0)
    n = known.sum()
    value = losses.sum() / n if n else float("nan")
    return Effect(float(value), np.where(known, losses - value, 0.0) / max(n, 1))


def aurocs_of(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the values of `auroc_of` for `[n, L]` columns at once, `[L]`; NaN without positives or without negatives."""
    known, positive = ~np.isnan(labels), labels == 1
    ranks = stats.rankdata(np.where(known, scores, np.inf), axis=0)  # rows of unknown label come last, above all that count
    n_positive, n_known = positive.sum(0), known.sum(0)
    wins = np.where(positive, ranks, 0).sum(0) - n_positive * (n_positive + 1) / 2
    pairs = n_positive * (n_known - n_positive)
    return np.divide(wins, pairs, out=np.full(labels.shape[1], np.nan), where=pairs > 0)


def log_losses_of(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Returns the values of `log_loss_of` for `[n, L]` columns at once, `[L]`."""
    known = ~np.isnan(labels)
    losses = np.where(known, np.logaddexp(0, logits) - np.where(labels == 1, logits, 0), 0.0).sum(0)
    return np.divide(losses, known.sum(0), out=np.full(labels.shape[1], np.nan), where=known.any(0))


def deviations_of(logits: np.ndarray) -> np.ndarray:
    """Returns the standard deviation of each column of `[n, L]`, `[L]`; NaN where it is rounding, as of a constant one."""
    deviation = logits.std(0)
    return np.where(deviation > NEGLIGIBLE * np.abs(logits).max(0, initial=0.0), deviation, np.nan)


def group_differences(logit: np.ndarray, label: np.ndarray, codes: np.ndarray, *, n_groups: int) -> list[Effect]:
    """How far each group's mean logit lies from the others' within a label value, signed, in the logit's unit.

    For a group, `sum_y w_y (mean of the group - mean of the others)` among rows labelled y, w_y in proportion to
    `m n / (m + n)`, the weights of smallest variance. NaN where the group and others never have the same label value.

    Args:
        logit: `[n]`.
        label: `[n]` in {0, 1, NaN}.
        codes: `[n]`, -1 unknown.
        n_groups: k.

    Returns:
        k effects.
    """
    made = []
    for sides in _sides(label, codes, n_groups):
        value, influence, total = 0.0, np.zeros(len(logit)), sum(weight for _, _, weight in sides)
        for own, other, weight in sides:
            share, means = weight / total, (logit[own].mean(), logit[other].mean())
            value += share * (means[0] - means[1])
            influence[own] += share / len(own) * (logit[own] - means[0])
            influence[other] -= share / len(other) * (logit[other] - means[1])
        made.append(Effect(float(value) if sides else float("nan"), influence))
    return made


def towards_equality(before: Sequence[Effect], after: Sequence[Effect]) -> Effect:
    """By how much the groups' differences moved along themselves: mean over groups of `sign(before) (after - before)`.

    Below 0 where differences shrink; equal to minus their mean size where they vanish. Not a difference of absolute values,
    which near 0 measures little but noise, as either side may be the larger by chance.
    """
    return Effect.mean(
        [
            Effect(np.sign(old.value) * (new.value - old.value), np.sign(old.value) * (new.influence - old.influence))
            for old, new in zip(before, after, strict=True)
        ]
    )


def equality_contrast(before: Sequence[Effect], label: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Returns `[n]`: its product with a change of the logits is the value of `towards_equality` (NaN where that is)."""
    contrast, defined = np.zeros(len(label)), np.isfinite([effect.value for effect in before])
    for effect, sides in zip(before, _sides(label, codes, len(before)), strict=True):
        total = sum(weight for _, _, weight in sides)
        for own, other, weight in sides:
            contrast[own] += np.sign(effect.value) * weight / total / len(own)
            contrast[other] -= np.sign(effect.value) * weight / total / len(other)
    return contrast / defined.sum() if defined.any() else np.full(len(label), np.nan)


def _sides(label: np.ndarray, codes: np.ndarray, n_groups: int) -> list[list[tuple[np.ndarray, np.ndarray, float]]]:
    """Per group and label value with both sides: rows of the group, rows of the others, and the weight."""
    made = []
    for g in range(n_groups):
        pairs = [
            (np.flatnonzero((codes == g) & (label == y)), np.flatnonzero((codes >= 0) & (codes != g) & (label == y)))
            for y in (0, 1)
        ]
        made.append(
            [(own, other, len(own) * len(other) / (len(own) + len(other))) for own, other in pairs if len(own) and len(other)]
        )
    return made


def logit_of(scores: np.ndarray) -> np.ndarray:
    """Returns logits of probabilities; those that float32 rounds to 0 or 1 count as 1e-7 and 1 - 1e-7."""
    return special.logit(np.clip(np.asarray(scores, np.float64), 1e-7, 1 - 1e-7))
